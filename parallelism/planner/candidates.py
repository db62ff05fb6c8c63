"""Layouts to be judged, as arrays: one plan is the case of length one, a search one of many thousands."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from frontrunner.configs.schema import MachineSpec, ModelSpec, Recompute, RunSpec
from frontrunner.configs.sharding import Precision
from frontrunner.configs.software import SoftwareSpec
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.planner.engine_profile import NATIVE, EngineProfile
from frontrunner.parallelism.planner.traffic import wire_bytes

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

RECOMPUTE: tuple[Recompute, ...] = ("none", "selective", "full")
PRECISION_BYTES: dict[Precision, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Candidates:
    """n layouts; each field is a float64 array [n].

    ``recompute`` is an index of :data:`RECOMPUTE`, ``sequence_parallel`` and ``error_feedback`` 0 or 1,
    ``*_wire`` bytes a value on the wire, ``data`` the data-parallel ranks and the degrees numbers of them.
    """

    tensor: Array
    sequence_parallel: Array
    pipeline: Array
    virtual_stages: Array
    data: Array
    micro_batch_size: Array
    grad_accum_steps: Array
    recompute: Array
    weights: Array
    gradients: Array
    optimizer: Array
    secondary: Array
    weight_wire: Array
    gradient_wire: Array
    network_wire: Array
    error_feedback: Array

    def __len__(self) -> int:
        return len(self.tensor)

    def take(self, chosen: npt.NDArray[np.bool_ | np.intp]) -> Candidates:
        """Those that a mask or indices choose."""
        return replace(self, **{field.name: getattr(self, field.name)[chosen] for field in fields(self)})

    @classmethod
    def of(cls, spec: RunSpec, layout: Layout) -> Candidates:
        """A run's layout alone."""
        wires = spec.layout.sharding.wires(spec.training.precision)
        values = {
            "tensor": layout.tensor,
            "sequence_parallel": spec.layout.sequence_parallel,
            "pipeline": layout.pipeline,
            "virtual_stages": layout.virtual_stages,
            "data": layout.data,
            "micro_batch_size": spec.layout.micro_batch_size,
            "grad_accum_steps": spec.grad_accum_steps,
            "recompute": RECOMPUTE.index(spec.layout.recompute),
            "weights": layout.weights,
            "gradients": layout.gradients,
            "optimizer": layout.optimizer,
            "secondary": layout.secondary,
            "weight_wire": wire_bytes(wires.weights, wires.block),
            "gradient_wire": wire_bytes(wires.gradients, wires.block),
            "network_wire": wire_bytes(wires.network, wires.block),
            "error_feedback": wires.error_feedback,
        }
        return cls(**{key: np.array([value], dtype=np.float64) for key, value in values.items()})


@dataclass(frozen=True)
class Workload:
    """What all candidates have in common: the model, what it is trained on, and how the engine works.

    ``software`` is None where nothing is known of a machine's rates: then there is memory but no time.
    ``compute_bytes`` are those of a weight or activation in the run's precision, ``gradient_bytes`` those of
    an accumulated gradient.
    """

    model: ModelSpec
    machine: MachineSpec
    software: SoftwareSpec | None
    seq_len: int
    compute_bytes: int
    gradient_bytes: int
    profile: EngineProfile

    @classmethod
    def of(cls, spec: RunSpec, software_year: str | None = None) -> Workload:
        """A run's, with the software of that year (default: the newest that the machine file knows)."""
        years = spec.machine.software
        return cls(
            model=spec.model,
            machine=spec.machine,
            software=years[software_year or max(years)] if years else None,
            seq_len=spec.training.seq_len,
            compute_bytes=PRECISION_BYTES[spec.training.precision],
            gradient_bytes=2 if spec.training.gradient_dtype == "bfloat16" else 4,
            profile=_profile(spec),
        )

    def tokens(self, candidates: Candidates) -> Array:
        """Tokens of one micro-batch of one data-parallel rank."""
        return candidates.micro_batch_size * self.seq_len


def _profile(spec: RunSpec) -> EngineProfile:
    """The native engine's on the run's device: PyTorch's CPU allocator and gloo keep nothing back."""
    dropout = spec.model.hidden_dropout > 0 or spec.model.attention_dropout > 0
    if spec.machine.device.kind == "cpu":
        return replace(NATIVE, dropout=dropout, allocator_share=0.0, communicator_bytes=0.0)
    return replace(NATIVE, dropout=dropout)
