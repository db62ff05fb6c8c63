"""A working directory with files and folders that users give by mistake, and some that are fine."""

from __future__ import annotations

import json
import os
from pathlib import Path

RUN = "model: gpt-tiny\nmachine: workstation\ndata: synthetic\n"
_RESOLVED = RUN + "name: test\n"
_SWEEP = "base: ok.yaml\nspace: {layout.micro_batch_size: [1, 2]}\n"
_LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 100,
    "max_position_embeddings": 128,
}
_LOG = (
    " iteration       10/    1000 | consumed samples:          640 | elapsed time per iteration (ms): 100.0 |"
    " learning rate: 1.0E-4 | global batch size:    64 | lm loss: 1.0E+01 | grad norm: 1.0 |\n"
)
FILES: dict[str, str | bytes] = {
    "ok.yaml": RUN,
    "sp ace/it's.yaml": RUN + "layout: {tensor: x}\n",
    "ünï.yaml": RUN + "lay: 1\n",
    "empty.yaml": "",
    "tabs.yaml": RUN + "layout:\n\ttensor: 2\n",
    "binary.yaml": b"\x7fELF\0\0",
    "huge.yaml": b"a: 1\n" * 300_000,
    "latin.yaml": b"name: caf\xe9\n",
    "list.yaml": "- 1\n",
    "page.yaml": "<!DOCTYPE html>\n<html></html>\n",
    "twice.yaml": RUN + "nodes: 1\nnodes: 2\n",
    "cycle.yaml": "extends: cycle.yaml\n",
    "nowhere.yaml": "extends: gone.yaml\n",
    "corpus.yaml": RUN.replace("synthetic", "{train: gone/train, tokenizer: gone/tokenizer.json}"),
    "machine.yaml": "extends: frontier\nnum_nodes: -1\n",
    "heads.yaml": "num_layers: 2\nhidden_size: 10\nnum_heads: 3\nvocab_size: 100\n"
    "max_position_embeddings: 8\n",
    # Other trainers' and other programs' files.
    "neox.yml": "pipe-parallel-size: 1\ntrain-iters: 10\nnum-layers: 2\nseq-length: 128\n",
    "ds.json": '{"train_batch_size": 8, "zero_optimization": {"stage": 2}}',
    "titan.toml": "[training]\nsteps = 10\n[parallelism]\ntensor_parallel_degree = 1\n",
    "megatron.sh": "#!/bin/bash\npython pretrain_gpt.py --tensor-model-parallel-size 2 --num-layers 2\n",
    "meg.log": _LOG,
    "bert/config.json": '{"model_type": "bert"}',
    "llama/config.json": json.dumps(_LLAMA),
    "half/config.json": '{"model_type": "lla',
    "notebook.ipynb": '{"cells": [], "nbformat": 4}',
    "train.py": "import torch\n",
    # Sweeps and measured runs.
    "sweep.yaml": _SWEEP,
    "spaceless.yaml": "base: ok.yaml\nspace: {}\n",
    "misspelt.yaml": "base: ok.yaml\nspace: {layout.micro_batch: [1]}\n",
    "baseless.yaml": "base: gone.yaml\nspace: {layout.tensor: [1]}\n",
    "single.yaml": "base: ok.yaml\nspace: {layout.tensor: 1}\n",
    "broke.yaml": _SWEEP + "budget: {trials: 0}\n",
    "sampler.yaml": _SWEEP + "sampler: magic\n",
    "illegal.yaml": "base: ok.yaml\nspace: {layout.tensor: [3, 7]}\n",
    "rows.yaml": "- {id: a, model: llama, tp: x}\n",
    # Texts.
    "text.txt": "a few words\n" * 9,
    "empty.txt": "",
    "damaged.gz": b"\x1f\x8b\x08garbage",
    "keyless.jsonl": '{"body": "a"}\n',
    "tokenizer.json": "{}",
    "corpus/c.bin": "x",
    # Run folders.
    "folder/nothing": "",
    "runs/a/run.yaml": RUN,
    "runs/a/records.jsonl": '{"kind": "header"}\n',
    "runs/never/run.yaml": _RESOLVED,
    "runs/garbled/run.yaml": "model: [\n",
    "runs/garbled/records.jsonl": b"\0\0",
    "runs/partial/run.yaml": "model: gpt-tiny\n",
    "runs/partial/records.jsonl": '{"kind": "step", "step": 1, "ti',
    "runs/done/run.yaml": RUN + "training: {steps: 2}\n",
    "runs/done/records.jsonl": '{"kind": "header"}\n{"kind": "summary", "steps": 2}\n',
    "runs/logged/run.yaml": RUN,
    "runs/logged/logs/rank-0.log": "a\nb\nc\n",
    "runs/unsent/run.yaml": RUN,
    "runs/unsent/jobs.jsonl": '{"kind": "beg',
    "runs/probe/run.yaml": RUN,
    "runs/probe/probe.json": "{",
    "runs/other/run.yaml": RUN,
    "runs/other/probe.json": "[1]",
    "runs/day/run.yaml": RUN,
    "runs/day/parts.json": "[]",
    "runs/hung/run.yaml": RUN,
    "runs/hung/hangs/rank-0.json": "",
    "sweeps/foreign/trials.jsonl": "{",
}


def place(folder: Path) -> None:
    """Fill the folder; every path that is no plain file or folder is a pipe or a link."""
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.mkfifo(folder / "pipe.yaml")
    (folder / "broken.yaml").symlink_to("gone.yaml")
    (folder / "self.yaml").symlink_to("self.yaml")
