"""One reader for all: what is no record is counted and passed over, and figures come from steady steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontrunner.run_folder import files
from frontrunner.run_folder.record_reader import Follower, last_records, read_records, summary
from frontrunner.run_folder.records import parse
from frontrunner.run_folder.steady import LONGEST_WARM_UP, steady_median, warm_up_steps

STEP = {"kind": "step", "step": 3, "step_time_s": 2.0, "loss": None}
NO_RECORDS = [
    b"",
    b"text",
    b'{"kind": "step", "step": 3',
    b"[" * 100_000,
    b"\xff\xfe",
    b"[1, 2]",
    b"null",
    b'{"step": 3}',
    b'{"kind": ["step"], "step": 3}',
    b'{"kind": "step"}',
    b'{"kind": "step", "step": "3"}',
    b'{"kind": "step", "step": true}',
    b'{"kind": "header", "spec": [1]}',
    b'{"kind": "of a later version"}',
]


@pytest.mark.parametrize("line", NO_RECORDS, ids=lambda line: repr(line[:30]))
def test_what_is_no_record_is_none(line: bytes) -> None:
    assert parse(line) is None


def test_every_reader_passes_over_what_is_no_record(tmp_path: Path) -> None:
    lines = [*NO_RECORDS, json.dumps(STEP).encode(), json.dumps({"kind": "summary", "steps": 3}).encode()]
    (tmp_path / files.RECORDS).write_bytes(b"\n".join(lines) + b"\n")
    follower = Follower(tmp_path)
    expected = [STEP, {"kind": "summary", "steps": 3}]
    assert read_records(tmp_path) == last_records(tmp_path) == follower.new_records() == expected
    assert follower.lost == len(NO_RECORDS) - 1, "an empty line is not lost"
    assert summary(tmp_path) == expected[-1]


def test_a_file_that_became_shorter_is_read_anew(tmp_path: Path) -> None:
    path, follower = tmp_path / files.RECORDS, Follower(tmp_path)
    path.write_text((json.dumps(STEP) + "\n") * 3)
    assert len(follower.new_records()) == 3
    path.write_text(json.dumps(STEP) + "\n")
    assert len(follower.new_records()) == 1


@pytest.mark.parametrize(
    ("times", "warm"),
    [
        ([], 0),
        ([5.0], 0),
        ([5.0, 1.0], 1),
        ([1.0, 1.0, 1.0], 1),
        ([5.0, 1.2, 1.0, 1.0, 1.0, 1.0], 2),
        ([5.0, 1.05, 1.2, 1.0, 1.0, 1.0], 1),
        ([3.0] * 15 + [1.0] * 40, LONGEST_WARM_UP),
    ],
)
def test_warm_up(times: list[float], warm: int) -> None:
    assert warm_up_steps(times) == warm


@given(st.lists(st.sampled_from([0.5, 1.0, 1.05, 1.11, 1.5, 4.0]), min_size=1, max_size=40))
def test_the_last_step_is_never_warm_up(times: list[float]) -> None:
    assert warm_up_steps(times) < len(times)


def test_the_median_is_of_the_steady_steps_that_have_the_figure() -> None:
    steps = [{"step_time_s": time, "mfu": share} for time, share in [(9.0, 0.1), (1.0, 0.4), (1.0, None)]]
    assert steady_median(steps, "mfu") == 0.4  # type: ignore[arg-type]
    assert steady_median(steps, "step_time_s") == 1.0  # type: ignore[arg-type]
    assert steady_median([], "mfu") is None
