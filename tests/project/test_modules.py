"""Modules stay small, and none is left out of the package."""

from __future__ import annotations

from pathlib import Path

from support.tree import FOLDERS, ROOT, files, modules, pyproject

MOST_LINES = 350


def test_modules_are_small() -> None:
    lines = {
        path: (ROOT / path).read_text().count("\n")
        for path in modules(*FOLDERS, "tests", "benchmarks", "docs")
    }
    assert len(lines) > 50
    assert not {str(path): count for path, count in lines.items() if count > MOST_LINES}


def test_packages_are_those_of_the_tree() -> None:
    """setuptools leaves out, without a word, a package that its list does not name."""
    tool = pyproject()["tool"]["setuptools"]
    in_tree = {".".join(["frontrunner", *path.parent.parts]) for path in modules(*FOLDERS)}
    assert set(tool["packages"]) == in_tree
    assert tool["package-dir"] == {f"frontrunner.{folder}": folder for folder in FOLDERS}


def test_every_folder_is_a_package() -> None:
    """Also those of presets: importlib.resources reads them as packages."""
    folders = {parent for path in files(*FOLDERS) for parent in path.parents if parent != Path()}
    assert not [str(folder) for folder in sorted(folders) if not (ROOT / folder / "__init__.py").exists()]
