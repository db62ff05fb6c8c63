"""Shows a run: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table as Grid
from rich.text import Text

from frontrunner.configs.units import (
    bytes_text,
    duration_text,
    levels_text,
    model_flops_text,
    number_text,
    seconds_text,
)
from frontrunner.launcher.display.tables import pairs
from frontrunner.launcher.display.totals import Totals
from frontrunner.run_folder.records import Checkpoint, Record, Step, Warning

_PLAIN_LINES = 25
_LONGEST_SILENCE_S = 60.0
_GAP, _SHORTEST_BAR, _LONGEST_BAR = 2, 5, 20


class PlainView:
    """About 25 lines per run, at least one per minute, and one per validation."""

    def __init__(self, totals: Totals, console: Console) -> None:
        self._totals = totals
        self._console = console
        self._every = max(1, totals.steps // _PLAIN_LINES)
        self._printed_s = time.monotonic()

    def __enter__(self) -> PlainView:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def record(self, record: Record) -> None:
        if record["kind"] == "header":
            self._print(str(self._totals.layout_text()))
            if record.get("continued_from"):
                self._print(f"continues after step {record['continued_from']}")
        elif record["kind"] == "validation":
            loss = number_text(record["loss"], ".4f")
            self._print(f"validation after step {record['step']}: loss {loss}")
        elif record["kind"] == "checkpoint" or record["kind"] == "warning":
            self._print(event_text(record))
        elif record["kind"] == "step":
            due = record["step"] % self._every == 0 or record["step"] in (1, self._totals.steps)
            if due or time.monotonic() - self._printed_s > _LONGEST_SILENCE_S:
                self._print(_step_line(record, self._totals))

    def _print(self, line: str) -> None:
        self._console.print(line)
        self._console.file.flush()
        self._printed_s = time.monotonic()


class LiveView:
    """Progress, losses, speed and traffic, redrawn in place and removed when the run ends."""

    def __init__(self, totals: Totals, console: Console) -> None:
        self._totals, self._console = totals, console
        self._waiting = Spinner("dots", text="loading torch and starting the ranks")
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=5, transient=True)

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def record(self, record: Record) -> None:
        """Print important records above the display, which reads the totals at its next refresh."""
        if record["kind"] == "warning":
            self._live.console.print(event_text(record))

    def _render(self, width: int | None = None) -> Group | Spinner:
        totals = self._totals
        if totals.header is None:
            return self._waiting
        progress = _progress(totals, width or self._console.width)
        return Group(Text(totals.layout_text() or "", style="dim"), progress, pairs(_figures(totals)))


def _progress(totals: Totals, width: int) -> Grid:
    """Steps, a bar as long as there is room for, and the time left, in one line."""
    texts = [
        f"step {totals.done}/{totals.steps}",
        f"{totals.done / totals.steps:.0%}",
        f"left {duration_text(totals.seconds_left())}",
    ]
    room = width - sum(len(text) + _GAP for text in texts)
    cells: list[str | ProgressBar] = [*texts]
    if room >= _SHORTEST_BAR:
        cells.insert(1, ProgressBar(total=totals.steps, completed=totals.done, width=min(_LONGEST_BAR, room)))
    progress = Grid.grid(padding=(0, _GAP))
    for _ in cells:
        progress.add_column(overflow="fold")
    progress.add_row(*cells)
    return progress


def event_text(record: Checkpoint | Warning) -> str:
    """A checkpoint or a warning in one line."""
    if record["kind"] == "warning":
        return f"warning, step {record['step']}: {record['message']}"
    return (
        f"checkpoint after step {record['step']}: {record['path']} (written in "
        f"{seconds_text(record['write_s'])}, training waited {seconds_text(record['stalled_s'])})"
    )


def _step_line(record: Step, totals: Totals) -> str:
    width = len(str(totals.steps))
    return (
        f"step {record['step']:>{width}}/{totals.steps}  loss {number_text(record['loss'], '.4f')}  "
        f"learning rate {number_text(record['learning_rate'], '.2e')}  "
        f"gradient norm {number_text(record['gradient_norm'], '.3f')}  "
        f"{number_text(record['tokens_per_s_per_device'], ',.1f')} tokens/s per device  "
        f"{seconds_text(record['step_time_s'])} per step  left {duration_text(totals.seconds_left())}"
        + ("  skipped: loss or gradients were not finite" if record.get("skipped") else "")
    )


def _figures(totals: Totals) -> list[tuple[str, str]]:
    last = totals.last
    model_flops = model_flops_text(last("model_flops_per_s_per_device"), last("mfu"))
    return [
        ("loss", number_text(last("loss"), ".4f")),
        ("validation loss", totals.validation_text()),
        ("learning rate", number_text(last("learning_rate"), ".2e")),
        ("gradient norm", number_text(last("gradient_norm"), ".3f")),
        ("tokens/s per device", number_text(last("tokens_per_s_per_device"), ",.1f")),
        ("model FLOP/s per device", model_flops),
        ("step time", seconds_text(last("step_time_s"))),
        ("peak memory per device", bytes_text(last("peak_memory_bytes"))),
        ("bytes sent per rank and step", levels_text(last("bytes_sent"))),
        ("last checkpoint", totals.checkpoint_text()),
    ]
