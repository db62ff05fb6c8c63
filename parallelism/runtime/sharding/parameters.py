"""What each parameter is in the whole model: its global name, and which slice of it this rank holds.

Names are megatron-core's with the layer's global number, so a parameter has the same name in every layout.
Initial values and checkpoints only depend on these names.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear, VocabParallelEmbedding

from frontrunner.configs.schema import ModelSpec
from frontrunner.parallelism.runtime.experts.layer import ExpertLinear
from frontrunner.parallelism.runtime.gpt.attention import WholeRMSNorm
from frontrunner.parallelism.runtime.gpt.build import LanguageModel
from frontrunner.parallelism.runtime.gpt.config import initial_std
from frontrunner.parallelism.runtime.process_groups import ProcessGroups
from frontrunner.parallelism.runtime.random_state import derive_seed

# Values are drawn in blocks of rows of about this many elements, each from its own seed, so that a slice can
# be made without the whole tensor.
BLOCK_ELEMENTS = 1 << 20


@dataclass(frozen=True)
class Parameter:
    """One parameter of the whole model and this rank's slice of it.

    ``full_shape`` is the shape across tensor and expert ranks. ``stacked`` > 1 means that dim 0 holds that
    many matrices of equal size (SwiGLU's gate and up, or experts), each cut separately; ``held`` are those
    that this rank holds. ``split_dim`` is the dim that tensor ranks cut; None if each holds all of it.
    ``partial_gradient``: each tensor rank sees part of the sequence or of the heads, and the gradient is
    their sum. ``counted``: this rank's copy counts in norms. ``shared`` marks the tied word embedding; its
    copy on the last stage has the name of the first.
    """

    name: str
    shape: tuple[int, ...]
    full_shape: tuple[int, ...]
    split_dim: int | None
    stacked: int
    held: range
    tensor_rank: int
    tensor_size: int
    std: float | None  # None: ones for a norm's weight, zeros for a bias
    decay: bool
    partial_gradient: bool
    counted: bool
    shared: bool

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


def describe(
    chunk: LanguageModel, model: ModelSpec, groups: ProcessGroups, sequence_parallel: bool
) -> dict[str, Parameter]:
    """The parameters of a chunk by their name within it."""
    tensor_rank, tensor_size = groups.coordinates.tensor, groups.layout.tensor
    tied_copy = model.tie_embeddings and chunk.post_process and not chunk.pre_process
    described = {}
    for module_name, module in chunk.named_modules():
        for leaf, value in module.named_parameters(recurse=False):
            local = f"{module_name}.{leaf}" if module_name else leaf
            split = _split_dim(module, leaf)
            shape = tuple(value.shape)
            full = tuple(n * tensor_size if dim == split else n for dim, n in enumerate(shape))
            stacked = 2 if model.activation == "swiglu" and ".linear_fc1." in local else 1
            held = range(stacked)
            if isinstance(module, ExpertLinear):
                stacked, held = module.matrices, module.held
                full = (full[0] // len(held) * stacked, *full[1:])
            name = _global_name(chunk, local)
            is_copy = tied_copy and name == "output_layer.weight"
            if is_copy:
                name = "embedding.word_embeddings.weight"
            described[local] = Parameter(
                name=name,
                shape=shape,
                full_shape=full,
                split_dim=split,
                stacked=stacked,
                held=held,
                tensor_rank=tensor_rank,
                tensor_size=tensor_size,
                std=initial_std(model, name) if len(shape) > 1 else None,
                decay=len(shape) > 1,
                partial_gradient=split is None and _sees_a_part(local, sequence_parallel),
                counted=(split is not None or tensor_rank == 0) and not is_copy,
                shared=model.tie_embeddings and name == "embedding.word_embeddings.weight",
            )
    return described


def _sees_a_part(local: str, sequence_parallel: bool) -> bool:
    """Whether a parameter that each tensor rank holds is used on a part of what it applies to."""
    if local.endswith(("q_layernorm.weight", "k_layernorm.weight")):
        return True  # the rank's own heads
    if local.endswith("mlp.router.weight"):
        return False  # every tensor rank routes whole sequences
    return sequence_parallel and not local.startswith("embedding.")


def _split_dim(module: torch.nn.Module, leaf: str) -> int | None:
    if isinstance(module, ExpertLinear):
        return module.split_dim
    if isinstance(module, (ColumnParallelLinear, VocabParallelEmbedding, WholeRMSNorm)):
        return 0
    return 1 if isinstance(module, RowParallelLinear) and leaf == "weight" else None


def _global_name(chunk: LanguageModel, local: str) -> str:
    match = re.match(r"decoder\.layers\.(\d+)\.", local)
    if match is None:
        return local
    number = chunk.decoder.layers[int(match[1])].layer_number - 1
    return f"decoder.layers.{number}.{local[match.end() :]}"


def initial_values(parameter: Parameter, seed: int) -> torch.Tensor:
    """This rank's initial slice, float32 on the CPU; it only depends on seed and global name."""
    if parameter.std is None:
        fill = torch.zeros if parameter.name.endswith("bias") else torch.ones
        return fill(parameter.shape)
    rows, columns = parameter.full_shape[0], math.prod(parameter.full_shape[1:])
    block = max(1, BLOCK_ELEMENTS // columns)
    values = torch.empty(parameter.shape[0], *parameter.full_shape[1:])
    start = 0
    for first, last in row_ranges(parameter):
        for index in range(first // block, -(-last // block)):
            begin, end = index * block, min(rows, index * block + block)
            generator = torch.Generator().manual_seed(derive_seed(seed, parameter.name, index))
            drawn = torch.randn(end - begin, *parameter.full_shape[1:], generator=generator)
            drawn = drawn[max(first - begin, 0) : last - begin]
            values[start : start + len(drawn)] = drawn
            start += len(drawn)
    values *= parameter.std
    if parameter.split_dim == 1:
        values = values.chunk(parameter.tensor_size, dim=1)[parameter.tensor_rank]
    return values


def row_ranges(parameter: Parameter) -> list[tuple[int, int]]:
    """The rows of the full tensor that this rank holds, in its own order."""
    whole, part = parameter.full_shape[0] // parameter.stacked, parameter.shape[0] // len(parameter.held)
    first = parameter.tensor_rank * part if parameter.split_dim == 0 else 0
    found = list[tuple[int, int]]()
    for matrix in parameter.held:
        start = matrix * whole + first
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], start + part)
        else:
            found.append((start, start + part))
    return found
