"""How mistakes are told: the file they are in, and whole messages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.load import examine, load_run

Write = Callable[..., Path]
Wrong = Callable[..., dict[str, Violation]]
SHORTEST = "model: gpt-tiny\nmachine: workstation\ndata: synthetic\n"


def test_mistakes_in_several_files_name_their_files(write: Write) -> None:
    write(SHORTEST + "nodes: x\n", "base.yaml")
    write("extends: workstation\nnum_nodez: 3\n", "machine.yaml")
    write("extends: base.yaml\nmachine: machine.yaml\nlayout: {tensor: 0}\n")
    found = {(v.file, v.line, v.path) for v in examine("run.yaml", ["training.steps=0"]).violations}
    assert found == {
        ("base.yaml", 4, "nodes"),
        ("machine.yaml", 2, "machine.num_nodez"),
        ("run.yaml", 3, "layout.tensor"),
        ("command line", None, "training.steps"),
    }


def test_circles_of_files(write: Write) -> None:
    write("extends: b.yaml\n", "a.yaml")
    write("extends: run.yaml\n", "b.yaml")
    write("extends: a.yaml\n")
    (violation,) = examine("run.yaml").violations
    assert (violation.file, violation.line, violation.path) == ("b.yaml", 1, "extends")
    write(SHORTEST.replace("workstation", "m.yaml"), "run2.yaml")
    write("extends: m2.yaml\n", "m.yaml")
    write("extends: m.yaml\n", "m2.yaml")
    (violation,) = examine("run2.yaml").violations
    assert (violation.file, violation.path) == ("m2.yaml", "machine")


def test_messages_read_as_one_line(write: Write) -> None:
    write(SHORTEST + "nodes: 17\n")
    with pytest.raises(SpecError) as caught:
        load_run("run.yaml")
    assert str(caught.value) == "run.yaml:4 nodes = 17: workstation has 16; use at most 16"
    assert str(Violation("", None, "is empty", "fill it", "a.yaml", 1)) == "a.yaml:1 is empty; fill it"
    assert str(Violation("", None, "is gone", "find it", "a.yaml")) == "a.yaml: is gone; find it"
    with pytest.raises(ValueError):
        SpecError([])
    long = Violation("a", {"b": ["c" * 200]}, "is long", "shorten it")
    assert str(long) == 'a = {"b": ["' + "c" * 49 + "...: is long; shorten it"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimizer: {learning_rate: 0}", "must be greater than 0; use a number greater than 0"),
        ("optimizer: {name: adam}", "must be adamw; did you mean adamw?"),
        ("layout: {recomputation: full}", "unknown key; did you mean layout.recompute?"),
        ("layout: {tensor_parallel_size: 2}", "unknown key; did you mean layout.tensor?"),
        ("micro_batchsize: 2", "unknown key; did you mean layout.micro_batch_size?"),
        ("train_batch_size: 2", "unknown key; did you mean training.global_batch_size?"),
        ("training: {train_iters: 2}", "unknown key; did you mean training.steps?"),
        (
            "layout: {sharding: fsdp}",
            "must be one of ddp, zero1, zero2, zero3, zeropp, hsdp, three_level; did you mean zero3?",
        ),
        (
            "layout: {sharding: {zzz: 1}}",
            "unknown key; use one of: preset, weights, gradients, optimizer, secondary, wire, communicators",
        ),
        (
            "data: {train: ''}",
            "must not be empty; write a value or remove the key",
        ),
        (
            "machine: {extends: workstation, xyz: 1}",
            "unknown key; use one of: name, num_nodes, packages_per_node, devices_per_package, "
            "device, links, software, reliability, site, sources, extends",
        ),
        (
            "machine: {extends: workstation, device: {peak_flops_per_s: {bf16: 1}}}",
            "must be one of float32, bfloat16, float16; did you mean bfloat16?",
        ),
        (
            "machine: {extends: workstation, sources: {num_nodes: {source: a, date: '2020', foo: 1}}}",
            "unknown key; use one of: source, date, status",
        ),
        (
            "machine: {extends: workstation, sources: {num_nodes: {source: a, date: 2020}}}",
            "must be a date: YYYY-MM-DD, YYYY-MM or YYYY; use one of these; put a year alone in quotes",
        ),
    ],
)
def test_whole_messages(wrong: Wrong, text: str, message: str) -> None:
    key = text.partition(":")[0]
    start = "".join(line for line in SHORTEST.splitlines(True) if not line.startswith(key))
    (violation,) = wrong(f"{start}{text}\n").values()
    assert str(violation).endswith(f": {message}")
    assert "[key]" not in violation.path
    assert violation.path.startswith(key) and violation.line == len(start.splitlines()) + 1


def test_shown_values_of_all_kinds() -> None:
    def show(value: object) -> str:
        return str(Violation("k", value, "c", "f"))

    assert show(True) == "k = true: c; f"
    assert show("four") == 'k = "four": c; f'
    assert show(None) == "k: c; f"
    assert show("\ud800").isascii()
    assert show(10**5000) == "k = a value that cannot be displayed: c; f"
