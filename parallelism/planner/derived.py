"""Rates of devices on which no run was judged, and what such rates miss on the one where runs were.

Public figures of a device say what one of it does alone: its best matrix product, its memory in BabelStream,
its library's rings in an acceptance test. Machine files of MI300X and its successors hold such rates. The
same kind of figures exists for MI250X (:func:`as_of_others`). By them every published run on MI250X would
have been faster than it was: eight busy devices throttle, and few of a step's products are the best one. So:

- :data:`FACTOR` on matrix products makes up for that on MI250X, on average. Other devices get the same one,
  for want of their own.
- :data:`MISSED` is how much would be missed without. Another device's own factor may lie as far from this one
  (assumed).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from frontrunner.configs.software import GemmRate, SoftwareSpec
from frontrunner.parallelism.planner.calibrate import Measured, tokens_per_s
from frontrunner.parallelism.planner.candidates import Array

#: Mean of log(predicted / published) of the speed of MI250X's runs by derived rates; a test repeats it.
MISSED = 0.360
#: ``gemm_factor`` with which that mean is 0, to three digits; a test repeats it.
FACTOR = 0.588
#: torch.matmul on one MI325X by size, as a share of its best (github.com/HazyResearch/HipKittens@f09e968,
#: 2025-11-20).
CURVE = {2048: 0.414, 4096: 0.958, 8192: 1.0, 16384: 0.955}
#: The best bfloat16 product of one GCD alone (github.com/stas00/ml-engineering@37d41a7, ROCm 6.2).
BEST_OF_MI250X = 147.0e12
#: What MI300X's memory reaches in BabelStream, and the latency that a data sheet of a network has.
MEMORY_EFFICIENCY, LATENCY_S = 0.77, 3.0e-6


def as_of_others(software: SoftwareSpec, gemm_factor: float) -> SoftwareSpec:
    """MI250X's rates, by what is known of other devices. ``software`` keeps its rates of the library's rings
    and of attention, which were measured in the same way elsewhere, and its assumptions."""
    gemm = [GemmRate(size=size, flops_per_s=BEST_OF_MI250X * share) for size, share in CURVE.items()]
    latencies = {"across_latency_s": LATENCY_S, "reduce_latency_s": None}
    return software.model_copy(
        update={
            "gemm": gemm,
            "gemm_factor": gemm_factor,
            "memory_efficiency": MEMORY_EFFICIENCY,
            "rings": software.rings.model_copy(update=latencies),
        }
    )


def log_errors(runs: Sequence[Measured], gemm_factor: float) -> Array:
    """log(predicted / measured) [n] of the speed of MI250X's runs by :func:`as_of_others`, without factors
    of engines."""
    errors = []
    for run in runs:
        years = run.workload.machine.software
        rates = as_of_others(years[max(years)], gemm_factor)
        plain = replace(run.workload, software=rates, profile=replace(run.workload.profile, speed=1.0))
        errors.append(np.log(tokens_per_s(plain, run.candidates)[0] / run.tokens_per_s))
    return np.array(errors)
