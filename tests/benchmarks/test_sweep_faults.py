"""What the benchmark of killed controllers calls a fault; sweeps on Slurm are killed in tests/slurm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sweep_faults import BUDGET, STEPS, audit, differences

JOBS: list[dict[str, Any]] = [
    {"kind": "begun"},
    {"kind": "submitted", "job_id": "7"},
    {"kind": "ended", "job_id": "7", "code": 0},
    {"kind": "verdict"},
]
RECORDS: list[dict[str, Any]] = [
    {"kind": "header"},
    *({"kind": "step", "step": step + 1} for step in range(STEPS)),
    {"kind": "summary"},
]


def write(run_dir: Path, jobs: list[dict[str, Any]], records: list[dict[str, Any]]) -> None:
    run_dir.mkdir()
    for name, lines in (("jobs.jsonl", jobs), ("records.jsonl", records)):
        (run_dir / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_trial_that_ran_once(tmp_path: Path) -> None:
    write(tmp_path / "0003-1", JOBS, RECORDS)
    write(tmp_path / "0004-1", [JOBS[0], JOBS[2]], RECORDS)  # it had ended when it was found
    assert audit(tmp_path, 3) == audit(tmp_path, 4) == []


@pytest.mark.parametrize(
    ("jobs", "records"),
    [
        (JOBS[:1], RECORDS),
        (JOBS[:2], RECORDS),
        ([*JOBS, *JOBS], RECORDS),
        ([*JOBS[:2], JOBS[1] | {"job_id": "8"}, *JOBS[2:]], RECORDS),
        ([*JOBS[:2], JOBS[2] | {"code": 1}], RECORDS),
        (JOBS, [*RECORDS[:3], *RECORDS]),
        (JOBS, RECORDS[:-1]),
        (JOBS, [*RECORDS[:3], *RECORDS[2:]]),
        (JOBS, []),
    ],
)
def test_a_trial_that_did_not(
    tmp_path: Path, jobs: list[dict[str, Any]], records: list[dict[str, Any]]
) -> None:
    write(tmp_path / "0003-1", jobs, records)
    assert len(audit(tmp_path, 3)) == 1


def test_a_trial_that_was_tried_again_or_never(tmp_path: Path) -> None:
    for attempt in (1, 2):
        write(tmp_path / f"0003-{attempt}", JOBS, RECORDS)
    assert len(audit(tmp_path, 3)) == len(audit(tmp_path, 4)) == 1


def test_outcomes_are_those_of_an_undisturbed_sweep(tmp_path: Path) -> None:
    expected: list[dict[str, Any]] = [
        {"values": {"a": n}, "state": "complete", "attempt": 1} for n in range(BUDGET)
    ]
    assert differences(expected[::-1], expected) == []
    assert len(differences(expected[1:], expected)) == 2
    assert len(differences([*expected, expected[0]], expected)) == 2
    failed = [expected[0] | {"state": "failed"}, *expected[1:]]
    assert len(differences(failed, expected)) == 2
    assert len(differences(failed, failed)) == 1
