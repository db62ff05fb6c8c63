"""Drafts a run file from what a newcomer knows: a model, a machine, a corpus and a number of tokens."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontrunner.configs import presets
from frontrunner.configs.brief import brief
from frontrunner.configs.data import DataSpec
from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.load import Document, examine_keys, load_run
from frontrunner.configs.presets import Kind
from frontrunner.launcher.proposal import Proposal, propose
from frontrunner.launcher.verify import judged
from frontrunner.parallelism.corpus import check_data, is_here, read_info
from frontrunner.parallelism.planner.candidates import Candidates, Workload
from frontrunner.parallelism.planner.plan import estimate

#: The warm-up is a hundredth of the run, up to this many steps.
LONGEST_WARMUP = 2000
_MARGIN, _START_H = 1.1, 0.25
_ORDER = ("extends", "model", "machine", "nodes", "layout", "training", "optimizer", "data", "slurm")


@dataclass(frozen=True)
class Wish:
    """What the user said; paths are relative to the working directory."""

    model: str
    machine: str
    data: str
    nodes: int | None
    tokens: int | None
    account: str | None
    output: Path


@dataclass(frozen=True)
class Draft:
    """The ``text`` of the file, the run that it gives, and remarks for the user."""

    text: str
    document: Document
    remarks: tuple[str, ...]


def draft(wish: Wish) -> Draft:
    """A run file for a wish; SpecError if there is no such run."""
    folder = wish.output.parent
    keys: dict[str, Any] = {
        "model": named_in(folder, "model", wish.model),
        "machine": named_in(folder, "machine", wish.machine),
    }
    preset = _preset(keys, folder)
    if preset:
        keys = {"extends": preset}
    data, base = data_section(wish.data), load_run(preset).spec if preset else None
    if base and isinstance(base.data, DataSpec) and isinstance(data, dict):
        data = {"tokenizer": None} | data  # the preset's is of another corpus
    keys |= {"data": data} | ({"nodes": wish.nodes} if wish.nodes is not None else {})
    found = propose(keys, folder=folder)
    keys = found.keys
    if wish.tokens is not None:
        keys["training"] = keys.get("training", {}) | {"tokens": wish.tokens}
        training = found.document.spec.training
        steps = steps_of(wish.tokens, training.seq_len, training.global_batch_size)
        keys["optimizer"] = {"warmup_steps": min(LONGEST_WARMUP, max(1, steps // 100))}
    if not preset:
        keys["optimizer"] = {"learning_rate": 3e-4} | keys.get("optimizer", {})
    slurm, why = _slurm(wish, keys, folder)
    keys |= {"slurm": slurm} if slurm else {}
    keys = {key: keys[key] for key in _ORDER if key in keys}
    document, _ = judged(examine_keys(keys, folder=folder, name=wish.output.stem))
    notes = _notes(wish, found, document, preset) | why
    return Draft(brief(keys, notes), document, tuple(_remarks(document, found)))


def named_in(folder: Path, kind: Kind, name: str) -> str:
    """A preset or path as a file in ``folder`` names it."""
    if presets.path(kind, name) or Path(name).is_absolute() or not Path(name).exists():
        return name
    path = os.path.relpath(name, folder)
    return path if path.startswith("..") else f"./{path}"


def _preset(keys: dict[str, Any], folder: Path) -> str | None:
    """The run preset of this model on this machine; SpecError if either does not exist."""
    examined = examine_keys(keys | {"data": "synthetic"}, folder=folder)
    if examined.document is None:
        raise SpecError(examined.violations)
    for name in presets.names("run"):
        known, asked = load_run(name).spec, examined.document.spec
        if known.model == asked.model and known.machine == asked.machine:
            return name
    return None


def data_section(given: str) -> str | dict[str, Any]:
    """The ``data`` section for a prefix, with the tokenizer that its corpus names."""
    if given == "synthetic":
        return given
    prefix = given.removesuffix(".bin").removesuffix(".idx")
    if Path(prefix).is_dir():
        inside = sorted(path.with_suffix("") for path in Path(prefix).glob("*.idx"))
        fix = f"write {inside[0]}" if inside else "write a prefix, such as corpus/train, or synthetic"
        raise SpecError([Violation("--data", given, "is a folder, not the prefix of a corpus", fix)])
    info = read_info(prefix)
    tokenizer = Path(prefix).parent / info.tokenizer if info else None
    return {"train": prefix} | ({"tokenizer": str(tokenizer)} if tokenizer and tokenizer.is_file() else {})


def steps_of(tokens: int, seq_len: int, global_batch_size: int) -> int:
    """Steps that take at least that many tokens."""
    return -(-tokens // (global_batch_size * seq_len))


def time_limit(hours: float) -> str:
    """A ``slurm.time_limit`` for a run that the planner says takes ``hours``."""
    asked = hours * _MARGIN + _START_H
    return f"{math.ceil(asked)}h" if asked < 48 else f"{math.ceil(asked / 24)}d"


def _slurm(wish: Wish, keys: dict[str, Any], folder: Path) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """The ``slurm`` section and its notes: an account, and a time limit from the planner."""
    document, layout = judged(examine_keys(keys, folder=folder))
    spec = document.spec
    slurm: dict[str, Any] = {"account": wish.account} if wish.account else {}
    notes: dict[str, list[str]] = {}
    time = estimate(Workload.of(spec), Candidates.of(spec, layout)).time
    if time is not None:
        hours = float(time.total[0]) * spec.training.steps / 3600
        slurm["time_limit"] = time_limit(hours)
        shown = f"{hours / 24:,.1f} days" if hours >= 48 else f"{hours:,.1f} hours"
        notes["slurm.time_limit"] = [f"Of the whole run: {shown} by the planner, 10 % more, and a start."]
    elif not spec.machine.site.queues:
        slurm["time_limit"] = "2h"
        notes["slurm.time_limit"] = ["A guess: the machine file has no rates and no limits."]
    if spec.machine.site.account_required and not wish.account:
        first = next(iter(slurm), None)
        where = f"slurm.{first}" if first else "data"
        account = "account: PROJECT, or `submit --account PROJECT`. This machine requires one."
        notes[where] = [account, *notes.get(where, [])]
    return slurm, notes


def _notes(wish: Wish, found: Proposal, document: Document, preset: str | None) -> dict[str, list[str]]:
    """Comments of a draft by dotted key."""
    spec, training = document.spec, document.spec.training
    first = ["Written by `frontrunner init`."]
    if preset:
        first.append(f"`frontrunner presets {preset}` prints what this file extends.")
    why = [f"{reason[0].upper()}{reason[1:]}." for reason in found.reasons]
    notes = {"extends" if preset else "model": first}
    place = next((key for key in ("layout", "nodes", "training", "data") if key in found.keys), "data")
    if spec.machine.software:
        ask = f"frontrunner search {wish.model} --machine {wish.machine} --nodes {spec.nodes}"
        why += ["To see others:", f"  {ask}"]
    notes[place] = ["The planner's choice.", *why]
    tokens = training.steps * training.global_batch_size * training.seq_len
    if wish.tokens is not None:
        notes["training.tokens"] = [f"{training.steps:,} steps."]
    else:
        trial = f"{training.steps:,} steps, {tokens:.3g} tokens. For more, set training.tokens."
        notes["optimizer" if not preset else "data"] = [trial]
    if not preset:
        own = "The default. Set what suits the model and the batch."
        notes["optimizer.learning_rate"] = [own]
    return notes


def _remarks(document: Document, found: Proposal) -> Iterator[str]:
    spec = document.spec
    yield from found.reasons
    if isinstance(spec.data, DataSpec) and not is_here(spec.data):
        yield f"data: {spec.data.train}.bin and .idx are not here; training needs them"
        return
    try:
        check_data(spec)
    except SpecError as error:
        yield from (f"warning: {violation}" for violation in document.annotate(error).violations)
