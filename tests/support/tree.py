"""The project as files: its folders, its modules and what pyproject.toml says."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDERS = (
    "configs",
    "run_folder",
    "slurm",
    "parallelism",
    "analysis",
    "launcher",
)  # installed as frontrunner.<folder>


def files(*folders: str) -> Iterator[Path]:
    """The files under these folders, relative to the root, without caches and hidden ones."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            relative = path.relative_to(ROOT)
            if path.is_file() and not any(part == "__pycache__" or part[0] == "." for part in relative.parts):
                yield relative


def modules(*folders: str) -> Iterator[Path]:
    return (path for path in files(*folders) if path.suffix == ".py")


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())
