"""The nodes to avoid on one cluster: a text file that the doctor extends and people may edit.

One node per line, with the reason after a #. It is next to the run folders: ``runs/exclude-MACHINE.txt``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def file_of(machine: str, runs: Path = Path("runs")) -> Path:
    return runs / f"exclude-{machine.replace('/', '-')}.txt"


def read(path: Path) -> list[str]:
    """Nodes in the order of the file; empty without a file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return list(dict.fromkeys(node for line in lines if (node := line.partition("#")[0].strip())))


def add(path: Path, reasons: Mapping[str, str]) -> list[str]:
    """Append nodes that the file does not have; returns the new ones."""
    known = set(read(path))
    new = [node for node in reasons if node not in known]
    if new:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.writelines(f"{node}  # {reasons[node]}\n" for node in new)
    return new


def joined(given: str | None, nodes: list[str]) -> str | None:
    """A Slurm host list of the run's excluded nodes and these; None if there are none."""
    return ",".join([*([given] if given else []), *nodes]) or None
