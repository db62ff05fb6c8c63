"""One rank's run, from joining the world to the last record."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism import placement
from frontrunner.parallelism.layout import LEVELS, Layout
from frontrunner.parallelism.planner.flops import hardware_flops_per_token, model_flops_per_token
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime.data import open_dataset, unigram_loss
from frontrunner.parallelism.runtime.device import gather_places, select_device
from frontrunner.parallelism.runtime.engines import make_trainer
from frontrunner.parallelism.runtime.process_groups import initialize
from frontrunner.parallelism.runtime.rank_trainer import RankTrainer
from frontrunner.parallelism.runtime.records import RecordWriter, header
from frontrunner.parallelism.runtime.sharding.optimizer import learning_rate

OnRecord = Callable[[dict[str, Any]], None]
Write = Callable[..., None]


def train(spec: RunSpec, run_dir: Path, rendezvous: Rendezvous, on_record: OnRecord | None = None) -> None:
    """Run one rank of ``spec`` to its last step; collective over all ranks.

    Rank 0 writes ``run_dir/records.jsonl`` and passes each record to ``on_record``.
    """
    layout = Layout.from_spec(spec)
    device = select_device(spec.machine.device.kind, rendezvous.local_rank)
    groups = initialize(layout, rendezvous, device)
    places = gather_places(device, layout.world_size)
    placement.check(layout, spec.machine, places)
    hosts = [place.host for place in places]
    if groups.rank == 0:
        for warning in placement.misbound(spec.machine, places):
            print(f"warning: {warning}", flush=True)
    trainer = make_trainer(spec, groups, device)
    if groups.rank == 0:
        with RecordWriter(run_dir, on_record) as writer:
            writer.write("header", **header(spec, layout.describe(), str(device), sorted(set(hosts))))
            _run(spec, trainer, writer.write)
    else:
        _run(spec, trainer, lambda *_, **__: None)
    trainer.settle()
    # Only after success: a failed rank must not wait for the others before it can say why.
    dist.destroy_process_group()


def _run(spec: RunSpec, trainer: RankTrainer, write: Write) -> None:
    """The training loop. Every rank takes each step of it; ``write`` keeps records on rank 0 only."""
    begin = time.perf_counter()
    dataset = open_dataset(spec, split="train")
    validate = _validation(spec, trainer, write)
    first = last = validate(0)
    speeds: list[float] = []
    sent = dict.fromkeys(LEVELS, 0.0)
    training = spec.training
    for number in range(training.steps):
        step = _train_step(spec, trainer, number, dataset)
        write("step", **step)
        speeds.append(step["tokens_per_s_per_device"])
        sent = step["bytes_sent"]
        done = number + 1
        due = training.validate_every_steps and done % training.validate_every_steps == 0
        if due or done == training.steps:
            last = validate(done)
    write(
        "summary",
        steps=training.steps,
        first_validation_loss=first,
        last_validation_loss=last,
        # The first step warms caches and connections up.
        tokens_per_s_per_device=statistics.median(speeds[1:] or speeds),
        bytes_per_step=sent,
        elapsed_s=time.perf_counter() - begin,
    )


def _validation(spec: RunSpec, trainer: RankTrainer, write: Write) -> Callable[[int], float | None]:
    """A function that validates after a given step and records it; it does nothing without samples.

    The number of samples is rounded up to whole global batches, so that it is the same in every layout.
    """
    batch = spec.training.global_batch_size
    samples = math.ceil(spec.training.validation_samples / batch) * batch
    if not samples:
        return lambda step: None
    dataset = open_dataset(spec, split="validation")
    unigram = unigram_loss(spec, samples) if trainer.groups.rank == 0 else None

    def validate(step: int) -> float:
        loss = trainer.validate(dataset, samples)
        write("validation", step=step, loss=loss, unigram_loss=unigram)
        return loss

    return validate


def _train_step(spec: RunSpec, trainer: RankTrainer, number: int, dataset: Any) -> dict[str, Any]:
    """Train on one batch and say what a step's record holds."""
    loss_scale = trainer.loss_scale
    loss, result, timing = trainer.step(number, dataset)
    training, layout, device = spec.training, spec.layout, spec.machine.device
    speed = training.global_batch_size * training.seq_len / timing.step / spec.world_size
    model_flops = speed * model_flops_per_token(spec.model, training.seq_len)
    peak = device.peak_flops_per_s.get(training.precision)
    record = {
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
        "peak_memory_bytes": trainer.largest_memory(),
        "bytes_sent": trainer.average_sent(),
        "skipped": result.skipped,
    }
    return record | ({"loss_scale": loss_scale} if training.precision == "float16" else {})
