"""Layouts to estimate, as arrays. A plan has length one, a search many thousands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

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
Index = npt.NDArray[np.intp]
_Part = TypeVar("_Part", bound=Any)

RECOMPUTE: tuple[Recompute, ...] = ("none", "selective", "full")
PRECISION_BYTES: dict[Precision, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Candidates:
    """n layouts; each field is a float64 array [n].

    ``recompute`` is an index into :data:`RECOMPUTE`; ``sequence_parallel``, ``error_feedback`` and
    ``*_dispatch`` are 0 or 1; ``*_wire`` are bytes per value on the wire; ``data``, ``expert`` and the
    degrees are numbers of data-parallel ranks.
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
    expert: Array
    flat_dispatch: Array
    int8_dispatch: Array

    def __len__(self) -> int:
        return len(self.tensor)

    def take(self, chosen: npt.NDArray[np.bool_ | np.intp]) -> Candidates:
        """The candidates that a mask or indices select."""
        return taken(self, chosen)

    def of_experts(self) -> Candidates:
        """The layouts as experts are cut (:meth:`Layout.of_experts`): ``data`` and the degrees count the
        ranks that hold the same ones."""
        kinds = ("weights", "gradients", "optimizer", "secondary")
        degrees = {kind: np.maximum(1.0, getattr(self, kind) / self.expert) for kind in kinds}
        return replace(self, data=self.data / self.expert, **degrees)

    @classmethod
    def of(cls, spec: RunSpec, layout: Layout) -> Candidates:
        """The layout of one run."""
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
            "expert": layout.expert,
            "flat_dispatch": spec.layout.dispatch == "flat",
            "int8_dispatch": spec.layout.dispatch_wire == "int8",
        }
        return cls(**{key: np.array([value], dtype=np.float64) for key, value in values.items()})


def taken(part: _Part, chosen: npt.NDArray[np.bool_ | np.intp]) -> _Part:
    """A dataclass of arrays [n] with the entries that a mask or indices select."""
    found: _Part = replace(
        part, **{field.name: _entries(getattr(part, field.name), chosen) for field in fields(part)}
    )
    return found


def constant(value: float, count: int) -> Array:
    """An array [count] of one value that takes no memory; read only."""
    found: Array = np.ndarray((count,), np.float64, np.array([value]).data, strides=(0,))
    found.flags.writeable = False
    return found


def _entries(values: Array, chosen: npt.NDArray[np.bool_ | np.intp]) -> Array:
    if values.strides == (0,) and len(values) and chosen.dtype != np.bool_:
        return constant(values[0], len(chosen))
    return values[chosen]


@dataclass(frozen=True)
class Rows:
    """Candidates that are equal in what a part of an estimate depends on.

    ``one`` [rows] is a candidate of each row, ``of`` [n] the row of each candidate.
    """

    one: Index
    of: Index

    def once(self, part: Callable[[Candidates], _Part], c: Candidates) -> _Part:
        """``part`` (a dataclass of arrays) of all candidates, computed once for each row."""
        return taken(part(c.take(self.one)), self.of)


class Alone:
    """Candidates of which nothing is known to be equal."""

    def once(self, part: Callable[[Candidates], _Part], c: Candidates) -> _Part:
        return part(c)


@dataclass(frozen=True)
class Shared:
    """What candidates share: a search has many with one shape, and many with one cut.

    ``shapes`` are equal in all but sharding degrees and wires. ``cuts`` are equal in these, in ``tensor``,
    ``pipeline`` and ``data``.
    """

    shapes: Rows | Alone
    cuts: Rows | Alone


NOTHING_SHARED = Shared(Alone(), Alone())


@dataclass(frozen=True)
class Workload:
    """What all candidates share: the model, what it is trained on, and how the engine works.

    ``software`` is None if the machine's rates are unknown; then only memory is estimated, not time.
    ``compute_bytes`` is the size of a weight or activation in the run's precision, ``gradient_bytes`` the
    size of an accumulated gradient.
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
        """The workload of a run with that year's software (default: the newest in the machine file)."""
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

    def weight_bytes(self, c: Candidates) -> Array:
        """Bytes [n] of a weight at rest and in updates: uncut ones are kept as they are used."""
        return np.where(c.weights > 1, c.weight_wire, float(self.compute_bytes))

    def tokens(self, candidates: Candidates) -> Array:
        """Tokens of one micro-batch on one data-parallel rank."""
        return candidates.micro_batch_size * self.seq_len


def _profile(spec: RunSpec) -> EngineProfile:
    """The native engine's profile on the run's device: PyTorch's CPU allocator and gloo keep no memory."""
    profile = replace(
        NATIVE,
        dropout=spec.model.hidden_dropout > 0 or spec.model.attention_dropout > 0,
        shares_communicators=spec.layout.sharding.communicators == "shared",
    )
    if spec.machine.device.kind == "cpu":
        return replace(profile, allocator_share=0.0, communicator_bytes=0.0)
    return profile
