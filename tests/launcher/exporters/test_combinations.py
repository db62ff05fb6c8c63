"""Other trainers build our model from what we export, or we do not export.

What a trainer builds is worked out from its own defaults and rules (``support.trainers``), without looking at
the exporters.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from frontrunner.configs.errors import SpecError
from frontrunner.configs.schema import ModelSpec, RunSpec
from frontrunner.launcher.exporters import (
    deepspeed,
    gpt_neox,
    gpt_neox_model,
    megatron,
    megatron_deepspeed,
    megatron_deepspeed_model,
    megatron_model,
    torchtitan,
    torchtitan_model,
)
from frontrunner.launcher.exporters.combinations import Combination
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.planner.parameters import total_parameters
from support import trainers
from support.built import Built, Positions, Stops, ours
from support.specs import GPT, LLAMA, MODELS, run_spec

TABLE = yaml.safe_load((Path(__file__).parent / "combinations.yaml").read_text())
TITAN = LLAMA | {
    **{"num_layers": 6, "hidden_size": 256, "num_heads": 16, "num_kv_heads": 16, "head_dim": 16},
    **{"ffn_hidden_size": 768, "vocab_size": 2048, "padded_vocab_size": 2048},
    **{"rotary_base": 500000.0, "rotary_scaling_factor": 8.0},
}
TARGETS: dict[str, Any] = {
    "megatron": megatron,
    "megatron-deepspeed": megatron_deepspeed,
    "gpt-neox": gpt_neox,
    "torchtitan": torchtitan,
}
READERS: dict[str, Callable[[str], Built]] = {
    "megatron": trainers.megatron,
    "megatron-deepspeed": trainers.megatron_deepspeed,
    "gpt-neox": trainers.neox,
    "torchtitan": trainers.torchtitan,
}
TABLES = {
    "megatron": megatron_model.COMBINATIONS,
    "megatron-deepspeed": megatron_deepspeed_model.COMBINATIONS,
    "gpt-neox": gpt_neox_model.COMBINATIONS,
}


def spec_of(model: dict[str, Any], **keys: Any) -> RunSpec:
    return run_spec(model=model, sharding=keys.pop("sharding", "ddp"), **keys)


def text_of(target: str, spec: RunSpec) -> str:
    return str(TARGETS[target].TARGET.export(spec, Layout.from_spec(spec)).text)


def refused(target: str, spec: RunSpec) -> list[str]:
    try:
        text_of(target, spec)
    except SpecError as error:
        return [violation.path.removeprefix("model.") for violation in error.violations]
    return []


def built(target: str, spec: RunSpec) -> Built | str:
    """What the trainer builds, or why it stops."""
    try:
        return READERS[target](text_of(target, spec))
    except Stops as reason:
        return str(reason)


def expected(model: ModelSpec, target: str) -> Built:
    found = ours(model)
    # torchtitan has initial values of its own, of which a note tells.
    return found if target != "torchtitan" else Built(**vars(found) | {"init_std": None})


def cases() -> list[Any]:
    found = []
    for row in TABLE["combinations"]:
        said = " ".join(f"{key}={value}" for key, value in row["set"].items())
        for target in TABLES:
            name = f"{target}: {row['base']} {said}".strip()
            found.append(pytest.param(target, MODELS[row["base"]] | row["set"], row.get(target, []), id=name))
    for row in TABLE["torchtitan"]:
        said = " ".join(f"{key}={value}" for key, value in row["set"].items())
        found.append(
            pytest.param(
                "torchtitan", TITAN | row["set"], row.get("torchtitan", []), id=f"torchtitan: {said}"
            )
        )
    return found


@pytest.mark.parametrize(("target", "model", "keys"), cases())
def test_our_model_or_none(
    target: str, model: dict[str, Any], keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(model)
    assert refused(target, spec) == keys
    if not keys:
        found = built(target, spec)
        assert found == expected(spec.model, target)
        assert isinstance(found, Built) and found.parameters() == total_parameters(spec.model)
        return
    without_checks(monkeypatch)
    assert built(target, spec) != expected(spec.model, target), "refused for nothing"


def without_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    for target in TABLES:
        monkeypatch.setattr(TARGETS[target], "COMBINATIONS", ())

    def nearest(_: Any, model: ModelSpec) -> str:
        flavors = torchtitan_model.FLAVORS
        return next((n for n, k in flavors.items() if k["hidden_size"] == model.hidden_size), "debugmodel")

    monkeypatch.setattr(torchtitan, "flavor", nearest)


def test_there_are_enough_combinations() -> None:
    assert len(TABLE["combinations"]) >= 30
    assert len(TABLE["torchtitan"]) >= 30


AXES: dict[str, list[dict[str, Any]]] = {
    "bias": [{}, {"linear_bias": False, "qkv_bias": True}, {"linear_bias": False, "qkv_bias": False}],
    "activation": [{"activation": name} for name in ("gelu", "gelu_tanh", "swiglu")],
    "norm": [{"normalization": "rmsnorm", "norm_epsilon": 1e-6}, {}],
    "residual": [{}, {"parallel_residual": True}],
    "dropout": [{}, {"hidden_dropout": 0.1}],
    "width": [{}, {"ffn_hidden_size": 91}],
    "positions": [
        {},
        {"position_embedding": "rotary", "rotary_fraction": 0.5},
        {"position_embedding": "rotary", "rotary_scaling_factor": 8.0},
        {"position_embedding": "rotary", "rotary_scaling_factor": 2.0, "rotary_base": 2.5},
    ],
}


@pytest.mark.parametrize("target", list(TABLES))
def test_every_product_of_the_axes(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is exactly what the trainer would build as another model, or not at all."""
    models = []
    for changes in product(*AXES.values()):
        model = dict(GPT)
        for change in changes:
            model |= change
        models.append(model)
    base = spec_of(GPT)
    specs = [base.model_copy(update={"model": ModelSpec.model_validate(model)}) for model in models]
    said = [bool(refused(target, spec)) for spec in specs]
    without_checks(monkeypatch)
    other = [built(target, spec) != ours(spec.model) for spec in specs]
    wrong = [spec.model for spec, a, b in zip(specs, said, other, strict=True) if a != b]
    assert not wrong, wrong[:3]
    assert 0 < sum(said) < len(said) == 3 * 3 * 2 * 2 * 2 * 2 * 4


@pytest.mark.parametrize("target", list(TABLES))
def test_the_advice_helps(target: str) -> None:
    """Each row's change ends its own refusal, and all changes give a model that is exported."""
    rows = [row for row in TABLE["combinations"] if row.get(target)]
    assert {key for row in rows for key in row[target]} == {row.key for row in TABLES[target]}
    for row in rows:
        model = ModelSpec.model_validate(MODELS[row["base"]] | row["set"])
        while hits := [case for case in TABLES[target] if case.when(model)]:
            changed = _changed(model, hits[0])
            if changed is None:
                break
            assert not hits[0].when(changed), hits[0].key
            model = changed
        else:
            spec = spec_of(model.model_dump())
            assert refused(target, spec) == []


def _changed(model: ModelSpec, case: Combination) -> ModelSpec | None:
    change = case.change(model)
    return ModelSpec.model_validate(model.model_dump() | dict(change)) if change else None


@pytest.mark.parametrize("target", list(TABLES))
@pytest.mark.parametrize("tensor", [1, 2, 4])
def test_rows_of_the_embedding_do_not_depend_on_tensor_ranks(target: str, tensor: int) -> None:
    spec = spec_of(GPT, devices=4, layout={"tensor": tensor})
    found = built(target, spec)
    assert isinstance(found, Built) and found.rows == 64


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("target", list(TABLES))
def test_precision_does_not_change_the_model(target: str, precision: str) -> None:
    training = {
        "precision": precision,
        "gradient_dtype": "bfloat16" if precision == "bfloat16" else "float32",
    }
    spec = spec_of(GPT, training=training, wire=dict.fromkeys(WIRES, precision))
    assert built(target, spec) == ours(spec.model)


@pytest.mark.parametrize("target", ["megatron-deepspeed", "gpt-neox"])
def test_float32_sums_that_deepspeed_lacks_are_refused(target: str) -> None:
    spec = spec_of(GPT, training={"precision": "bfloat16"}, wire=dict.fromkeys(WIRES, "bfloat16"))
    assert refused(target, spec) == ["training.gradient_dtype"]


WIRES = ("weights", "gradients", "network")


def test_neox_says_what_tensor_ranks_do_to_biases() -> None:
    spec = spec_of(MODELS["neox"], devices=2, layout={"tensor": 2})
    notes = gpt_neox.TARGET.export(spec, Layout.from_spec(spec)).notes
    assert any("learn 2 times as fast" in note for note in notes)
    alone = spec_of(MODELS["neox"])
    assert not any("as fast" in n for n in gpt_neox.TARGET.export(alone, Layout.from_spec(alone)).notes)


@pytest.mark.parametrize("target", list(TABLES))
def test_padded_rows_in_the_loss_are_noted(target: str) -> None:
    for size, noted in ((60, True), (64, False)):
        spec = spec_of(GPT | {"vocab_size": size})
        notes = TARGETS[target].TARGET.export(spec, Layout.from_spec(spec)).notes
        assert any("4 padded rows" in note for note in notes) is noted


def test_torchtitan_models_have_the_published_sizes() -> None:
    """Parameters of Llama 3 (8,030,261,248) and 3.1 (405,853,388,800), and our table beside its formula."""
    sizes = {}
    for name, keys in torchtitan_model.FLAVORS.items():
        found = trainers.torchtitan(f'[model]\nflavor = "{name}"\n')
        model = ModelSpec.model_validate(keys | {"vocab_size": keys["padded_vocab_size"]})
        assert found == expected(model, "torchtitan")
        assert found.parameters() == total_parameters(model)
        sizes[name] = found.parameters()
    assert sizes["8B"] == 8_030_261_248
    assert sizes["70B"] == 70_553_706_496
    assert sizes["405B"] == 405_853_388_800


def test_neox_20b() -> None:
    """GPT-NeoX-20B from GPT-NeoX's own rules: 20,554,567,680 parameters without padding's."""
    model = {"num_layers": 44, "hidden_size": 6144, "num_heads": 64, "vocab_size": 50432}
    spec = spec_of(
        ModelSpec.model_validate(
            model
            | {"position_embedding": "rotary", "rotary_fraction": 0.25, "parallel_residual": True}
            | {"tie_embeddings": False, "activation": "gelu"}
        ).model_dump()
    )
    found = built("gpt-neox", spec)
    assert isinstance(found, Built)
    assert found.positions == Positions(0, 24, 10000)
    assert found.parameters() == 20_554_567_680


def test_deepspeed_has_no_model() -> None:
    """Its file says nothing of the model, so that no combination can change it."""
    models = [MODELS[row["base"]] | row["set"] for row in TABLE["combinations"]]
    texts = set()
    for model in models:
        spec = spec_of(model | {"num_kv_heads": model["num_heads"]})
        texts.add(deepspeed.TARGET.export(spec, Layout.from_spec(spec)).text)
    assert len(texts) == 1


@pytest.mark.parametrize("target", list(TABLES))
def test_ranks_that_would_share_keys_are_refused(target: str) -> None:
    spec = spec_of(GPT | {"num_kv_heads": 2}, devices=4, layout={"tensor": 4})
    assert refused(target, spec) == ["layout.tensor"]
