"""Activation bytes of one transformer layer and one micro-batch.

Equations 1 to 6 of Korthikanti et al. 2022 (arXiv 2205.05198), itemised to cover gated MLPs, grouped queries
and fused attention too. Dropout masks count only if there is dropout.
"""

from __future__ import annotations

import numpy as np

from frontrunner.parallelism.planner import expert_hops
from frontrunner.parallelism.planner.candidates import Array, Candidates, Workload


def layer_input(workload: Workload, c: Candidates) -> Array:
    """What full recomputation keeps: the layer's input, cut over tensor ranks with sequence parallelism."""
    cut = np.where(c.sequence_parallel > 0, c.tensor, 1.0)
    return workload.tokens(c) * workload.model.hidden_size * workload.compute_bytes / cut


def layer_interior(workload: Workload, c: Candidates, sparse: bool = False) -> Array:
    """Everything that a layer's backward needs in addition to its input, including attention scores.

    ``sparse``: of a layer with experts.
    """
    model, width = workload.model, workload.compute_bytes
    hidden, heads = model.hidden_size, model.num_heads * model.head_dim
    # Tensor ranks that share a key and value head hold all of it.
    keys = 2 * np.maximum(model.num_kv_heads, c.tensor) * model.head_dim
    gated = model.activation == "swiglu"
    masks = 2 * hidden if workload.profile.dropout else 0
    # Outputs of both norms and the input of the second norm, which tensor parallelism does not cut. Of norms
    # after attention and MLP it is their inputs and the MLP's.
    outside = width * 3 * hidden + masks
    ffn = model.ffn_hidden_size
    if sparse and model.experts:
        ffn = model.experts.shared_experts * model.experts.ffn_hidden_size
    inside = width * (2 * heads + keys + ffn * (3 if gated else 2))
    if model.qk_norm != "none":  # the inputs of these norms
        inside = inside + width * (heads + keys / 2)
    cut = np.where(c.sequence_parallel > 0, c.tensor, 1.0)
    found = workload.tokens(c) * (outside / cut + inside / c.tensor) + attention_scores(workload, c)
    return found + experts_interior(workload, c) if sparse else found


def experts_interior(workload: Workload, c: Candidates) -> Array:
    """What the router and the experts of the busiest rank keep of a micro-batch.

    The router: logits and scores in float32, ids and weights of the chosen experts. The experts, for each row
    (a token at one of its experts): input and output, which tensor ranks do not cut, and the MLP's interior.
    """
    model, experts, width = workload.model, workload.model.experts, workload.compute_bytes
    assert experts
    router = 2 * 4 * experts.num_experts + (4 + 4) * experts.experts_per_token
    mlp = experts.ffn_hidden_size * (3 if model.activation == "swiglu" else 2)
    each = width * (2 * model.hidden_size + mlp / c.tensor)
    found: Array = workload.tokens(c) * router + expert_hops.rows(workload, c) * each
    return found


def attention_scores(workload: Workload, c: Candidates) -> Array:
    """Attention scores, or the row sums that fused attention keeps instead."""
    rows = workload.tokens(c) * workload.model.num_heads / c.tensor
    if workload.profile.fused_attention:
        return 4 * rows
    each = 2 * workload.compute_bytes + 1 if workload.profile.dropout else workload.compute_bytes
    scores: Array = rows * workload.seq_len * each
    return scores


def embedding(workload: Workload, c: Candidates) -> Array:
    """What the first stage keeps of the embedding: its dropout mask (section 4.3 of the paper)."""
    cut = np.where(c.sequence_parallel > 0, c.tensor, 1.0)
    return workload.tokens(c) * workload.model.hidden_size / cut * workload.profile.dropout


def kept_per_layer(workload: Workload, c: Candidates, sparse: bool = False) -> Array:
    """What one layer keeps of one micro-batch between forward and backward."""
    interior = layer_interior(workload, c, sparse)
    selective = interior - attention_scores(workload, c)
    kept = np.choose(c.recompute.astype(int), [interior, selective, 0.0 * interior])
    whole: Array = layer_input(workload, c) + kept
    return whole


def recomputed_layer(workload: Workload, c: Candidates, sparse: bool = False) -> Array:
    """What the backward of one layer holds in addition to what was kept."""
    interior = layer_interior(workload, c, sparse)
    again: Array = np.choose(
        c.recompute.astype(int), [0.0 * interior, attention_scores(workload, c), interior]
    )
    return again


def logits(workload: Workload, c: Candidates) -> Array:
    """Logits of the last stage: in the run's precision, in float32 with softmax, and their gradient."""
    return workload.tokens(c) * workload.model.padded_vocab_size / c.tensor * (2 * workload.compute_bytes + 8)
