"""One layout judged: the keys of ``frontrunner plan --json``, and what would help."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from frontrunner.configs.sharding import PRESET_WIRES, SHARDING_PRESETS, Wire
from frontrunner.parallelism.planner.candidates import RECOMPUTE, Array, Candidates, Work
from frontrunner.parallelism.planner.flops import hardware_flops_per_token, model_flops_per_token
from frontrunner.parallelism.planner.memory import Memory, memory
from frontrunner.parallelism.planner.step_time import StepTime, step_time
from frontrunner.parallelism.planner.traffic import wire_bytes


@dataclass(frozen=True)
class Judgement:
    """Memory and speed of n candidates; ``time`` is None where the machine's rates are not known."""

    work: Work
    candidates: Candidates
    memory: Memory
    time: StepTime | None

    @property
    def fits(self) -> Array:
        """1 where the peak is within the device's memory."""
        return (self.memory.peak <= self.work.machine.device.memory_bytes).astype(float)

    @property
    def tokens_per_s(self) -> Array:
        """Of a device."""
        assert self.time
        c = self.candidates
        speed: Array = c.grad_accum_steps * self.work.tokens(c) / (c.tensor * c.pipeline) / self.time.total
        return speed

    def model_flops_per_s(self) -> Array:
        """Of a device."""
        return self.tokens_per_s * model_flops_per_token(self.work.model, self.work.seq_len)

    def hardware_flops_per_s(self) -> Array:
        """Of a device, recomputation counted."""
        each = [hardware_flops_per_token(self.work.model, self.work.seq_len, mode) for mode in RECOMPUTE]
        a_token: Array = np.array(each, dtype=float)[self.candidates.recompute.astype(int)]
        return self.tokens_per_s * a_token

    def peak_flops_per_s(self) -> float | None:
        """Of a device in the run's precision; both 16-bit types have the same."""
        peaks = self.work.machine.device.peak_flops_per_s
        return peaks.get("float32" if self.work.compute_bytes == 4 else "bfloat16")

    def as_dict(self, index: int) -> dict[str, object]:
        """The figures of one candidate, as the contract of ``--json`` names them."""
        parts = {f.name: float(getattr(self.memory, f.name)[index]) for f in fields(self.memory)}
        found: dict[str, object] = {
            "peak_memory_bytes_per_device": float(self.memory.peak[index]),
            "memory": parts,
            "fits": bool(self.fits[index]),
        }
        if self.time is None:
            unknown = ("step_time_s", "step_time_parts_s", "tokens_per_s_per_device")
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
            "model_flops_per_s_per_device": model,
            "hardware_flops_per_s_per_device": hardware,
            "mfu": model / peak if peak else None,
            "hfu": hardware / peak if peak else None,
        }


def judge(work: Work, candidates: Candidates) -> Judgement:
    time = step_time(work, candidates) if work.software else None
    return Judgement(work, candidates, memory(work, candidates), time)


def assumptions(work: Work) -> list[str]:
    """What a prediction rests on, in sentences."""
    practice = work.practice
    said = [f"engine: {practice.reason}"]
    if practice.fused_attention:
        said.append("attention is fused (flash): scores are never stored")
    said.append(
        f"memory: the allocator loses {practice.allocator_share:.0%} of the tensors and each group of ranks "
        f"takes {practice.communicator_bytes / 2**20:.0f} MiB (both in the residual)"
    )
    if work.software is None:
        return [
            *said,
            f"no step time: {work.machine.name}'s machine file has no `software` section with measured rates",
        ]
    era = next(year for year, known in work.machine.software.items() if known is work.software)
    fitted = ", ".join(f"{key} to {len(rows)} runs" for key, rows in work.software.fitted.items())
    said.append(f"rates: {work.machine.name} with software of {era}; fitted: {fitted or 'nothing'}")
    said.append("tensor-parallel messages and those between stages are not hidden by computing")
    said.append("no stragglers, no data loading, no checkpoints, a network without other jobs")
    return said


@dataclass(frozen=True)
class Advice:
    """A change of one key, and what the planner makes of it."""

    change: str
    gain: float
    """Tokens/s against now, 0.1 for 10 % more."""
    fits: bool


def advise(now: Judgement, most: int = 3) -> list[Advice]:
    """The changes of one key that would help most; where it does not fit, the fastest that do."""
    c = now.candidates
    neighbours = [*_neighbours(c), *_regrouped(c), *_resharded(now.work, c)]
    options = [(text, changed) for text, changed in neighbours if _legal(now.work, changed)]
    if not options:
        return []
    joined = Candidates(
        **{f.name: np.concatenate([getattr(o, f.name) for _, o in options]) for f in fields(Candidates)}
    )
    then = judge(now.work, joined)
    speed = then.tokens_per_s / now.tokens_per_s - 1 if now.time else np.zeros(len(joined))
    found = [
        Advice(text, float(gain), bool(fits))
        for (text, _), gain, fits in zip(options, speed, then.fits, strict=True)
    ]
    if now.fits[0]:
        helping = [advice for advice in found if advice.fits and advice.gain > 0.005]
        return sorted(helping, key=lambda advice: -advice.gain)[:most]
    return sorted((advice for advice in found if advice.fits), key=lambda advice: -advice.gain)[:most]


def _neighbours(c: Candidates) -> list[tuple[str, Candidates]]:
    """One key changed at a time; the global batch stays but where the text says so."""
    m, b = c.grad_accum_steps, c.micro_batch_size
    found = [
        (
            f"training.global_batch_size x {factor} (accumulation {m[0] * factor:g})",
            {"grad_accum_steps": m * factor},
        )
        for factor in (2, 4)
    ]
    found += [
        (
            f"layout.micro_batch_size: {b[0] * factor:g}",
            {"micro_batch_size": b * factor, "grad_accum_steps": m / factor},
        )
        for factor in (2, 4, 0.5)
    ]
    found += [
        (f"layout.recompute: {mode}", {"recompute": np.full(len(c), float(index))})
        for index, mode in enumerate(RECOMPUTE)
        if index != c.recompute[0]
    ]
    if c.tensor[0] > 1 and not c.sequence_parallel[0]:
        found.append(("layout.sequence_parallel: true", {"sequence_parallel": np.ones(len(c))}))
    if c.pipeline[0] > 1:
        found += [
            (
                f"layout.virtual_stages: {c.virtual_stages[0] * factor:g}",
                {"virtual_stages": c.virtual_stages * factor},
            )
            for factor in (2, 4)
        ]
    return [(text, replace(c, **change)) for text, change in found]


def _regrouped(c: Candidates) -> list[tuple[str, Candidates]]:
    """Twice or half the tensor ranks or stages, the data-parallel ranks making up for it."""
    found = []
    for key in ("tensor", "pipeline"):
        for factor in (2, 0.5):
            data, value = c.data / factor, getattr(c, key) * factor
            if value[0] < 1 or data[0] < 1 or data[0] % 1 or c.weights[0] > 1:
                continue
            degrees = {
                kind: np.where(getattr(c, kind) == c.data, data, np.minimum(getattr(c, kind), data))
                for kind in ("weights", "gradients", "optimizer", "secondary")
            }
            accumulation = c.grad_accum_steps * factor
            found.append(
                (
                    f"layout.{key}: {value[0]:g}",
                    replace(c, **{key: value, "data": data, "grad_accum_steps": accumulation}, **degrees),
                )
            )
    return found


def _resharded(work: Work, c: Candidates) -> list[tuple[str, Candidates]]:
    """The other sharding presets, with their own wires."""
    machine = work.machine
    precision: Wire = "float32" if work.compute_bytes == 4 else "bfloat16"
    spans = {"package": machine.devices_per_package, "node": machine.devices_per_node}
    levels: dict[object, Array] = {1: np.ones(len(c)), "all": c.data}
    levels |= {level: np.minimum(np.maximum(1.0, span // c.tensor), c.data) for level, span in spans.items()}
    found = []
    for preset, degrees in SHARDING_PRESETS.items():
        numbers = dict(zip(("weights", "gradients", "optimizer"), (levels[d] for d in degrees), strict=True))
        if all(getattr(c, kind)[0] == number[0] for kind, number in numbers.items()):
            continue
        wires = PRESET_WIRES.get(preset, (precision,) * 3)
        names = ("weight_wire", "gradient_wire", "network_wire")
        formats = {
            name: np.full(len(c), wire_bytes(wire, 256)) for name, wire in zip(names, wires, strict=True)
        }
        second = {"secondary": levels["node"] if preset == "zeropp" else numbers["weights"]}
        found.append((f"layout.sharding.preset: {preset}", replace(c, **numbers, **formats, **second)))
    return found


def _legal(work: Work, c: Candidates) -> bool:
    """The rules of a run file that these changes can break."""
    model, layers = work.model, c.pipeline * c.virtual_stages
    whole = all(
        value[0] >= 1 and value[0] % 1 == 0 for value in (c.micro_batch_size, c.grad_accum_steps, c.data)
    )
    return bool(
        whole
        and c.tensor[0] <= work.machine.devices_per_node
        and model.num_layers % layers[0] == 0
        and model.num_kv_heads % c.tensor[0] == 0
        and model.ffn_hidden_size % c.tensor[0] == 0
        and model.padded_vocab_size % c.tensor[0] == 0
        and (c.virtual_stages[0] == 1 or c.grad_accum_steps[0] % c.pipeline[0] == 0)
        and c.gradients[0] % c.weights[0] == 0
        and c.optimizer[0] % c.gradients[0] == 0
        and c.data[0] % c.optimizer[0] == 0
    )
