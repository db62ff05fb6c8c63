"""Models of transformers, trained here on any layout and given back: logits and gradients are theirs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from typer.testing import CliRunner

from frontrunner.configs.schema import ModelSpec
from frontrunner.configs.to_huggingface import config_of
from frontrunner.launcher.cli import build
from frontrunner.parallelism.runtime.data import open_dataset
from support.huggingface import MODELS, Logits, run_with_logits
from support.ranks import run_ranks
from support.runs import records
from support.specs import run_spec, saving

FAMILIES = ["mistral", "qwen2", "qwen2-tied", "qwen3", "qwen3-tied", "olmo2", "olmo2-shared"]
LAYOUTS = {"one rank": (1, 1), "tensor 2": (2, 1), "pipeline 2": (1, 2), "tensor 2 x pipeline 2": (2, 2)}
LAYOUTS["tensor 4"] = (4, 1)
#: Logits are below 10, and one forward in float32 rounds them by 1e-6.
LARGEST_DIFFERENCE = 1e-5
SAMPLES = 4


def convert(*arguments: object) -> None:
    command = ["convert", *map(str, arguments)]
    result = CliRunner().invoke(build(command), command)
    assert result.exit_code == 0, result.output


def theirs(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder of transformers by name, with random values everywhere, and the checkpoint made of it."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = folder = tmp_path_factory.mktemp(name)
            config = AutoConfig.for_model(**config_of(ModelSpec(**MODELS[name])))
            model = AutoModelForCausalLM.from_config(config)
            generator = torch.Generator().manual_seed(0)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += torch.randn(parameter.shape, generator=generator) * 0.1
            model.save_pretrained(folder / "theirs")
            convert(folder / "theirs", folder / "start", "--to", "checkpoint")
        return made[name]

    return make


def whole(parts: list[list[Logits]], tensor: int, model: ModelSpec) -> list[Logits]:
    """The logits of each validation from those of the last stage's tensor ranks."""
    of_last = parts[-tensor:]
    return [np.concatenate(each, axis=-1)[..., : model.vocab_size] for each in zip(*of_last, strict=True)]


CASES = [
    (name, layout)
    for name in FAMILIES
    for layout, (tensor, _) in LAYOUTS.items()
    if MODELS[name]["num_kv_heads"] % tensor == 0 or "olmo2" not in name
]


@pytest.mark.long_except(
    "mistral-tensor 2 x pipeline 2", "qwen2-tied-pipeline 2", "qwen3-tensor 4", "olmo2-tensor 2"
)
@pytest.mark.parametrize(("name", "layout"), CASES)
def test_from_transformers_to_a_step_and_back(
    tmp_path: Path, saved: Callable[[str], Path], name: str, layout: str
) -> None:
    tensor, pipeline = LAYOUTS[layout]
    folder = saved(name)
    spec = run_spec(
        model=MODELS[name],
        devices=tensor * pipeline,
        layout={"tensor": tensor, "pipeline": pipeline, "micro_batch_size": SAMPLES},
        training={"global_batch_size": SAMPLES, "validation_samples": SAMPLES, "steps": 1},
        optimizer={"warmup_steps": 0},
    )
    spec = saving(spec, start_from=str(folder / "start"), every_steps=1)
    parts = run_ranks(spec.world_size, run_with_logits, spec, tmp_path / "run")
    before, after = whole(parts, tensor, spec.model)
    convert(tmp_path / "run", tmp_path / "back", "--to", "huggingface", "--dtype", "float32")

    data = {split: open_dataset(spec, split=split) for split in ("train", "validation")}
    batch = {k: torch.from_numpy(np.stack([d[i] for i in range(SAMPLES)])) for k, d in data.items()}
    with torch.no_grad():
        for path, ours in ((folder / "theirs", before), (tmp_path / "back", after)):
            logits = theirs(path)(batch["validation"][:, :-1]).logits.numpy()
            assert logits.std() > 0.1
            assert np.abs(logits - ours).max() < LARGEST_DIFFERENCE
    assert np.abs(before - after).max() > 1e-3, "the step must change something"

    model = theirs(folder / "theirs")
    loss = model(batch["train"][:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(loss.flatten(0, 1), batch["train"][:, 1:].flatten())
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    (step,) = records(tmp_path / "run", "step")
    assert step["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert step["gradient_norm"] == pytest.approx(norm.item(), rel=1e-4)
