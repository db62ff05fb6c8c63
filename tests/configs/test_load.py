"""What a run file comes to: defaults, extends, presets, overrides, and where each value was written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from frontrunner.configs import presets
from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.load import dump, load_run, read_resolved
from frontrunner.configs.schema import LayoutSpec
from frontrunner.configs.sharding import ShardingSpec

Write = Callable[..., Path]
SHORTEST = "model: gpt-tiny\nmachine: workstation\ndata: synthetic\n"


def test_three_keys_are_enough(write: Write) -> None:
    write(SHORTEST, "my run.yaml")
    spec = load_run("my run.yaml").spec
    assert spec.name == "my run"
    assert spec.nodes == 1
    assert spec.layout == LayoutSpec(
        tensor=1,
        sequence_parallel=False,
        pipeline=1,
        virtual_stages=1,
        micro_batch_size=1,
        recompute="none",
        sharding=ShardingSpec(preset="three_level", weights="package", gradients="node", optimizer="all"),
    )
    assert spec.training.seq_len == 256  # what the model can take
    assert spec.training.global_batch_size == 4  # a sequence a device
    assert spec.optimizer.betas == (0.9, 0.95)
    assert spec.optimizer.min_learning_rate == pytest.approx(0.1 * spec.optimizer.learning_rate)
    assert spec.data == "synthetic"


def test_defaults_that_follow_from_other_keys(write: Write) -> None:
    write(
        "model: {num_layers: 4, hidden_size: 64, num_heads: 8, vocab_size: 1000, linear_bias: false}\n"
        "machine: workstation\n"
        "layout: {pipeline: 2, micro_batch_size: 3}\n"
        "data: {train: corpus/train}\n"
    )
    spec = load_run("run.yaml").spec
    model = spec.model
    assert (model.num_kv_heads, model.head_dim, model.ffn_hidden_size) == (8, 8, 256)
    assert (model.padded_vocab_size, model.qkv_bias, model.name) == (1024, False, "custom")
    assert spec.training.seq_len == 2048
    assert spec.training.global_batch_size == 3 * 2 * 2  # one micro-batch a stage and data-parallel rank
    assert spec.data != "synthetic" and spec.data.train == "corpus/train"


def test_a_specification_is_frozen_and_strict(write: Write) -> None:
    write(SHORTEST)
    spec = load_run("run.yaml").spec
    with pytest.raises(ValidationError):
        setattr(spec.layout, "tensor", 2)  # noqa: B010 (mypy refuses the assignment)
    with pytest.raises(ValidationError):
        LayoutSpec(tensor="2")  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        LayoutSpec(tensr=2)  # type: ignore[call-arg]


def test_extends_merges_deeply_and_the_nearest_file_wins(write: Write) -> None:
    write(SHORTEST + "nodes: 2\nlayout: {micro_batch_size: 2, recompute: full}\n", "base/grandparent.yaml")
    write("extends: grandparent.yaml\nlayout: {micro_batch_size: 4}\nnodes: 4\n", "base/parent.yaml")
    write("extends: base/parent.yaml\nnodes: 8\n")
    spec = load_run("run.yaml").spec
    assert (spec.nodes, spec.layout.micro_batch_size, spec.layout.recompute) == (8, 4, "full")
    assert spec.name == "run"


def test_extends_a_preset(write: Write) -> None:
    write("extends: gpt-175b-frontier\nlayout: {sharding: {preset: three_level}}\n")
    spec = load_run("run.yaml").spec
    assert (spec.layout.tensor, spec.layout.sharding.preset, spec.model.name) == (
        4,
        "three_level",
        "gpt-175b",
    )


def test_a_list_and_a_scalar_replace(write: Write) -> None:
    write(SHORTEST + "optimizer: {betas: [0.8, 0.9]}\n", "base.yaml")
    write("extends: base.yaml\noptimizer: {betas: [0.7, 0.99]}\ndata: {train: a}\n")
    spec = load_run("run.yaml").spec
    assert spec.optimizer.betas == (0.7, 0.99)
    assert spec.data != "synthetic" and spec.data.train == "a"


def test_overrides_win_over_files_and_the_last_one_wins() -> None:
    spec = load_run(
        "quickstart",
        ["layout.tensor=2", "layout.tensor=1", "optimizer.learning_rate=6e-5", "optimizer.betas=[0.5, 0.6]"],
    ).spec
    assert (spec.layout.tensor, spec.optimizer.learning_rate, spec.optimizer.betas) == (1, 6e-5, (0.5, 0.6))


def test_overrides_replace_data() -> None:
    assert load_run("quickstart", ["data=synthetic"]).spec.data == "synthetic"
    data = load_run("gpt-22b-frontier", ["data.train=here/it=is"]).spec.data
    assert data != "synthetic" and data.train == "here/it=is"


def test_overrides_reach_into_presets() -> None:
    spec = load_run(
        "quickstart", ["machine.packages_per_node=1", "model.num_layers=2", "machine.device.kind=cpu"]
    ).spec
    assert (spec.machine.packages_per_node, spec.machine.devices_per_package, spec.world_size) == (1, 2, 4)
    assert (spec.model.num_layers, spec.model.hidden_size, spec.model.name) == (2, 128, "gpt-tiny")
    assert spec.machine.device.kind == "cpu"


def test_a_file_reaches_into_the_preset_that_its_parent_names(write: Write) -> None:
    write("extends: quickstart\nmodel: {num_layers: 8}\n")
    assert (load_run("run.yaml").spec.model.num_layers, load_run("run.yaml").spec.model.num_heads) == (8, 4)


def test_inline_machine_over_a_preset(write: Write) -> None:
    write("model: gpt-tiny\nmachine: {extends: workstation, num_nodes: 3, name: mine}\ndata: synthetic\n")
    machine = load_run("run.yaml").spec.machine
    assert (machine.num_nodes, machine.name, machine.packages_per_node) == (3, "mine", 2)


def test_naming_another_preset_starts_afresh(write: Write) -> None:
    write(SHORTEST + "", "base.yaml")
    write("extends: base.yaml\nmodel: {extends: gpt-1.4b, num_layers: 2}\n", "child.yaml")
    write("extends: child.yaml\nmodel: {extends: gpt-22b}\nlayout: {pipeline: 2}\n")
    assert load_run("child.yaml").spec.model.hidden_size == 2112
    assert load_run("run.yaml").spec.model.num_layers == 48
    assert load_run("run.yaml", ["model=gpt-tiny"]).spec.model.num_layers == 4


def test_a_machine_file_is_found_from_the_file_that_names_it(write: Write) -> None:
    write("extends: emulated\nnum_nodes: 7\n", "site/my.yaml")
    write("model: gpt-tiny\nmachine: my.yaml\ndata: synthetic\n", "site/run.yaml")
    spec = load_run("site/run.yaml").spec
    assert (spec.machine.name, spec.machine.num_nodes, spec.machine.packages_per_node) == ("my", 7, 4)
    assert load_run("quickstart", ["machine=site/my.yaml", "nodes=1"]).spec.machine.num_nodes == 7


@pytest.mark.parametrize(
    ("parent", "child", "expected"),
    [
        ("{preset: zero3}", "{preset: ddp}", ("ddp", 1, 1, 1)),
        ("{weights: 1, gradients: 2, optimizer: 4}", "{preset: hsdp}", ("hsdp", "node", "node", "node")),
        ("{preset: zero3}", "{weights: 1, gradients: 2, optimizer: 4}", (None, 1, 2, 4)),
        ("{preset: three_level}", "{optimizer: node}", (None, "package", "node", "node")),
        ("{weights: 1, gradients: 2, optimizer: 4}", "{weights: 2}", (None, 2, 2, 4)),
        ("zero1", "{gradients: all}", (None, 1, "all", "all")),
        ("{preset: zero1}", "zero2", ("zero2", 1, "all", "all")),
        ("{preset: zero1}", "{}", ("zero1", 1, 1, "all")),
        ("{preset: zero1}", "{preset: zero1, gradients: 1}", ("zero1", 1, 1, "all")),
    ],
)
def test_sharding_presets_and_degrees_replace_each_other(
    write: Write, parent: str, child: str, expected: tuple[object, ...]
) -> None:
    write(SHORTEST + f"layout: {{sharding: {parent}}}\n", "parent.yaml")
    write(f"extends: parent.yaml\nlayout: {{sharding: {child}}}\n")
    sharding = load_run("run.yaml").spec.layout.sharding
    assert (sharding.preset, sharding.weights, sharding.gradients, sharding.optimizer) == expected
    by_override = load_run("parent.yaml", [f"layout.sharding={child}"]).spec.layout.sharding
    assert by_override == sharding


def test_sources_of_overridden_facts_are_dropped(write: Write) -> None:
    spec = load_run("gpt-22b-frontier", ["machine.links.network.latency_s=1", "model.num_layers=24"]).spec
    assert "links.network.latency_s" not in spec.machine.sources
    assert "links.network.bandwidth_bytes_per_s" in spec.machine.sources
    assert "num_layers" not in spec.model.sources and "hidden_size" in spec.model.sources
    write("model: gpt-tiny\ndata: synthetic\nmachine:\n  extends: frontier\n  num_nodes: 3\n")
    assert "num_nodes" not in load_run("run.yaml").spec.machine.sources
    write(
        "model: gpt-tiny\ndata: synthetic\nmachine:\n  extends: frontier\n"
        "  num_nodes: 3\n"
        "  sources: {num_nodes: &me {source: me, date: '2026'}, links: *me}\n"
    )
    assert load_run("run.yaml").spec.machine.sources["num_nodes"].source == "me"
    assert load_run("run.yaml").spec.machine.sources["links"].source == "me"
    assert "num_nodes" not in load_run("run.yaml", ["machine.num_nodes=4"]).spec.machine.sources
    whole = load_run("quickstart", ["machine.device.memory_bytes=1"]).spec.machine.sources
    assert "device" not in whole and "links" in whole


def test_locate_names_the_file_and_line_of_each_value(write: Write) -> None:
    write("# a comment\nextends: base.yaml\nlayout:\n  micro_batch_size: 2\n")
    write(SHORTEST + "nodes: 2\n", "base.yaml")
    document = load_run("run.yaml", ["optimizer.clip=2"])
    assert document.locate("layout.micro_batch_size") == ("run.yaml", 4)
    assert document.locate("nodes") == ("base.yaml", 4)
    assert document.locate("optimizer.clip") == ("command line", None)
    assert document.locate("layout.tensor") == ("run.yaml", 3)  # a default: where its section is
    assert document.locate("training.steps") == ("run.yaml", None)
    file, line = document.locate("model.num_heads")
    path = presets.path("model", "gpt-tiny")
    assert file is not None and path is not None and line is not None
    assert file.endswith("gpt-tiny.yaml")
    assert path.read_text().splitlines()[line - 1].startswith("num_heads")


def test_annotate_fills_what_a_violation_lacks(write: Write) -> None:
    write(SHORTEST + "layout:\n  tensor: 2\n")
    document = load_run("run.yaml")
    lacking = Violation("layout.tensor", None, "is wrong", "change it")
    (full,) = document.annotate(SpecError([lacking])).violations
    assert (full.file, full.line, full.value) == ("run.yaml", 5, 2)
    (section,) = document.annotate(SpecError([Violation("layout", None, "a", "b")])).violations
    assert (section.line, section.value) == (4, None)
    placed = Violation("layout.tensor", 7, "is wrong", "change it", "elsewhere", 1)
    assert document.annotate(SpecError([placed])).violations == (placed,)


@pytest.mark.parametrize("name", presets.names("run"))
def test_dump_is_read_back_equal(name: str, tmp_path: Path) -> None:
    spec = load_run(name, ["optimizer.decay_steps=null"]).spec
    (tmp_path / "run.yaml").write_text(dump(spec))
    assert read_resolved(tmp_path / "run.yaml") == spec


@settings(max_examples=60, deadline=None)
@given(
    name=st.text(min_size=1, max_size=20).filter(lambda text: all(c >= " " and c != "\x7f" for c in text)),
    train=st.text(min_size=1, max_size=20),
    rate=st.floats(min_value=1e-30, max_value=1e30),
)
@example(name="6e-5", train="\x85", rate=1.0)
@example(name="null", train="0o17", rate=1e16)
def test_any_text_and_number_survive_a_dump(
    name: str, train: str, rate: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    spec = load_run("quickstart").spec
    changed = spec.model_copy(
        update={
            "name": name,
            "data": spec.data.model_copy(update={"train": train}),  # type: ignore[union-attr]
            "optimizer": spec.optimizer.model_copy(update={"learning_rate": rate, "min_learning_rate": 0.0}),
        }
    )
    path = tmp_path_factory.mktemp("dump") / "run.yaml"
    path.write_text(dump(changed), encoding="utf-8", newline="")
    assert read_resolved(path) == changed


def test_a_resolved_run_is_a_run_file(write: Write) -> None:
    write(dump(load_run("quickstart").spec), "resolved.yaml")
    spec = load_run("resolved.yaml", ["layout.sharding.preset=zero3", "model.num_layers=2"]).spec
    assert (spec.layout.sharding.weights, spec.model.num_layers, spec.name) == ("all", 2, "quickstart")
    assert json.loads(spec.model_dump_json())["layout"]["sharding"]["preset"] == "zero3"


def test_loading_needs_nothing_heavy() -> None:
    code = (
        "import sys; from frontrunner.configs.load import load_run; load_run('quickstart')\n"
        "print({'numpy', 'torch', 'typer', 'rich', 'megatron'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr
