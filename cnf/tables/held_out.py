"""Rows of a table on which a model was not trained."""

from __future__ import annotations

import numpy as np
import pandas as pd
from torch import Tensor

from cnf.rows import Rows, held_out_split
from cnf.tables.digest import judges_of
from cnf.tables.forms import plain
from cnf.tables.metadata import quantiles
from cnf.tables.model import TableFlow


def held_out_rows(
    model: TableFlow, table: pd.DataFrame, present: Tensor | None = None
) -> tuple[Rows, Rows | None]:
    """The held-out rows of a table that hold numbers in the given numeric columns, with the flow's context,
    and the training rows.

    If the table is the one of the fit, the first result contains only its validation rows, and the
    second one its training rows. Otherwise the first contains all rows, and the second is None. The
    table of the fit is recognized by its digest. For a plain model, it is recognized by its number of
    rows and the quantiles of its columns, which find every held-out row.

    Args:
        model: the model.
        table: the table.
        present: mask of the numeric columns (numeric,); None means all.

    Raises:
        TableError: for a table that does not match the model.
    """
    if not model.plain:
        judges = judges_of(model, table)
        rows = model.numeric_rows(table.iloc[judges.places], present)
        rest = np.setdiff1d(np.arange(len(table)), judges.places)
        return rows, model.numeric_rows(table.iloc[rest], present) if judges.apart else None
    rows, known = model.numeric_rows(table), model.metadata
    if known.quantiles is None or known.seed is None or known.refit:
        return rows, None
    if len(rows) != (known.rows or 0) + (known.valid_rows or 0):
        return rows, None
    train, valid = held_out_split(rows, known.seed)
    found = quantiles(model.numeric_columns, train.x, train.x.isfinite())
    return (valid, train) if plain(found) == known.quantiles else (rows, None)
