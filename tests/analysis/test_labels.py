"""Whatever a launcher, a logger or a terminal puts around a trainer's lines, the figures are the same."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from frontrunner.analysis.analyze import analyze
from frontrunner.analysis.read import read
from frontrunner.configs.errors import SpecError
from support import logs, trainer_logs

STEPS = range(1, 7)
VOCABULARY = " > padded vocab (size: 500) with 12 dummy tokens (new size: 512)"
MEGATRON = [*logs.argument_lines(logs.MEGATRON), VOCABULARY]
TRAINERS = {
    "megatron-lm": [*MEGATRON, *(logs.megatron_step(step, 2.0) for step in STEPS)],
    "megatron-deepspeed": logs.deepspeed_log([2.0] * 6, extra=[logs.memory_line(0, 500)]).splitlines(),
    "gpt-neox": [
        *logs.argument_lines(logs.NEOX, "........updated"),
        *(logs.neox_step(step, 2.0) for step in STEPS),
    ],
    "primus": [*MEGATRON, *(logs.primus_step(step, 2.0) for step in STEPS)],
}
OTHERS = {name: log() for name, log in trainer_logs.LOGS.items()}
OTHERS["torchtitan's JSON"] = trainer_logs.titan_log(as_json=True)
LABELS = {
    "srun --label": "3: ",
    "torchrun --tee": "[default0]:",
    "torchrun under srun": "0: [default7]: ",
    "pdsh": "node017: ",
    "host and rank": "[node017:0]: ",
    "mpirun --tag-output": "[1,0]<stdout>:",
    "mpirun --timestamp-output": "Mon Mar  2 10:00:00 2026[1,0]<stdout>:",
    "Ray": "(RayTrainWorker pid=4321, ip=10.0.0.7) ",
    "docker compose": "worker-1  | ",
    "a time": "2026-03-02T10:00:00.123Z ",
    "logging": "2026-03-02 10:00:00,123 - INFO - ",
    "Primus's file": "[20260302 10:00:00][node-0/2][rank-15/16][INFO]      [log_lines.py:99] : ",
}
COLOURS = {
    "none": "{}",
    "whole line": "\x1b[37m{}\x1b[0m",
    "24 bits": "\x1b[38;2;255;0;0;1m{}\x1b[m",
    "erased first": "\x1b[2K\r{}",
    "a title": "\x1b]0;training\x07{}",
}


def figures(folder: Path, lines: list[str]) -> dict[str, Any]:
    path = folder / "log.out"
    path.write_text("\n".join(lines))
    (found,) = analyze(read([path]), "lumi-g").answer["runs"]
    return dict(found)


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("label", LABELS)
def test_labels_change_no_figure(tmp_path: Path, trainer: str, label: str) -> None:
    plain = figures(tmp_path, TRAINERS[trainer])
    assert (plain["format"], plain["devices"], plain["steps"], plain["lost_lines"]) == (trainer, 8, 6, 0)
    assert plain["tokens_per_s_per_device"] == 16 * 128 / 2.0 / 8
    assert plain["model_flops_per_s_per_device"]
    for colour in COLOURS.values():
        lines = [colour.format(LABELS[label] + line) for line in TRAINERS[trainer]]
        assert figures(tmp_path, lines) == plain, colour


@pytest.mark.parametrize("trainer", OTHERS)
@pytest.mark.parametrize("label", LABELS)
def test_labels_change_no_figure_of_other_trainers(tmp_path: Path, trainer: str, label: str) -> None:
    """A carriage return ends a progress bar, so what is before it has its own label."""
    plain = figures(tmp_path, OTHERS[trainer])
    assert (plain["steps"], plain["lost_lines"], plain["step_time_s"]) == (6, 0, 2.0)
    assert bool(plain["model"]) == (trainer not in ("olmo-core", "nemo", "hugging-face"))
    for colour in COLOURS.values():
        lines = [colour.format(LABELS[label] + line) for line in OTHERS[trainer]]
        assert figures(tmp_path, lines) == plain, colour


def test_labels_of_many_ranks_in_one_file(tmp_path: Path) -> None:
    """One label a rank; other ranks print other things in between."""
    chance = random.Random(5)
    lines = []
    for line in TRAINERS["megatron-lm"]:
        lines.append(f"0: [default0]:{line}")
        if chance.random() < 0.5:
            lines.append(
                f"{chance.randrange(8)}: [default{chance.randrange(8)}]: WARNING: a kernel was chosen"
            )
    assert figures(tmp_path, lines) == figures(tmp_path, TRAINERS["megatron-lm"])


def test_several_records_on_a_line_are_all_read(tmp_path: Path) -> None:
    first, rest = logs.deepspeed_log([2.0]), [logs.deepspeed_step(step, 2.0) for step in (2, 3, 4)]
    memory = logs.memory_line(0, 500) + logs.memory_line(4, 300)
    found = read([_written(tmp_path, first + "".join(rest) + "\n" + memory)])
    assert found.steps["step"].to_list() == [1, 2, 3, 4]
    assert [each.peak_bytes / 2**20 for each in found.runs[0].memory] == [600, 400]


def test_of_two_steps_on_a_line_the_whole_one_counts_and_the_other_is_lost(tmp_path: Path) -> None:
    text = logs.deepspeed_log([2.0]) + logs.deepspeed_step(2, 2.0)[:150] + logs.deepspeed_step(3, 2.0)
    found = read([_written(tmp_path, text)])
    assert (found.steps["step"].to_list(), found.runs[0].lost_lines) == ([1, 3], 1)


def test_steps_that_cannot_be_read_are_not_denied(tmp_path: Path) -> None:
    damaged = "\n".join(logs.deepspeed_step(step, 2.0)[:-9] for step in STEPS)
    with pytest.raises(SpecError, match="6 lines look like training steps"):
        read([_written(tmp_path, damaged)])
    with pytest.raises(SpecError, match="holds no line of a training step"):
        read([_written(tmp_path, "hello\n")])


def _written(folder: Path, text: str) -> Path:
    path = folder / "log.out"
    path.write_text(text)
    return path
