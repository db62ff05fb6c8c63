"""Random states of a rank, which decide its dropout masks.

Ranks with copies of the same activations (tensor ranks without sequence parallelism) must draw the same
masks; ranks with different slices must not. megatron-core keeps the second kind of state in a tracker of CUDA
generators; :class:`CpuStates` is that tracker for CPU ranks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import megatron.core.tensor_parallel.random as megatron_random
import torch

from frontrunner.parallelism.layout import Coordinates
from frontrunner.parallelism.runtime.megatron_inside import use_random_states

MODEL_PARALLEL = "model-parallel-rng"  # the name under which megatron-core forks


def derive_seed(*parts: object) -> int:
    """A 63-bit seed derived from its purpose; the same on every machine."""
    digest = hashlib.blake2b("/".join(str(part) for part in parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class CpuStates:
    """Named states of torch's CPU generator, swapped in by :meth:`fork`."""

    def __init__(self) -> None:
        self._states: dict[str, torch.Tensor] = {}

    def is_initialized(self) -> bool:
        return bool(self._states)

    def add(self, name: str, seed: int) -> None:
        self._states[name] = torch.Generator().manual_seed(seed).get_state()

    def get_states(self) -> dict[str, torch.Tensor]:
        return dict(self._states)

    def set_states(self, states: dict[str, torch.Tensor]) -> None:
        self._states = dict(states)

    @contextmanager
    def fork(self, name: str = MODEL_PARALLEL) -> Iterator[None]:
        outside = torch.get_rng_state()
        torch.set_rng_state(self._states[name])
        try:
            yield
        finally:
            self._states[name] = torch.get_rng_state()
            torch.set_rng_state(outside)


def seed_rank(seed: int, coordinates: Coordinates, device: torch.device) -> None:
    """Seed this rank's default generator (shared by tensor ranks) and its model-parallel one."""
    place = (coordinates.data, coordinates.pipeline)
    torch.manual_seed(derive_seed(seed, "default", *place))
    if device.type == "cpu":
        use_random_states(CpuStates())
    else:
        megatron_random.initialize_rng_tracker(force_reset=True)
    tracker = megatron_random.get_cuda_rng_tracker()
    tracker.add(MODEL_PARALLEL, derive_seed(seed, "tensor", *place, coordinates.tensor))


def random_states(device: torch.device) -> dict[str, torch.Tensor]:
    """Copies of the states of all generators of this rank, by name; bytes on the CPU."""
    states = {"default": torch.get_rng_state(), **megatron_random.get_cuda_rng_tracker().get_states()}
    if device.type == "cuda":
        states["device"] = torch.cuda.get_rng_state(device)
    return {name: state.cpu().clone() for name, state in states.items()}


def set_random_states(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Restore what :func:`random_states` returned."""
    torch.set_rng_state(states["default"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["device"], device)
    tracker = megatron_random.get_cuda_rng_tracker()
    tracker.set_states({name: states[name] for name in tracker.get_states()})
