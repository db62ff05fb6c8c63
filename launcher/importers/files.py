"""From the files that a user gives to a trainer's settings."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from frontrunner.configs import foreign
from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.plain_files import read_plain
from frontrunner.configs.yaml_tree import Node, Source, read_text, show_path
from frontrunner.launcher.importers import bash, logs
from frontrunner.launcher.importers.bash_expansion import MARKED, UNSET, readable
from frontrunner.launcher.importers.settings import Given, Setting, plain

LARGEST = 1 << 20
_TRAINERS = (
    "megatron",
    "megatron-deepspeed",
    "deepspeed",
    "gpt-neox",
    "torchtitan",
    "nemo",
)
_LOGS = ("log", "archive")  # a log may be compressed
#: What a word of a command must be for its options to be a training's.
_KNOWN = re.compile(
    r"--(num-layers|hidden-size|num-attention-heads|micro-batch-size|seq-length|train-iters)\b"
)
_LAUNCHERS = ("nnodes", "nproc_per_node", "nproc-per-node", "num_nodes", "num_gpus", "ntasks", "nodes")


def gather(paths: Sequence[Path], trainer: str | None, variables: Mapping[str, str]) -> Given:
    """Settings of all files; SpecError if they are not one trainer's."""
    kinds = {path: _kind(path) for path in paths}
    models = [path for path, kind in kinds.items() if kind == "huggingface"]
    rest = [path for path in paths if path not in models]
    own = trainer or _trainer(rest, kinds)
    if (
        own is None
        and len(rest) == 1
        and kinds[rest[0]] is None
        and rest[0].is_file()
        and rest[0].stat().st_size
    ):
        return logs.read(rest[0])  # a log need not look like one
    if own is None:
        raise SpecError([_unknown(path, kinds[path]) for path in paths])
    printed = [path for path in rest if kinds[path] in _LOGS]
    if printed:
        given = logs.read(printed[-1])
    elif own in ("megatron", "megatron-deepspeed"):
        scripts = [path for path in rest if kinds[path] != "deepspeed"]
        given = shell(scripts, variables, own)
        _add_files(given, [path for path in rest if kinds[path] == "deepspeed"])
    elif own == "torchtitan":
        given = toml(rest[-1], own)
    else:
        given = Given(own, rest[-1].stem)
        for path in rest:
            _flatten(_tree(path), "", given.settings, show_path(path))
            given.text += read(path)
    script = own in ("megatron", "megatron-deepspeed") and not printed
    for key, value in variables.items():
        if not script or plain(key) in given.settings:
            given.settings[plain(key)] = Setting(key, typed(value), "--set")
    given.model = str(models[-1]) if models else None
    return given


def _kind(path: Path) -> str | None:
    found = foreign.recognise_path(path)
    return found.kind if found else None


def _trainer(paths: Sequence[Path], kinds: Mapping[Path, str | None]) -> str | None:
    """The trainer of files that recognise_path knows; scripts and unknown files go with the others."""
    found = [kind for path in paths if (kind := kinds[path]) in _TRAINERS]
    if "megatron-deepspeed" in found or {"megatron", "deepspeed"} <= set(found):
        return "megatron-deepspeed"
    if len(set(found)) == 1:
        return found[0]
    if not found and paths and all(kinds[path] in ("script", *_LOGS) for path in paths):
        return "megatron"
    return None


def _unknown(path: Path, kind: str | None) -> Violation:
    shown = show_path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "there is no such file"
        return Violation("", shown, what, "name a trainer's script, configuration or log")
    if kind == "huggingface":
        what = f"is {foreign.LABELS[kind]}"
        return Violation(
            "", None, what, "give it beside a DeepSpeed configuration, or use init --model", shown
        )
    if kind in foreign.LABELS and kind not in _TRAINERS:
        what = f"is {foreign.LABELS[kind]}, not a trainer's configuration"
        return Violation("", None, what, "give a trainer's script, configuration or log", shown)
    names = ", ".join(_TRAINERS)
    return Violation(
        "", None, "is of no trainer that is known, or of several", f"add --from, one of: {names}", shown
    )


def shell(paths: Sequence[Path], variables: Mapping[str, str], trainer: str) -> Given:
    """Settings of the training command in bash scripts, or in a list of arguments."""
    texts = [(show_path(path), read(path)) for path in paths]
    script = bash.read(texts, dict(variables))
    commands = [words for command in script.commands if (words := _training(command.words))]
    shown, text = texts[-1]
    if not commands:
        raise SpecError([_none(script, shown)])
    chosen = commands[-1]
    if any(_options(other) != _options(chosen) for other in commands):
        what = f"starts {len(commands)} trainings with different arguments"
        raise SpecError([Violation("", None, what, "give one training command, or --set a variable", shown)])
    name = script.directives.get("job_name", ("", ""))[0]
    text = "\n".join(text for _, text in texts)
    given = Given(trainer, readable(name) if re.fullmatch(r"[\w.-]+", name) else paths[-1].stem, text)
    given.notes = script.undecided
    own, launch = _split(chosen)
    lines = _Lines(texts)
    for key, value in _options(own):
        given.settings[plain(key)] = Setting(key, value, *lines.place(key))
    for key, value in _options(launch):
        if plain(key) in _LAUNCHERS:
            given.job[plain(key)] = Setting(key, value, *lines.place(key))
    for name, (found, place) in script.directives.items():
        file, _, line = place.rpartition(":")
        given.job[name] = Setting(f"--{name.replace('_', '-')}", found, file, int(line))
    _add_deepspeed(given, script, paths[-1])
    return given


def toml(path: Path, trainer: str) -> Given:
    """Settings of a TOML file, with section and key joined by a dot."""
    text = read(path)
    try:
        tree = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SpecError(
            [Violation("", None, f"is not TOML: {error}", "correct it", show_path(path))]
        ) from None
    given = Given(trainer, path.stem, text)
    logs.put(given.settings, tree, "", show_path(path))
    return given


def read(path: Path) -> str:
    try:
        return read_plain(path, LARGEST).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SpecError(
            [Violation("", None, "is not text in UTF-8", "give a text file", show_path(path))]
        ) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise SpecError(
            [Violation("", show_path(path), f"cannot be read: {reason}", "check the name")]
        ) from None


def _tree(path: Path) -> Node:
    problems: list[Violation] = []
    text = read(path).replace("\t", "  ")  # JSON may have tabs where YAML may not
    node = read_text(text, Source(show_path(path), path.parent), problems)
    if node is None or not isinstance(node.value, dict):
        what = Violation(
            "", None, "must be a mapping of keys to values", "give the trainer's file", show_path(path)
        )
        raise SpecError(problems or [what])
    return node


def _flatten(node: Node, above: str, into: dict[str, Setting], shown: str) -> None:
    for key, child in node.entries.items():
        dotted = f"{above}.{key}" if above else key
        if isinstance(child.value, dict) and child.value:
            _flatten(child, dotted, into, shown)
        else:
            into[dotted if above else plain(key)] = Setting(
                dotted, _constant(child.plain()), shown, child.line
            )


def _training(words: list[str]) -> list[str] | None:
    """The words of a command that trains; None for any other."""
    found = sum(1 for word in words if _KNOWN.match(word))
    return words if found >= 2 else None


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """The program's own words, and those of its launchers."""
    programs = [index for index, word in enumerate(words) if word.endswith(".py")]
    first = next(index for index, word in enumerate(words) if _KNOWN.match(word))
    start = max((index for index in programs if index < first), default=None)
    if start is None:
        start = next(index for index, word in enumerate(words) if word.startswith("--"))
        return words[start:], []
    return words[start + 1 :], words[:start]


def _options(words: Sequence[str]) -> list[tuple[str, Any]]:
    """``--key value``, ``--key=value``, ``--key a b c`` (a list) and flags (True).

    A variable that is not set, alone between options, is nothing, as it is for bash.
    """
    found: list[tuple[str, Any]] = []
    values: list[str] = []
    key = None
    for word in [*words, "--"]:
        if not word.startswith("--"):
            values.append(word)
            continue
        if key is not None:
            found.append((key, _value(values)))
        key, equals, value = word.partition("=")
        values = [value] if equals else []
    return found


def _value(values: list[str]) -> Any:
    known = [value for value in values if not _nothing(value)]
    if not known:
        return values[0] if len(values) == 1 and values[0] and MARKED.search(values[0]) else True
    return known[0] if len(known) == 1 else known


def _nothing(value: str) -> bool:
    return value.startswith(UNSET) and MARKED.sub("", value) == ""


def _add_deepspeed(given: Given, script: bash.Script, beside: Path) -> None:
    """DeepSpeed's file: written by the script, or beside it."""
    setting = given.settings.get("deepspeed_config")
    if setting is None or not isinstance(setting.value, str):
        return
    text = script.files.get(setting.value)
    if text is None:
        path = beside.parent / Path(readable(setting.value)).name
        text = read(path) if path.is_file() else None
    if text is None:
        given.notes.append((str(setting), "the file is not here: ZeRO's stage is --zero-stage's"))
        return
    _add_deepspeed_text(given, readable(text), setting.shown)


def _add_deepspeed_text(given: Given, text: str, shown: str) -> None:
    node = read_text(text, Source(shown, Path()), [], lines=False)
    stage = node.at("zero_optimization.stage") if node else None
    if stage is not None and "zero_stage" not in given.settings:
        given.settings["zero_stage"] = Setting("zero_optimization.stage", stage.plain(), shown)
    sums = node.at("data_types.grad_accum_dtype") if node else None
    if sums is not None:
        key = "data_types.grad_accum_dtype"
        given.settings[key] = Setting(key, sums.plain(), shown)
    for key in ("bf16", "fp16"):
        enabled = node.at(f"{key}.enabled") if node else None
        if enabled is not None and enabled.value is True and not {"bf16", "fp16"} & given.settings.keys():
            given.settings[key] = Setting(f"{key}.enabled", True, shown)


class _Lines:
    """Where a word stands in texts."""

    def __init__(self, texts: Sequence[tuple[str, str]]) -> None:
        self.texts = texts

    def place(self, word: str) -> tuple[str, int | None]:
        """The file and line of a word outside comments; the last file alone if it is nowhere."""
        pattern = re.compile(rf"^[^#\n]*(?<![\w-]){re.escape(word)}(?![\w-])", re.MULTILINE)
        for shown, text in self.texts:
            if found := pattern.search(text):
                return shown, text.count("\n", 0, found.end()) + 1
        return self.texts[-1][0], None


def _none(script: bash.Script, shown: str) -> Violation:
    if script.ended:
        place, words = script.ended
        file, _, line = place.rpartition(":")
        what = "ends here before a training starts, for a user who sets no variable"
        fix = "set what it asks for: --set NAME=VALUE"
        return Violation("", words, what, fix, file, int(line))
    what = "starts no training that can be read: no command has --num-layers and the like"
    return Violation("", None, what, "give the script or the arguments of pretrain_gpt.py", shown)


def _constant(value: Any) -> Any:
    """Python's constants, which YAML takes for text."""
    return {"True": True, "False": False, "None": None}.get(value, value) if isinstance(value, str) else value


def typed(text: str) -> Any:
    """A value as YAML reads it, or Python's constants."""
    node = read_text(text, Source("--set", Path()), [], lines=False)
    return text if node is None else _constant(node.plain())


def _add_files(given: Given, paths: Sequence[Path]) -> None:
    """DeepSpeed's files that the user gave beside a script."""
    for path in paths:
        _add_deepspeed_text(given, read(path), show_path(path))
