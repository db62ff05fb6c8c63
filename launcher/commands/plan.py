"""``frontrunner plan``: does a run fit, how fast is it, and what would help?"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frontrunner.configs.units import bytes_text, flops_text, interval_text, seconds_text
from frontrunner.launcher.display.model_line import model_lines
from frontrunner.launcher.display.terminal import say, tell
from frontrunner.launcher.verify import verified

if TYPE_CHECKING:
    from frontrunner.configs.load import Document
    from frontrunner.configs.schema import MachineSpec, RunSpec
    from frontrunner.parallelism.layout import Layout
    from frontrunner.parallelism.planner.advise import Advice
    from frontrunner.parallelism.planner.candidates import Workload
    from frontrunner.parallelism.planner.checkpoints import CheckpointPlan
    from frontrunner.parallelism.planner.plan import Estimate

BAR = 50
#: Forwards and backwards of all stages in a trace: about 130 MB.
MOST_PIECES = 200_000
#: Of models that are planned or searched without a machine.
USUAL_MACHINE = "frontier"


def plan(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN.yaml",
            help="A run file or preset; or a model, its file or folder, to plan a layout chosen for it.",
        ),
    ],
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--override", "-o", metavar="KEY=VALUE", help="Override a key, e.g. layout.tensor=4 (repeatable)."
        ),
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(help="Number of nodes (default: the file's; for a model, the fewest).")
    ] = None,
    machine: Annotated[
        str | None,
        typer.Option(help="Machine preset or file (default: the run file's; for a model, frontier)."),
    ] = None,
    software: Annotated[
        str | None, typer.Option(help="Software year in the machine file (default: the newest).")
    ] = None,
    tokens: Annotated[float | None, typer.Option(help="Tokens to train on, e.g. 300e9.")] = None,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Write the predicted step as a trace for Perfetto."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the trace if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Predict whether a run fits, its speed, where time goes, and what would help."""
    from frontrunner.launcher.written import check_free

    if trace is not None:
        check_free(trace, force, "--trace", "step.json")
    overrides = [*(override or [])]
    overrides += [f"nodes={nodes}"] if nodes is not None else []
    overrides += [f"machine={json.dumps(machine)}"] if machine is not None else []
    document, layout = _resolved(run, overrides, software)
    from frontrunner.parallelism.planner.advise import advise
    from frontrunner.parallelism.planner.candidates import Candidates, Workload
    from frontrunner.parallelism.planner.checkpoints import plan_checkpoints
    from frontrunner.parallelism.planner.plan import assumptions, estimate

    check_tokens(tokens)
    spec = document.spec
    workload = Workload.of(spec, software_year(spec.machine, software))
    if trace is not None:
        write_trace(trace, force, spec, layout, workload)
    estimated = estimate(workload, Candidates.of(spec, layout))
    advice = advise(spec, estimated)
    checkpoints = plan_checkpoints(spec)
    budget = float(tokens or spec.training.steps * spec.training.global_batch_size * spec.training.seq_len)
    if as_json:
        duration = _duration(estimated, budget, layout.world_size)
        answer = estimated.as_dict(0) | {
            "tokens": budget,
            "duration_s": duration,
            "node_hours": duration / 3600 * spec.nodes if duration is not None else None,
            "assumptions": assumptions(workload),
            "checkpoints": checkpoints._asdict() if checkpoints else None,
            "advice": [{"change": a.change, "gain": a.gain, "fits": a.fits} for a in advice],
            "trace": str(trace) if trace else None,
        }
        typer.echo(json.dumps(answer))
        return
    duration = _duration(estimated, budget, layout.world_size)
    lines = [
        f"{run}: {spec.model.name} on {spec.nodes} nodes of {spec.machine.name}",
        *model_lines(spec.model),
        *memory_lines(estimated),
        *time_lines(estimated, duration, budget, spec.nodes),
        *checkpoint_lines(checkpoints),
        *advice_lines(estimated, advice),
        "assumptions",
        *(f"  - {text}" for text in assumptions(workload)),
        *([f"trace   {trace}: open it at https://ui.perfetto.dev"] if trace else []),
    ]
    tell(*lines)


def _resolved(run: str, overrides: list[str], software: str | None) -> tuple[Document, Layout]:
    """The run, or a layout that is chosen for a model; stderr then says which, and why."""
    from frontrunner.configs.load import load_machine, names_model

    if not names_model(run):
        return verified(run, overrides)
    from frontrunner.launcher.proposal import propose

    keys = {"model": run, "machine": USUAL_MACHINE, "data": "synthetic"}
    machines = [text.partition("=")[2] for text in overrides if text.startswith("machine=")]
    software_year(load_machine(machines[-1].strip('"') if machines else USUAL_MACHINE), software)
    found = propose(keys, overrides, software_year=software)
    spec = found.document.spec
    say(f"{run} is a model: a layout was chosen for it on {spec.machine.name}")
    for reason in found.reasons:
        say(f"  {reason}")
    return found.document, found.layout


def software_year(machine: MachineSpec, software: str | None) -> str | None:
    """``--software``, if the machine file has that year."""
    from frontrunner.configs.errors import SpecError, Violation

    known = sorted(machine.software)
    if software is not None and software not in known:
        raise SpecError(
            [
                Violation(
                    "--software",
                    software,
                    f"{machine.name} has {', '.join(known) or 'no software years'}",
                    "use one of these" if known else "add a software section to the machine file",
                )
            ]
        )
    return software


def check_tokens(tokens: float | None) -> None:
    """SpecError if ``--tokens`` is given and is not a number of tokens."""
    from frontrunner.configs.errors import SpecError, Violation

    if tokens is not None and not 1 <= tokens < float("inf"):
        raise SpecError(
            [Violation("--tokens", tokens, "must be a number of at least 1", "write it like 300e9")]
        )


def write_trace(file: Path, force: bool, spec: RunSpec, layout: Layout, workload: Workload) -> None:
    """Write the predicted step; SpecError if it is not known, or too long for a viewer."""
    from frontrunner.configs.errors import SpecError, Violation
    from frontrunner.launcher.written import write_text
    from frontrunner.parallelism.planner.trace import predicted_trace

    pieces = 2 * layout.pipeline * layout.virtual_stages * spec.grad_accum_steps
    wrong = None
    if workload.software is None:
        fix = f"calibrate {spec.machine.name}, or name a machine that has rates"
        wrong = (f"needs a step time, but {spec.machine.name}'s machine file has no rates", fix)
    elif pieces > MOST_PIECES:
        what = f"would show {pieces:,} forwards and backwards; viewers take {MOST_PIECES:,}"
        wrong = (what, "use a smaller training.global_batch_size: micro-batches are alike")
    elif spec.model.experts is not None:
        wrong = ("cannot show tokens on their way to experts yet", "leave --trace out")
    if wrong:
        raise SpecError([Violation("--trace", str(file), *wrong)])
    write_text(file, predicted_trace(spec, layout, workload), force, "--trace")


def _duration(estimated: Estimate, tokens: float, devices: int) -> float | None:
    """Seconds to train on that many tokens."""
    return None if estimated.time is None else float(tokens / (estimated.tokens_per_s[0] * devices))


def memory_lines(estimated: Estimate) -> list[str]:
    """A bar of the device's memory and its parts."""
    capacity = estimated.workload.machine.device.memory_bytes
    peak = float(estimated.memory.peak[0])
    parts = {f.name: float(getattr(estimated.memory, f.name)[0]) for f in fields(estimated.memory)}
    scale = BAR / max(capacity, peak)
    bar, total = "", 0.0
    for value, letter in zip(parts.values(), "WGOABR", strict=True):
        total += value
        bar += letter * (round(total * scale) - len(bar))
    state = "fits" if peak <= capacity else f"does NOT fit: {bytes_text(peak - capacity)} over"
    shown = ", ".join(f"{name} {bytes_text(value)}" for name, value in parts.items())
    count, size = estimated.communicators(0)
    return [
        f"memory  {bytes_text(peak)} of {bytes_text(float(capacity))}: {state}",
        f"        [{bar.ljust(BAR, '.')}]",
        f"        {shown}",
        f"        {count} communicators on the fullest rank take {bytes_text(float(size))} of the residual",
    ]


def time_lines(estimated: Estimate, duration: float | None, tokens: float, nodes: int) -> list[str]:
    """The step time by part, the speed, and the time of the whole training."""
    if estimated.time is None or duration is None:
        machine = estimated.workload.machine.name
        return [f"step    unknown: {machine}'s machine file has no rates (its `software` section)"]
    total = float(estimated.time.total[0])
    lines = [f"step    {seconds_text(total)}"]
    for f in fields(estimated.time):
        value = float(getattr(estimated.time, f.name)[0])
        if value > 0.0005 * total:
            bar = "#" * round(24 * value / total)
            lines.append(f"        {f.name:<10}{bar:<25}{value / total:6.1%}  {seconds_text(value)}")
    found = estimated.as_dict(0)
    mfu, hfu = found["mfu"], found["hfu"]
    shares = f" (MFU {mfu:.1%}, HFU {hfu:.1%})" if isinstance(mfu, float) and isinstance(hfu, float) else ""
    model, hardware = (float(f[0]) for f in (estimated.model_flops_per_s(), estimated.hardware_flops_per_s()))
    return [
        *lines,
        f"speed   {estimated.tokens_per_s[0]:,.1f} tokens/s per device"
        f"{interval_text(estimated.interval_pct(0))}, {flops_text(model)} model, "
        f"{flops_text(hardware)} hardware{shares}",
        f"budget  {tokens:.3g} tokens: {duration / 86400:,.2f} days, "
        f"{duration / 3600 * nodes:,.1f} node-hours",
    ]


def checkpoint_lines(plan: CheckpointPlan | None) -> list[str]:
    """The best checkpoint interval, and its inputs."""
    if plan is None:
        return []
    return [
        f"saves   {bytes_text(plan.bytes)} in {seconds_text(plan.write_s)}; best interval "
        f"{plan.interval_s / 60:,.0f} minutes, with one failure per {plan.mtbf_s / 3600:,.0f} hours"
    ]


def advice_lines(estimated: Estimate, advice: list[Advice]) -> list[str]:
    """The largest cost, then the changes that help most."""
    if not estimated.fits[0]:
        shown = [
            f"  {a.change}: fits" + (f", {a.gain:+.1%} tokens/s" if estimated.time else "") for a in advice
        ]
        enough = "  no single change is enough: use more stages, tensor ranks or nodes"
        return ["to make it fit", *(shown or [enough])]
    if estimated.time is None:
        return []
    total = float(estimated.time.total[0])
    losses = {f.name: float(getattr(estimated.time, f.name)[0]) / total for f in fields(estimated.time)}
    worst = max((name for name in losses if name != "compute"), key=lambda name: losses[name])
    head = f"largest cost besides compute: {worst}, {losses[worst]:.1%} of the step"
    return [head, *(f"  {a.change}: {a.gain:+.1%} tokens/s" for a in advice)] if advice else [head]
