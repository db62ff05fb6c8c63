"""Small corpora and runs that read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.corpus import write_index

MakeCorpus = Callable[..., str]
MakeSpec = Callable[..., RunSpec]


@pytest.fixture
def make_corpus(tmp_path: Path) -> MakeCorpus:
    """Writes documents of the given lengths whose tokens count up from 0, without PREFIX.json; returns
    the prefix."""

    def make(lengths: Sequence[int], dtype: str = "int32", name: str = "corpus") -> str:
        np.arange(sum(lengths)).astype(dtype).tofile(tmp_path / f"{name}.bin")
        write_index(tmp_path / f"{name}.idx", np.dtype(dtype), np.array(lengths, np.int32))
        return str(tmp_path / name)

    return make


@pytest.fixture(scope="session")
def make_spec() -> MakeSpec:
    def make(
        prefix: str | None,
        *,
        seq_len: int = 8,
        vocab_size: int = 10_000,
        validation_fraction: float = 0.2,
        tokenizer: str | None = None,
        nodes: int = 1,
        **training: Any,
    ) -> RunSpec:
        link = {"bandwidth_bytes_per_s": 1e9, "latency_s": 1e-6}
        data = {"train": prefix, "tokenizer": tokenizer, "validation_fraction": validation_fraction}
        return RunSpec.model_validate(
            {
                "name": "test",
                "model": {"num_layers": 1, "hidden_size": 8, "num_heads": 1, "vocab_size": vocab_size},
                "machine": {
                    "num_nodes": 64,
                    "packages_per_node": 1,
                    "devices_per_package": 1,
                    "device": {"name": "core", "kind": "cpu", "memory_bytes": 2**30},
                    "links": {"package": link, "node": link, "network": link},
                },
                "nodes": nodes,
                "training": {"seq_len": seq_len, "validation_samples": 1} | training,
                "data": "synthetic" if prefix is None else data,
            }
        )

    return make
