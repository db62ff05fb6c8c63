"""What launchers, loggers and terminals put around the records of a trainer, and how records share a line."""

from __future__ import annotations

import re

#: Escape sequences of a terminal (ECMA-48): colours and cursor movements, titles, single characters.
_ESCAPE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])")
_LABELS = re.compile(
    rb"""(?:\s*(?:
        \[[^\][]*\](?:<std(?:out|err)>)?:?      # torchrun --tee, host and rank, a time, a level, mpirun
        | \([^()]*\bpid=\d+[^()]*\)             # Ray
        | \d+:(?=\s)                            # srun --label
        | [\w.-]+:(?=\s)                        # pdsh, INFO:
        | [\w.-]+\s+\|(?=\s)                    # docker compose
        | \d{4}-\d\d-\d\d[T\ ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?
        | [A-Z][a-z]{2}\ [A-Z][a-z]{2}\ [\ \d]\d\ \d\d:\d\d:\d\d\ \d{4}  # mpirun --timestamp-output
        | (?:DEBUG|INFO|WARNING|ERROR)\b
        | [-:|](?=\s)
    ))+""",
    re.VERBOSE,
)
#: Where a record begins that may share its line with others.
_BEGINNING = re.compile(
    rb"(?:samples/sec:[^|]*\|\s*|Training epoch \d+, )?\biteration\s+\d+\s*/\s*\d+\s*\|"
    rb"|\[Rank \d+\] \(after \d+ iterations\)"
)


def records(line: bytes) -> list[bytes]:
    """The records of a line, without a terminal's escape sequences; most lines have one.

    Several ranks or a progress bar may write to one line. The first record keeps what is before it.
    """
    line = without_escapes(line)
    parts = line.split(b"\r") if b"\r" in line else [line]
    return [record for part in parts for record in _split(part)]


def without_escapes(line: bytes) -> bytes:
    return _ESCAPE.sub(b"", line) if b"\x1b" in line else line


def _split(line: bytes) -> list[bytes]:
    begins = [found.start() for found in _BEGINNING.finditer(line)] if line.count(b"iteration") > 1 else []
    if len(begins) < 2:
        return [line]
    places = [0, *begins[1:], len(line)]
    return [line[begin:end] for begin, end in zip(places, places[1:], strict=False)]


def bare(record: bytes) -> bytes:
    """A record without the labels before it."""
    found = _LABELS.match(record)
    return record[found.end() :] if found else record
