"""What benchmarks/equality.py reads from pytest's report, and what pytest's last lines say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import equality
import pytest

MEASURING = """\
import pytest

@pytest.mark.parametrize(
    ("kind", "difference"), [("rounding", 2e-15), ("rounding", 3e-14), ("fault", 1e-5), ("fault", 2.0)]
)
def test_one(kind, difference, record_property):
    for name, value in (("kind", kind), ("difference", difference), ("tolerance", 1e-12)):
        record_property(name, value)
    assert difference < 1

def test_of_something_else():
    pass
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[equality.Result, str]:
    """A report of four tests that measured something, the last of which failed, and pytest's output."""
    folder = tmp_path_factory.mktemp("measured")
    (folder / "test_measuring.py").write_text(MEASURING)
    (folder / "conftest.py").write_text((Path(__file__).parents[1] / "conftest.py").read_text())
    pytest_command = str(Path(sys.executable).with_name("pytest"))
    command = [pytest_command, "-q", "-p", "no:cacheprovider", "--junitxml=report.xml"]
    done = subprocess.run(
        command, cwd=folder, env=dict(os.environ), capture_output=True, text=True, timeout=120
    )
    return equality.read((folder / "report.xml").read_text(), 1.0), done.stdout


def test_figures_are_read_in_order_of_their_share(measured: tuple[equality.Result, str]) -> None:
    result, _ = measured
    assert (result.tests, result.failed) == (5, 1)
    assert [m.difference for m in result.of("rounding")] == [2e-15, 3e-14]
    assert [m.difference for m in result.of("fault")] == [1e-5, 2.0]
    assert result.of("rounding")[-1].share == pytest.approx(0.03)
    assert result.of("fault")[0].name == "fault-1e-05"


def test_the_last_lines_say_how_near_the_tolerance_was(measured: tuple[equality.Result, str]) -> None:
    _, output = measured
    assert "largest difference by rounding: 3.0e-14, 3.0e-02 of its tolerance" in output
    assert "smallest difference by a fault: 1.0e-05, 1.0e+07 of its tolerance" in output


def test_a_mode_reaches_the_kernels() -> None:
    """Torch's own kernels heed this one on every x86 processor that has more than the oldest."""
    code = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    environment = dict(os.environ) | equality.MODES["ATen default"]
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() in ("DEFAULT", "NO AVX")
