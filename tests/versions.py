"""``make test-versions``: the tests with each Python and each megatron-core that is supported and can be had.

On every Python of PYTHONS that is on the path, all tests that need no torch; with this Python and each
megatron-core of MEGATRON_CORES, the tests that the equality of layouts rests on. What is installed for it
stays under ``.venv-versions/``. Prints a table, and ends with 1 where anything failed. Arguments (``3.12``,
``0.19.2``) leave it at these.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
VENVS = ROOT / ".venv-versions"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
MEGATRON_CORES = ("0.16.1", "0.19.2")
CORE = [
    *(
        f"tests/{folder}"
        for folder in ("analysis", "configs", "launcher", "parallelism", "project", "run_folder", "slurm")
    ),
    "--ignore=tests/parallelism/runtime",
    *(f"--ignore={path.relative_to(ROOT)}" for path in sorted(ROOT.glob("tests/slurm/test_*cluster.py"))),
]
RUNTIME = [
    f"tests/parallelism/runtime/{path}"
    for path in (
        "test_equality.py",
        "test_megatron_inside.py",
        "test_sharding.py",
        "test_training.py",
        "test_wires.py",
        "baselines/test_equality.py",
        "checkpoint/test_resume.py",
        "data/test_samples.py",
        "huggingface/test_logits.py",
    )
]
WITH_TORCH = ("transformers", "triton")  # of the extra `test`: large, and of no use without torch
MEGATRON_VERSION = "from megatron.core.package_info import __shortversion__ as v; print(v)"
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
Row = tuple[str, str, str, bool]  # what ran, what came of it, how long it took, whether all is well


def core(version: str) -> Row:
    name, folder = f"core, Python {version}", VENVS / f"python{version}"
    python = shutil.which(f"python{version}")
    if python is None or subprocess.run([python, "-V"], capture_output=True).returncode:
        return name, f"not run: no python{version} here", "", True
    subprocess.run([python, "-m", "venv", folder], check=True)
    pip = [str(folder / "bin" / "python"), *PIP, "--constraint", "constraints.txt"]
    subprocess.run([*pip, "setuptools", *_test_tools()], cwd=ROOT, check=True)
    extras = ".[tensorboard,analysis,sweep]"
    subprocess.run([*pip, "--no-build-isolation", "--editable", extras], cwd=ROOT, check=True)
    return _tests(name, folder / "bin" / "pytest", CORE, {})


def runtime(megatron: str) -> Row:
    """With this Python's environment, before which this megatron-core alone is put on the path."""
    folder = VENVS / f"megatron-core-{megatron}"
    if not folder.exists():
        # Its newest is for Python 3.12 on, and runs on 3.11.
        wanted = ["--no-deps", "--ignore-requires-python", f"megatron-core=={megatron}"]
        subprocess.run([sys.executable, *PIP, *wanted, "--target", str(folder)], check=True)
    env = {"PYTHONPATH": str(folder)}
    found = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            MEGATRON_VERSION,
        ],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert found == megatron, f"megatron-core {found} comes first on the path"
    pytest = Path(sys.executable).with_name("pytest")
    return _tests(f"runtime, megatron-core {megatron}", pytest, RUNTIME, env)


def _tests(name: str, pytest: Path, tests: Sequence[str], env: Mapping[str, str]) -> Row:
    print(f"\n=== {name}", flush=True)
    report = VENVS / f"{name}.xml"
    report.unlink(missing_ok=True)
    command = [str(pytest), "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *tests]
    start = time.monotonic()
    ended = subprocess.run(command, cwd=ROOT, env=os.environ | env)
    took = f"{time.monotonic() - start:.0f} s"
    if not report.exists():
        return name, f"pytest ended with {ended.returncode}", took, False
    (suite,) = ElementTree.parse(report).getroot()
    count = {kind: int(suite.attrib[kind]) for kind in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    passed = count["tests"] - failed - count["skipped"]
    return name, f"{passed} passed, {failed} failed, {count['skipped']} skipped", took, not ended.returncode


def _test_tools() -> list[str]:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return [line for line in extras["test"] if not line.startswith(WITH_TORCH)]


def _row(run: Callable[[str], Row], version: str) -> Row:
    try:
        return run(version)
    except subprocess.CalledProcessError as error:  # the other versions are tried nevertheless
        what = f"not made: {error.cmd[-1]} ended with {error.returncode}"
        return f"{run.__name__}, {version}", what, "", False


def main() -> int:
    VENVS.mkdir(exist_ok=True)
    cells = [(core, version) for version in PYTHONS] + [(runtime, version) for version in MEGATRON_CORES]
    wanted = sys.argv[1:] or [*PYTHONS, *MEGATRON_CORES]
    rows = [_row(run, version) for run, version in cells if version in wanted]
    print()
    for name, outcome, took, well in rows:
        print(f"{'' if well else 'FAILED '}{name}".ljust(36), outcome.ljust(44), took)
    return 0 if all(well for *_, well in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
