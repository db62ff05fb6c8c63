"""FLOPs that torch counts, for tests."""

from __future__ import annotations

import torch.distributed as dist
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import set_checkpoint_early_stop
from torch.utils.flop_counter import FlopCounterMode

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.rendezvous import Rendezvous
from support.training import Patterns, make_trainer


def counted_flops(rendezvous: Rendezvous, spec: RunSpec) -> int:
    """Of the matrix products and the attention in one step."""
    trainer = make_trainer(rendezvous, spec)
    # The counter does not know the fused attention of CPUs. Of the plain one, recomputation would leave out
    # the product with V, whose result nothing needs; a fused kernel cannot.
    with (
        sdpa_kernel(SDPBackend.MATH),
        set_checkpoint_early_stop(False),
        FlopCounterMode(display=False) as counter,
    ):
        trainer.step(0, Patterns(spec))
    trainer.settle()
    dist.destroy_process_group()
    return int(counter.get_total_flops())
