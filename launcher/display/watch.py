"""Consumers of a run's records: the totals, the view and the trackers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, TextIO

from frontrunner.launcher.display.run_view import LiveView, PlainView
from frontrunner.launcher.display.screen import Screen
from frontrunner.launcher.display.totals import Totals
from frontrunner.launcher.display.trackers import TrackerName, open_tracker
from frontrunner.run_folder.records import Record


class Watch:
    """Shows one run on ``output``; a context manager that ends the display and closes the trackers."""

    def __init__(
        self, run_dir: Path, steps: int, trackers: Sequence[TrackerName], output: TextIO, *, live: bool
    ) -> None:
        self._totals = Totals(run_dir, steps)
        # Some launchers give each rank its own terminal: plain output must stay plain there too.
        self._console = Screen(output, plain=not live)
        self._view = (LiveView if live else PlainView)(self._totals, self._console)
        with ExitStack() as opening:
            self._trackers = [
                opening.enter_context(closing(open_tracker(name, run_dir))) for name in trackers
            ]
            self._open = opening.pop_all()

    def __enter__(self) -> Watch:
        self._open.enter_context(self._view)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def say(self, message: str) -> None:
        self._console.print(message)

    def record(self, record: Record) -> None:
        self._totals.add(record)
        self._view.record(record)
        for tracker in self._trackers:
            tracker.record(record)

    def finish(self) -> dict[str, Any]:
        """Print the summary table and return what ``--json`` prints."""
        result = self._totals.result()
        self._console.print(self._totals.table())
        return result
