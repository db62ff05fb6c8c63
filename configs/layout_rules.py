"""Rules of layouts, in words. ``legal.py`` decides whether they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import gcd

from frontrunner.configs import legal
from frontrunner.configs.errors import Violation
from frontrunner.configs.facts import PLACES, Facts, UnknownError, choice, divisors, multiples, use

_PER_NODE = ("machine.packages_per_node", "machine.devices_per_package")


def nodes(f: Facts) -> Iterator[Violation]:
    limit, count = f("machine.num_nodes"), f("nodes")
    if count > limit:
        others = {"machine.num_nodes": f"must be at least nodes {count}"}
        yield f.broken("nodes", f"{f('machine.name')} has {limit}", f"use at most {limit}", others)


def tensor(f: Facts) -> Iterator[Violation]:
    """Checks one size at a time: some may be unknown, and the message names the wrong ones."""
    known = _tensor_sizes(f)
    degree = f("layout.tensor")
    wrong = [key for key, size in known.items() if not legal.divides(degree, size)]
    if wrong:
        *first, last = (_size_text(f, key, known[key]) for key in wrong)
        named = f"{', '.join(first)} and {last}" if first else last
        others = {PLACES[key]: f"must be a multiple of tensor {degree}" for key in wrong if key in PLACES}
        if "devices_per_node" in wrong:
            text = f"gives {known['devices_per_node']} devices per node, which tensor {degree} must divide"
            others |= dict.fromkeys(_PER_NODE, text)
        others |= _derived_from(wrong, degree)
        yield f.broken("layout.tensor", f"must divide {named}", use(_tensors(f), degree), others)
    elif not _fits_key_values(f, degree):
        heads, whole = f("model.num_kv_heads"), f("model.qk_norm") == "full"
        rows = 2 * heads * f("model.head_dim")
        shared = f"must divide num_kv_heads {heads}, or be a multiple of it that divides {rows} rows of keys"
        constraint = f"must divide num_kv_heads {heads} with qk_norm full" if whole else shared
        others = {"model.num_kv_heads": f"must be a multiple of tensor {degree}"}
        if whole:
            others["model.qk_norm"] = f"full needs a num_kv_heads that is a multiple of tensor {degree}"
        yield f.broken("layout.tensor", constraint, use(_tensors(f), degree), others)


def _tensor_sizes(f: Facts) -> dict[str, int]:
    """The known sizes that tensor must divide."""
    return {
        key: f.devices_per_node if key == "devices_per_node" else f(PLACES[key])
        for key in legal.TENSOR_SIZES
        if f.outcome.knows(PLACES.get(key, "machine"))
        and (key != "expert_ffn_hidden_size" or _has_experts(f))
    }


def _has_experts(f: Facts) -> bool:
    return f.outcome.knows("model.experts") and f("model.experts") is not None


def _tensors(f: Facts) -> list[int]:
    """The legal degrees, as far as sizes are known."""
    known = _tensor_sizes(f)
    fitting = (t for t in divisors(min(known.values(), default=1)) if legal.divides_all(t, known.values()))
    return [t for t in fitting if _fits_key_values(f, t)]


def _fits_key_values(f: Facts, degree: int) -> bool:
    """Whether tensor ranks can share the keys and values; True if something is unknown."""
    try:
        cut = f.cut("num_kv_heads", "head_dim")
        whole = int(f("model.qk_norm") == "full")
    except UnknownError:
        return True
    return bool(legal.tensor_fits_key_values(replace(cut, tensor=degree, whole_qk_norm=whole)))


def _derived_from(wrong: list[str], degree: int) -> dict[str, str]:
    """The keys from which wrong sizes are derived if they are not given."""
    sources = {"ffn_hidden_size": "model.hidden_size", "padded_vocab_size": "model.vocab_size"}
    said = f"must be a multiple of tensor {degree}"
    return {source: f"gives {size}, which {said}" for size, source in sources.items() if size in wrong}


def _size_text(f: Facts, key: str, size: int) -> str:
    return f"{f('machine.name')}'s {size} devices per node" if key == "devices_per_node" else f"{key} {size}"


def sequence_parallel(f: Facts) -> Iterator[Violation]:
    degree = f("layout.tensor")
    if not legal.sequence_parallel_has_ranks(f.cut("sequence_parallel", "tensor")):
        fix = "use false"
        if more := [t for t in _tensors(f) if t > 1]:
            fix += f", or set layout.tensor to {choice(more)}"
        others = {"layout.tensor": "must be greater than 1 under sequence_parallel"}
        constraint = "needs tensor greater than 1, but it is 1"
        yield f.broken("layout.sequence_parallel", constraint, fix, others)
    elif not legal.tensor_divides_sequence(f.cut("sequence_parallel", "tensor", "seq_len")):
        length = f("training.seq_len")
        fix = use(_lengths(f, length, degree))
        said = f"must divide seq_len {length} under sequence_parallel"
        others = {
            "layout.tensor": said,
            "layout.sequence_parallel": f"tensor {degree} must divide seq_len {length}",
            "model.max_position_embeddings": f"limits seq_len to {length}, which tensor {degree} must divide",
        }
        yield f.broken(
            "training.seq_len", f"must be a multiple of tensor {degree} under sequence_parallel", fix, others
        )


def _lengths(f: Facts, length: int, degree: int) -> list[int]:
    """The nearest sequence lengths that tensor ranks can share and positions allow."""
    near = multiples(length, degree)
    learned = f("model.position_embedding") == "learned"
    allowed = [m for m in near if not learned or m <= f("model.max_position_embeddings")]
    return allowed or near


def stages(f: Facts) -> Iterator[Violation]:
    layers, count, virtual = f("model.num_layers"), f("layout.pipeline"), f("layout.virtual_stages")
    cut = f.cut("num_layers", "pipeline", "virtual_stages")
    if legal.stages_divide_layers(cut):
        if not legal.interleaving_has_stages(cut):
            fix = "use 1"
            if more := [p for p in _pipelines(f) if p > 1 and layers % (p * virtual) == 0]:
                fix += f", or set layout.pipeline to {choice(more, 1)}"
            others = {"layout.pipeline": f"must be greater than 1 for virtual_stages {virtual}"}
            yield f.broken("layout.virtual_stages", "needs pipeline greater than 1, but it is 1", fix, others)
    elif layers % count:
        others = {"model.num_layers": f"must be a multiple of pipeline {count}"}
        fix = use(divisors(layers), count)
        yield f.broken("layout.pipeline", f"must divide num_layers {layers}", fix, others)
    else:
        product = f"pipeline {count} x virtual_stages {virtual} = {count * virtual}"
        constraint = f"{product} must divide num_layers {layers}"
        others = {
            "layout.pipeline": constraint,
            "model.num_layers": f"must be a multiple of {product}",
        }
        fix = use(divisors(layers // count), virtual)
        yield f.broken("layout.virtual_stages", constraint, fix, others)


def _pipelines(f: Facts) -> list[int]:
    """Numbers of stages that the layers and devices allow; none if something is unknown."""
    try:
        degree, layers, world = f("layout.tensor"), f("model.num_layers"), f("nodes") * f.devices_per_node
    except UnknownError:
        return []
    return [p for p in divisors(layers) if world % (degree * p) == 0]


def world(f: Facts) -> Iterator[Violation]:
    degree, count, machines = f("layout.tensor"), f("layout.pipeline"), f("nodes")
    devices = machines * f.devices_per_node
    fits = legal.model_ranks_divide_world(f.cut("nodes", "devices_per_node", "tensor", "pipeline"))
    if not fits and f.devices_per_node % degree == 0:  # else the violation is reported for tensor
        product = f"tensor {degree} x pipeline {count} = {degree * count}"
        constraint = f"{product} must divide the {devices} devices of {machines} nodes x {f.devices_per_node}"
        fix = use(_pipelines(f) or [1], count)
        whole = count // gcd(count, f.devices_per_node // degree)
        if fitting := [n for n in multiples(machines, whole) if n <= f("machine.num_nodes")]:
            fix += f", or set nodes to {choice(fitting)}"
        others = dict.fromkeys(("nodes", "layout.tensor", *_PER_NODE), constraint)
        yield f.broken("layout.pipeline", constraint, fix, others)


def batch(f: Facts) -> Iterator[Violation]:
    size, micro, count = f("training.global_batch_size"), f("layout.micro_batch_size"), f("layout.pipeline")
    keys = ("nodes", "devices_per_node", "tensor", "pipeline", "micro_batch_size", "global_batch_size")
    cut = f.cut(*keys, "virtual_stages")
    if not legal.model_ranks_divide_world(cut):
        return  # has its own rule
    ranks = legal.data_parallel(cut)
    # Interleaved stages also need a multiple of them: a fix must not run into the next rule.
    fitting = micro * ranks * (count if f("layout.virtual_stages") > 1 else 1)
    if not legal.ranks_divide_batch(cut):
        product = f"micro_batch_size {micro} x {ranks} data-parallel ranks = {micro * ranks}"
        fix = use(multiples(size, fitting))
        said = f"{product} must divide global_batch_size {size}"
        shape = ("nodes", "layout.micro_batch_size", "layout.tensor", "layout.pipeline", *_PER_NODE)
        constraint = f"must be a multiple of {product}"
        yield f.broken("training.global_batch_size", constraint, fix, dict.fromkeys(shape, said))
    elif not legal.stages_divide_micro_batches(cut):
        steps = legal.micro_batches(cut)
        constraint = f"interleaved stages: pipeline {count} must divide the {steps} micro-batches per step"
        fix = use(multiples(size, fitting))
        stages_of = ("layout.virtual_stages", "layout.pipeline", "layout.micro_batch_size", "nodes")
        others = dict.fromkeys((*stages_of, "layout.tensor", *_PER_NODE), constraint)
        yield f.broken("training.global_batch_size", constraint, fix, others)


def positions(f: Facts) -> Iterator[Violation]:
    limit, length = f("model.max_position_embeddings"), f("training.seq_len")
    if f("model.position_embedding") == "learned" and length > limit:
        constraint = f"exceeds the model's learned positions, max_position_embeddings {limit}"
        others = {
            "model.max_position_embeddings": f"must be at least seq_len {length} with learned positions",
            "model.position_embedding": f"has {limit} positions, fewer than seq_len {length}",
        }
        yield f.broken("training.seq_len", constraint, f"use at most {limit}", others)


LAYOUT_RULES: tuple[Callable[[Facts], Iterator[Violation]], ...] = (
    nodes,
    tensor,
    sequence_parallel,
    stages,
    world,
    batch,
    positions,
)
