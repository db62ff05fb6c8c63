"""What all measurements of a first day need: a place among the ranks, and files for what they found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime.device import select_device
from frontrunner.parallelism.runtime.process_groups import ProcessGroups, initialize
from frontrunner.run_folder import files


@contextmanager
def joined(spec: RunSpec, rendezvous: Rendezvous) -> Iterator[tuple[ProcessGroups, torch.device]]:
    """This rank's groups and device; collective. The world is left only after success: see ``train``."""
    device = select_device(spec.machine.device.kind, rendezvous.local_rank)
    groups = initialize(Layout.from_spec(spec), rendezvous, device)
    yield groups, device
    dist.barrier()
    dist.destroy_process_group()


def publish(run_dir: Path, rank: int, figures: dict[str, Any]) -> None:
    """Write what a rank found. It takes no other rank: one that fails later does not take it along."""
    path = files.result_file(run_dir, rank)
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(figures), encoding="utf-8")
    unfinished.replace(path)


def arrive(run_dir: Path, rank: int, where: str) -> None:
    """Note what a rank does next: if it does not end, this says in what."""
    path = files.whereabouts_file(run_dir, rank)
    path.parent.mkdir(exist_ok=True)
    path.write_text(where, encoding="utf-8")
