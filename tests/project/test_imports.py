"""Imports follow the data, and torch stays where training runs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from frontrunner.run_folder import files
from support.tree import FOLDERS, ROOT, modules

KNOWS: dict[str, set[str]] = {
    "configs": set(),
    "run_folder": {"configs"},
    "slurm": {"configs", "run_folder"},
    "parallelism": {"configs", "run_folder"},
    "analysis": {"configs", "run_folder", "slurm", "parallelism"},
    "launcher": {"configs", "run_folder", "slurm", "parallelism", "analysis"},
}
HEAVY = {"deepspeed", "megatron", "safetensors", "torch", "triton"}
RUNTIME = Path("parallelism/runtime")
IMPORTERS = {"__import__", "import_module", "try_import"}
OUR_NAME = re.compile(r"frontrunner(\.\w+)+(:\w+)?")


def imports(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of what a module of ``package`` imports anywhere: also in functions, for type
    checking only, and by a name in a string."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", None))
            if called in IMPORTERS:
                yield node.lineno, str(node.args[0].value)
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and OUR_NAME.fullmatch(node.value)
        ):
            yield node.lineno, node.value


def all_imports() -> Iterator[tuple[Path, str, str]]:
    """Module, place and imported name of each import under the six folders."""
    for path in modules(*FOLDERS):
        package = ".".join(["frontrunner", *path.parent.parts])
        for line, name in imports((ROOT / path).read_text(), package):
            yield path, f"{path}:{line} imports {name}", name


def test_no_modules_import_each_other() -> None:
    """Not in a circle of any length, and not inside functions either."""
    known = {_dotted(path) for path in modules(*FOLDERS)}
    edges: dict[str, set[str]] = {}
    for path, _, name in all_imports():
        importer, name = _dotted(path), name.partition(":")[0]
        found = name if name in known else name.rpartition(".")[0]
        if found in known - {importer}:
            edges.setdefault(importer, set()).add(found)
    assert len(edges) > 100
    TopologicalSorter(edges).prepare()  # raises CycleError


def _dotted(path: Path) -> str:
    return ".".join(["frontrunner", *path.with_suffix("").parts]).removesuffix(".__init__")


#: Names in the folder of a run, but for those that are names of commands, keys or other locks too.
NAMES = {value for name, value in vars(files).items() if name.isupper() and isinstance(value, str)}
NAMES -= {files.CHECKPOINTS, files.LOGS, files.LOCK}


def test_names_in_the_run_folder_are_spelt_once() -> None:
    spelt = [
        f"{path}:{node.lineno} {node.value}"
        for path in modules(*FOLDERS)
        if path != Path("run_folder/files.py")
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.Constant) and node.value in NAMES
    ]
    assert not spelt


def test_no_import_runs_against_the_data() -> None:
    wrong = []
    for path, place, name in all_imports():
        folder, parts = path.parts[0], re.split("[.:]", name)
        if parts[0] == "frontrunner" and parts[1] not in {folder, *KNOWS[folder]}:
            wrong.append(place)
        if parts[0] in FOLDERS:
            wrong.append(f"{place}: say frontrunner.{name}")
    assert not wrong


def test_torch_is_imported_only_where_training_runs() -> None:
    found = [(path, place) for path, place, name in all_imports() if name.partition(".")[0] in HEAVY]
    assert found, "the runtime imports torch: a reader that finds nothing is broken"
    assert not [place for path, place in found if RUNTIME not in path.parents]


@pytest.mark.parametrize(
    "source",
    [
        "import frontrunner.launcher.cli",
        "from frontrunner import launcher",
        "from frontrunner.launcher import cli",
        "from frontrunner.launcher.cli import main as go",
        "from ..launcher import cli",
        "from .. import launcher",
        "def f():\n    import frontrunner.launcher",
        "if TYPE_CHECKING:\n    from frontrunner.launcher import cli",
        "importlib.import_module('frontrunner.launcher.cli')",
        "TARGETS = {'check': 'frontrunner.launcher.cli:main'}",
    ],
)
def test_every_way_to_import_is_seen(source: str) -> None:
    found = [re.split("[.:]", name)[:2] for _, name in imports(source, "frontrunner.slurm")]
    assert ["frontrunner", "launcher"] in found


@pytest.mark.parametrize(
    "source", ["import torch.nn as nn", "from torch import nn", "try_import('torch', 'train')"]
)
def test_every_way_to_import_torch_is_seen(source: str) -> None:
    assert [name.partition(".")[0] for _, name in imports(source, "frontrunner.slurm")] == ["torch"]
