"""Holds what a first day measured against the planner, and gives each part its verdict.

The object of ``--json`` comes from here; tables show the same figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np

from frontrunner.configs.schema import RunSpec
from frontrunner.launcher.first_day.found import Day, Figures, Found, median
from frontrunner.launcher.first_day.parts import ENGINES, NATIVE, PARTS
from frontrunner.parallelism.layout import LEVELS, Layout
from frontrunner.parallelism.planner import compute
from frontrunner.parallelism.planner.candidates import Candidates, Workload
from frontrunner.parallelism.planner.collectives import Fabric
from frontrunner.parallelism.planner.flops import model_flops_per_token
from frontrunner.parallelism.planner.plan import Estimate, estimate

Verdict = Literal["ok", "differs", "not applicable", "failed"]
#: Rates and links that differ by less are as the machine file says: tries of one link scatter by as much.
ALIKE = 0.2
#: Peaks may differ by the share that the planner leaves to the allocator.
ALIKE_MEMORY = 0.15
_NO_RATES = "the machine file has no rates to compare with"


def judge(day: Day) -> Figures:
    """All figures and verdicts, under the keys that ``--json`` guarantees."""
    spec = day.spec
    figures = {
        "kernels": list(_kernels(day.found["kernels"])),
        "products": list(_products(day)),
        "attention": list(_attention(day)),
        "steps": list(_steps(day)),
        "collectives": list(_collectives(day)),
        "memory": _memory(day),
    }
    verdicts = [_verdict(name, day, figures) for name in (*PARTS, "memory")]
    run = {
        "name": spec.name,
        "model": spec.model.name,
        "machine": spec.machine.name,
        "device": next((f.ranks[0]["device"] for f in day.found.values() if f.usable), None),
        "devices": spec.world_size,
        "layout": Layout.from_spec(spec).describe(),
        "notes": list(day.notes),
    }
    return {"parts": verdicts, "run": run, **figures}


def _verdict(name: str, day: Day, figures: Figures) -> Figures:
    found = day.found[NATIVE if name == "memory" else name]
    verdict, why, difference = _of_part(name, found, day.spec, figures)
    seconds = None if name == "memory" else found.seconds
    return {"part": name, "verdict": verdict, "why": why, "difference": difference, "seconds": seconds}


def _of_part(
    name: str, found: Found, spec: RunSpec, figures: Figures
) -> tuple[Verdict, str | None, float | None]:
    if found.why_not is not None:
        return "not applicable", found.why_not, None
    if found.failure is not None:
        return "failed", "there was no step" if name == "memory" else found.failure, None
    if name == "kernels":
        wrong = [what for rank in found.ranks for what in rank["wrong"]]
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        return ("failed", f"differs from torch: {wrong[0]}{more}", None) if wrong else ("ok", None, None)
    if name in ("streams", *ENGINES) and name != NATIVE:
        return "ok", None, None
    if name == "memory" and figures["memory"]["why"]:
        return "not applicable", figures["memory"]["why"], None
    difference, allowed = _difference(name, spec, figures)
    if difference is None:
        why = "one device has nobody to send to" if name == "collectives" and not figures[name] else _NO_RATES
        return ("not applicable" if name == "collectives" and not figures[name] else "ok"), why, None
    return ("ok" if abs(difference) <= allowed else "differs"), None, difference


def _difference(name: str, spec: RunSpec, figures: Figures) -> tuple[float | None, float]:
    """By what share a measured time (or peak) exceeds the planner's, and what share may be."""
    if name == "memory":
        return _over(figures["memory"]["measured_bytes"], figures["memory"]["planned_bytes"]), ALIKE_MEMORY
    if name == NATIVE:
        own = next(row for row in figures["steps"] if row["engine"] == NATIVE)
        interval = _estimate(spec).interval_pct(0)
        return _over(own["step_time_s"], own["planned_step_time_s"]), (interval or 0) / 100
    if name == "rates":
        rows = [row for row in figures["products"] if row["planned_s"] is not None]
        measured, planned = (sum(row[key] for row in rows) for key in ("seconds", "planned_s"))
        return (_over(measured, planned) if rows else None), ALIKE
    largest = max((row["bytes"] for row in figures["collectives"]), default=0)
    ratios = [
        math.log(row["seconds"] / row["planned_s"])
        for row in figures["collectives"]
        if row["bytes"] > largest / 2 and row["planned_s"]
    ]
    return (math.expm1(sum(ratios) / len(ratios)) if ratios else None), ALIKE


def _over(measured: float, planned: float | None) -> float | None:
    return measured / planned - 1 if planned else None


def _kernels(found: Found) -> Iterator[Figures]:
    if found.usable:
        copied = median(found.ranks, "copy_bytes_per_s")
        for place, row in enumerate(found.ranks[0]["rates"]):
            rate = median(found.ranks, "rates", place, "bytes_per_s")
            yield {**row, "bytes_per_s": rate, "share_of_copy": rate / copied}


def _products(day: Day) -> Iterator[Figures]:
    """Of a layer and the output layer; the planner's time is of the device alone, without any engine."""
    found = day.found["rates"]
    if not found.usable:
        return
    software = Workload.of(day.runs["rates"]).software
    for place, row in enumerate(found.ranks[0]["products"]):
        rate = median(found.ranks, "products", place, "flops_per_s")
        shape = {key: row[key] for key in ("product", "m", "n", "k")}
        m, n, k = (np.array([float(row[key])]) for key in ("m", "n", "k"))
        planned = float(compute.product(software, m, n, k)[0]) if software else None
        seconds = 2 * row["m"] * row["n"] * row["k"] / rate
        yield shape | {"seconds": seconds, "planned_s": planned, "flops_per_s": rate}


def _attention(day: Day) -> Iterator[Figures]:
    found = day.found["rates"]
    if not found.usable:
        return
    software = Workload.of(day.runs["rates"]).software
    for place, row in enumerate(found.ranks[0]["attention"]):
        yield {
            "head_dim": row["head_dim"],
            "seq_len": row["seq_len"],
            "forward_flops_per_s": median(found.ranks, "attention", place, "forward_flops_per_s"),
            "backward_of_forward": median(found.ranks, "attention", place, "backward_of_forward"),
            "planned_flops_per_s": software.attention_flops_per_s if software else None,
        }


def _steps(day: Day) -> Iterator[Figures]:
    peak = _estimate(day.spec).peak_flops_per_s()
    for engine in ENGINES:
        found = day.found[engine]
        if not found.usable:
            continue
        run = day.runs[engine]
        step_time_s = max(rank["step_time_s"] for rank in found.ranks)
        tokens = run.training.global_batch_size * run.training.seq_len / step_time_s / run.world_size
        flops = tokens * model_flops_per_token(run.model, run.training.seq_len)
        time = _estimate(run).time if engine == NATIVE else None
        yield {
            "engine": engine,
            "step_time_s": step_time_s,
            "planned_step_time_s": float(time.total[0]) if time else None,
            "tokens_per_s_per_device": tokens,
            "model_flops_per_s_per_device": flops,
            "mfu": flops / peak if peak else None,
            "peak_memory_bytes": max(rank["peak_memory_bytes"] for rank in found.ranks),
            "first_loss": found.ranks[0]["losses"][0],
            "last_loss": found.ranks[0]["losses"][-1],
        }


def _collectives(day: Day) -> Iterator[Figures]:
    found = day.found["collectives"]
    if not found.usable:
        return
    spec = day.runs["collectives"]
    layout, fabric = Layout.from_spec(spec), Fabric(spec.machine, Workload.of(spec).software)
    for place, row in enumerate(found.ranks[0]["collectives"]):
        ranks, stride = row["ranks"], row["stride"]
        levels = [layout.level_between(0, stride * other) for other in range(1, ranks)]
        yield {
            "groups": row["groups"],
            "ranks": ranks,
            "stride": stride,
            "level": max(levels, key=LEVELS.index),
            "operation": row["operation"],
            "bytes": row["bytes"],
            "bytes_sent": row["bytes_sent"],
            "seconds": median(found.ranks, "collectives", place, "seconds"),
            "planned_s": _planned_s(fabric, row),
        }


def _planned_s(fabric: Fabric, row: Figures) -> float:
    """The model's seconds of a collective."""
    ranks, stride, size = (np.array([float(row[key])]) for key in ("ranks", "stride", "bytes"))
    if row["operation"] == "all-reduce":
        return float(fabric.all_reduce(ranks, stride, size)[0])
    how = fabric.ring if row["operation"] == "all-gather" else fabric.exchange
    return float(how(ranks, stride, size).longest[0])


def _memory(day: Day) -> Figures:
    """The native step's peak of tensors, and the planner's without what the allocator and groups add."""
    found = day.found[NATIVE]
    memory = _estimate(day.spec).memory
    planned = float(memory.peak[0] - memory.residual[0])
    measured = found.ranks[0]["peak_memory_bytes"] if found.usable else None
    on_cpu = found.usable and found.ranks[0]["device"] == "cpu"
    why = "on CPU the peak is that of the whole process" if on_cpu else None
    return {"measured_bytes": measured, "planned_bytes": planned, "why": why}


def _estimate(spec: RunSpec) -> Estimate:
    return estimate(Workload.of(spec), Candidates.of(spec, Layout.from_spec(spec)))
