"""What a user installs: the wheel holds the tree, and the core alone does what needs no torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path

import pytest

from support.requirements import installed, required
from support.tree import FOLDERS, ROOT, files

BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A source archive of the tree, and the wheel built from that archive."""
    folder = tmp_path_factory.mktemp("built")
    tree, out = folder / "tree", folder / "out"
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in BUILT_FROM:
        shutil.copy(ROOT / name, tree)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(tree)]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def core(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a program where only the core is installed: the wheel, and links to what it requires.

    Links, so that it works without a network; ``pip check`` says that nothing is missing.
    """
    folder = tmp_path_factory.mktemp("core")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    purelib = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.check_output([python, "-c", purelib], text=True).strip())
    for name in installed(required()):
        source = distribution(name)
        for top in {file.parts[0] for file in source.files or ()} - {"..", "__pycache__"}:
            (packages / top).symlink_to(Path(str(source.locate_file(top))))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", built[1]], cwd=folder, check=True)
    subprocess.run([*pip, "check"], cwd=folder, check=True)
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}

    def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(python.with_name(program)), *arguments]
        return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60)

    return run


def test_the_wheel_holds_the_tree(built: tuple[Path, Path]) -> None:
    _, wheel = built
    names = zipfile.ZipFile(wheel).namelist()
    modules = {name for name in names if ".dist-info/" not in name}
    assert modules == {f"frontrunner/{path.as_posix()}" for path in files(*FOLDERS)}
    assert [name for name in names if name.endswith("dist-info/licenses/LICENSE")]


def test_the_source_archive_holds_what_it_is_built_from(built: tuple[Path, Path]) -> None:
    sdist, _ = built
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {*BUILT_FROM, *(path.as_posix() for path in files(*FOLDERS))} <= names


@pytest.mark.parametrize("package", ["torch", "megatron", "mpi4py", "tokenizers"])
def test_the_core_brings_no_training(core: Run, package: str) -> None:
    assert f"No module named '{package}'" in core("python", "-c", f"import {package}").stderr


@pytest.mark.parametrize(
    "command",
    ["--version", "--help", "check quickstart", "schema", "train --help", "analyze --help", "top --help"],
)
def test_the_core_alone_runs(core: Run, command: str) -> None:
    ended = core("frontrunner", *command.split())
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout


def test_the_core_alone_says_what_is_wrong_with_a_run(core: Run) -> None:
    ended = core("frontrunner", "check", "quickstart", "-o", "layout.tensr=2", "--json")
    assert ended.returncode == 2
    (violation,) = json.loads(ended.stdout)["violations"]
    assert violation["path"] == "layout.tensr"


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("train quickstart -o data=synthetic", "train"),
        ("data prepare --input . --output corpus/train", "train"),
        ("analyze .", "analysis"),
    ],
)
def test_what_needs_the_extra_says_so(core: Run, command: str, extra: str) -> None:
    ended = core("frontrunner", *command.split())
    assert ended.returncode == 1
    assert f"pip install 'frontrunner[{extra}]'" in ended.stderr
    assert "Traceback" not in ended.stderr
