"""The console of all tables, views and styled text."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from frontrunner.launcher.display.terminal import unguarded, visible, width_of

_UNLIMITED = 100_000


class Screen(Console):
    """A console without markup that shows control characters, line breaks too, as escapes.

    On a terminal, text breaks at its width. In files and pipes nothing breaks, and nothing is coloured.
    ``plain`` treats a terminal like a pipe.
    """

    def __init__(self, stream: TextIO | None = None, *, plain: bool = False) -> None:
        stream = stream or sys.stdout
        # The width of a terminal is left to rich, which follows it while a live view is shown.
        wide = plain or width_of(stream) is None
        form: dict[str, Any] = {"width": _UNLIMITED, "soft_wrap": True} if wide else {}
        form |= {"force_terminal": False} if plain else {}
        super().__init__(file=unguarded(stream), highlight=False, markup=False, emoji=False, **form)

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(visible(text), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        return super().render(_safe(renderable) if isinstance(renderable, Text) else renderable, options)

    def lines(self, parts: Iterable[RenderableType]) -> None:
        """Print each part on lines of its own."""
        for part in parts:
            self.print(part)


def redraws(stream: TextIO) -> bool:
    """Whether a view can be redrawn there; on TERM=dumb, rich would show nothing until the end."""
    return stream.isatty() and not Screen(stream).is_dumb_terminal


def _safe(text: Text) -> Text:
    """The text with escapes for control characters, in the style of those characters."""
    if text.plain.isprintable() or visible(text.plain) == text.plain:
        return text
    shown = text.blank_copy()
    for part in text.divide(range(1, len(text))):
        part.plain = visible(part.plain)
        part.spans = [span._replace(end=len(part)) for span in part.spans]
        shown.append_text(part)
    return shown
