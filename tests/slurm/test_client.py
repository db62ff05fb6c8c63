"""What Slurm's programs answer, at sites that wrap them: it is what was asked for, or it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from frontrunner.slurm.client import Slurm
from frontrunner.slurm.errors import NoAnswer, SlurmFailed

NOTE = "NOTE: your project has used 80 percent of its 1000 node-hours"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    return tmp_path


def slurm(programs: Path, name: str, answer: str) -> Slurm:
    """Slurm of which one program exists, which prints ``answer``."""
    (programs / "answer").write_text(answer)
    (programs / name).write_text(f'#!/bin/sh\n/bin/cat "{programs}/answer"\n')
    (programs / name).chmod(0o755)
    return Slurm({"PATH": str(programs)})


@pytest.mark.parametrize(
    ("answer", "job"),
    [
        ("123\n", "123"),
        ("123;frontier\n", "123"),
        (f"123;frontier\n{NOTE}\n", "123"),
        (f"{NOTE}\n\n  123  \n", "123"),
        ("Submitted batch job 77 on cluster x\n", "77"),
        ("Submitted batch job 77\n77\n", "77"),
        ("", None),
        (f"{NOTE}\n", None),
        ("job 77 submitted\n", None),
        ("123\n124\n", None),
    ],
)
def test_job_number_is_found_or_missed_by_name(programs: Path, answer: str, job: str | None) -> None:
    asked = slurm(programs, "sbatch", answer)
    if job is not None:
        assert asked.submit("job.sh", programs) == job
        return
    with pytest.raises(NoAnswer, match="sbatch answered .* job may exist anyway"):
        asked.submit("job.sh", programs)


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ("42|RUNNING|None|n1|1:00|0:30\n", "RUNNING"),
        (f"{NOTE}\n42|RUNNING|None|n1|1:00|0:30\n", "RUNNING"),
        ("42|PENDING|Resources||1:00|0:00\n", "PENDING"),
        ("42|EXPEDITING|None|n1|1:00|INVALID\n", "EXPEDITING"),
        ("41|RUNNING|None|n1|1:00|0:30\n43|RUNNING|None|n1|1:00|0:30\n", None),
        (f"{NOTE}\n", None),
        ("", None),
    ],
)
def test_state_is_of_the_job_that_was_asked_for(programs: Path, answer: str, state: str | None) -> None:
    found = slurm(programs, "squeue", answer).states(["42"])
    assert found.get("42", None) is None if state is None else found["42"].state == state
    assert all(job.active for job in found.values())


def test_another_format_is_an_error(programs: Path) -> None:
    with pytest.raises(SlurmFailed, match="which is not the list that was asked for"):
        slurm(programs, "squeue", "JOBID|STATE\n42|R\n").states(["42"])


@pytest.mark.parametrize("row", ["42||n1|60", "42|TIMEOUT|n1|?", "x|TIMEOUT|n1|60", "TIMEOUT"])
def test_accounting_that_cannot_be_read_is_not_believed(programs: Path, row: str) -> None:
    slurm(programs, "squeue", "")
    (programs / "sacct").write_text(f"#!/bin/sh\necho '{row}'\n")
    (programs / "sacct").chmod(0o755)
    assert Slurm({"PATH": str(programs)}).states(["42"]) == {}


def test_banners_are_no_jobs_and_no_partitions(programs: Path) -> None:
    assert slurm(programs, "squeue", f"{NOTE}\n12\n13_4\n").count_jobs() == 2
    assert slurm(programs, "sinfo", f"{NOTE}\nbatch\ndebug\n").partitions() == ["batch", "debug"]
