"""The page on ``records.jsonl``, from the types of records, and on ``jobs.jsonl``, from a file."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import TypeAdapter

from frontrunner.run_folder import files
from frontrunner.run_folder.records import Record

JOBS = Path(__file__).with_name("jobs.yaml")
_HEAD = """\
# Records

A run folder holds what a run leaves behind:

| file | what it holds |
|---|---|
| `run.yaml` | the run, resolved; `frontrunner train RUN_DIR` reads it |
| `records.jsonl` | one JSON object a line: header, steps, validations, checkpoints, warnings, summary |
| `jobs.jsonl` | the jobs of a submitted run |
| `checkpoints/step-N/` | a checkpoint: `rank-R.bin` with raw values and `manifest.json` with checksums |
| `logs/` | `rank-R.log` and `launcher.log`, and `job-N.log` of each job |
| `job.sh` | the job script of a submitted run |
| `errors/`, `stacks/` | after a failure: the rank's traceback, or the stacks of all ranks of a hang |

Each line has `kind`, and lines of `jobs.jsonl` also `time`, in seconds since the epoch. Lines are only
appended, and each is flushed whole. JSON has no NaN and no infinity: such values are `null`. After a line
`header` with `continued_from`, later records take the place of earlier ones of the same steps.
"""


def known() -> dict[str, dict[str, dict[str, Any]]]:
    """By file and kind: what the record is for (``about``) and its ``fields``."""
    records = {kind: fields for each in get_args(Record) for kind, fields in _typed(each)}
    return {files.RECORDS: records, files.JOBS: yaml.safe_load(JOBS.read_text(encoding="utf-8"))}


def _typed(record: type) -> Iterator[tuple[str, dict[str, Any]]]:
    properties = TypeAdapter(record).json_schema()["properties"]
    kind = properties.pop("kind")["const"]
    fields = {name: part.get("description", "") for name, part in properties.items()}
    yield kind, {"about": inspect.cleandoc(record.__doc__ or ""), "fields": fields}


def page() -> str:
    lines = [_HEAD]
    for file, kinds in known().items():
        lines.append(f"## {file}\n")
        for kind, record in kinds.items():
            lines += [f"### {kind} {{ #{file.partition('.')[0]}-{kind} }}\n", f"{record['about']}\n"]
            if record["fields"]:
                rows = [f"| `{name}` | {text} |" for name, text in record["fields"].items()]
                lines += ["| field | meaning |", "|---|---|", *rows, ""]
    return "\n".join(lines)
