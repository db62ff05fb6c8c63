"""What people are shown on standard output and standard error: harmless text, in lines that fit.

Names, log lines, job reasons and error texts are foreign: they may hold escape sequences that move the
cursor, change colours or set the clipboard. :func:`visible` is the only place that makes them harmless.
Tables and styled text go through ``screen.Screen``, which uses it; all else through the guarded streams.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import textwrap
from typing import TextIO, cast

#: Control characters, marks that reorder or hide text, and lone surrogates, which cannot be encoded.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
_NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
#: Colours, which programs write into their logs.
_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")
#: A label and what follows it: where further lines of the same text begin.
_LABEL = re.compile(r"\s*(?:\S+ {2,})?")
_DEEPEST_LABEL = 20
#: The blank of a figure, which is not to be parted from its unit.
_UNIT = re.compile(r"(?<=\d) (?=(?:%|[KMGT]i?B|B|[mu]?s|[kMGTP]?FLOP/s)(?![A-Za-z]))")
_BOUND = "\xa0"


def visible(text: str, keep: str = "") -> str:
    """``text`` with each unsafe character as an escape such as ``\\x1b``, except those in ``keep``."""
    return _UNSAFE.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not Unicode (PEP 383)
        code -= 0xDC00
    if character in _NAMED:
        return _NAMED[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def log_text(data: bytes) -> str:
    """Lines of a log for a terminal: without colours, and with a line for each state of a progress bar."""
    text = _COLOURS.sub("", data.decode("utf-8", "replace")).replace("\r\n", "\n").replace("\r", "\n")
    return visible(text, keep="\n\t")


class Guarded(io.TextIOBase):
    """A terminal's stream that shows foreign control characters instead of obeying them.

    It has no ``buffer``: bytes would pass by. ``raw`` is for those who write escape sequences on purpose.
    """

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw

    def write(self, text: str) -> int:
        self.raw.write(visible(text, keep="\n\t"))
        return len(text)

    def flush(self) -> None:
        self.raw.flush()

    def isatty(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.raw.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.raw.encoding


def guard() -> None:
    """Guard the standard streams that are terminals; elsewhere output is data and stays as it is."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream.isatty() and not isinstance(stream, Guarded):
            setattr(sys, name, cast(TextIO, Guarded(stream)))
        elif isinstance(stream, io.TextIOWrapper):  # names of files that are not Unicode pass as they are
            stream.reconfigure(errors="surrogateescape" if name == "stdout" else "backslashreplace")


def unguarded(stream: TextIO) -> TextIO:
    return stream.raw if isinstance(stream, Guarded) else stream


def width_of(stream: TextIO) -> int | None:
    """Columns of a terminal, from ``COLUMNS`` or the terminal itself; None for files and pipes."""
    if not stream.isatty():
        return None
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return shutil.get_terminal_size().columns


def tell(*lines: str) -> None:
    """Print results, a line each, on standard output."""
    _print(lines, sys.stdout)


def say(*lines: str) -> None:
    """Print messages, a line each, on standard error."""
    _print(lines, sys.stderr)


def _print(lines: tuple[str, ...], stream: TextIO) -> None:
    width = width_of(stream)
    for line in lines:
        print(*fitted(visible(line), width), sep="\n", file=stream)
    stream.flush()


def fitted(line: str, width: int | None) -> list[str]:
    """The line as lines of at most ``width`` characters, broken at blanks; a longer word stays whole.

    Further lines are indented as far as the text after a label, or a little further than the first.
    """
    if width is None or len(line) <= width:
        return [line]
    label = _LABEL.match(line)
    indent = label.end() if label else 0
    if indent == len(line) - len(line.lstrip()) or indent > min(_DEEPEST_LABEL, width // 2):
        indent = len(line) - len(line.lstrip()) + 2
    found = textwrap.wrap(
        _UNIT.sub(_BOUND, line),
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
        expand_tabs=False,
    )
    return [part.replace(_BOUND, " ") for part in found] or [line]
