"""What is flagged, from logs that are written for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from frontrunner.analysis.analyze import analyze
from frontrunner.analysis.read import read
from support import logs
from support.specs import run_spec

LUMI = "/pfs/lustrep1/x"


def of_log(folder: Path, times: list[float], machine: str | None = None, **options: Any) -> dict[str, Any]:
    path = folder / "log.out"
    path.write_text(logs.deepspeed_log(times, **options))
    (found,) = analyze(read([path]), machine).answer["runs"]
    return dict(found)


def test_a_sound_log_has_no_flag_but_what_it_lacks(tmp_path: Path) -> None:
    steps = [logs.deepspeed_step(step, 2.0, loss=f"{6 - step / 10:.6E}") for step in range(1, 9)]
    path = tmp_path / "log.out"
    path.write_text(logs.deepspeed_log([]) + "\n".join(steps).replace("TFLOPs: 1.50", "TFLOPs: 0.00") + "\n")
    (found,) = analyze(read([path]), "lumi-g").answer["runs"]
    assert found["flags"] == []


@pytest.mark.parametrize(
    ("options", "flag", "words"),
    [
        ({"tflops": 250.0}, "implausible", "exceeds the peak"),
        ({"tflops": 150.0}, "implausible", "78.3 % of the peak"),
        ({"extra": ["[x] CONFIG: micro_batches=1 micro_batch_size=4"]}, "micro-batches", "2 micro-batches"),
        ({"loss": "NaN"}, "loss", "no step has a finite loss"),
        ({}, "loss", "never moves"),
        ({"tflops": 100.0}, "disagreement", "prints 100 TFLOP/s"),
        ({"samples": 99.0}, "disagreement", "99.0 sequences/s"),
        ({"arguments": {"data_parallel_size": 4}}, "layout", "16, not 8 devices"),
        ({"skipped": 1}, "overflow", "every step overflowed"),
        ({"extra": [logs.deepspeed_step(1, 2.0)[:80]]}, "lost", "1 lines could not be read"),
        ({"extra": [logs.memory_line(0, 70_000.0)]}, "memory", "exceed the memory of AMD MI250X GCD"),
        ({"arguments": {"num_layers": "None"}}, "incomplete", "does not give the model"),
    ],
)
def test_what_cannot_be_true_is_flagged(
    tmp_path: Path, options: dict[str, Any], flag: str, words: str
) -> None:
    found = of_log(tmp_path, [2.0] * 6, "lumi-g", **options)
    assert flag in found["flags"]
    assert any(words in warning for warning in found["warnings"])


def test_a_loss_scale_that_falls_at_every_step_means_that_none_counted(tmp_path: Path) -> None:
    lines = [logs.deepspeed_step(step, 2.0, scale=f"{2.0 ** (31 - step):.1f}") for step in range(1, 6)]
    path = tmp_path / "log.out"
    path.write_text(logs.deepspeed_log([]) + "\n".join(lines) + "\n")
    (found,) = analyze(read([path])).answer["runs"]
    assert any("every step overflowed: all 5" in warning for warning in found["warnings"])


def test_what_the_engine_ran_corrects_the_speed(tmp_path: Path) -> None:
    engine = "[x] CONFIG: micro_batches=1 micro_batch_size=4"
    found = of_log(tmp_path, [2.0] * 6, extra=[engine])
    assert found["corrected"]["factor"] == 0.5
    corrected, counted = (each["tokens_per_s_per_device"] for each in (found["corrected"], found))
    assert corrected == counted / 2


def test_a_run_that_cannot_be_true_is_no_point_of_scaling(tmp_path: Path) -> None:
    for devices, data in ((8, 2), (16, 4)):
        arguments = {"world_size": devices, "data_parallel_size": data}
        (tmp_path / f"{devices}.out").write_text(logs.deepspeed_log([8 / data] * 6, arguments, tflops=0.0))
    assert [len(group["points"]) for group in analyze(read([tmp_path])).answer["scaling"]] == [2]
    engine = ["[x] CONFIG: micro_batches=1 micro_batch_size=4"]
    arguments = {"world_size": 16, "data_parallel_size": 4}
    (tmp_path / "16.out").write_text(logs.deepspeed_log([2.0] * 6, arguments, engine, tflops=0.0))
    assert analyze(read([tmp_path])).answer["scaling"] == []


def test_without_a_known_machine_there_is_no_share_of_peak(tmp_path: Path) -> None:
    found = of_log(tmp_path, [2.0] * 6)
    assert (found["mfu"], found["machine"]) == (None, None)
    assert any("add --machine" in warning for warning in found["warnings"])
    named = of_log(tmp_path, [2.0] * 6, "frontier")
    assert named["mfu"] == pytest.approx(named["model_flops_per_s_per_device"] / 191.5e12)
    own = of_log(tmp_path, [2.0] * 6, "frontier", extra=[LUMI])
    assert own["machine"] == "lumi-g", "what the log names counts more"


def test_our_own_runs_have_the_figures_of_their_records(tmp_path: Path) -> None:
    spec = run_spec(nodes=2, devices=2, training={"global_batch_size": 8})
    folder = logs.write_run(tmp_path / "run", [3.0, *([2.0] * 9)], spec)
    (found,) = analyze(read([folder])).answer["runs"]
    assert found["tokens_per_s_per_device"] == pytest.approx(8 * 16 / 2.0 / 4)
    assert found["bytes_per_step"] == {"package": 1.0, "node": 2.0, "network": 3.0}
    assert found["communication"]["share"] == pytest.approx(0.1)
    assert found["parts_s"] == pytest.approx(
        {"computing and bubble": 1.4, "communication not hidden": 0.2, "optimizer": 0.4}
    )
    assert found["memory_bytes"] == 1000
    assert found["predicted"]["peak_memory_bytes_per_device"] > 0
    assert found["mfu"] is None, "the peak of the device is unknown"
