"""The machine file with what a first day measured, fitted to its native step as ``calibrate`` fits runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from frontrunner.configs import presets
from frontrunner.configs.load import load_machine
from frontrunner.configs.schema import MachineSpec
from frontrunner.configs.software import SoftwareSpec
from frontrunner.launcher import machine_file
from frontrunner.launcher.first_day.found import Day, Figures, median
from frontrunner.launcher.first_day.parts import NATIVE
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.planner.calibrate import Measured, at_bounds, fit, usable
from frontrunner.parallelism.planner.candidates import Candidates, Workload

COMMENT = "Measured by frontrunner doctor --first-day; what one node cannot tell is as before."


def measured_machine(day: Day, figures: Figures, folder: str) -> tuple[str, list[str]] | None:
    """The text of the file, and the constants that ended at a bound of their fit; None without rates."""
    if not day.found["rates"].usable:
        return None
    machine, year = day.spec.machine, time.strftime("%Y")
    device, section = _rates(day, figures)
    at_limit: list[str] = []
    if day.found[NATIVE].usable:
        own = next(row for row in figures["steps"] if row["engine"] == NATIVE)
        constants, at_limit = _fit(day, device, section, own["tokens_per_s_per_device"])
        fitted = machine_file.fitted_keys(constants, [folder])
        rings = section["rings"] | fitted.pop("rings", {})
        section |= fitted | {"rings": rings}
    keys = _keys(machine, device, year, section)
    source = {"source": f"frontrunner doctor --first-day, {folder}", "date": time.strftime("%Y-%m-%d")}
    keys["sources"] = keys.get("sources", {}) | {f"software.{year}": source}
    return machine_file.text(COMMENT, keys), at_limit


def _rates(day: Day, figures: Figures) -> tuple[Figures, Figures]:
    """Changed keys of ``device``, and a whole ``software`` section."""
    ranks, machine = day.found["rates"].ranks, day.spec.machine
    copied = median(ranks, "memory_bytes_per_s")
    peak = machine.device.memory_bandwidth_bytes_per_s
    device = {} if peak else {"memory_bandwidth_bytes_per_s": copied}
    run = day.runs["rates"]
    attention = next(
        row
        for row in figures["attention"]
        if (row["head_dim"], row["seq_len"]) == (run.model.head_dim, run.training.seq_len)
    )
    section: Figures = {
        "gemm": [
            {"size": row["size"], "flops_per_s": median(ranks, "squares", place, "flops_per_s")}
            for place, row in enumerate(ranks[0]["squares"])
        ],
        "gemm_factor": 1.0,
        "attention_flops_per_s": attention["forward_flops_per_s"],
        "memory_efficiency": min(1.0, copied / peak) if peak else 1.0,
        "rings": _rings(machine, figures),
    }
    return device, section


def _rings(machine: MachineSpec, figures: Figures) -> Figures:
    """Rings inside the node from what was measured; others as they were, or as the links are."""
    links = machine.links
    network = links.network.bandwidth_bytes_per_s
    found: Figures = {
        "package": links.package.bandwidth_bytes_per_s,
        "node": links.node.bandwidth_bytes_per_s,
        **dict.fromkeys(("whole_nodes", "across_nodes", "point_to_point"), network),
        "across_latency_s": links.network.latency_s,
    }
    if machine.software:
        found = machine.software[max(machine.software)].rings.model_dump(mode="json")
    gathers = [row for row in figures["collectives"] if row["operation"] == "all-gather"]
    for key, name in {"package": "package", "node": "all devices"}.items():
        rows = [row for row in gathers if name in row["groups"]]
        if rows:
            largest = max(rows, key=lambda row: int(row["bytes"]))
            found[key] = largest["bytes_sent"] / largest["seconds"]
    return found


def _fit(
    day: Day, device: Figures, section: Figures, tokens_per_s: float
) -> tuple[Mapping[str, float], list[str]]:
    """Constants that the native step decides, with the measured rates; and which ended at their bounds."""
    spec = day.spec
    machine = spec.machine.model_copy(
        update={
            "device": spec.machine.device.model_copy(update=device),
            "software": {"measured": SoftwareSpec.model_validate(section)},
        }
    )
    spec = spec.model_copy(update={"machine": machine})
    run = Measured(Workload.of(spec), Candidates.of(spec, Layout.from_spec(spec)), tokens_per_s)
    constants = fit([run], usable([run]))
    return constants, at_bounds(constants, machine)


def _keys(machine: MachineSpec, device: Figures, year: str, section: Figures) -> dict[str, Any]:
    """The machine's own file, extended; the whole machine where it is none of the presets."""
    if machine.name in presets.names("machine") and load_machine(machine.name) == machine:
        keys = machine_file.based_on(machine.name, year, section) | {"name": machine.name}
        return keys | ({"device": device} if device else {})
    keys = machine.model_dump(mode="json", exclude_none=True)
    keys["device"] |= device
    keys["software"] = keys["software"] | {year: section}
    return keys
