"""``advise``: from a number of tokens to nodes, a layout, days, a queue and a run file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from frontrunner.configs.load import load_run
from frontrunner.launcher.cli import build
from frontrunner.launcher.display.campaign_view import curve, days_text
from frontrunner.launcher.recommendation import interval, usual_batch
from frontrunner.parallelism.planner.campaign import DAY_S, Option, Span
from frontrunner.slurm.policy import schedule
from support.specs import run_spec

Call = Callable[..., Result]
LLAMA = ("llama-3-8b", "--machine", "lumi-g", "--tokens", "300e9")
GPT = ("gpt-175b", "--machine", "frontier", "--tokens", "300e9")


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls a command in an empty folder, without a terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SBATCH_ACCOUNT", raising=False)
    return lambda *words: CliRunner().invoke(build(words), list(words))


def advised(call: Call, *words: str) -> Any:
    done = call("advise", *words, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def option(nodes: int, days: float, **figures: float) -> Option:
    return Option(nodes, {}, figures, 1, Span(days * DAY_S, days * DAY_S, 0, 0, None))


@pytest.mark.parametrize("words", [(*LLAMA, "--node-hours", "20000"), (*GPT, "--days", "30")])
def test_the_file_is_the_recommended_option(call: Call, words: tuple[str, ...]) -> None:
    found = advised(call, *words, "--write", "new.yaml")
    taken = found["recommended"]
    assert taken in found["options"] and found["outputs"] == ["new.yaml"]
    spec = load_run("new.yaml").spec
    assert spec.nodes == taken["nodes"] and spec.training.seq_len == found["seq_len"]
    planned = json.loads(call("plan", "new.yaml", "--json").stdout)
    assert planned["peak_memory_bytes_per_device"] == taken["peak_memory_bytes_per_device"]
    assert planned["tokens_per_s_per_device"] == taken["tokens_per_s_per_device"]
    assert planned["duration_s"] == pytest.approx(taken["training_days"] * DAY_S, rel=1e-3), "whole steps"
    for command in (["check", "new.yaml"], ["submit", "new.yaml", "--dry-run", "--account", "abc"]):
        after = call(*command)
        assert after.exit_code == 0, after.stderr
    text = Path("new.yaml").read_text()
    assert len(text.splitlines()) <= 30 and max(map(len, text.splitlines())) <= 80
    assert found["run"]["nodes"] == taken["nodes"] and found["run"]["training"]["tokens"] == 300_000_000_000


def test_limits_are_met(call: Call) -> None:
    hours = advised(call, *LLAMA, "--node-hours", "20000")
    assert hours["recommended"]["node_hours"] <= 20000
    days = advised(call, *GPT, "--days", "30")
    within = [each for each in days["options"] if each["fits"] and each["days"] <= 30]
    assert days["recommended"]["node_hours"] == min(each["node_hours"] for each in within)


@pytest.mark.parametrize(
    ("words", "queue"),
    [
        ((*LLAMA, "--days", "10"), "standard-g"),
        (("llama-3-8b", "--tokens", "300e9", "--days", "10"), "extended"),  # 24 hours on up to 64 nodes
        ((*GPT, "--days", "30"), "batch"),
    ],
)
def test_the_queue_is_the_one_that_runs_longest(call: Call, words: tuple[str, ...], queue: str) -> None:
    taken = advised(call, *words, "--write", "new.yaml")["recommended"]
    assert taken["queue"] == queue
    spec = load_run("new.yaml").spec
    planned = schedule(spec, preview=True)
    assert planned.queue == spec.machine.site.queues[queue]
    assert planned.segments >= taken["jobs"] >= taken["days"] * DAY_S / planned.segment_s


def test_what_fits_nowhere_is_an_option_that_does_not_fit(call: Call) -> None:
    found = advised(call, "llama-3-70b", "--machine", "lumi-g", "--tokens", "1e9")
    small = [each for each in found["options"] if not each["fits"]]
    assert [each["nodes"] for each in small] == [1, 2]
    assert {small[0][key] for key in ("layout", "days", "node_hours", "days_interval")} == {None}


def test_the_fix_of_limits_that_allow_nothing_is_enough(call: Call) -> None:
    for words in (("--days", "0.1"), ("--node-hours", "100"), ("--days", "1.5", "--node-hours", "8000")):
        done = call("advise", *LLAMA, *words)
        assert done.exit_code == 2 and len(done.stderr.splitlines()) == 1
        fix = re.search(r"; use ([\d.]+) or more", done.stderr)
        assert fix, done.stderr
        after = call("advise", *LLAMA, *words[:-1], fix[1]) if len(words) == 2 else None
        after = after or call("advise", *LLAMA, words[0], fix[1], *words[2:])
        assert after.exit_code == 0, after.stderr


def test_fewer_tokens_are_enough_where_all_nodes_are_too_few(call: Call) -> None:
    done = call("advise", "llama-3-8b", "--machine", "lumi-g", "--tokens", "8e15")
    fix = re.search(r"; use (\S+) or fewer", done.stderr)
    assert done.exit_code == 2 and fix
    assert call("advise", "llama-3-8b", "--machine", "lumi-g", "--tokens", fix[1]).exit_code == 0


def test_a_corpus_is_what_is_trained_on(call: Call) -> None:
    run = advised(call, *LLAMA, "--days", "10", "--data", "corpus/train.bin")["run"]
    assert run["data"] == {"train": "corpus/train"}
    assert advised(call, *LLAMA, "--days", "10")["run"]["data"] == "synthetic"


def test_sequences_are_as_long_as_the_model_allows(call: Call) -> None:
    assert advised(call, *LLAMA, "--days", "10")["seq_len"] == 8192
    assert advised(call, *GPT, "--days", "30")["seq_len"] == 2048
    assert advised(call, *LLAMA, "--days", "10", "--seq-len", "4096")["global_batch_size"] == 1024


def test_a_batch_that_many_numbers_of_devices_divide() -> None:
    spec = run_spec(training={"seq_len": 3000})
    machine = spec.machine.model_copy(update={"packages_per_node": 3, "devices_per_package": 2})
    assert usual_batch(spec.model_copy(update={"machine": machine})) == 3 * 512


def test_days_have_the_interval_of_the_speed() -> None:
    """9 % around a speed: the lower speed takes 1/0.91 of the days, the higher 1/1.09."""
    assert interval(option(1, 10)) is None
    found = interval(option(1, 10, interval_pct=9.0))
    assert found == pytest.approx([10 / 1.09, 10 / 0.91])
    assert days_text(option(1, 10, interval_pct=9.0)) == "10.0 +- 9 %"


def test_a_curve_of_eighty_columns() -> None:
    found = [option(1, 50), option(8, 7), option(64, 1.5)]
    lines = curve(found, found[1])
    assert max(map(len, lines)) <= 80
    assert lines[1].startswith("    50.0 |o 1") and "* 8" in "".join(lines)
    assert lines[-3].startswith("    1.50 |") and lines[-3].endswith("o 64"), "the most node-hours: right"
    assert re.fullmatch(r" +1,200 +2,304 node-hours", lines[-1])


def test_a_curve_of_equal_options() -> None:
    assert len(curve([option(1, 2), option(1, 2)], option(1, 2))) == 15
