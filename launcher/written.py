"""Writes run files that users asked for, and never over another by accident."""

from __future__ import annotations

import os
from pathlib import Path

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.run_folder import files


def check_free(output: Path, force: bool, option: str, example: str = files.SPEC) -> None:
    """SpecError if a file cannot be written there: ``option`` is the one that names it."""
    wrong = None
    if output.is_dir():
        wrong = ("is a folder", f"name a file, such as {output / example}")
    elif not output.parent.is_dir():
        wrong = (f"there is no folder {output.parent}", "create it first, or name another file")
    elif output.exists() and not force:
        wrong = ("exists already", f"name another file with {option}, or replace it with --force")
    if wrong:
        raise SpecError([Violation(option, str(output), *wrong)])


def write_text(output: Path, text: str, force: bool, option: str) -> None:
    """Write the file whole; without ``force`` never over another, not even one written meanwhile."""
    unfinished = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        if force:
            unfinished.replace(output)
        else:
            os.link(unfinished, output)
    except FileExistsError:
        check_free(output, force, option)
    finally:
        unfinished.unlink(missing_ok=True)
