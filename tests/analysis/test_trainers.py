"""Logs of trainers that do not descend from Megatron: what is read, what is derived, and what is unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from frontrunner.analysis.analyze import analyze
from frontrunner.analysis.importers import torchtitan
from frontrunner.analysis.importers.values import Lost, grouped, scaled
from frontrunner.analysis.read import read
from frontrunner.analysis.report.page import page
from frontrunner.configs.errors import SpecError
from support import logs, trainer_logs
from support.trainer_logs import FLOPS_PER_TOKEN, MATRIX_FLOPS_PER_TOKEN

GIB = 2**30
LAYOUT = ("tensor", "pipeline", "data", "micro_batch_size", "grad_accum_steps", "recompute", "sharding")


def of(folder: Path, lines: list[str] | str, machine: str | None = "lumi-g") -> dict[str, Any]:
    path = folder / "log.out"
    path.write_text(lines if isinstance(lines, str) else "\n".join(lines))
    (found,) = analyze(read([path]), machine).answer["runs"]
    return dict(found)


def steps(folder: Path, lines: list[str]) -> list[dict[str, Any]]:
    path = folder / "log.out"
    path.write_text("\n".join(lines))
    return read([path]).steps.to_dicts()


@pytest.mark.parametrize("as_json", [False, True])
def test_torchtitan(tmp_path: Path, as_json: bool) -> None:
    found = of(tmp_path, trainer_logs.titan_log(as_json=as_json))
    assert (found["format"], found["devices"], found["planned_steps"]) == ("torchtitan", 8, 100)
    assert [found["layout"].get(key) for key in LAYOUT] == [
        2,
        1,
        4,
        4,
        1,
        "none",
        "fsdp",
    ]
    assert (found["global_batch_size"], found["seq_len"], found["precision"]) == (16, 128, "bfloat16")
    assert (found["step_time_s"], found["tokens_per_s_per_device"]) == (2.0, 128)
    assert found["memory_bytes"] == pytest.approx(34.56 * GIB)
    assert (found["first_loss"], found["last_loss"]) == (8.99, 8.94)
    assert found["model"]["ffn_hidden_size"] == 768
    assert found["printed_flops_per_s_per_device"] == pytest.approx(128 * FLOPS_PER_TOKEN, rel=1e-4)
    assert found["model_flops_per_s_per_device"] == pytest.approx(128 * MATRIX_FLOPS_PER_TOKEN)
    assert found["hardware_flops_per_s_per_device"] == found["model_flops_per_s_per_device"]
    assert found["flop_convention"] == "model"
    assert (found["flags"], found["not_known"]) == ([], {})
    assert found["not_predicted"] == "the planner does not know how torchtitan spends its time"


def test_torchtitan_rounds_its_mlp_as_it_builds_it(tmp_path: Path) -> None:
    """Llama 3 8B: 1.3 x 8/3 of 4,096, up to a multiple of 1,024."""
    args = "dim=4096, n_layers=32, n_heads=32, n_kv_heads=8, vocab_size=128256, multiple_of=1024, "
    lines = [
        trainer_logs.titan(f"Building llama3 8B with TransformerModelArgs({args}ffn_dim_multiplier=1.3)"),
        *map(trainer_logs.titan_step, range(1, 7)),
    ]
    model = of(tmp_path, lines)["model"]
    assert (model["ffn_hidden_size"], model["num_kv_heads"]) == (14336, 8)
    assert model["parameters"] == 8_030_261_248  # what torchtitan prints for it


@pytest.mark.parametrize(
    ("line", "values"),
    [
        (
            "step:  1  loss: 12.2  memory:  9.5GiB(11.9%)  wps: 1,190  mfu: 10.00%",
            (1, 12.2, 1190, 31.2e12),
        ),
        (
            "step: 20  loss:  nan  memory: 1.0GiB(1.0%)  tps: 7  tflops: 1.5  mfu: N/A",
            (20, None, 7, 1.5e12),
        ),
    ],
)
def test_torchtitan_versions(line: str, values: tuple[Any, ...]) -> None:
    """Until August 2024 with other names, and since February 2026 without a peak for 8-bit products."""
    found = torchtitan.step(line, peak=312e12)
    names = ("step", "loss", "tokens_per_s_per_device", "printed_flops_per_s")
    assert tuple(found[name] for name in names) == pytest.approx(values)


def test_torchtitan_without_its_configuration_has_a_speed_and_no_step_time(tmp_path: Path) -> None:
    lines = [trainer_logs.titan_step(step, 2.0 if step > 3 else 20.0) for step in range(1, 12)]
    found = of(tmp_path, lines)
    assert (found["step_time_s"], found["tokens_per_s_per_device"]) == (None, 128)
    assert "the log lacks its devices" in found["not_known"]["step_time_s"]
    assert f"there is no step time: {found['not_known']['step_time_s']}" in found["warnings"]
    assert found["steady"]["warm_up"] == 3  # judged by tokens/s


def test_what_is_no_dense_decoder_has_no_model(tmp_path: Path) -> None:
    for replaced in (("llama3 8B", "deepseek_v3 16B"), ("n_kv_heads=None", "moe_args=1")):
        lines = [line.replace(*replaced) for line in trainer_logs.titan_log()]
        found = of(tmp_path, lines)
        assert (found["model"], found["mfu"], found["tokens_per_s_per_device"]) == (None, None, 128)
        assert "unsupported" in found["flags"]
        assert found["printed_flops_per_s_per_device"]


def test_validation_is_no_step(tmp_path: Path) -> None:
    line = trainer_logs.titan("validate step: 6  loss:  7.0000  memory: 1.00GiB(1.00%)  tps: 9")
    assert of(tmp_path, [*trainer_logs.titan_log(), line])["last_loss"] == 8.94


def test_a_later_start_without_steps_changes_nothing(tmp_path: Path) -> None:
    again = trainer_logs.titan("Building 1-D device mesh with ['dp_shard'], [64]")
    found = of(tmp_path, [*trainer_logs.titan_log(), again])
    assert (found["devices"], found["steady"]["steady"]) == (8, 5)
    found = of(tmp_path, [*trainer_logs.titan_log(), again, *map(trainer_logs.titan_step, range(7, 12))])
    assert (found["devices"], found["steady"]["other_layout"]) == (64, 6)


def test_nanotron(tmp_path: Path) -> None:
    found = of(tmp_path, trainer_logs.nanotron_log())
    assert (found["format"], found["devices"], found["planned_steps"]) == ("nanotron", 8, 100)
    assert [found["layout"][key] for key in LAYOUT] == [2, 1, 4, 2, 2, "none", "zero1"]
    assert found["layout"]["sequence_parallel"]
    assert (found["step_time_s"], found["global_batch_size"], found["seq_len"]) == (2.0, 16, 128)
    assert found["memory_bytes"] == GIB
    assert (found["precision"], found["last_loss"]) == ("bfloat16", 8.94)
    assert found["printed_flops_per_s_per_device"] == pytest.approx(128 * MATRIX_FLOPS_PER_TOKEN, rel=5e-3)
    assert found["expected_flops_per_s_per_device"] == pytest.approx(128 * MATRIX_FLOPS_PER_TOKEN)
    assert (found["flags"], found["not_known"]) == ([], {})


def test_nanotron_of_2024(tmp_path: Path) -> None:
    """The batch counts sequences, and the gradient norm comes last."""
    line = (
        "08/31/2024 14:37:31 [INFO|DP=0|PP=0|TP=0]: iteration: 2 / 15 | consumed_tokens: 1.02K | "
        "elapsed_time_per_iteration_ms: 11.8 | tokens_per_sec: 43.2K | tokens_per_sec_per_gpu: 43.2K | "
        "global_batch_size: 2 | lm_loss: 5.29 | lr: 0.0003 | model_tflops_per_gpu: 0.00744 | "
        "hardware_tflops_per_gpu: 0.00744 | grad_norm: 3.29 | hd_total_memory_tb: 2.13T"
    )
    (found,) = steps(tmp_path, [line])
    assert (found["step"], found["gradient_norm"], found["tokens_per_s_per_device"]) == (2, 3.29, 43200)
    assert (found["step_time_s"], found["printed_flops_per_s"]) == pytest.approx((0.0118, 7.44e9))
    assert found["global_batch_size"] is None


def test_olmo_core(tmp_path: Path) -> None:
    found = of(tmp_path, trainer_logs.olmo_log())
    assert (found["format"], found["layout"], found["planned_steps"]) == ("olmo-core", {"data": 8}, 100)
    assert (found["step_time_s"], found["tokens_per_s_per_device"]) == (2.0, 128)
    assert found["printed_flops_per_s_per_device"] == pytest.approx(128 * FLOPS_PER_TOKEN, rel=1e-3)
    assert found["memory_bytes"] == pytest.approx(34.56 * GIB)
    assert found["last_loss"] == 8.94
    assert "data-parallel ranks only" in found["not_known"]["devices"]
    assert (found["model"], found["mfu"], found["devices"]) == (None, None, None)
    first = steps(tmp_path, trainer_logs.olmo_log())[0]
    assert (first["learning_rate"], first["gradient_norm"]) == (3e-4, 1.234)


def test_olmo_core_before_2026_has_a_share_of_a_peak(tmp_path: Path) -> None:
    lines = [line.replace("flopsPS=", "MFU=").replace("B", "") for line in trainer_logs.olmo_step(2)]
    metric = next(index for index, line in enumerate(lines) if "/MFU=" in line)
    lines[metric] = "    throughput/device/MFU=25.00"
    named = "INFO Device: AMD Instinct MI300X, Device peak FLOPS: 312000000000000"
    assert steps(tmp_path, [named, *lines])[0]["printed_flops_per_s"] == 78e12
    assert steps(tmp_path, lines)[0]["printed_flops_per_s"] is None


def test_olmo(tmp_path: Path) -> None:
    lines = """2024-08-06 10:00:05.520 node:0  olmo.train:908  INFO    [step=2/739328,epoch=0]
    optim/total_grad_norm=0.0002
    train/CrossEntropyLoss=1.7872662283480167e-06
    throughput/device/tokens_per_second=26,668
    throughput/device/batches_per_second=0.0254
    System/Peak GPU Memory (MB)=53,695""".splitlines()
    (found,) = steps(tmp_path, lines)
    assert (found["loss"], found["tokens_per_s_per_device"]) == (1.7872662283480167e-06, 26668)
    assert (found["step_time_s"], found["peak_memory_bytes"]) == (pytest.approx(1 / 0.0254), 53.695e9)
    assert of(tmp_path, lines)["format"] == "olmo"


def test_llm_foundry(tmp_path: Path) -> None:
    found = of(tmp_path, trainer_logs.composer_log())
    assert (found["format"], found["devices"], found["nodes"]) == ("llm-foundry", 8, 1)
    assert [found["layout"][key] for key in LAYOUT] == [1, 1, 8, 2, 1, "none", "full_shard"]
    assert (found["step_time_s"], found["tokens_per_s_per_device"]) == (2.0, 128)
    assert (found["global_batch_size"], found["seq_len"], found["precision"]) == (16, 128, "bfloat16")
    assert (found["memory_bytes"], found["last_loss"]) == (34.56e9, 8.94)
    matrices = 4 * (4 * 256 * 256 + 2 * 256 * 1024) + 512 * 256
    assert found["model_flops_per_s_per_device"] == 128 * (6 * matrices + 12 * 4 * 256 * 128)
    assert found["flags"] == []


def test_llm_foundry_derives_what_the_configuration_would_say(tmp_path: Path) -> None:
    """Devices from two speeds, the batch from two counters, the step from an epoch's batch."""
    lines = [line for step in range(2, 7) for line in trainer_logs.composer_step(step, 300.0)]
    found = of(tmp_path, [line.replace("[batch", "[epoch=1][batch") for line in lines])
    assert (found["devices"], found["global_batch_size"], found["last_step"]) == (8, 16, 6)
    assert found["step_time_s"] == pytest.approx(300, rel=1e-3)  # 1 / 0.0033 would be 303


def test_nemo(tmp_path: Path) -> None:
    found = of(tmp_path, trainer_logs.nemo_log())
    assert (found["format"], found["devices"], found["planned_steps"]) == ("nemo", 8, 100)
    assert (found["step_time_s"], found["last_step"], found["global_batch_size"]) == (2.0, 6, 16)
    assert (found["memory_bytes"], found["last_loss"]) == (GIB, 8.94)
    assert found["printed_flops_per_s_per_device"] == 865.7e12
    assert found["flop_convention"] == "model, half of attention"
    assert "no sequence length" in found["not_known"]["tokens_per_s_per_device"]


def test_nemo_progress_bar(tmp_path: Path) -> None:
    found = of(tmp_path, "\r".join(map(trainer_logs.nemo_bar, range(1, 7))))
    assert (found["format"], found["steps"], found["last_step"]) == ("nemo", 6, 6)
    assert (found["step_time_s"], found["last_loss"], found["lost_lines"]) == (2.0, 8.94, 0)


@pytest.mark.parametrize("quoted", [False, True])
def test_hugging_face(tmp_path: Path, quoted: bool) -> None:
    lines = trainer_logs.hugging_face_log()
    lines[7:13] = [trainer_logs.hugging_face_step(step, quoted=quoted) for step in range(1, 7)]
    found = of(tmp_path, lines)
    assert (found["format"], found["steps"], found["last_step"]) == ("hugging-face", 6, 6)
    assert (found["planned_steps"], found["global_batch_size"]) == (100, 16)
    assert found["layout"] == {"data": 8, "micro_batch_size": 2, "grad_accum_steps": 1}
    assert (found["step_time_s"], found["last_loss"]) == (2.0, 8.94)
    assert (found["tokens_per_s_per_device"], found["devices"]) == (None, None)
    assert {"tokens_per_s_per_device", "devices", "model", "seq_len"} <= found["not_known"].keys()


def test_hugging_face_without_a_progress_bar(tmp_path: Path) -> None:
    lines = [line.split("\r")[-1] for line in trainer_logs.hugging_face_log() if "shards" not in line]
    found = of(tmp_path, lines)
    assert (found["steps"], found["last_step"], found["step_time_s"]) == (6, 6, None)
    assert found["not_known"]["step_time_s"] == (
        "the log has no progress bar; over the whole run, all else included, it is 2 s"
    )


def test_trainer_state_is_read_once_where_there_are_checkpoints(tmp_path: Path) -> None:
    for name in ("checkpoint-500", "checkpoint-1000"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text(trainer_logs.trainer_state())
    (found,) = analyze(read([tmp_path])).answer["runs"]
    assert (found["id"], found["format"], found["steps"]) == ("checkpoint-1000", "hugging-face", 6)
    assert (found["last_step"], found["planned_steps"], found["last_loss"]) == (60, 100, 8.94)
    assert "it is 2 s" in found["not_known"]["step_time_s"]
    (tmp_path / "trainer_state.json").write_text(trainer_logs.trainer_state())
    assert [run.id for run in read([tmp_path]).runs] == [tmp_path.name]


def test_a_cut_trainer_state_keeps_its_whole_records(tmp_path: Path) -> None:
    path = tmp_path / "trainer_state.json"
    text = trainer_logs.trainer_state()
    path.write_text(text[: text.index('"step": 40')])
    found = read([path])
    assert (found.steps["step"].to_list(), found.runs[0].lost_lines) == ([10, 20, 30], 1)


def test_megatron_bridge(tmp_path: Path) -> None:
    summary = """Configuration Summary (Non-Default Values vs Megatron Core)
[model] Non-default values (vs Mcore TransformerConfig):
  tensor_model_parallel_size: 2  (Mcore default: 1)
  bf16: True  (Mcore default: False)
[train]:
  global_batch_size: 16
  micro_batch_size: 2""".splitlines()
    speed = "Step Time : 2.00s GPU utilization: 91.5MODEL_TFLOP/s/GPU"
    printed = "throughput per GPU (TFLOP/s/GPU): 91.0 | "
    plain = [logs.megatron_step(step, 2.0).replace(printed, "") for step in range(1, 7)]
    lines = [each for line in plain for each in (speed, line)]
    found = of(tmp_path, [*summary, *lines])
    assert (found["format"], found["printed_flops_per_s_per_device"]) == ("megatron-bridge", 91.5e12)
    assert (found["layout"]["tensor"], found["layout"]["micro_batch_size"]) == (2, 2)
    assert (found["precision"], found["global_batch_size"]) == ("bfloat16", 16)


def test_the_format_is_that_of_most_steps(tmp_path: Path) -> None:
    titan, primus = trainer_logs.titan_log(), [logs.primus_step(step, 2.0) for step in range(1, 10)]
    assert of(tmp_path, [*titan, *primus])["format"] == "primus"
    assert of(tmp_path, [*titan, *primus[:5]])["format"] == "torchtitan"


@pytest.mark.parametrize("trainer", trainer_logs.LOGS)
def test_every_format_has_a_page_and_a_reason_for_each_gap(tmp_path: Path, trainer: str) -> None:
    path = tmp_path / "log.out"
    path.write_text("\n".join(trainer_logs.LOGS[trainer]()))
    analysis = analyze(read([path]))
    (found,) = analysis.answer["runs"]
    for key in ("step_time_s", "tokens_per_s_per_device", "model", "devices", "seq_len", "global_batch_size"):
        assert found[key] is not None or found["not_known"][key], key
    assert "".join(page(analysis))


@pytest.mark.parametrize("trainer", trainer_logs.LOGS)
def test_steps_that_cannot_be_read_are_not_denied(tmp_path: Path, trainer: str) -> None:
    first = {"olmo-core": "[step=", "llm-foundry": "[batch="}.get(trainer)
    lines = [line for line in trainer_logs.LOGS[trainer]() if first is None or first in line]
    path = tmp_path / "log.out"
    cut = 40 if trainer == "nanotron" else 6  # its last field is not read
    path.write_text("\n".join(line[:-cut] if first is None else line[:-1] + "#" for line in lines))
    with pytest.raises(SpecError, match="lines look like training steps|no line of a training step"):
        read([path])


@pytest.mark.parametrize("printed", ["1,23", "12,", "1e5,000", "１２", "0x10", "1_000", "", "K", "1.2KK"])
def test_what_is_no_number_is_lost(printed: str) -> None:
    for parse in (grouped, scaled):
        with pytest.raises(Lost):
            parse(printed)


@pytest.mark.parametrize(
    ("printed", "value"),
    [("1,234,567", 1234567), ("8.79K", 8790), ("1.04T", 1.04e12), ("3.00E-04", 3e-4), ("2E", 2e18)],
)
def test_numbers_with_suffixes(printed: str, value: float) -> None:
    assert scaled(printed) == pytest.approx(value)
