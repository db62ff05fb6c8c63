"""Loads a run file into a resolved specification.

A run file is YAML. ``extends`` names another run file or preset, whose keys it overrides; ``-o
layout.tensor=4`` overrides both. ``model`` and ``machine`` are presets, files, or the fields themselves, with
``extends`` for the rest; a model is also a Hugging Face config.json or the folder that holds one. Their paths
are relative to the file that names them; paths in ``data`` are relative to the working directory. SpecError
lists every violation at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from frontrunner.configs import compose, huggingface, places, presets, rules
from frontrunner.configs.compose import COMMAND_LINE
from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.schema import MachineSpec, ModelSpec, RunSpec
from frontrunner.configs.validate import validate
from frontrunner.configs.yaml_tree import Node, Scalar, plain_scalar, read_file


@dataclass(frozen=True)
class Document:
    """A resolved specification and the location of each value."""

    spec: RunSpec
    tree: Node

    def locate(self, dotted: str) -> tuple[str | None, int | None]:
        """File (as shown) and line of a key, or of its nearest parent; no line on the command line."""
        return places.locate(self.tree, dotted)

    def annotate(self, error: SpecError) -> SpecError:
        """The same error with missing files, lines and values filled in."""
        return SpecError(places.place(violation, self.tree, self.spec) for violation in error.violations)


@dataclass(frozen=True)
class Examination:
    """The ``document``, unless a value is unusable, and all problems."""

    document: Document | None
    violations: tuple[Violation, ...]


def load_run(path_or_preset: str, overrides: Sequence[str] = ()) -> Document:
    """The specification of a run file or preset; SpecError if it is invalid."""
    examination = examine(path_or_preset, overrides)
    if examination.violations or examination.document is None:
        raise SpecError(examination.violations)
    return examination.document


def load_machine(preset_or_file: str) -> MachineSpec:
    """A machine by name or file; SpecError if it is invalid."""
    return load_run("quickstart", [f"machine={preset_or_file}", "nodes=1"]).spec.machine


def names_model(given: str) -> bool:
    """Whether an argument names a model where a run is expected: a preset, a model's folder, or a file."""
    kind, path = presets.kind_of(given), Path(given)
    if kind or path.is_dir():
        return kind == "model" or kind is None and (path / compose.CONFIG).is_file()
    tree = read_file(path, []) if path.is_file() else None
    return tree is not None and (huggingface.recognises(tree) or "num_layers" in tree.entries)


def load_model(preset_or_file: str) -> ModelSpec:
    """A model by name or file (or a Hugging Face config.json); SpecError if it is invalid.

    An attention window must cover the default sequence length of the model.
    """
    given = [f"model={json.dumps(preset_or_file, ensure_ascii=False)}", "data=synthetic"]
    model = load_run("quickstart", [*given, "training.seq_len=1"]).spec.model
    length = min(2048, model.max_position_embeddings)
    return load_run("quickstart", [*given, f"training.seq_len={length}"]).spec.model


def examine(path_or_preset: str, overrides: Sequence[str] = ()) -> Examination:
    """Like :func:`load_run`, but returns the violations.

    There is still a document if every value is known: with an extra key, or with valid values that do not
    fit together.
    """
    problems: list[Violation] = []
    tree = compose.compose(path_or_preset, overrides, problems)
    return _examined(tree, problems) if tree else Examination(None, tuple(problems))


def examine_keys(
    keys: Mapping[str, Any], overrides: Sequence[str] = (), *, folder: Path = Path(), name: str = "run"
) -> Examination:
    """Like :func:`examine`, for the keys of a run file NAME.yaml in ``folder`` that is not written yet."""
    problems: list[Violation] = []
    return _examined(compose.compose_keys(keys, folder, name, overrides, problems), problems)


def _examined(tree: Node, problems: list[Violation]) -> Examination:
    outcome = validate(tree.plain(), problems)
    problems += rules.check(outcome)
    document = None if outcome.unknown else Document(outcome.spec, tree)
    found = [places.place(problem, tree) for problem in problems]
    return Examination(document, _in_order(found, tree.source.shown))


def vary(document: Document, values: Mapping[str, Scalar]) -> Examination:
    """A run with other values at dotted keys, and its problems; does not read the files again."""
    problems: list[Violation] = []
    tree = compose.vary(document.tree, values, problems)
    outcome = validate(tree.plain(), problems)
    problems += rules.check(outcome)
    return Examination(None if outcome.unknown else Document(outcome.spec, tree), tuple(problems))


def dump(spec: RunSpec) -> str:
    """A resolved specification as a self-contained run file."""
    data = spec.model_dump(mode="json")
    return yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=110)


def read_resolved(path: str | Path) -> RunSpec:
    """The specification that :func:`dump` wrote; SpecError if the file has none."""
    return load_run(str(path)).spec


class Dumper(yaml.SafeDumper):
    """Writes text that reads back unchanged: PyYAML would not quote 6e-5, and would fold U+0085."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = None if isinstance(plain_scalar(text), str) and text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Dumper.add_representer(str, _represent_text)


def _in_order(violations: list[Violation], first: str) -> tuple[Violation, ...]:
    """Sort order: the run's own file, files that it uses, the command line."""
    files = list(dict.fromkeys([first, *(violation.file for violation in violations)]))
    return tuple(sorted(violations, key=lambda v: (v.file == COMMAND_LINE, files.index(v.file), v.line or 0)))
