"""Batches of rows from engines: dicts of arrays, data frames, Arrow tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import narwhals
import numpy as np
import pandas as pd
import pyarrow as pa

from cnf.tables.dataframes import as_pandas
from cnf.tables.formats import TableError


def as_frame(batch: Any) -> pd.DataFrame:
    """The rows of a batch as a pandas data frame.

    Raises:
        TableError: for anything other than a batch.

    >>> as_frame({"x": np.array([1.0, 2.0])})["x"].tolist()
    [1.0, 2.0]
    """
    if isinstance(batch, Mapping):
        return pd.DataFrame({name: _column(values) for name, values in batch.items()})
    frame = as_pandas(_table(batch))
    if frame is None:
        raise TableError(
            "batch: expected a dict of arrays, or a table of pandas, polars or pyarrow;"
            f" got {type(batch).__name__}"
        )
    return frame


def with_columns(batch: Any, new: pd.DataFrame) -> Any:
    """The batch with columns added or replaced by name; its type and its other columns are not
    changed.

    >>> with_columns({"x": np.ones(1)}, pd.DataFrame({"y": [2.0]}))
    {'x': array([1.]), 'y': array([2.])}
    """
    if isinstance(batch, Mapping):
        return {**batch, **{name: new[name].to_numpy() for name in new}}
    if isinstance(batch, pd.DataFrame):
        return batch.assign(**{name: new[name].set_axis(batch.index) for name in new})
    table = _table(batch)
    frame = narwhals.from_native(table, eager_only=True)
    arrow = pa.Table.from_pandas(new, preserve_index=False)
    added = narwhals.from_arrow(arrow, backend=frame.implementation)
    whole = frame.with_columns(*(added[name] for name in added.columns)).to_native()
    if not isinstance(batch, pa.RecordBatch):
        return whole
    (joined,) = whole.combine_chunks().to_batches() or [
        pa.RecordBatch.from_pylist([], whole.schema)
    ]
    return joined


def _table(batch: Any) -> Any:
    return pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch


def _column(values: Any) -> Any:
    """Numbers as they are; of text in an array of fixed width, the text."""
    values = np.asarray(values)
    return values.astype(object) if values.dtype.kind in "US" else values
