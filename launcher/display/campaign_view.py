"""The output of ``frontrunner advise``: a table of options, a curve, and the one to take."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from frontrunner.configs.units import bytes_text, digits, share_text
from frontrunner.launcher.display.search_tables import layout_words, near
from frontrunner.launcher.display.terminal import tell

if TYPE_CHECKING:
    from frontrunner.launcher.display.tables import Table
    from frontrunner.launcher.recommendation import Advised
    from frontrunner.parallelism.planner.campaign import Option

#: Cells of the curve: 80 columns with its axis.
_WIDTH, _HEIGHT = 68, 12


def show(answer: Advised) -> None:
    from frontrunner.launcher.display.screen import Screen

    spec = answer.spec
    tell(
        f"{spec.model.name} on {spec.machine.name}: {answer.tokens:.3g} tokens, "
        f"{answer.global_batch_size:,} sequences of {spec.training.seq_len:,} tokens per step"
    )
    small = [option.nodes for option in answer.options if not option.fits]
    if small:
        tell(f"on {', '.join(map(str, small))} nodes no layout fits with the margin of memory")
    Screen().print(_table(answer))
    fitting = [option for option in answer.options if option.fits]
    if len(fitting) > 1:
        tell(*curve(fitting, answer.recommended), "")
    tell(*_recommended(answer), *(f"  - {text}" for text in answer.assumptions()))


def _table(answer: Advised) -> Table:
    from frontrunner.launcher.display.tables import Table

    rows = []
    for option in answer.options:
        if option.span is None:
            continue
        row = [
            f"{option.nodes:,}{' *' if option is answer.recommended else ''}",
            _short(option.layout or {}),
            days_text(option),
            f"{option.node_hours:,.0f}",
            share_text(option.figures["mfu"]),
        ]
        rows.append([*row, *([digits(option.span.failures)] if answer.spec.machine.reliability else [])])
    headings = ["nodes", "layout", "days", "node-hours", "MFU"]
    headings += ["failures"] if answer.spec.machine.reliability else []
    return Table("options (* recommended)", headings, rows, texts=(1,))


def _short(layout: dict[str, Any]) -> str:
    """A layout in half a line: nothing is said of recomputation where there is none."""
    return layout_words(layout).replace(", recompute none", "").replace(" virtual", "").replace(", x", " x")


def days_text(option: Option) -> str:
    """Days, with their interval if the planner gives one: ``12.3 +- 9 %``."""
    share = option.figures.get("interval_pct")
    return digits(option.days) + ("" if share is None else f" +- {share:.0f} %")


def _recommended(answer: Advised) -> list[str]:
    """The option to take, in lines of a label and a text."""
    option, machine = answer.recommended, answer.spec.machine
    span, figures = option.span, option.figures
    assert span and option.layout
    queue = answer.queues[option.nodes]
    limit = queue[1].limit(option.nodes) if queue else None
    peak, memory = figures["peak_memory_bytes_per_device"], float(machine.device.memory_bytes)
    lost = span.total_s - span.training_s
    lines = [
        f"recommended: {option.nodes:,} nodes, {answer.rule}",
        f"  layout       {layout_words(option.layout)}: the simplest of {option.alike} {near()} of the "
        "fastest",
        f"  memory       {bytes_text(peak)} of {bytes_text(memory)} per device",
        f"  speed        {figures['tokens_per_s_per_device']:,.0f} tokens/s per device, "
        f"MFU {share_text(figures['mfu'])}",
        f"  time         {days_text(option)} days, {share_text(lost / span.total_s)} of it in checkpoints, "
        "failures and starts",
        f"  cost         {option.node_hours:,.0f} node-hours",
    ]
    if queue and limit:
        count = answer.jobs(option)
        lines.append(
            f'  queue        {queue[0]}, {count:,} {"jobs" if count != 1 else "job"}: "{limit.rule}"'
        )
    if span.checkpoint_interval_s:
        minutes = span.checkpoint_interval_s / 60
        lines += [
            f"  checkpoints  {span.checkpoints:,}, one every {digits(minutes)} minutes",
            f"  failures     {digits(span.failures)} expected, one in "
            f"{digits(24 * option.days / span.failures)} hours",
        ]
    return lines


def curve(options: list[Option], recommended: Option) -> list[str]:
    """Days (logarithmic) against node-hours, in 80 columns; points are marked with their nodes."""
    days = [math.log(option.days) for option in options]
    hours = [option.node_hours for option in options]
    top, low, left, right = max(days), min(days), min(hours), max(hours)
    grid = [[" "] * _WIDTH for _ in range(_HEIGHT)]
    placed = {}
    for option in options:
        down = round((top - math.log(option.days)) / ((top - low) or 1.0) * (_HEIGHT - 1))
        # Room for a label at the right end.
        across = round((option.node_hours - left) / ((right - left) or 1.0) * (_WIDTH - 8))
        placed[option.nodes] = (down, across)
        grid[down][across] = "*" if option is recommended else "o"
    for option in sorted(options, key=lambda each: each is not recommended):
        down, across = placed[option.nodes]
        label, begin = str(option.nodes), across + 2
        if set(grid[down][begin - 1 : begin + len(label) + 1]) <= {" "}:
            grid[down][begin : begin + len(label)] = label
    rows = ["days (points are marked with nodes)"]
    for down, cells in enumerate(grid):
        value = math.exp(top - (top - low) * down / (_HEIGHT - 1))
        axis = digits(value) if down in (0, _HEIGHT // 2, _HEIGHT - 1) else ""
        rows.append(f"{axis:>8} |{''.join(cells)}".rstrip())
    ends = f"{left:,.0f}", f"{right:,.0f} node-hours"
    rows.append(" " * 9 + "+" + "-" * _WIDTH)
    return [*rows, " " * 10 + ends[0] + ends[1].rjust(_WIDTH - len(ends[0]))]
