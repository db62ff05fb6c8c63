"""Sweep files: the paper's space, and what is said of files that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from frontrunner.configs.errors import SpecError
from frontrunner.configs.load_sweep import load_sweep

GOOD = """\
base: gpt-175b-frontier
space:
  layout.pipeline: [8, 16]
  layout.virtual_stages: {choices: [1, 2], when: {layout.pipeline: [8]}}
budget:
  trials: 4
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_papers_space() -> None:
    document = load_sweep("gpt-175b-dash")
    space = {key: axis.values() for key, axis in document.spec.space.items()}
    assert space["layout.pipeline"] == [1, 2, 4, 8, 12, 16]
    assert space["layout.tensor"] == [1, 2, 4, 8]
    assert space["layout.micro_batch_size"] == list(range(4, 21))
    assert space["grad_accum_steps"] == [5, 10]
    assert space["nodes"] == [12, 16]
    assert document.base.spec.model.name == "gpt-175b"


def test_a_base_run_is_found_beside_the_sweep(tmp_path: Path) -> None:
    folder = tmp_path / "deep er"
    folder.mkdir()
    (folder / "mine.yaml").write_text("extends: gpt-175b-frontier\nname: my own\n")
    (folder / "sweep.yaml").write_text(GOOD.replace("gpt-175b-frontier", "mine.yaml"))
    document = load_sweep("deep er/sweep.yaml")
    assert (document.base.spec.name, document.spec.name) == ("my own", "sweep")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("trials: 4", "trials: 0", "sweep.yaml:6 budget.trials = 0: must be greater than 0"),
        (
            "trials: 4",
            "trails: 4",
            "sweep.yaml:6 budget.trails = 4: unknown key; did you mean trials",
        ),
        (
            "layout.pipeline: [8",
            "layout.pipelin: [8",
            "sweep.yaml:3 space.layout.pipelin: unknown key",
        ),
        ("[8, 16]", "[]", "sweep.yaml:3 space.layout.pipeline = []: has no values"),
        ("[8, 16]", "[8, 8]", "has a value twice"),
        ("[8, 16]", "{from: 9, to: 8}", "sweep.yaml:3 space.layout.pipeline"),
        ("[8, 16]", "[8, many]", 'sweep.yaml:3 space.layout.pipeline = "many": must be an integer'),
        ("[8]}", "[7]}", "sweep.yaml:4 space.layout.virtual_stages.when = 7: layout.pipeline never takes"),
        ("when: {layout.pipeline", "when: {layout.tensor", "layout.tensor is not another key of the space"),
        ("layout.pipeline: [8, 16]", "training.steps: [8, 16]", "`steps` sets the steps of a trial"),
        ("layout.pipeline: [8, 16]", "grad_accum_steps: [0]", "must be integers of at least 1"),
        ("base: gpt-175b-frontier", "base: gpt-175b-frontie", "sweep.yaml:1 base"),
        ("base: gpt-175b-frontier", "base: illegal.yaml", "illegal.yaml:2 layout.tensor = 5: must divide"),
        ("base: gpt-175b-frontier\n", "", "sweep.yaml:1 base: is missing"),
        ("budget:", "sampler: magic\nbudget:", "sweep.yaml:5 sampler"),
        ("[8, 16]", "8", "sweep.yaml:3 space.layout.pipeline = 8: is not a list or range of values"),
        ("[8, 16]", "[[8]]", "sweep.yaml:3 space.layout.pipeline.choices.0 = [8]: must be one value"),
        (
            "layout.pipeline: [8, 16]",
            "layout: {pipeline: [8]}",
            "write a dotted key: layout.p",
        ),
        ("layout.pipeline: [8, 16]", "layout: [8, 16]", "sweep.yaml:3 space.layout: is a section, not one"),
        ("[8, 16]", "{from: 1, to: 99999999999}", "sweep.yaml:2 space: has 199,999,999,998 combinations"),
        ("  trials: 4", "", "sweep.yaml:5 budget: must be a mapping, not empty; write keys under it (trials"),
        ("base: gpt-175b-frontier", "base: 5", "sweep.yaml:1 base = 5: must be the name of a run preset"),
        ("base: gpt-175b-frontier", "base: sweep.yaml", 'sweep.yaml:1 base = "sweep.yaml": is this sweep'),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in GOOD
    (tmp_path / "illegal.yaml").write_text("extends: gpt-175b-frontier\nlayout: {tensor: 5}\n")
    (tmp_path / "sweep.yaml").write_text(GOOD.replace(old, new))
    with pytest.raises(SpecError) as caught:
        load_sweep("sweep.yaml")
    assert said in str(caught.value)
    paths = [violation.path for violation in caught.value.violations]
    assert len(set(paths)) == len(paths), "one complaint a place"


def test_an_empty_space(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text("base: gpt-175b-frontier\nspace: {}\n")
    with pytest.raises(SpecError, match=r"sweep.yaml:2 space = {}: is empty"):
        load_sweep("sweep.yaml")
