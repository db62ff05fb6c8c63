"""Sweeps in an analysis."""

from __future__ import annotations

from pathlib import Path

import pytest

from frontrunner.analysis.report import sweeps
from frontrunner.analysis.report.table import value_at
from frontrunner.analysis.sweeps import read_sweeps
from frontrunner.configs.errors import SpecError
from support.reports import sweep_file


def test_what_a_sweep_has_found_is_a_section(tmp_path: Path) -> None:
    answer = {"sweeps": read_sweeps([sweep_file(tmp_path)])}
    section = sweeps.section(answer)
    assert section is not None
    ranking, shares = section.tables
    keys = ["tensor", "preset", "pipeline"]
    assert list(ranking.columns)[:7] == ["rank", "trial", "state", "failure", *keys]
    assert [row[6].text for row in ranking.rows] == ["–", "2", "2", "2"]  # the first has no such value
    assert [[cell.text for cell in row] for row in shares.rows] == [
        ["layout.tensor", "75.0 %", "62.5 %"],
        ["layout.pipeline", "25.0 %", "37.5 %"],
    ]
    assert value_at(answer, ranking.rows[3][3].key) == "out_of_memory"
    sensitivity, trials = section.charts
    assert [list(series.y) for series in sensitivity.series] == [[0.75, 0.25], [0.625, 0.375]]
    assert list(trials.series[0].x) == [1000.0, 899.5, 799.0]  # complete ones only


def test_an_analysis_without_sweeps_has_none() -> None:
    assert sweeps.section({"sweeps": []}) is None


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"name": "a"}'])
def test_what_is_no_sweep_s_report(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "sweep.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SpecError, match=r"--sweep = .*sweep report SWEEP.yaml --json"):
        read_sweeps([path])
