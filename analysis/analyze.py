"""Every figure of a collection of runs: the object that ``frontrunner analyze --json`` prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from frontrunner.analysis import sanity, scaling, steady
from frontrunner.analysis.bootstrap import Array
from frontrunner.analysis.figures import figures
from frontrunner.analysis.machines import machine_of
from frontrunner.analysis.prediction import Predictor, compare
from frontrunner.analysis.run_log import Collection, RunLog

Figures = dict[str, Any]


@dataclass(frozen=True)
class Analysis:
    """``answer`` has the keys of ``--json``; ``steps`` has every step with its ``use`` (see ``steady``)."""

    answer: Figures
    collection: Collection
    steps: pl.DataFrame


def analyze(collection: Collection, machine: str | None = None, sweeps: Sequence[Figures] = ()) -> Analysis:
    """Compute the figures of every run, how the runs scale, and what the planner predicts for them.

    ``machine``: a preset or file, for logs that do not name their machine; ``sweeps``: see ``read_sweeps``.
    Raises SpecError if the machine does not exist.
    """
    marked = steady.mark(collection.steps, collection.runs)
    rows = steady.summarise(marked).to_dicts()
    times = list(_steady_times(marked, len(collection.runs)))
    predict = Predictor()
    runs: list[Figures] = []
    samples: list[scaling.Sample] = []
    for run, row, seconds in zip(collection.runs, rows, times, strict=True):
        of_run = machine_of(run, machine)
        found = figures(run, row, of_run, seconds)
        predicted, reason = predict(run, of_run)
        found["predicted"], found["not_predicted"] = predicted, reason
        found["comparison"] = compare(found, predicted) if predicted else None
        found["in_scaling"] = _comparable(found, seconds)
        if found["in_scaling"]:
            samples.append(_sample(run, found, seconds))
        runs.append(found)
    answer = {
        "runs": runs,
        "scaling": scaling.groups(samples),
        "sweeps": list(sweeps),
        "steps": int(marked.height),
        "lost_lines": sum(run.lost_lines for run in collection.runs),
        "unread": [{"path": path, "reason": reason} for path, reason in collection.unread],
    }
    return Analysis(answer, collection, marked)


def _steady_times(marked: pl.DataFrame, runs: int) -> Iterator[Array]:
    """Seconds of each run's steady steps, in order."""
    known = pl.col("step_time_s").is_not_null()
    chosen = marked.filter((pl.col("use") == steady.STEADY) & known).select("run", "step_time_s")
    times = chosen["step_time_s"].to_numpy()
    bounds = np.searchsorted(chosen["run"].to_numpy(), np.arange(runs + 1))
    return (times[start:end] for start, end in zip(bounds[:-1], bounds[1:], strict=True))


def _comparable(found: Figures, seconds: Array) -> bool:
    known = all(found[key] for key in ("devices", "model", "seq_len", "global_batch_size"))
    return bool(known and len(seconds) and not sanity.UNTRUE & set(found["flags"]))


def _sample(run: RunLog, found: Figures, seconds: Array) -> scaling.Sample:
    """Runs are comparable if model, machine, engine and layout match, except for data parallelism."""
    model = tuple(value for key, value in found["model"].items() if key != "name")
    cut = (
        "tensor",
        "pipeline",
        "virtual_stages",
        "micro_batch_size",
        "recompute",
        "sequence_parallel",
        "sharding",
    )
    layout = tuple(str(run.layout.get(key)) for key in cut)
    engine = (run.format, run.facts.get("engine"), found["machine"], run.precision, run.seq_len)
    return scaling.Sample(
        run.id,
        (*model, *layout, *engine),
        found["devices"],
        found["global_batch_size"],
        float(found["global_batch_size"] * found["seq_len"]),
        seconds,
    )


def titles(answer: Figures) -> Iterable[str]:
    """One line per group of ``scaling[]``: what is held fixed, and the model."""
    names = {run["id"]: run for run in answer["runs"]}
    for group in answer["scaling"]:
        run = names[group["points"][0]["runs"][0]]
        fixed = (
            f"global batch {group['global_batch_size']}"
            if group["kind"] == "strong"
            else f"{group['sequences_per_device']:g} sequences per device"
        )
        layout = run["layout"]
        cut = f"tensor {layout.get('tensor')}, pipeline {layout.get('pipeline')}, {layout.get('sharding')}"
        size = run["model"]["parameters"] / 1e9
        yield f"{group['kind']} scaling, {fixed}: {size:.3g} billion parameters, {cut}"
