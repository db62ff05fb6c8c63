"""Strong and weak scaling, found among runs that differ only in their number of devices.

Strong: the same global batch. Weak: the same batch per device. The smallest run of a group is the baseline.
With p times its devices and a speed-up of s:

- efficiency is s / p,
- the serial fraction is (1/s - 1/p) / (1 - 1/p) for strong scaling (Karp and Flatt 1990, Comm. ACM 33, 539)
  and (p - s) / (p - 1) for weak scaling (Gustafson 1988, Comm. ACM 31, 532, solved for the fraction),
- the fit is t = a + b / p (strong, Amdahl) or t = a + b log2 p (weak), least squares of the relative error;
  it predicts the next two doublings. Intervals are 95 % intervals from resampled steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from frontrunner.analysis.bootstrap import Array, interval, medians

Found = dict[str, Any]
DOUBLINGS = 2
_SEED = 20260101


@dataclass(frozen=True)
class Sample:
    """A run as scaling sees it. Comparable runs have equal ``alike``; ``step_times_s`` are steady steps."""

    id: str
    alike: tuple[object, ...]
    devices: int
    global_batch_size: int
    tokens_per_step: float
    step_times_s: Array


@dataclass(frozen=True)
class _Point:
    devices: int
    runs: tuple[str, ...]
    step_time_s: float
    tokens_per_s: float
    samples: Array
    """Step times [SAMPLES] of resamples."""
    tokens_per_step: float


def groups(samples: Sequence[Sample]) -> list[Found]:
    """All groups with at least two sizes: the objects of ``scaling[]``."""
    generator = np.random.default_rng(_SEED)
    found: list[Found] = []
    for kind in ("strong", "weak"):
        keyed: dict[tuple[object, ...], list[Sample]] = {}
        for sample in samples:
            keyed.setdefault((*sample.alike, _batch(kind, sample)), []).append(sample)
        for members in keyed.values():
            if len({sample.devices for sample in members}) > 1:
                found.append(_group(kind, members, generator))
    return found


def _batch(kind: str, sample: Sample) -> object:
    if kind == "strong":
        return sample.global_batch_size
    divisor = math.gcd(sample.global_batch_size, sample.devices)
    return sample.global_batch_size // divisor, sample.devices // divisor


def _group(kind: str, members: Sequence[Sample], generator: np.random.Generator) -> Found:
    sizes = sorted({sample.devices for sample in members})
    points = [_point([s for s in members if s.devices == size], generator) for size in sizes]
    base = points[0]
    coefficients = fit(kind, np.array(sizes) / sizes[0], np.array([[p.step_time_s] for p in points]))
    resampled = fit(kind, np.array(sizes) / sizes[0], np.array([p.samples for p in points]))
    batch = members[0].global_batch_size
    return {
        "kind": kind,
        "global_batch_size": batch if kind == "strong" else None,
        "sequences_per_device": batch / members[0].devices if kind == "weak" else None,
        "base_devices": base.devices,
        "points": [_shown(kind, point, base) for point in points],
        "fit": _fit_shown(kind, coefficients, resampled, points),
        "predictions": _predictions(kind, coefficients, resampled, points),
    }


def _point(runs: Sequence[Sample], generator: np.random.Generator) -> _Point:
    """Runs of one size form one point: the mean of their medians."""
    times = [float(np.median(run.step_times_s)) for run in runs]
    tokens = runs[0].tokens_per_step
    time = float(np.mean(times))
    resampled = np.mean([medians(run.step_times_s, generator) for run in runs], axis=0)
    return _Point(runs[0].devices, tuple(run.id for run in runs), time, tokens / time, resampled, tokens)


def _shown(kind: str, point: _Point, base: _Point) -> Found:
    p = point.devices / base.devices
    speedup = point.tokens_per_s / base.tokens_per_s
    resampled = (point.tokens_per_step / point.samples) / (base.tokens_per_step / base.samples)
    same = point is base
    return {
        "devices": point.devices,
        "runs": list(point.runs),
        "step_time_s": point.step_time_s,
        "tokens_per_s": point.tokens_per_s,
        "tokens_per_s_per_device": point.tokens_per_s / point.devices,
        "speedup": speedup,
        "efficiency": speedup / p,
        "efficiency_interval": None if same else list(interval(resampled / p)),
        "serial_fraction": None if same else serial_fraction(kind, p, speedup),
        "serial_fraction_interval": None
        if same
        else sorted(serial_fraction(kind, p, bound) for bound in interval(resampled)),
    }


def serial_fraction(kind: str, p: float, speedup: float) -> float:
    """Serial fraction of the smallest run's time; p > 1. It is below 0 if the speed-up is superlinear."""
    if kind == "strong":
        return (1 / speedup - 1 / p) / (1 - 1 / p)
    return (p - speedup) / (p - 1)


def fit(kind: str, p: Array, times: Array) -> Array:
    """(a, b) [2, k] of k series of ``times`` [n, k] at ``p`` [n] times the devices of the smallest."""
    second = _basis(kind, p)
    # Each point is divided by its time, so that relative errors count. Solved by the normal equations.
    u, v = 1 / times, second[:, None] / times
    uu, uv, vv = (u * u).sum(0), (u * v).sum(0), (v * v).sum(0)
    ub, vb = u.sum(0), v.sum(0)
    determinant = uu * vv - uv * uv
    return np.array([(ub * vv - vb * uv) / determinant, (vb * uu - ub * uv) / determinant])


def _basis(kind: str, p: Array) -> Array:
    return np.asarray(1 / p if kind == "strong" else np.log2(p))


def _fit_shown(kind: str, coefficients: Array, resampled: Array, points: Sequence[_Point]) -> Found:
    p = np.array([point.devices for point in points]) / points[0].devices
    times = np.array([point.step_time_s for point in points])
    predicted = coefficients[0] + coefficients[1] * _basis(kind, p)
    a, b = (float(value[0]) for value in coefficients)
    found: Found = {
        "formula": "a + b / p" if kind == "strong" else "a + b log2 p",
        "a_s": a,
        "b_s": b,
        "largest_error_pct": float(np.max(np.abs(predicted / times - 1)) * 100) if len(points) > 2 else None,
        "points": len(points),
    }
    if kind == "strong":
        found["serial_fraction"] = a / (a + b)
        found["serial_fraction_interval"] = list(interval(resampled[0] / (resampled[0] + resampled[1])))
    return found


def _predictions(kind: str, coefficients: Array, resampled: Array, points: Sequence[_Point]) -> list[Found]:
    """The next doublings, without those whose fitted step time is not positive."""
    base, last = points[0], points[-1]
    found = []
    for doubling in range(1, DOUBLINGS + 1):
        devices = last.devices * 2**doubling
        p = devices / base.devices
        second = float(_basis(kind, np.array([p]))[0])
        time = float(coefficients[0, 0] + coefficients[1, 0] * second)
        low, high = interval(resampled[0] + resampled[1] * second)
        if time <= 0 or low <= 0:
            continue
        tokens = base.tokens_per_step * (p if kind == "weak" else 1)
        per_device = base.tokens_per_s / base.devices
        found.append(
            {
                "devices": devices,
                "step_time_s": time,
                "step_time_interval_s": [low, high],
                "tokens_per_s_per_device": tokens / time / devices,
                "efficiency": tokens / time / devices / per_device,
                "speedup": tokens / time / base.tokens_per_s,
            }
        )
    return found
