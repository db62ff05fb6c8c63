"""From files of another trainer to a run file, with an account of every setting."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from frontrunner.configs import presets
from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.load import Document, examine_keys, load_machine
from frontrunner.configs.schema import MachineSpec
from frontrunner.launcher.importers import (
    deepspeed,
    files,
    gpt_neox,
    jobs,
    megatron,
    nemo,
    shortening,
    torchtitan,
)
from frontrunner.launcher.importers.consequences import settle
from frontrunner.launcher.importers.settings import Conversion, Given, Ignored, Setting

CONVERTERS: dict[str, Callable[[Conversion, int | None], None]] = {
    "megatron": megatron.convert,
    "megatron-deepspeed": megatron.convert,
    "deepspeed": deepspeed.convert,
    "gpt-neox": gpt_neox.convert,
    "torchtitan": torchtitan.convert,
    "nemo": nemo.convert,
}
TITLES = {
    "megatron": "Megatron-LM",
    "megatron-deepspeed": "Megatron-DeepSpeed",
    "deepspeed": "DeepSpeed",
    "gpt-neox": "GPT-NeoX",
    "torchtitan": "torchtitan",
    "nemo": "NeMo",
}
_ORDER = (
    "name",
    "model",
    "machine",
    "nodes",
    "layout",
    "training",
    "optimizer",
    "data",
    "checkpoint",
    "slurm",
)
_PREFIXES = (
    "data_path",
    "train_weighted_split_paths_path",
    "train_weighted_split_paths",
    "train_data_path",
    "train_data_paths",
    "data_prefix",
    "model.data.data_prefix",
)


@dataclass(frozen=True)
class Request:
    """What the user asks for; ``variables`` are set before scripts start, or replace the files' settings."""

    paths: Sequence[Path]
    trainer: str | None
    model: str | None
    machine: str | None
    nodes: int | None
    variables: Mapping[str, str]
    overrides: Sequence[str]
    folder: Path


@dataclass(frozen=True)
class Imported:
    """The run file's keys, short and whole; where each was taken from; what was not."""

    trainer: str
    keys: dict[str, Any]
    document: Document
    understood: dict[str, str]
    ignored: tuple[Ignored, ...]


def imported(request: Request) -> Imported:
    """A run file for other trainers' files; SpecError names everything that makes another run."""
    given = files.gather(request.paths, request.trainer, request.variables)
    fixed = _fixed(request.overrides)
    named = bool(request.model or given.model)
    own = Conversion(given.trainer, given.settings, fixed=fixed, another_model=named)
    world = jobs.devices(given)
    machine = request.machine or jobs.machine(given)
    devices_per_node = _machine(machine).devices_per_node if machine else None
    if request.nodes and devices_per_node:
        world = request.nodes * devices_per_node
    CONVERTERS[given.trainer](own, world)
    _put_model(own, request, given)
    _put_machine(own, request, machine, world, devices_per_node)
    _put_data(own)
    jobs.put(own, given, machine if machine == jobs.machine(given) else None)
    settle(own, given.printed)
    for place, text in given.notes:
        own.ignored.append(Ignored(place, text, "only a run of the script can tell, so it is left out"))
    for path in fixed:
        own.put(path, fixed[path], "-o")
    return _finished(own, request, given)


def _fixed(overrides: Sequence[str]) -> dict[str, Any]:
    """Dotted keys and values of ``-o``."""
    found: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[a-z_]+(\.[a-z0-9_]+)*", key):
            fix = "write it like layout.tensor=4"
            raise SpecError([Violation("-o", text, "is not KEY=VALUE", fix)])
        found[key] = files.typed(value)
    return found


def _machine(name: str) -> MachineSpec:
    return load_machine(name)


def _put_model(own: Conversion, request: Request, given: Given) -> None:
    """The model that the user names, in place of the files'."""
    name = request.model or given.model
    if name is not None:
        own.run["model"] = name
        own.origins = {key: value for key, value in own.origins.items() if not key.startswith("model.")}
        own.origins["model"] = "--model" if request.model else name


def _put_machine(
    own: Conversion, request: Request, machine: str | None, world: int | None, per_node: int | None
) -> None:
    if machine is None:
        names = ", ".join(presets.names("machine"))
        own.problems.append(
            Violation("--machine", None, "is missing: the files do not say", f"use one of: {names}")
        )
    else:
        own.put("machine", machine, "--machine" if request.machine else "a name in the files")
    if request.nodes is not None:
        own.put("nodes", request.nodes, "--nodes")
    elif world is None:
        what = "is missing: the files do not say how many devices they use"
        own.problems.append(Violation("--nodes", None, what, "give a number of nodes, such as --nodes 4"))
    elif per_node and world % per_node:
        what = f"is missing: {world} devices are no whole nodes of {per_node}"
        own.problems.append(Violation("--nodes", None, what, f"use --nodes {-(-world // per_node)}"))
    elif per_node:
        own.put("nodes", world // per_node, f"{world} devices, {per_node} a node")


def _put_data(own: Conversion) -> None:
    """A corpus that is here; else synthetic, because other trainers' blends are no corpus of ours."""
    setting = own.take(*_PREFIXES)
    own.take("mock_data", "train_data_weights", "valid_data_paths", "test_data_paths", "valid_data_path")
    own.put("data", "synthetic", "no corpus")
    if setting is None or setting.value is None:
        return
    prefix = (
        setting.value[-1] if isinstance(setting.value, list) and len(setting.value) == 1 else setting.value
    )
    if isinstance(prefix, str) and Path(f"{prefix}.idx").is_file():
        own.put("data", {"train": prefix}, setting)
    elif isinstance(prefix, str):
        own.ignore(setting, "the data is synthetic: the corpus is not here; set data.train")
    else:
        own.ignore(setting, "the data is synthetic: a blend of several corpora is not supported")


def _finished(own: Conversion, request: Request, given: Given) -> Imported:
    keys = {key: own.run[key] for key in _ORDER if key in own.run}
    examined = examine_keys(keys, folder=request.folder, name=given.name)
    problems = [found for found in own.problems if found.path not in own.fixed]
    asked = {found.path for found in problems}
    for found in examined.violations:
        if not _follows(found, own, asked):
            problems.append(_placed(found, own))
    if problems or examined.document is None:
        raise SpecError(problems or examined.violations)
    short = shortening.shorten(keys, examined.document, request.folder)
    understood = {key: str(origin) for key, origin in own.origins.items()}
    return Imported(own.trainer, short, examined.document, understood, tuple(own.ignored))


def _follows(found: Violation, own: Conversion, asked: set[str]) -> bool:
    """Whether a key is missing only because its setting was refused, or because the user is asked for it."""
    if found.constraint != "is missing":
        return False
    return found.path in own.failed or bool({found.path, f"--{found.path}"} & asked)


def _placed(found: Violation, own: Conversion) -> Violation:
    """A violation of the run file at the setting from which the value was taken."""
    origin = own.origins.get(found.path)
    if isinstance(origin, Setting):
        return replace(found, file=origin.file, line=origin.line)
    if found.constraint == "is missing":
        fix = f"add -o {found.path}=VALUE" if found.path != "model" else "name one: --model llama-3-8b"
        return replace(found, file=None, line=None, fix=fix)
    return replace(found, file=None, line=None)
