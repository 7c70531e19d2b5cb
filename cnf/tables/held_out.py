"""Rows of a table that a model was not fitted to."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cnf.rows import Rows, held_out_split
from cnf.tables.digest import judges_of
from cnf.tables.forms import plain
from cnf.tables.metadata import quantiles
from cnf.tables.model import TableFlow


def held_out_rows(model: TableFlow, table: pd.DataFrame) -> tuple[Rows, Rows | None]:
    """The rows of a table with all numbers, with the flow's context, and the rows of the fit.

    Where the table is the one that the model was fitted to, only the rows that validated the fit
    come first, and then those that it learned from; else all rows, and None. The training table is
    recognized by its digest; for a plain model by its number of rows and the quantiles of its
    columns, so that every row set apart is found.

    Raises:
        TableError: for a table that does not fit the model.
    """
    if not model.plain:
        judges = judges_of(model, table)
        rows = model.numeric_rows(table.iloc[judges.places])
        rest = np.setdiff1d(np.arange(len(table)), judges.places)
        return rows, model.numeric_rows(table.iloc[rest]) if judges.apart else None
    rows, known = model.numeric_rows(table), model.metadata
    if known.quantiles is None or known.seed is None or known.refit:
        return rows, None
    if len(rows) != (known.rows or 0) + (known.valid_rows or 0):
        return rows, None
    train, valid = held_out_split(rows, known.seed)
    found = quantiles(model.numeric_columns, train.x, train.x.isfinite())
    return (valid, train) if plain(found) == known.quantiles else (rows, None)
