"""The run of one rank, from joining the world to the last record."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch.distributed as dist

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism import placement, versions
from frontrunner.parallelism.layout import LEVELS, Layout
from frontrunner.parallelism.profile_request import ProfileRequest
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime.data import open_dataset
from frontrunner.parallelism.runtime.device import (
    gather_places,
    limit_memory,
    release_free_memory,
    select_device,
    use_deterministic_kernels,
)
from frontrunner.parallelism.runtime.engines import make_trainer
from frontrunner.parallelism.runtime.integrity import self_test
from frontrunner.parallelism.runtime.process_groups import initialize
from frontrunner.parallelism.runtime.profile import Profile
from frontrunner.parallelism.runtime.rank_trainer import RankTrainer
from frontrunner.parallelism.runtime.saving import Saving
from frontrunner.parallelism.runtime.step import StepReport, Write, take_step
from frontrunner.parallelism.runtime.validation import validation
from frontrunner.parallelism.runtime.watchdog import Watchdog
from frontrunner.run_folder.endings import Corrupted, Stopped, TrainingFailed
from frontrunner.run_folder.record_writer import RecordWriter, header
from frontrunner.run_folder.records import OnRecord, Step
from frontrunner.run_folder.steady import steady_median

#: Packages whose versions are kept in the header.
_VERSIONS = ("python", "torch", "megatron-core", "frontrunner")
#: At every step it costs a fifth of the processor time of a small model's step; at every tenth nothing seen.
_RELEASE_EVERY_STEPS = 10


def train(
    spec: RunSpec,
    run_dir: Path,
    rendezvous: Rendezvous,
    on_record: OnRecord | None = None,
    profile: ProfileRequest | None = None,
) -> None:
    """Run one rank of ``spec`` to its last step; collective over all ranks. ``profile`` asks for a trace.

    Continues from the newest complete checkpoint in ``run_dir``, if there is one. Rank 0 writes
    ``run_dir/records.jsonl`` and passes each record to ``on_record``. If any rank is asked to stop, raises
    Stopped after a checkpoint.
    """
    layout = Layout.from_spec(spec)
    device = select_device(spec.machine.device.kind, rendezvous.local_rank)
    if spec.training.deterministic:
        use_deterministic_kernels(device)
    groups = initialize(layout, rendezvous, device, data=spec.engine != "native")
    places = gather_places(device, layout.world_size)
    placement.check(layout, spec.machine, places)
    hosts = [place.host for place in places]
    if spec.machine.device.limit_memory:
        limit_memory(device, spec.machine.device.memory_bytes)
    if spec.watch.self_test:
        self_test.run(device)
    warnings = []
    if groups.rank == 0:
        warnings = [*map(str, versions.unsupported()), *placement.misbound(spec.machine, places)]
    trainer = make_trainer(spec, groups, device)
    watchdog = Watchdog(run_dir, groups.rank, spec.watch.hang_after_s, trainer.transport)
    watchdog.start()
    profiled = Profile(profile, spec, groups.rank, run_dir, device)
    if groups.rank == 0:
        with RecordWriter(run_dir, on_record) as writer:
            known = {name: versions.version(name) for name in _VERSIONS}
            description = header(spec, layout.describe(), str(device), sorted(set(hosts)), known)
            _run(spec, run_dir, trainer, watchdog, writer.write, description, warnings, profiled)
    else:
        _run(spec, run_dir, trainer, watchdog, lambda *_, **__: None, {}, warnings, profiled)
    trainer.settle()
    watchdog.stop()
    # Only after success: a failed rank must not wait for the others before it reports why.
    dist.destroy_process_group()


def _run(
    spec: RunSpec,
    run_dir: Path,
    trainer: RankTrainer,
    watchdog: Watchdog,
    write: Write,
    description: dict[str, Any],
    warnings: list[str],
    profiled: Profile,
) -> None:
    """The training loop. Every rank takes each step of it; ``write`` keeps records on rank 0 only.

    ``warnings`` were found before the loop starts.
    """
    begin = time.perf_counter()
    saving = Saving(spec, run_dir, trainer, write)
    progress = saving.begin(warnings.append)
    write("header", **description, continued_from=progress.step)
    for message in warnings:
        write("warning", about="start", step=progress.step, message=message)
    dataset = open_dataset(spec, split="train")
    validate = validation(spec, trainer, write)
    first = last = validate(0) if progress.step == 0 else progress.first_validation_loss
    training = spec.training
    report = StepReport(spec, trainer, write, progress)
    taken: list[Step] = []
    for number in range(progress.step, training.steps):
        watchdog.beat()
        done = number + 1
        with _telling_of_corruption(saving, write, done):
            with profiled.step(done):
                record, notes = take_step(spec, trainer, number, dataset, report, saving.due_by_time)
            taken.append(cast(Step, record))
            if done % _RELEASE_EVERY_STEPS == 0:
                release_free_memory(trainer.device)
            due = training.validate_every_steps and done % training.validate_every_steps == 0
            if due or done == training.steps:
                last = validate(done)
            saving.after_step(report.progress(done, first), notes, last=done == training.steps)
        _check_health(spec, report, saving)
        if notes.stop and done < training.steps:
            write("stopped", step=done)
            saving.end()
            trainer.settle()
            watchdog.stop()
            raise Stopped(done)
    saving.end()
    write(
        "summary",
        steps=training.steps,
        first_validation_loss=first,
        last_validation_loss=last,
        tokens_per_s_per_device=steady_median(taken, "tokens_per_s_per_device"),
        bytes_per_step=_mean_bytes(taken),
        elapsed_s=time.perf_counter() - begin,
    )


def _mean_bytes(taken: list[Step]) -> dict[str, float] | None:
    """Means over all steps: weights are gathered in the step after their update, or at once to be checked."""
    sent = [step["bytes_sent"] for step in taken if step["bytes_sent"] is not None]
    if len(sent) < len(taken):
        return None
    return {level: sum(each[level] for each in sent) / max(len(sent), 1) for level in LEVELS}


@contextmanager
def _telling_of_corruption(saving: Saving, write: Write, step: int) -> Iterator[None]:
    """Record that step ``step`` found corruption, after the checkpoint that is being written."""
    try:
        yield
    except Corrupted as error:
        write("warning", about="corruption", step=step - 1, message=str(error))
        saving.end()
        raise


def _check_health(spec: RunSpec, report: StepReport, saving: Saving) -> None:
    """Raise TrainingFailed on every rank if too many steps in a row were skipped."""
    if report.bad_steps < spec.watch.stop_after_bad_steps:
        return
    saving.end()
    raise TrainingFailed(
        f"{report.bad_steps} steps in a row were skipped: loss or gradient was not finite; "
        f"{saving.last_good()}"
    )
