"""What engines really keep and send, ours and those of published runs.

Where an engine departs from the lattice of sharding degrees, its entry says by how much and why. Bytes are
a parameter's.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineProfile:
    """How one engine spends memory and hides communication.

    ``kept`` are (weights, gradients, optimizer) in bytes a parameter before the degrees divide them; None:
    from the run's precision. ``whole_gradients`` bytes a parameter are added at the peak, ``tied`` bytes a
    parameter of the embedding at rest on the (first, last) stage, to which positions belong with
    ``ties_positions``. ``residual_bytes`` are always there, ``allocator_share`` of the tensors is lost to
    fragments, ``communicator_bytes`` go to each group of ranks. ``fused_attention``: scores are never
    stored; ``dropout``: its masks are. ``fused_operators``: norms, activations and residuals run in fused
    kernels. ``recomputed_share`` of a layer's products is computed again with selective recomputation (None:
    attention alone). ``reduced_bytes`` a gradient travel where not in the wire format, ``all_reduces``: all
    gradients at the end of a step, after which weights are gathered. ``split_messages``: stages send
    slices of tensor ranks.
    """

    name: str
    reason: str
    kept: tuple[float, float, float] | None = None
    whole_gradients: float = 0.0
    tied: tuple[float, float] = (0.0, 0.0)
    residual_bytes: float = 0.0
    allocator_share: float = 0.0
    communicator_bytes: float = 0.0
    split_messages: bool = False
    fused_attention: bool = True
    dropout: bool = False
    fused_operators: bool = True
    ties_positions: bool = False
    recomputed_share: float | None = None
    overlaps_gradients: bool = True
    overlaps_weights: bool = True
    reduced_bytes: float | None = None
    all_reduces: bool = False


NATIVE = EngineProfile(
    "native",
    "frontrunner's own: gathers and reductions run beside computing, weights are kept as they travel; "
    "what the allocator loses is the middle of four logs of MI250X runs (11 to 22 %), what a communicator "
    "takes is inferred from NVIDIA's (544 to 688 MB on A100) with fewer channels",
    allocator_share=0.15,
    communicator_bytes=256 * 2**20,
)
MEGATRON_DEEPSPEED_BF16 = EngineProfile(
    "megatron-deepspeed-bf16",
    "BF16_Optimizer keeps bfloat16 weights and gradients and float32 gradients whole (2 + 2 + 4), and cuts "
    "the optimizer's 12 over all ranks whatever the ZeRO stage in the configuration; nothing overlaps. The "
    "last stage holds a second set of gradients of the tied embedding (inferred from its log)",
    kept=(2, 6, 12),
    tied=(0, 6),
    ties_positions=True,
    residual_bytes=39 * 2**20,
    split_messages=True,
    fused_attention=False,
    dropout=True,
    overlaps_gradients=False,
    overlaps_weights=False,
    all_reduces=True,
)
MEGATRON_DEEPSPEED_FP16_ZERO1 = EngineProfile(
    "megatron-deepspeed-fp16-zero1",
    "float16 weights whole (2), float16 gradients (2) and the optimizer (12) cut over all ranks once a step "
    "has ended; before, gradients are whole. Those of the tied embedding stay whole on both ends, twice on "
    "the last (inferred from its log)",
    kept=(2, 2, 12),
    whole_gradients=2,
    tied=(1, 3),
    ties_positions=True,
    residual_bytes=28 * 2**20,
    split_messages=True,
    dropout=True,
    overlaps_gradients=False,
    overlaps_weights=False,
    all_reduces=True,
)
GPT_NEOX_ZERO1 = EngineProfile(
    "gpt-neox-zero1",
    "DeepSpeed's ZeRO-1 below GPT-NeoX: an all-reduce of 16-bit gradients and a gather of weights once a "
    "step, after the backward",
    kept=(2, 2, 12),
    whole_gradients=2,
    fused_attention=False,
    overlaps_gradients=False,
    overlaps_weights=False,
    all_reduces=True,
)
MEGATRON_DISTRIBUTED_OPTIMIZER = EngineProfile(
    "megatron-distributed-optimizer",
    "bfloat16 weights and float32 gradients whole, the optimizer cut over all ranks; its reduction and the "
    "gather of weights are told to overlap",
    kept=(2, 4, 12),
)
FSDP2 = EngineProfile(
    "fsdp2",
    "PyTorch's fully_shard: float32 weights cut over all ranks, gathered in bfloat16, gradients reduced in "
    "float32; operators of eager PyTorch",
    kept=(4, 4, 8),
    fused_operators=False,
    recomputed_share=0.5,
    reduced_bytes=4,
)
PRACTICES = {
    profile.name: profile
    for profile in (
        NATIVE,
        MEGATRON_DEEPSPEED_BF16,
        MEGATRON_DEEPSPEED_FP16_ZERO1,
        GPT_NEOX_ZERO1,
        MEGATRON_DISTRIBUTED_OPTIMIZER,
        FSDP2,
    )
}
