"""Mixtures of experts in Megatron-LM's arguments.

Checked at core_v0.16.1: ``topk_routing_with_score_function`` and ``switch_load_balancing_loss_func``
(core/transformer/moe/moe_utils.py), and ``moe_freq_type`` (training/arguments.py). Its loss of each sequence
(seq_aux_loss) is ours.
"""

from __future__ import annotations

from itertools import groupby

from frontrunner.configs.schema import RunSpec
from frontrunner.launcher.exporters.target import Refusals


def check_experts(refusals: Refusals, spec: RunSpec, sharding: str) -> None:
    """Requires a router that it has, and what its dispatcher and FSDP were checked with."""
    experts, layout = spec.model.experts, spec.layout
    if experts is None:
        return
    several = experts.experts_per_token > 1
    refusals.unless(
        experts.router != "sigmoid" or experts.normalize or not several,
        "model.experts.normalize",
        False,
        "it always normalizes the sigmoids of several experts",
        "use true",
    )
    refusals.unless(
        several or not experts.normalize,
        "model.experts.normalize",
        True,
        "with one expert a token it does not normalize, or its router learns nothing",
        "use false",
    )
    refusals.unless(
        layout.dispatch_wire == "exact",
        "layout.dispatch_wire",
        layout.dispatch_wire,
        "it sends tokens as they are",
        "use exact",
    )
    refusals.unless(
        layout.expert == 1 or sharding not in ("zero2", "zero3"),
        "layout.expert",
        layout.expert,
        "expert ranks were not checked with its FSDP (sharded weights or gradients)",
        "use 1, or preset zero1",
    )


def expert_arguments(spec: RunSpec) -> dict[str, object]:
    """The arguments of the mixture and its ranks; none for a dense model."""
    model, experts = spec.model, spec.model.experts
    if experts is None:
        return {}
    found: dict[str, object] = {
        "--num-experts": experts.num_experts,
        "--moe-router-topk": experts.experts_per_token,
        "--moe-ffn-hidden-size": experts.ffn_hidden_size,
        "--moe-router-load-balancing-type": "seq_aux_loss" if experts.aux_loss else "none",
        "--moe-router-score-function": experts.router,
        "--moe-router-dtype": "fp32",
        "--moe-token-dispatcher-type": "alltoall",
        "--expert-model-parallel-size": spec.layout.expert,
    }
    if experts.num_sparse(model.num_layers) < model.num_layers:
        sparse = experts.sparse_layers(model.num_layers)
        runs = ((value, len([*layers])) for value, layers in groupby(sparse))
        found["--moe-layer-freq"] = "(" + "+".join(f"[{value:d}]*{count}" for value, count in runs) + ")"
    if experts.aux_loss:
        found["--moe-aux-loss-coeff"] = experts.aux_loss
    if experts.z_loss:
        found["--moe-z-loss-coeff"] = experts.z_loss
    if experts.router == "softmax" and not experts.normalize:
        found["--moe-router-pre-softmax"] = True
    if experts.shared_experts:
        width = experts.shared_experts * experts.ffn_hidden_size
        found["--moe-shared-expert-intermediate-size"] = width
    if experts.shared_gate:
        found["--moe-shared-expert-gate"] = True
    return found
