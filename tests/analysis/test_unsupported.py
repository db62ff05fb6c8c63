"""What a log's arguments say of a run that figures for a dense decoder would get wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from frontrunner.analysis.analyze import analyze
from frontrunner.analysis.read import read
from support import logs

FLOPS = ("model_flops_per_s_per_device", "hardware_flops_per_s_per_device", "mfu", "hfu")
#: GPT-NeoX's own keys for a small Llama: width 3 x 1024 / 3, 2 of 4 heads for keys and values, no tying.
NEOX_LLAMA = logs.NEOX | {
    "activation": "swiglu",
    "attention_config": "['flash', 'flash', 'flash', 'flash']",
    "checkpoint_activations": False,
    "intermediate_size": 3072,
    "num_kv_heads": 2,
    "norm": "rmsnorm",
    "no_weight_tying": True,
    "pos_emb": "rotary",
}


def of_log(folder: Path, text: str, machine: str | None = "lumi-g") -> dict[str, Any]:
    (folder / "log.out").write_text(text)
    (found,) = analyze(read([folder / "log.out"]), machine).answer["runs"]
    return dict(found)


def of_neox(folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    table = logs.argument_lines(arguments, "........updated")
    return of_log(folder, "\n".join([*table, *(logs.neox_step(step, 2.0) for step in range(1, 7))]))


@pytest.mark.parametrize(
    ("name", "value", "unknown"),
    [
        ("num_experts", 8, ("model", *FLOPS, "predicted")),
        ("num_experts", "[64]", ("model", *FLOPS, "predicted")),
        ("multi_latent_attention", True, ("model", *FLOPS, "predicted")),
        ("mtp_num_layers", 1, ("model", *FLOPS, "predicted")),
        ("hybrid_override_pattern", "M-M*-", ("model", *FLOPS, "predicted")),
        ("window_size", "(4096, 0)", (*FLOPS, "predicted")),
        ("context_parallel_size", 2, ("predicted",)),
        ("decoder_first_pipeline_num_layers", 3, ("predicted",)),
        ("num_experts", "None", ()),
        ("num_experts", "[1]", ()),
        ("expert_model_parallel_size", 1, ()),
        ("window_size", "None", ()),
        ("multi_latent_attention", False, ()),
    ],
)
def test_an_argument_that_is_not_supported_blanks_what_it_changes(
    tmp_path: Path, name: str, value: object, unknown: tuple[str, ...]
) -> None:
    """And nothing else: the speed in tokens stays."""
    found = of_log(tmp_path, logs.deepspeed_log([2.0] * 6, {name: value}))
    assert found["tokens_per_s_per_device"] == 16 * 128 / 2.0 / 8
    assert {key for key in ("model", *FLOPS, "predicted") if found[key] is None} == set(unknown)
    assert set(found["not_known"]) - {"expected_flops_per_s_per_device"} == set(unknown)
    assert ("unsupported" in found["flags"]) == bool(unknown)
    assert all(f"{name} = {value}" in reason for reason in found["not_known"].values())


def test_context_parallel_ranks_are_not_data_parallel(tmp_path: Path) -> None:
    arguments = {"context_parallel_size": 2, "data_parallel_size": None, "world_size": 16}
    found = of_log(tmp_path, logs.deepspeed_log([2.0] * 6, arguments))
    assert (found["layout"]["context"], found["layout"]["data"]) == (2, 2)
    assert "layout" not in found["flags"]


def test_gpt_neox_names_are_read(tmp_path: Path) -> None:
    """Its width is a third of intermediate_size where the activation is gated."""
    found = of_neox(tmp_path, NEOX_LLAMA)
    model = found["model"]
    assert (model["ffn_hidden_size"], model["num_kv_heads"]) == (1024, 2)
    hidden, layers, vocabulary = 256, 4, 512
    matrices = 2 * hidden * hidden + 2 * hidden * 128 + 3 * hidden * 1024
    norms = (2 * layers + 1) * hidden
    tables = 2 * vocabulary * hidden
    assert abs(model["parameters"] - (layers * matrices + norms + tables)) < 0.01 * model["parameters"]
    forward = layers * (2 * matrices + 4 * 128 * hidden) + 2 * hidden * vocabulary
    assert found["model_flops_per_s_per_device"] == 128 * 3 * forward
    assert not found["not_known"]


@pytest.mark.parametrize(
    ("arguments", "width"),
    [
        ({"activation": "gelu", "intermediate_size": None}, 1024),
        ({"activation": "swiglu", "intermediate_size": None}, 341),  # a third of 1024
        ({"activation": "swiglu", "intermediate_size": None, "mlp_multiple_of": 256}, 512),
        ({"activation": "silu", "mlp_type": "llama", "intermediate_size": None}, 768),  # 8/3 of 256, likewise
        ({"activation": "silu", "mlp_type": "llama", "intermediate_size": 1024}, 1024),
    ],
)
def test_the_width_that_gpt_neox_builds(tmp_path: Path, arguments: dict[str, Any], width: int) -> None:
    assert of_neox(tmp_path, NEOX_LLAMA | arguments)["model"]["ffn_hidden_size"] == width


def test_gpt_neox_layers_that_are_not_full_attention_have_no_flops(tmp_path: Path) -> None:
    found = of_neox(tmp_path, NEOX_LLAMA | {"attention_config": "['global', 'local', 'global', 'local']"})
    assert found["model"]
    assert found["mfu"] is None
    assert found["not_known"]["mfu"] == "attention_config has local"


def megatron_log(printed: str, seq_length: int = 4096) -> str:
    arguments = logs.MEGATRON | {"seq_length": seq_length, "checkpoint_activations": False}
    lines = [
        *logs.argument_lines(arguments),
        " > padded vocab (size: 500) with 12 dummy tokens (new size: 512)",
        *(logs.megatron_step(step, 2.0).replace("91.0", printed) for step in range(1, 7)),
    ]
    return "\n".join(lines)


def test_both_counts_of_attention_are_known_and_neither_is_accused(tmp_path: Path) -> None:
    """Four layers of width 256, MLP of 1024, 512 words, 4,096 positions, 4,096 tokens/s a device."""
    attention = 4 * 4 * 4096 * 256
    rest = 4 * (2 * 4 * 256 * 256 + 4 * 256 * 1024) + 2 * 256 * 512
    tokens = 16 * 4096 / 2.0 / 8
    for flops, convention in (
        (rest + attention, "model"),
        (rest + attention / 2, "model, half of attention"),
    ):
        found = of_log(tmp_path, megatron_log(f"{3 * flops * tokens / 1e12:.4f}"))
        assert found["flop_convention"] == convention
        assert found["expected_flops_per_s_per_device"] == pytest.approx(3 * flops * tokens)
        assert found["model_flops_per_s_per_device"] == pytest.approx(3 * (rest + attention) * tokens)
        assert "disagreement" not in found["flags"]
    assert "disagreement" in of_log(tmp_path, megatron_log("91.0"))["flags"]


def test_a_plain_gpts_count_of_another_model_is_no_contradiction(tmp_path: Path) -> None:
    """GPT-NeoX's formula: 72 x layers x hidden^2 x (1 + s / 6h + V / 16lh) a token, without recomputation."""
    hidden, layers, vocabulary, seq_len, tokens = 256, 4, 512, 128, 128
    share = 1 + seq_len / (6 * hidden) + vocabulary / (16 * layers * hidden)
    flops = 72 * layers * hidden**2 * share * tokens
    table = logs.argument_lines(NEOX_LLAMA, "........updated")
    for factor, odd in ((1.0, False), (2.0, True)):
        printed = f"{factor * flops / 1e9:.3f}GFLOPS"
        steps = [logs.neox_step(step, 2.0).replace("51.2TFLOPS", printed) for step in range(1, 7)]
        found = of_log(tmp_path, "\n".join([*table, *steps]))
        assert ("disagreement" in found["flags"]) == odd, found["expected_flops_per_s_per_device"] / flops
        assert odd or found["flop_convention"] == "hardware, of a plain GPT"


def test_figures_are_of_one_batch_where_a_run_ramps_it(tmp_path: Path) -> None:
    """Batches of 4, 8 and 16 sequences; steps of 1, 2 and 4 s."""
    times = [1.0] * 8 + [2.0] * 8 + [4.0] * 6
    steps = [logs.deepspeed_step(n + 1, seconds, batch=int(4 * seconds)) for n, seconds in enumerate(times)]
    head = logs.deepspeed_log([]).rstrip("\n")
    found = of_log(tmp_path, "\n".join([head, *steps]))
    assert (found["global_batch_size"], found["step_time_s"]) == (16, 4.0)
    assert found["tokens_per_s_per_device"] == 16 * 128 / 4.0 / 8
    assert (found["steady"]["steady"], found["steady"]["other_batch"]) == (6, 16)
    assert any("changes from 4 to 16: figures are of the 6 steady" in text for text in found["warnings"])


def test_figures_are_of_one_sequence_length_under_a_curriculum(tmp_path: Path) -> None:
    """DeepSpeed prints the length of each step."""
    steps = [
        logs.deepspeed_step(n, 1.0 if n <= 8 else 2.0) + f" curriculum seqlen: {64 if n <= 8 else 128} |"
        for n in range(1, 15)
    ]
    found = of_log(tmp_path, "\n".join([logs.deepspeed_log([], {"seq_length": 256}).rstrip("\n"), *steps]))
    assert (found["seq_len"], found["tokens_per_s_per_device"]) == (128, 16 * 128 / 2.0 / 8)
    assert any("sequence length changes from 64 to 128" in text for text in found["warnings"])


MIXTURE = {
    "num_experts": 8,
    "moe_router_topk": 2,
    "moe_ffn_hidden_size": 64,
    "swiglu": True,
    "num_layers": 4,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "padded_vocab_size": 512,
    "seq_length": 128,
    "moe_layer_freq": "[0, 1, 1, 1]",
    "ffn_hidden_size": 128,
    "untie_embeddings_and_output_weights": True,
}


def test_a_mixture_of_experts_is_counted_by_what_a_token_uses(tmp_path: Path) -> None:
    """By hand: attention and scores of four layers, one dense MLP, three times two experts and a router."""
    found = of_log(tmp_path, logs.deepspeed_log([2.0] * 6, MIXTURE))
    attention = 2 * 4 * 32 * 32 + 2 * 2 * 128 * 32
    dense, sparse = 2 * 3 * 32 * 128, 2 * (2 * 3 * 32 * 64 + 8 * 32)
    per_token = 3 * (4 * attention + dense + 3 * sparse + 2 * 32 * 512)
    assert found["model_flops_per_s_per_device"] == pytest.approx(per_token * 16 * 128 / 2.0 / 8)
    assert found["predicted"] is None
    assert set(found["not_known"]) - {"expected_flops_per_s_per_device"} == {"predicted"}


@pytest.mark.parametrize(
    "change",
    [
        {"moe_router_topk": None},
        {"moe_router_topk": 9},
        {"moe_layer_freq": 2},
        {"moe_layer_freq": "[1, 0, 1, 1]"},
        {"moe_shared_expert_intermediate_size": 100},
        {"num_experts": "[8]"},
    ],
)
def test_another_mixture_is_not_counted(tmp_path: Path, change: dict[str, Any]) -> None:
    found = of_log(tmp_path, logs.deepspeed_log([2.0] * 6, MIXTURE | change))
    assert found["model"] is None
    assert found["model_flops_per_s_per_device"] is None
