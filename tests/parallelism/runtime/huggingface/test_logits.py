"""Both directions against the library transformers itself: the same weights give the same logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from frontrunner.configs.schema import ModelSpec
from frontrunner.configs.to_huggingface import config_of
from support.huggingface import MODELS, Logits, Tokens, logits_of_folders, write_folders
from support.ranks import run_ranks

# Logits are about 1, and one forward in float32 amplifies nothing: rounding makes 2e-6 of it, with the oldest
# kernels of a processor too.
LARGEST_DIFFERENCE = 1e-4
SPECS = {name: ModelSpec(**fields) for name, fields in MODELS.items()}


def tokens(model: ModelSpec) -> Tokens:
    """Two sequences as long as the model allows: only far tokens see how slow rotations are scaled."""
    numbers = np.random.default_rng(0).integers(model.vocab_size, size=(2, model.max_position_embeddings))
    return [[int(token) for token in sequence] for sequence in numbers]


def their_logits(folder: Path, batch: Tokens) -> Logits:
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.float32
    with torch.no_grad():
        found: Logits = model(torch.tensor(batch)).logits.numpy()
    return found


def save_theirs(model: ModelSpec, folder: Path) -> None:
    """A model of transformers with random values everywhere, where it would start with zeros and ones."""
    config = AutoConfig.for_model(**config_of(model))
    theirs = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += torch.randn(parameter.shape, generator=generator) * 0.1
    theirs.save_pretrained(folder)


@pytest.fixture(scope="module")
def differences(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], float]:
    """The largest difference of two logits by model and direction."""
    folder = tmp_path_factory.mktemp("models")
    models, batches = list(SPECS.values()), [tokens(model) for model in SPECS.values()]
    read, written = ([folder / way / name for name in SPECS] for way in ("read", "written"))
    for model, path in zip(models, read, strict=True):
        save_theirs(model, path)
    (of_read,) = run_ranks(1, logits_of_folders, read, batches)
    (of_written,) = run_ranks(1, write_folders, models, written, batches)
    found = {}
    for way, paths, ours in (("read", read, of_read), ("written", written, of_written)):
        for path, batch, logits in zip(paths, batches, ours, strict=True):
            theirs = their_logits(path, batch)
            assert theirs.shape == logits.shape
            assert theirs.std() > 0.1
            found[path.name, way] = float(np.abs(theirs - logits).max())
    return found


@pytest.mark.parametrize("way", ["read", "written"])
@pytest.mark.parametrize("name", SPECS)
def test_logits_agree(differences: dict[tuple[str, str], float], name: str, way: str) -> None:
    assert differences[name, way] < LARGEST_DIFFERENCE
