"""Checks that ranks drive the devices that the layout assumes: two of a package, and the nearest cores.

Three-level sharding gathers weights inside packages in every layer. With pairs that do not share a package
it would still run and give the same losses, but slower than what it replaces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.schema import MachineSpec
from frontrunner.parallelism.layout import Layout

_MOST = 4


@dataclass(frozen=True)
class Place:
    """Where one rank runs. ``pci_bus`` is two hexadecimal digits, or None if the device has none."""

    host: str
    pci_bus: str | None = None
    cores: frozenset[int] = frozenset()


def check(layout: Layout, machine: MachineSpec, places: Sequence[Place]) -> None:
    """Raise SpecError if groups that the layout puts on one package are not on one package.

    ``places`` has one entry per rank. What the machine file does not say is not checked.
    """
    inside = layout.tensor * layout.weights
    if machine.devices_per_package == 1 or inside == 1 or machine.devices_per_package % inside:
        return
    wrong = [*_wrong_pairs(layout, machine, places), *_shared(places)]
    if wrong:
        more = [f"and {len(wrong) - _MOST} more"] if len(wrong) > _MOST else []
        what = "; ".join([*wrong[:_MOST], *more])
        fix = "start the ranks as `frontrunner submit --dry-run` shows, or correct machine.site.devices"
        constraint = f"each group needs the devices of one package: {what}"
        raise SpecError([Violation("layout.sharding", None, constraint, fix)])


def misbound(machine: MachineSpec, places: Sequence[Place]) -> list[str]:
    """Ranks that may not use any core near their device. They are slower, nothing worse."""
    numbers = {place.pci_bus: n for n, place in enumerate(machine.site.devices)}
    found = []
    for rank, place in enumerate(places):
        number = numbers.get(place.pci_bus) if place.pci_bus else None
        if number is None or not place.cores:
            continue
        near = machine.site.devices[number]
        if not place.cores & set(near.core_numbers()):
            found.append(
                f"rank {rank} on {place.host} drives device {number} but may not use its cores {near.cores}"
            )
    return found


def _wrong_pairs(layout: Layout, machine: MachineSpec, places: Sequence[Place]) -> Iterator[str]:
    packages: dict[str | None, int] = {
        place.pci_bus: number // machine.devices_per_package
        for number, place in enumerate(machine.site.devices)
    }
    size = layout.devices_per_package
    for first in range(0, len(places), size):
        group = places[first : first + size]
        where = {(place.host, packages.get(place.pci_bus) if place.pci_bus else None) for place in group}
        if len(where) > 1:
            yield "ranks " + " and ".join(_name(first + n, place, packages) for n, place in enumerate(group))


def _shared(places: Sequence[Place]) -> Iterator[str]:
    """Devices that more than one rank drives."""
    used = Counter((place.host, place.pci_bus) for place in places if place.pci_bus)
    for (host, bus), count in used.items():
        if count > 1:
            ranks = [str(r) for r, place in enumerate(places) if (place.host, place.pci_bus) == (host, bus)]
            yield f"ranks {', '.join(ranks)} all drive the device on PCI bus {bus} of {host}"


def _name(rank: int, place: Place, packages: dict[str | None, int]) -> str:
    device = f" on PCI bus {place.pci_bus}" if place.pci_bus else ""
    package = f" (package {packages[place.pci_bus]})" if place.pci_bus in packages else ""
    return f"{rank} on {place.host}{device}{package}"
