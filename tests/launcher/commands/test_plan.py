"""``plan``, ``search`` and ``validate`` as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from frontrunner.configs.errors import SpecError
from frontrunner.launcher.commands.plan import plan
from frontrunner.launcher.commands.search import search
from frontrunner.launcher.commands.validate import validate

PLAN_KEYS = {
    "peak_memory_bytes_per_device",
    "memory",
    "step_time_s",
    "step_time_parts_s",
    "tokens_per_s_per_device",
    "model_flops_per_s_per_device",
    "hardware_flops_per_s_per_device",
    "mfu",
    "fits",
}


def test_a_plan_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    plan("gpt-175b-frontier", tokens=3e11, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found.keys() >= PLAN_KEYS | {"assumptions"}
    assert set(found["memory"]) == {"weights", "gradients", "optimizer", "activations", "buffers", "residual"}
    assert sum(found["memory"].values()) == pytest.approx(found["peak_memory_bytes_per_device"])
    assert sum(found["step_time_parts_s"].values()) == pytest.approx(found["step_time_s"])
    # Dash et al. ran it at 69.2 TFLOP/s with the software of 2023.
    assert found["hardware_flops_per_s_per_device"] == pytest.approx(69.2e12, rel=0.15)
    assert found["duration_s"] == pytest.approx(3e11 / (128 * found["tokens_per_s_per_device"]))


def test_a_plan_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    plan("gpt-175b-frontier", ["training.global_batch_size=64"])
    out = capsys.readouterr().out
    assert "fits" in out
    assert "bubble" in out
    assert "training.global_batch_size: 256 (x 4" in out
    assert max(len(line) for line in out.splitlines() if "  - " not in line) <= 130


def test_a_machine_of_which_nothing_is_known_gets_no_guess(capsys: pytest.CaptureFixture[str]) -> None:
    plan("quickstart", as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["step_time_s"] is None
    assert found["mfu"] is None
    assert found["peak_memory_bytes_per_device"] > 0


def test_what_does_not_fit_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    plan("gpt-175b-frontier", ["layout.pipeline=1", "layout.tensor=1", "training.global_batch_size=128"])
    out = capsys.readouterr().out
    assert "does NOT fit" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"nodes": 0}, "nodes"),
        ({"nodes": 10_000}, "nodes"),
        ({"machine": "summit"}, "is neither a machine preset nor a file"),
        ({"software": "1999"}, "frontier has 2023, 2025"),
        ({"tokens": 0}, "--tokens = 0: must be a number of at least 1"),
        ({"tokens": float("nan")}, "--tokens = NaN"),
        ({"tokens": float("inf")}, "--tokens = Infinity"),
    ],
)
def test_a_plan_that_cannot_be(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        plan("gpt-22b-frontier", **arguments)


def test_a_search_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    search("gpt-22b", nodes=4, top=3, scale="4,8", as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["candidates"] > found["legal"] > 100
    assert found["elapsed_s"] > 0
    assert len(found["top"]) == 3
    assert all(entry.keys() >= PLAN_KEYS | {"layout"} for entry in found["top"])
    speeds = [entry["tokens_per_s_per_device"] for entry in found["top"]]
    assert speeds == sorted(speeds, reverse=True)
    assert [row["nodes"] for row in found["scaling"]] == [4, 8]
    assert found["scaling"][0]["weak"]["efficiency"] == 1


def test_a_search_of_a_model_with_short_sequences(capsys: pytest.CaptureFixture[str]) -> None:
    search("gpt-tiny", top=1)
    assert "sequences of 256 tokens per step" in capsys.readouterr().out


def test_a_search_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    search("gpt-175b", nodes=16, global_batch_size=640, tokens=3e11, scale="16,128")
    out = capsys.readouterr().out
    assert "gpt-175b-frontier: rank" in out
    assert "it loses by" in out
    assert "strong scaling, 128 nodes" in out
    assert "; it wins by " in out
    assert "node-hours" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model": "gpt-1t", "nodes": 1}, r"none of .* fits; .* over"),
        ({"model": "gpt-1t", "nodes": 0}, "nodes"),
        ({"model": "gpt-1t", "nodes": 20_000}, "nodes"),
        ({"model": "gpt-2t"}, "is neither a model preset nor a file"),
        ({"model": "gpt-22b", "machine": "summit"}, "is neither a machine preset nor a file"),
        ({"model": "gpt-1.4b", "machine": "workstation"}, "workstation's machine file has no measured rates"),
        ({"model": "gpt-22b", "nodes": 2, "software": "1999"}, "frontier has 2023, 2025"),
        ({"model": "gpt-22b", "scale": "4,x"}, "node counts"),
        ({"model": "gpt-22b", "tokens": -1}, "--tokens = -1"),
        ({"model": "gpt-22b", "seq_len": 4096}, "max_position_embeddings 2048"),
    ],
)
def test_a_search_that_cannot_be(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        search(**arguments)


def test_a_validation_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    validate(as_json=True)
    found = json.loads(capsys.readouterr().out)
    for figure in ("speed", "memory"):
        assert found[figure].keys() >= {"mean_abs_error_pct", "max_abs_error_pct", "rows"}
        assert found[figure]["rows"][0].keys() >= {"id", "published", "predicted", "error_pct"}
    assert found["skipped"][0].keys() == {"id", "reason"}
    # As many as README says, with the ring's latency.
    assert found["constants_fitted"] == 6


def test_a_validation_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    validate()
    out = capsys.readouterr().out
    assert "all: mean" in out
    assert "with each source excluded from the fit" in out
    assert "constants fitted: 6" in out
    assert "fitted: frontier 2023 gemm_factor" in out
    assert "convention (the paper gives no batch): " in out


def test_wrong_rows_are_a_wrong_request(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from frontrunner.launcher.cli import main; main()", "validate"]
    done = subprocess.run(
        [*command, "--rows", str(tmp_path / "none.yaml")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "cannot be read" in done.stderr


def test_planning_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from frontrunner.launcher.commands.plan import plan\n"
        "from frontrunner.launcher.commands.search import search\n"
        "plan('gpt-22b-frontier')\nsearch('gpt-22b', nodes=2)\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
