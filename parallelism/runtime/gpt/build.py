"""The model of one pipeline rank: its chunks on the meta device, and the plan of its shard units."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.runtime.experts.build import SparseLayers
from frontrunner.parallelism.runtime.experts.layer import SparseMLP
from frontrunner.parallelism.runtime.gpt.attention import CoreAttention, SelfAttention
from frontrunner.parallelism.runtime.gpt.loss import vocabulary_cross_entropy
from frontrunner.parallelism.runtime.gpt.modules import (
    LayerNorm,
    NormAfterLayer,
    ParallelResidualLayer,
    RMSNorm,
)
from frontrunner.parallelism.runtime.gpt.recompute import apply_recompute
from frontrunner.parallelism.runtime.process_groups import ProcessGroups


class LanguageModel(GPTModel):
    """megatron-core's GPT with a loss over the tensor group; keeps the ``tokens`` of its input."""

    tokens: int

    def compute_language_model_loss(self, labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """[b, s] labels and [s, b, v / tensor] logits to the loss per token, [b, s]."""
        labels = labels.transpose(0, 1).contiguous()
        loss = vocabulary_cross_entropy(logits, labels, self.tokens, self.pg_collection.tp)
        return loss.transpose(0, 1)


@dataclass(frozen=True)
class UnitPlan:
    """Parameters that are gathered and reduced together, and the modules that need them gathered.

    ``experts`` are those of the same modules that are cut over other ranks. They are a unit of their own that
    is gathered and freed together with this one. ``modules`` are in order of first use. ``lookup`` marks
    modules whose backward does not read the weights (embedding lookups).
    """

    name: str
    parameters: tuple[str, ...]  # names within the chunk
    modules: tuple[torch.nn.Module, ...]
    lookups: tuple[torch.nn.Module, ...] = ()
    experts: tuple[str, ...] = ()


def build_chunks(
    spec: RunSpec, groups: ProcessGroups, config: TransformerConfig, sparse: SparseLayers | None = None
) -> list[LanguageModel]:
    """This rank's model chunks, one per virtual stage, without storage (on ``meta``).

    ``sparse`` makes the layers with experts; None if the model has none.
    """
    assert (sparse is None) == (spec.model.experts is None), "experts would be left out"
    layout = groups.layout
    stage, stages = groups.coordinates.pipeline, layout.pipeline
    chunks = []
    for virtual in range(layout.virtual_stages):
        with torch.device("meta"):
            chunk = LanguageModel(
                config=config,
                transformer_layer_spec=_block_spec(spec, groups),
                vocab_size=spec.model.padded_vocab_size,
                max_sequence_length=spec.model.max_position_embeddings,
                pre_process=stage == 0 and virtual == 0,
                post_process=stage == stages - 1 and virtual == layout.virtual_stages - 1,
                share_embeddings_and_output_weights=spec.model.tie_embeddings,
                position_embedding_type="rope"
                if spec.model.position_embedding == "rotary"
                else "learned_absolute",
                rotary_percent=spec.model.rotary_fraction,
                rotary_base=spec.model.rotary_base,
                rope_scaling=spec.model.rotary_scaling_factor is not None,
                rope_scaling_factor=spec.model.rotary_scaling_factor or 1.0,
                pg_collection=groups.for_megatron(),
                vp_stage=virtual if layout.virtual_stages > 1 else None,
            )
        chunk.tokens = spec.model.vocab_size
        if sparse is not None:
            sparse.replace(chunk.decoder.layers)
        if spec.training.compile:
            for layer in chunk.decoder.layers:  # inside the hooks of the sharding engine, and what recomputes
                layer.forward = torch.compile(layer.forward)
        apply_recompute(chunk.decoder.layers, spec.layout.recompute, spec.training.compile)
        chunks.append(chunk)
    return chunks


def _block_spec(spec: RunSpec, groups: ProcessGroups) -> TransformerBlockSubmodules:
    layer = copy.deepcopy(get_gpt_layer_local_spec())
    norm: Any = RMSNorm if spec.model.normalization == "rmsnorm" else LayerNorm
    after = spec.model.norm_position == "after"
    layer.submodules.input_layernorm = IdentityOp if after else norm
    layer.submodules.pre_mlp_layernorm = IdentityOp if after else norm
    attention = layer.submodules.self_attention
    attention.module, attention.submodules.core_attention = SelfAttention, CoreAttention
    attention.params = attention.params | {"qk_norm": spec.model.qk_norm, "key_value": groups.key_value}
    if after:
        layer.module, layer.params = NormAfterLayer, layer.params | {"norm": norm}
    elif spec.model.parallel_residual:
        layer.module = ParallelResidualLayer
    layers = spec.model.num_layers // (spec.layout.pipeline * spec.layout.virtual_stages)
    return TransformerBlockSubmodules(layer_specs=[layer] * layers, layer_norm=norm)


def plan_units(chunk: LanguageModel) -> list[UnitPlan]:
    """Divide a chunk into shard units in order of first use: word embedding, each layer, untied output.

    Small parameters go with a neighbour: the position embedding with the first layer, the final norm with
    the last. The word embedding is thus alone in its unit. If it is tied across stages, that unit has the
    same shape on the first and the last stage.
    """
    layers = list(chunk.decoder.layers)
    plans: list[UnitPlan] = []
    if chunk.pre_process:
        words = chunk.embedding.word_embeddings
        shared = chunk.post_process and chunk.share_embeddings_and_output_weights
        modules = (words, chunk.output_layer) if shared else (words,)
        plans.append(UnitPlan("embedding", _parameters(chunk, words), modules, lookups=(words,)))
    for index, layer in enumerate(layers):
        members: list[torch.nn.Module] = [layer]
        lookups: tuple[torch.nn.Module, ...] = ()
        positions = getattr(getattr(chunk, "embedding", None), "position_embeddings", None)
        if index == 0 and positions is not None:
            members.insert(0, positions)
            lookups = (positions,)
        if index == len(layers) - 1 and chunk.post_process:
            members.append(chunk.decoder.final_layernorm)
        experts = _parameters(chunk, layer.mlp.experts) if isinstance(layer.mlp, SparseMLP) else ()
        names = (name for module in members for name in _parameters(chunk, module))
        parameters = tuple(name for name in names if name not in experts)
        plans.append(
            UnitPlan(f"layer {layer.layer_number - 1}", parameters, tuple(members), lookups, experts)
        )
    if chunk.post_process and chunk.output_layer.weight is not None:
        plans.append(UnitPlan("output", _parameters(chunk, chunk.output_layer), (chunk.output_layer,)))
    return plans


def _parameters(chunk: LanguageModel, module: torch.nn.Module) -> tuple[str, ...]:
    inside = {id(parameter) for parameter in module.parameters()}
    return tuple(name for name, parameter in chunk.named_parameters() if id(parameter) in inside)
