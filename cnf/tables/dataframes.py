"""Conversion of data frames of other libraries to pandas and back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypeAlias

import narwhals
import pandas as pd
import pyarrow as pa

from cnf.inputs import brief
from cnf.tables.formats import TableError

Given: TypeAlias = "pd.DataFrame | pd.Series | Mapping[str, Any] | list[Mapping[str, Any]]"


def as_pandas(table: Any) -> pd.DataFrame | None:
    """A pandas, polars or pyarrow table as a pandas data frame; None for anything else.

    >>> as_pandas([[1.0, 2.0]]) is None
    True
    """
    if isinstance(table, pd.DataFrame):
        return table
    frame = narwhals.from_native(table, eager_only=True, pass_through=True)
    if not isinstance(frame, narwhals.DataFrame):
        return None
    arrow = frame.to_arrow()
    return pd.DataFrame({name: from_arrow(arrow.column(name)) for name in arrow.column_names})


def rows_of(given: Any, name: str = "given") -> pd.DataFrame:
    """Rows as a data frame, from a data frame, a mapping of names to values or lists, a Series of one row,
    or a list of mappings.

    Raises:
        TableError: for anything else; `name` says which argument it is.

    >>> rows_of({"sex": "f"}).equals(rows_of([{"sex": "f"}]))
    True
    """
    if isinstance(given, pd.Series):
        given = given.to_dict()
    if isinstance(given, Mapping):
        lists = {name: pd.api.types.is_list_like(value) for name, value in given.items()}
        return pd.DataFrame({n: v if lists[n] else [v] for n, v in given.items()})
    if isinstance(given, list) and all(isinstance(row, Mapping) for row in given):
        return pd.DataFrame(given)
    frame = as_pandas(given)
    if frame is None:
        raise TableError(
            f"{name}: expected a data frame, a mapping of names to values, or a list of mappings; found"
            f" {brief(given) if isinstance(given, str) else type(given).__name__}: read a file by"
            " cnf.tables.read_typed_table, and name the columns of an array"
        )
    return frame


def path_or_rows(source: Any, name: str) -> Any:
    """A path unchanged, and anything else as converted by `rows_of`."""
    return source if isinstance(source, str | os.PathLike) else rows_of(source, name)


def from_arrow(column: pa.Array | pa.ChunkedArray) -> pd.Series:
    """An Arrow column as a pandas one; integers and booleans with missing cells keep their type.

    >>> from_arrow(pa.array([1, None])).dtype
    Int64Dtype()
    """
    mapper = NULLABLE_OF.get if column.null_count else None
    if pa.types.is_dictionary(column.type):  # pyarrow 14 converts signed indices alone
        kind = column.type
        column = column.cast(pa.dictionary(pa.int32(), kind.value_type, kind.ordered))
    return column.to_pandas(types_mapper=mapper)


NULLABLE_OF = {
    pa.bool_(): pd.BooleanDtype(),
    pa.int8(): pd.Int8Dtype(), pa.uint8(): pd.UInt8Dtype(),
    pa.int16(): pd.Int16Dtype(), pa.uint16(): pd.UInt16Dtype(),
    pa.int32(): pd.Int32Dtype(), pa.uint32(): pd.UInt32Dtype(),
    pa.int64(): pd.Int64Dtype(), pa.uint64(): pd.UInt64Dtype(),
}  # fmt: skip


def empty_like(table: Any) -> Any:
    """A table of the same library and types without rows."""
    return table[:0]


def as_native(frame: pd.DataFrame, like: Any) -> Any:
    """A pandas data frame as a table of the library and the types of another one."""
    if isinstance(like, pd.DataFrame):
        return frame
    arrow = pa.Table.from_pandas(frame, preserve_index=False)
    backend: Any = narwhals.from_native(like, eager_only=True).implementation.value
    native = narwhals.from_arrow(arrow, backend=backend).to_native()
    if backend == "polars":
        types = dict(like.schema)
        return native.cast({name: types[name] for name in native.columns}, strict=False)
    return native.cast(pa.schema([like.schema.field(name) for name in native.column_names]))
