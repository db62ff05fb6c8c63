"""What layouts are legal. Nothing else says it: the loader, layouts, the planner's advice and search ask it.

Each rule is a function of a :class:`Cut`, and takes numbers and arrays of numbers alike: the loader asks
about one run, a search about many thousands of layouts. A rule says only whether it holds; ``rules.py`` has
the words for people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from frontrunner.configs.schema import ModelSpec

#: A whole number, or an integer array [n] of one for each layout.
Number: TypeAlias = Any
#: True where a rule holds: a bool, or an array [n] of them.
Holds: TypeAlias = Any


@dataclass(frozen=True)
class Cut:
    """All that legality depends on. Degrees of sharding are numbers of data-parallel ranks."""

    num_layers: Number
    num_heads: Number
    num_kv_heads: Number
    ffn_hidden_size: Number
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

    @classmethod
    def of(cls, model: ModelSpec, devices_per_node: int, **others: Number) -> Cut:
        """With the model's sizes."""
        sizes = ("num_layers", "num_heads", "num_kv_heads", "ffn_hidden_size", "padded_vocab_size")
        own = {size: getattr(model, size) for size in sizes}
        return cls(**own, devices_per_node=devices_per_node, **others)


#: What the tensor ranks cut, or fill: each of these must be a multiple of ``tensor``.
TENSOR_SIZES = ("num_heads", "num_kv_heads", "ffn_hidden_size", "padded_vocab_size", "devices_per_node")


def divides(part: Number, whole: Number) -> Holds:
    return whole % part == 0


def divides_all(part: Number, wholes: Iterable[Number]) -> Holds:
    holds: Holds = True
    for whole in wholes:
        holds = holds & divides(part, whole)
    return holds


def tensor_divides_sizes(cut: Cut) -> Holds:
    return divides_all(cut.tensor, [getattr(cut, name) for name in TENSOR_SIZES])


def sequence_parallel_has_ranks(cut: Cut) -> Holds:
    return (cut.sequence_parallel == 0) | (cut.tensor > 1)


def tensor_divides_sequence(cut: Cut) -> Holds:
    """Under sequence parallelism, which cuts it."""
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
    """Under the interleaved schedule, which takes them in groups of one a stage."""
    return (cut.virtual_stages == 1) | (micro_batches(cut) % cut.pipeline == 0)


def degrees_nest(cut: Cut) -> Holds:
    """secondary | weights | gradients | optimizer | data-parallel ranks; a degree of 0 is no degree."""
    chain = (cut.secondary, cut.weights, cut.gradients, cut.optimizer, data_parallel(cut))
    holds: Holds = True
    for inner, outer in zip(chain, chain[1:], strict=False):
        holds = holds & (inner > 0) & (outer % (inner + (inner == 0)) == 0)
    return holds


#: All rules. Where an earlier one is broken, a later one may say anything.
RULES: tuple[Callable[[Cut], Holds], ...] = (
    tensor_divides_sizes,
    sequence_parallel_has_ranks,
    tensor_divides_sequence,
    stages_divide_layers,
    interleaving_has_stages,
    model_ranks_divide_world,
    ranks_divide_batch,
    stages_divide_micro_batches,
    degrees_nest,
)


def legal(cut: Cut) -> Holds:
    """Whether all rules hold."""
    holds: Holds = True
    for rule in RULES:
        holds = holds & rule(cut)
    return holds


def data_parallel(cut: Cut) -> Number:
    """Data-parallel ranks: what tensor and pipeline ranks leave of the devices; 1 at least."""
    ranks = cut.nodes * cut.devices_per_node // (cut.tensor * cut.pipeline)
    return ranks + (ranks == 0)


def micro_batches(cut: Cut) -> Number:
    """Micro-batches that a data-parallel rank runs in a step."""
    return cut.global_batch_size // (cut.micro_batch_size * data_parallel(cut))


def ranks_sharing(span: int, tensor: Number, data: Number) -> Number:
    """How many of ``data`` data-parallel ranks share a package or node of ``span`` devices; 0: it varies.

    Data-parallel ranks of one stage are ``tensor`` apart, and stages follow each other. So they fill whole
    spans exactly where their number is a multiple or a divisor of what one span holds. The devices of all
    stages, ``tensor * data * pipeline``, must be a multiple of ``span``.
    """
    held = span // tensor + (tensor > span)
    alone = (tensor >= span) | (data == 1)
    even = alone | ((span % tensor == 0) & ((data % held == 0) | (held % data == 0)))
    fewest = held * (held <= data) + data * (held > data)
    return even * (alone + fewest * (1 - alone))
