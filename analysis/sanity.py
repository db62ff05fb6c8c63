"""What is impossible or odd about a run, with the reason. Each flag is (kind, sentence).

Kinds in :data:`UNTRUE` mean that the run's speed is not what its log says; scaling excludes those runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from frontrunner.analysis.machines import best_product_flops_per_s, peak_flops_per_s
from frontrunner.analysis.run_log import RunLog
from frontrunner.configs.schema import MachineSpec
from frontrunner.configs.units import bytes_text, digits, flops_text, seconds_text, share_text

Figures = dict[str, Any]
Flag = tuple[str, str]
UNTRUE = frozenset({"implausible", "micro-batches"})

#: Printed and recomputed figures further apart than this disagree.
DISAGREEMENT = 0.05
_FEW_STEPS = 3


def flags(run: RunLog, figures: Figures, row: Figures, machine: MachineSpec | None) -> list[Flag]:
    """Everything odd. ``row`` comes from :func:`steady.summarise`; ``figures`` is derived from it."""
    checks: tuple[Callable[..., Iterator[Flag]], ...] = (
        _implausible,
        _micro_batches,
        _overflow,
        _loss,
        _disagreement,
        _layout,
        _unsupported,
        _changes,
        _memory,
        _reading,
    )
    return [flag for check in checks for flag in check(run, figures, row, machine)]


def engine_factor(run: RunLog) -> tuple[float, int, int] | None:
    """Share of the counted micro-batches that the engine ran, and both numbers; None if they agree.

    Megatron-DeepSpeed passes its engine the global batch. The engine divides it by the micro-batch size of
    its own configuration, but a micro-batch really holds as many sequences as the trainer's argument says.
    """
    theirs = run.facts.get("engine_micro_batch_size")
    micro, data = run.layout.get("micro_batch_size"), run.layout.get("data")
    if not (theirs and micro and data and run.global_batch_size) or theirs == micro:
        return None
    counted, ran = run.global_batch_size // (micro * data), run.global_batch_size // (theirs * data)
    return (ran / counted, ran, counted) if counted and ran else None


def _implausible(run: RunLog, figures: Figures, row: Figures, machine: MachineSpec | None) -> Iterator[Flag]:
    """Hardware FLOP/s above what any matrix product reaches."""
    speed = _claimed(figures, row)
    peak = peak_flops_per_s(machine, run.precision)
    best = best_product_flops_per_s(machine, run.precision)
    if not speed or not peak or machine is None:
        return
    if speed > peak:
        yield (
            "implausible",
            f"up to {flops_text(speed)} per device (hardware FLOPs) exceeds the peak of "
            f"{machine.device.name}, {flops_text(peak)}",
        )
    elif best and speed > best:
        yield (
            "implausible",
            f"up to {flops_text(speed)} per device (hardware FLOPs) is not plausible for a whole step: "
            f"it is {share_text(speed / peak)} of the peak of {machine.device.name} and exceeds its "
            f"best measured matrix product, {flops_text(best)}",
        )


def _claimed(figures: Figures, row: Figures) -> float:
    """The highest hardware FLOP/s per device in the log; 0 if it gives none."""
    return max(figures["hardware_flops_per_s_per_device"] or 0.0, row["largest_printed_flops_per_s"] or 0.0)


def _micro_batches(
    run: RunLog, figures: Figures, row: Figures, machine: MachineSpec | None
) -> Iterator[Flag]:
    if (found := engine_factor(run)) is None:
        return
    factor, ran, counted = found
    speed = _claimed(figures, row)
    truth = (
        f"; the real speed is {flops_text(speed * factor)}, not {flops_text(speed)} per device"
        if speed
        else ""
    )
    yield (
        "micro-batches",
        f"the engine ran {ran} micro-batches a step but the log counts {counted}: the engine's "
        f"configuration says "
        f"{run.facts['engine_micro_batch_size']} sequences a micro-batch, the trainer's arguments "
        f"{run.layout['micro_batch_size']}{truth}",
    )


def _overflow(run: RunLog, figures: Figures, row: Figures, machine: MachineSpec | None) -> Iterator[Flag]:
    """Steps that changed nothing: the log says so, or its loss scale falls at each step."""
    steps = row["steps"]
    skipped = max(run.facts.get("overflow_lines", 0), row["skipped"] or 0)
    falls = row["loss_scale_drops"] or 0
    if steps > 1 and row["loss_scales"] == steps and falls == steps - 1:
        skipped = max(skipped, steps)
    skipped = min(skipped, steps)
    if skipped == steps:
        yield (
            "overflow",
            f"every step overflowed: all {steps} were skipped, so the model was never updated",
        )
    elif skipped > max(2, 0.05 * steps):
        yield "overflow", f"{skipped} of {steps} steps were skipped: loss or gradients were not finite"


def _loss(run: RunLog, figures: Figures, row: Figures, machine: MachineSpec | None) -> Iterator[Flag]:
    steps, first, last = row["steps"], row["first_loss"], row["last_loss"]
    if row["losses_missing"] == steps:
        if run.format == "records" or row["losses_missing"] > _FEW_STEPS:
            yield "loss", "no step has a finite loss"
        return
    if row["losses_missing"]:
        yield "loss", f"the loss of {row['losses_missing']} of {steps} steps is missing or not finite"
    if steps < _FEW_STEPS or first is None or last is None:
        return
    span = row["largest_loss"] - row["smallest_loss"]
    if span <= 1e-3 * abs(first):
        yield (
            "loss",
            f"the loss never moves: it stays within {digits(span)} of {digits(first)} for {steps} steps",
        )
    elif last > 1.5 * row["smallest_loss"] and last > first:
        yield "loss", f"the loss went up: from {digits(first)} to {digits(last)}"


def _disagreement(run: RunLog, figures: Figures, row: Figures, machine: MachineSpec | None) -> Iterator[Flag]:
    """Contradictions between figures of one log."""
    printed, convention = figures["printed_flops_per_s_per_device"], figures["flop_convention"]
    own = figures["expected_flops_per_s_per_device"]
    if printed and own and abs(printed / own - 1) > DISAGREEMENT:
        yield (
            "disagreement",
            f"the log prints {flops_text(printed)}, but its step time and batch give {flops_text(own)} per "
            f"device ({convention} FLOPs)",
        )
    samples, time, batch = row["samples_per_s"], row["step_time_s"], figures["global_batch_size"]
    if samples and time and batch and abs(samples * time / batch - 1) > DISAGREEMENT:
        yield (
            "disagreement",
            f"the log prints {digits(samples)} sequences/s, but {batch} sequences in {seconds_text(time)} "
            f"give {digits(batch / time)}",
        )
    told, speed = row["tokens_per_s_per_device"], figures["tokens_per_s_per_device"]
    if told and speed and abs(told / speed - 1) > DISAGREEMENT:
        yield (
            "disagreement",
            f"the log prints {digits(told)} tokens/s per device, but its batch and step time give "
            f"{digits(speed)}",
        )


def _layout(run: RunLog, figures: Figures, row: Figures, machine: MachineSpec | None) -> Iterator[Flag]:
    """Arguments that contradict each other or are missing."""
    factors = [run.layout.get(key) for key in ("tensor", "pipeline", "data")] + [run.layout.get("context", 1)]
    if run.devices and all(factors) and math.prod(int(f or 1) for f in factors) != run.devices:
        yield (
            "layout",
            f"tensor x pipeline x data x context = {math.prod(int(f or 1) for f in factors)}, not "
            f"{run.devices} devices",
        )
    missing = [
        name
        for name, value in (
            ("number of devices", run.devices),
            ("model", run.model),
            ("sequence length", figures["seq_len"]),
            ("global batch", figures["global_batch_size"]),
        )
        if not value
    ]
    if missing:
        yield (
            "incomplete",
            f"the log does not give the {', '.join(missing)}: figures that need it are skipped",
        )
    if machine is None:
        yield "machine", "the log names no known machine, so there is no MFU: add --machine"


def _unsupported(run: RunLog, figures: Figures, row: Figures, machine: MachineSpec | None) -> Iterator[Flag]:
    """Features of the run that figures do not cover."""
    names = {
        "model": "its parameters, FLOP/s, MFU and plan are not known",
        "attention": "its FLOP/s, MFU and plan are not known",
        "plan": "it is not planned",
    }
    for each in run.unsupported:
        yield "unsupported", f"{each.reason}, which is not supported here: {names[each.void]}"


def _changes(run: RunLog, figures: Figures, row: Figures, machine: MachineSpec | None) -> Iterator[Flag]:
    """A run that is not one state all the time."""
    for words, first, last in (
        ("global batch", row["first_batch"], figures["global_batch_size"]),
        ("sequence length", row["first_seq_len"], figures["seq_len"]),
    ):
        if first and first != last and row["other_batch"]:
            yield (
                "changes",
                f"the {words} changes from {int(first)} to {last}: figures are of the {row['steady']} steady "
                f"steps at {last}",
            )


def _memory(run: RunLog, figures: Figures, row: Figures, machine: MachineSpec | None) -> Iterator[Flag]:
    peak = figures["memory_bytes"]
    if machine and peak and peak > machine.device.memory_bytes:
        capacity = machine.device.memory_bytes
        yield (
            "memory",
            f"{bytes_text(peak)} per device exceed the memory of {machine.device.name}, "
            f"{bytes_text(capacity)}",
        )


def _reading(run: RunLog, figures: Figures, row: Figures, machine: MachineSpec | None) -> Iterator[Flag]:
    if run.lost_lines:
        yield (
            "lost",
            f"{run.lost_lines} lines could not be read (cut off, garbled or not numbers) and were skipped",
        )
    if not row["steady"]:
        yield "steady", "no step is steady, so there is no step time"
    elif row["steady"] < _FEW_STEPS:
        yield "steady", f"only {row['steady']} steps are steady, so the step time is uncertain"
    if row["steady"] and figures["step_time_s"] is None and "step_time_s" in run.not_printed:
        yield "incomplete", f"there is no step time: {run.not_printed['step_time_s']}"
    if run.events:
        yield "events", f"the run logged {len(run.events)} warnings; the last: {run.events[-1]}"
