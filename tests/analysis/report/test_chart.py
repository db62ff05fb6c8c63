"""What figures have in common: which series are drawn, units, ticks, colours and names."""

from __future__ import annotations

import math

import pytest

from frontrunner.analysis.report import chart
from frontrunner.analysis.report.chart import Chart, Limit, Series


def figure(*series: Series, **fields: object) -> Chart:
    return Chart("a", "a", "step", "memory", series, "a", **fields)  # type: ignore[arg-type]


def test_series_that_leave_no_mark_are_not_drawn() -> None:
    lines = (
        Series("seen", [1, 2], [None, 3.0]),
        Series("unknown", [1, 2], [None, None]),
        Series("not a number", [1], [math.nan]),
        Series("zero", [1], [0.0]),
    )
    assert [series.name for series in chart.visible(figure(*lines))] == ["seen", "zero"]
    assert [series.name for series in chart.visible(figure(*lines, log_y=True))] == ["seen"]
    bars = (Series("long", ["a"], [1.0], "bar"), Series("of no length", ["a"], [0.0], "bar"))
    assert [series.name for series in chart.visible(figure(*bars))] == ["long"]


def test_a_part_of_a_stack_that_is_thinner_than_a_pixel_leaves_no_mark() -> None:
    bars = (Series("long", ["a"], [347.0], "bar"), Series("thin", ["a"], [0.037], "bar"))
    assert [series.name for series in chart.visible(figure(*bars, stacked=True))] == ["long"]
    assert [series.name for series in chart.visible(figure(*bars))] == ["long", "thin"]


def test_an_axis_has_the_unit_of_its_largest_value_or_limit() -> None:
    series = Series("a", [1], [3 * 2.0**20])
    assert chart.unit_y(figure(series, y_kind="bytes")) == ("MiB", 2.0**20)
    limited = figure(series, y_kind="bytes", limits=[Limit("memory", 8 * 2.0**30)])
    assert chart.unit_y(limited) == ("GiB", 2.0**30)
    assert chart.titled("time of a step", "s") == "time of a step (s)"
    assert chart.titled("tokens/s", "tokens/s") == "tokens/s"


def test_the_longest_bar_counts_stacks_and_limits() -> None:
    bars = (Series("a", ["x", "y"], [1.0, 2.0], "bar"), Series("b", ["x", "y"], [5.0, 1.0], "bar"))
    assert chart.bar_ends(figure(*bars)) == 5.0
    assert chart.bar_ends(figure(*bars, stacked=True)) == 6.0
    assert chart.bar_ends(figure(*bars, limits=[Limit("memory", 9.0)])) == 9.0


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([12.0, 80.0], [10.0, 20.0, 50.0, 100.0]),
        ([1.0, 1e4], [1.0, 10.0, 100.0, 1e3, 1e4]),
        ([0.0, -1.0], []),
    ],
)
def test_ticks_of_a_logarithmic_axis(values: list[float], ticks: list[float]) -> None:
    assert chart.log_ticks(values) == pytest.approx(ticks)


def test_series_have_different_colours_unless_they_belong_together() -> None:
    series = [
        Series("a", [], [], color=1),
        Series("b", [], []),
        Series("c", [], []),
        Series("d", [], [], color=1),
    ]
    assert chart.colors(series) == [1, 0, 2, 1]


def test_names_keep_what_tells_them_apart() -> None:
    names = ["study-of-layouts-zero1-seed-1", "study-of-layouts-zero3-seed-1"]
    assert chart.without_shared_start(names, 12) == ["…zero1-seed-1", "…zero3-seed-1"]
    assert chart.without_shared_start(names, 25) == ["…of-layouts-zero1-seed-1", "…of-layouts-zero3-seed-1"]
    assert chart.without_shared_start(["ab", "ac"], 1) == ["ab", "ac"]
    assert chart.shortened("abcdefghij", 5) == "ab…ij"
    assert chart.shortened("abcde", 5) == "abcde"
