"""``plan`` and ``search`` of models with experts, as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from frontrunner.configs.errors import SpecError
from frontrunner.launcher.commands.plan import plan
from frontrunner.launcher.commands.search import search
from support.experts import MIXTRAL


@pytest.fixture
def run(tmp_path: Path) -> str:
    """Mixtral 8x7B on sixteen nodes of Frontier, each of which holds all experts once."""
    keys = {
        "model": MIXTRAL,
        "machine": "frontier",
        "nodes": 16,
        "data": "synthetic",
        "layout": {"expert": 8, "recompute": "full", "sharding": {"preset": "zero3"}},
        "training": {"seq_len": 4096, "global_batch_size": 1024},
    }
    path = tmp_path / "mixtral-run.yaml"
    path.write_text(yaml.safe_dump(keys))
    return str(path)


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "mixtral.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in MIXTRAL.items() if key != "name"}))
    return str(path)


def test_a_plan_is_of_active_parameters(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    plan(run, as_json=True)
    found = json.loads(capsys.readouterr().out)
    total, active = found["parameters"]["total"], found["parameters"]["active"]
    assert (round(total / 1e9, 1), round(active / 1e9, 1)) == (46.7, 12.9)
    # Six FLOPs a parameter and token, without the embedding, and attention: 12 layers hidden sequence.
    flops = 6 * (active - 32000 * 4096) + 12 * 32 * 4096 * 4096
    assert found["model_flops_per_s_per_device"] == pytest.approx(
        flops * found["tokens_per_s_per_device"], rel=1e-3
    )
    assert 0.1 < found["mfu"] < 0.4
    assert 0 < found["step_time_parts_s"]["dispatch"] < 0.1 * found["step_time_s"]
    assert sum(found["step_time_parts_s"].values()) == pytest.approx(found["step_time_s"])
    # 16 bytes a parameter on 128 devices, and as much again at work.
    assert 16 * total / 128 < found["peak_memory_bytes_per_device"] < 3 * 16 * total / 128
    assert any("1.25 times the mean" in text for text in found["assumptions"])


def test_a_plan_for_people(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    plan(run)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "model   46.7 billion parameters, 12.9 billion active (2 of 8 experts)"
    assert any(line.lstrip().startswith("dispatch ") for line in lines)


def test_a_trace_is_refused_by_name(run: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="tokens on their way to experts"):
        plan(run, trace=tmp_path / "step.json")
    assert not (tmp_path / "step.json").exists()


def test_a_search_shows_expert_ranks(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    search(model, nodes=4, top=5)
    out = capsys.readouterr().out
    assert "model   46.7 billion parameters, 12.9 billion active (2 of 8 experts)" in out
    assert max(map(len, out.splitlines()[:2])) <= 100
    search(model, nodes=4, top=5, as_json=True)
    found = json.loads(capsys.readouterr().out)
    best = found["top"][0]
    assert best["parameters"]["active"] < best["parameters"]["total"] / 3
    assert {entry["layout"]["dispatch"] for entry in found["top"]} <= {"hierarchical", "flat"}
    assert all(8 % entry["layout"]["expert"] == 0 for entry in found["top"])


def test_the_file_of_a_search_is_the_layout_that_was_found(model: str, tmp_path: Path) -> None:
    written = tmp_path / "found.yaml"
    search(model, nodes=4, write=written, row=1, as_json=True)
    keys = yaml.safe_load(written.read_text())
    assert keys["model"] == str(model) or Path(keys["model"]).name == "mixtral.yaml"
    plan(str(written), as_json=True)
