"""The context of rows to be drawn, in the forms that a user may give it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from torch import Tensor

from cnf.inputs import as_count
from cnf.tables.dataframes import Given, rows_of
from cnf.tables.formats import TableError, listed, shown
from cnf.tables.given import require_names, require_not_set_aside, require_on_grid
from cnf.tables.schema import Schema


def gives_modeled(schema: Schema, given: Given | None) -> bool:
    """Whether the given values include a modeled column."""
    if given is None:
        return False
    names = given if isinstance(given, Mapping) else rows_of(given)
    return any(column.name in names for column in schema.modeled)


def given_by_row(schema: Schema, given: Given | None, rows: int) -> pd.DataFrame | None:
    """The given values of each row; None if they are the same for all rows."""
    if given is None or (isinstance(given, Mapping) and gives_modeled(schema, given)):
        return None
    frame = rows_of(given)
    return frame if len(frame) == rows > 1 else None


def context_frame(schema: Schema, given: Given | None, rows: int) -> pd.DataFrame:
    """The context columns of a number of rows, with one row for all or one for each.

    Raises:
        TableError: for a context that is missing or not expected, or has another number of rows.
        TypeError: for an invalid number of rows.
    """
    as_count("rows", rows, 0)
    names = [column.name for column in schema.context]
    if isinstance(given, Mapping):
        _require_sensible(schema, given)
    if given is not None and not names:
        require_names(schema, map(str, rows_of(given)), [c.name for c in schema.modeled])
        raise TableError("given: expected none: the model has no context columns")
    table = pd.DataFrame(index=range(rows)) if given is None else rows_of(given)
    table = table.drop(columns=[*schema.set_aside], errors="ignore")
    if unknown := [name for name in table if name not in names]:
        raise TableError(
            f"given: {shown(str(unknown[0]))} is not a context column; choose from {listed(names)}"
        )
    if len(table) == 1:
        table = table.loc[table.index.repeat(rows)]
    if missing := [name for name in names if name not in table]:
        raise TableError(
            f"given: expected a value for the context column {missing[0]!r}; found none"
        )
    if len(table) != rows:
        raise TableError(f"given: expected 1 or {rows} rows of context; found {len(table)}")
    return table


def _require_sensible(schema: Schema, given: Mapping[str, Any]) -> None:
    """Raise an error for a column that was set aside, or an invalid value for its column."""
    for name in given:
        require_not_set_aside(schema, name)
    values = {name: part for name, part in given.items() if not pd.api.types.is_list_like(part)}
    require_on_grid([column for column in schema.context if column.name in values], values)


def complete(context: Tensor) -> Tensor:
    """A context (rows, width) without missing values.

    Raises:
        TableError: for a row with a missing value.
    """
    if len(lost := (~context.isfinite().all(1)).nonzero()):
        raise TableError(
            f"context of row {lost[0].item()}: a cell is missing in a column that had none in training;"
            " fill it in"
        )
    return context
