"""Proposes a layout, and the number of nodes if none is given, for a run file that names none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.load import Document, examine_keys
from frontrunner.configs.schema import RunSpec
from frontrunner.configs.sharding import WireSpec
from frontrunner.configs.units import bytes_text
from frontrunner.launcher.display.search_tables import layout_text, near
from frontrunner.launcher.verify import judged
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.planner.candidates import RECOMPUTE, Candidates, Workload
from frontrunner.parallelism.planner.choose import simplest
from frontrunner.parallelism.planner.headroom import largest_margin, usable_bytes
from frontrunner.parallelism.planner.plan import estimate
from frontrunner.parallelism.planner.search import Ranking, search

#: Default tokens per step, as in Dash et al. and Llama.
USUAL_TOKENS = 4 * 2**20
#: Keys of ``layout`` that are fields of the planner's candidates.
_FIELDS = (
    *("tensor", "sequence_parallel", "pipeline", "virtual_stages", "micro_batch_size", "recompute"),
    "expert",
)
_BATCH = "training.global_batch_size"


@dataclass(frozen=True)
class Proposal:
    """``keys`` of a run file with the proposal, the run that they give, and the reasons in sentences."""

    keys: dict[str, Any]
    document: Document
    layout: Layout
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class _Found:
    layout: dict[str, Any]
    batch: int | None
    reasons: tuple[str, ...]


def propose(
    keys: Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    folder: Path = Path(),
    software_year: str | None = None,
) -> Proposal:
    """The keys of a run file in ``folder`` with a layout for them; ``overrides`` stay over it.

    Without ``nodes`` the fewest on which a layout fits are taken, by powers of two. SpecError for wrong keys,
    and if nothing fits.
    """
    examined = examine_keys(keys, overrides, folder=folder).document
    if examined is None:
        raise SpecError(examine_keys(keys, overrides, folder=folder).violations)
    given = examined.tree.at("nodes") is not None
    counts = [examined.spec.nodes] if given else list(_counts(examined.spec.machine.num_nodes))
    for nodes in counts:
        asked = dict(keys) if given else {**keys, "nodes": nodes}
        found = _on(asked, overrides, folder, software_year, last=nodes == counts[-1])
        if found:
            break
    assert found
    own = {key: value for key, value in found.layout.items() if f"layout.{key}" not in _overridden(overrides)}
    asked |= {"layout": own} if own else {}
    if found.batch not in (None, _given_batch(examined)):
        asked["training"] = {**asked.get("training", {}), "global_batch_size": found.batch}
    few = () if given else (f"nodes: {nodes}, the fewest (by powers of two) on which a layout fits",)
    document, layout = judged(examine_keys(asked, overrides, folder=folder))
    return Proposal(asked, document, layout, (*few, *found.reasons))


def usual_batch(spec: RunSpec) -> int:
    """About :data:`USUAL_TOKENS`, equal for every device."""
    return max(1, round(USUAL_TOKENS / spec.training.seq_len / spec.world_size)) * spec.world_size


def needs_layouts(
    ranking: Ranking,
    spec: RunSpec,
    batch: int,
    batch_key: str = "--global-batch-size",
    margin: float | None = None,
) -> None:
    """SpecError if no layout is legal, or if none fits; names the nearest miss.

    ``margin`` is the share of memory that the ranking left free, if it did.
    """
    if len(ranking.order):
        return
    count, devices = len(ranking.space.candidates), spec.world_size
    if not count:
        constraint = f"no layout of {spec.model.name} on {devices} devices divides this batch size"
        raise SpecError([Violation(batch_key, batch, constraint, f"use a multiple of {devices}")])
    possible = -1.0 if margin is None else largest_margin(ranking)
    if possible >= 0:
        constraint = f"leaves none of {count} layouts of {spec.model.name} on {spec.nodes} nodes"
        smaller = math.floor(possible * 1000) / 1000
        raise SpecError(
            [Violation("--margin", margin, constraint, f"use {smaller:g} or less, or more nodes")]
        )
    nearest = ranking.nearest_miss()
    need, has = float(ranking.estimated.memory.peak[nearest]), spec.machine.device.memory_bytes
    usable = has if margin is None else usable_bytes(spec.machine, margin)
    constraint = (
        f"none of {count} layouts of {spec.model.name} fits; the nearest, {layout_text(ranking, nearest)}, "
        f"needs {bytes_text(need)} of {bytes_text(float(has))} per device, {bytes_text(need - usable)} over"
    )
    fix = f"use about {math.ceil(spec.nodes * need / usable)} nodes or more"
    raise SpecError([Violation("--nodes", spec.nodes, constraint, fix)])


def _counts(most: int) -> Iterator[int]:
    nodes = 1
    while nodes <= most:
        yield nodes
        nodes *= 2


def _overridden(overrides: Sequence[str]) -> set[str]:
    """Dotted keys that overrides set, up to the key below a section."""
    return {".".join(text.partition("=")[0].strip().split(".")[:2]) for text in overrides}


def _given_batch(document: Document) -> int | None:
    node = document.tree.at(_BATCH)
    return document.spec.training.global_batch_size if node else None


def _on(
    keys: dict[str, Any], overrides: Sequence[str], folder: Path, software_year: str | None, *, last: bool
) -> _Found | None:
    """The choice on a given number of nodes; None if nothing fits there, SpecError if it was the ``last``."""
    examination = examine_keys(keys, overrides, folder=folder)
    if examination.document is None:
        raise SpecError(examination.violations)
    document = examination.document
    spec = document.spec
    workload = Workload.of(spec, software_year)
    if workload.software is None and not examination.violations:
        default = estimate(workload, Candidates.of(spec, Layout.from_spec(spec)))
        if default.fits[0]:
            why = f"layout: the default, which fits (no rates are known of {spec.machine.name})"
            return _Found({}, None, (why,))
    ranking = None
    for batch in _batches(document, keys):
        ranking = search(workload, spec.nodes, batch, spec.training.precision)
        fixed = {key: _number(spec, key) for key in _FIELDS if f"layout.{key}" in _overridden(overrides)}
        if "layout.dispatch" in _overridden(overrides):
            fixed["flat_dispatch"] = float(spec.layout.dispatch == "flat")
        choice = simplest(ranking, fixed) or (simplest(ranking) if last else None)
        if choice:
            reasons = _reasons(ranking, choice.index, choice.alike, batch, spec)
            return _Found(different(ranking.space.layout(choice.index), spec), batch, reasons)
    if last and ranking is not None:
        needs_layouts(ranking, spec, batch, _BATCH)
    return None


def _batches(document: Document, keys: Mapping[str, Any]) -> list[int]:
    """Global batch sizes to try: the given one, and another only if it came from a preset."""
    spec, given = document.spec, _given_batch(document)
    usual = usual_batch(spec) if spec.machine.software else spec.training.global_batch_size
    if given is None:
        return [usual]
    return [given, usual] if "extends" in keys else [given]


def _number(spec: RunSpec, key: str) -> float:
    value = getattr(spec.layout, key)
    return float(RECOMPUTE.index(value) if key == "recompute" else value)


def different(layout: dict[str, Any], spec: RunSpec) -> dict[str, Any]:
    """The keys of a layout that the run does not have already."""
    own = {
        key: value
        for key, value in layout.items()
        if key != "sharding" and value != getattr(spec.layout, key)
    }
    have, chosen = spec.layout.sharding, layout["sharding"]
    same = chosen == {"preset": have.preset} and have.wire == WireSpec()
    return own if same else own | {"sharding": chosen}


def _reasons(ranking: Ranking, index: int, alike: int, batch: int, spec: RunSpec) -> tuple[str, ...]:
    tokens = batch * spec.training.seq_len
    why = "the only one" if alike == 1 else f"the simplest of {alike} layouts"
    kind = f"{near()} of the fastest" if ranking.estimated.time else "that fit"
    return (
        f"layout: {layout_text(ranking, index)}",
        f"{why} {kind}, of {len(ranking.space.candidates):,} legal ones",
        f"batch: {batch:,} sequences, {tokens:.3g} tokens per step",
    )
