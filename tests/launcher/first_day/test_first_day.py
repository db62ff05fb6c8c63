"""A first day on CPU ranks, from the command to the machine file; figures are checked by other means."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from frontrunner.configs.load import load_machine
from generator.commands import json_keys
from support.paths import unknown, unseen
from support.program import run
from support.terminal import on_terminal

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]
RUN = """\
model: gpt-tiny
machine: {extends: workstation, packages_per_node: 1, devices_per_package: 2}
layout: {micro_batch_size: 1}
training: {seq_len: 64, precision: float32}
data: synthetic
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first-day")
    (folder / "run.yaml").write_text(RUN)
    return folder


@pytest.fixture(scope="module")
def answer(place: Path) -> dict[str, Any]:
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = run("doctor", "run.yaml", "--first-day", "--json", folder=place, env=env, timeout=360)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_part_has_a_verdict(answer: dict[str, Any]) -> None:
    found = {row["part"]: row["verdict"] for row in answer["parts"]}
    assert found["streams"] == found["memory"] == "not applicable"
    assert all(found[name] == "ok" for name in ("kernels", "rates", "native", "plain", "fsdp"))
    assert found["deepspeed"] in ("ok", "not applicable")  # as it is installed or not
    assert found["collectives"] in ("ok", "differs")  # of links that the machine file assumes


def test_the_reference_has_its_keys(answer: dict[str, Any]) -> None:
    documented = json_keys()["doctor --first-day"]
    assert (unknown(answer, documented), unseen(answer, documented)) == ([], [])


def test_steps_are_of_the_same_tokens_and_model(answer: dict[str, Any]) -> None:
    """A model that knows nothing has the entropy of its 2048 words as its loss."""
    steps = answer["steps"]
    assert {"native", "plain", "fsdp"} <= {row["engine"] for row in steps}
    for row in steps:
        tokens = row["tokens_per_s_per_device"] * row["step_time_s"] * 2
        assert tokens == pytest.approx(2 * 64)
        assert row["first_loss"] == pytest.approx(math.log(2048), abs=0.15)


def test_collectives_send_what_their_definition_says(answer: dict[str, Any]) -> None:
    rows = answer["collectives"]
    assert {row["operation"] for row in rows} == {"all-gather", "all-to-all", "all-reduce"}
    for row in rows:
        share = row["bytes"] * (row["ranks"] - 1) / row["ranks"]
        assert row["bytes_sent"] == share * (2 if row["operation"] == "all-reduce" else 1)
    assert {tuple(row["groups"]) for row in rows} == {("weights", "package", "all devices")}


def test_the_machine_file_is_one_for_plan(place: Path, answer: dict[str, Any]) -> None:
    (output,) = answer["outputs"]
    machine = load_machine(str(place / output))
    (software,) = machine.software.values()
    results = [json.loads(path.read_text()) for path in place.glob("runs/*/rates/results/*.json")]
    assert len(results) == 2
    squares = [[row["flops_per_s"] for row in each["squares"]] for each in results]
    means = [sum(pair) / 2 for pair in zip(*squares, strict=True)]  # of two, the median
    assert [point.flops_per_s for point in software.gemm] == pytest.approx(means)
    words = ("plan", "run.yaml", "-o", f"machine={output}", "--json")
    planned = json.loads(run(*words, folder=place).stdout)
    assert planned["step_time_s"] > 0


def test_the_report_can_be_read_again(place: Path, answer: dict[str, Any]) -> None:
    done = run("doctor", answer["folder"], "--json", folder=place)
    assert json.loads(done.stdout) == answer
    shown = run("doctor", answer["folder"], folder=place).stdout
    assert "not applicable: no device streams on CPU" in shown and "\x1b" not in shown
    terminal = on_terminal("doctor", answer["folder"], columns=80, folder=place)
    assert [line for line in terminal.lines if len(line) > 80 and " " in line.strip()] == []
