"""Rows of a typed table as numbers, for pictures of all its columns."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cnf.pictures.context import TableRows
from cnf.tables import Column, Schema


def table_rows(schema: Schema, data: pd.DataFrame | None, samples: pd.DataFrame) -> TableRows:
    """Rows of the modeled columns as numbers; see `TableRows`.

    Example:
        >>> table = pd.DataFrame({"x": np.arange(40.0), "group": list("ab") * 20})
        >>> table_rows(Schema.infer(table), None, table).samples[:2].tolist()
        [[0.0, 0.0], [1.0, 1.0]]
    """
    columns = schema.modeled
    return TableRows(
        [column.name for column in columns],
        [[str(level) for level in column.levels] if column.levels else None for column in columns],
        None if data is None else _numbers(data, columns),
        _numbers(samples, columns),
    )


def _numbers(table: pd.DataFrame, columns: tuple[Column, ...]) -> np.ndarray:
    return np.column_stack([column.numbers(table[column.name]) for column in columns])
