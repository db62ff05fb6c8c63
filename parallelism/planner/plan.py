"""Estimates layouts: gives the keys of ``frontrunner plan --json`` and their assumptions."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from frontrunner.parallelism.planner.candidates import (
    NOTHING_SHARED,
    RECOMPUTE,
    Array,
    Candidates,
    Shared,
    Workload,
)
from frontrunner.parallelism.planner.communicator_count import communicators
from frontrunner.parallelism.planner.flops import hardware_flops_per_token, model_flops_per_token
from frontrunner.parallelism.planner.memory import Memory, memory
from frontrunner.parallelism.planner.parameters import active_parameters, total_parameters
from frontrunner.parallelism.planner.step_time import StepTime, step_time
from frontrunner.parallelism.planner.uncertainty import caveat, interval_pct


@dataclass(frozen=True)
class Estimate:
    """Memory and speed of n candidates; ``time`` is None if the machine's rates are unknown."""

    workload: Workload
    candidates: Candidates
    memory: Memory
    time: StepTime | None

    @cached_property
    def fits(self) -> Array:
        """1 if the peak fits into the device's memory."""
        return (self.memory.peak <= self.workload.machine.device.memory_bytes).astype(float)

    @cached_property
    def tokens_per_s(self) -> Array:
        """Of a device."""
        assert self.time
        c = self.candidates
        speed: Array = (
            c.grad_accum_steps * self.workload.tokens(c) / (c.tensor * c.pipeline) / self.time.total
        )
        return speed

    def interval_pct(self, index: int) -> float | None:
        """Half width of the speed's 90 % interval in percent; None where no speed is predicted."""
        c = self.candidates
        return interval_pct(self.workload, int(c.data[index] * c.tensor[index] * c.pipeline[index]))

    def model_flops_per_s(self) -> Array:
        """Of a device."""
        return self.tokens_per_s * model_flops_per_token(self.workload.model, self.workload.seq_len)

    def hardware_flops_per_s(self) -> Array:
        """Of a device, recomputation counted."""
        each = [
            hardware_flops_per_token(self.workload.model, self.workload.seq_len, mode) for mode in RECOMPUTE
        ]
        a_token: Array = np.array(each, dtype=float)[self.candidates.recompute.astype(int)]
        return self.tokens_per_s * a_token

    def peak_flops_per_s(self) -> float | None:
        """Peak of one device in the run's precision; it is equal for both 16-bit types."""
        peaks = self.workload.machine.device.peak_flops_per_s
        return peaks.get("float32" if self.workload.compute_bytes == 4 else "bfloat16")

    def communicators(self, index: int) -> tuple[int, int]:
        """How many communicators the fullest rank of a candidate has, and their bytes on its device."""
        count = int(communicators(self.workload, self.candidates.take(np.array([index])))[0])
        return count, int(count * self.workload.profile.communicator_bytes)

    def as_dict(self, index: int) -> dict[str, object]:
        """The figures of one candidate, under the keys that ``--json`` guarantees."""
        parts = {f.name: float(getattr(self.memory, f.name)[index]) for f in fields(self.memory)}
        count, size = self.communicators(index)
        found: dict[str, object] = {
            "peak_memory_bytes_per_device": float(self.memory.peak[index]),
            "memory": parts,
            "communicators": {"count": count, "bytes": size},
            "fits": bool(self.fits[index]),
            "parameters": {
                "total": total_parameters(self.workload.model),
                "active": active_parameters(self.workload.model),
            },
        }
        if self.time is None:
            unknown = ("step_time_s", "step_time_parts_s", "tokens_per_s_per_device", "interval_pct")
            flops = ("model_flops_per_s_per_device", "hardware_flops_per_s_per_device", "mfu", "hfu")
            return found | dict.fromkeys((*unknown, *flops))
        peak = self.peak_flops_per_s()
        model, hardware = (float(f[index]) for f in (self.model_flops_per_s(), self.hardware_flops_per_s()))
        return found | {
            "step_time_s": float(self.time.total[index]),
            "step_time_parts_s": {
                f.name: float(getattr(self.time, f.name)[index]) for f in fields(self.time)
            },
            "tokens_per_s_per_device": float(self.tokens_per_s[index]),
            "interval_pct": self.interval_pct(index),
            "model_flops_per_s_per_device": model,
            "hardware_flops_per_s_per_device": hardware,
            "mfu": model / peak if peak else None,
            "hfu": hardware / peak if peak else None,
        }


def estimate(workload: Workload, candidates: Candidates, shared: Shared = NOTHING_SHARED) -> Estimate:
    """Memory and, if the machine's rates are known, time; what candidates share is computed once."""
    time = step_time(workload, candidates, shared=shared) if workload.software else None
    return Estimate(workload, candidates, memory(workload, candidates, shared), time)


def assumptions(workload: Workload) -> list[str]:
    """What a prediction assumes, in sentences."""
    profile = workload.profile
    said = [f"engine: {profile.reason}"]
    if profile.fused_attention:
        said.append("attention is fused (flash), so scores are never stored")
    said.append(
        f"memory: the allocator adds {profile.allocator_share:.0%} of the tensors, and each communicator "
        f"takes {profile.communicator_bytes / 2**20:.0f} MiB (both count as residual)"
    )
    if workload.model.experts:
        said.append(
            "experts: a token chooses each equally often; the busiest rank gets "
            f"{profile.expert_imbalance:g} times the mean (assumed)"
        )
    if workload.software is None:
        return [
            *said,
            f"no step time: the machine file of {workload.machine.name} has no `software` section with rates",
        ]
    software_year = next(
        year for year, known in workload.machine.software.items() if known is workload.software
    )
    fitted = ", ".join(f"{key} to {len(rows)} runs" for key, rows in workload.software.fitted.items())
    said.append(
        f"rates: {workload.machine.name} with software of {software_year}; fitted: {fitted or 'nothing'}"
    )
    if why := caveat(workload):
        said.append(f"speed: {why}")
    said.append("computing does not hide tensor-parallel messages or messages between stages")
    if workload.model.experts:
        said[-1] += ", or tokens on their way to experts"
    said.append("no data loading, checkpoints or other jobs on the network")
    return said
