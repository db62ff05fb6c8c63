from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from frontrunner.analysis import bootstrap
from frontrunner.analysis.scaling import Sample, fit, groups, serial_fraction


def sample(devices: int, seconds: float, batch: int = 64, alike: str = "same", noise: float = 0.0) -> Sample:
    times = seconds + noise * np.sin(np.arange(21.0))
    return Sample(f"{alike}-{devices}-{batch}", (alike,), devices, batch, batch * 100.0, times)


def amdahl(serial: float, sizes: tuple[int, ...]) -> list[Sample]:
    return [sample(size, 10 * (serial + (1 - serial) * sizes[0] / size)) for size in sizes]


def test_strong_scaling_gives_back_the_serial_fraction() -> None:
    (group,) = groups(amdahl(0.05, (8, 16, 32, 64)))
    assert (group["kind"], group["base_devices"]) == ("strong", 8)
    assert [point["devices"] for point in group["points"]] == [8, 16, 32, 64]
    assert [point["serial_fraction"] for point in group["points"][1:]] == pytest.approx([0.05] * 3)
    assert group["points"][3]["speedup"] == pytest.approx(1 / (0.05 + 0.95 / 8))
    assert group["points"][3]["efficiency"] == pytest.approx(1 / (0.05 * 8 + 0.95))
    assert group["fit"]["serial_fraction"] == pytest.approx(0.05)
    assert group["fit"]["largest_error_pct"] == pytest.approx(0, abs=1e-6)


def test_the_next_doublings_follow_the_fit() -> None:
    (group,) = groups(amdahl(0.05, (8, 16, 32)))
    first, second = group["predictions"]
    assert (first["devices"], second["devices"]) == (64, 128)
    assert first["step_time_s"] == pytest.approx(10 * (0.05 + 0.95 / 8))
    assert second["efficiency"] == pytest.approx(1 / (0.05 * 16 + 0.95))


def test_weak_scaling_is_found_beside_strong() -> None:
    samples = [sample(8, 10.0, 64), sample(16, 10.5, 128), sample(32, 11.0, 256), sample(16, 5.2, 64)]
    strong, weak = groups(samples)
    assert [point["devices"] for point in strong["points"]] == [8, 16]
    assert weak["sequences_per_device"] == 8
    assert [point["efficiency"] for point in weak["points"]] == pytest.approx([1, 10 / 10.5, 10 / 11])
    assert weak["points"][2]["speedup"] == pytest.approx(40 / 11)
    assert weak["points"][2]["serial_fraction"] == pytest.approx((4 - 40 / 11) / 3)
    assert weak["predictions"][0]["step_time_s"] == pytest.approx(11.5)


def test_runs_that_differ_in_more_than_devices_are_not_compared() -> None:
    assert groups([sample(8, 10.0), sample(16, 5.0, alike="other"), sample(8, 9.0, 32)]) == []


def test_several_runs_of_a_size_are_one_point() -> None:
    (group,) = groups([sample(8, 10.0), sample(8, 12.0), sample(16, 6.0)])
    assert [point["step_time_s"] for point in group["points"]] == [11.0, 6.0]
    assert [len(point["runs"]) for point in group["points"]] == [2, 1]


def test_two_points_give_a_fit_without_an_error() -> None:
    (group,) = groups(amdahl(0.1, (8, 16)))
    assert group["fit"]["largest_error_pct"] is None
    assert group["fit"]["serial_fraction"] == pytest.approx(0.1)


def test_scaling_better_than_ideal_is_not_extrapolated_below_zero() -> None:
    (group,) = groups([sample(8, 10.0), sample(16, 3.0)])
    assert group["points"][1]["serial_fraction"] < 0
    assert group["predictions"] == []


def test_intervals_hold_the_value_and_grow_with_noise() -> None:
    def width(noise: float) -> float:
        (group,) = groups([sample(8, 10.0, noise=noise), sample(16, 5.5, noise=noise)])
        low, high = group["points"][1]["efficiency_interval"]
        assert low <= group["points"][1]["efficiency"] <= high
        return float(high - low)

    assert width(0.0) < 1e-12
    assert 0 < width(0.1) < width(1.0)


@pytest.mark.parametrize("kind", ["strong", "weak"])
def test_ideal_scaling_has_no_serial_fraction(kind: str) -> None:
    assert serial_fraction(kind, 4, 4) == pytest.approx(0)


def test_the_fit_minimises_the_relative_error() -> None:
    p, times = np.array([1.0, 2, 4, 8]), np.array([[10.0], [5.6], [3.1], [2.0]])
    basis = np.stack([1 / times[:, 0], (1 / p) / times[:, 0]], axis=1)
    expected = np.linalg.lstsq(basis, np.ones(4), rcond=None)[0]
    assert fit("strong", p, times)[:, 0] == pytest.approx(expected)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 31])
def test_resampled_medians_are_those_of_drawn_resamples(n: int) -> None:
    """Mean, spread and quantiles against resamples that are drawn."""
    generator = np.random.default_rng(5)
    values = generator.lognormal(size=n)
    drawn = np.median(generator.choice(values, size=(40_000, n)), axis=1)
    made = bootstrap.medians(values, generator, 40_000)
    scale = values.std() or 1.0

    def shape(samples: Any) -> list[float]:
        return [samples.mean(), samples.std(), *np.quantile(samples, [0.1, 0.5, 0.9])]

    assert shape(made) == pytest.approx(shape(drawn), abs=0.05 * scale)
