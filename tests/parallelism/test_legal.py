"""What is legal is said once: the loader, layouts, the planner's advice and search agree on every layout."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from frontrunner.configs import legal
from frontrunner.configs.errors import SpecError
from frontrunner.configs.load import Document, load_run, vary
from frontrunner.configs.sharding import SHARDING_PRESETS
from frontrunner.launcher.verify import verified
from frontrunner.parallelism.layout import Layout, cut_of
from frontrunner.parallelism.planner.advise import advise
from frontrunner.parallelism.planner.candidates import Candidates, Workload
from frontrunner.parallelism.planner.plan import estimate
from frontrunner.parallelism.planner.search import Space, space

#: Layers with experts and without; the degrees of 2, 3, 4, 6 and 12 ranks divide the experts.
EXPERTS: dict[str, Any] = {
    "linear_bias": False,
    "experts": {
        "num_experts": 12,
        "experts_per_token": 3,
        "ffn_hidden_size": 48,
        "first_dense_layers": 1,
        "every": 1,
    },
}
NODES = {(1, 1): 1, (4, 2): 3, (3, 2): 2, (2, 3): 4, (8, 1): 2, (1, 4): 3}
KEYS = [f.name for f in fields(Candidates)]


def base(folder: Path, packages: int, devices: int, nodes: int, **model: Any) -> Document:
    """A run with one of the smallest layouts, from which others differ by ``-o``."""
    link = {"bandwidth_bytes_per_s": 1e9, "latency_s": 1e-6}
    machine = {
        "num_nodes": 64,
        "packages_per_node": packages,
        "devices_per_package": devices,
        "device": {"name": "d", "kind": "cpu", "memory_bytes": 2**40},
        "links": {"package": link, "node": link, "network": link},
    }
    sizes = {"num_layers": 4, "hidden_size": 48, "num_heads": 12, "ffn_hidden_size": 96, "vocab_size": 384}
    run = {
        "name": "legal",
        "model": sizes | model,
        "machine": machine,
        "nodes": nodes,
        "data": "synthetic",
        "training": {"seq_len": 24, "precision": "bfloat16"},
        "layout": {"sharding": {"preset": "ddp"}},
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(run))
    return load_run(str(path))


def loaded(document: Document, values: dict[str, Any]) -> tuple[Any, Layout] | None:
    """The run with other values, and its layout; None where it is refused."""
    found = vary(document, values)
    if found.violations or found.document is None:
        return None
    try:
        return found.document.spec, Layout.from_spec(found.document.spec)
    except SpecError:
        return None


def flat(section: dict[str, Any], prefix: str = "layout") -> dict[str, Any]:
    """The values of a section by dotted key."""
    found: dict[str, Any] = {}
    for key, value in section.items():
        path = f"{prefix}.{key}"
        found |= (
            flat({"preset": None} | value if key == "sharding" else value, path)
            if isinstance(value, dict)
            else {path: value}
        )
    return found


def place(found: Space, one: Candidates) -> int:
    """How many layouts of a space are this one, by their numbers."""
    same = np.ones(len(found.candidates), dtype=bool)
    for key in KEYS:
        same &= getattr(found.candidates, key) == getattr(one, key)
    return int(np.count_nonzero(same))


def test_ranks_that_share_a_level_are_those_of_the_placement() -> None:
    for node, nodes in product((1, 2, 3, 4, 6, 8, 12), (1, 2, 3, 5, 8)):
        whole = [d for d in range(1, node + 1) if node % d == 0]
        for package, tensor in product(whole, whole):
            ranks = node * nodes // tensor
            for pipeline in (p for p in range(1, ranks + 1) if ranks % p == 0):
                data = ranks // pipeline
                for span in (package, node):
                    grid = Layout(nodes, node, package, tensor, pipeline, 1, 1, 1, 1, 1)
                    sizes: set[int] = set()
                    for t, p in product(range(tensor), range(pipeline)):
                        shared = Counter(grid.rank(t, d, p) // span for d in range(data))
                        sizes |= set(shared.values())
                    expected = sizes.pop() if len(sizes) == 1 else 0
                    assert legal.ranks_sharing(span, tensor, data) == expected


def test_numbers_and_arrays_agree() -> None:
    spans, tensors, datas = (2, 4, 6, 8), np.array([1, 2, 3, 4, 8]), np.array([1, 2, 3, 4, 8, 12])
    for span in spans:
        found = legal.ranks_sharing(span, tensors[:, None], datas)
        assert found.tolist() == [[legal.ranks_sharing(span, int(t), int(d)) for d in datas] for t in tensors]


cuts = st.fixed_dictionaries(
    {
        "model.num_layers": st.sampled_from([1, 2, 4, 6, 12]),
        "layout.tensor": st.integers(1, 9),
        "layout.sequence_parallel": st.booleans(),
        "layout.pipeline": st.integers(1, 7),
        "layout.virtual_stages": st.integers(1, 4),
        "layout.micro_batch_size": st.integers(1, 5),
        "training.global_batch_size": st.sampled_from([1, 6, 8, 12, 24, 48, 96]),
        "training.seq_len": st.sampled_from([6, 7, 8, 24]),
        "layout.sharding.preset": st.sampled_from(list(SHARDING_PRESETS)),
    }
)
expert_cuts = st.tuples(cuts, st.integers(1, 13)).map(lambda pair: pair[0] | {"layout.expert": pair[1]})


FIXTURES = [HealthCheck.function_scoped_fixture]


@pytest.mark.parametrize("node", NODES)
@given(values=cuts)
@settings(max_examples=150, deadline=None, suppress_health_check=FIXTURES)
def test_the_loader_takes_what_is_legal_and_no_more(
    node: tuple[int, int], values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    takes_what_is_legal(base(tmp_path_factory.getbasetemp(), *node, NODES[node]), values)


@pytest.mark.parametrize("node", NODES)
@given(values=expert_cuts)
@settings(max_examples=150, deadline=None, suppress_health_check=FIXTURES)
def test_the_loader_takes_what_is_legal_with_experts(
    node: tuple[int, int], values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    values = values | {"model.num_layers": max(2, values["model.num_layers"])}  # the first is dense
    takes_what_is_legal(base(tmp_path_factory.getbasetemp(), *node, NODES[node], **EXPERTS), values)


def takes_what_is_legal(document: Document, values: dict[str, Any]) -> None:
    """The document with these values loads if and only if the rules hold."""
    spec = document.spec
    changed = spec.model_copy(
        update={
            "model": spec.model.model_copy(update={"num_layers": values["model.num_layers"]}),
            "layout": spec.layout.model_copy(
                update={
                    key.removeprefix("layout."): value
                    for key, value in values.items()
                    if key.startswith("layout.") and "sharding" not in key
                }
            ),
            "training": spec.training.model_copy(
                update={
                    key.removeprefix("training."): value
                    for key, value in values.items()
                    if key.startswith("training.")
                }
            ),
        }
    )
    cut = cut_of(changed)
    data, tensor = legal.data_parallel(cut), values["layout.tensor"]
    spans = (spec.machine.devices_per_package, spec.machine.devices_per_node)
    package, whole = (legal.ranks_sharing(span, tensor, data) for span in spans)
    numbers = {1: 1, "package": package, "node": whole, "all": data}
    weights, gradients, optimizer = (numbers[d] for d in SHARDING_PRESETS[values["layout.sharding.preset"]])
    secondary = whole if values["layout.sharding.preset"] == "zeropp" else weights
    degrees = {"weights": weights, "gradients": gradients, "optimizer": optimizer, "secondary": secondary}
    expected = legal.legal(cut) and legal.legal(legal.Cut(**(vars(cut) | degrees)))
    assert (loaded(document, values) is not None) == bool(expected)


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize(
    "model",
    [{}, {"num_kv_heads": 6}, {"num_kv_heads": 2}, {"num_layers": 6, "ffn_hidden_size": 104}, EXPERTS],
    ids=["plain", "few keys", "fewest keys", "odd", "experts"],
)
def test_all_that_search_finds_loads(node: tuple[int, int], model: dict[str, Any], tmp_path: Path) -> None:
    document = base(tmp_path, *node, NODES[node], **model)
    batch = 24 * NODES[node]
    found = space(Workload.of(document.spec), NODES[node], batch)
    assert len(found.candidates) > 10
    chosen = np.random.default_rng(0).choice(len(found.candidates), min(60, len(found.candidates)), False)
    for index in chosen:
        given_ = flat(found.layout(int(index))) | {"training.global_batch_size": batch}
        answer = loaded(document, given_)
        assert answer is not None, given_
        alone = Candidates.of(*answer)
        assert [getattr(alone, key)[0] for key in KEYS] == [
            getattr(found.candidates, key)[index] for key in KEYS
        ]


@pytest.mark.parametrize("model", [{}, EXPERTS], ids=["dense", "experts"])
@pytest.mark.parametrize("node", NODES)
def test_all_that_loads_is_found(node: tuple[int, int], model: dict[str, Any], tmp_path: Path) -> None:
    """With wires of the run's precision, and degrees that are presets. A flat dispatch is found where a
    rank's experts lie on several nodes, with several ranks on each."""
    document = base(tmp_path, *node, NODES[node], **model)
    batch, plain = 24 * NODES[node], dict.fromkeys(("weights", "gradients", "network"), "bfloat16")
    found = space(Workload.of(document.spec), NODES[node], batch)
    count = 0
    axes: dict[str, tuple[Any, ...]] = {
        "tensor": (1, 2, 3, 4, 6, 8),
        "sequence_parallel": (False, True),
        "pipeline": (1, 2, 4),
        "virtual_stages": (1, 2),
        "micro_batch_size": (1, 3),
    }
    if model:
        axes |= {"virtual_stages": (1,), "micro_batch_size": (1,), "expert": (1, 2, 3, 4, 5, 6, 8, 12)}
        axes["dispatch"] = ("hierarchical", "flat")
    for values in product(*axes.values()):
        layout = flat(dict(zip(axes, values, strict=True)))
        if loaded(document, layout | {"training.global_batch_size": batch}) is None:
            continue
        for preset in SHARDING_PRESETS:
            given_ = layout | flat({"sharding": {"preset": preset, "wire": plain}})
            answer = loaded(document, given_ | {"training.global_batch_size": batch})
            if answer is None:
                continue
            count += 1
            cut = answer[1]
            two = len(cut.hops(cut.groups(0).expert, 0)) == 2
            assert place(found, Candidates.of(*answer)) == (two or layout.get("layout.dispatch") != "flat")
    assert count > 10


def advised(overrides: list[str]) -> list[str]:
    """What is advised for a run; it must load and be what was promised. Nothing where the run is refused."""
    try:
        document, layout = verified("gpt-22b-frontier", overrides)
    except SpecError:
        return []
    spec = document.spec
    now = estimate(Workload.of(spec), Candidates.of(spec, layout))
    advice = advise(spec, now, most=100)
    for each in advice:
        changed, cut = verified("gpt-22b-frontier", [*overrides, each.option.removeprefix("-o ")])
        then = estimate(Workload.of(changed.spec), Candidates.of(changed.spec, cut))
        assert then.fits[0] == each.fits, each
        assert then.tokens_per_s[0] / now.tokens_per_s[0] - 1 == pytest.approx(each.gain), each
    return [each.change for each in advice]


def test_presets_whose_levels_fall_unevenly_are_not_advised() -> None:
    """Twelve data-parallel ranks over nodes of eight: no level of a node."""
    run = ["nodes=3", "layout.pipeline=2", "layout.micro_batch_size=2", "layout.sharding=ddp"]
    found = advised([*run, "training.global_batch_size=96"])
    assert found == [f"layout.sharding: {preset}" for preset in ("zero2", "zero3")]


@pytest.mark.long_except("ddp-2", "three_level-3")
@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("preset", ["ddp", "zero1", "zero3", "three_level"])
def test_all_that_is_advised_loads(nodes: int, preset: str) -> None:
    count = 0
    for tensor, pipeline, micro, engine in product(
        (1, 2, 8), (1, 2), (1, 2), ("native", "fsdp", "deepspeed")
    ):
        count += len(
            advised(
                [
                    f"nodes={nodes}",
                    f"layout.tensor={tensor}",
                    f"layout.pipeline={pipeline}",
                    f"layout.micro_batch_size={micro}",
                    "training.global_batch_size=96",
                    f"layout.sharding={preset}",
                    f"engine={engine}",
                ]
            )
        )
    assert count > 10
