"""One step of a run, and what is recorded about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.learning_rate import learning_rate
from frontrunner.parallelism.planner.flops import hardware_flops_per_token, model_flops_per_token
from frontrunner.parallelism.runtime.anomalies import (
    LossWatch,
    RouterWatch,
    StragglerWatch,
    slowest,
    with_rank,
)
from frontrunner.parallelism.runtime.checkpoint.progress import Progress, samples_before
from frontrunner.parallelism.runtime.device import peak_memory_bytes
from frontrunner.parallelism.runtime.rank_trainer import RankTrainer, StepResult, Timing
from frontrunner.run_folder import endings

Write = Callable[..., None]


class Notes(NamedTuple):
    """What ranks agree on after a step: whether to stop, and whether a checkpoint is due by the clock."""

    stop: bool
    save: bool


class StepReport:
    """Writes records of steps and warnings about them, and counts steps that changed nothing."""

    def __init__(self, spec: RunSpec, trainer: RankTrainer, write: Write, begun: Progress) -> None:
        self.spec = spec
        self.trainer = trainer
        self.write = write
        self.begun = begun
        self.bad_steps = begun.bad_steps
        self._losses = LossWatch()
        self._stragglers = StragglerWatch()
        experts = spec.model.experts
        self._routers = RouterWatch(experts.num_experts / experts.experts_per_token if experts else 1.0)

    def progress(self, done: int, first_validation_loss: float | None) -> Progress:
        return Progress(
            done, samples_before(self.spec, self.begun, done), first_validation_loss, self.bad_steps
        )

    def agree(self, timing: Timing, save: bool) -> tuple[dict[str, Any], Notes]:
        """Shares what only some ranks know: fields of the record, and what comes next. Collective."""
        busy_s = timing.step - (timing.communication or 0.0)
        peak, stop, due, busiest = self.trainer.largest(
            float(peak_memory_bytes(self.trainer.device)),
            float(endings.asked()),
            float(save),
            with_rank(busy_s, self.trainer.groups.rank),
        )
        found: dict[str, Any] = {"peak_memory_bytes": int(peak)}
        sent = self.trainer.averages(busy_s)
        if sent is not None:
            rank, longest_s = slowest(busiest)
            found |= {
                "bytes_sent": sent[0],
                "busy_s": sent[1],
                "slowest_rank": rank,
                "slowest_busy_s": longest_s,
            }
        balance = self.trainer.balance()
        if balance is not None:
            found |= balance._asdict()
        return {"bytes_sent": None} | found, Notes(bool(stop), bool(due))

    def add(self, record: dict[str, Any]) -> None:
        """Write a step's record, and a warning if something is odd."""
        self.bad_steps = self.bad_steps + 1 if record["skipped"] else 0
        self.write("step", **record)
        messages = {"loss": self._losses.add(record["loss"])}
        if "slowest_rank" in record:
            messages["straggler"] = self._stragglers.add(
                record["slowest_rank"], record["slowest_busy_s"], record["busy_s"], record["step_time_s"]
            )
        if "expert_load" in record:
            messages["router"] = self._routers.add(record["expert_load"], record["idle_experts"])
        for about, message in messages.items():
            if message is not None:
                self.write("warning", about=about, step=record["step"], message=message)


def take_step(
    spec: RunSpec,
    trainer: RankTrainer,
    number: int,
    dataset: Any,
    report: StepReport,
    due_by_time: Callable[[], bool],
) -> tuple[dict[str, Any], Notes]:
    """Train on step ``number`` (from 0) and record it."""
    loss_scale = trainer.loss_scale
    first_sample = samples_before(spec, report.begun, number)
    loss, result, timing = trainer.step(number, dataset, first_sample)
    found, notes = report.agree(timing, due_by_time())
    record = _record(spec, number, loss, result, timing) | found
    if spec.training.precision == "float16":
        record["loss_scale"] = loss_scale
    report.add(record)
    return record, notes


def _record(spec: RunSpec, number: int, loss: float, result: StepResult, timing: Timing) -> dict[str, Any]:
    training, layout, device = spec.training, spec.layout, spec.machine.device
    speed = training.global_batch_size * training.seq_len / timing.step / spec.world_size
    model_flops = speed * model_flops_per_token(spec.model, training.seq_len)
    peak = device.peak_flops_per_s.get(training.precision)
    return {
        "step": number + 1,
        "loss": loss,
        "learning_rate": learning_rate(spec.optimizer, number, training.steps),
        "gradient_norm": result.gradient_norm,
        "step_time_s": timing.step,
        "forward_backward_s": timing.forward_backward,
        "communication_exposed_s": timing.communication,
        "optimizer_s": timing.optimizer,
        "tokens_per_s_per_device": speed,
        "model_flops_per_s_per_device": model_flops,
        "hardware_flops_per_s_per_device": speed
        * hardware_flops_per_token(spec.model, training.seq_len, layout.recompute),
        "mfu": model_flops / peak if peak else None,
        "skipped": result.skipped,
    }
