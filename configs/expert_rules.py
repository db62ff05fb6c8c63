"""Rules of mixtures of experts, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from frontrunner.configs import legal
from frontrunner.configs.errors import Violation
from frontrunner.configs.facts import Facts, divisors, use


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
    layers, every = f("model.num_layers"), experts.every
    if not any(experts.sparse_layers(layers)):
        constraint = f"leaves none of {layers} layers with experts (every is {every})"
        others = dict.fromkeys(
            ("model.num_layers", "model.experts.every"), f"first_dense_layers {constraint}"
        )
        fix = (
            f"use at most {layers - every}" if layers >= every else "use 0, and set model.experts.every to 1"
        )
        yield f.broken("model.experts.first_dense_layers", constraint, fix, others)


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
    count = f("model.experts.num_experts")
    if not legal.expert_ranks_divide_experts(f.cut("num_experts", "expert")):
        others = {"model.experts.num_experts": f"must be a multiple of expert {degree}"}
        yield f.broken(
            "layout.expert", f"must divide num_experts {count}", use(divisors(count), degree), others
        )
        return
    cut = f.cut("nodes", "devices_per_node", "tensor", "pipeline", "expert")
    if legal.model_ranks_divide_world(cut) and not legal.expert_ranks_divide_data(cut):
        ranks = legal.data_parallel(cut)
        constraint = f"must divide the {ranks} data-parallel ranks"
        shape = ("nodes", "layout.tensor", "layout.pipeline", "machine.packages_per_node")
        others = dict.fromkeys(
            (*shape, "machine.devices_per_package"),
            f"expert {degree} must divide {ranks} data-parallel ranks",
        )
        fitting = [d for d in divisors(ranks) if count % d == 0]
        yield f.broken("layout.expert", constraint, use(fitting, degree), others)


EXPERT_RULES: tuple[Callable[[Facts], Iterator[Violation]], ...] = (
    experts_per_token,
    sparse_layers,
    shared_gate,
    biases,
    compiled,
    expert_ranks,
    communicators,
)
