"""Which layouts are legal. The loader, the planner's advice and the search all use these rules.

Each rule is a function of a :class:`Cut` and accepts numbers or arrays: the loader checks one run, a search
checks many thousands of layouts. A rule only returns whether it holds; ``rules.py`` has the messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from frontrunner.configs.schema import ModelSpec

#: An integer, or an integer array [n] with one entry per layout.
Number: TypeAlias = Any
#: True where a rule holds: a bool, or a bool array [n].
Holds: TypeAlias = Any


@dataclass(frozen=True)
class Cut:
    """All inputs of the rules. Sharding degrees are counted in data-parallel ranks."""

    num_layers: Number
    num_heads: Number
    num_kv_heads: Number
    head_dim: Number
    whole_qk_norm: Number
    ffn_hidden_size: Number
    expert_ffn_hidden_size: Number
    num_experts: Number
    padded_vocab_size: Number
    devices_per_node: Number
    nodes: Number
    seq_len: Number
    global_batch_size: Number
    tensor: Number
    sequence_parallel: Number
    pipeline: Number
    virtual_stages: Number
    micro_batch_size: Number
    weights: Number = 1
    gradients: Number = 1
    optimizer: Number = 1
    secondary: Number = 1
    expert: Number = 1

    @classmethod
    def of(cls, model: ModelSpec, devices_per_node: int, **others: Number) -> Cut:
        """Build from the model's sizes; a dense layer counts as one expert."""
        experts = model.experts
        sizes = ("num_layers", "num_heads", "num_kv_heads", "head_dim", "ffn_hidden_size")
        own = {size: getattr(model, size) for size in (*sizes, "padded_vocab_size")}
        return cls(
            **own,
            expert_ffn_hidden_size=experts.ffn_hidden_size if experts else model.ffn_hidden_size,
            num_experts=experts.num_experts if experts else 1,
            whole_qk_norm=int(model.qk_norm == "full"),
            devices_per_node=devices_per_node,
            **others,
        )


#: Sizes that ``tensor`` must divide.
TENSOR_SIZES = (
    "num_heads",
    "ffn_hidden_size",
    "expert_ffn_hidden_size",
    "padded_vocab_size",
    "devices_per_node",
)


def divides(part: Number, whole: Number) -> Holds:
    return whole % part == 0


def divides_all(part: Number, wholes: Iterable[Number]) -> Holds:
    holds: Holds = True
    for whole in wholes:
        holds = holds & divides(part, whole)
    return holds


def tensor_divides_sizes(cut: Cut) -> Holds:
    return divides_all(cut.tensor, [getattr(cut, name) for name in TENSOR_SIZES])


def tensor_fits_key_values(cut: Cut) -> Holds:
    """Ranks hold whole key and value heads, or as many ranks share each and cut its projection evenly.

    A norm over all keys (qk_norm full) needs whole ones.
    """
    shared = divides(cut.num_kv_heads, cut.tensor) & divides(cut.tensor, 2 * cut.num_kv_heads * cut.head_dim)
    return divides(cut.tensor, cut.num_kv_heads) | (shared & (cut.whole_qk_norm == 0))


def sequence_parallel_has_ranks(cut: Cut) -> Holds:
    return (cut.sequence_parallel == 0) | (cut.tensor > 1)


def tensor_divides_sequence(cut: Cut) -> Holds:
    """Sequence parallelism splits the sequence over the tensor ranks."""
    return (cut.sequence_parallel == 0) | (cut.seq_len % cut.tensor == 0)


def stages_divide_layers(cut: Cut) -> Holds:
    return cut.num_layers % (cut.pipeline * cut.virtual_stages) == 0


def interleaving_has_stages(cut: Cut) -> Holds:
    return (cut.virtual_stages == 1) | (cut.pipeline > 1)


def model_ranks_divide_world(cut: Cut) -> Holds:
    return cut.nodes * cut.devices_per_node % (cut.tensor * cut.pipeline) == 0


def ranks_divide_batch(cut: Cut) -> Holds:
    return cut.global_batch_size % (cut.micro_batch_size * data_parallel(cut)) == 0


def stages_divide_micro_batches(cut: Cut) -> Holds:
    """The interleaved schedule takes micro-batches in groups of one per stage."""
    return (cut.virtual_stages == 1) | (micro_batches(cut) % cut.pipeline == 0)


def degrees_nest(cut: Cut) -> Holds:
    """secondary | weights | gradients | optimizer | data-parallel ranks; 0 is not a degree."""
    chain = (cut.secondary, cut.weights, cut.gradients, cut.optimizer, data_parallel(cut))
    holds: Holds = True
    for inner, outer in zip(chain, chain[1:], strict=False):
        holds = holds & (inner > 0) & (outer % (inner + (inner == 0)) == 0)
    return holds


def expert_ranks_divide_experts(cut: Cut) -> Holds:
    return cut.num_experts % cut.expert == 0


def expert_ranks_divide_data(cut: Cut) -> Holds:
    return data_parallel(cut) % cut.expert == 0


def degrees_fit_experts(cut: Cut) -> Holds:
    """A block of ranks that share state has one copy of all experts or more, or a whole part of one."""
    holds: Holds = True
    for degree in (cut.secondary, cut.weights, cut.gradients, cut.optimizer):
        holds = holds & ((degree % cut.expert == 0) | (cut.expert % (degree + (degree == 0)) == 0))
    return holds


#: All rules. If an earlier one is broken, the result of a later one is meaningless.
RULES: tuple[Callable[[Cut], Holds], ...] = (
    tensor_divides_sizes,
    tensor_fits_key_values,
    sequence_parallel_has_ranks,
    tensor_divides_sequence,
    stages_divide_layers,
    interleaving_has_stages,
    model_ranks_divide_world,
    ranks_divide_batch,
    stages_divide_micro_batches,
    degrees_nest,
    expert_ranks_divide_experts,
    expert_ranks_divide_data,
    degrees_fit_experts,
)


def legal(cut: Cut) -> Holds:
    """Whether all rules hold."""
    holds: Holds = True
    for rule in RULES:
        holds = holds & rule(cut)
    return holds


def data_parallel(cut: Cut) -> Number:
    """Data-parallel ranks: devices / (tensor x pipeline), at least 1."""
    ranks = cut.nodes * cut.devices_per_node // (cut.tensor * cut.pipeline)
    return ranks + (ranks == 0)


def micro_batches(cut: Cut) -> Number:
    """Micro-batches per data-parallel rank and step."""
    return cut.global_batch_size // (cut.micro_batch_size * data_parallel(cut))


def ranks_sharing(span: int, tensor: Number, data: Number) -> Number:
    """How many of ``data`` data-parallel ranks share a package or node of ``span`` devices; 0: it varies.

    The data-parallel ranks of a stage are ``tensor`` apart, and stages are consecutive. So they fill whole
    spans exactly if their number is a multiple or a divisor of the ranks that one span holds. The devices
    of all stages, ``tensor * data * pipeline``, must be a multiple of ``span``.
    """
    held = span // tensor + (tensor > span)
    alone = (tensor >= span) | (data == 1)
    even = alone | ((span % tensor == 0) & ((data % held == 0) | (held % data == 0)))
    fewest = held * (held <= data) + data * (held > data)
    return even * (alone + fewest * (1 - alone))
