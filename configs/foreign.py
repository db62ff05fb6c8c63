"""Names the files that people give in place of run files: other trainers' files, ours of another kind, pages.

Recognised by content, never by name. A file that could be a run file with mistakes is not recognised, so that
its mistakes are reported instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from frontrunner.configs import messages, other_trainers
from frontrunner.configs.errors import Violation
from frontrunner.configs.yaml_tree import Source, read_text

_HEAD_BYTES = 1 << 18
_LARGEST_MAPPING = 1 << 16
_LONGEST_LINE = 500
_MOST_KEYS = 6

#: Kinds, in words.
LABELS = {
    "run": "a run file",
    "sweep": "a sweep file",
    "machine": "a machine file",
    "model": "a model file",
    "rows": "a file of measured runs",
    "records": "a run's records",
    "manifest": "a checkpoint's manifest",
    "job": "a job script of frontrunner",
    "gpt-neox": "a GPT-NeoX configuration",
    "deepspeed": "a DeepSpeed configuration",
    "megatron": "a Megatron-LM script",
    "megatron-deepspeed": "a Megatron-DeepSpeed script",
    "torchtitan": "a torchtitan configuration",
    "nemo": "a NeMo configuration",
    "transformers": "a transformers Trainer configuration",
    "huggingface": "a Hugging Face model's config.json",
    "script": "a script",
    "python": "a Python program",
    "log": "a training log",
    "toml": "a TOML file",
    "page": "a web page",
    "notebook": "a notebook",
    "binary": "a binary file",
    "safetensors": "a file of weights",
    "archive": "an archive or a torch checkpoint",
    "pdf": "a PDF document",
    "utf16": "text in UTF-16",
    "run folder": "a run folder",
    "runs": "a folder of runs",
    "checkpoint": "a checkpoint folder",
    "model folder": "a Hugging Face model's folder",
}
#: Kinds that `frontrunner import` reads.
IMPORTABLE = {"gpt-neox", "deepspeed", "megatron", "megatron-deepspeed", "torchtitan", "nemo"}
_ADVICE = {
    ("run", "sweep"): "start it with `frontrunner sweep run {file}`",
    ("run", "machine"): "name it in a run file: `machine: {file}`",
    ("run", "model"): "name it in a run file: `model: {file}`",
    ("run", "huggingface"): "name it in a run file: `model: {file}`, or use `frontrunner search {file}`",
    ("run", "model folder"): "name its config.json in a run file: `model: {file}/config.json`",
    ("run", "job"): "give the run folder to `frontrunner submit` or `continue`, or its run.yaml here",
    ("run", "run folder"): "name its run.yaml: {file}/run.yaml",
    ("run", "checkpoint"): "name it in a run file: `checkpoint: {{start_from: {file}}}`",
    ("sweep", "run"): "name it in a sweep file: `base: {file}`",
    ("model", "model folder"): "name its config.json: {file}/config.json",
    ("model", "run"): "plan it with `frontrunner plan {file}`, or name the model in it",
    ("machine", "run"): "name the machine in it, a preset or a file",
    ("rows", "run"): "name its run folder, which has the measured steps",
    ("log", "run"): "name its run folder, or use `frontrunner plan {file}` to predict it",
    ("log", "sweep"): "use `frontrunner sweep report {file}`",
    ("log", "job"): "name its run folder",
}
_ALWAYS = {
    "records": "read it with `frontrunner analyze {file}`",
    "log": "read it with `frontrunner analyze {file}`",
    "runs": "name one of the folders in it",
    "page": "download the raw file, not the page that shows it",
    "utf16": "save it as UTF-8",
}
#: Kinds that are accepted too.
_ALSO = {"model": ("huggingface",)}
_START = {"run": "`frontrunner presets quickstart` prints one to start from", "sweep": "see gpt-175b-dash"}
_MAGIC = {
    b"PK\x03\x04": "archive",
    b"\x1f\x8b": "archive",
    b"\x80\x02": "archive",  # a pickle
    b"%PDF": "pdf",
    b"\xff\xfe": "utf16",
    b"\xfe\xff": "utf16",
}
#: Lines that only one kind of text has, the more special ones first.
_LINES = {
    "page": r"\A\s*(<!doctype html|<html|<\?xml|<head)",
    "notebook": r'\A\s*\{\s*"cells":|^[ \t]*"nbformat":',
    "job": r"\A#![\s\S]*\bfrontrunner (train|continue)\b",
    "megatron": r"--(tensor-model-parallel-size|num-attention-heads|pipeline-model-parallel-size)\b"
    r"|\bpretrain_(gpt|bert|t5|mamba)\.py",
    "manifest": r'\A\s*\{\s*"step":\s*\d+,\s*"spec":',
    "records": r'\A\s*\{"kind": ?"',
    "log": r"^.*\biteration\s+\d+/\s*\d+ \||^[^\n]*\bstep[:= ]+\d+\b.*\bloss[:= ]+[\d.]+",
    "script": r"\A#!|^#SBATCH ",
    "python": r"\A([ \t]*\n|\"\"\".*\n)*(import \w|from [\w.]+ import |def \w+\()",
    "torchtitan": r"^\[(parallelism|activation_checkpoint|lr_scheduler|experimental|float8)\]\s*$",
    "toml": r"\A([ \t]*\n)*(\[[\w.]+\][ \t]*$|\w+ = )",
}
_MOST_ENTRIES = 20
_ENDINGS = (".yaml", ".json", ".jsonl", ".sh")
#: Files that only checkpoints of other trainers have: torch's, Megatron-LM's, DeepSpeed's.
_CHECKPOINT_FILES = {".metadata", "latest_checkpointed_iteration.txt", "zero_to_fp32.py"}
_COMMENT = re.compile(r"[ \t]*#(?!!|SBATCH)")  # may quote anything
#: Keys of a mapping, all of which or (nested tuple) one of which must be there.
_KEYS: tuple[tuple[str, tuple[str | tuple[str, ...], ...]], ...] = (
    ("notebook", ("cells", "nbformat")),
    ("sweep", ("space", ("base", "budget", "objective", "sampler"))),
    ("machine", (("packages_per_node", "devices_per_package", "links"),)),
    ("nemo", ("trainer", ("exp_manager", "model", "_target_"))),
    ("huggingface", (("model_type", "architectures"),)),
    (
        "gpt-neox",
        (("pipe_parallel_size", "train_iters"), ("model_parallel_size", "num_layers", "seq_length")),
    ),
    ("deepspeed", (("zero_optimization", "train_micro_batch_size_per_gpu", "train_batch_size"),)),
    ("transformers", (("per_device_train_batch_size", "num_train_epochs", "output_dir"),)),
    ("torchtitan", ("parallelism", "training")),
    ("model", ("num_layers", "hidden_size")),
)
_SECTIONS = {"nodes", "model", "layout", "training", "optimizer"}
_UNLIKE = other_trainers.UNITS.keys()
#: Keys that say, beside ``extends``, that a file is a run file.
_OWN = {"model", "machine", "nodes", "layout", "training", "optimizer", "data", "checkpoint", "slurm"}


@dataclass(frozen=True)
class Found:
    """What a text is: a key of :data:`LABELS`, and the other trainer's keys with their values."""

    kind: str
    keys: Mapping[str, object]


def recognise(text: str) -> Found | None:
    """What a text is; None if it is unknown, or may be a run file with mistakes."""
    text = text[:_HEAD_BYTES]
    if re.match(_LINES["page"], text, re.IGNORECASE):
        return Found("page", {})
    tree = _tree(text)
    if isinstance(tree, dict) and (_may_be_run(tree) or (found := _mapping(tree))):
        return _run(tree) if _may_be_run(tree) else found
    if isinstance(tree, list) and tree and all(isinstance(row, dict) and "id" in row for row in tree):
        return Found("rows", {})
    lines = (line[:_LONGEST_LINE] for line in text.split("\n"))  # patterns are quadratic in a line
    said = "\n".join(line for line in lines if not _COMMENT.match(line))
    kind = next((kind for kind, line in _LINES.items() if re.search(line, said, re.MULTILINE)), None)
    if kind == "megatron" and re.search(r"--(deepspeed|zero-stage)\b", said):
        kind = "megatron-deepspeed"
    return Found(kind, _arguments(said)) if kind else None


def _tree(text: str) -> Any:
    """The values of a YAML or JSON text; None if it is neither, or too large or deep for a run file."""
    if len(text) > _LARGEST_MAPPING:
        return None
    node = read_text(text, Source("", Path()), [])
    return node.plain() if node else None


def recognise_path(path: Path) -> Found | None:
    """What a file or folder is; None if it is unknown or unreadable."""
    try:
        if path.is_dir():
            return _folder(path)
        if not path.is_file():
            return None  # reading a pipe would wait
        with path.open("rb") as file:
            data = file.read(_HEAD_BYTES)
    except (OSError, ValueError):
        return None
    kind = next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), None)
    if kind is None and data[8:10] == b'{"' and data[4:8] == bytes(4):
        kind = "safetensors"
    if kind is None and b"\0" in data:
        kind = "binary"
    return Found(kind, {}) if kind else recognise(data.decode("utf-8-sig", errors="replace"))


def instead(path: Path, wanted: str, shown: str) -> Violation | None:
    """A violation if a path clearly holds something else than ``wanted``, a kind of :data:`LABELS`."""
    found = recognise_path(path)
    if found is None or found.kind in (wanted, *_ALSO.get(wanted, ())):
        return None
    return Violation("", None, what(found, wanted), advice(found, wanted, shown), shown)


def what(found: Found, wanted: str) -> str:
    """``is a web page, not a run file``."""
    return f"is {LABELS[found.kind]}, not {LABELS.get(wanted, wanted)}"


def advice(found: Found, wanted: str, shown: str) -> str:
    """What to do with a file of another kind."""
    if found.kind in IMPORTABLE:
        return f"make a run file of it: frontrunner import {shown} --write run.yaml"
    if found.kind == "transformers":
        return _by_hand(found)
    text = _ADVICE.get((wanted, found.kind)) or _ALWAYS.get(found.kind)
    if text is None:
        return _START.get(wanted, f"give {LABELS.get(wanted, wanted)}")
    return text.format(file=shown)


def _by_hand(found: Found) -> str:
    """Which keys to write, with the other trainer's values where they mean the same."""
    pairs = []
    for key, value in found.keys.items():
        ours, text = messages.our_key(key), str(value)
        if written := other_trainers.as_written(key, value):
            pairs.append(written)
        elif ours and ours.partition(".")[0] in _SECTIONS and other_trainers.plain(key) not in _UNLIKE:
            number = re.fullmatch(r"[\d.]+(e[-+]?\d+)?", text)
            same = text if number else other_trainers.VALUES.get(text.lower())
            pairs += [f"{ours}: {same}"] if same else []
    shown = ", ".join(list(dict.fromkeys(pairs))[:_MOST_KEYS])
    return f"write its values in a run file ({shown}, ...)" if shown else "write its values in a run file"


def _may_be_run(tree: Mapping[str, Any]) -> bool:
    """Whether a mapping has keys that only run files have, even beside wrong ones."""
    named = isinstance(tree.get("model"), str) or "machine" in tree or "layout" in tree
    return named or "extends" in tree and bool(_OWN & tree.keys())


def _run(tree: Mapping[str, Any]) -> Found | None:
    """A run file, if its sections say so; None if there is doubt."""
    return Found("run", {}) if "extends" in tree or {"model", "machine"} <= tree.keys() else None


def _mapping(tree: Mapping[str, Any]) -> Found | None:
    keys = {other_trainers.plain(str(key)) for key in tree}
    for kind, required in _KEYS:
        if all(keys & ({part} if isinstance(part, str) else {*part}) for part in required):
            return Found(kind, dict(_leaves(tree)))
    return None


def _leaves(tree: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Keys and values of a mapping and of the mappings in it."""
    found: list[tuple[str, object]] = []
    for key, value in tree.items():
        found.append((str(key), value))
        if isinstance(value, dict) and not other_trainers.as_written(str(key), value):
            found += _leaves(value)
    return found


def _arguments(text: str) -> dict[str, object]:
    """``--key value`` of a script, or ``key = value`` of TOML."""
    options = re.findall(r"--([a-z][\w-]*)(?:[ =]+([^\s\\-][^\s\\]*))?", text)
    lines = re.findall(r'(?m)^(\w+) = "?([^"\n#]*)"?', text)
    return {key: value.strip() or "true" for key, value in [*options, *lines]}


def _folder(path: Path) -> Found | None:
    """What a folder is, by what its files are."""
    if {entry.name for entry in path.iterdir()} & _CHECKPOINT_FILES:
        return Found("checkpoint", {})
    kinds = _kinds(path)
    if "manifest" in kinds:
        return Found("checkpoint", {})
    if _is_run_folder(kinds):
        return Found("run folder", {})
    if "huggingface" in kinds:
        return Found("model folder", {})
    below = islice((entry for entry in path.iterdir() if entry.is_dir()), _MOST_ENTRIES)
    return Found("runs", {}) if any(_is_run_folder(_kinds(entry)) for entry in below) else None


def _is_run_folder(kinds: set[str]) -> bool:
    return "records" in kinds or {"run", "job"} <= kinds


def _kinds(folder: Path) -> set[str]:
    files = (entry for entry in folder.iterdir() if entry.suffix in _ENDINGS and entry.is_file())
    return {found.kind for file in islice(files, _MOST_ENTRIES) if (found := recognise_path(file))}
