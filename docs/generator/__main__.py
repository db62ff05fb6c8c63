"""Writes the reference's pages into a folder, which holds nothing else."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from generator import commands, exit_codes, files, presets, records

#: A page's name, and what makes its text.
PAGES: dict[str, Callable[[], str]] = {
    "run-file.md": files.run_file,
    "machine-file.md": files.machine_file,
    "sweep-file.md": files.sweep_file,
    "commands.md": commands.page,
    "records.md": records.page,
    "exit-codes.md": exit_codes.page,
    "presets.md": presets.page,
}


def write(folder: Path) -> None:
    """All pages, in place of earlier ones."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, make in PAGES.items():
        (folder / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
