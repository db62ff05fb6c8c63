"""How far a predicted speed may be off: an interval that holds the truth nine times in ten.

The residuals are those of published runs, each predicted without its own source. The further a run lies from
the others, the more its residual scatters; :func:`distance` says how far, with assumed weights. So residuals
are divided by 1 + distance, and their 90 % quantile, times 1 + the distance of a request, is its half width.

On another device the rates themselves are uncertain: see ``derived.py``. What such rates miss on MI250X is
taken to be independent of the residuals, so both add in quadrature.

Two layouts of one model, machine and engine share most of that error. How much of it their ratio keeps is
judged by :func:`pairs`.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from frontrunner.parallelism.planner.derived import MISSED

if TYPE_CHECKING:
    from frontrunner.parallelism.planner.candidates import Workload

CONFIDENCE = 0.9
#: The device whose runs were judged; others get a wider interval.
DEVICE = "AMD MI250X GCD"
#: Published runs on other devices (configs/published/other_devices.yaml): nothing was fitted to them.
OTHER_DEVICES = {"AMD MI355X": 2}
#: Assumed: a factor of 16 in devices, or of 4 in sequence length, doubles the spread; so do an engine and a
#: family of models that were not judged, together.
PER_DOUBLING_OF_DEVICES, PER_DOUBLING_OF_SEQUENCE = 1 / 4, 1 / 2
OTHER_ENGINE, OTHER_FAMILY = 0.5, 0.5


class Judged(NamedTuple):
    """A published run: source, devices, sequence length, engine, whether its model is gated (Llama's family),
    log(predicted / published) with its source left out of the fit, and its layers and hidden size."""

    source: str
    devices: int
    seq_len: int
    engine: str
    gated: bool
    log_error: float
    shape: tuple[int, int]


#: All published runs with a speed; a test repeats them.
JUDGED = (
    Judged(
        "Lumi-supercomputer/lumi-reframe-tests",
        16,
        4096,
        "megatron-distributed-optimizer",
        True,
        -0.108,
        (32, 4096),
    ),
    Judged(
        "Lumi-supercomputer/lumi-reframe-tests",
        128,
        4096,
        "megatron-distributed-optimizer",
        True,
        -0.104,
        (32, 4096),
    ),
    Judged("spyysalo/lumi-llm-scaling", 32, 2048, "megatron-deepspeed-bf16", False, -0.083, (32, 4096)),
    Judged("spyysalo/lumi-llm-scaling", 64, 2048, "megatron-deepspeed-bf16", False, -0.111, (60, 6656)),
    Judged("spyysalo/lumi-llm-scaling", 64, 2048, "megatron-deepspeed-bf16", False, 0.003, (60, 6656)),
    Judged("spyysalo/lumi-llm-scaling", 256, 2048, "megatron-deepspeed-bf16", False, 0.065, (60, 6656)),
    Judged("spyysalo/lumi-llm-scaling", 128, 2048, "megatron-deepspeed-bf16", False, -0.03, (70, 14336)),
    Judged("spyysalo/lumi-llm-scaling", 512, 2048, "megatron-deepspeed-bf16", False, -0.014, (70, 14336)),
    Judged("spyysalo/lumi-llm-scaling", 1024, 2048, "megatron-deepspeed-bf16", False, -0.01, (70, 14336)),
    Judged("at-aaims/forge", 128, 2048, "gpt-neox-zero1", False, -0.059, (24, 2064)),
    Judged("at-aaims/forge", 512, 2048, "gpt-neox-zero1", False, -0.056, (24, 2064)),
    Judged("at-aaims/forge", 8, 2048, "gpt-neox-zero1", False, 0.141, (40, 5120)),
    Judged("at-aaims/forge", 672, 2048, "gpt-neox-zero1", False, 0.3, (40, 5120)),
    Judged("at-aaims/forge", 512, 2048, "gpt-neox-zero1", False, 0.175, (48, 6144)),
    Judged("eminorhan/frontier-torchtitan", 64, 8192, "fsdp2", True, -0.11, (32, 4096)),
    Judged("eminorhan/frontier-accelerate", 512, 8192, "fsdp2", True, 0.065, (32, 4096)),
    Judged("eminorhan/frontier-torchtitan", 64, 8192, "fsdp2", True, -0.053, (32, 4096)),
    Judged("eminorhan/frontier-torchtitan", 512, 8192, "fsdp2", True, 0.025, (32, 4096)),
    Judged("at-aaims/forge", 384, 2048, "gpt-neox-zero1", False, 0.116, (96, 12288)),
    Judged("spyysalo/lumi-llm-scaling", 8, 2048, "gpt-neox-zero1", False, -0.027, (32, 4096)),
    Judged(
        "spyysalo/lumi-fineweb-replication",
        64,
        2048,
        "megatron-distributed-optimizer",
        True,
        -0.014,
        (24, 2048),
    ),
    Judged("OpenEuroLLM/oellm-autoexp", 8, 4096, "megatron-distributed-optimizer", True, 0.042, (26, 2048)),
    Judged("2312.12705", 128, 2048, "megatron-deepspeed-fp16-zero1", False, -0.026, (96, 12288)),
    Judged("2312.12705", 512, 2048, "megatron-deepspeed-fp16-zero1", False, 0.089, (128, 25600)),
    Judged("2312.12705", 16, 2048, "megatron-deepspeed-fp16-zero1", False, -0.047, (48, 6144)),
)


class Request(NamedTuple):
    """What decides how far a prediction lies from the judged runs."""

    devices: int
    seq_len: int
    engine: str
    gated: bool


def _rank(count: int) -> int:
    """Place, from 1, of the quantile that also counts the request itself (conformal prediction, Lei et al.
    2018)."""
    return min(math.ceil((count + 1) * CONFIDENCE), count)


def pairs(judged: Sequence[Judged]) -> list[float]:
    """|log| of predicted over published ratio of speeds, for two runs of one source, engine and model.

    Of the twelve, two differ in layout (micro-batch and recomputation); the others in the number of devices
    or in software. Only two have the same number of devices, and these have the same layout too. The ratios
    of Xu et al. (``relative.py``), which the planner does not meet, are not among them: they have no batch.
    So there are too few to say how the error grows with the difference between two layouts.
    """
    return [
        abs(one.log_error - other.log_error)
        for one, other in itertools.combinations(judged, 2)
        if (one.source, one.engine, one.shape) == (other.source, other.engine, other.shape)
    ]


def relative_interval_pct(judged: Sequence[Judged]) -> float:
    """By how much the ratio of two layouts' speeds may be off, in percent: the 90 % quantile of the pairs.

    It is wide for two layouts on the same devices: most pairs also differ in their number of devices.
    """
    errors = sorted(pairs(judged))
    return 100 * math.expm1(errors[_rank(len(errors)) - 1])


#: For all machines, since no others have pairs. The median is what half of the ratios are off by.
RELATIVE_INTERVAL_PCT = relative_interval_pct(JUDGED)
RELATIVE_MEDIAN_PCT = 100 * math.expm1(statistics.median(pairs(JUDGED)))


def interval_pct(workload: Workload, devices: int) -> float | None:
    """Half width of the 90 % interval of a predicted speed in percent; None: no speed is predicted."""
    if workload.software is None:
        return None
    gated = workload.model.activation == "swiglu"
    request = Request(devices, workload.seq_len, workload.profile.name, gated)
    width = half_width_pct(request, JUDGED)
    if workload.machine.device.name == DEVICE:
        return width
    return 100 * math.expm1(math.hypot(math.log1p(width / 100), MISSED))


def caveat(workload: Workload) -> str | None:
    """Why the intervals of a device are wide, in a sentence; None for the device whose runs were judged."""
    device = workload.machine.device.name
    if workload.software is None or device == DEVICE:
        return None
    count = OTHER_DEVICES.get(device, 0)
    judged = f"only {count} runs on {device} were judged" if count else f"no run on {device} was judged"
    return (
        f"{judged}. Its rates are from data sheets and micro-benchmarks, scaled by what runs on MI250X reach "
        f"of such rates. Unscaled they miss those by {math.expm1(MISSED):.0%}; the interval allows for as "
        "much here"
    )


def half_width_pct(request: Request, judged: Sequence[Judged]) -> float:
    """The half width in percent, from the residuals of ``judged``."""
    scaled = [abs(run.log_error) / (1 + distance(Request(*run[1:5]), _others(run, judged))) for run in judged]
    quantile = sorted(scaled)[_rank(len(scaled)) - 1]
    return 100 * math.expm1(quantile * (1 + distance(request, judged)))


def distance(request: Request, judged: Sequence[Judged]) -> float:
    """Distance from the nearest of ``judged``; 0 for a run with the same four properties."""
    return min(
        PER_DOUBLING_OF_DEVICES * abs(math.log2(request.devices / run.devices))
        + PER_DOUBLING_OF_SEQUENCE * abs(math.log2(request.seq_len / run.seq_len))
        + OTHER_ENGINE * (request.engine != run.engine)
        + OTHER_FAMILY * (request.gated != run.gated)
        for run in judged
    )


def _others(run: Judged, judged: Sequence[Judged]) -> list[Judged]:
    """The runs of other sources: those that its residual was predicted from."""
    return [other for other in judged if other.source != run.source]


def coverage() -> tuple[int, int]:
    """How many of the judged runs lie in the interval which the other sources alone give them, and of how
    many."""
    held = 0
    for run in JUDGED:
        width = half_width_pct(Request(*run[1:5]), _others(run, JUDGED))
        held += abs(run.log_error) <= math.log1p(width / 100)
    return held, len(JUDGED)
