"""What to change in a run that failed, from the planner."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from frontrunner.configs.errors import SpecError
from frontrunner.configs.units import bytes_text
from frontrunner.run_folder import failures, files
from frontrunner.run_folder.state import RunState

if TYPE_CHECKING:
    from frontrunner.configs.schema import RunSpec  # `status` starts in half the time without it


def memory_advice(spec: RunSpec) -> list[str]:
    """For a run that ran out of memory: what the plan said of it, and changes that need less."""
    from frontrunner.parallelism.layout import Layout
    from frontrunner.parallelism.planner.advise import smaller
    from frontrunner.parallelism.planner.candidates import Candidates, Workload
    from frontrunner.parallelism.planner.plan import estimate

    planned = estimate(Workload.of(spec, None), Candidates.of(spec, Layout.from_spec(spec)))
    peak, capacity = float(planned.memory.peak[0]), float(spec.machine.device.memory_bytes)
    lines = [f"the plan said {bytes_text(peak)} of a device's {bytes_text(capacity)}"]
    options = smaller(spec, planned)
    if not options:
        return [*lines, "no change of one key needs less: use more stages, tensor ranks or nodes"]
    lines.append("changes that need less memory:")
    for option in options:
        speed = f", {option.gain:+.1%} tokens/s" if planned.time else ""
        lines.append(f"  {option.option}: {bytes_text(option.peak_memory_bytes)}{speed}")
    return lines


def advice_for(run_dir: Path, now: RunState) -> list[str]:
    """What to change in a run in this state, in lines; empty if there is nothing to say."""
    from frontrunner.configs.load import read_resolved

    if now.state != "failed" or not failures.out_of_memory(now.last_error):
        return []
    try:
        return memory_advice(read_resolved(run_dir / files.SPEC))
    except (SpecError, OSError):
        return []
