"""The start of the page: how fast the runs are, and how far that is from their plans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from frontrunner.analysis.report import charts
from frontrunner.analysis.report.table import UNKNOWN, Column, Section, Tile, table, value_at
from frontrunner.analysis.sanity import UNTRUE
from frontrunner.configs.units import Kind, change_text, digits, quantity

Figures = dict[str, Any]

COLUMNS = (
    Column("run", "id"),
    Column("devices", "devices", "count"),
    Column("tokens/s per device", "tokens_per_s_per_device", "number"),
    Column("MFU", "mfu", "share"),
    Column("step", "step_time_s", "seconds"),
    Column("planned step", "predicted.step_time_s", "seconds"),
    Column("step against plan", "comparison.step_time_against_plan_pct", "change"),
    Column("memory", "memory_bytes", "bytes"),
    Column("last loss", "last_loss", "number"),
    Column("flags", "flags"),
)


def section(answer: Figures) -> Section:
    """Tiles for one run; for several their ranges, a table and bars, the fastest run first."""
    runs = answer["runs"]
    if len(runs) == 1:
        return Section("summary", "At a glance", tiles=_one(runs[0]))
    order = ranked(runs)
    places = [f"runs.{index}" for index in order]
    doubtful = [run["id"] for run in runs if not credible(run)]
    notes = ["Medians of the steady steps; the fastest run comes first."]
    if doubtful:
        notes.append(
            f"{len(doubtful):,} of {len(runs):,} runs cannot be as fast as their logs say. They come last, "
            "and figures leave them out here: see the warnings."
        )
    fastest = [runs[index] for index in order if credible(runs[index])]
    caption = "Runs by tokens/s of a device"
    tables = [table(answer, caption, COLUMNS, places)]
    return Section("summary", "At a glance", notes, tables, charts.speed(fastest), _many(runs))


def ranked(runs: Sequence[Figures]) -> list[int]:
    """The places of runs, the fastest device first; those whose speed cannot be true come last."""
    return sorted(range(len(runs)), key=lambda index: _rank(runs[index]))


def credible(run: Figures) -> bool:
    """Whether the run's speed can be what its log says."""
    return not UNTRUE & set(run["flags"])


def _rank(run: Figures) -> tuple[bool, float]:
    return not credible(run), -(run["tokens_per_s_per_device"] or 0.0)


def _one(run: Figures) -> list[Tile]:
    """The tiles of a single run, whose values are those of the object of ``--json``."""
    tokens, step = run["tokens_per_s_per_device"], run["step_time_s"]
    total = run["tokens_per_s"]
    return [
        _tile("speed of a device", tokens, "tokens", f"{digits(total)} tokens/s in all" if total else ""),
        _utilisation(run),
        _tile("step time", step, "seconds", _interval(run)),
        _against_plan(run),
        _memory(run),
        _loss(run),
    ]


def _tile(name: str, value: float | None, kind: Kind, note: str) -> Tile:
    return Tile(name, UNKNOWN if value is None else quantity(value, kind), note)


def _utilisation(run: Figures) -> Tile:
    speed, peak = run["model_flops_per_s_per_device"], run["peak_flops_per_s_per_device"]
    if run["mfu"] is not None:
        note = f"{quantity(speed, 'flops')} of a peak of {quantity(peak, 'flops')}"
        return _tile("MFU", run["mfu"], "share", note)
    reason = "no MFU: the peak of the device is not known"
    return _tile("model FLOPs of a device", speed, "flops", reason if speed else "the log gives no model")


def _interval(run: Figures) -> str:
    if run["step_time_interval_s"] is None:
        return "no step is steady" if run["step_time_s"] is None else "a single steady step"
    low, high = (quantity(value, "seconds") for value in run["step_time_interval_s"])
    said = f"median of {run['steady']['steady']:,} steps"
    return said if low == high else f"{said}; 95 % interval {low} to {high}"


def _against_plan(run: Figures) -> Tile:
    name = "step time against plan"
    planned = (run["predicted"] or {}).get("step_time_s")
    if not planned or not run["step_time_s"]:
        return Tile(name, UNKNOWN, why_no_plan(run))
    measured = quantity(run["step_time_s"], "seconds")
    text = change_text(run["comparison"]["step_time_against_plan_pct"])
    return Tile(name, text, f"step of {measured}, planned {quantity(planned, 'seconds')}")


def why_no_plan(run: Figures) -> str:
    """Why a run has no planned step time."""
    if run["predicted"] is None:
        return f"no plan: {run['not_predicted']}"
    if run["predicted"]["step_time_s"] is None:
        return f"no planned time: no rates are known for {run['machine']}"
    return "no step is steady"


def _memory(run: Figures) -> Tile:
    used, capacity = run["memory_bytes"], run["memory_capacity_bytes"]
    share = (
        f"{quantity(used / capacity, 'share')} of {quantity(capacity, 'bytes')}" if used and capacity else ""
    )
    return _tile("peak memory of a device", used, "bytes", share)


def _loss(run: Figures) -> Tile:
    if run["validation"]:
        last = run["validation"][-1]
        return _tile("validation loss", last["loss"], "number", f"after step {last['step']:,}")
    return _tile("training loss", run["last_loss"], "number", f"of step {run['last_step']:,}")


def _many(runs: Sequence[Figures]) -> list[Tile]:
    """Ranges over the runs whose speed can be true."""
    shown = [run for run in runs if credible(run)] or list(runs)
    best = min(shown, key=_rank)
    sizes = _known(shown, "devices")
    return [
        Tile("runs", f"{len(runs):,}", _devices(sizes)),
        _tile("fastest device", best["tokens_per_s_per_device"], "tokens", _lead(best, shown)),
        _range("MFU", _known(shown, "mfu"), "share", "the peak of the devices is not known"),
        _range("step time", _known(shown, "step_time_s"), "seconds", "no step is steady"),
        _plans(shown),
        _range("peak memory of a device", _known(shown, "memory_bytes"), "bytes", "not in the logs"),
    ]


def _lead(best: Figures, runs: Sequence[Figures]) -> str:
    """The fastest run, and how far ahead it is if all train the same model."""
    sizes = {(run["model"] or {}).get("parameters") for run in runs}
    slowest = min(_known(runs, "tokens_per_s_per_device"), default=None)
    if len(runs) < 2 or len(sizes) > 1 or not slowest:
        return str(best["id"])
    return f"{best['id']}, {digits(best['tokens_per_s_per_device'] / slowest)} times the slowest"


def _devices(sizes: Sequence[float]) -> str:
    if not sizes:
        return ""
    low, high = min(sizes), max(sizes)
    return f"on {low:,} devices" if low == high else f"on {low:,} to {high:,} devices"


def _plans(runs: Sequence[Figures]) -> Tile:
    told = [(run["comparison"] or {}).get("step_time_against_plan_pct") for run in runs]
    off = [percent for percent in told if percent is not None]
    if not off:
        return Tile("step time against plan", UNKNOWN, why_no_plan(runs[0]))
    low, high = change_text(min(off)), change_text(max(off))
    note = f"step times of {len(off):,} planned runs"
    return Tile("step time against plan", low if low == high else f"{low} to {high}", note)


def _known(runs: Sequence[Figures], key: str) -> list[float]:
    return [run[key] for run in runs if value_at(run, key) is not None]


def _range(name: str, values: Sequence[float], kind: Kind, reason: str) -> Tile:
    if not values:
        return Tile(name, UNKNOWN, reason)
    low, high = quantity(min(values), kind), quantity(max(values), kind)
    return Tile(name, low if low == high else f"{low} to {high}")
