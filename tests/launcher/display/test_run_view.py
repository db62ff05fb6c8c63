from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, cast

import faulty_ranks
import pytest

from frontrunner.configs import units
from frontrunner.launcher.display.watch import Watch
from frontrunner.launcher.errors import RunFailed
from frontrunner.run_folder.record_reader import Follower
from support.specs import run_spec


def records(tmp_path: Path, steps: int = 10) -> list[Any]:
    found: list[Any] = []
    faulty_ranks.write_records(run_spec(devices=3), tmp_path, found.append, steps)
    return found


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def watched(tmp_path: Path, steps: int, output: io.StringIO, live: bool) -> tuple[str, dict[str, Any]]:
    """What is shown of a whole run while it lasts, and its result; the table goes to ``output``."""
    with Watch(tmp_path / "run", steps, (), output, live=live) as watch:
        for record in records(tmp_path, steps):
            watch.record(record)
    during = output.getvalue()
    return during, watch.finish()


def test_plain_lines(tmp_path: Path) -> None:
    during, _ = watched(tmp_path, 10, io.StringIO(), live=False)
    lines = during.splitlines()
    assert lines[0] == (
        "1 nodes x 3 packages x 1 devices; tensor 1, pipeline 1, data 3; "
        "ddp (weights 1, gradients 1, optimizer 1); cpu"
    )
    assert lines[1] == "validation after step 0: loss 5.5000"
    assert lines[2] == (
        "step  1/10  loss 4.9000  learning rate 1.00e-03  gradient norm 1.250  "
        "1,500.0 tokens/s per device  500 ms per step  left 0:04"
    )
    assert "gradient norm -" in lines[3]  # not a number
    assert lines[-1] == "validation after step 10: loss 3.5000"
    assert len(lines) == 13


def test_plain_lines_of_a_long_run_are_few(tmp_path: Path) -> None:
    during, _ = watched(tmp_path, 1000, io.StringIO(), live=False)
    steps = [line.split()[1] for line in during.splitlines() if line.startswith("step")]
    assert steps[:2] == ["1/1000", "40/1000"] and steps[-1] == "1000/1000"
    assert len(steps) == 26


def test_live_view(tmp_path: Path) -> None:
    during, _ = watched(tmp_path, 10, Terminal(), live=True)
    for shown in (
        "step 10/10",
        "100%",
        "left 0:00",
        "4.0000",
        "1,500.0",
        "2.00 TFLOP/s (MFU 25.0 %)",
        "5.5000 -> 3.5000 (unigram model: 4.2500)",
        "package 2.00 KiB, node 1.00 KiB, network 512 B",
    ):
        assert shown in during


def test_live_view_before_the_first_record(tmp_path: Path) -> None:
    output = Terminal()
    with Watch(tmp_path, 10, (), output, live=True):
        pass
    assert "loading torch" in output.getvalue()


def test_summary(tmp_path: Path) -> None:
    output = io.StringIO()
    during, result = watched(tmp_path, 10, output, live=False)
    assert result == {
        "run_dir": str(tmp_path / "run"),
        "steps": 10,
        "first_validation_loss": 5.5,
        "last_validation_loss": 3.5,
        "tokens_per_s_per_device": 1500.0,
        "bytes_per_step": {"package": 2048.0, "node": 1024.0, "network": 512.0},
    }
    table = output.getvalue()[len(during) :]
    rows = {
        cells[0]: cells[1].strip()
        for line in table.splitlines()
        if len(cells := line.strip().split("  ", 1)) == 2
    }
    assert rows == {
        "training loss": "4.9000 -> 4.0000",
        "validation loss": "5.5000 -> 3.5000 (unigram model: 4.2500)",
        "tokens/s per device": "1,500.0",
        "model FLOP/s per device": "2.00 TFLOP/s (MFU 25.0 %)",
        "hardware FLOP/s per device": "3.00 TFLOP/s",
        "step time (median)": "500 ms",
        "forward and backward": "250 ms",
        "optimizer": "62.5 ms",
        "exposed communication in both": "125 ms",
        "peak memory per device": "3.00 GiB",
        "bytes sent per rank and step, package": "2.00 KiB",
        "bytes sent per rank and step, node": "1.00 KiB",
        "bytes sent per rank and step, network": "512 B",
        "time": "0:12",
        "run folder": str(tmp_path / "run"),
    }


@pytest.mark.parametrize("live", [False, True])
def test_figures_that_are_unknown(tmp_path: Path, live: bool) -> None:
    """A NaN loss, a device without a known peak, no validation."""
    header, *_ = records(tmp_path)
    step = dict.fromkeys(faulty_ranks.step_fields(1)) | {"kind": "step", "step": 1, "step_time_s": 1.0}
    summary = {"kind": "summary", "steps": 1, "first_validation_loss": None, "elapsed_s": 1.0}
    output = Terminal() if live else io.StringIO()
    with Watch(tmp_path, 1, (), output, live=live) as watch:
        for record in (header, step, summary):
            watch.record(cast(Any, record))
    assert watch.finish()["first_validation_loss"] is None
    assert "MFU" not in output.getvalue() and "None" not in output.getvalue()


def test_a_run_without_an_end(tmp_path: Path) -> None:
    with Watch(tmp_path, 10, (), io.StringIO(), live=False) as watch:
        for record in records(tmp_path)[:-1]:
            watch.record(record)
    with pytest.raises(RunFailed, match="without a summary"):
        watch.finish()


def test_follower_reads_whole_lines_once(tmp_path: Path) -> None:
    follower = Follower(tmp_path, from_end=True)
    assert follower.new_records() == []
    with (tmp_path / "records.jsonl").open("w") as file:
        for text, expected in [
            (_stopped(1) + _stopped(2) + _stopped(3)[:9], [1, 2]),
            (_stopped(3)[9:-1], []),
            ("\n", [3]),
            ("", []),
            ("no record\n" + _stopped(4), [4]),
        ]:
            file.write(text)
            file.flush()
            assert follower.new_records() == [{"kind": "stopped", "step": step} for step in expected]
    assert follower.lost == 1


def _stopped(step: int) -> str:
    return json.dumps({"kind": "stopped", "step": step}) + "\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (units.duration_text(59.6), "1:00"),
        (units.duration_text(3723), "1:02:03"),
    ],
)
def test_quantities(text: str, expected: str) -> None:
    assert text == expected


EVENTS: list[tuple[dict[str, Any], str]] = [
    (
        {"kind": "checkpoint", "step": 4, "path": "runs/a/checkpoints/x", "write_s": 2.0, "stalled_s": 0.25},
        "checkpoint after step 4: runs/a/checkpoints/x (written in 2.00 s, training waited 250 ms)",
    ),
    (
        {"kind": "warning", "about": "loss", "step": 5, "message": "the loss jumped [to] 9"},
        "warning, step 5: the loss jumped [to] 9",
    ),
]


@pytest.mark.parametrize(("record", "line"), EVENTS)
def test_events_are_lines(tmp_path: Path, record: Any, line: str) -> None:
    output = io.StringIO()
    with Watch(tmp_path, 10, (), output, live=False) as watch:
        watch.record(record)
    assert output.getvalue() == f"{line}\n"


def test_what_is_not_to_be_missed_stays_on_a_terminal(tmp_path: Path) -> None:
    output = Terminal()
    with Watch(tmp_path, 10, (), output, live=True) as watch:
        watch.record(cast(Any, EVENTS[1][0]))
    assert EVENTS[1][1] in output.getvalue()


def test_a_run_that_goes_on_says_so_and_is_followed_from_there(tmp_path: Path) -> None:
    old = records(tmp_path)
    (tmp_path / "records.jsonl").open("a").write('{"kind": "st')  # killed while it wrote
    follower, output = Follower(tmp_path, from_end=True), io.StringIO()
    assert follower.new_records() == []
    faulty_ranks.write_records(run_spec(devices=3), tmp_path, None)
    assert follower.new_records() == old
    with Watch(tmp_path, 10, (), output, live=False) as watch:
        watch.record(old[0] | {"continued_from": 7})
    assert output.getvalue().splitlines()[1] == "continues after step 7"
