"""The page on ``records.jsonl`` and ``jobs.jsonl``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

FIELDS = Path(__file__).with_name("records.yaml")
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
    found: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(FIELDS.read_text(encoding="utf-8"))
    return found


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
