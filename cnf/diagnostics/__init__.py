"""Diagnostics: every claim that a flow makes, measured.

check          the claims of a flow on rows it was not fitted to, what `cnf check` prints
check_table    the same for the model of a typed table
CheckResult          one of them: what is claimed, the number found, its limit, the verdict

Lines about correctness fail on any breach. Lines about fit judge the size of an effect, with room
for what chance does to so many rows, and no p-value that every large table would fail.
"""

from __future__ import annotations

from typing import Any

from cnf.deprecation import renamed
from cnf.diagnostics.checking import check
from cnf.diagnostics.result import CheckResult
from cnf.diagnostics.tables import check_table

__all__ = ["CheckResult", "check", "check_table"]


def __getattr__(name: str) -> Any:
    found = renamed(__name__, name)
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found
