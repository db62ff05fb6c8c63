"""The tables of all commands, which fit any width without losing a character.

A row is one line where the width allows it. Where it does not, text folds first and headings next; then
the table continues below itself with the remaining columns, beside the first column again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions, Group
from rich.table import Table as Grid
from rich.text import Text

from frontrunner.launcher.display.terminal import visible

#: A line under the headings, and between sections.
_BOX = box.Box("    \n    \n ── \n    \n ── \n ── \n    \n    \n")
_GAP = 2
#: A text may become this narrow before figures move to the next part of the table.
_NARROW = 24
_LONG_WORD = 12
#: What a text may be broken after: words, and numbers with their units.
_WHOLE = re.compile(r"[-+(]?\d[\d.,]* (?:%|[KMGTPE]?i?B|[kMGTPE]?FLOP/s|[mµ]?s)(?!\w)\S*\s*|\S+\s*")


@dataclass(frozen=True)
class Table:
    """Rows of text under headings; the first column says what a row is about.

    Columns in ``texts`` are left-aligned and may fold; the others are figures, which are never broken.
    Without headings, only the rows are shown. ``rules`` are rows that a line separates from those above.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: Collection[int] = (0,)
    rules: Collection[int] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Grid | Text]:
        if self.title:
            yield Text(self.title, style="italic")
        columns = [[visible(row[index]) for row in self.rows] for index in range(len(self.headings))]
        width = max(options.max_width, 1)
        least = [self._least(index, column, width) for index, column in enumerate(columns)]
        for part in _parts(least, width):
            yield self._grid(
                columns, part, _spread([self._most(i, columns[i]) for i in part], part, least, width)
            )

    def _most(self, index: int, column: Sequence[str]) -> int:
        return max(cell_len(text) for text in (visible(self.headings[index]), *column))

    def _least(self, index: int, column: Sequence[str], width: int) -> int:
        """The narrowest that a column may be: half of the width for names, whole words for other text."""
        heading = max(map(cell_len, _words(visible(self.headings[index]))), default=0)
        if index not in self.texts:
            return max(heading, *map(cell_len, column), 0)
        most = self._most(index, column)
        if index == 0:
            return min(most, width // 2)
        words = max((cell_len(word.rstrip()) for text in column for word in _WHOLE.findall(text)), default=0)
        return max(heading, min(most, max(_NARROW, min(words, width // 2))))

    def _grid(self, columns: Sequence[Sequence[str]], part: Sequence[int], widths: Sequence[int]) -> Grid:
        grid = Grid(
            box=_BOX if any(self.headings) else None,
            show_header=any(self.headings),
            show_edge=False,
            pad_edge=False,
            padding=(0, _GAP - 1 if any(self.headings) else _GAP, 0, 0),
        )
        for index, width in zip(part, widths, strict=True):
            left = index in self.texts
            heading = _group(visible(self.headings[index]), width)
            grid.add_column(heading, justify="left" if left else "right", overflow="fold", width=width)
        for row in range(len(self.rows)):
            if row and row in self.rules:
                grid.add_section()
            grid.add_row(*(_group(columns[i][row], w) for i, w in zip(part, widths, strict=True)))
        return grid


def pairs(rows: Sequence[tuple[str, str]], title: str = "") -> Table:
    """Names and values, a line each."""
    return Table(title, ("", ""), rows, texts=(0, 1))


def _parts(least: Sequence[int], width: int) -> list[list[int]]:
    """Which columns stand beside each other."""
    parts, used = [[0]], least[0]
    for index, needed in list(enumerate(least))[1:]:
        if len(parts[-1]) > 1 and used + _GAP + needed > width:
            parts, used = [*parts, [0]], least[0]
        parts[-1].append(index)
        used += _GAP + needed
    return parts


def _spread(most: Sequence[int], part: Sequence[int], least: Sequence[int], width: int) -> list[int]:
    """Widths of the columns of a part: the least, and what is left over from the left to the right."""
    widths = [least[index] for index in part]
    left = width - sum(widths) - _GAP * (len(part) - 1)
    for place, wanted in enumerate(most):
        more = max(0, min(wanted - widths[place], left))
        widths[place] += more
        left -= more
    return widths


def _group(text: str, width: int) -> Group | Text:
    return Group(*map(Text, folded(text, width))) if cell_len(text) > width else Text(text)


def folded(text: str, width: int) -> list[str]:
    """``text`` in lines of at most ``width`` cells: broken at blanks, or in long names after punctuation.

    A number and its unit stay together.
    """
    lines = [""]
    for word in _WHOLE.findall(text):
        whole = cell_len(word.rstrip()) <= width
        for piece in [word] if whole else _pieces(word):
            for bit in chop_cells(piece, width) if cell_len(piece.rstrip()) > width else [piece]:
                if lines[-1] and cell_len(lines[-1] + bit.rstrip()) > width:
                    lines.append("")
                lines[-1] += bit
    return [line.rstrip() for line in lines]


def _words(heading: str) -> Iterator[str]:
    """What a heading may be broken into: words, and parts of long identifiers."""
    for word in heading.split():
        yield from [word] if cell_len(word) <= _LONG_WORD else _pieces(word)


def _pieces(text: str) -> list[str]:
    return re.findall(r"[^\s/_.,:=-]*[\s/_.,:=-]+|[^\s/_.,:=-]+", text)
