"""Equality of layouts with one rank, with other kernels of this processor: rounding, tolerance and faults.

    python benchmarks/equality.py [--modes NAME ...] [--all] [-- ARGUMENTS OF PYTEST]

Runs the equality tests once per mode. A mode is a few environment variables that libraries read when they
choose kernels. ``--all`` also prints the difference of each layout and each fault. "rounds" says whether the
mode makes float32 operations round differently from the default. If not, this processor or build of torch
ignores it, and the row repeats the first one. The exit code is 1 if a test failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
TESTS = "tests/parallelism/runtime/test_equality.py"
MODES: dict[str, dict[str, str]] = {
    "default": {},
    "MKL compatible": {"MKL_CBWR": "COMPATIBLE"},
    "MKL AVX2": {"MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "MKL SSE4.2": {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    "ATen default": {"ATEN_CPU_CAPABILITY": "default"},
    "ATen AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "oneDNN AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2"},
    "OpenBLAS Haswell": {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "1"},
    # Ranks share the cores: threads that spin while they wait would take them from the others.
    "2 threads": {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"},
    "oldest": {
        "MKL_CBWR": "COMPATIBLE",
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "DNNL_MAX_CPU_ISA": "SSE41",
    },
}
# The operations of a layer and of its backward, at the sizes of the tests.
FINGERPRINT = """
import hashlib, torch
torch.manual_seed(0)
x, w = (torch.randn(64, 32, requires_grad=True) for _ in range(2))
y = torch.nn.functional.gelu(torch.nn.functional.layer_norm(x, (32,)) @ w.T).softmax(-1)
q = y.view(1, 4, 64, 16)
(torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True) ** 2).sum().backward()
print(hashlib.sha256(y.detach().numpy().tobytes() + x.grad.numpy().tobytes()).hexdigest())
"""


class Measured(NamedTuple):
    """A test's figures; ``kind`` is "rounding" (a layout), "fault" or "float32" (the same run in it)."""

    name: str
    kind: str
    difference: float
    tolerance: float

    @property
    def share(self) -> float:
        return self.difference / self.tolerance


class Result(NamedTuple):
    measured: list[Measured]
    tests: int
    failed: int
    seconds: float

    def of(self, kind: str) -> list[Measured]:
        return sorted((m for m in self.measured if m.kind == kind), key=lambda m: m.share)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), metavar="NAME")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("pytest", nargs="*", metavar="ARGUMENTS OF PYTEST")
    args = parser.parse_args()
    usual, results, rounds = fingerprint({}), dict[str, Result](), dict[str, bool]()
    for mode in args.modes:
        rounds[mode] = fingerprint(MODES[mode]) != usual
        results[mode] = run(MODES[mode], args.pytest)
        print(f"{mode}: {results[mode].seconds:.0f} s", file=sys.stderr)
        Console(stderr=True, width=140).print(summary({mode: results[mode]}, rounds))
    console = Console(width=None if sys.stdout.isatty() else 140)
    if args.all:
        for mode, result in results.items():
            console.print(details(mode, result))
    console.print(summary(results, rounds))
    sys.exit(any(result.failed for result in results.values()))


def run(mode: dict[str, str], arguments: list[str]) -> Result:
    """The tests in an environment of their own, which their ranks inherit."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [
            str(Path(sys.executable).with_name("pytest")),
            "-q",
            TESTS,
            f"--junitxml={report}",
            *arguments,
        ]
        subprocess.run(command, env=os.environ | mode, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
        return read(report.read_text(), time.monotonic() - start)


def read(report: str, seconds: float) -> Result:
    """What pytest's JUnit report says."""
    measured, tests, failed = [], 0, 0
    for case in ElementTree.fromstring(report).iter("testcase"):
        tests += 1
        failed += case.find("failure") is not None or case.find("error") is not None
        found = {item.attrib["name"]: item.attrib["value"] for item in case.iter("property")}
        if found:
            name = case.attrib["name"].partition("[")[2].removesuffix("]")
            measured.append(
                Measured(name, found["kind"], float(found["difference"]), float(found["tolerance"]))
            )
    return Result(measured, tests, failed, seconds)


def fingerprint(mode: dict[str, str]) -> str:
    environment = {"OMP_NUM_THREADS": "1"} | os.environ | mode
    command = [sys.executable, "-c", FINGERPRINT]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def details(mode: str, result: Result) -> Table:
    table = Table("what", "case", "difference", "tolerance", "difference / tolerance", title=mode)
    for m in [*result.of("rounding"), *result.of("float32"), *result.of("fault")]:
        table.add_row(m.kind, m.name, f"{m.difference:.1e}", f"{m.tolerance:.1e}", f"{m.share:.1e}")
    return table


def summary(results: dict[str, Result], rounds: dict[str, bool]) -> Table:
    table = Table(
        "mode",
        "rounds",
        "layouts: largest difference",
        "of its tolerance",
        "tolerances",
        "faults: smallest difference",
        "tolerances it is",
        "float32",
        "failed",
    )
    for mode, result in results.items():
        cells = ["", "", "", "", "", ""]
        layouts, faults, single = (result.of(kind) for kind in ("rounding", "fault", "float32"))
        if layouts:
            cells[0], cells[1] = f"{max(m.difference for m in layouts):.1e}", f"{layouts[-1].share:.1e}"
            limits = [m.tolerance for m in layouts]
            cells[2] = f"{min(limits):.1e} to {max(limits):.1e}"
        if faults:
            cells[3], cells[4] = f"{faults[0].difference:.1e}", f"{faults[0].share:.1e}"
        if single:
            cells[5] = f"{max(m.difference for m in single):.1e}"
        how = "otherwise" if rounds[mode] else "as by default"
        table.add_row(mode, how, *cells, f"{result.failed} of {result.tests}")
    return table


if __name__ == "__main__":
    main()
