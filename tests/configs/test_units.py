"""Numbers as they are shown: three significant digits, in a unit that fits."""

from __future__ import annotations

import math

import pytest

from frontrunner.configs import units


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0, "0.00"),
        (1.0, "1.00"),
        (0.999, "0.999"),
        (0.9996, "1.00"),
        (9.996, "10.0"),
        (99.96, "100"),
        (123.4, "123"),
        (12345.0, "12,300"),
        (999_600.0, "1,000,000"),
        (-0.01234, "-0.0123"),
        (0.00001234, "1.23e-05"),
        (None, "-"),
        (math.nan, "-"),
        (math.inf, "-"),
    ],
)
def test_three_significant_digits(value: float | None, written: str) -> None:
    assert units.digits(value) == written


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (units.bytes_text(0), "0 B"),
        (units.bytes_text(1023), "1,023 B"),
        (units.bytes_text(1024), "1.00 KiB"),
        (units.bytes_text(1536), "1.50 KiB"),
        (units.bytes_text(64 * 2**30), "64.0 GiB"),
        (units.bytes_text(5 * 2**60), "5,120 PiB"),
        (units.flops_text(999), "999 FLOP/s"),
        (units.flops_text(1.5e3), "1.50 kFLOP/s"),
        (units.flops_text(95.75e12), "95.8 TFLOP/s"),
        (units.flops_text(999.6e9), "1.00 TFLOP/s"),
        (units.flops_text(1.5e15), "1.50 PFLOP/s"),
        (units.seconds_text(0.0123), "12.3 ms"),
        (units.seconds_text(0.9996), "1.00 s"),
        (units.seconds_text(12.3e-6), "12.3 µs"),
        (units.seconds_text(61.5), "61.5 s"),
        (units.seconds_text(3723.0), "3,720 s"),
        (units.share_text(0.2634), "26.3 %"),
        (units.share_text(0.00521), "0.521 %"),
        (units.share_text(1.0), "100 %"),
        (units.share_text(None), "-"),
        (units.change_text(-1.456), "-1.46 %"),
        (units.change_text(128.94), "+129 %"),
        (units.count_text(12345), "12,345"),
        (units.quantity(104.2, "tokens"), "104 tokens/s"),
        (units.model_flops_text(2e12, 0.25), "2.00 TFLOP/s (MFU 25.0 %)"),
        (units.levels_text({"package": 1.5 * 2**20, "node": 0.0}), "package 1.50 MiB, node 0 B"),
    ],
)
def test_quantities(text: str, expected: str) -> None:
    assert text == expected


def test_the_unit_of_an_axis_fits_its_largest_value() -> None:
    assert units.unit_of("bytes", 8 * 2**30) == ("GiB", 2.0**30)
    assert units.unit_of("flops", 2.5e9) == ("GFLOP/s", 1e9)
    assert units.unit_of("seconds", 0.25) == ("ms", 1e-3)
    assert units.unit_of("seconds", 0.0) == ("s", 1.0)
    assert units.unit_of("bytes", None) == ("B", 1.0)
