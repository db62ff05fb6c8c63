"""Cells of CSV files that spreadsheets only show."""

from __future__ import annotations

#: Leading characters that make a spreadsheet read a cell as a formula; some accept the wide ones too.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def cell(value: object) -> object:
    """Quote text that a spreadsheet would run as a formula; pass the rest through."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
