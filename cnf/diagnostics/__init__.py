"""Diagnostics: measured claims about a flow.

    check, check_table      measure all claims about a flow, or about the model of a table
    CheckResult             one claim: the number found, its limit, whether it holds
    CHECKS, Check           the registry of checks
    CheckContext            what a check is given
    compare, Comparison     how far a synthetic table is from a real one

A check of correctness fails only by an error in the code. A check of fit judges the size of an
effect, with a margin for chance, and not a p-value, by which every large table would fail.
"""

from __future__ import annotations

from typing import Any

from cnf.deprecation import renamed
from cnf.diagnostics.checking import CHECKS, Check, check
from cnf.diagnostics.comparison import Comparison, compare
from cnf.diagnostics.context import CheckContext
from cnf.diagnostics.result import CheckResult
from cnf.diagnostics.tables import check_table

__all__ = [
    "CHECKS",
    "Check",
    "CheckContext",
    "CheckResult",
    "Comparison",
    "check",
    "check_table",
    "compare",
]


def __getattr__(name: str) -> Any:
    found = renamed(__name__, name)
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found
