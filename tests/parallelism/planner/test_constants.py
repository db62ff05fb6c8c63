"""The table of constants in docs/pages/explanation/planner.md against the machine files and the runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from frontrunner.configs.load import load_machine
from frontrunner.configs.schema import MachineSpec
from frontrunner.configs.software import RingSpec, SoftwareSpec
from frontrunner.parallelism.planner.engine_profile import NATIVE
from frontrunner.parallelism.planner.published import CHECK, read
from frontrunner.parallelism.planner.validate import validate

PAGE = Path(__file__).parents[3] / "docs/pages/explanation/planner.md"
ROWS = [
    row
    for row in read(Path(str(files("frontrunner.configs.published") / "mi250x.yaml")))
    if row.usable_for != CHECK
]
YEARS = ("2023", "2025")
#: Fitted again for each left-out source, so they have no 30 %; their values are held by test_validate.py.
FITTED = {"gemm_factor"}
#: Of engines, not of machines; no published run has experts.
ENGINES = {"expert_imbalance"}


def table() -> dict[str, list[str]]:
    """Cells of the rows whose first cell is the name of a constant."""
    found = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 7:
            found[cells[0].strip("`")] = cells
    return found


TABLE = table()


def value(machine: MachineSpec, year: str, name: str) -> float:
    software = machine.software[year]
    if name in ENGINES:
        return float(getattr(NATIVE, name))
    if name == "links.groups.taper":
        assert machine.links.groups
        return machine.links.groups.taper
    owner = software.rings if name.startswith("rings.") else software
    return float(getattr(owner, name.removeprefix("rings.")))


def scaled(machine: MachineSpec, name: str, factor: float) -> MachineSpec:
    """The machine with a constant of both years multiplied."""
    if name == "links.groups.taper":
        groups = machine.links.groups
        assert groups
        links = machine.links.model_copy(
            update={"groups": groups.model_copy(update={"taper": groups.taper * factor})}
        )
        return machine.model_copy(update={"links": links})
    years = {}
    for year, software in machine.software.items():
        new = value(machine, year, name) * factor
        if name.startswith("rings."):
            rings = software.rings.model_copy(update={name.removeprefix("rings."): new})
            years[year] = software.model_copy(update={"rings": rings})
        else:
            years[year] = software.model_copy(update={name: new})
    return machine.model_copy(update={"software": years})


def mean_left_out(load: Callable[[str], MachineSpec]) -> float:
    errors = [c.left_out_error_pct for c in validate(ROWS, load).speed]
    return float(np.mean([abs(error) for error in errors if error is not None]))


def numbers(cell: str) -> list[float]:
    """The numbers of a cell in SI units: `4.9 GB/s`, `32 us`, `96 KiB`, `1 %`."""
    units = {"GB/s": 1e9, "TFLOP/s": 1e12, "us": 1e-6, "ms": 1e-3, "KiB": 1024, "%": 0.01}
    unit = next((factor for name, factor in units.items() if name in cell), 1.0)
    return [float(text) * unit for text in re.findall(r"\d+(?:\.\d+)?", cell)]


@pytest.mark.parametrize("name", sorted(TABLE))
def test_values_are_those_of_the_machine_files(name: str) -> None:
    for machine in (load_machine("frontier"), load_machine("lumi-g")):
        found = numbers(TABLE[name][1])
        values = [value(machine, year, name) for year in YEARS]
        assert found * (len(values) // len(found)) == pytest.approx(values, rel=1e-6)


def test_every_rate_of_a_link_is_in_the_table() -> None:
    named = {name.removeprefix("rings.") for name in TABLE if name.startswith("rings.")}
    rates = {name for name, found in RingSpec.model_fields.items() if found.annotation is not bool}
    assert named == rates
    assert {"contention", "device_spread", "gemm_factor"} < set(TABLE)
    own = {name for name, field in SoftwareSpec.model_fields.items() if field.annotation is float}
    assert own <= set(TABLE)


@pytest.mark.parametrize("name", sorted(TABLE.keys() - FITTED - ENGINES))
def test_an_error_of_a_third_changes_the_mean_as_the_table_says(name: str) -> None:
    """Left-out error with the constant 30 % too small and too large, and the factors fitted again."""
    said = numbers(TABLE[name][5]) + numbers(TABLE[name][6])
    found = []
    for factor in (0.7, 1.3):
        machines = {key: scaled(load_machine(key), name, factor) for key in ("frontier", "lumi-g")}
        found.append(mean_left_out(machines.__getitem__))
    assert found == pytest.approx(said, abs=0.06)
