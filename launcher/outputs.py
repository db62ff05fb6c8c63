"""Where commands write: mistakes are told before the work, not after it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from frontrunner.configs.errors import SpecError, Violation


def check_outputs(files: Mapping[str, Path | None], folders: Mapping[str, Path | None] | None = None) -> None:
    """SpecError if a file or folder, by its option, cannot be made where it is wanted; None: not wanted."""
    found = []
    places = [path.absolute() for path in files.values() if path is not None]
    for option, path in files.items():
        if path is not None and path.is_dir():
            found.append(Violation(option, str(path), "is a folder", "name a file in it"))
        elif path is not None and not path.absolute().parent.is_dir():
            what = f"is in {path.parent}, which is not a folder"
            found.append(Violation(option, str(path), what, "make that folder, or choose another place"))
        elif path is not None and places.count(path.absolute()) > 1:
            found.append(Violation(option, str(path), "is named for two outputs", "name another file"))
    for option, path in (folders or {}).items():
        if path is not None and path.exists() and not path.is_dir():
            found.append(Violation(option, str(path), "is a file, not a folder", "choose another folder"))
    if found:
        raise SpecError(found)
