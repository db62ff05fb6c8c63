"""What happens when an earlier run goes on: where it starts, what changes, and what forbids it."""

from __future__ import annotations

from collections.abc import Iterator
from math import isclose
from pathlib import Path
from typing import Any

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.load import read_resolved
from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.fingerprint import check_same_corpus
from frontrunner.parallelism.learning_rate import learning_rate
from frontrunner.run_folder import checkpoints, files
from frontrunner.run_folder import folder as run_folder
from frontrunner.run_folder.checkpoints import DamagedCheckpoint, Manifest
from frontrunner.run_folder.record_reader import last_step, summary

_MOST_CHANGES = 12


def prospects(run_dir: Path, spec: RunSpec) -> list[str]:
    """What the run in ``run_dir`` does as it goes on as ``spec``: predicates without their subject.

    SpecError if it is complete, if its checkpoint is of another model, or if its corpus was replaced.
    """
    run_folder.check_unfinished(run_dir, spec)
    before = read_resolved(run_dir / files.SPEC)
    lines = _changes(before, spec)
    newest = _newest(run_dir)
    if newest is None:
        done = last_step(run_dir)
        if summary(run_dir) is not None:
            constraint = f"the run in {run_dir} wrote no checkpoint: its {done} steps cannot be continued"
            fix = "start a new run, and keep checkpoint.at_end: true"
            raise SpecError([Violation("training.steps", spec.training.steps, constraint, fix)])
        if done:
            lines.insert(0, f"has no checkpoint: its {done} steps so far are taken again")
        return lines
    checkpoints.check_model(newest, spec.model)
    check_same_corpus(spec, newest.state.get("corpus"))
    lines += [*_learning_rate(before, spec, newest.step), *_batch(before, spec)]
    return [f"goes on after step {newest.step} of {spec.training.steps}", *lines]


def _newest(run_dir: Path) -> Manifest | None:
    """The manifest of the newest checkpoint that has one; the ranks verify the rest."""
    for path in checkpoints.found(run_dir):
        try:
            return checkpoints.read_manifest(path)
        except DamagedCheckpoint:
            continue
    return None


def _changes(before: RunSpec, after: RunSpec) -> list[str]:
    """One line for each key that changes."""
    old, new = dict(_leaves(before.model_dump(mode="json"))), dict(_leaves(after.model_dump(mode="json")))
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    lines = [f"changes {key}: {_text(old, key)} -> {_text(new, key)}" for key in keys[:_MOST_CHANGES]]
    more = len(keys) - len(lines)
    return [*lines, f"and {more} more changes"] if more else lines


def _learning_rate(before: RunSpec, after: RunSpec, done: int) -> Iterator[str]:
    """What the changes do to the learning rate after ``done`` steps."""
    old = [learning_rate(before.optimizer, step, before.training.steps) for step in (done - 1, done)]
    new = learning_rate(after.optimizer, done, after.training.steps)
    if done < 1 or isclose(old[1], new):
        return
    line = (
        f"goes from learning rate {old[0]:.4g} (step {done}) to {new:.4g} (step {done + 1}),"
        f" where it would have gone on with {old[1]:.4g}"
    )
    ends = [spec.optimizer.decay_steps or spec.training.steps for spec in (before, after)]
    if ends[0] != ends[1]:
        line += (
            f": its decay now ends at step {ends[1]:,}, not {ends[0]:,}"
            f" (to keep it: -o optimizer.decay_steps={ends[0]})"
        )
    yield line


def _batch(before: RunSpec, after: RunSpec) -> Iterator[str]:
    """What the changes do to the tokens of a step."""
    old, new = (spec.training.global_batch_size * spec.training.seq_len for spec in (before, after))
    if old != new:
        yield f"takes {new / old:.3g} times the batch: {new:,} tokens a step, not {old:,}" + (
            "; the learning rate is not adapted to that"
        )


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _text(values: dict[str, Any], key: str) -> str:
    value = values.get(key)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
