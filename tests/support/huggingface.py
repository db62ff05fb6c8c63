"""Models beside transformers': full parameters by name, and what a rank computes with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from frontrunner.configs.schema import ModelSpec, RunSpec
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime.device import select_device
from frontrunner.parallelism.runtime.gpt.build import LanguageModel
from frontrunner.parallelism.runtime.huggingface.mapping import entries, from_huggingface
from frontrunner.parallelism.runtime.huggingface.read import read_folder
from frontrunner.parallelism.runtime.huggingface.write import write_folder
from frontrunner.parallelism.runtime.process_groups import ProcessGroups, initialize
from frontrunner.parallelism.runtime.sharding.parameters import describe
from frontrunner.parallelism.runtime.trainer import Trainer
from support.runs import train_run
from support.specs import GPT, LLAMA, NEOX, OLMO2, QWEN3, run_spec

EXPERTS = {"num_experts": 6, "experts_per_token": 3, "ffn_hidden_size": 20}

Tokens: TypeAlias = list[list[int]]
Logits: TypeAlias = npt.NDArray[np.float32]  # [sequences, tokens, vocab_size]

#: Tiny models of every family, with what differs inside one: vocabularies that need padding, shared keys and
#: values, tied embeddings, biases, heads that do not divide the hidden size, both residuals.
MODELS: dict[str, dict[str, Any]] = {
    "gpt2": GPT | {"vocab_size": 61, "activation": "gelu_tanh"},
    "gpt2-untied": GPT | {"tie_embeddings": False, "ffn_hidden_size": 80, "num_layers": 3},
    "gpt_neox": NEOX,
    "gpt_neox-sequential": NEOX
    | {"parallel_residual": False, "tie_embeddings": True, "rotary_fraction": 0.5},
    "llama": LLAMA | {"vocab_size": 59},
    "llama-tied": LLAMA | {"tie_embeddings": True, "num_kv_heads": 1, "rotary_base": 5e5},
    "llama-biased": LLAMA | {"linear_bias": True, "qkv_bias": True, "num_kv_heads": 4, "head_dim": 16},
    "llama-scaled": LLAMA
    | {"rotary_scaling_factor": 8.0, "rotary_base": 5e5, "max_position_embeddings": 512},
    "qwen2": LLAMA | {"qkv_bias": True},
    "qwen2-tied": LLAMA | {"qkv_bias": True, "tie_embeddings": True, "num_kv_heads": 4},
    "mistral": LLAMA | {"hidden_size": 30, "head_dim": 8},
    "qwen3": QWEN3 | {"vocab_size": 59, "rotary_base": 1e6, "norm_epsilon": 1e-2},
    "qwen3-tied": QWEN3 | {"tie_embeddings": True, "num_kv_heads": 1, "hidden_size": 30},
    "olmo2": OLMO2 | {"norm_epsilon": 1e-2},
    "mixtral": LLAMA | {"ffn_hidden_size": 20, "experts": EXPERTS},
    "qwen2_moe": LLAMA
    | {
        "qkv_bias": True,
        "experts": EXPERTS | {"shared_experts": 3, "shared_gate": True, "normalize": False, "every": 2},
    },
    "qwen3_moe": QWEN3 | {"experts": EXPERTS | {"first_dense_layers": 1}},
    "olmoe": OLMO2
    | {"ffn_hidden_size": 20, "norm_position": "before", "experts": EXPERTS | {"normalize": False}},
    "olmo2-shared": OLMO2 | {"num_kv_heads": 2, "head_dim": 12, "hidden_size": 30, "tie_embeddings": True},
}


def parameters(model: ModelSpec, padding: float = 0.0) -> dict[str, torch.Tensor]:
    """Random values of every parameter, so that none is as any other; ``padding`` in padded rows."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for entry in entries(model):
        values = torch.randn(entry.shape, generator=generator) * 0.1
        if entry.name.endswith("norm.weight"):
            values += 1
        if entry.shape[0] == model.padded_vocab_size and ("word" in entry.name or "output" in entry.name):
            values[model.vocab_size :] = padding
        found[entry.name] = values
    return found


def logits_of_folders(rendezvous: Rendezvous, folders: list[Path], tokens: list[Tokens]) -> list[Logits]:
    """What our models compute with the weights of folders."""
    groups, found = _groups(rendezvous), []
    for folder, batch in zip(folders, tokens, strict=True):
        model, get = read_folder(folder)
        found.append(_logits(groups, model, dict(from_huggingface(model, get)), batch))
    dist.destroy_process_group()
    return found


def write_folders(
    rendezvous: Rendezvous, models: list[ModelSpec], folders: list[Path], tokens: list[Tokens]
) -> list[Logits]:
    """Writes each model, with values of its own, to its folder; what they compute."""
    groups, found = _groups(rendezvous), []
    for model, folder, batch in zip(models, folders, tokens, strict=True):
        values = parameters(model, padding=1.0)
        write_folder(model, values.__getitem__, folder, torch.float32)
        found.append(_logits(groups, model, values, batch))
    dist.destroy_process_group()
    return found


def built_shapes(rendezvous: Rendezvous, models: list[ModelSpec]) -> list[dict[str, tuple[int, ...]]]:
    """The full shape of each parameter of each model, as the runtime builds it."""
    groups, found = _groups(rendezvous), []
    for model in models:
        spec = run_spec(model=model.model_dump())
        (chunk,) = Trainer(spec, groups, torch.device("cpu")).schedule.chunks
        described = describe(chunk, model, groups, sequence_parallel=False).values()
        found.append({parameter.name: parameter.full_shape for parameter in described})
    dist.destroy_process_group()
    return found


def _groups(rendezvous: Rendezvous) -> ProcessGroups:
    return initialize(Layout.from_spec(run_spec()), rendezvous, select_device("cpu", rendezvous.local_rank))


def _logits(
    groups: ProcessGroups, model: ModelSpec, values: dict[str, torch.Tensor], tokens: Tokens
) -> Logits:
    spec = run_spec(model=model.model_dump(), training={"seq_len": len(tokens[0])})
    trainer = Trainer(spec, groups, torch.device("cpu"))
    for unit in trainer.engine.units:
        unit.fill(lambda parameter: values.pop(parameter.name))
    assert not values, "the model has a place for each of them"
    batch = torch.tensor(tokens)
    with torch.no_grad():
        logits = trainer.schedule.chunks[0].eval()(batch, torch.arange(batch.size(1)).expand_as(batch), None)
    found: Logits = logits[..., : model.vocab_size].numpy()
    return found


def run_with_logits(rendezvous: Rendezvous, spec: RunSpec, run_dir: Path) -> list[Logits]:
    """One rank of a run; its part of the logits of each validation, on the last stage."""
    found: list[Logits] = []
    loss = LanguageModel.compute_language_model_loss

    def kept(self: LanguageModel, labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled():
            found.append(logits.transpose(0, 1).contiguous().numpy().copy())
        return loss(self, labels, logits)

    LanguageModel.compute_language_model_loss = kept  # type: ignore[method-assign]
    assert train_run(rendezvous, spec, run_dir) == "done"
    return found
