"""Data frames of other libraries as those of pandas, and back."""

from __future__ import annotations

from typing import Any

import narwhals
import pandas as pd
import pyarrow as pa


def as_pandas(table: Any) -> pd.DataFrame | None:
    """A pandas, polars or pyarrow table as a pandas data frame; None for what is no table.

    >>> as_pandas([[1.0, 2.0]]) is None
    True
    """
    if isinstance(table, pd.DataFrame):
        return table
    frame = narwhals.from_native(table, eager_only=True, pass_through=True)
    return frame.to_pandas() if isinstance(frame, narwhals.DataFrame) else None


def library_of(table: Any) -> str:
    """The name of the library that a table is of."""
    return narwhals.from_native(table, eager_only=True).implementation.value


def as_native(frame: pd.DataFrame, library: str) -> Any:
    """A pandas data frame as a table of the library so named."""
    if library == "pandas":
        return frame
    arrow = pa.Table.from_pandas(frame, preserve_index=False)
    backend: Any = library
    return narwhals.from_arrow(arrow, backend=backend).to_native()
