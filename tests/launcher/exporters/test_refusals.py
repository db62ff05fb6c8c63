"""``export`` of models that a trainer would build as another one, and the files of Megatron-DeepSpeed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from frontrunner.configs.errors import SpecError
from frontrunner.launcher.commands.export import export

QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "max_position_embeddings": 131072,
    "model_type": "qwen2",
    "num_attention_heads": 12,
    "num_hidden_layers": 28,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
    "vocab_size": 151936,
}
RUN = """
model: {model}
machine: frontier
nodes: 1
layout: {{sharding: {{preset: zero1}}}}
training: {{seq_len: 1024, global_batch_size: 64}}
data: synthetic
"""
SMALL = (
    "{num_layers: 4, hidden_size: 256, num_heads: 4, vocab_size: 32000, max_position_embeddings: 1024,"
    " activation: %s, linear_bias: %s}"
)


def exported(capsys: pytest.CaptureFixture[str], to: str, run: str, *overrides: str) -> str:
    export(run, to, list(overrides), as_json=True)
    return str(json.loads(capsys.readouterr().out)["text"])


def run_file(folder: Path, model: str) -> str:
    (folder / "config.json").write_text(json.dumps(QWEN2))
    (folder / "run.yaml").write_text(RUN.format(model=model))
    return str(folder / "run.yaml")


@pytest.mark.parametrize(
    ("to", "model", "said"),
    [
        (
            "gpt-neox",
            "config.json",
            "model.qkv_bias = true: not supported by GPT-NeoX: it has biases in query, key, value and output "
            "projection alike (use_bias_in_attn_linear), but here linear_bias is false; use false",
        ),
        (
            "megatron",
            SMALL % ("gelu_tanh", "false"),
            'model.activation = "gelu_tanh": not supported by Megatron-LM: without biases it builds the '
            'exact GELU; the tanh approximation is only in its kernel that adds a bias; use "gelu"',
        ),
        (
            "gpt-neox",
            SMALL % ("gelu_tanh", "false"),
            "model.linear_bias = false: not supported by GPT-NeoX: its MLP adds a bias to what gelu_tanh "
            "reads, and stops where there is none; set model.linear_bias and model.qkv_bias to true",
        ),
    ],
)
def test_another_model_is_refused(tmp_path: Path, to: str, model: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        export(run_file(tmp_path, model), to)
    assert [str(replace(violation, file=None)) for violation in caught.value.violations] == [said]


@pytest.mark.parametrize(
    ("activation", "bias", "flag"),
    [("gelu", "true", True), ("gelu", "false", True), ("gelu_tanh", "true", False)],
)
def test_megatron_gets_the_right_gelu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], activation: str, bias: str, flag: bool
) -> None:
    text = exported(capsys, "megatron", run_file(tmp_path, SMALL % (activation, bias)))
    assert ("--no-bias-gelu-fusion" in text.split()) is flag


def test_megatron_deepspeed(capsys: pytest.CaptureFixture[str]) -> None:
    """DeepSpeed's file in a here-document, then arguments; batch and clipping are DeepSpeed's there."""
    text = exported(capsys, "megatron-deepspeed", "gpt-175b-frontier")
    first, _, rest = text.partition("{")
    file, _, command = rest.partition("\nEND\n")
    assert first == "cat > ds_config.json <<'END'\n"
    found = json.loads("{" + file)
    assert found == {
        "train_batch_size": 640,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": found["gradient_accumulation_steps"],
        "zero_optimization": {"stage": 1},
        "gradient_clipping": 1.0,
        "fp16": {"enabled": True, "loss_scale": 0},
    }
    lines = command.split(" \\\n  ")
    assert lines[0] == "pretrain_gpt.py"
    for expected in (
        "--num-key-value-heads 96",
        "--normalization layernorm",
        "--deepspeed",
        "--deepspeed_config ds_config.json",
        "--zero-stage 1",
        "--pipeline-model-parallel-size 16",
        "--deepspeed-activation-checkpointing",
        "--fp16",
    ):
        assert expected in lines
    assert "--no-pipeline-parallel" not in lines
    alone = exported(
        capsys, "megatron-deepspeed", "gpt-22b-frontier", "layout.pipeline=1", "layout.sharding.preset=zero3"
    )
    assert "--no-pipeline-parallel" in alone.split()
    assert '"stage": 3' in alone
