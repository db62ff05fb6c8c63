"""Parts of a first day run in turn, and none takes the others along."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("torch")  # which ranks ask for, though these parts use none

from frontrunner.configs.load import load_run
from frontrunner.launcher.first_day import parts, supervise
from frontrunner.launcher.first_day.found import read
from frontrunner.launcher.first_day.parts import Part
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.run_folder import folder as run_folder

TWO = ["machine=workstation", "machine.packages_per_node=1", "nodes=1"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(supervise, "PRELOAD", ())
    monkeypatch.setattr(supervise, "_GRACE_S", 0.2)
    return tmp_path / "first-day"


def measure(folder: Path, *given: Part) -> None:
    """Both ranks of all parts, to their end."""
    spec = load_run("quickstart", TWO).spec
    for each in (folder, *(folder / part.name for part in given)):
        run_folder.create(each, spec)
    parts.write(folder, given, ["a note"])
    ranks = [_start(folder, rank, spec) for rank in range(2)]
    assert [os.waitstatus_to_exitcode(os.waitpid(rank, 0)[1]) for rank in ranks] == [0, 0]


def _start(folder: Path, rank: int, spec: object) -> int:
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        supervise.measure_all(spec, folder, Rendezvous(rank, 2, rank, "127.0.0.1", 1, "test"))  # type: ignore[arg-type]
        code = 0
    finally:
        os._exit(code)


def part(name: str, function: str, limit_s: float = 60.0) -> Part:
    return Part(name, f"support.first_day_parts:{function}", limit_s)


def test_parts_that_end_in_every_way(folder: Path) -> None:
    measure(
        folder,
        part("kernels", "raises"),
        part("rates", "crashes"),
        part("streams", "hangs", limit_s=1.0),
        Part("native", "support.first_day_parts:hangs", 60.0, why_not="it is not installed"),
        part("plain", "first_raises"),
        part("collectives", "well"),
    )
    day = read(folder)
    said = {name: found.failure for name, found in day.found.items() if found.failure}
    assert said.keys() == {"kernels", "rates", "streams", "plain"}
    assert said["kernels"].endswith("ValueError: no such kernel")
    assert "was killed by signal 9" in said["rates"]
    assert said["streams"].endswith("no end within 1 s, in a barrier")
    assert said["plain"] == "rank 0: ValueError: no such kernel"
    assert day.found["native"].why_not == "it is not installed"
    well = day.found["collectives"]
    assert well.usable and len(well.ranks) == 2 and len({rank["port"] for rank in well.ranks}) == 1
    assert all(day.found[name].seconds is not None for name in (*said, "collectives"))
    assert tuple(day.notes) == ("a note",)


def test_results_of_some_ranks_are_none(folder: Path) -> None:
    measure(folder, part("collectives", "well"))
    (folder / "collectives" / "results" / "rank-1.json").unlink()
    found = read(folder).found["collectives"]
    assert not found.usable and found.failure is not None and "left no results" in found.failure
