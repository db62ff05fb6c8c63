"""Reads ``records.jsonl`` of a run while another process or machine may write it.

One rule for all readers: an invalid line is skipped and counted, and is never an error.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from frontrunner.configs.plain_files import open_plain, read_plain
from frontrunner.run_folder import files
from frontrunner.run_folder.records import Record, Step, Summary, parse

_TAIL_BYTES = 256 * 1024
_RECENT = 20
_AT_ONCE = 2**26
_LARGEST = 2**32


class Follower:
    """Reads new records of a run; there may be none yet.

    ``lost`` counts invalid lines, ``changed_s`` is when the file was last written (seconds since the epoch;
    0: no file).
    """

    def __init__(self, run_dir: Path, *, from_end: bool = False) -> None:
        self._path = run_dir / files.RECORDS
        self.lost = 0
        self.changed_s = 0.0
        # The next start of a run truncates a partial last line.
        self._offset = _after_last_line(self._path) if from_end else 0

    def new_records(self) -> list[Record]:
        """The records completed since the last call, in order; a file that became shorter is reread.

        Empty if the file is missing or the file system does not answer: call again later.
        """
        try:
            status = self._path.stat()
            if status.st_size < self._offset:
                self._offset = 0
            with open_plain(self._path) as file:
                file.seek(self._offset)
                data = file.read(_AT_ONCE)
        except OSError:
            return []
        self.changed_s = status.st_mtime
        whole, newline, _ = data.rpartition(b"\n")
        if not newline and len(data) == _AT_ONCE:  # no record is that long
            self._offset += len(data)
        self._offset += len(whole) + len(newline)
        found = self._parsed(whole.split(b"\n")) if whole else []
        return found + self.new_records() if len(data) == _AT_ONCE and found else found

    def _parsed(self, lines: list[bytes]) -> list[Record]:
        found = [(line, parse(line)) for line in lines]
        self.lost += sum(1 for line, record in found if record is None and line.strip())
        return [record for _, record in found if record is not None]


def _after_last_line(path: Path) -> int:
    """The offset after the last whole line; 0 without a readable file."""
    try:
        with open_plain(path) as file:
            end = file.seek(0, 2)
            while end:
                begin = max(0, end - _TAIL_BYTES)
                file.seek(begin)
                newline = file.read(end - begin).rfind(b"\n")
                if newline >= 0:
                    return begin + newline + 1
                end = begin
    except OSError:
        pass
    return 0


def read_records(run_dir: Path) -> list[Record]:
    """All records of a run, oldest first. Raises OSError if the file cannot be read."""
    lines = read_plain(run_dir / files.RECORDS, _LARGEST).split(b"\n")
    return [record for record in map(parse, lines) if record is not None]


def last_records(run_dir: Path, tail_bytes: int = _TAIL_BYTES) -> list[Record]:
    """The complete records in the last bytes of the file, oldest first; empty without a readable file."""
    try:
        with open_plain(run_dir / files.RECORDS) as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - tail_bytes))
            data = file.read()
    except OSError:
        return []
    lines = data.split(b"\n")
    whole = lines[1 if size > tail_bytes else 0 : -1]
    return [record for record in map(parse, whole) if record is not None]


def last_start(records: list[Record]) -> list[Record]:
    """The records since the run was last started or continued: earlier steps may have had another layout."""
    headers = [place for place, record in enumerate(records) if record["kind"] == "header"]
    return records[headers[-1] :] if headers else records


def steps_of(records: list[Record]) -> list[Step]:
    return [record for record in records if record["kind"] == "step"]


def last_step(run_dir: Path) -> int:
    """The highest step of the run; 0 before the first."""
    return max((record["step"] for record in steps_of(last_records(run_dir))), default=0)


def summary(run_dir: Path) -> Summary | None:
    """The summary of a finished run; None if it did not finish or was continued since."""
    last = last_records(run_dir)[-1:]
    return last[0] if last and last[0]["kind"] == "summary" else None


def progress(records: list[Record], steps: int | None) -> dict[str, Any]:
    """``step``, ``loss``, ``tokens_per_s_per_device``, ``step_time_s``, ``eta_s``; None: unknown.

    ``records`` are the last ones of a run that has ``steps`` steps.
    """
    taken = steps_of(records)
    last: Any = taken[-1] if taken else {}
    times = [record["step_time_s"] for record in taken[-_RECENT:] if record.get("step_time_s") is not None]
    each = statistics.median(times) if times else None
    left = max(0, steps - last["step"]) if last and steps is not None else None
    return {
        "step": last.get("step", 0),
        "steps": steps,
        "loss": last.get("loss"),
        "tokens_per_s_per_device": last.get("tokens_per_s_per_device"),
        "step_time_s": each,
        "eta_s": each * left if each is not None and left is not None else None,
    }
