"""Rules of mixtures of experts, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from frontrunner.configs import legal
from frontrunner.configs.errors import Violation
from frontrunner.configs.facts import Facts, UnknownError, divisors, use


def experts_per_token(f: Facts) -> Iterator[Violation]:
    if f("model.experts") is None:
        return
    chosen, count = f("model.experts.experts_per_token"), f("model.experts.num_experts")
    if chosen > count:
        others = {"model.experts.num_experts": f"must be at least experts_per_token {chosen}"}
        yield f.broken(
            "model.experts.experts_per_token",
            f"must be at most num_experts {count}",
            f"use at most {count}",
            others,
        )


def sparse_layers(f: Facts) -> Iterator[Violation]:
    experts = f("model.experts")
    if experts is None:
        return
    layers, first, every = f("model.num_layers"), experts.first_dense_layers, experts.every
    if experts.num_sparse(layers):
        return
    keys = {"model.num_layers", "model.experts.first_dense_layers", "model.experts.every"}
    said = f"first_dense_layers {first} and every {every} leave none of {layers} layers with experts"
    if every > layers:
        key, constraint = "model.experts.every", f"leaves none of {layers} layers with experts"
        fix = f"use at most {layers - first}" if first < layers else "use 1"
    else:
        key, constraint = "model.experts.first_dense_layers", f"leaves none of {layers} layers with experts"
        fix = f"use at most {layers - every}"
    yield f.broken(key, constraint, fix, dict.fromkeys(keys - {key}, said))


def shared_gate(f: Facts) -> Iterator[Violation]:
    if f("model.experts") is None:
        return
    if f("model.experts.shared_gate") and not f("model.experts.shared_experts"):
        others = {"model.experts.shared_experts": "must be at least 1 for shared_gate"}
        constraint = "needs shared_experts, but there are 0"
        fix = "use false, or set model.experts.shared_experts to 1"
        yield f.broken("model.experts.shared_gate", constraint, fix, others)


def biases(f: Facts) -> Iterator[Violation]:
    if f("model.experts") is not None and f("model.linear_bias"):
        others = {"model.experts": "needs model.linear_bias false: experts have no biases"}
        constraint = "must be false with model.experts, which have no biases"
        yield f.broken("model.linear_bias", constraint, "use false", others)


def compiled(f: Facts) -> Iterator[Violation]:
    if f("model.experts") is not None and f("training.compile"):
        others = {"model.experts": "cannot be compiled: sizes of messages depend on the tokens"}
        constraint = "is not supported with model.experts, whose messages have no fixed sizes"
        yield f.broken("training.compile", constraint, "use false", others)


def communicators(f: Facts) -> Iterator[Violation]:
    """Tokens and gradients that share one would be sent in an order that depends on timing."""
    degree = f("layout.expert")
    if degree > 1 and f("layout.sharding.communicators") == "shared":
        constraint = f"must be separate with layout.expert {degree}"
        others = {"layout.expert": "must be 1 with layout.sharding.communicators shared"}
        yield f.broken("layout.sharding.communicators", constraint, "use separate", others)


def expert_ranks(f: Facts) -> Iterator[Violation]:
    degree = f("layout.expert")
    if f("model.experts") is None:
        if degree > 1:
            others = {"model.experts": f"must be set for layout.expert {degree}"}
            yield f.broken("layout.expert", "needs model.experts", "use 1", others)
        return
    count, ranks = f("model.experts.num_experts"), _data_ranks(f)
    fitting = [d for d in divisors(count) if ranks is None or ranks % d == 0]
    if not legal.expert_ranks_divide_experts(f.cut("num_experts", "expert")):
        others = {"model.experts.num_experts": f"must be a multiple of expert {degree}"}
        fix = use(fitting, degree)
        yield f.broken("layout.expert", f"must divide num_experts {count}", fix, others)
    elif ranks is not None and ranks % degree:
        constraint = f"must divide the {ranks} data-parallel ranks"
        shape = ("nodes", "layout.tensor", "layout.pipeline", "machine.packages_per_node")
        said = f"expert {degree} must divide {ranks} data-parallel ranks"
        others = dict.fromkeys((*shape, "machine.devices_per_package"), said)
        yield f.broken("layout.expert", constraint, use(fitting, degree), others)


def _data_ranks(f: Facts) -> int | None:
    """Data-parallel ranks; None if unknown, or if tensor and pipeline do not divide the devices."""
    try:
        cut = f.cut("nodes", "devices_per_node", "tensor", "pipeline")
    except UnknownError:
        return None
    return int(legal.data_parallel(cut)) if legal.model_ranks_divide_world(cut) else None


EXPERT_RULES: tuple[Callable[[Facts], Iterator[Violation]], ...] = (
    experts_per_token,
    sparse_layers,
    shared_gate,
    biases,
    compiled,
    expert_ranks,
    communicators,
)
