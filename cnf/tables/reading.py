"""Reading tables, whole or in chunks of bounded memory."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from cnf.tables.arrays import read_npy, read_npz
from cnf.tables.compression import bare_name, compressed
from cnf.tables.files import SameColumns, files_of, is_folder
from cnf.tables.formats import (
    ReadOptions,
    TableError,
    by_extension,
    choose_columns,
    shown,
)
from cnf.tables.frame_files import (
    read_arrow,
    read_excel,
    read_json,
    read_json_lines,
    read_stata,
)
from cnf.tables.parquet import read_parquet
from cnf.tables.schema import Schema
from cnf.tables.storage import as_text
from cnf.tables.text import MISSING, SPACED, dialect_of, read_csv, typed

CHUNK_ROWS = 65536
TEXT = (".csv", ".tsv", *SPACED)
READERS: dict[str, Callable[[Path, ReadOptions], Iterator[pd.DataFrame]]] = {
    **dict.fromkeys(compressed(*TEXT), read_csv),
    ".parquet": read_parquet,
    **dict.fromkeys((".arrow", ".feather"), read_arrow),
    **dict.fromkeys(compressed(".jsonl", ".ndjson"), read_json_lines),
    **dict.fromkeys(compressed(".json"), read_json),
    ".dta": read_stata,
    ".xlsx": read_excel,
    ".npy": read_npy,
    ".npz": read_npz,
}


def read_table(
    path: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    ignore: Collection[str] = (),
    rows_needed: int = 1,
    nonfinite: Literal["reject", "keep"] = "reject",
    array: str | None = None,
) -> pd.DataFrame:
    """The columns of a file of any format of `READERS` as float64, rows numbered from 0.

    `columns` chooses columns and their order (default: all, in the order of the file), and
    `ignore` leaves columns out; other columns may hold anything. `nonfinite="keep"` keeps
    infinities, and missing cells as NaN. In csv a missing cell is empty or NA, NaN, null or none;
    true and false are 1 and 0. `array` names one of several arrays of an npz file.

    Raises:
        TableError: for an invalid file, column or cell, or fewer rows than `rows_needed`.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "people.csv")
    >>> _ = path.write_text("name,age,height\\nAda,36,1.65\\nEmmy,53,1.6\\n")
    >>> read_table(path, ignore=["name"]).to_numpy().tolist()
    [[36.0, 1.65], [53.0, 1.6]]
    >>> read_table(path, columns=["size", "age"])
    Traceback (most recent call last):
    ...
    cnf.tables.formats.TableError: ...people.csv: no column 'size'; the columns are 'name', 'age', 'height'
    >>> folder.cleanup()
    """
    chunks = list(
        read_chunks(path, columns=columns, ignore=ignore, nonfinite=nonfinite, array=array)
    )
    table = pd.concat(chunks, ignore_index=True)
    _require_rows(table, rows_needed, path)
    return table


def _require_rows(table: pd.DataFrame, rows_needed: int, path: str | os.PathLike[str]) -> None:
    if len(table) < rows_needed:
        raise TableError(
            f"{path}: expected {rows_needed} or more rows, found {len(table)}; add rows"
        )


def read_chunks(
    path: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    ignore: Collection[str] = (),
    chunk_rows: int = CHUNK_ROWS,
    nonfinite: Literal["reject", "keep"] = "reject",
    array: str | None = None,
) -> Iterator[pd.DataFrame]:
    """The same rows as `read_table`, at most `chunk_rows` at a time; one empty chunk if there are
    no rows."""
    path = Path(path)
    reader = by_extension(path, READERS)
    _check_file(path)
    choose = functools.partial(choose_columns, path=path, columns=columns, ignore=ignore)
    start = 0
    for chunk in reader(path, ReadOptions(choose, chunk_rows, array=array)):
        if nonfinite == "reject":
            _require_finite(chunk, path)
        yield chunk.set_index(pd.RangeIndex(start, start + len(chunk)))
        start += len(chunk)


def read_typed_table(
    path: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    ignore: Collection[str] = (),
    texts: Collection[str] = (),
    missing: Collection[str] | None = None,
    array: str | None = None,
    rows_needed: int = 1,
) -> pd.DataFrame:
    """The columns of a file as numbers, booleans or text, with rows labeled by line or row. A folder or a
    pattern gives the rows of all its files, which must have one format.

    In csv a column is numeric if its cells are numbers in the format of Python, unless it is one of
    `texts`. A cell is missing if it is empty or NA, NaN or null; `missing` replaces these words. Other
    words among numbers are left to `Schema.infer`.

    Raises:
        TableError: for an invalid file or column, or fewer rows than `rows_needed`.
    """
    chosen = SameColumns(columns, ignore)
    files = table_files(path)
    table = pd.concat(read_frames(files, chosen, kept=EVERY, missing=missing, array=array))
    _require_rows(table, rows_needed, path)
    return as_typed(table, texts) if is_text_file(files[0]) else table


def as_typed(table: pd.DataFrame, texts: Collection[str] = ()) -> pd.DataFrame:
    """A table of text with its cells parsed; the columns `texts` stay text."""
    return pd.DataFrame(
        {name: as_text(cells) if name in texts else typed(cells) for name, cells in table.items()}
    )


def read_typed_chunks(
    path: str | os.PathLike[str],
    schema: Schema,
    *,
    array: str | None = None,
    judged: bool = False,
) -> Iterator[pd.DataFrame]:
    """The columns of a schema in chunks of bounded memory, rows labeled by line or row. Text among numbers
    is an error, unless it is `judged` by the schema afterwards; then it is kept."""
    columns = [*schema.modeled, *schema.context]
    chosen = SameColumns([column.name for column in columns], (), needed=True)
    kept = {column.name for column in columns if column.type.reads_cells(column)}
    # A word that is a level of a column does not mark a missing cell.
    levels = {str(level).lower() for column in columns for level in column.levels}
    missing = [word for word in MISSING if word not in levels]
    options = {"kept": kept, "missing": missing, "array": array, "judged": judged}
    yield from read_frames(table_files(path), chosen, **options)


def file_lines(path: str | os.PathLike[str]) -> list[str]:
    """The unusual features of the format of a file, or of the first of several, as text."""
    first = table_files(path)[0]
    return dialect_of(first).lines() if is_text_file(first) else []


def table_files(data: str | os.PathLike[str]) -> list[Path]:
    """The file, or the files of a folder or a pattern.

    Raises:
        TableError: if there is no file, or files have several formats.
    """
    if not is_folder(data):
        return [Path(data)]
    files = files_of(data, READERS)[1]
    first = by_extension(files[0], READERS)
    for path in files:
        if by_extension(path, READERS) is not first:
            raise TableError(
                f"{path}: expected files of one format, as {files[0]}; give a pattern, such as"
                f" '*{path.suffix}'"
            )
    return files


def is_text_file(path: Path) -> bool:
    """Whether the cells of a file are text."""
    return bare_name(path).endswith(TEXT)


class _Every:
    """A collection that contains every name."""

    def __contains__(self, name: object) -> bool:
        return True


EVERY = _Every()


def read_frames(
    files: Sequence[Path], chosen: SameColumns, **options: Any
) -> Iterator[pd.DataFrame]:
    """The selected columns of files in chunks; `options` are those of `ReadOptions`."""
    for path in files:
        reader = by_extension(path, READERS)
        _check_file(path)
        choose = functools.partial(chosen.of, path)
        yield from reader(path, ReadOptions(choose, CHUNK_ROWS, **options))


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise TableError(f"{path}: expected a file, found a folder; name a file in it")
    if not path.exists():
        raise TableError(f"{path}: no such file; check the name")
    if not path.stat().st_size:
        raise TableError(f"{path}: the file is empty; expected a table")


def _require_finite(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    values = table.to_numpy()
    bad = ~np.isfinite(values)
    if not bad.any():
        return
    row, column = np.argwhere(bad)[0]
    found = "a missing value" if np.isnan(values[row, column]) else "an infinity"
    raise TableError(
        f"{path}: {table.index.name or 'row'} {table.index[row]}, column {shown(table.columns[column])}: "
        f"expected a finite number, found {found}; fill in the cell, or remove the row"
    )
