"""Finds changes that would help a run: each changes one key and gives a legal run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from frontrunner.configs import legal
from frontrunner.configs.errors import SpecError
from frontrunner.configs.schema import RunSpec
from frontrunner.configs.sharding import SHARDING_PRESETS, ShardingSpec
from frontrunner.parallelism.degrees import cut_of
from frontrunner.parallelism.engines import check_engine
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.planner.candidates import RECOMPUTE, Candidates
from frontrunner.parallelism.planner.plan import Estimate, estimate

#: A run that ran out of memory needs this share less, because the planner said that it would fit.
_MARGIN = 0.1


@dataclass(frozen=True)
class Advice:
    """A change of one key, and its predicted effect."""

    change: str
    option: str
    """The change on the command line: ``-o layout.pipeline=2``."""
    gain: float
    """Relative gain in tokens/s: 0.1 for 10 % more."""
    fits: bool
    peak_memory_bytes: float


def advise(spec: RunSpec, now: Estimate, most: int = 3) -> list[Advice]:
    """The changes of one key that help most. If the run does not fit, the fastest changes that make it fit.

    ``now`` is the planner's estimate of ``spec`` itself.
    """
    found = _options(spec, now)
    if now.fits[0]:
        helping = [advice for advice in found if advice.fits and advice.gain > 0.005]
        return sorted(helping, key=lambda advice: -advice.gain)[:most]
    return sorted((advice for advice in found if advice.fits), key=lambda advice: -advice.gain)[:most]


def smaller(spec: RunSpec, now: Estimate, most: int = 3) -> list[Advice]:
    """The fastest changes of one key that need at least a tenth less memory than ``now``, and fit."""
    limit = (1 - _MARGIN) * float(now.memory.peak[0])
    found = [advice for advice in _options(spec, now) if advice.fits and advice.peak_memory_bytes < limit]
    return sorted(found, key=lambda advice: -advice.gain)[:most]


def _options(spec: RunSpec, now: Estimate) -> list[Advice]:
    """All legal changes of one key, with their effects."""
    candidates = [(change, _legal(changed)) for change, changed in _changes(spec)]
    options = [(change, c) for change, c in candidates if c is not None and not _same(now.candidates, c)]
    if not options:
        return []
    joined = Candidates(
        **{f.name: np.concatenate([getattr(o, f.name) for _, o in options]) for f in fields(Candidates)}
    )
    then = estimate(now.workload, joined)
    speed = then.tokens_per_s / now.tokens_per_s - 1 if now.time else np.zeros(len(joined))
    return [
        Advice(f"{key}: {value}{note}", f"-o {key}={value}", float(gain), bool(fits), float(peak))
        for ((key, value, note), _), gain, fits, peak in zip(
            options, speed, then.fits, then.memory.peak, strict=True
        )
    ]


def _changes(spec: RunSpec) -> Iterator[tuple[tuple[str, str, str], RunSpec]]:
    """Key, value and a note, and the run that differs in them: not all are legal. Only a change of the global
    batch changes it."""
    layout, batch = spec.layout, spec.training.global_batch_size
    for factor in (2, 4):
        note = f" (x {factor}, accumulation {spec.grad_accum_steps * factor})"
        larger = spec.training.model_copy(update={"global_batch_size": batch * factor})
        changed = ("training.global_batch_size", str(batch * factor), note)
        yield changed, spec.model_copy(update={"training": larger})
    values: list[tuple[str, Any]] = [
        ("micro_batch_size", 2 * layout.micro_batch_size),
        ("micro_batch_size", 4 * layout.micro_batch_size),
        *_half("micro_batch_size", layout.micro_batch_size),
        *(("recompute", mode) for mode in RECOMPUTE if mode != layout.recompute),
    ]
    if not layout.sequence_parallel:
        values.append(("sequence_parallel", True))
    values += [("virtual_stages", factor * layout.virtual_stages) for factor in (2, 4)]
    if spec.model.experts is not None:
        values += [("expert", 2 * layout.expert), *_half("expert", layout.expert)]
        values.append(("dispatch", "flat" if layout.dispatch == "hierarchical" else "hierarchical"))
    for key in ("tensor", "pipeline"):
        values += [(key, 2 * getattr(layout, key)), *_half(key, getattr(layout, key))]
    for key, value in values:
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        yield (f"layout.{key}", shown, ""), _with_layout(spec, key, value)
    for preset in SHARDING_PRESETS:
        yield ("layout.sharding", preset, ""), _with_layout(spec, "sharding", ShardingSpec.of(preset))


def _half(key: str, value: int) -> list[tuple[str, int]]:
    return [(key, value // 2)] if value % 2 == 0 else []


def _with_layout(spec: RunSpec, key: str, value: Any) -> RunSpec:
    return spec.model_copy(update={"layout": spec.layout.model_copy(update={key: value})})


def _legal(spec: RunSpec) -> Candidates | None:
    """The run's layout; None if the loader would refuse it."""
    if not legal.legal(cut_of(spec)):
        return None
    try:
        layout = Layout.from_spec(spec)
        check_engine(spec, layout)
    except SpecError:
        return None
    return Candidates.of(spec, layout)


def _same(one: Candidates, other: Candidates) -> bool:
    """Whether two layouts are equal, except for their wire formats."""
    return all(
        getattr(one, f.name)[0] == getattr(other, f.name)[0]
        for f in fields(Candidates)
        if not f.name.endswith("_wire")
    )
