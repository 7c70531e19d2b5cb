"""`cnf check`: every claim that a model makes, tested on rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnf.cli.bar import bar
from cnf.cli.model import Model, load_model
from cnf.cli.output import say, say_json
from cnf.diagnostics import CheckResult, check_table
from cnf.tables.digest import judges_of

VERDICTS = {True: "ok", False: "FAIL", None: "?"}
SIGNS = {"at most": "≤", "at least": "≥"}


def check_model(
    path: Path, data: str, *, strict: bool, seed: int, device: str, as_json: bool
) -> bool:
    """Say of every claim whether it holds on the rows of DATA, and return whether none of them
    fails.

    Raises:
        ValueError: for a model, table or device that cannot be used.
    """
    model = load_model(path, device)
    with bar("checking") as callback:
        claims, words = _claims(model, data, strict=strict, seed=seed, callback=callback)
    passed = not any(claim.passed is False for claim in claims)
    if as_json:
        found = [claim.as_dict() for claim in claims]
        say_json(
            {
                "model": str(path),
                "data": data,
                "rows": words,
                "strict": strict,
                "passed": passed,
                "claims": found,
            }
        )
    else:
        beside = f" ({words})" if words else ""
        say(*lines_of(claims, f"{path} on {data}{beside}"))
    return passed


def _claims(model: Model, data: str, **options: Any) -> tuple[tuple[CheckResult, ...], str]:
    """The claims on rows of a table that the model did not learn from, and what is to be said of
    these rows."""
    try:
        table = model.table(data)
        judges = judges_of(model.table_flow, table)
        found = check_table(model.table_flow, table.iloc[judges.places], **options)
        return found, judges.words
    except ValueError as error:
        raise ValueError(f"{data}: {error}") from error


def lines_of(claims: Sequence[CheckResult], title: str) -> list[str]:
    """The claims as a table, and how many of them hold.

    >>> heavy = CheckResult.at_most("mass", "it integrates to one", 0.5, 0.01)
    >>> print(*lines_of([heavy], "m on t"), sep="\\n")
      FAIL  mass  0.5 ≤ 0.01  it integrates to one
    m on t: 0 of 1 claims hold
    >>> coarse = CheckResult.at_most("mass", "it integrates to one", 0.1, 0.2).undecided()
    >>> print(*lines_of([coarse], "m on t"), sep="\\n")
      ?  mass  0.1 ≤ 0.2  it integrates to one
    m on t: 0 of 1 claims hold, 1 not decided
    """
    rows = [_row(claim) for claim in claims]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        "  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows
    ]
    verdicts = [claim.passed for claim in claims]
    open_ones = f", {verdicts.count(None)} not decided" if None in verdicts else ""
    return [*lines, f"{title}: {verdicts.count(True)} of {len(claims)} claims hold{open_ones}"]


def _row(claim: CheckResult) -> tuple[str, str, str, str]:
    """ValidationResult, name, numbers and words."""
    numbers = f"{claim.value:.3g} {SIGNS[claim.sense]} {claim.limit:.3g} {claim.unit}".rstrip()
    words = f"{claim.claim} ({claim.detail})" if claim.detail else claim.claim
    return VERDICTS[claim.passed], claim.name, numbers, words
