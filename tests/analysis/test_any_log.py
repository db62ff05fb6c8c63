"""Ten megabytes of logs that were cut, mixed and overwritten: lines are lost and counted, nothing fails."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from frontrunner.analysis.analyze import analyze
from frontrunner.analysis.importers import megatron
from frontrunner.analysis.read import read
from frontrunner.analysis.report.page import page
from frontrunner.configs.errors import SpecError
from support import logs, trainer_logs
from support.specs import run_spec

FILES, SIZE = 100, 100_000
#: Place of our records among the sources.
RECORDS = 3

Mutation = Callable[[list[str], random.Random], list[str]]


def _number(line: str, chance: random.Random, value: str) -> str:
    """The line with one of its words that begins with a digit replaced."""
    words = line.split(" ")
    places = [index for index, word in enumerate(words) if word[:1].isdigit()]
    if places:
        words[chance.choice(places)] = value
    return " ".join(words)


def cut(lines: list[str], chance: random.Random) -> list[str]:
    return [line[: chance.randrange(len(line) + 1)] if chance.random() < 0.1 else line for line in lines]


def interleaved(lines: list[str], chance: random.Random) -> list[str]:
    """Two ranks write at once."""
    found = []
    for line in lines:
        place = chance.randrange(len(line) + 1)
        found.append(line[:place] + chance.choice(lines) + line[place:] if chance.random() < 0.1 else line)
    return found


def numbers(lines: list[str], chance: random.Random) -> list[str]:
    values = [
        "NaN",
        "nan",
        "inf",
        "-inf",
        "1e999",
        "-1",
        "0",
        "9" * 400,
        "1e-320",
        "0x10",
        "1_000",
        "１２",
        "",
        "[",
        '"a"',
    ]
    return [_number(line, chance, chance.choice(values)) if chance.random() < 0.2 else line for line in lines]


def shuffled(lines: list[str], chance: random.Random) -> list[str]:
    return chance.sample(lines, len(lines)) + lines[: chance.randrange(len(lines))]


def junk(lines: list[str], chance: random.Random) -> list[str]:
    strange = [
        "\0" * 50,
        "{" * 5000,
        "[" * 5000,
        '{"kind": "step"}',
        '{"kind": 3}',
        "| | |",
        "iteration 1/ 2 |",
        "\x1b[31m",
        "null",
    ]
    return [
        each
        for line in lines
        for each in ([chance.choice(strange), line] if chance.random() < 0.1 else [line])
    ]


def fields(lines: list[str], chance: random.Random) -> list[str]:
    """Keys and values of JSON, and names of fields, change places."""
    found = []
    for line in lines:
        a, b = (
            chance.choice(['"', ":", "|", "step", "{", "1"]),
            chance.choice(["", "'", "]", "kind", "|", "9"]),
        )
        found.append(line.replace(a, b, chance.randrange(4)) if chance.random() < 0.2 else line)
    return found


MUTATIONS: tuple[Mutation, ...] = (cut, interleaved, numbers, shuffled, junk, fields)


def encoded(text: str, chance: random.Random) -> bytes:
    kind = chance.randrange(8)
    if kind == 0:
        return text.encode("utf-16")
    if kind == 1:
        return text.encode("utf-32-le", errors="replace")
    if kind == 2:
        packed = gzip.compress(text.encode(errors="replace"))
        return packed[: chance.randrange(len(packed))]
    data = bytearray(text.encode(errors="replace"))
    if kind < 6:
        for _ in range(len(data) // 2000):
            data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def sources() -> list[list[str]]:
    """Whole logs of each format, about SIZE long."""
    count = SIZE // 450
    comments = [logs.memory_line(rank, 500.0 + rank) for rank in range(8)]
    comments += [logs.message_line("send", 2.5, "14.0 MB")] * 50
    deepspeed = logs.deepspeed_log(
        [2.0 + step % 7 / 100 for step in range(count)], extra=comments
    ).splitlines()
    neox = [*logs.argument_lines(logs.NEOX), *(logs.neox_step(step, 2.0) for step in range(1, count))]
    core = [*logs.argument_lines(logs.MEGATRON), *(logs.megatron_step(step, 2.0) for step in range(1, count))]
    spec = run_spec(devices=2)
    records = [logs.header(spec), *(logs.step_record(step, 2.0) for step in range(1, count))]
    return [deepspeed, neox, core, [json.dumps(record) for record in records], *others()]


def others() -> list[list[str]]:
    """Logs of trainers that do not descend from Megatron, each about SIZE long."""
    whole = []
    for make in trainer_logs.LOGS.values():
        lines = make()
        whole.append(lines * (SIZE // sum(map(len, lines)) + 1))
    return whole


@pytest.mark.timeout(900)
def test_ten_megabytes_of_damaged_logs_are_read_or_left_out(tmp_path: Path) -> None:
    chance = random.Random(20260101)
    whole, total = sources(), 0
    for index in range(FILES):
        kind = index % len(whole)
        lines = whole[kind]
        for mutation in chance.sample(MUTATIONS, chance.randrange(1, 4)):
            lines = mutation(lines, chance)
        data = encoded("\n".join(lines), chance)
        total += len(data)
        place = tmp_path / f"run{index}"
        place.mkdir()
        (place / ("records.jsonl" if kind == RECORDS else "log.out")).write_bytes(data)
    assert total > 9e6
    found = analyze(read([tmp_path]), "lumi-g")
    answer = found.answer
    assert len(answer["runs"]) + len(answer["unread"]) == FILES
    assert len(answer["runs"]) > 0.7 * FILES
    assert answer["lost_lines"] > 1000
    assert sum(run["lost_lines"] > 0 for run in answer["runs"]) > 0.6 * FILES
    json.dumps(answer, allow_nan=False)
    assert len("".join(page(found))) > 1e6


def test_no_number_of_a_cut_line_is_taken_for_whole(tmp_path: Path) -> None:
    """A line that was cut behind a whole field may stay; what is read of it is right."""
    chance = random.Random(7)
    seconds = {step: 100 + step / 4 for step in range(1, 400)}
    lines = [logs.deepspeed_step(step, seconds[step]) for step in seconds]
    damaged = [
        line[: chance.randrange(60, len(line) - 1)] if chance.random() < 0.3 else line for line in lines
    ]
    path = tmp_path / "log.out"
    path.write_text("\n".join(damaged))
    found = read([path])
    told = dict(found.steps.select("step", "step_time_s").rows())
    assert {step for step, line in zip(seconds, damaged, strict=True) if line in lines} <= told.keys()
    assert all(told[step] == seconds[step] for step in told)
    assert len(told) + found.runs[0].lost_lines == len(seconds)
    assert 80 < found.runs[0].lost_lines < 140


@pytest.mark.parametrize(
    "step",
    [trainer_logs.titan_step, trainer_logs.nanotron_step, trainer_logs.nemo_step, trainer_logs.nemo_bar],
)
def test_no_number_of_a_cut_line_of_other_trainers_is_taken_for_whole(
    tmp_path: Path, step: Callable[[int, float], str]
) -> None:
    chance = random.Random(7)
    seconds = {place: 100 + place for place in range(2, 400)}
    path = tmp_path / "log.out"
    lines = [step(place, seconds[place]) for place in seconds]
    path.write_text("\n".join(lines))
    expected = {row["step"]: row for row in read([path]).steps.to_dicts()}
    assert len(expected) == len(lines)
    damaged = [
        line[: chance.randrange(60, len(line) - 1)] if place and chance.random() < 0.3 else line
        for place, line in enumerate(lines)
    ]
    path.write_text("\n".join(damaged))
    found = read([path])
    assert all(row == expected[row["step"]] for row in found.steps.to_dicts())
    assert found.steps.height >= sum(line in lines for line in damaged)
    assert found.runs[0].lost_lines > 60


def test_random_bytes_are_no_run(tmp_path: Path) -> None:
    path = tmp_path / "noise.out"
    path.write_bytes(random.Random(1).randbytes(1 << 20))
    assert megatron.read(path, "noise") == "holds no line of a training step"
    with pytest.raises(SpecError, match="is a binary file, not a training log"):
        read([path])
