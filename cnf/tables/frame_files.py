"""Table files of other programs, which store the types of columns: Arrow, Stata, JSON and Excel."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import ipc

from cnf.tables.compression import open_bytes
from cnf.tables.dataframes import from_arrow
from cnf.tables.formats import (
    ReadOptions,
    TableError,
    damage_reported,
    row_labels,
    shown,
)
from cnf.tables.storage import as_float64, plain_cells
from cnf.tables.text import LONGEST_LINE

# Limit of the unpacked size: a workbook is a zip archive, and a few megabytes may hold gigabytes.
MOST_UNPACKED = 2**30


def read_arrow(path: Path, options: ReadOptions) -> Iterator[pd.DataFrame]:
    """The selected columns of an Arrow or Feather file, labeled by row, one batch at a time."""
    with damage_reported(path, "Arrow", pa.ArrowException, OSError), pa.OSFile(str(path)) as file:
        reader = ipc.open_file(file)
        batches = map(reader.get_batch, range(reader.num_record_batches))
        parts = (_of_arrow(batch) for batch in batches)
        yield from _chosen(parts, _of_arrow(reader.schema.empty_table()), path, options)


def _of_arrow(batch: pa.RecordBatch | pa.Table) -> pd.DataFrame:
    return pd.DataFrame({name: from_arrow(batch.column(name)) for name in batch.schema.names})


def _stata(path: Path) -> pd.DataFrame:
    try:
        return pd.read_stata(path)
    except ValueError as error:  # for two codes of a column with the same label
        if "not unique" not in str(error):
            raise
        return pd.read_stata(path, convert_categoricals=False)


def _json(path: Path) -> pd.DataFrame:
    with open_bytes(path) as file:
        return _of_records(json.load(file))


def _json_lines(path: Path) -> pd.DataFrame:
    with open_bytes(path) as file:
        lines = iter(lambda: file.readline(LONGEST_LINE), b"")
        return _of_records([json.loads(line) for line in lines if line.strip()])


def _of_records(found: Any) -> pd.DataFrame:
    """A list of objects, or an object of columns, as a table; nested objects become columns
    "outer.inner"."""
    if isinstance(found, dict):
        columns = {name: _listed(cells) for name, cells in found.items()}
    elif isinstance(found, list) and all(isinstance(row, dict) for row in found):
        rows = [dict(_flat(row)) for row in found]
        names = dict.fromkeys(name for row in rows for name in row)
        columns = {name: [row.get(name) for row in rows] for name in names}
    else:
        raise ValueError("expected a list of objects, or an object of columns")
    if len(set(map(len, columns.values()))) > 1:
        raise ValueError("expected columns of one length")
    return pd.DataFrame({name: _column(cells) for name, cells in columns.items()})


def _listed(cells: Any) -> list[Any]:
    """The cells of a column, from a list or from pandas' form, an object from row to cell."""
    if not isinstance(cells, list | dict):
        raise ValueError("expected a list of objects, or an object of columns")
    return list(cells.values()) if isinstance(cells, dict) else cells


def _flat(row: dict[str, Any], outer: str = "") -> Iterator[tuple[str, Any]]:
    for name, cell in row.items():
        if isinstance(cell, dict):
            yield from _flat(cell, f"{outer}{name}.")
        else:
            yield outer + name, cell


def _column(cells: list[Any]) -> pd.Series:
    """Cells of one type as a typed column; integers and booleans may have missing cells."""
    try:
        return from_arrow(pa.array(cells))
    except (pa.ArrowException, OverflowError, UnicodeError):  # cells of several types
        return pd.Series(cells, dtype=object)


def _excel(path: Path) -> pd.DataFrame:
    with zipfile.ZipFile(path) as archive:
        size = sum(part.file_size for part in archive.infolist())
    if size > MOST_UNPACKED:
        raise ValueError(f"expected at most {MOST_UNPACKED:,} bytes unpacked, found {size:,}")
    try:
        return pd.read_excel(path, engine="openpyxl")
    except ImportError as error:
        raise TableError(
            f"{path}: reading Excel files needs openpyxl; run pip install 'cnf[excel]', or write"
            " the table as csv"
        ) from error


def _whole(
    load: Callable[[Path], pd.DataFrame], kind: str
) -> Callable[[Path, ReadOptions], Iterator[pd.DataFrame]]:
    """A reader of a format whose files are read as a whole."""

    def read(path: Path, options: ReadOptions) -> Iterator[pd.DataFrame]:
        # The parsers raise many kinds of errors for a damaged file.
        with damage_reported(path, kind, Exception):
            table = load(path)
        table.columns = table.columns.map(str)
        starts = range(0, len(table), options.chunk_rows)
        parts = (table[start : start + options.chunk_rows] for start in starts)
        yield from _chosen(parts, table[:0], path, options)

    return read


read_stata = _whole(_stata, "Stata")
read_json = _whole(_json, "JSON of rows or columns")
read_json_lines = _whole(_json_lines, "JSON, an object a line")
read_excel = _whole(_excel, "an Excel workbook")


def _chosen(
    parts: Iterator[pd.DataFrame], empty: pd.DataFrame, path: Path, options: ReadOptions
) -> Iterator[pd.DataFrame]:
    """The selected columns of the parts of a table, labeled by row. Cells are converted to numbers except
    in kept columns. A table without rows gives one empty part."""
    names = options.choose(list(empty))
    start = 0
    for part in parts:
        yield _labeled(part, names, path, options, start)
        start += len(part)
    if not start:
        yield _labeled(empty, names, path, options, 0)


def _labeled(
    part: pd.DataFrame, names: list[str], path: Path, options: ReadOptions, start: int
) -> pd.DataFrame:
    labels = row_labels(start, len(part))
    cells = {
        name: part[name].set_axis(labels)
        if name in options.kept or (options.judged and not _is_number(part[name]))
        else _numbers(part[name], path)
        for name in names
    }
    return pd.DataFrame(cells, columns=names, index=labels)


def _is_number(cells: pd.Series) -> bool:
    return not len(cells) or pd.api.types.is_numeric_dtype(plain_cells(cells))


def _numbers(cells: pd.Series, path: Path) -> np.ndarray:
    plain = plain_cells(cells)
    if not _is_number(cells):
        raise TableError(
            f"{path}: column {shown(str(cells.name))}: expected numbers, found the type"
            f" {shown(str(cells.dtype))}; convert or ignore the column"
        )
    return as_float64(plain.to_numpy(dtype=np.float64, na_value=np.nan))
