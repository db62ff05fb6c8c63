"""``training.tokens``: the length of a run in tokens, resolved to steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from frontrunner.configs.errors import Violation
from frontrunner.configs.load import dump, examine, load_run, vary

Write = Callable[..., Path]
Wrong = Callable[..., dict[str, Violation]]

#: One step takes 8 sequences of 128 tokens.
SHORT = """\
model: gpt-tiny
machine: workstation
data: synthetic
training:
  seq_len: 128
  global_batch_size: 8
"""
STEP = 8 * 128


@pytest.mark.parametrize(
    ("tokens", "steps"),
    [
        (STEP, 1),
        (STEP + 1, 2),
        (1, 1),
        ("1e6", 977),  # 976.6
        ("300e9", 292_968_750),
        ("1.5e3", 2),
        (2**53, 2**53 // STEP),
    ],
)
def test_tokens_become_steps_rounded_up(write: Write, tokens: object, steps: int) -> None:
    write(f"{SHORT}  tokens: {tokens}\n")
    assert load_run("run.yaml").spec.training.steps == steps


def test_defaults_of_the_batch_count(write: Write) -> None:
    write("model: gpt-tiny\nmachine: workstation\nnodes: 4\ndata: synthetic\ntraining: {tokens: 1e6}\n")
    training = load_run("run.yaml").spec.training
    assert (training.seq_len, training.global_batch_size, training.steps) == (256, 16, 245)


def test_a_resolved_run_only_has_steps(write: Write) -> None:
    write(f"{SHORT}  tokens: 1e6\n")
    spec = load_run("run.yaml").spec
    text = dump(spec)
    assert "tokens" not in yaml.safe_load(text)["training"]
    write(text, "resolved.yaml")
    assert load_run("resolved.yaml").spec == spec
    more = load_run("resolved.yaml", ["training.tokens=2e6"]).spec.training
    assert more.steps == 1954, "a run is continued to more tokens"


@pytest.mark.parametrize(
    ("file", "overrides", "steps"),
    [
        ("steps: 7", ["training.tokens=1e6"], 977),
        ("tokens: 1e6", ["training.steps=7"], 7),
        ("tokens: 1e6", ["training.steps=7", "training.tokens=2048"], 2),
        ("tokens: 1e6", ["training.tokens=2048", "training.steps=7"], 7),
        ("tokens: 1e6", ["training.tokens=2048"], 2),
        ("tokens: 1e6", ["training={steps: 7}"], 7),
        ("steps: 7", ["training.tokens=null"], 7),
        ("tokens: 1e6", ["training.global_batch_size=16"], 489),
    ],
)
def test_the_nearest_to_the_user_decides(write: Write, file: str, overrides: list[str], steps: int) -> None:
    write(f"{SHORT}  {file}\n")
    assert load_run("run.yaml", overrides).spec.training.steps == steps


@pytest.mark.parametrize(
    ("below", "above", "steps"), [("steps: 7", "tokens: 1e6", 977), ("tokens: 1e6", "steps: 7", 7)]
)
def test_a_file_over_another(write: Write, below: str, above: str, steps: int) -> None:
    write(f"{SHORT}  {below}\n", "base.yaml")
    write(f"extends: base.yaml\ntraining: {{{above}}}\n")
    assert load_run("run.yaml").spec.training.steps == steps


def test_steps_of_a_trial_replace_tokens(write: Write) -> None:
    write(f"{SHORT}  tokens: 1e6\n")
    document = vary(load_run("run.yaml"), {"training.steps": 3}).document
    assert document is not None and document.spec.training.steps == 3


def test_both_at_once_names_both_lines(wrong: Wrong) -> None:
    (found,) = wrong(f"{SHORT}  steps: 5\n  tokens: 1e6\n").values()
    assert str(found) == (
        "run.yaml:8 training.tokens = 1000000.0: is given beside training.steps on line 7; "
        "remove one of the two"
    )


@pytest.mark.parametrize("value", ["0", "-5", "1.5", "300B", "true", "1e30", "[1]"])
def test_what_is_no_number_of_tokens(wrong: Wrong, value: str) -> None:
    found = wrong(f"{SHORT}  tokens: {value}\noptimizer: {{warmup_steps: 1000}}\n")
    assert found.keys() == {"training.tokens"}, "the warm-up is not compared with steps that are not known"
    assert found["training.tokens"].constraint == "must be a whole number of tokens from 1 to 9e+15"
    assert found["training.tokens"].line == 7


def test_a_warm_up_longer_than_the_tokens(wrong: Wrong) -> None:
    found = wrong(f"{SHORT}  tokens: {STEP * 5}\noptimizer: {{warmup_steps: 6}}\n")
    assert found["optimizer.warmup_steps"].constraint == "must be at most training.steps 5"


def test_other_mistakes_beside_tokens(wrong: Wrong) -> None:
    text = f"{SHORT}  tokens: 1e6\noptimizer: {{warmup_steps: 2000}}\n"
    assert wrong(text.replace("128", "many")).keys() == {"training.seq_len"}
    assert wrong(text.replace("gpt-tiny", "gpt-tny")).keys() == {"model"}


@pytest.mark.parametrize("theirs", ["train_tokens", "max_tokens"])
def test_other_words_for_tokens(wrong: Wrong, theirs: str) -> None:
    assert wrong(f"{SHORT}  {theirs}: 5\n")[f"training.{theirs}"].fix == "did you mean training.tokens?"


def test_tokens_of_another_type_than_a_mapping(write: Write) -> None:
    write(SHORT)
    data: Any = examine("run.yaml", ["training=5", "training.tokens=1e6"]).document
    assert data is not None and data.spec.training.tokens is None
