"""Mistakes that people make, each with file, line, dotted key, what must hold and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.load import examine, load_run

Write = Callable[..., Path]
Wrong = Callable[..., dict[str, Violation]]
SHORTEST = "model: gpt-tiny\nmachine: workstation\ndata: synthetic\n"


@pytest.mark.parametrize(
    ("text", "line", "path", "value", "constraint", "fix"),
    [
        # keys
        ("layout: {tensr: 2}", 4, "layout.tensr", 2, "unknown key", "did you mean layout.tensor?"),
        ("layuot: {}", 4, "layuot", {}, "unknown key", "did you mean layout?"),
        ("nodes: 1\ntensor: 2", 5, "tensor", 2, "unknown key", "did you mean layout.tensor?"),
        ("optimizer:\n  lr: 1", 5, "optimizer.lr", 1, "unknown key", "did you mean optimizer.learning_rate?"),
        ("tp: 2", 4, "tp", 2, "unknown key", "did you mean layout.tensor?"),
        ("wombat: {queue: a}", 4, "wombat", {"queue": "a"}, "unknown key", "use one of: name, model"),
        ("layout: {sharding: {wires: 1}}", 4, "layout.sharding.wires", 1, "unknown key", "sharding.wire?"),
        # types
        ('nodes: "2"', 4, "nodes", "2", "must be an integer, not text", "without quotes"),
        ("nodes: 2.0", 4, "nodes", 2.0, "must be an integer, not a number with a decimal point", "digits"),
        ("nodes: true", 4, "nodes", True, "must be an integer, not true or false", "digits"),
        ("nodes: [2]", 4, "nodes", [2], "must be an integer, not a list", "digits"),
        ("nodes: {a: 2}", 4, "nodes", {"a": 2}, "must be an integer, not a mapping", "digits"),
        ("nodes:", 4, "nodes", None, "must be an integer, not empty", "digits"),
        ("layout: 3", 4, "layout", 3, "must be a mapping, not an integer", "(tensor, "),
        ("training:", 4, "training", None, "must be a mapping, not empty", "(seq_len, "),
        (
            "optimizer: {clip: high}",
            4,
            "optimizer.clip",
            "high",
            "must be a finite number, not text",
            "digits",
        ),
        ("optimizer: {clip: .inf}", 4, "optimizer.clip", ".inf", "must be a finite number", "digits"),
        (
            "layout:\n  sequence_parallel: yes",
            5,
            "layout.sequence_parallel",
            "yes",
            "must be true or false, not text",
            "write true or false",
        ),
        ("name: 3", 4, "name", 3, "must be text of 1 to 100 characters on one line", "quotes"),
        ('name: ""', 4, "name", "", "must be text of 1 to 100 characters", "shorten it to one line"),
        # choices
        (
            "layout: {recompute: ful}",
            4,
            "layout.recompute",
            "ful",
            "must be one of none, selective, full",
            "did you mean full?",
        ),
        ("training: {precision: tf32}", 4, "training.precision", "tf32", "bfloat16, float16", "choose one"),
        (
            "layout: {sharding: zero9}",
            4,
            "layout.sharding.preset",
            "zero9",
            "ddp, zero1",
            "did you mean zero",
        ),
        (
            "layout: {sharding: {weights: rack}}",
            4,
            "layout.sharding.weights",
            "rack",
            "must be a level (package, node, all) or a number of ranks",
            "write one of these",
        ),
        (
            "layout: {sharding: {weights: 0}}",
            4,
            "layout.sharding.weights",
            0,
            "must be a level",
            "write one of these",
        ),
        # ranges
        ("nodes: 0", 4, "nodes", 0, "must be greater than 0", "use a number greater than 0"),
        ("nodes: -3", 4, "nodes", -3, "must be greater than 0", "use"),
        (f"nodes: {10**30}", 4, "nodes", 10**30, f"must be at most {2**53}", f"use {2**53}"),
        ('"[key]": 1', 4, "[key]", 1, "unknown key", "use one of"),
        ('layout: {"[key]": 1}', 4, "layout.[key]", 1, "unknown key", "use one of"),
        (
            "optimizer: {weight_decay: 0.1, clip: 1, decay_steps: 0}",
            4,
            "optimizer.decay_steps",
            0,
            "0",
            "use",
        ),
        (
            "model: {extends: gpt-tiny, attention_dropout: 1}",
            4,
            "model.attention_dropout",
            1,
            "must be less than 1",
            "use a number less than 1",
        ),
        ("training: {seed: -1}", 4, "training.seed", -1, "must be at least 0", "use 0"),
        (
            "optimizer: {learning_rate: 0}",
            4,
            "optimizer.learning_rate",
            0,
            "greater than 0",
            "greater than 0",
        ),
        ("optimizer: {clip: -1}", 4, "optimizer.clip", -1, "must be at least 0", "use 0"),
        (
            "optimizer: {betas: [0.9, 1]}",
            4,
            "optimizer.betas",
            [0.9, 1],
            "below 1",
            "for example [0.9, 0.95]",
        ),
        ("optimizer: {betas: [0.9]}", 4, "optimizer.betas", [0.9], "must be two numbers", "for example"),
        ("optimizer: {betas: 0.9}", 4, "optimizer.betas", 0.9, "must be two numbers", "for example"),
        ("optimizer: {weight_decay: -0.1}", 4, "optimizer.weight_decay", -0.1, "must be at least 0", "use 0"),
        ("optimizer: {epsilon: 0}", 4, "optimizer.epsilon", 0, "must be greater than 0", "use"),
        # sharding given twice
        (
            "layout:\n  sharding:\n    preset: zero3\n    weights: 1",
            7,
            "layout.sharding.weights",
            1,
            "preset zero3 means weights all",
            "remove preset or weights",
        ),
        # YAML
        ("nodes: 1\nnodes: 2", 5, "nodes", None, "is given twice (first on line 4)", "remove one"),
        ("nodes: !!python/object:os.x {}", 4, "nodes", None, "!!python/object:os.x", "remove it"),
    ],
)
def test_one_mistake(
    wrong: Wrong, text: str, line: int, path: str, value: object, constraint: str, fix: str
) -> None:
    start = SHORTEST if not text.startswith("model") else SHORTEST.replace("model: gpt-tiny", "# no model")
    found = wrong(f"{start}{text}\n")
    assert found.keys() == {path}
    violation = found[path]
    assert (violation.file, violation.line) == ("run.yaml", line)
    assert violation.value == value
    assert constraint in violation.constraint
    assert fix in violation.fix


@pytest.mark.parametrize(
    ("text", "path", "constraint", "fix"),
    [
        ("machine: workstation\ndata: synthetic", "model", "is missing", "gpt-22b"),
        ("model: gpt-tiny\ndata: synthetic", "machine", "is missing", "frontier"),
        ("model: gpt-tiny\nmachine: workstation", "data", "is missing", "data: synthetic"),
        ("model: gpt-tiny\nmachine: workstation\ndata: {}", "data.train", "is missing", "add it"),
        ("model: gpt-tiny\nmachine: workstation\ndata: a/b", "data", "synthetic or a map", "{train: a/b}"),
        (
            "model: gpt-tiny\nmachine: workstation\ndata: [a]",
            "data",
            "must be a mapping, not a list",
            "train",
        ),
        (
            "model: gpt-tiny\nmachine: workstation\ndata: {train: a, vald: b}",
            "data.vald",
            "unknown key",
            "validation_fraction",
        ),
        ("model: gpt-22\nmachine: workstation\ndata: synthetic", "model", "neither", "mean gpt-22b?"),
        ("model: 22\nmachine: workstation\ndata: synthetic", "model", "must be a mapping", "num_layers"),
        ("model: gpt-tiny\nmachine: fronteir\ndata: synthetic", "machine", "neither", "mean frontier?"),
        (
            "model: gpt-tiny\nmachine: the-new-frontier-of-2027\ndata: synthetic",
            "machine",
            "nei",
            "mean frontier?",
        ),
        ("model: gpt-tiny\nmachine: qqq\ndata: synthetic", "machine", "neither", "use one of: emulated, fro"),
        ("model: gpt-tiny\nmachine: a/b.yaml\ndata: synthetic", "machine", "no such file", "check the path"),
        ('model: gpt-tiny\nmachine: "a\\0b.yaml"\ndata: synthetic', "machine", "no such file", "check"),
        ("model: ''\nmachine: workstation\ndata: synthetic", "model", "must be the name", "write one of"),
        ("model: {extends: 3}\nmachine: workstation\ndata: synthetic", "model", "must be the name", "write"),
        (
            "model: {num_layers: 2, hidden_size: 8, num_heads: 2}\nmachine: workstation\ndata: synthetic",
            "model.vocab_size",
            "is missing",
            "extends",
        ),
        (
            "model: gpt-tiny\nmachine: {extends: workstation, num_nodes: 100001}\ndata: synthetic",
            "machine.num_nodes",
            "at most 100000",
            "use 100000",
        ),
        ("extends: gpt-22b-frontir", "extends", "neither a run preset nor", "mean gpt-22b-frontier?"),
        ("extends: [a]", "extends", "must be the name of a run preset", "quickstart"),
        ("extends: run.yaml", "extends", "extend each other in a cycle", "remove"),
        ("", "", "is empty", "write key: value"),
        ("- 1", "", "must be a mapping", "write key: value"),
        ("just words", "", "must be a mapping", "write key: value"),
        ("a: [", "", "is not YAML", "indentation"),
        (b"\xe9 name: a", "", "is not UTF-8", "UTF-8"),
    ],
)
def test_what_is_missing_or_not_there(
    wrong: Wrong, text: str | bytes, path: str, constraint: str, fix: str
) -> None:
    found = wrong(text)
    assert found.keys() == {path}
    assert constraint in found[path].constraint
    assert fix in found[path].fix
    assert found[path].file == "run.yaml"


@pytest.mark.parametrize(
    ("name", "constraint", "fix"),
    [
        ("nothing.yaml", "no such file", "check the path"),
        ("quickstrat", "is neither a run preset nor a file", "did you mean quickstart?"),
        ("runs/quickstart", "no such file", "check the path; did you mean quickstart?"),
        ("folder.yaml", "is a directory", "YAML file itself"),
        ("", "must be the name of a run preset", "quickstart"),
        ("a\0b", "is neither a run preset nor a file", "use one of"),
        ("x" * 5000, "is neither a run preset nor a file", "use one of"),
        ("x" * 5000 + ".yaml", "no such file", "check the path"),
    ],
)
def test_a_run_that_is_not_there(write: Write, name: str, constraint: str, fix: str) -> None:
    write("", "folder.yaml/file")
    with pytest.raises(SpecError) as caught:
        load_run(name)
    (violation,) = caught.value.violations
    assert constraint in violation.constraint and fix in violation.fix
    assert ("path" in violation.fix) == ("no such file" in violation.constraint)


@pytest.mark.parametrize(
    ("override", "path", "constraint"),
    [
        ("layout.tensor", "", "an override must be key=value"),
        ("=3", "", "an override must be key=value"),
        ("layout..tensor=3", "", "an override must be key=value"),
        (".".join("a" * 2000) + "=1", "", "an override must be key=value"),
        ("extends=gpt-22b-frontier", "extends", "cannot be an override"),
        ("layout.tensor=[", "layout.tensor", "is not YAML"),
        ("layout.tensor=four", "layout.tensor", "must be an integer"),
        ("layout.tensr=4", "layout.tensr", "unknown key"),
        ("layout={tensor: 1, tensor: 1}", "layout.tensor", "is given twice"),
        ("nodes.x=4", "nodes", "must be an integer"),
        ("model=gpt-tny", "model", "neither a model preset"),
        ("model.num_layer=2", "model.num_layer", "unknown key"),
        ("layout.sharding=zero4", "layout.sharding.preset", "must be one of"),
        ("data.train=\ud800", "data.train", "Unicode"),
        ("seed=!!python/name:os.x 1", "seed", "!!python/name"),
    ],
)
def test_overrides_are_placed_on_the_command_line(override: str, path: str, constraint: str) -> None:
    (violation,) = examine("quickstart", [override]).violations
    assert (violation.file, violation.line, violation.path) == ("command line", None, path)
    assert constraint in violation.constraint
    assert str(violation).startswith("command line: ")


def test_all_mistakes_are_found_at_once_in_the_order_of_the_file(write: Write) -> None:
    write(
        "model: gpt-22b\n"  # 1
        "machine: frontier\n"
        "nodes: 20000\n"  # 3: more than there are
        "layout:\n"
        "  tensr: 2\n"  # 5: misspelt
        "  pipeline: 7\n"  # 6: does not divide the layers
        "  recompute: 3\n"  # 7: wrong type
        "optimizer: {learning_rate: -1, warmup_steps: 200}\n"  # 8: range; longer than the training
        "data: synthetic\n"
        "data: synthetic\n"  # 10: twice
    )
    found = [(violation.line, violation.path) for violation in examine("run.yaml").violations]
    assert found == [
        (3, "nodes"),
        (5, "layout.tensr"),
        (6, "layout.pipeline"),
        (7, "layout.recompute"),
        (8, "optimizer.learning_rate"),
        (8, "optimizer.warmup_steps"),
        (10, "data"),
    ]


def test_nothing_is_concluded_from_what_is_wrong(wrong: Wrong) -> None:
    """With tensor 2, which was meant, 6 sequences are right for 4 devices; with the default they are not."""
    batch = "training: {global_batch_size: 6, seq_len: 64}\n"
    assert wrong(SHORTEST + batch).keys() == {"training.global_batch_size"}
    assert wrong(SHORTEST + batch + "layout: {tensr: 2}\n").keys() == {"layout.tensr"}
    assert wrong(SHORTEST + batch + "layout: {tensor: two}\n").keys() == {"layout.tensor"}
    assert wrong(SHORTEST + batch + "tensor: 2\n").keys() == {"tensor"}
    assert wrong("machine: x\nmodel: gpt-tiny\ndata: synthetic\n" + batch).keys() == {"machine"}
    assert wrong("extends: x\n" + batch).keys() == {"extends"}
    assert wrong("extends: x\noptimizer: {warmup_steps: 200}\n").keys() == {"extends"}
    assert wrong("extends: x\nnodes: 0\n").keys() == {"extends", "nodes"}
    twice = "layout: {tensor: 3, recompute: 1}\nlayout: 3\n"
    assert wrong(SHORTEST + twice).keys() == {"layout", "layout.tensor", "layout.recompute"}


@pytest.mark.parametrize(
    ("line", "known"),
    [
        ("wombat: {}", True),
        ("nodes: 17", True),
        ("layout: {tensor: 1, tensor: 1}", True),
        ("layout: {tensr: 2}", False),
        ("nodes: x", False),
        ("extends: x", False),
    ],
)
def test_there_is_a_document_where_every_value_is_known(write: Write, line: str, known: bool) -> None:
    write(f"{SHORTEST}{line}\n")
    examination = examine("run.yaml")
    assert examination.violations
    assert (examination.document is not None) == known


def test_a_section_that_is_wrong_does_not_hide_the_others(wrong: Wrong) -> None:
    schedule = "optimizer: {warmup_steps: 200}\n"
    for section in ("model: x", "machine: x", "data: {}", "layout: 3", "model: {num_heads: 2}"):
        key = section.partition(":")[0]
        text = "".join(line for line in SHORTEST.splitlines(True) if not line.startswith(key))
        found = wrong(f"{text}{section}\n{schedule}")
        assert "optimizer.warmup_steps" in found
        assert all(path.startswith(key) for path in found if path != "optimizer.warmup_steps")


def test_tensor_is_held_against_what_is_known(wrong: Wrong) -> None:
    unknown_machine = wrong("model: gpt-tiny\nmachine: x\nlayout: {tensor: 3}\ndata: synthetic\n")
    assert unknown_machine.keys() == {"machine", "layout.tensor"}
    assert unknown_machine["layout.tensor"].fix == "use 1, 2 or 4"
    unknown_model = wrong("model: x\nmachine: workstation\nlayout: {tensor: 3}\ndata: synthetic\n")
    assert unknown_model["layout.tensor"].constraint == "must divide workstation's 4 devices per node"
