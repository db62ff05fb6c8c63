"""Turns paths into a collection of runs: finds logs, recognises their formats, names the runs.

To add a format, write a module in ``importers`` and add a line to ``importers/formats.py``.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from frontrunner.analysis.importers import formats, hugging_face, lines, records
from frontrunner.analysis.run_log import STEP_SCHEMA, Collection, RunLog
from frontrunner.configs import foreign
from frontrunner.configs.errors import SpecError, Violation
from frontrunner.run_folder.files import RECORDS

#: Suffixes of text logs searched for in folders. A file given by path is read whatever its suffix.
TEXT_ENDINGS = (".out", ".log", ".txt", ".out.gz", ".log.gz", ".txt.gz")
_CHECKPOINT = re.compile(r"checkpoint-(\d{1,15})")


def read(paths: Sequence[str | Path]) -> Collection:
    """Read all runs of files and folders, in the order of the paths.

    Files without a run go to ``unread``. Raises SpecError if a path does not exist or no run is found.
    """
    files = list(_find([Path(path) for path in paths]))
    named = list(zip(files, _names(files), strict=True))
    own = [(path, name) for path, name in named if _is_records(path)]
    unread: list[tuple[str, str]] = []
    runs: dict[str, tuple[RunLog, pl.DataFrame]] = {}
    chosen = {path for path, _ in own}
    for path, name in named:
        if path in chosen:
            continue
        try:
            found = formats.read(path, name)
        except OSError as error:
            unread.append((str(path), error.strerror or str(error)))
            continue
        if isinstance(found, str):
            unread.append((str(path), _why_not(path, found)))
        else:
            runs[name] = found
    return _collect(named, own, runs, unread)


def _why_not(path: Path, reason: str) -> str:
    """Why a file is not a log: what it is, if that is known, or ``reason``."""
    other = foreign.recognise_path(path)
    if other is None or other.kind in ("log", "records"):
        return reason
    return foreign.what(other, "log")


def _collect(
    named: list[tuple[Path, str]],
    own: list[tuple[Path, str]],
    others: dict[str, tuple[RunLog, pl.DataFrame]],
    unread: list[tuple[str, str]],
) -> Collection:
    """Put everything into one table."""
    logs: list[RunLog] = []
    tables: list[pl.DataFrame] = []
    for batch, steps in records.read(own):
        held = set(steps["run"].unique().to_list())
        places: list[int] = []
        for index, run in enumerate(batch):
            if index in held:
                places.append(len(logs))
                logs.append(run)
            else:
                places.append(0)
                unread.append((run.path, "holds no record of a training step"))
        tables.append(
            steps.with_columns(pl.Series("run", places, dtype=pl.UInt32).gather(steps["run"]).alias("run"))
        )
    for run, steps in others.values():
        tables.append(steps.select(pl.lit(len(logs), dtype=pl.UInt32).alias("run"), *STEP_SCHEMA))
        logs.append(run)
    if not logs:
        raise SpecError(
            [Violation("PATHS", path, reason, "give run folders or training logs") for path, reason in unread]
            or [Violation("PATHS", None, "hold no log", "give run folders or training logs")]
        )
    place = {name: index for index, (_, name) in enumerate(named)}
    return Collection(*_in_order(logs, pl.concat(tables), place), unread)


def _in_order(
    logs: list[RunLog], steps: pl.DataFrame, place: dict[str, int]
) -> tuple[list[RunLog], pl.DataFrame]:
    """Runs and their steps, keyed by the index of their name."""
    order = sorted(range(len(logs)), key=lambda index: place[logs[index].id])
    rank = [0] * len(order)
    for new, old in enumerate(order):
        rank[old] = new
    if order != rank:
        steps = steps.with_columns(pl.Series("run", rank, dtype=pl.UInt32).gather(steps["run"]).alias("run"))
        steps = steps.sort("run", "step", maintain_order=True)
    return [logs[index] for index in order], steps


def _find(paths: Sequence[Path]) -> Iterator[Path]:
    """The logs, each once."""
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise SpecError(
            [Violation("PATHS", str(path), "does not exist", "correct the path") for path in missing]
        )
    seen: set[tuple[int, int]] = set()
    for path in paths:
        for file in _walk(path) if path.is_dir() else [path]:
            found = file.stat()
            if (key := (found.st_dev, found.st_ino)) not in seen:
                seen.add(key)
                yield file


def _walk(folder: Path) -> Iterator[Path]:
    """The records of a run folder, or the logs below any other folder."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        if RECORDS in names:
            folders.clear()  # the logs of a run's ranks are not runs
            yield Path(place, RECORDS)
            continue
        if hugging_face.STATE in names:
            yield Path(place, hugging_face.STATE)
            folders[:] = [name for name in folders if not _CHECKPOINT.fullmatch(name)]
        folders[:] = _with_newest_checkpoint(folders)
        yield from (Path(place, name) for name in sorted(names) if name.endswith(TEXT_ENDINGS))


def _with_newest_checkpoint(folders: list[str]) -> list[str]:
    """Each of the Trainer's checkpoints has the whole history up to it: keep the last of them."""
    steps = {name: int(found[1]) for name in folders if (found := _CHECKPOINT.fullmatch(name))}
    newest = max(steps, key=steps.__getitem__, default=None)
    return [name for name in folders if name not in steps or name == newest]


def _is_records(path: Path) -> bool:
    if path.name == RECORDS:
        return True
    if path.name.endswith(TEXT_ENDINGS):
        return False
    try:
        start = lines.head(path, 4096).lstrip()
    except OSError:
        return False
    return start.startswith(b"{") and b'"kind"' in start


def _names(files: Sequence[Path]) -> list[str]:
    """The shortest unique tail of each path; the name of a run folder."""
    parts = []
    for path in files:
        of_folder = path.name in (RECORDS, hugging_face.STATE)
        named = path.absolute().parent if of_folder else path.absolute()
        *above, last = named.parts
        for ending in (".gz", ".out", ".log", ".txt", ".jsonl"):
            last = last.removesuffix(ending) or last
        parts.append((*above, last))
    length, names = 1, [each[-1] for each in parts]
    while len(set(names)) < len(names) and length < max(map(len, parts)):
        length += 1
        counts = Counter(names)
        names = [
            "/".join(each[-length:]) if counts[name] > 1 else name
            for each, name in zip(parts, names, strict=True)
        ]
    counts = Counter(names)  # still equal: files in one folder that differ only by suffix
    return [
        f"{name} ({path.name})" if counts[name] > 1 else name for name, path in zip(names, files, strict=True)
    ]
