"""``frontrunner check`` and ``frontrunner schema`` as a user runs them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontrunner.configs import presets
from frontrunner.configs.errors import SpecError
from frontrunner.launcher.commands.check import check
from frontrunner.launcher.commands.schema import schema
from frontrunner.launcher.verify import verified
from support import program

SHORTEST = "model: gpt-tiny\nmachine: workstation\ndata: synthetic\n"


def run(*arguments: str, cwd: Path) -> tuple[int, str, str]:
    done = program.run(*arguments, folder=cwd, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", presets.names("run"))
def test_every_run_preset_is_valid(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    check(name)
    assert capsys.readouterr().out.startswith(f"{name} is valid\n")


def test_what_a_valid_run_comes_to(capsys: pytest.CaptureFixture[str]) -> None:
    check("quickstart", ["layout.tensor=2"])
    out = capsys.readouterr().out
    assert "gpt-tiny on 2 of 16 nodes of workstation" in out
    assert "8 = tensor 2 x pipeline 1 x data 4" in out
    assert "three_level: weights over 1, gradients over 2, optimizer over 4" in out
    assert "32 sequences of 128 tokens = 4 ranks x 2 x micro-batch 4, float32" in out


def test_valid_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    check("quickstart", as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["valid"], found["violations"], found["layout"]["data"]) == (True, [], 8)
    assert found["bytes_per_step"] == {"package": 1245543.0, "node": 556881.0, "network": 410221.5}


def test_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    schema()
    assert "layout" in json.loads(capsys.readouterr().out)["properties"]


def test_violations_of_the_layout_have_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(SHORTEST + "layout:\n  sharding:\n    weights: 3\n")
    with pytest.raises(SpecError) as caught:
        verified("run.yaml", [])
    (violation,) = caught.value.violations
    assert (violation.file, violation.line, violation.path) == ("run.yaml", 6, "layout.sharding.weights")
    assert violation.value == 3


def test_violations_of_file_and_layout_are_shown_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = SHORTEST + "layout: {sharding: {weights: 3}}\noptimizer: {warmup_steps: 1000}\n"
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        verified("run.yaml", [])
    assert {v.path for v in caught.value.violations} == {"layout.sharding.weights", "optimizer.warmup_steps"}


def test_what_the_rules_said_is_not_said_again_by_the_layout() -> None:
    with pytest.raises(SpecError) as caught:
        verified("gpt-22b-frontier", ["layout.pipeline=3"])
    assert [v.path for v in caught.value.violations] == ["layout.pipeline"]


small = st.integers(-1, 20) | st.sampled_from([2**53, 64, 100_000])


@settings(max_examples=150, deadline=None)
@given(
    keys=st.dictionaries(
        st.sampled_from(
            [
                *("nodes", "layout.tensor", "layout.pipeline", "layout.virtual_stages"),
                *("machine.num_nodes", "machine.packages_per_node", "machine.devices_per_package"),
                *("layout.sharding.weights", "layout.sharding.gradients", "layout.sharding.optimizer"),
                *("training.global_batch_size", "layout.micro_batch_size", "model.num_layers"),
            ]
        ),
        small | st.sampled_from(["package", "node", "all"]),
        max_size=6,
    ),
    run=st.sampled_from(presets.names("run")),
)
def test_any_layout_is_laid_out_or_refused(keys: dict[str, int | str], run: str) -> None:
    with contextlib.suppress(SpecError):
        document, layout = verified(run, [f"{key}={value}" for key, value in keys.items()])
        assert layout.world_size == document.spec.world_size
        assert layout.data * layout.tensor * layout.pipeline == layout.world_size


def test_a_wrong_file_ends_with_code_2_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(SHORTEST + "layout:\n  tensr: 2\n  recompute: 3\n")
    code, out, err = run("check", "run.yaml", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert err == (
        "run.yaml:5 layout.tensr = 2: unknown key; did you mean layout.tensor?\n"
        "run.yaml:6 layout.recompute = 3: must be one of none, selective, full; choose one of them\n"
    )


def test_a_wrong_file_as_json(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(SHORTEST + "layout:\n  tensr: 2\n")
    code, out, err = run("check", "run.yaml", "-o", "nodes=0", "--json", cwd=tmp_path)
    answer: dict[str, Any] = json.loads(out)
    assert code == 2 and answer["valid"] is False and "Traceback" not in err
    misspelt, zero = answer["violations"]
    assert misspelt == {
        "file": "run.yaml",
        "line": 5,
        "path": "layout.tensr",
        "value": 2,
        "constraint": "unknown key",
        "fix": "did you mean layout.tensor?",
    }
    assert (zero["file"], zero["line"], zero["path"], zero["value"]) == ("command line", None, "nodes", 0)


def test_schema_from_the_command_line(tmp_path: Path) -> None:
    code, out, _ = run("schema", cwd=tmp_path)
    assert code == 0 and json.loads(out)["title"] == "frontrunner run"


BLENDS = (
    *("[0.3, a, 0.7, b]", "[a, b]", "[{path: a}]", "{a: 0.3, b: 0.7}"),
    *('"0.3 a 0.7 b"', '" 30 a\\n70 b"', '".5 a"'),
)


@pytest.mark.parametrize("train", BLENDS)
def test_several_corpora_are_refused_as_what_they_are(tmp_path: Path, train: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"model: gpt-tiny\nmachine: workstation\ndata: {{train: {train}}}\n")
    with pytest.raises(SpecError) as refused:
        check(str(file))
    (violation,) = refused.value.violations
    assert (violation.path, violation.line) == ("data.train", 3)
    assert "must be one corpus" in violation.constraint
    assert "data prepare --input A B" in violation.fix


@pytest.mark.parametrize("train", ["a b", "2 corpora/of mine", "100b", "v1.5/train"])
def test_a_path_with_numbers_or_a_space_is_one_corpus(tmp_path: Path, train: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"model: gpt-tiny\nmachine: workstation\ndata: {{train: '{train}'}}\n")
    assert verified(str(file), [])[0].spec.data.train == train  # type: ignore[union-attr]


def test_weights_to_start_from_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"{SHORTEST}checkpoint: {{start_from: {tmp_path}/nowhere}}\n")
    with pytest.raises(SpecError) as refused:
        check(str(file))
    (violation,) = refused.value.violations
    assert (violation.path, violation.line) == ("checkpoint.start_from", 4)
    assert violation.constraint == f"{tmp_path}/nowhere does not exist"
