"""Tables as parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from cnf.tables.dataframes import from_arrow
from cnf.tables.formats import (
    Append,
    Kept,
    ReadOptions,
    TableError,
    damage_reported,
    row_labels,
    shown,
)
from cnf.tables.storage import as_float64


def read_parquet(path: Path, options: ReadOptions) -> Iterator[pd.DataFrame]:
    """The selected columns, labeled by row. Columns that are not kept must be real, integer, decimal or
    boolean, and become numbers."""
    damage = pa.ArrowException, OSError, UnicodeDecodeError
    with damage_reported(path, "parquet", *damage), parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        chosen = options.choose(stored_names(schema))
        for name in chosen:
            if name not in options.kept:
                _check_type(schema.field(name), path)
        start = 0
        for batch in file.iter_batches(options.chunk_rows, columns=chosen):
            yield _frame(batch, chosen, options.kept, start)
            start += batch.num_rows
        if not start:
            yield _frame(schema.empty_table(), chosen, options.kept, 0)


def stored_names(schema: pa.Schema) -> list[str]:
    """The names of the columns, without those in which pandas stores the index of a frame."""
    return [name for name in schema.names if not name.startswith("__index_level_")]


def _frame(
    batch: pa.RecordBatch | pa.Table, chosen: list[str], kept: Kept, start: int
) -> pd.DataFrame:
    cells = {
        name: from_arrow(batch.column(name)) if name in kept else _numbers(batch.column(name))
        for name in chosen
    }
    return pd.DataFrame(cells, columns=chosen).set_index(row_labels(start, batch.num_rows))


def _check_type(field: pa.Field, path: Path) -> None:
    kinds = (
        pa.types.is_floating,
        pa.types.is_integer,
        pa.types.is_decimal,
        pa.types.is_boolean,
        pa.types.is_null,
    )
    if not any(is_kind(field.type) for is_kind in kinds):
        raise TableError(
            f"{path}: column {shown(field.name)}: expected numbers, found the type {shown(str(field.type))}; "
            "convert or ignore the column"
        )


def _numbers(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    values = column.to_numpy(zero_copy_only=False)
    return as_float64(values) if values.dtype != object else values.astype(np.float64)


@contextmanager
def write_parquet(path: Path) -> Iterator[Append]:
    """Append frames as row groups; the first one determines the types."""
    with ExitStack() as stack:
        writers: list[parquet.ParquetWriter] = []

        def append(frame: pd.DataFrame) -> None:
            schema = writers[0].schema if writers else None
            table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
            if not writers:
                writers.append(stack.enter_context(parquet.ParquetWriter(path, table.schema)))
            writers[0].write_table(table)

        yield append
