"""What the processes that tests start inherit.

They import ``support`` by name, as the tests themselves do: pytest's ``pythonpath`` is for its own process
alone, and a fork server does not take over ``sys.path`` before Python 3.13. They keep bytecode, also where
the environment says otherwise: hundreds of them would compile the same modules. And signals end them, even
where pytest runs in the background or under nohup, which have some ignored.

And what the tests of equality measured is shown at the end; benchmarks/equality.py shows all of it.
"""

from __future__ import annotations

import os
import signal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

_paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
os.environ["PYTHONPATH"] = os.pathsep.join(path for path in _paths if path)
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

for _signal, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, _handler)


#: Each of these stays with one worker and begins first: the engine's ranks, whole runs, and what is on Slurm.
#: Sixteen ranks on two cores take four times as long beside sixteen others, which only "ranks" has often.
#: There is one Slurm, and one emulated cluster whose rates are measured, at a time.
_TOGETHER = {
    **{f"parallelism/runtime/{name}/": "" for name in ("data", "wire")},  # no ranks
    "parallelism/runtime/test_stream": "runs",
    "parallelism/runtime/test_": "ranks",
    "parallelism/runtime/baselines/": "ranks",  # with the same references
    "parallelism/runtime/": "runs",
    "benchmarks/": "runs",
    "slurm/": "slurm",
}
_FIRST = ("ranks", "slurm", "runs")


def _scope(place: str) -> str:
    """What a test's worker is chosen by; ``place`` is its path or name below ``tests``."""
    return next((scope for start, scope in _TOGETHER.items() if place.startswith(start)), "") or place


@pytest.hookimpl(tryfirst=True)  # before pytest's own, which chooses by markers
def pytest_collection_modifyitems(items: list[Any]) -> None:
    for item in items:
        short = item.get_closest_marker("long_except")
        if short and not any(fnmatchcase(item.callspec.id, pattern) for pattern in short.args):
            item.add_marker("long")

    def rank(item: Any) -> int:
        scope = _scope(item.path.relative_to(Path(__file__).parent).as_posix())
        return [*_FIRST, scope].index(scope)

    items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: Any, log: Any) -> Any:
    """Tests of a file stay with one worker, for what they share; so do those of :data:`_TOGETHER`."""
    from xdist.scheduler import LoadScopeScheduling

    class ByPlace(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return _scope(nodeid.removeprefix("tests/").partition("::")[0])

    config.option.loadscopereorder = False  # the order is that of the collection
    return ByPlace(config, log)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """From the tests' own reports, which reach the process that prints from pytest-xdist's workers too."""
    reports = [report for key in ("passed", "failed") for report in terminalreporter.stats.get(key, [])]
    measured = [(dict(report.user_properties), report.nodeid) for report in reports if report.when == "call"]
    for kind, choose in (("rounding", max), ("fault", min)):
        of_kind = [
            (found["difference"] / found["tolerance"], found["difference"], name)
            for found, name in measured
            if found.get("kind") == kind
        ]
        if of_kind:
            share, difference, name = choose(of_kind)
            which = (
                "largest difference by rounding" if kind == "rounding" else "smallest difference by a fault"
            )
            terminalreporter.write_line(f"{which}: {difference:.1e}, {share:.1e} of its tolerance ({name})")


def pytest_report_header() -> list[str]:
    """What ran with what: a failure that others do not see is often there."""
    from support.machine import described

    return described()
