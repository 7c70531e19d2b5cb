"""Rows of a typed table as numbers, for pictures of all its columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from cnf.pictures.context import ROWS, TableRows, seeded
from cnf.rows import evenly_spaced
from cnf.tables import Column, Schema, TableFlow
from cnf.tables.spaces import pairs_of


def table_rows(schema: Schema, data: pd.DataFrame | None, samples: pd.DataFrame) -> TableRows:
    """Rows of the modeled columns as numbers; see `TableRows`.

    Example:
        >>> table = pd.DataFrame({"x": np.arange(40.0) ** 1.5, "group": list("ab") * 20})
        >>> table_rows(Schema.infer(table), None, table).samples[:2].tolist()
        [[0.0, 0.0], [1.0, 1.0]]
    """
    columns = schema.modeled
    circles = {place: column.type.circle(column) for place, column in enumerate(columns)}
    spheres = pairs_of(columns)
    turns = {
        place: (circle.start, circle.start + circle.period)
        for place, circle in circles.items()
        if circle is not None and place not in dict(spheres)
    }
    formats = {
        place: schema.spelling(column.name)
        for place, column in enumerate(columns)
        if column.type.ticks_as_cells
    }
    return TableRows(
        [column.name for column in columns],
        [[str(level) for level in column.levels] if column.levels else None for column in columns],
        None if data is None else _numbers(data, columns),
        _numbers(samples, columns),
        turns,
        spheres,
        formats,
    )


def some_rows(schema: Schema, table: pd.DataFrame) -> pd.DataFrame:
    """Evenly spaced rows, as many as a plot can show, with the types of the model."""
    table = table.iloc[evenly_spaced(torch.empty(len(table)), ROWS).numpy()]
    columns = (*schema.modeled, *schema.context)
    return schema.decode(schema.encode(table, columns), columns)


def beside_samples(model: TableFlow, table: pd.DataFrame) -> TableRows:
    """Some rows of a table, and as many samples given their context."""
    rows = some_rows(model.schema, table)
    context = [column.name for column in model.schema.context]
    given = rows[context] if context else None
    return table_rows(model.schema, rows, model.sample(len(rows), given, generator=seeded()))


def _numbers(table: pd.DataFrame, columns: tuple[Column, ...]) -> np.ndarray:
    return np.column_stack([column.numbers(table[column.name]) for column in columns])
