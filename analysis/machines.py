"""What a run's machine can do: peaks, measured rates, memory. Taken from machine files, never guessed."""

from __future__ import annotations

from functools import cache
from typing import cast

from pydantic import ValidationError

from frontrunner.analysis.run_log import RunLog
from frontrunner.configs.load import load_machine
from frontrunner.configs.schema import MachineSpec
from frontrunner.configs.sharding import Precision


def machine_of(run: RunLog, default: str | None) -> MachineSpec | None:
    """The machine of a run: from its header, else the one that its log names, else ``default``.

    None if no source names one. Raises SpecError if ``default`` is not a machine.
    """
    if run.spec is not None and run.spec_key is not None:
        if run.spec_key not in _own:
            _own[run.spec_key] = _valid(run.spec.get("machine"))
        found = _own[run.spec_key]
        if found is not None:
            return found
    name = run.machine if run.spec is None and run.machine else default
    return _preset(name) if name else None


#: Keyed by the ``spec_key`` of the specification that holds it.
_own: dict[bytes, MachineSpec | None] = {}


def _valid(machine: object) -> MachineSpec | None:
    try:
        return MachineSpec.model_validate(machine)
    except ValidationError:
        return None


@cache
def _preset(name: str) -> MachineSpec:
    return load_machine(name)


def peak_flops_per_s(machine: MachineSpec | None, precision: str | None) -> float | None:
    """Peak of one device in that precision; None if either is unknown."""
    if machine is None or precision is None:
        return None
    return machine.device.peak_flops_per_s.get(cast(Precision, precision))


def best_product_flops_per_s(machine: MachineSpec | None, precision: str | None) -> float | None:
    """The fastest 16-bit matrix product measured on the device; None if none was measured."""
    if machine is None or precision not in ("bfloat16", "float16"):
        return None
    rates = [
        point.flops_per_s * max(1.0, software.gemm_factor)
        for software in machine.software.values()
        for point in software.gemm
    ]
    return max(rates, default=None)
