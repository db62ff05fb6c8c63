"""Whatever a user writes, the answer is a specification or a SpecError: never another exception."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from frontrunner.configs import presets
from frontrunner.configs.huggingface_families import FAMILIES
from frontrunner.configs.load import dump, examine, read_resolved
from frontrunner.configs.messages import dotted_keys

PATHS = dotted_keys()
KEYS = sorted(
    {path.rpartition(".")[2] for path in PATHS} | {"extends", "<<", "tensr", "a.b", "", "sources", "[key]"}
)
WORDS = [
    *(name for kind in ("machine", "model", "run") for name in presets.names(kind)),
    *("synthetic", "package", "node", "all", "zero3", "three_level", "full", "bfloat16", "rotary", "."),
    *("run.yaml", "config.json", "/", "~", "a/b.yaml", "\0", "../..", "llama", "gpt2", "default"),
]
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.integers(),
    st.sampled_from([2**53, 2**64, 10**400, 1e308, 6e-5, 0.5]),
    st.floats(),
    st.sampled_from(WORDS),
    st.text(max_size=8),
)
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=6),
    ),
    max_leaves=25,
)
# A run of sound sections with one value somewhere replaced: most get past the schema to the rules.
edits = st.dictionaries(st.sampled_from(PATHS), scalars | trees, min_size=1, max_size=4)
every = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any")


def ask(path: Path, overrides: list[str] | None = None) -> None:
    """Asks for the run; whatever is found must be fit to be shown."""
    examination = examine(str(path), overrides or [])
    assert examination.document or examination.violations
    for violation in examination.violations:
        assert violation.constraint and violation.fix
        str(violation).encode("utf-8", "backslashreplace")
        json.dumps([violation.path, violation.value, violation.constraint, violation.fix], allow_nan=False)
    if not examination.violations and examination.document:
        copy = path.with_name("resolved.yaml")
        copy.write_text(dump(examination.document.spec), encoding="utf-8", newline="")
        assert read_resolved(copy) == examination.document.spec


@every
@given(data=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "ignore")))
@example(data=b"a: &a [*a]")
@example(data=b'"\\ud800": 1')
@example(data=b"? {a: 1}\n: 2")
@example(data=b"%YAML 9.9\n---\na: 1")
@example(data=b"extends: " + b"run.yaml")
def test_any_bytes(folder: Path, data: bytes) -> None:
    (folder / "run.yaml").write_bytes(data)
    ask(folder / "run.yaml")


@every
@given(text=st.lists(st.sampled_from([*KEYS, *WORDS, *":,-{}[]&*!|>'\"%@`#\n\t"])))
def test_any_sequence_of_yaml_signs(folder: Path, text: list[str]) -> None:
    (folder / "run.yaml").write_text(" ".join(text), encoding="utf-8")
    ask(folder / "run.yaml")


@every
@given(tree=trees)
def test_any_tree(folder: Path, tree: Any) -> None:
    write(folder / "run.yaml", tree)
    ask(folder / "run.yaml")


@every
@given(changes=edits)
def test_a_run_with_anything_in_any_place(folder: Path, changes: dict[str, Any]) -> None:
    data = quick_start()
    for path, value in changes.items():
        *sections, key = path.split(".")
        place = data
        for section in sections:
            place = place.setdefault(section, {}) if isinstance(place.get(section, {}), dict) else {}
        place[key] = value
    write(folder / "run.yaml", data)
    ask(folder / "run.yaml")


@every
@given(changes=edits, junk=st.lists(st.text(max_size=20), max_size=2))
def test_any_overrides(folder: Path, changes: dict[str, Any], junk: list[str]) -> None:
    overrides = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in changes.items()]
    (folder / "run.yaml").write_text("extends: quickstart")
    ask(folder / "run.yaml", overrides + junk)


@every
@given(family=st.sampled_from(sorted(FAMILIES)), data=st.data())
def test_any_hugging_face_configuration(folder: Path, family: str, data: st.DataObject) -> None:
    theirs = FAMILIES[family]
    keys = {*theirs.keys.values(), *theirs.defaults, *theirs.only, "rope_scaling", "model_type"}
    config = data.draw(st.dictionaries(st.sampled_from(sorted(keys)), scalars | trees))
    write(folder / "config.json", {"model_type": family} | config)
    (folder / "run.yaml").write_text("model: config.json\nmachine: workstation\ndata: synthetic\n")
    ask(folder / "run.yaml")


def write(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")  # which is YAML too


def quick_start() -> Any:
    document = examine("quickstart").document
    assert document is not None
    return document.spec.model_dump(mode="json")
