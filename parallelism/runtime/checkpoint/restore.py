"""Restores the newest complete checkpoint into whatever layout the run has now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.checkpoint import state_dict_loader

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.parallelism.fingerprint import check_same_corpus
from frontrunner.parallelism.runtime.checkpoint import rank_state
from frontrunner.parallelism.runtime.checkpoint.pieces import FIRST_MOMENT, Piece, model_pieces
from frontrunner.parallelism.runtime.checkpoint.plans import PIECES, PieceLoadPlanner
from frontrunner.parallelism.runtime.checkpoint.progress import Progress
from frontrunner.parallelism.runtime.checkpoint.storage import RankFileReader
from frontrunner.parallelism.runtime.trainer import Trainer
from frontrunner.run_folder import checkpoints as files
from frontrunner.run_folder.checkpoints import DamagedCheckpoint, Manifest, check_model

Warn = Callable[[str], None]


def resume(trainer: Trainer, run_dir: Path, warn: Warn) -> Progress | None:
    """Fill the trainer from the run's newest complete checkpoint; None if there is none. Collective.

    ``warn`` receives a message for each damaged checkpoint that is skipped, and for state that starts over in
    another layout. Raises SpecError if the checkpoint is of another model.
    """
    if trainer.groups.rank == 0:
        files.clean_up(run_dir)
    listed: list[Any] = [files.found(run_dir)]
    dist.broadcast_object_list(listed, src=0)
    for path in listed[0]:
        problem = _problem(trainer, path)
        if problem is None:
            return _load(trainer, path, warn)
        warn(f"damaged checkpoint skipped: {problem}")
        if trainer.groups.rank == 0:
            files.set_aside(path)
    return None


def start_from(trainer: Trainer, place: Path) -> None:
    """Load weights from a checkpoint or a run folder's newest; moments and steps start over. Collective."""
    path = files.locate(place, "checkpoint.start_from")
    problem = _problem(trainer, path)
    if problem is not None:
        constraint = f"is damaged: {problem}"
        raise SpecError(
            [Violation("checkpoint.start_from", str(place), constraint, "use another checkpoint")]
        )
    manifest = files.read_manifest(path)
    check_model(manifest, trainer.spec.model)
    _fill(path, manifest, model_pieces(trainer.optimizer, saving=False, moments=False))
    trainer.optimizer.restored(updates=0)


def _load(trainer: Trainer, path: Path, warn: Warn) -> Progress:
    manifest = files.read_manifest(path)
    check_model(manifest, trainer.spec.model)
    if trainer.groups.rank == 0:
        check_same_corpus(trainer.spec, manifest.state.get("corpus"))
    state, optimizer = manifest.state, trainer.optimizer
    moments = any(name.startswith(f"{FIRST_MOMENT}/") for name in manifest.tensors)
    pieces = model_pieces(optimizer, saving=False, moments=moments)
    random = {}
    if state.get("ranks") == rank_state.same_ranks(trainer):
        random = rank_state.random_pieces(trainer)
        pieces += [*random.values(), *rank_state.residual_pieces(trainer)]
    elif lost := rank_state.what_is_lost(trainer):
        warn(f"the layout differs from that of {path}: {lost} start over")
    _fill(path, manifest, pieces)
    if random:
        rank_state.put_back(trainer, random)
    optimizer.restored(state["updates"])
    if optimizer.loss_scale.enabled and state["loss_scale"] > 1:
        optimizer.loss_scale.value = state["loss_scale"]
        optimizer.loss_scale.good_steps = state["good_steps"]
    return Progress(manifest.step, state["samples"], state["first_validation_loss"], state["bad_steps"])


def _fill(path: Path, manifest: Manifest, pieces: list[Piece]) -> None:
    state_dict_loader.load(
        {PIECES: pieces},
        storage_reader=RankFileReader(path, manifest),
        planner=PieceLoadPlanner(dict(manifest.tensors)),
        process_group=dist.new_group(backend="gloo"),
    )


def _problem(trainer: Trainer, path: Path) -> str | None:
    """What is wrong with a checkpoint. Some rank reads each byte once; all ranks get the same answer."""
    groups, found = trainer.groups, None
    try:
        checked = files.read_manifest(path).files[groups.rank :: groups.layout.world_size]
        for file in checked:
            files.check_file(path, file)
    except DamagedCheckpoint as error:
        found = str(error)
    problems: list[str | None] = [None] * groups.layout.world_size
    dist.all_gather_object(problems, found)
    return next((problem for problem in problems if problem is not None), None)
