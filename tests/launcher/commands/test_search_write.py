"""``search`` writes run files that the other commands take, keeps a margin, and warns of starved machines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from frontrunner.configs.load import load_run
from frontrunner.launcher.cli import build
from frontrunner.parallelism.planner.headroom import usable_bytes

Call = Callable[..., Result]
LLAMA = ("llama-3-8b", "--machine", "lumi-g", "--nodes", "4", "--seq-len", "4096")


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls a command in an empty folder, without a terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SBATCH_ACCOUNT", raising=False)
    return lambda *words: CliRunner().invoke(build(words), list(words))


def searched(call: Call, *words: str) -> Any:
    done = call("search", *words, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def figures(call: Call, run: str) -> Any:
    return json.loads(call("plan", run, "--json").stdout)


@pytest.mark.parametrize("row", [None, 1, 70])
def test_the_file_has_the_layout_of_its_row(call: Call, row: int | None) -> None:
    """Also its speed, so its batch, its sequences and its wires."""
    words = (*LLAMA, "--global-batch-size", "256", "--top", "100", "--write", "new.yaml")
    found = searched(call, *words, *(() if row is None else ("--row", str(row))))
    assert found["outputs"] == ["new.yaml"]
    wanted = found["recommended"] if row is None else found["top"][row - 1]
    planned = figures(call, "new.yaml")
    for key in ("step_time_s", "peak_memory_bytes_per_device", "tokens_per_s_per_device"):
        assert planned[key] == pytest.approx(wanted[key], rel=1e-12), key
    spec = load_run("new.yaml").spec
    assert (spec.nodes, spec.machine.name, spec.training.seq_len) == (4, "lumi-g", 4096)
    assert spec.training.global_batch_size == 256 and spec.layout.tensor == wanted["layout"]["tensor"]
    for command in (["check", "new.yaml"], ["submit", "new.yaml", "--dry-run", "--account", "abc"]):
        after = call(*command)
        assert after.exit_code == 0, after.stderr
    text = Path("new.yaml").read_text()
    assert len(text.splitlines()) <= 30 and max(map(len, text.splitlines())) <= 80


def test_the_recommended_row_is_in_the_ranking(call: Call) -> None:
    found = searched(call, *LLAMA, "--top", "100")
    taken = found["recommended"]
    top = found["top"][taken["row"] - 1]
    assert {key: taken[key] for key in top} == top
    assert taken["tokens_per_s_per_device"] >= found["groups"][0]["tokens_per_s_per_device_range"][0]
    assert "wire" not in taken["layout"]["sharding"]


def test_groups_hold_what_cannot_be_told_apart(call: Call) -> None:
    """Together they are the ranking; the simplest is first, and is recommended."""
    found = searched(call, *LLAMA, "--top", "100")
    groups = found["groups"]
    assert sum(group["count"] for group in groups) == found["fitting"]
    for group, following in zip(groups, groups[1:], strict=False):
        least, most = group["tokens_per_s_per_device_range"]
        assert most / least <= 1 + group["relative_interval_pct"] / 100
        assert following["tokens_per_s_per_device_range"][1] < least
    first = groups[0]
    speeds = [row["tokens_per_s_per_device"] for row in found["top"]]
    assert first["tokens_per_s_per_device_range"][1] == speeds[0]
    assert len(first["layouts"]) == 100 and sorted(first["layouts"][1:]) == first["layouts"][1:]
    assert first["layouts"][0] == found["recommended"]["row"]
    assert {"row": first["layouts"][0], **first["simplest"]} == found["recommended"]


def test_the_table_has_a_rule_between_groups(call: Call) -> None:
    shown = call("search", *LLAMA, "--top", "9").stdout
    first = shown.partition("Pareto")[0]
    said = "within 19 %, which cannot be told apart; first the simplest within 6 % of the fastest"
    assert said in " ".join(first.split())
    assert sum(set(line.strip()) == {"─"} for line in first.splitlines()) == 3, "headings and two rules"


def test_tokens_become_steps_and_a_time_limit(call: Call) -> None:
    found = searched(call, *LLAMA, "--tokens", "20e9", "--write", "new.yaml")
    spec = load_run("new.yaml").spec
    each = spec.training.global_batch_size * 4096
    assert 20e9 <= spec.training.steps * each < 20e9 + each
    hours = found["recommended"]["duration_s"] / 3600
    assert spec.slurm.time_limit and spec.slurm.time_limit.endswith("d")
    assert hours < 24 * int(spec.slurm.time_limit.removesuffix("d")) < 1.2 * hours + 25


def test_a_model_file_is_named_from_where_the_run_file_is(call: Call) -> None:
    Path("models").mkdir()
    Path("runs").mkdir()
    Path("models/mine.yaml").write_text("extends: llama-3-8b\n")
    found = searched(call, "models/mine.yaml", *LLAMA[1:], "--write", "runs/new.yaml")
    assert found["outputs"] == ["runs/new.yaml"]
    assert load_run("runs/new.yaml").spec.model.num_layers == 32


def test_a_file_is_replaced_only_by_force(call: Call) -> None:
    Path("new.yaml").write_text("mine\n")
    assert call("search", *LLAMA, "--write", "new.yaml").exit_code == 2
    assert Path("new.yaml").read_text() == "mine\n"
    done = call("search", *LLAMA, "--top", "1", "--write", "new.yaml", "--force")
    assert done.stdout.endswith("wrote new.yaml\n")
    assert "next: frontrunner check new.yaml, frontrunner submit new.yaml --dry-run" in done.stderr
    assert Path("new.yaml").read_text().startswith("# Written by `frontrunner search`.\nmodel: llama-3-8b\n")


def test_the_margin_is_kept_and_what_it_leaves_out_is_counted(call: Call) -> None:
    none, usual, large = (
        searched(call, *LLAMA, "--top", "500", *words)
        for words in (("--margin", "0"), (), ("--margin", "0.3"))
    )
    machine = load_run("llama-2-7b-lumi").spec.machine
    for found, margin in ((none, 0.0), (usual, 0.05), (large, 0.3)):
        peaks = [each["peak_memory_bytes_per_device"] for each in found["top"]]
        assert max(peaks) <= usable_bytes(machine, margin)
        assert found["margin"] == margin
        assert found["fitting"] + found["left_out_by_margin"] == none["fitting"] + none["left_out_by_margin"]
    assert none["left_out_by_margin"] < usual["left_out_by_margin"] < large["left_out_by_margin"]
    shown = call("search", *LLAMA, "--top", "1")
    assert f"{usual['left_out_by_margin']:,} more do not leave the margin of memory, 5.00 %" in shown.stdout


def test_a_starved_machine(call: Call) -> None:
    words = ("llama-3-8b", "--nodes", "1024", "--global-batch-size", "4096", "--top", "1")
    (warning,) = searched(call, *words)["warnings"]
    assert warning.startswith("4,096 sequences per step starve 1024 nodes: 32,768 would run 1.")
    assert f"warning: {warning}" in call("search", *words).stderr
    assert searched(call, *LLAMA, "--top", "1")["warnings"] == []


def test_nothing_is_left_by_the_margin(call: Call) -> None:
    done = call("search", "llama-3-70b", "--machine", "lumi-g", "--nodes", "4", "--margin", "0.7")
    assert done.exit_code == 2
    fix = done.stderr.rpartition("use ")[2].partition(" or less")[0]
    after = call("search", "llama-3-70b", "--machine", "lumi-g", "--nodes", "4", "--margin", fix)
    assert after.exit_code == 0, after.stderr
