"""Parameters as transformers' tensors and back: bit by bit the same, and those that the runtime has."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frontrunner.configs.errors import SpecError
from frontrunner.configs.schema import ModelSpec
from frontrunner.parallelism.runtime.huggingface.mapping import entries, from_huggingface, to_huggingface
from support.huggingface import MODELS, built_shapes, parameters
from support.ranks import run_ranks
from support.specs import LLAMA

FAMILIES = {
    "gpt2": {"position_embedding": "learned"},
    "gpt_neox": {"position_embedding": "rotary", "rotary_fraction": 0.5},
    "llama": {"position_embedding": "rotary", "normalization": "rmsnorm", "activation": "swiglu"},
}


@st.composite
def models(draw: st.DrawFn) -> ModelSpec:
    family = draw(st.sampled_from(sorted(FAMILIES)))
    llama = family == "llama"
    groups, shared = draw(st.integers(1, 3)), draw(st.integers(1, 3)) if llama else 1
    size = draw(st.sampled_from([2, 4]))
    bias = draw(st.booleans()) if llama else True
    return ModelSpec(
        num_layers=draw(st.integers(1, 3)),
        hidden_size=groups * shared * size,
        num_heads=groups * shared,
        num_kv_heads=groups,
        head_dim=draw(st.sampled_from([2, 4, 6])) if llama else size,
        ffn_hidden_size=draw(st.integers(1, 9)),
        vocab_size=draw(st.integers(1, 140)),
        max_position_embeddings=5,
        linear_bias=bias,
        qkv_bias=bias or draw(st.booleans()),
        tie_embeddings=draw(st.booleans()),
        **FAMILIES[family],  # type: ignore[arg-type]
    )


@settings(max_examples=60, deadline=None)
@given(models())
def test_there_and_back_is_the_same(model: ModelSpec) -> None:
    ours = parameters(model)
    asked: list[str] = []

    def get(name: str) -> torch.Tensor:
        asked.append(name)
        return ours[name]

    theirs = dict(to_huggingface(model, get))
    assert asked == list(ours), "each once"
    assert len(theirs) == sum(len(entry.theirs) for entry in entries(model)), "no name twice"
    back = dict(from_huggingface(model, theirs.__getitem__))
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)
    kept = {name: tensor for name, tensor in ours.items() if "word" not in name and "output" not in name}
    rows = model.vocab_size * model.hidden_size * (1 if model.tie_embeddings else 2)
    assert sum(tensor.numel() for tensor in theirs.values()) == rows + sum(t.numel() for t in kept.values())


def test_the_rows_that_pad_a_vocabulary_are_cut_and_come_back_as_zeros() -> None:
    model = ModelSpec(**LLAMA | {"vocab_size": 59, "padded_vocab_size": 64})
    ours = parameters(model, padding=math.nan)
    theirs = dict(to_huggingface(model, ours.__getitem__))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert theirs[name].shape == (59, 32)
    back = dict(from_huggingface(model, theirs.__getitem__))
    for name in ("embedding.word_embeddings.weight", "output_layer.weight"):
        assert torch.equal(back[name][:59], ours[name][:59])
        assert not back[name][59:].any()


def test_only_one_tensor_is_asked_for_at_a_time() -> None:
    model = ModelSpec(**LLAMA)
    asked: list[str] = []
    values = parameters(model)
    ours = to_huggingface(model, lambda name: asked.append(name) or values[name])  # type: ignore[func-returns-value]
    next(ours)
    assert asked == ["embedding.word_embeddings.weight"]
    assert "decoder.layers.3.mlp.linear_fc2.weight" in values


def test_parameters_are_those_of_the_runtime() -> None:
    specs = [ModelSpec(**fields) for fields in MODELS.values()]
    (built,) = run_ranks(1, built_shapes, specs)
    for model, shapes in zip(specs, built, strict=True):
        assert {entry.name: entry.shape for entry in entries(model)} == shapes


def test_a_model_of_no_family_is_refused() -> None:
    model = ModelSpec(**LLAMA | {"position_embedding": "learned"})
    with pytest.raises(SpecError, match="gpt2, the nearest Hugging Face family"):
        next(to_huggingface(model, parameters(ModelSpec(**LLAMA)).__getitem__))
