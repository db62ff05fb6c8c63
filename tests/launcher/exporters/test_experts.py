"""Mixtures of experts for Megatron-LM, in its own words, and refused for all others."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from frontrunner.configs.errors import SpecError
from frontrunner.launcher.commands.export import export

RUN = "moe-quickstart"
FLOATS = ["layout.sharding=zero1", "training.precision=bfloat16"]


def arguments(capsys: pytest.CaptureFixture[str], *overrides: str) -> dict[str, str | bool]:
    export(RUN, "megatron", [*FLOATS, *overrides], as_json=True)
    text = json.loads(capsys.readouterr().out)["text"]
    words = shlex.split(text.replace("\\\n", " "))
    found: dict[str, str | bool] = {}
    for word, following in zip(words, [*words[1:], "--"], strict=True):
        if word.startswith("--"):
            found[word] = True if following.startswith("--") else following
    return found


def test_the_arguments_of_a_mixture(capsys: pytest.CaptureFixture[str]) -> None:
    found = arguments(capsys, "model.experts.z_loss=0.001")
    wanted = {
        "--num-experts": "8",
        "--moe-router-topk": "2",
        "--moe-ffn-hidden-size": "128",
        "--moe-router-load-balancing-type": "seq_aux_loss",
        "--moe-aux-loss-coeff": "0.01",
        "--moe-z-loss-coeff": "0.001",
        "--moe-router-score-function": "softmax",
        "--expert-model-parallel-size": "2",
        "--moe-token-dispatcher-type": "alltoall",
        "--disable-bias-linear": True,
    }
    assert wanted.items() <= found.items()
    assert not {"--moe-layer-freq", "--moe-router-pre-softmax"} & {*found}


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["model.experts.first_dense_layers=1"], {"--moe-layer-freq": "([0]*1+[1]*3)"}),
        (["model.experts.every=2"], {"--moe-layer-freq": "([0]*1+[1]*1+[0]*1+[1]*1)"}),
        (["model.experts.normalize=false"], {"--moe-router-pre-softmax": True}),
        (["model.experts.aux_loss=0"], {"--moe-router-load-balancing-type": "none"}),
        (["model.experts.router=sigmoid"], {"--moe-router-score-function": "sigmoid"}),
        (
            ["model.experts.shared_experts=2", "model.experts.shared_gate=true"],
            {"--moe-shared-expert-intermediate-size": "256", "--moe-shared-expert-gate": True},
        ),
    ],
)
def test_what_a_mixture_may_have(
    capsys: pytest.CaptureFixture[str], overrides: list[str], wanted: dict[str, Any]
) -> None:
    assert wanted.items() <= arguments(capsys, *overrides).items()


def test_its_configuration_takes_them(capsys: pytest.CaptureFixture[str]) -> None:
    """megatron-core's own configuration, by the names that its trainer gives the arguments."""
    module = pytest.importorskip("megatron.core.transformer.transformer_config")
    found = arguments(capsys, "model.experts.shared_experts=2", "model.experts.first_dense_layers=1")
    names = {
        "--moe-router-topk": "moe_router_topk",
        "--moe-ffn-hidden-size": "moe_ffn_hidden_size",
        "--moe-aux-loss-coeff": "moe_aux_loss_coeff",
        "--moe-router-load-balancing-type": "moe_router_load_balancing_type",
        "--moe-router-score-function": "moe_router_score_function",
        "--moe-router-dtype": "moe_router_dtype",
        "--moe-token-dispatcher-type": "moe_token_dispatcher_type",
        "--moe-shared-expert-intermediate-size": "moe_shared_expert_intermediate_size",
        "--num-experts": "num_moe_experts",
    }
    values: dict[str, Any] = {}
    for option, name in names.items():
        text = found[option]
        values[name] = json.loads(text) if isinstance(text, str) and text[0].isdigit() else text
    frequency = eval(str(found["--moe-layer-freq"]))
    config = module.TransformerConfig(
        num_layers=4,
        hidden_size=128,
        num_attention_heads=4,
        add_bias_linear=False,
        moe_layer_freq=frequency,
        **values,
    )
    assert config.moe_layer_freq == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("overrides", "path"),
    [
        (["model.experts.router=sigmoid", "model.experts.normalize=false"], "model.experts.normalize"),
        (["model.experts.experts_per_token=1"], "model.experts.normalize"),
        (["layout.dispatch_wire=int8"], "layout.dispatch_wire"),
        (["layout.sharding=zero3"], "layout.expert"),
    ],
)
def test_what_it_does_not_have_is_refused(overrides: list[str], path: str) -> None:
    with pytest.raises(SpecError) as raised:
        export(RUN, "megatron", [*FLOATS, *overrides])
    assert [violation.path for violation in raised.value.violations] == [path]


@pytest.mark.parametrize("trainer", ["deepspeed", "gpt-neox", "megatron-deepspeed", "torchtitan"])
def test_other_trainers_get_only_dense_models(trainer: str) -> None:
    with pytest.raises(SpecError, match="only dense models are exported to it"):
        export(RUN, trainer, [*FLOATS, "layout.expert=1"])
