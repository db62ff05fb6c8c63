"""Reading YAML: values as editors read them, nothing executed, nothing without bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from frontrunner.configs import yaml_tree
from frontrunner.configs.errors import Violation
from frontrunner.configs.yaml_tree import Node, Source, read_file, read_text

SOURCE = Source("x.yaml", Path())


@pytest.fixture(params=["CBaseLoader", "BaseLoader"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of PyYAML's parsers; the C one is missing on some systems."""
    monkeypatch.setattr(yaml_tree, "_LOADER", getattr(yaml, request.param))


def read(text: str) -> Node:
    problems: list[Violation] = []
    node = read_text(text, SOURCE, problems)
    assert node is not None and problems == []
    return node


def refused(text: str) -> Violation:
    problems: list[Violation] = []
    read_text(text, SOURCE, problems)
    assert len(problems) == 1, problems
    assert problems[0].file == "x.yaml"
    return problems[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("6e-5", 6e-5),  # YAML 1.1, and so PyYAML, takes it for text
        ("6.0E-5", 6e-5),
        (".5", 0.5),
        ("-3.", -3.0),
        ("+12", 12),
        ("0x10", 16),
        ("0o10", 8),
        ("010", 10),
        ("1:30", "1:30"),  # 90 in YAML 1.1
        ("1_000", "1_000"),
        ("yes", "yes"),
        ("off", "off"),
        ("true", True),
        ("FALSE", False),
        ("tRue", "tRue"),
        ("null", None),
        ("~", None),
        ("", None),
        ("'4'", "4"),
        ('"true"', "true"),
        ("!!str 4", "4"),
        ('!!int "4"', 4),
        ("2026-11-23", "2026-11-23"),
        (".nan", ".nan"),  # no key of ours may be infinite or not a number
        ("1e999", "1e999"),
        ("9" * 5000, "9" * 5000),  # Python refuses to convert it
        ("{'<<': 1}", {"<<": 1}),
        ("[1, [a], {b: 2}]", [1, ["a"], {"b": 2}]),
    ],
)
def test_values(text: str, value: Any) -> None:
    found = read(f"key: {text}\n").plain()["key"]
    assert (found, type(found)) == (value, type(value))


def test_lines_are_those_of_the_keys() -> None:
    tree = read("# first\na:\n  b: 1\n\n  c:\n    - 2\nd: 3\n")
    nodes = {path: tree.at(path) for path in ("a", "a.b", "a.c", "d")}
    assert {path: node and node.line for path, node in nodes.items()} == {"a": 2, "a.b": 3, "a.c": 5, "d": 7}


def test_anchors_and_merge_keys() -> None:
    tree = read("base: &base {x: 1, y: 2}\na: {<<: *base, y: 3}\nb: {<<: [{z: 0}, *base]}\nc: *base\n")
    assert tree.plain()["a"] == {"x": 1, "y": 3}
    assert tree.plain()["b"] == {"x": 1, "y": 2, "z": 0}
    assert tree.plain()["c"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("text", "path", "line", "words"),
    [
        (
            "a: 1\nb:\n  c: !!python/object/apply:os.system [ls]\n",
            "b.c",
            3,
            "!!python/object/apply:os.system",
        ),
        ("a: !!python/name:os.system\n", "a", 1, "!!python/name"),
        ("? !!python/tuple a\n: 1\n", "", 1, "!!python/tuple"),
        ("a: !mine {b: 1}\n", "a", 1, "!mine"),
        ("a: 1\nb: 2\na: 3\n", "a", 3, "first on line 1"),
        ("x:\n  a: 1\n  a: 1\n", "x.a", 3, "first on line 2"),
        ("a: &x [1, *x]\n", "a[1]", 1, "*x refers to itself"),
        ("a: 1\nb: *nothing\n", "b", 2, "*nothing"),
        ("a: 1\n---\nb: 2\n", "", 2, "second document"),
        ("a: {b: 1\nc: 2\n", "", 2, "is not YAML"),
        ("a: b: c\n", "", 1, "is not YAML: mapping values are not allowed"),
        ("a:\n\tb: 1\n", "", 2, "is not YAML"),
        ("a: 1\nb: \x07\n", "", 2, "characters are not allowed"),
        ("[a, b]: 1\n", "", 1, "a key must be a plain word"),
        ("a: {<<: 3}\n", "a", 1, "merges mappings only"),
        ("a: " + "[" * 50 + "]" * 50, None, 1, "deep"),
        ("a: " + "[" * 200_000, None, 1, "deep"),
    ],
)
def test_refusals(text: str, path: str | None, line: int, words: str) -> None:
    violation = refused(text)
    assert words in violation.constraint
    assert violation.line == line
    assert path is None or violation.path == path
    assert violation.fix


def test_a_tag_is_never_executed(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    refused(f'a: !!python/object/apply:os.mkdir ["{mark}"]\n')
    assert not mark.exists()


def test_aliases_do_not_multiply_without_bound() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "100,000 values" in refused("\n".join(lines)).constraint


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin1.yaml").write_bytes(b"a: 1\nname: caf\xe9\n")
    (tmp_path / "huge.yaml").write_bytes(b"a" * 2_000_000)
    (tmp_path / "folder.yaml").mkdir()

    def why(name: str) -> tuple[str | None, int | None, str]:
        problems: list[Violation] = []
        assert read_file(tmp_path / name, problems) is None
        (violation,) = problems
        return violation.file, violation.line, violation.constraint

    assert why("latin1.yaml") == ("latin1.yaml", 2, "is not UTF-8 text (byte 0xe9)")
    assert why("none.yaml") == ("none.yaml", None, "no such file")
    assert why("folder.yaml") == ("folder.yaml", None, "is a directory, not a file")
    assert "larger than" in why("huge.yaml")[2]
    assert "cannot be read" in why("a\0b")[2]


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    tree = read_file(tmp_path / "bom.yaml", [])
    assert tree is not None and tree.plain() == {"a": 1, "b": 2}
