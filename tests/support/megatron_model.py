"""Megatron-LM's GPTModel, built from a command line as ``pretrain_gpt.py`` builds it, beside ours.

Its own kernels are for GPUs. Only the choice of kernels that compute the same is ours here: no Transformer
Engine, no fused softmax, dropout or rotary embeddings. The kernel of bias and activation stays as the
arguments say, because it decides which GELU is computed.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.transformer.transformer_config import TransformerConfig

from frontrunner.configs.schema import ModelSpec
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime.device import select_device
from frontrunner.parallelism.runtime.process_groups import ProcessGroups, initialize
from frontrunner.parallelism.runtime.trainer import Trainer
from support.specs import run_spec
from support.trainers import facts, megatron_values


class Both(NamedTuple):
    parameters: tuple[int, int]  # theirs, ours
    difference: float  # the largest of any token's loss, over the mean loss


def compared(rendezvous: Rendezvous, cases: list[tuple[dict[str, Any], str]]) -> list[Both]:
    """Of each model and command line: numbers of parameters, and first losses with equal weights."""
    layout = Layout.from_spec(run_spec())
    groups = initialize(layout, rendezvous, select_device("cpu", rendezvous.local_rank))
    parallel_state.destroy_global_memory_buffer()  # ours has put one there
    parallel_state.initialize_model_parallel()
    with torch.compiler.set_stance("force_eager"):
        found = [_both(groups, ModelSpec.model_validate(model), text) for model, text in cases]
    dist.destroy_process_group()
    return found


def _both(groups: ProcessGroups, model: ModelSpec, text: str) -> Both:
    trainer = Trainer(run_spec(model=model.model_dump()), groups, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    values: dict[str, torch.Tensor] = {}
    for unit in trainer.engine.units:
        for described in unit.parameters.values():
            drawn = torch.randn(described.full_shape, generator=generator)
            # Large enough that the two GELUs differ in the losses.
            norm = described.name.endswith("norm.weight")
            values[described.name] = 1 + 0.1 * drawn if norm else 0.4 * drawn
        unit.fill(lambda parameter: values[parameter.name])
    theirs = build(megatron_values(text, facts("megatron")), model.padded_vocab_size, groups)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(values[name])
    counts = sum(p.numel() for p in theirs.parameters()), sum(value.numel() for value in values.values())
    tokens = torch.randint(model.vocab_size, (2, 17), generator=torch.Generator().manual_seed(1))
    losses, own = _losses(theirs, tokens), _losses(trainer.schedule.chunks[0], tokens)
    return Both(counts, float((losses - own).abs().max() / own.mean()))


def _losses(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    places = torch.arange(16).expand(2, 16)
    mask = torch.ones(1, 1, 16, 16, dtype=torch.bool).triu(1)
    with torch.no_grad():
        return model.eval()(  # type: ignore[no-any-return]
            tokens[:, :-1].contiguous(), places, mask, labels=tokens[:, 1:].contiguous()
        )


def build(v: dict[str, Any], rows: int, groups: ProcessGroups) -> GPTModel:
    """``core_transformer_config_from_args`` and ``gpt_builder``."""
    chosen = {f.name: v[f.name] for f in fields(TransformerConfig) if f.name in v}
    chosen["bias_activation_fusion"] = v["bias_gelu_fusion"]
    if v["swiglu"]:
        chosen |= {"activation_func": F.silu, "gated_linear_unit": True}
        chosen["bias_activation_fusion"] = v["bias_swiglu_fusion"]
    if not v["group_query_attention"]:
        chosen["num_query_groups"] = None
    config = TransformerConfig(**chosen, use_cpu_initialization=True)
    return GPTModel(
        config=config,
        transformer_layer_spec=get_gpt_layer_local_spec(
            qk_layernorm=v["qk_layernorm"], normalization=v["normalization"]
        ),
        vocab_size=rows,
        max_sequence_length=v["max_position_embeddings"],
        share_embeddings_and_output_weights=not v["untie_embeddings_and_output_weights"],
        position_embedding_type=v["position_embedding_type"],
        rotary_percent=v["rotary_percent"],
        rotary_base=v["rotary_base"],
        rope_scaling=v["use_rope_scaling"],
        pg_collection=groups.for_megatron(),
    )
