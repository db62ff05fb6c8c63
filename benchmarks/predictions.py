"""What the planner predicts for runs on the emulated cluster."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import LEVELS, Layout
from frontrunner.parallelism.planner.candidates import Candidates, Workload
from frontrunner.parallelism.planner.memory import memory
from frontrunner.parallelism.planner.step_time import MicroBatch, step_time

#: Share of a micro-batch's computing; the backward takes twice as long.
FORWARD_SHARE = 1 / 3


def predicted_peak_bytes(spec: RunSpec) -> float:
    """Bytes of tensors on a rank at the peak of a step."""
    return float(memory(Workload.of(spec), Candidates.of(spec, Layout.from_spec(spec))).peak[0])


def predicted_step_s(spec: RunSpec, computing: Mapping[str, float], scale: float) -> float:
    """Seconds of a step on links with ``scale`` times their rates, from the same run on unlimited links.

    ``computing`` has ``forward_backward_s`` and ``step_s`` of a step on unshaped links.
    """
    workload, c = Workload.of(spec), Candidates.of(spec, Layout.from_spec(spec))
    links = {
        level: link.model_copy(update={"bandwidth_bytes_per_s": link.bandwidth_bytes_per_s * scale})
        for level, link in ((level, getattr(workload.machine.links, level)) for level in LEVELS)
    }
    machine = workload.machine.model_copy(update={"links": workload.machine.links.model_copy(update=links)})
    each = computing["forward_backward_s"] / spec.grad_accum_steps
    parts = [np.array([each * share]) for share in (FORWARD_SHARE, 1 - FORWARD_SHARE, 0, 0, 0)]
    optimizer = computing["step_s"] - computing["forward_backward_s"]
    of_run = Workload(
        workload.model,
        machine,
        None,
        workload.seq_len,
        workload.compute_bytes,
        workload.gradient_bytes,
        workload.profile,
    )
    return float(step_time(of_run, c, MicroBatch(*parts), optimizer).total[0])
