"""Makes the sparse layers of one rank."""

from __future__ import annotations

import copy
from typing import Any

import torch
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.runtime.experts.dispatch import Dispatcher, Hop
from frontrunner.parallelism.runtime.experts.layer import Experts, SparseMLP
from frontrunner.parallelism.runtime.experts.load import Load
from frontrunner.parallelism.runtime.experts.router import Router
from frontrunner.parallelism.runtime.process_groups import ProcessGroups
from frontrunner.parallelism.runtime.transport import Transport
from frontrunner.parallelism.runtime.wire.formats import wire_format


class SparseLayers:
    """What the sparse layers of a rank share: the hops of tokens, and the sums of their load."""

    def __init__(
        self,
        spec: RunSpec,
        groups: ProcessGroups,
        config: TransformerConfig,
        transport: Transport,
        device: torch.device,
    ) -> None:
        assert spec.model.experts is not None
        self.spec, self.groups, self.config = spec, groups, config
        self.experts = spec.model.experts
        self.sparse = self.experts.sparse_layers(spec.model.num_layers)
        self.load = Load(sum(self.sparse), self.experts.num_experts, device)
        self.dispatcher = Dispatcher(_hops(spec, groups, device), transport)

    def replace(self, layers: Any) -> None:
        """Put experts in place of the MLPs of megatron-core's layers, on ``meta`` like these."""
        for layer in layers:
            number = layer.layer_number - 1
            if self.sparse[number]:
                with torch.device("meta"):
                    layer.mlp = self._mlp(sum(self.sparse[:number]))

    def _mlp(self, number: int) -> SparseMLP:
        spec, model, layout = self.experts, self.spec.model, self.groups.layout
        dtype = self.config.params_dtype
        count = spec.num_experts // layout.expert
        first = self.groups.coordinates.data % layout.expert * count
        router = Router(model.hidden_size, spec, number, self.load)
        experts = Experts(
            model.hidden_size,
            spec.ffn_hidden_size // layout.tensor,
            spec.num_experts,
            range(first, first + count),
            self.config.gated_linear_unit,
            self.config.activation_func,
        )
        shared = gate = None
        if spec.shared_experts:
            config = copy.copy(self.config)  # it takes the width from there, too
            config.ffn_hidden_size = spec.shared_experts * spec.ffn_hidden_size
            shared = MLP(
                config,
                MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=RowParallelLinear),
                ffn_hidden_size=config.ffn_hidden_size,
                tp_group=self.groups.tensor,
            )
            gate = torch.nn.Linear(model.hidden_size, 1, bias=False) if spec.shared_gate else None
        sequence_parallel = self.spec.layout.sequence_parallel
        made = SparseMLP(
            router, experts, self.dispatcher, self.groups.tensor, sequence_parallel, shared, gate
        )
        return made.to(dtype)


def _hops(spec: RunSpec, groups: ProcessGroups, device: torch.device) -> list[Hop]:
    """The hops of the layout; the one that leaves a node is quantised, with all its messages."""
    experts, layout = spec.model.experts, groups.layout
    assert experts is not None
    owner = torch.arange(experts.num_experts, device=device) // (experts.num_experts // layout.expert)
    members = layout.expert_hops(groups.rank)
    inside = len(members[-1])  # ranks of a node, if there are two hops
    crosses = "network" in {layout.level_between(members[0][0], other) for other in members[0][1:]}
    found = []
    for place, group in enumerate(groups.expert_hops):
        member = owner if len(members) == 1 else owner // inside if place == 0 else owner % inside
        wire = None
        if spec.layout.dispatch_wire == "int8" and crosses and place == 0:
            wire = wire_format("int8", spec.layout.sharding.wire.block)
        found.append(Hop(group, torch.cat([member, member.new_tensor([-1])]), wire))
    return found
