"""The JSON schemas of run and sweep files say what the loader says."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import yaml

from frontrunner.configs import presets
from frontrunner.configs.errors import SpecError
from frontrunner.configs.json_schema import run_file_schema, sweep_file_schema
from frontrunner.configs.load import dump, examine, load_run
from frontrunner.configs.load_sweep import load_sweep
from frontrunner.configs.schema import ModelSpec, RunSpec
from frontrunner.configs.sweep import SweepSpec

SHORTEST: dict[str, Any] = {"model": "gpt-tiny", "machine": "workstation", "data": "synthetic"}


@pytest.fixture(scope="module")
def validator() -> Any:
    return validator_of(run_file_schema())


@pytest.fixture(scope="module")
def of_sweeps() -> Any:
    return validator_of(sweep_file_schema())


def validator_of(schema: dict[str, Any]) -> Any:
    jsonschema = importlib.import_module("jsonschema")
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def complaints(validator: Any, data: object) -> list[str]:
    return [".".join(map(str, error.absolute_path)) for error in validator.iter_errors(data)]


@pytest.mark.parametrize("name", presets.names("run"))
def test_presets_and_their_resolved_forms_are_accepted(validator: Any, name: str) -> None:
    path = presets.path("run", name)
    assert path is not None
    assert complaints(validator, yaml.safe_load(path.read_text())) == []
    assert complaints(validator, yaml.safe_load(dump(load_run(name).spec))) == []


GOOD: list[dict[str, Any]] = [
    SHORTEST,
    {"extends": "quickstart"},
    {"extends": "../base.yaml", "nodes": 2},
    SHORTEST | {"model": "models/some/config.json"},
    SHORTEST | {"machine": {"extends": "workstation", "num_nodes": 3}},
    SHORTEST | {"model": {"num_layers": 1, "hidden_size": 8, "num_heads": 1, "vocab_size": 10}},
    SHORTEST | {"layout": {"sharding": "zero3"}},
    SHORTEST | {"layout": {"sharding": {"preset": "zero3"}}},
    SHORTEST | {"layout": {"sharding": {"weights": 2, "gradients": "node", "optimizer": "all"}}},
    SHORTEST | {"data": {"train": "a"}},
    SHORTEST | {"training": {"tokens": 300_000_000_000.0}},
    SHORTEST | {"slurm": {"account": "a", "time_limit": "2h", "environment": {"A": None, "B": "c d"}}},
]
BAD: list[tuple[dict[str, Any], str]] = [
    (SHORTEST | {"layout": {"tensr": 2}}, "layout"),
    (SHORTEST | {"layout": {"tensor": "2"}}, "layout.tensor"),
    (SHORTEST | {"layout": {"tensor": 0}}, "layout.tensor"),
    (SHORTEST | {"layout": {"sharding": "zero4"}}, "layout.sharding"),
    (SHORTEST | {"layout": {"recompute": "ful"}}, "layout.recompute"),
    (SHORTEST | {"layout": {"sharding": {"wire": "int8"}}}, "layout.sharding"),
    (SHORTEST | {"checkpoint": {"every": 5}}, "checkpoint"),
    (SHORTEST | {"checkpoint": {"every_minutes": "often"}}, "checkpoint.every_minutes"),
    (SHORTEST | {"wombat": {}}, ""),
    (SHORTEST | {"slurm": {"acount": "a"}}, "slurm"),
    (SHORTEST | {"slurm": {"time_limit": "soon"}}, "slurm.time_limit"),
    (SHORTEST | {"slurm": {"environment": {"a b": "c"}}}, "slurm.environment"),
    (SHORTEST | {"model": "gpt-22"}, "model"),
    (SHORTEST | {"machine": {"extends": "frontir"}}, "machine"),
    (SHORTEST | {"data": "corpus"}, "data"),
    (SHORTEST | {"training": {"tokens": 0}}, "training.tokens"),
    (SHORTEST | {"training": {"tokens": "300B"}}, "training.tokens"),
    (SHORTEST | {"training": {"tokens": 1000, "steps": 5}}, "training"),
    (SHORTEST | {"optimizer": {"betas": [0.9]}}, "optimizer.betas"),
    (SHORTEST | {"optimizer": {"learning_rate": 0}}, "optimizer.learning_rate"),
    ({"model": "gpt-tiny", "machine": "workstation"}, ""),
]


@pytest.mark.parametrize("data", GOOD)
def test_good_files_are_accepted(validator: Any, data: dict[str, Any]) -> None:
    assert complaints(validator, data) == []


@pytest.mark.parametrize(("data", "path"), BAD)
def test_bad_files_are_refused_here_as_by_the_loader(
    validator: Any, data: dict[str, Any], path: str, tmp_path: Any
) -> None:
    assert complaints(validator, data) == [path]
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(data))
    assert examine(str(tmp_path / "run.yaml")).violations


def test_editors_are_told_what_keys_mean_and_default_to() -> None:
    schema = run_file_schema()
    tensor = schema["$defs"]["LayoutSpec"]["properties"]["tensor"]
    assert tensor["default"] == 1
    assert (
        tensor["description"] == "Tensor-parallel degree: devices that share each layer, all inside one node."
    )
    assert schema["properties"]["model"]["anyOf"][0]["enum"] == presets.names("model")
    assert schema["properties"]["extends"]["anyOf"][0]["enum"] == presets.names("run")
    assert not any("required" in definition for definition in schema["$defs"].values())


def test_the_schema_has_every_key_of_a_run_and_extends_besides() -> None:
    schema = run_file_schema()
    assert schema["properties"].keys() == {*RunSpec.model_fields, "extends"}
    assert schema["$defs"]["ModelSpec"]["properties"].keys() == {*ModelSpec.model_fields, "extends"}


@pytest.mark.parametrize("name", presets.names("sweep"))
def test_preset_sweeps_are_accepted(of_sweeps: Any, name: str) -> None:
    path = presets.path("sweep", name)
    assert path is not None
    assert complaints(of_sweeps, yaml.safe_load(path.read_text())) == []


SWEEP: dict[str, Any] = {"base": "gpt-22b-frontier", "space": {"layout.tensor": [1, 2]}}
GOOD_SPACES: list[dict[str, Any]] = [
    {"layout.tensor": {"from": 1, "to": 4}, "layout.sharding": ["zero1", "ddp"]},
    {"layout.tensor": [1, 2], "nodes": {"choices": [8], "when": {"layout.tensor": [2]}}},
    {"grad_accum_steps": [2, 3], "slurm.environment.A": ["b c", None], "model": ["gpt-22b", "gpt-tiny"]},
    {"optimizer.learning_rate": [0.1], "slurm.exclude": [None, "node1"], "training.seed": [1, 2]},
]
BAD_SWEEPS: list[tuple[dict[str, Any], str]] = [
    ({"base": "gpt-22b-frontier"}, ""),
    (SWEEP | {"base": "gpt-22"}, "base"),
    (SWEEP | {"space": {}}, "space"),
    (SWEEP | {"space": {"layout.tensr": [1]}}, "space"),
    (SWEEP | {"space": {"layout.tensor": []}}, "space.layout.tensor"),
    (SWEEP | {"space": {"layout.tensor": ["two"]}}, "space.layout.tensor"),
    (SWEEP | {"space": {"layout.tensor": [1, 1]}}, "space.layout.tensor"),
    (SWEEP | {"space": {"layout.tensor": {"from": 1}}}, "space.layout.tensor"),
    (SWEEP | {"space": {"layout": {"tensor": [1, 2]}}}, "space"),
    (SWEEP | {"space": {"training.steps": [1, 2]}}, "space"),
    (SWEEP | {"budget": {"trials": 0}}, "budget.trials"),
    (SWEEP | {"sampler": "tpee"}, "sampler"),
    (SWEEP | {"samplr": "tpe"}, ""),
]


@pytest.mark.parametrize("space", GOOD_SPACES)
def test_good_spaces_are_accepted_here_and_by_the_loader(
    of_sweeps: Any, space: dict[str, Any], tmp_path: Any
) -> None:
    data = SWEEP | {"space": space}
    assert complaints(of_sweeps, data) == []
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(data))
    assert load_sweep(str(tmp_path / "sweep.yaml")).spec.space.keys() == space.keys()


@pytest.mark.parametrize(("data", "path"), BAD_SWEEPS)
def test_bad_sweeps_are_refused_here_as_by_the_loader(
    of_sweeps: Any, data: dict[str, Any], path: str, tmp_path: Any
) -> None:
    assert complaints(of_sweeps, data) == [path]
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(SpecError):
        load_sweep(str(tmp_path / "sweep.yaml"))


def test_the_schema_of_sweeps_says_what_keys_mean() -> None:
    schema = sweep_file_schema()
    assert schema["properties"].keys() == SweepSpec.model_fields.keys()
    tensor = schema["properties"]["space"]["properties"]["layout.tensor"]
    assert (
        tensor["description"] == "Tensor-parallel degree: devices that share each layer, all inside one node."
    )
    assert schema["properties"]["steps"]["description"] == "Steps per trial."
