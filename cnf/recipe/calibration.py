"""Calibration of a fitted flow within a time limit."""

from __future__ import annotations

from cnf.flows import CNF
from cnf.flows.calibration import CALIBRATION_ROWS, USUAL_SOLVES, pilot_solve
from cnf.recipe.affordable import affordable_rows
from cnf.recipe.defaults import FEWEST_CALIBRATION_ROWS
from cnf.rows import Rows, evenly_spaced
from cnf.training.config import Clock


def calibrate(
    flow: CNF, rows: Rows, tolerance: float, *, seconds: float | None, clock: Clock
) -> None:
    """Calibrate a flow on as many rows as time allows; without a limit, on the rows that
    `CNF.calibrate` chooses."""
    if seconds is not None:
        some = rows.take(evenly_spaced(rows.x, CALIBRATION_ROWS))
        solve = pilot_solve(flow.bind(some.context), some.x)
        count = affordable_rows(
            len(some), seconds / USUAL_SOLVES, solve, fewest=FEWEST_CALIBRATION_ROWS, clock=clock
        )
        rows = rows.take(evenly_spaced(rows.x, count))
    flow.calibrate(rows.x, tolerance, context=rows.context)
