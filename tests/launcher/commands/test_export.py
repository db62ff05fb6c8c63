"""``export``: whole outputs for each trainer, and what is refused."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from frontrunner.configs.errors import SpecError
from frontrunner.launcher.commands.export import export

PLAIN = "layout.sharding.wire={weights: bfloat16, gradients: bfloat16, network: bfloat16}"
LLAMA = ("llama-2-7b-lumi", "model=llama-3-8b", "layout.sequence_parallel=true")
# As torchtitan's models are.
SCALED = (*LLAMA, "model.rotary_scaling_factor=8")


def exported(capsys: pytest.CaptureFixture[str], to: str, run: str, *overrides: str) -> str:
    export(run, to, list(overrides), as_json=True)
    return str(json.loads(capsys.readouterr().out)["text"])


@pytest.mark.parametrize(("to", "noted"), [("megatron", True), ("torchtitan", False)])
def test_compiled_layers_are_asked_for_or_noted(
    capsys: pytest.CaptureFixture[str], to: str, noted: bool
) -> None:
    overrides = [*SCALED[1:], "layout.sharding=hsdp", PLAIN, "training.compile=true"]
    run = SCALED[0]
    if to == "megatron":
        run, overrides = "gpt-175b-frontier", ["training.compile=true"]
    export(run, to, overrides, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert any("training.compile is left out" in note for note in found["notes"]) is noted
    assert ("[compile]" in found["text"]) is not noted


def test_megatron_gets_every_argument(capsys: pytest.CaptureFixture[str]) -> None:
    text = exported(capsys, "megatron", "gpt-175b-frontier", "layout.virtual_stages=2")
    assert text.split(" \\\n  ") == [
        "pretrain_gpt.py",
        "--num-layers 96",
        "--hidden-size 12288",
        "--ffn-hidden-size 49152",
        "--num-attention-heads 96",
        "--kv-channels 128",
        "--max-position-embeddings 2048",
        "--make-vocab-size-divisible-by 12672",
        "--vocab-size 50256",
        "--norm-epsilon 1e-05",
        "--init-method-std 0.02",
        "--attention-dropout 0.0",
        "--hidden-dropout 0.0",
        "--tensor-model-parallel-size 4",
        "--pipeline-model-parallel-size 16",
        "--micro-batch-size 1",
        "--global-batch-size 640",
        "--num-virtual-stages-per-pipeline-rank 2",
        "--recompute-granularity full",
        "--recompute-method uniform",
        "--recompute-num-layers 1",
        "--use-distributed-optimizer",
        "--overlap-grad-reduce",
        "--overlap-param-gather",
        "--seq-length 2048",
        "--train-iters 100",
        "--seed 1234",
        "--optimizer adam",
        "--lr 6e-05",
        "--min-lr 6e-06",
        "--lr-decay-style cosine",
        "--lr-warmup-iters 10",
        "--lr-decay-iters 100",
        "--adam-beta1 0.9",
        "--adam-beta2 0.95",
        "--adam-eps 1e-08",
        "--weight-decay 0.1",
        "--clip-grad 1.0",
        "--mock-data",
        "--tokenizer-type NullTokenizer",
        "--fp16",
    ]


@pytest.mark.parametrize(
    ("run", "overrides", "rows"),
    [
        ("gpt-175b-frontier", ["layout.tensor=1", "nodes=32"], 50688),
        ("gpt-175b-frontier", ["layout.tensor=8", "nodes=32"], 50688),
        # Without a spare row: one token more would double them.
        ("llama-2-7b-lumi", [], 32000),
    ],
)
def test_megatron_pads_the_vocabulary_to_the_models_rows(
    capsys: pytest.CaptureFixture[str], run: str, overrides: list[str], rows: int
) -> None:
    text = exported(capsys, "megatron", run, *overrides)

    def value(option: str) -> int:
        return int(text.split(f"{option} ")[1].split()[0])

    divisor = value("--make-vocab-size-divisible-by") * value("--tensor-model-parallel-size")
    tokens = value("--vocab-size") + 1  # NullTokenizer's own
    assert -(-tokens // divisor) * divisor == rows


def test_megatron_and_llama(capsys: pytest.CaptureFixture[str]) -> None:
    text = exported(capsys, "megatron", *LLAMA, "layout.sharding.preset=zero3")
    for expected in (
        "--group-query-attention",
        "--num-query-groups 8",
        "--position-embedding-type rope",
        "--swiglu",
        "--normalization RMSNorm",
        "--untie-embeddings-and-output-weights",
        "--disable-bias-linear",
        "--sequence-parallel",
        "--use-megatron-fsdp",
        "--data-parallel-sharding-strategy optim_grads_params",
        "--bf16",
    ):
        assert f"  {expected}" in text


def test_deepspeed(capsys: pytest.CaptureFixture[str]) -> None:
    base = ("gpt-22b-frontier", "layout.pipeline=1", "training.precision=bfloat16")
    found = json.loads(exported(capsys, "deepspeed", *base, "layout.sharding.preset=zeropp"))
    assert found["zero_optimization"] == {
        "stage": 3,
        "overlap_comm": True,
        "contiguous_gradients": True,
        "zero_hpz_partition_size": 8,
        "zero_quantized_weights": True,
        "zero_quantized_gradients": True,
    }
    micro, steps = found["train_micro_batch_size_per_gpu"], found["gradient_accumulation_steps"]
    assert found["train_batch_size"] == 640 == micro * steps * 16
    assert found["bf16"] == {"enabled": True}


def test_deepspeed_reads_its_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DeepSpeed's own model of the section knows each key."""
    base = ("gpt-22b-frontier", "layout.pipeline=1", "training.precision=bfloat16")
    found = json.loads(exported(capsys, "deepspeed", *base, "layout.sharding.preset=zeropp"))
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    DeepSpeedZeroConfig = pytest.importorskip("deepspeed.runtime.zero.config").DeepSpeedZeroConfig
    section = DeepSpeedZeroConfig(**found["zero_optimization"])
    assert section.zero_hpz_partition_size == 8
    assert set(found["zero_optimization"]) <= set(DeepSpeedZeroConfig.model_fields)


@pytest.mark.parametrize(("decay", "name"), [("cosine", "WarmupCosineLR"), ("constant", "WarmupLR")])
def test_deepspeed_warms_up_as_we_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, decay: str, name: str
) -> None:
    """Its own schedule gives our learning rates, of which the default would be those of a logarithm."""
    overrides = ("layout.pipeline=1", "training.steps=30", f"optimizer.decay={decay}")
    found = json.loads(exported(capsys, "deepspeed", "gpt-22b-frontier", *overrides))["scheduler"]
    assert found["type"] == name
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    schedules = pytest.importorskip("deepspeed.runtime.lr_schedules")
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=6e-5)
    schedule = getattr(schedules, name)(optimizer, **found["params"])
    rates = []
    for _ in range(30):
        schedule.step()
        rates.append(optimizer.param_groups[0]["lr"])
    half = rates.index(min(rates[:10], key=lambda rate: abs(rate - 3e-5)))
    assert 4 <= half <= 6
    assert max(rates) == pytest.approx(6e-5, rel=0.02)


def test_gpt_neox(capsys: pytest.CaptureFixture[str]) -> None:
    found = yaml.safe_load(exported(capsys, "gpt-neox", "gpt-175b-frontier"))
    assert found["pipe_parallel_size"] == 16
    assert found["model_parallel_size"] == 4
    assert found["zero_optimization"]["stage"] == 1
    assert found["checkpoint_activations"] is True
    assert found["fp16"] == {"enabled": True, "loss_scale": 0}
    assert found["warmup"] == 0.1
    assert found["init_method_std"] == 0.02
    longer = exported(capsys, "gpt-neox", "gpt-175b-frontier", "optimizer.decay_steps=200")
    assert yaml.safe_load(longer)["warmup"] * yaml.safe_load(longer)["lr_decay_iters"] == 10
    llama = yaml.safe_load(exported(capsys, "gpt-neox", *LLAMA))
    assert int(llama["intermediate_size"] * 2 / 3) == 2 * 14336  # as GPT-NeoX works out a gated MLP
    assert llama["norm"] == "rmsnorm"


def test_torchtitan(capsys: pytest.CaptureFixture[str]) -> None:
    found = tomllib.loads(exported(capsys, "torchtitan", *SCALED, "layout.sharding.preset=hsdp", "nodes=4"))
    assert found["model"] == {"name": "llama3", "flavor": "8B"}
    parallel = found["parallelism"]
    assert parallel["data_parallel_shard_degree"] == 4  # of a node, with tensor 2
    assert parallel["data_parallel_replicate_degree"] == 4
    assert parallel["tensor_parallel_degree"] == 2
    assert found["training"]["seq_len"] == 4096
    assert found["lr_scheduler"]["decay_type"] == "cosine"


def test_torchtitan_cuts_layers_evenly(capsys: pytest.CaptureFixture[str]) -> None:
    zero = ("layout.sharding.preset=zero2", "layout.pipeline=2", "layout.virtual_stages=2")
    parallel = tomllib.loads(exported(capsys, "torchtitan", *SCALED, *zero))["parallelism"]
    ends = sum(parallel[f"pipeline_parallel_{end}_stage_less_layers"] for end in ("first", "last"))
    # As torchtitan counts: all that is to be cut over the layers of a virtual stage.
    assert -(-(32 + ends) // parallel["pipeline_parallel_layers_per_stage"]) == 4


@pytest.mark.parametrize(
    ("to", "overrides", "path", "said"),
    [
        (
            "deepspeed",
            ["layout.pipeline=1", "layout.sharding.preset=three_level"],
            "preset",
            "no separate degrees",
        ),
        (
            "deepspeed",
            ["layout.pipeline=1", "layout.tensor=2", "layout.sharding.preset=zeropp"],
            "tensor",
            "hpZ groups",
        ),
        ("deepspeed", ["layout.sharding.preset=zero2"], "pipeline", "do not combine"),
        ("deepspeed", ["optimizer.warmup_steps=0"], "warmup_steps", "at least one warm-up step"),
        ("deepspeed", ["layout.virtual_stages=2"], "virtual_stages", "no interleaved"),
        ("megatron", ["layout.sharding.preset=three_level"], "preset", "cannot shard weights"),
        (
            "megatron",
            ["layout.pipeline=1", "layout.sharding.preset=zeropp"],
            "wire.weights",
            "does not quantise",
        ),
        (
            "megatron",
            ["layout.pipeline=1", "layout.sharding.preset=zeropp", PLAIN],
            "secondary",
            "no second copy",
        ),
        ("megatron", ["layout.sharding.preset=zero3"], "pipeline", "does not work with pipeline"),
        (
            "megatron",
            ["model=gpt-neox-20b", "layout.pipeline=4"],
            "parallel_residual",
            "always runs after attention",
        ),
        ("megatron-deepspeed", ["layout.virtual_stages=2"], "virtual_stages", "no interleaved"),
        ("megatron-deepspeed", ["layout.sharding.preset=zero2"], "pipeline", "do not work with its pipeline"),
        ("megatron-deepspeed", ["layout.sharding.preset=hsdp"], "preset", "cannot shard weights"),
        (
            "megatron-deepspeed",
            ["model=llama-2-7b", "layout.pipeline=4", "layout.tensor=1"],
            "model.position_embedding",
            "cosine of each angle",
        ),
        ("gpt-neox", ["layout.virtual_stages=2"], "virtual_stages", "no interleaved"),
        ("gpt-neox", ["layout.recompute=selective"], "recompute", "whole layers"),
        ("gpt-neox", ["layout.sharding.preset=hsdp"], "preset", "cannot shard weights"),
        ("torchtitan", ["layout.sharding.preset=zero3"], "model", "none with num_layers 48"),
        (
            "torchtitan",
            ["layout.sharding.preset=zero3", "model=llama-3-8b", "layout.pipeline=1"],
            "model.rotary_scaling_factor",
            "its 8B has 8.0",
        ),
        ("torchtitan", ["layout.sharding.preset=zero1"], "preset", "cannot shard weights"),
        ("torchtitan", ["optimizer.decay_steps=200"], "decay_steps", "ends at the last step"),
        ("megatron-lm", [], "--to", "is not a known trainer"),
    ],
)
def test_what_a_trainer_cannot_express(to: str, overrides: list[str], path: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        export("gpt-22b-frontier", to, ["nodes=16", *overrides])
    found = [(violation.path, violation.constraint) for violation in caught.value.violations]
    assert any(path in where and said in what for where, what in found), found


def test_a_file_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "neox.yml"
    export("gpt-175b-frontier", "gpt-neox", output=file)
    found: Any = yaml.safe_load(file.read_text())
    assert found["num_layers"] == 96
    shown = capsys.readouterr()
    assert shown.out == f"wrote {file}\n"
    assert "add data_path" in shown.err
