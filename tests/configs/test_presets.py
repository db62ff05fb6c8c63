"""The presets: they load, their numbers are the published ones, and each says where it has them from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from frontrunner.configs import load, presets
from frontrunner.configs.errors import SpecError
from frontrunner.configs.schema import ModelSpec
from frontrunner.configs.sharding import SHARDING_PRESETS

MACHINES = ["emulated", "frontier", "lumi-g", "mi300a", "mi300x", "mi325x", "mi355x", "workstation"]
MODELS = [
    "gpt-1.4b",
    "gpt-175b",
    "gpt-1t",
    "gpt-22b",
    "gpt-neox-20b",
    "gpt-tiny",
    "llama-2-13b",
    "llama-2-70b",
    "llama-2-7b",
    "llama-3-405b",
    "llama-3-70b",
    "llama-3-8b",
    "mistral-7b",
    "mixtral-8x7b",
    "moe-tiny",
    "olmo-2-7b",
    "olmoe-1b-7b",
    "qwen2.5-7b",
    "qwen3-30b-a3b",
    "qwen3-8b",
]
RUNS = [
    "gpt-175b-frontier",
    "gpt-1t-frontier",
    "gpt-22b-frontier",
    "llama-2-7b-lumi",
    "moe-quickstart",
    "quickstart",
]

# Published: model cards and files of weights; papers for those of Dash et al. (rounded there).
EXACT = {
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3-405b": 405_853_388_800,
    "gpt-neox-20b": 20_554_567_680,
    "mistral-7b": 7_248_023_552,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-8b": 8_190_735_360,
    "olmo-2-7b": 7_298_617_344,
    "mixtral-8x7b": 46_702_792_704,
    "olmoe-1b-7b": 6_919_161_856,
    "qwen3-30b-a3b": 30_532_122_624,
}
ROUNDED = {"gpt-1.4b": 1.4e9, "gpt-22b": 22.07e9, "gpt-175b": 174.6e9, "gpt-1t": 1.008e12}


def model(name: str) -> ModelSpec:
    run = load.load_run("gpt-22b-frontier", [f"model={name}", "layout.pipeline=1", "training.seq_len=64"])
    return run.spec.model


def parameters(m: ModelSpec) -> int:
    """Counted by hand from the architecture, biases and norms included."""
    attention = m.num_heads * m.head_dim
    keys_and_values = 2 * m.num_kv_heads * m.head_dim
    matrices_in_mlp = 3 if m.activation == "swiglu" else 2
    norm = m.hidden_size * (2 if m.normalization == "layernorm" else 1)
    layer = m.hidden_size * (attention + keys_and_values) + attention * m.hidden_size
    mlp = matrices_in_mlp * m.hidden_size * m.ffn_hidden_size
    if m.experts:  # in all layers, with a row of the router for each
        mlp = m.experts.num_experts * m.hidden_size * (matrices_in_mlp * m.experts.ffn_hidden_size + 1)
    layer += mlp + 2 * norm
    layer += {"none": 0, "head": 2 * m.head_dim, "full": attention + keys_and_values // 2}[m.qk_norm]
    if m.qkv_bias:
        layer += attention + keys_and_values
    if m.linear_bias:
        layer += 2 * m.hidden_size + (matrices_in_mlp - 1) * m.ffn_hidden_size
    embeddings = (1 if m.tie_embeddings else 2) * m.padded_vocab_size * m.hidden_size
    positions = m.max_position_embeddings * m.hidden_size if m.position_embedding == "learned" else 0
    return m.num_layers * layer + norm + embeddings + positions


def test_all_presets_are_there() -> None:
    assert presets.names("machine") == MACHINES
    assert presets.names("model") == MODELS
    assert presets.names("run") == RUNS


@pytest.mark.parametrize("name", EXACT)
def test_parameter_counts_are_the_published_ones(name: str) -> None:
    assert parameters(model(name)) == EXACT[name]


@pytest.mark.parametrize("name", ROUNDED)
def test_parameter_counts_of_dash_et_al(name: str) -> None:
    assert parameters(model(name)) == pytest.approx(ROUNDED[name], rel=0.005)


def test_tiny_model_is_tiny() -> None:
    assert parameters(model("gpt-tiny")) < 2e6


@pytest.mark.parametrize(
    ("name", "base", "scaling"),
    [
        ("llama-2-7b", 1e4, None),
        ("llama-3-8b", 5e5, None),
        ("llama-3-70b", 5e5, None),
        ("llama-3-405b", 5e5, 8.0),
    ],
)
def test_rotary_details(name: str, base: float, scaling: float | None) -> None:
    assert (model(name).rotary_base, model(name).rotary_scaling_factor) == (base, scaling)


@pytest.mark.parametrize("name", RUNS)
def test_run_presets_load_and_have_their_own_name(name: str) -> None:
    assert load.load_run(name).spec.name == name


def test_the_layouts_of_dash_et_al() -> None:
    def layout(name: str) -> tuple[int, ...]:
        spec = load.load_run(name).spec
        batch = spec.training.global_batch_size
        return (
            spec.layout.tensor,
            spec.layout.pipeline,
            spec.layout.micro_batch_size,
            batch,
            spec.world_size,
        )

    assert layout("gpt-22b-frontier") == (1, 8, 1, 640, 16)
    assert layout("gpt-175b-frontier") == (4, 16, 1, 640, 128)
    assert layout("gpt-1t-frontier") == (8, 64, 1, 1600, 512)
    for name in ("gpt-22b-frontier", "gpt-175b-frontier", "gpt-1t-frontier"):
        spec = load.load_run(name).spec
        assert (spec.layout.sharding.preset, spec.layout.recompute) == ("zero1", "full")
        assert spec.training.precision == "float16"


def test_quick_start_has_eight_ranks_on_two_nodes_of_two_packages() -> None:
    spec = load.load_run("quickstart").spec
    machine = spec.machine
    assert (spec.nodes, machine.packages_per_node, machine.devices_per_package, spec.world_size) == (
        2,
        2,
        2,
        8,
    )
    assert spec.layout.sharding.preset == "three_level"
    assert spec.training.validation_samples > 0
    assert spec.data != "synthetic" and spec.data.train == "corpus/train"
    assert spec.model.padded_vocab_size == spec.model.vocab_size == 2048


def test_frontier_is_what_the_documents_say() -> None:
    machine = load.load_run("gpt-22b-frontier").spec.machine
    assert (machine.num_nodes, machine.packages_per_node, machine.devices_per_package) == (9856, 4, 2)
    assert machine.device.peak_flops_per_s["bfloat16"] == 191.5e12  # of a GCD, not of a package
    assert machine.device.memory_bytes == 64 * 2**30
    assert machine.links.package.bandwidth_bytes_per_s > machine.links.node.bandwidth_bytes_per_s
    assert machine.links.node.bandwidth_bytes_per_s > machine.links.network.bandwidth_bytes_per_s


def test_unknown_devices_have_no_peak() -> None:
    for name in ("workstation", "emulated"):
        machine = load.load_run("quickstart", [f"machine={name}", "nodes=1"]).spec.machine
        assert machine.device.peak_flops_per_s == {}


def leaves(data: Any, prefix: str = "") -> list[str]:
    if not isinstance(data, dict) or not data:
        return [prefix]
    return [leaf for key, value in data.items() for leaf in leaves(value, f"{prefix}.{key}".strip("."))]


PUBLISHED = [("machine", name) for name in MACHINES]
PUBLISHED += [("model", name) for name in MODELS if not name.endswith("-tiny")]


@pytest.mark.parametrize(("kind", "name"), PUBLISHED)
def test_every_fact_has_a_source(kind: presets.Kind, name: str) -> None:
    path = presets.path(kind, name)
    assert path is not None
    data = yaml.safe_load(path.read_text())
    sources = data.pop("sources")
    unsourced = [
        fact for fact in leaves(data) if not any(f"{fact}.".startswith(f"{source}.") for source in sources)
    ]
    assert unsourced == []


def test_facts_that_were_not_verified_say_so() -> None:
    sources = load.load_run("gpt-22b-frontier").spec.machine.sources
    assert sources["device.peak_flops_per_s.float32"].status == "memory"
    assert sources["num_nodes"].status == "verified"


def test_sharding_presets_are_those_of_the_lattice() -> None:
    assert SHARDING_PRESETS == {
        "ddp": (1, 1, 1),
        "zero1": (1, 1, "all"),
        "zero2": (1, "all", "all"),
        "zero3": ("all", "all", "all"),
        "zeropp": ("all", "all", "all"),
        "hsdp": ("node", "node", "node"),
        "three_level": ("package", "node", "all"),
    }


def test_presets_are_read_from_the_package_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load.load_run("quickstart").spec.model.name == "gpt-tiny"


@pytest.mark.parametrize(("name", "kind"), [("llama-3-8b", "model"), ("frontier", "machine")])
def test_preset_of_another_kind_is_named_as_such(name: str, kind: str) -> None:
    says = f"is a {kind} preset, not a run; write `{kind}: {name}` in a run file"
    with pytest.raises(SpecError, match=says):
        load.load_run(name)
