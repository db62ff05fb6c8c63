"""``plan`` of a model: a layout is chosen, and what was chosen is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frontrunner.configs.errors import SpecError
from frontrunner.configs.load import load_run
from frontrunner.launcher.commands.plan import plan
from frontrunner.launcher.commands.search import request, search
from frontrunner.launcher.proposal import propose
from frontrunner.parallelism.planner.candidates import Workload
from frontrunner.parallelism.planner.choose import Choice, features, groups, simplest, simplest_of
from frontrunner.parallelism.planner.headroom import usable_bytes
from frontrunner.parallelism.planner.search import Ranking
from frontrunner.parallelism.planner.search import search as judge_all
from frontrunner.parallelism.planner.uncertainty import RELATIVE_MEDIAN_PCT

CONFIG = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "vocab_size": 32000,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a model's folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


@pytest.fixture(scope="module")
def ranking() -> Ranking:
    """Llama 3 8B on two nodes."""
    return judge_all(Workload.of(request("llama-3-8b", "lumi-g", 2, None)), 2, 1024)


def every(ranking: Ranking) -> Any:
    return np.arange(len(ranking.space.candidates))


def planned(capsys: pytest.CaptureFixture[str], run: str, **options: Any) -> tuple[Any, str]:
    """The object and the remarks."""
    plan(run, **options, as_json=True)
    shown = capsys.readouterr()
    return json.loads(shown.out), shown.err


@pytest.mark.parametrize("name", ["llama", "./llama", "llama/config.json"])
def test_a_folder_or_its_config(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    found, said = planned(capsys, name, nodes=2, machine="lumi-g")
    assert found["fits"] and found["tokens_per_s_per_device"] > 1000
    assert said.startswith(f"{name} is a model: a layout was chosen for it on lumi-g\n  layout: tp ")
    assert "within 6 % of the fastest" in said and max(map(len, said.splitlines())) <= 80


def test_it_is_nearly_the_best_of_the_search(capsys: pytest.CaptureFixture[str]) -> None:
    found, _ = planned(capsys, "gpt-22b", nodes=4)
    search("gpt-22b", nodes=4, top=1, as_json=True)
    best = json.loads(capsys.readouterr().out)["top"][0]["tokens_per_s_per_device"]
    assert best / (1 + RELATIVE_MEDIAN_PCT / 100) <= found["tokens_per_s_per_device"] <= best


def test_the_fewest_nodes_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    found, said = planned(capsys, "llama-3-70b", machine="lumi-g")
    assert found["fits"] and "nodes: 4, the fewest (by powers of two)" in said
    with pytest.raises(SpecError, match="fits; the nearest"):
        plan("llama-3-70b", nodes=2, machine="lumi-g")


def test_what_the_user_sets_stays(capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["layout.tensor=4", "layout.recompute=full", "training.global_batch_size=512"]
    found = propose({"model": "gpt-22b", "machine": "frontier", "data": "synthetic", "nodes": 4}, overrides)
    spec = found.document.spec
    assert (spec.layout.tensor, spec.layout.recompute) == (4, "full")
    assert spec.training.global_batch_size == 512
    assert not {"tensor", "recompute"} & found.keys["layout"].keys()
    assert "training" not in found.keys


def test_without_rates_the_default_that_fits(capsys: pytest.CaptureFixture[str]) -> None:
    found, said = planned(capsys, "gpt-tiny", machine="workstation")
    assert found["step_time_s"] is None and found["fits"]
    assert "layout: the default, which fits (no rates are known of workstation)" in said


def test_without_rates_the_smallest_where_the_default_does_not_fit() -> None:
    keys = {"model": "gpt-1.4b", "machine": "workstation", "data": "synthetic", "nodes": 1}
    found = propose(keys | {"training": {"seq_len": 512}})
    assert found.keys["layout"]["tensor"] == 4, "all four devices share the weights"
    assert found.keys["training"]["global_batch_size"] == 4


def test_a_run_file_is_planned_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    assert planned(capsys, "gpt-22b-frontier")[1] == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"run": "gpt-22b", "software": "1999"}, "frontier has 2023, 2025"),
        ({"run": "gpt-22b", "machine": "summit"}, "is neither a machine preset nor a file"),
        ({"run": "gpt-22b", "nodes": 4, "override": ["layout.pipeline=7"]}, "must divide num_layers 48"),
        ({"run": "gpt-22b", "override": ["training.global_batch_size=0"]}, "must be greater than 0"),
        ({"run": "gpt-2b"}, "is neither a run preset nor a file"),
        ({"run": "frontier"}, "is a machine preset, not a run"),
    ],
)
def test_a_model_that_cannot_be_planned(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        plan(**arguments)


def test_a_search_of_a_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search("llama", machine="lumi-g", nodes=2, top=1)
    assert capsys.readouterr().out.startswith("llama on 2 nodes of lumi-g")


def test_the_simplest_of_the_fast_ones(ranking: Ranking) -> None:
    choice = simplest(ranking)
    assert choice is not None
    speed, peak = ranking.estimated.tokens_per_s, ranking.estimated.memory.peak
    memory = usable_bytes(ranking.estimated.workload.machine)
    least = speed[ranking.order[0]] / (1 + RELATIVE_MEDIAN_PCT / 100)
    near = [i for i in ranking.order if speed[i] >= least]
    assert choice.alike == len(near)
    left = [i for i in near if peak[i] <= memory]
    c, space = ranking.space.candidates, ranking.space
    for values in (space.wires, c.pipeline, c.virtual_stages, features(ranking, every(ranking)), peak):
        left = [i for i in left if values[i] == min(values[j] for j in left)]
    assert choice.index in left


def test_simpler_layouts_are_taken_only_within_a_group(ranking: Ranking) -> None:
    found = list(groups(ranking))
    assert np.array_equal(np.concatenate(found), ranking.order)
    taken = [simplest_of(ranking, group).index for group in found]
    assert [int(index in group) for index, group in zip(taken, found, strict=True)] == [1] * len(found)
    first = found[0][:1]
    assert simplest_of(ranking, first) == Choice(int(first[0]), 1)


def test_fixed_fields_are_kept(ranking: Ranking) -> None:
    choice = simplest(ranking, {"tensor": 4, "recompute": 2})
    assert choice is not None
    assert ranking.space.candidates.tensor[choice.index] == 4
    assert ranking.space.candidates.recompute[choice.index] == 2
    assert simplest(ranking, {"tensor": 3}) is None


def test_features_of_layouts(ranking: Ranking) -> None:
    """Nothing for plain data parallelism, and one for each thing more."""
    counts = features(ranking, every(ranking))
    for index in np.linspace(0, len(counts) - 1, 200).astype(int):
        layout = ranking.space.layout(int(index))
        sharding = layout["sharding"]
        wires = sharding.get("wire", {}).get("weights")
        quantised = wires == "int8" or wires is None and sharding.get("preset") in ("three_level", "zeropp")
        own = sharding.get("preset") in (None, "three_level", "zeropp")
        expected = (layout["tensor"] > 1) + (layout["pipeline"] > 1) + (layout["virtual_stages"] > 1)
        expected += (layout["recompute"] != "none") + quantised + own
        assert counts[index] == expected, layout


def test_the_keys_give_the_proposal(folder: Path) -> None:
    """What is proposed over a preset is the layout that was chosen, whatever the preset sets."""
    found = propose({"extends": "gpt-22b-frontier", "nodes": 4})
    (folder / "run.yaml").write_text(json.dumps(found.keys))
    written = load_run("run.yaml").spec
    assert written.layout == found.document.spec.layout
    assert written.training.global_batch_size == 640
