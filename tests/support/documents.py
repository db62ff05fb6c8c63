"""The documents of the project: README and the pages of the site, and what their blocks of code hold."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from support.tree import ROOT

PAGES = ROOT / "docs" / "pages"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def documents() -> list[Path]:
    """README and all pages but the generated ones."""
    pages = [page for page in PAGES.rglob("*.md") if page.parent != PAGES / "reference"]
    return [ROOT / "README.md", *sorted(pages)]


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for language, text in _BLOCK.findall(page.read_text()) if language in languages]


def commands(page: Path) -> Iterator[list[str]]:
    """The words after ``frontrunner`` of each line of a shell that calls it; redirections are dropped."""
    for text in blocks(page, "bash", "console"):
        for line in text.splitlines():
            found = re.match(r"(?:\$ )?(?:.* )?(?<![\w/])frontrunner ((?!/).*)", line)
            if found and (line.startswith(("$ ", "frontrunner ")) or "--no-python frontrunner" in line):
                words = shlex.split(found[1], comments=True)
                yield words[: words.index(">")] if ">" in words else words
