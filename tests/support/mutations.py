"""Faults put into the runtime of a rank, each of which the equality of losses must reveal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from megatron.core.tensor_parallel.mappings import gather_from_tensor_model_parallel_region
from megatron.core.transformer.transformer_config import TransformerConfig

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import Groups, Layout
from frontrunner.parallelism.runtime import trainer
from frontrunner.parallelism.runtime.experts import layer
from frontrunner.parallelism.runtime.experts.dispatch import Dispatcher
from frontrunner.parallelism.runtime.experts.layer import Experts
from frontrunner.parallelism.runtime.experts.load import Load
from frontrunner.parallelism.runtime.gpt import attention
from frontrunner.parallelism.runtime.gpt.config import transformer_config
from frontrunner.parallelism.runtime.process_groups import ProcessGroups
from frontrunner.parallelism.runtime.sharding import parameters
from frontrunner.parallelism.runtime.sharding.reduction import Reducer
from frontrunner.parallelism.runtime.sharding.shard_unit import Geometry, ShardUnit
from frontrunner.parallelism.runtime.sharding.weights import Gatherer

_config = transformer_config
_groups = Layout.groups
_of = Geometry.of
_collect = Reducer.collect
_within_block = Reducer.within_block
_encode = Reducer._encode
_counts = Dispatcher._counts
_forward = Experts.forward


def _nothing(*_: Any) -> None:
    return None


def _network_hop_crosses_devices(self: Layout, rank: int) -> Groups:
    """Each rank meets the other device of its counterpart on the other node (16 ranks, 2 nodes)."""
    return _groups(self, rank)._replace(network_hop=tuple(sorted((rank, (rank + 8) % 16 ^ 1))))


def _shards_in_rank_order(numel: int, layout: Layout, position: Any, alignment: int) -> Geometry:
    """Every rank takes the shard of its neighbour in the node."""
    parts = layout.gradients // layout.weights
    moved = position._replace(gradients=(position.gradients + 1) % parts)
    right, wrong = _of(numel, layout, position, alignment), _of(numel, layout, moved, alignment)
    return Geometry(right.padded, right.weights, wrong.gradients, wrong.optimizer)


def _drop_one_parameter(self: Reducer, unit: ShardUnit, key: str, gradient: torch.Tensor) -> None:
    _collect(self, unit, key, gradient * 0 if key.endswith("linear_fc2.weight") else gradient)


def _drop_one_element(self: Reducer, unit: ShardUnit, key: str, gradient: torch.Tensor) -> None:
    if key.endswith("layers.0.mlp.linear_fc2.weight"):
        gradient = gradient.clone()
        gradient[-1, -1] = 0
    _collect(self, unit, key, gradient)


def _round_to_sixteen_bits(self: Reducer, chunks: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, int]:
    return _encode(self, chunks.bfloat16(), *rest)


def _no_gather(self: Gatherer, unit: ShardUnit) -> None:
    unit.encode_master()


def _stop_before_the_network(self: Reducer, unit: ShardUnit, last: bool) -> None:
    _within_block(self, unit, False)


def _stop_before_the_block(self: Reducer, unit: ShardUnit, last: bool) -> None:
    if last:
        self._network_stream(unit).submit(self._network_job(unit))


def _first_micro_batch_only(self: Reducer, unit: ShardUnit, key: str, gradient: torch.Tensor) -> None:
    seen = self.__dict__.setdefault("seen", set())
    _collect(self, unit, key, gradient * 0 if (unit, key) in seen else gradient)
    seen.add((unit, key))


def _megatrons_default_hops(spec: RunSpec) -> TransformerConfig:
    config = _config(spec)
    config.overlap_p2p_comm, config.batch_p2p_comm, config.batch_p2p_sync = False, True, False
    return config


def _itself(groups: ProcessGroups) -> ProcessGroups:
    return groups


def _lose_a_token(self: Dispatcher, hop: Any, went: torch.Tensor) -> tuple[list[int], list[int]]:
    """The last row of the last member is not sent: rows are in the order of members."""
    went = went.clone()
    went[-1] -= int(went[-1] > 0)
    return _counts(self, hop, went)


def _swap_weights(self: Experts, x: torch.Tensor, experts: torch.Tensor, weights: torch.Tensor) -> Any:
    return _forward(self, x, experts, weights.roll(1, 1))


def _patch(owner: Any, name: str, value: Any) -> Callable[[], None]:
    return lambda: setattr(owner, name, value)


MUTATIONS: dict[str, Callable[[], None]] = {
    "network hop joins the wrong ranks": _patch(Layout, "groups", _network_hop_crosses_devices),
    "no reduction across the network": _patch(Reducer, "within_block", _stop_before_the_network),
    "no reduction inside the node": _patch(Reducer, "within_block", _stop_before_the_block),
    "no reduction over tensor ranks and tied stages": _patch(Reducer, "across_tensor_ranks", _nothing),
    "a shard of the neighbour": _patch(Geometry, "of", staticmethod(_shards_in_rank_order)),
    "a parameter's gradient dropped": _patch(Reducer, "collect", _drop_one_parameter),
    "an element's gradient dropped": _patch(Reducer, "collect", _drop_one_element),
    "gradients travel in sixteen bits": _patch(Reducer, "_encode", _round_to_sixteen_bits),
    "updated weights not gathered": _patch(Gatherer, "update", _no_gather),
    "megatron's default hops": _patch(trainer, "transformer_config", _megatrons_default_hops),
    "a norm of all heads sees only its rank's": _patch(attention, "_summed", lambda values, _: values),
    "a head's norm learns from its rank's heads": _patch(parameters, "_sees_a_part", lambda *_: False),
    "a shared key learns from one rank": _patch(
        attention, "all_gather_last_dim_from_tensor_parallel_region", gather_from_tensor_model_parallel_region
    ),
    "accumulation stops after one micro-batch": _patch(Reducer, "collect", _first_micro_batch_only),
}
#: Of experts, where a model has some.
EXPERT_MUTATIONS: dict[str, Callable[[], None]] = {
    "experts are reduced like other parameters": _patch(
        ProcessGroups, "experts", property(lambda self: self)
    ),
    "a token is lost on its way": _patch(Dispatcher, "_counts", _lose_a_token),
    "a token has the weight of its other expert": _patch(Experts, "forward", _swap_weights),
    "the balancing loss counts each micro-batch as a step": _patch(
        Load, "loss_factor", property(lambda self: lambda: 1.0, _nothing)
    ),
    "the router learns from one tensor rank": _patch(
        layer, "copy_to_tensor_model_parallel_region", lambda values, group: values
    ),
}
