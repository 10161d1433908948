"""Cells that a spreadsheet must not take for formulas: written with an apostrophe before them, read without it."""

from __future__ import annotations

import re

# What begins a formula in one spreadsheet or another, and what begins one that was made safe before.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")


def safe(value: str) -> str:
    """The value as a cell that every spreadsheet shows as words. `bare` takes it back, exactly."""
    return "'" + value if _FORMULA.match(value) else value


def bare(value: str) -> str:
    """The value of a cell that `safe` wrote, or that anybody else did: only an apostrophe before a formula goes."""
    return value[1:] if value[:1] == "'" and _FORMULA.match(value) else value
