"""Other ways to send tokens to experts, in our own engine: the code of megatron-core and of DeepSpeed.

Router, experts, and everything else stay the same; only what carries tokens is exchanged.
"""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from frontrunner.parallelism.runtime.baselines.deepspeed import import_deepspeed
from frontrunner.parallelism.runtime.experts.layer import Experts, SparseMLP
from frontrunner.parallelism.runtime.process_groups import Group, ProcessGroups
from frontrunner.parallelism.runtime.trainer import Trainer

PEERS = ("megatron-core, all-to-all", "DeepSpeed-MoE")


def exchange(trainer: Trainer, name: str) -> None:
    """Let all sparse layers of a flat layout send tokens as a peer does."""
    (group,) = trainer.groups.expert_hops
    make = _Megatron if name == PEERS[0] else _DeepSpeed
    for chunk in trainer.schedule.chunks:
        for module in chunk.modules():
            if isinstance(module, SparseMLP):
                module.dispatcher = make(group, trainer.groups)  # type: ignore[assignment]


class _Megatron:
    """megatron-core's dropless all-to-all: a copy of a token for each of its experts."""

    def __init__(self, group: Group, groups: ProcessGroups) -> None:
        self.group, self.itself = group, groups.itself
        self.dispatcher: Any = None

    def run(self, x: Tensor, experts: Tensor, weights: Tensor, compute: Experts) -> Tensor:
        if self.dispatcher is None:
            self.dispatcher = self._make(experts.shape[1], compute)
        dispatcher, count = self.dispatcher, self.dispatcher.num_experts
        zeros = x.new_zeros(len(x), count, dtype=torch.float32)
        probabilities = zeros.scatter(1, experts, weights)
        chosen = zeros.bool().scatter(1, experts, True)
        rows, factors = dispatcher.dispatch_preprocess(x, chosen, probabilities)
        # On a GPU they become lists on their way to the host.
        for name in ("input_splits", "output_splits"):
            setattr(dispatcher, name, getattr(dispatcher, name).tolist())
        rows, factors = dispatcher.token_dispatch(rows, factors)
        rows, counts, factors = dispatcher.dispatch_postprocess(rows, factors)
        made = compute.products(rows, counts.tolist(), counts)
        made = (made.float() * factors[:, None]).to(x.dtype)
        made = dispatcher.token_combine(dispatcher.combine_preprocess(made))
        output: Tensor = dispatcher.combine_postprocess(made)
        return output

    def _make(self, per_token: int, compute: Experts) -> Any:
        torch.cuda.Stream = lambda: None  # type: ignore[misc,assignment]
        module = importlib.import_module("megatron.core.transformer.moe.token_dispatcher")
        config = SimpleNamespace(
            num_moe_experts=compute.linear_fc2.matrices,
            moe_router_topk=per_token,
            moe_permute_fusion=False,
            moe_pad_expert_input_to_capacity=False,
            moe_expert_capacity_factor=None,
            moe_router_padding_for_quantization=False,
            cuda_graph_impl="none",
            cuda_graph_scope=[],
        )
        groups = SimpleNamespace(ep=self.group, expt_tp=self.itself, tp_ep=self.group)
        held = [*compute.held]
        made = module.MoEAlltoAllTokenDispatcher(len(held), held, config, groups)
        made._maybe_dtoh_and_synchronize = lambda point, counts=None: counts
        return made


class _DeepSpeed:
    """DeepSpeed's layer without dropping: experts get as many slots as the busiest of all ranks needs."""

    def __init__(self, group: Group, groups: ProcessGroups) -> None:
        self.group = group
        self.deepspeed: Any = import_deepspeed(torch.device("cpu"), groups)
        self.layer: Any = None

    def run(self, x: Tensor, experts: Tensor, weights: Tensor, compute: Experts) -> Tensor:
        if self.layer is None:
            self.layer = self._make(experts.shape[1], compute)
        # Whose softmax over the chosen experts are the router's weights.
        logits = x.new_full((len(x), compute.linear_fc2.matrices), -torch.inf, dtype=torch.float32)
        output: Tensor = self.layer(x, logits.scatter(1, experts, weights.log()))
        return output

    def _make(self, per_token: int, compute: Experts) -> Any:
        from deepspeed.moe import sharded_moe

        self.deepspeed.init_distributed(dist_init_required=False)

        class Gate(torch.nn.Module):
            def forward(self, x: Tensor, logits: Tensor, *_: Any) -> Any:
                return sharded_moe.topkgating(
                    logits, per_token, 1.0, 0, drop_tokens=False, ep_group=group, sparse_routes=True
                )

            def _set_ep_group(self, group: Group) -> None:
                """It has it."""

        class Slots(torch.nn.Module):
            """[ranks, held, slots, h]: the experts' MLPs of all slots, filled or not."""

            def forward(self, x: Tensor) -> Tensor:
                ranks, held, slots, hidden = x.shape
                rows = x.transpose(0, 1).reshape(-1, hidden)
                made = compute.products(rows, [ranks * slots] * held, rows)
                return made.view(held, ranks, slots, hidden).transpose(0, 1)

        group = self.group
        layer = sharded_moe.MOELayer(Gate(), Slots(), "experts", group.size(), len(compute.held))
        layer._set_ep_group(group)
        return layer
