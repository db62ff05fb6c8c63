"""Reads what ``frontrunner sweep report --json`` wrote, as part of an analysis."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from frontrunner.configs.errors import SpecError, Violation

Figures = dict[str, Any]
_NEEDED = ("name", "objective", "trials", "node_hours")


def read_sweeps(paths: Sequence[Path]) -> list[Figures]:
    """The object of each file. A trial's ``settings`` are its values in the order of ``keys``, or null.

    Raises SpecError if a file does not hold a sweep's report.
    """
    return [_with_settings(_object(path)) for path in paths]


def _object(path: Path) -> Figures:
    fix = "write it with `frontrunner sweep report SWEEP.yaml --json > FILE`"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise SpecError([Violation("--sweep", str(path), f"cannot be read: {reason}", fix)]) from None
    if not isinstance(found, dict) or any(key not in found for key in _NEEDED):
        raise SpecError([Violation("--sweep", str(path), "does not hold a sweep's report", fix)])
    return found


def _with_settings(sweep: Figures) -> Figures:
    trials = sweep["trials"]
    keys = list(dict.fromkeys(key for trial in trials for key in trial["values"]))
    settled = [
        trial | {"rank": rank, "settings": [trial["values"].get(key) for key in keys]}
        for rank, trial in enumerate(trials, 1)
    ]
    shares = [
        {"key": key, "fanova": share, "shap": (sweep.get("shap") or {}).get(key)}
        for key, share in (sweep.get("sensitivity") or {}).items()
    ]
    return sweep | {"keys": keys, "trials": settled, "shares": shares}
