"""Conflicts between keys are reported at the key that the user wrote, and the fixes on offer work."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from frontrunner.configs import rules
from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.load import Document, examine, load_run
from frontrunner.parallelism.engines import check_engine
from frontrunner.parallelism.layout import Layout
from frontrunner.slurm import policy

Write = Callable[..., Path]

SHORTEST = {"model": "model: gpt-tiny", "machine": "machine: workstation", "data": "data: synthetic"}
ALL: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "conflicts.yaml").read_text())
CASES = [case for case in ALL if case["rule"] not in ("layout", "engine", "policy")]
LATER = [case for case in ALL if case["rule"] in ("layout", "engine", "policy")]


def _write(write: Write, case: dict[str, Any]) -> None:
    """``base.yaml`` with the case's lines over the shortest ones, and ``run.yaml`` that extends it."""
    lines = SHORTEST | {line.partition(":")[0]: line for line in case.get("base", "").splitlines()}
    write("\n".join(lines.values()), "base.yaml")
    write(f"# one line\nextends: base.yaml\n{case['own']}\n")


def _values(text: str) -> Iterator[str]:
    """The values in ``1, 2 or 4``, ``at most 8`` or ``2m or less``."""
    text = re.sub(r"^at (most|least) | or (less|more)$", "", text)
    yield from re.split(r", | or ", text)


def _overrides(violation: Violation) -> Iterator[str]:
    """Each thing that a fix offers, as an override."""
    for offer in re.split(r", or (?=set |add )", violation.fix):
        if offer.startswith(("give --", "add yours")):
            continue  # an option, or a fact that only the user knows
        if found := re.fullmatch(r"use (.+)", offer):
            yield from (f"{violation.path}={value}" for value in _values(found[1]))
        elif found := re.fullmatch(r"set (\S+) to (.+)", offer):
            yield from (f"{found[1]}={value}" for value in _values(found[2]))
        else:
            pytest.fail(f"nobody can follow this: {violation.fix}")


def _at_own_line(violation: Violation, case: dict[str, Any]) -> None:
    """It names the one line of ``run.yaml``, and a key that is written there."""
    assert (violation.path, violation.file, violation.line) == (case["at"], "run.yaml", 3)
    key = violation.path.removesuffix(".preset")  # `sharding: zero3` is short for its preset
    assert key.rpartition(".")[2] in case["own"]
    assert not violation.others


def _found(overrides: list[str], check: Callable[[Document], object]) -> tuple[Violation, ...]:
    document = load_run("run.yaml", overrides)
    try:
        check(document)
    except SpecError as error:
        return document.annotate(error).violations
    return ()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['rule']}-{case['at']}")
def test_rules_blame_what_was_written(
    write: Write, monkeypatch: pytest.MonkeyPatch, case: dict[str, Any]
) -> None:
    (rule,) = (rule for rule in rules.RULES if rule.__name__.strip("_") == case["rule"])
    monkeypatch.setattr(rules, "RULES", (rule,))
    _write(write, case)
    (violation,) = examine("run.yaml").violations
    _at_own_line(violation, case)
    if case["rule"] == "sources":
        assert violation.fix == "did you mean num_nodes?"
        return
    if case["rule"] == "secrets":  # what to do is outside of the file
        assert violation.fix.startswith("remove it, and export it before you submit")
        return
    for override in _overrides(violation):
        assert not examine("run.yaml", [override]).violations, override


def test_every_rule_is_broken_at_each_of_its_keys() -> None:
    """Every rule has cases; one that involves several keys is broken by more than one of them."""
    blamed = {
        rule.__name__.strip("_"): {case["at"] for case in CASES if case["rule"] == rule.__name__.strip("_")}
        for rule in rules.RULES
    }
    assert {rule for rule, keys in blamed.items() if len(keys) < 2} == {"sources", "secrets"}
    assert {case["rule"] for case in CASES} == blamed.keys()


def test_defaults_are_called_defaults(write: Write) -> None:
    _write(write, {"own": "optimizer: {warmup_steps: 2000}"})
    (violation,) = examine("run.yaml").violations
    assert str(violation) == (
        "run.yaml:3 optimizer.warmup_steps = 2000: must be at most training.steps 100 (steps is a default); "
        "use at most 100, or set training.steps to at least 2000"
    )


def test_values_of_other_files_are_named(write: Write) -> None:
    _write(write, {"base": "optimizer: {warmup_steps: 50}", "own": "training: {steps: 10}"})
    (violation,) = examine("run.yaml").violations
    assert violation.constraint == "must be at least warmup_steps 50 (warmup_steps is from base.yaml:4)"
    (violation,) = examine("base.yaml", ["training.steps=10"]).violations
    assert (violation.path, violation.file, violation.line) == ("training.steps", "command line", None)


def test_a_conflict_inside_a_machine_or_model_file_is_reported_there(write: Write) -> None:
    write("extends: gpt-tiny\nnum_heads: 6\n", "model.yaml")
    write("model: model.yaml\nmachine: workstation\ndata: synthetic\n")
    (violation,) = examine("run.yaml").violations
    assert (violation.file, violation.line, violation.path) == ("model.yaml", 2, "model.num_heads")


@pytest.mark.parametrize("case", LATER, ids=lambda case: f"{case['rule']}-{case['at']}")
def test_later_checks_blame_what_was_written(write: Write, case: dict[str, Any]) -> None:
    checks: dict[str, Callable[[Document], object]] = {
        "layout": lambda document: Layout.from_spec(document.spec),
        "engine": lambda document: check_engine(document.spec, Layout.from_spec(document.spec), "cuda"),
        "policy": lambda document: policy.schedule(document.spec),
    }
    _write(write, case)
    found = _found([], checks[case["rule"]])
    assert found
    for violation in found:
        _at_own_line(violation, case)
        for override in _overrides(violation):
            left = {(other.path, other.constraint) for other in _found([override], checks[case["rule"]])}
            assert (violation.path, violation.constraint) not in left, override
