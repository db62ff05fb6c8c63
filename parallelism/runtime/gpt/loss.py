"""Cross entropy over a vocabulary that is cut over tensor ranks."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from megatron.core.tensor_parallel.cross_entropy import VocabParallelCrossEntropy as Pieces

from frontrunner.parallelism.runtime.process_groups import Group


def vocabulary_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, vocab_size: int, group: Group
) -> torch.Tensor:
    """Loss per token in nats, float32, shaped as ``labels``.

    ``logits`` is this rank's slice, [..., padded_vocab_size / tensor], and is modified; ``labels`` holds
    global indices below ``vocab_size``. Padding of the vocabulary is excluded, so the loss does not depend
    on it.
    """
    real = max(0, vocab_size - group.rank() * logits.size(-1))
    if real < logits.size(-1):
        logits[..., real:] = -torch.inf
    if group.size() == 1:
        flat = F.cross_entropy(logits.float().flatten(0, -2), labels.flatten(), reduction="none")
        return flat.view_as(labels)
    loss: torch.Tensor = _Parallel.apply(logits, labels, group)  # type: ignore[no-untyped-call]
    return loss


class _Parallel(torch.autograd.Function):
    """megatron-core's functions, combined over a group that is an argument rather than a global."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, labels: torch.Tensor, group: Group) -> torch.Tensor:
        logits, largest = Pieces.calculate_logits_max(logits)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=group)
        first = group.rank() * logits.size(-1)
        mask, local_labels, predicted, sum_exp, exp = Pieces.calculate_predicted_logits(
            logits, labels, largest, first, first + logits.size(-1)
        )
        dist.all_reduce(predicted, group=group)
        dist.all_reduce(sum_exp, group=group)
        exp, loss = Pieces.calculate_cross_entropy_loss(exp, predicted, sum_exp)
        ctx.save_for_backward(exp, mask, local_labels)
        return loss  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        softmax, mask, labels = ctx.saved_tensors
        rows, row_index, update, gradient = Pieces.prepare_gradient_calculation_operands(softmax, mask)
        gradient = Pieces.calculate_gradients(rows, row_index, labels, update, gradient, gradients[0])
        return gradient, None, None
