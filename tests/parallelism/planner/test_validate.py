"""The planner against published runs: how far off, what is skipped and why, and whence its constants."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from frontrunner.configs.errors import SpecError
from frontrunner.configs.load import load_machine, load_run
from frontrunner.parallelism.planner.calibrate import BOUNDS, Measured, constant, fit, with_constants
from frontrunner.parallelism.planner.published import prepare, published_tokens_per_s, read
from frontrunner.parallelism.planner.relative import PUBLISHED, ratios
from frontrunner.parallelism.planner.validate import MACHINES, Validation, validate

ROWS = Path(str(files("frontrunner.configs.published") / "mi250x.yaml"))


@pytest.fixture(scope="module")
def found() -> Validation:
    return validate(read(ROWS), load_machine)


def errors(compared: list[Any]) -> list[float]:
    return [abs(c.error_pct) for c in compared]


def test_speed_is_within_six_percent_on_average(found: Validation) -> None:
    assert len(found.speed) >= 15
    assert sum(errors(found.speed)) / len(found.speed) <= 6
    assert max(errors(found.speed)) <= 15


def test_every_logged_stage_needs_what_was_logged(found: Validation) -> None:
    assert {c.id.split()[0] for c in found.memory} == {
        "lumi-megds-175b-16n",
        "lumi-megds-175b-128n",
        "crusher-megds-175b-16n-memory",
    }
    assert max(errors(found.memory)) <= 3
    assert max(errors(found.at_rest)) <= 1


def test_what_is_skipped_is_skipped_with_a_reason(found: Validation) -> None:
    reasons = dict(found.skipped)
    assert len(found.speed) + len(found.skipped) + 1 == len(read(ROWS))  # one row is for memory only
    assert "gcds not published" in reasons["frontier-dash-175b"]
    assert "no machine file" in reasons["mi250-databricks-mpt7b-4to128"]


@pytest.mark.parametrize(("name", "era"), [(m, e) for m in ("frontier", "lumi-g") for e in ("2023", "2025")])
def test_constants_are_those_that_the_named_rows_give(name: str, era: str) -> None:
    machine = load_machine(name)
    software = machine.software[era]
    keys = [key for key in software.fitted if key in BOUNDS]
    runs = []
    for row in read(ROWS):
        if row.id in {run for key in keys for run in software.fitted[key]}:
            assert (MACHINES[row.machine], row.era) == (name, era)
            work, candidates = prepare(row, machine)
            runs.append(Measured(work, candidates, published_tokens_per_s(row, work.model)))
    for key, value in fit(runs, keys).items():
        assert value == pytest.approx(constant(software, key), rel=0.01), key


def test_a_fit_finds_the_constants_that_made_the_runs() -> None:
    machine = load_machine("lumi-g")
    rows = [row for row in read(ROWS) if row.id.startswith("lumi-megds")]
    truth = {"gemm_factor": 0.6, "rings.across_nodes": 3e9}
    other = with_constants(machine.software["2023"], truth)
    elsewhere = machine.model_copy(update={"software": {"2023": other}})
    exact = {c.id: c.predicted for c in validate(rows, lambda _: elsewhere).speed}
    runs = [Measured(*prepare(row, machine), exact[row.id]) for row in rows]
    assert fit(runs, list(truth)) == pytest.approx(truth, rel=1e-3)


def rows_file(folder: Path, change: Any) -> Path:
    rows = yaml.safe_load(ROWS.read_text())[:1]
    change(rows[0])
    path = folder / "rows.yaml"
    path.write_text(yaml.safe_dump(rows))
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: row.pop("tp"), "lumi-megatron-llama2-7b-2n.tp: is missing"),
        (lambda row: row.update(gbs="many"), "lumi-megatron-llama2-7b-2n.gbs"),
        (lambda row: row["model"].pop("hidden"), "model.hidden: is missing"),
    ],
)
def test_a_row_that_is_wrong_is_named(tmp_path: Path, change: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        read(rows_file(tmp_path, change))


@pytest.mark.parametrize("text", ["", "a: b", "- 1", "[", "\x00"])
def test_a_file_that_holds_no_rows(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.yaml"
    path.write_text(text)
    with pytest.raises(SpecError):
        read(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        read(tmp_path / "none.yaml")


def test_a_row_with_a_batch_that_does_not_divide_is_skipped(tmp_path: Path) -> None:
    path = rows_file(tmp_path, lambda row: row.update(gbs=3))
    assert validate(read(path), load_machine).skipped[0][1].startswith("gbs 3 is not a multiple")


def test_the_ratios_of_three_level_sharding() -> None:
    """Xu et al. 2025: ZeRO-3 : ZeRO++ : three levels = 1 : 1.405 : 2.398 on 384 devices, efficiency 0.94."""
    model = load_run("gpt-22b-frontier", ["model=gpt-neox-20b", "layout.pipeline=1"]).spec.model
    convention, *larger = ratios(model, load_machine("frontier"))
    for key, published in PUBLISHED.items():
        assert getattr(convention, key) == pytest.approx(published, rel=0.1), key
    assert [row.three_level for row in larger] == sorted((row.three_level for row in larger), reverse=True)
