"""What engines really keep and send: ours, and those of published runs.

If an engine departs from the lattice of sharding degrees, its entry says by how much and why. Bytes are per
parameter.
"""

from __future__ import annotations

from dataclasses import dataclass

#: The backward of flash attention does 2.5 times the work of its forward (Dao 2023, arXiv 2307.08691).
FLASH_BACKWARD = 2.5
#: Assumed. Switch Transformers leave room for so many times the mean, and drop under 1 % of tokens with a
#: load-balancing loss (Fedus et al. 2021, arXiv 2101.03961).
EXPERT_IMBALANCE = 1.25


@dataclass(frozen=True)
class EngineProfile:
    """How one engine spends memory and hides communication.

    ``kept``: bytes per parameter of (weights, gradients, optimizer) before the degrees divide them; None:
    from the run's precision. ``whole_gradients``: bytes per parameter added at the peak. ``tied``: bytes
    per embedding parameter at rest on the (first, last) stage; ``ties_positions`` includes positions.
    ``residual_bytes``: always allocated. ``allocator_share``: share of the tensors lost to fragmentation.
    ``communicator_bytes``: of each communicator; ``shares_communicators``: one for each set of ranks.
    ``fused_attention``: scores are never stored. ``dropout``: masks are stored.
    ``fused_operators``: norms, activations and residuals run in fused kernels.
    ``recomputed_share``: share of a layer's products that selective recomputation repeats (None: attention
    only). ``reduced_bytes``: bytes per gradient on the wire, if not the wire format. ``all_reduces``: all
    gradients are reduced at the end of a step, then weights are gathered. ``split_messages``: stages send
    slices of tensor ranks. ``scatters``: gradients are reduced by the library's reduce-scatter, not by an
    all-to-all. ``gathers_per_layer``: messages in which a layer's weights are gathered. ``speed``: its matrix
    products over those of the machine's software. ``attention_backward``: time of the backward of attention
    over its forward. ``expert_imbalance``: tokens of the busiest rank's experts over the mean.
    """

    name: str
    reason: str
    kept: tuple[float, float, float] | None = None
    whole_gradients: float = 0.0
    tied: tuple[float, float] = (0.0, 0.0)
    residual_bytes: float = 0.0
    allocator_share: float = 0.0
    communicator_bytes: float = 0.0
    shares_communicators: bool = False
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
    scatters: bool = False
    gathers_per_layer: int = 1
    speed: float = 1.0
    attention_backward: float = FLASH_BACKWARD
    expert_imbalance: float = EXPERT_IMBALANCE


NATIVE = EngineProfile(
    "native",
    "frontrunner's own: gathers and reductions overlap computing, and weights are kept in the wire format; "
    "the allocator's loss is the middle of four MI250X logs (11 to 22 %); the memory per communicator is "
    "inferred from NVIDIA's (544 to 688 MB on A100, NVIDIA/nccl#964; 10 MiB for each channel of a "
    "connection, NVIDIA/nccl#1685), with about 24 channels",
    allocator_share=0.15,
    communicator_bytes=256 * 2**20,
)
MEGATRON_DEEPSPEED_BF16 = EngineProfile(
    "megatron-deepspeed-bf16",
    "BF16_Optimizer keeps bfloat16 weights, bfloat16 gradients and float32 gradients whole (2 + 2 + 4). It "
    "cuts the optimizer's 12 over all ranks, whatever the configured ZeRO stage. Nothing overlaps. The last "
    "stage holds a second set of gradients of the tied embedding (inferred from its log)",
    speed=1.021,
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
    "float16 weights are whole (2); float16 gradients (2) and the optimizer (12) are cut over all ranks. "
    "Gradients are whole until a step ends. The tied embedding's stay whole on both end stages, twice on "
    "the last (inferred from its log)",
    speed=0.997,
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
    "DeepSpeed's ZeRO-1 under GPT-NeoX: one all-reduce of 16-bit gradients and one gather of weights per "
    "step, after the backward",
    speed=0.884,
    kept=(2, 2, 12),
    whole_gradients=2,
    fused_attention=False,
    overlaps_gradients=False,
    overlaps_weights=False,
    all_reduces=True,
)
MEGATRON_DISTRIBUTED_OPTIMIZER = EngineProfile(
    "megatron-distributed-optimizer",
    "bfloat16 weights and float32 gradients are whole; the optimizer is cut over all ranks. Its reduction "
    "and the gather of weights are set to overlap",
    speed=1.085,
    kept=(2, 4, 12),
    scatters=True,
)
FSDP2 = EngineProfile(
    "fsdp2",
    "PyTorch's fully_shard: float32 weights are cut over all ranks and gathered in bfloat16; gradients are "
    "reduced in float32; operators run in eager PyTorch",
    speed=1.024,
    kept=(4, 4, 8),
    fused_operators=False,
    recomputed_share=0.5,
    reduced_bytes=4,
    scatters=True,
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
