"""The run file of a layout that a search chose: what `check`, `plan` and `submit` take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap
from typing import Any

from frontrunner.configs.brief import WIDTH, brief
from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.load import Document, examine_keys
from frontrunner.launcher.draft import LONGEST_WARMUP, data_section, named_in, steps_of, time_limit
from frontrunner.launcher.proposal import different
from frontrunner.launcher.verify import judged
from frontrunner.slurm.policy import describes_cluster, schedule

#: The longest duration of a run file.
LONGEST_DAYS = 999


@dataclass(frozen=True)
class Job:
    """A layout to run; names are as the user gave them, relative to the working directory.

    ``hours`` are those of the whole run; None: its steps, of ``step_time_s`` each.
    """

    model: str
    machine: str
    nodes: int
    layout: dict[str, Any]
    seq_len: int
    global_batch_size: int
    step_time_s: float
    tokens: int | None = None
    hours: float | None = None
    partition: str | None = None
    qos: str | None = None
    data: str = "synthetic"
    reasons: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True)
class JobFile:
    """``keys`` of a run file, its ``text`` with comments, and the run that it gives."""

    keys: dict[str, Any]
    text: str
    document: Document


def job_file(job: Job, command: str, folder: Path, name: str = "run") -> JobFile:
    """The run file of a job, to be written into ``folder``; ``command`` is who writes it.

    SpecError if the loader or the site would refuse it.
    """
    keys: dict[str, Any] = {
        "model": named_in(folder, "model", job.model),
        "machine": named_in(folder, "machine", job.machine),
        "nodes": job.nodes,
        "data": data_section(job.data),
    }
    examination = examine_keys(keys, folder=folder)
    own = different(job.layout, examination.document.spec) if examination.document else job.layout
    training = {"seq_len": job.seq_len, "global_batch_size": job.global_batch_size}
    keys |= {"layout": own} if own else {}
    keys["training"] = training | ({} if job.tokens is None else {"tokens": job.tokens})
    keys["optimizer"] = {"learning_rate": 3e-4}
    if job.tokens is not None:
        steps = steps_of(job.tokens, **training)
        keys["optimizer"]["warmup_steps"] = min(LONGEST_WARMUP, max(1, steps // 100))
    queue = {"partition": job.partition, "qos": job.qos}
    keys["slurm"] = {key: value for key, value in queue.items() if value is not None}
    keys["slurm"]["time_limit"] = _time_limit(job, judged(examine_keys(keys, folder=folder))[0])
    order = ("model", "machine", "nodes", "layout", "training", "optimizer", "data", "slurm")
    keys = {key: keys[key] for key in order if keys.get(key)}
    document, _ = judged(examine_keys(keys, folder=folder, name=name))
    if describes_cluster(document.spec.machine):
        schedule(document.spec, preview=True)
    return JobFile(keys, brief(keys, _notes(job, keys, document, command)), document)


def _time_limit(job: Job, document: Document) -> str:
    """SpecError if it is longer than a run file can say."""
    hours = job.step_time_s * document.spec.training.steps / 3600 if job.hours is None else job.hours
    if 1.2 * hours / 24 > LONGEST_DAYS:
        constraint = f"the run would take {hours / 24:,.0f} days, and a run file says at most {LONGEST_DAYS}"
        raise SpecError([Violation("--nodes", job.nodes, constraint, "use more nodes or fewer tokens")])
    return time_limit(hours)


def _notes(job: Job, keys: dict[str, Any], document: Document, command: str) -> dict[str, list[str]]:
    """Comments by dotted key."""
    spec = document.spec
    notes = {"model": [f"Written by `frontrunner {command}`."]}
    if job.reasons:
        place = "layout" if "layout" in keys else "training"
        said = [f"{reason[0].upper()}{reason[1:]}." for reason in job.reasons]
        notes[place] = [line for reason in said for line in wrap(reason, WIDTH - len("# "))]
    if job.tokens is not None:
        notes["training.tokens"] = [f"{spec.training.steps:,} steps."]
    notes["optimizer"] = ["The learning rate is the default. Set what suits the model and the batch."]
    if job.data == "synthetic":
        notes["data"] = ["To measure speed. To train: {train: PREFIX of a prepared corpus}."]
    if spec.machine.site.account_required:
        first = next(iter(keys["slurm"]))
        notes[f"slurm.{first}"] = ["account: PROJECT, or `submit --account PROJECT`. Required here."]
    above = notes.setdefault("slurm.time_limit", [])
    above.append("Of the whole run: the planner's time, 10 % more, and a start.")
    return notes
