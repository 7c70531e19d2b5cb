"""Reading tables of numbers: whole, or in chunks of bounded memory."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from cnf.tables.arrays import read_npy, read_npz
from cnf.tables.cells import as_text
from cnf.tables.formats import (
    Choose,
    Kept,
    TableError,
    by_extension,
    choose_columns,
    shown,
)
from cnf.tables.parquet import read_parquet
from cnf.tables.schema import Schema
from cnf.tables.text import read_csv, require_commas, typed

CHUNK_ROWS = 65536
READERS: dict[str, Callable[[Path, Choose, int, Kept], Iterator[pd.DataFrame]]] = {
    ".csv": read_csv,
    ".csv.gz": read_csv,
    ".parquet": read_parquet,
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
) -> pd.DataFrame:
    """The columns of a csv, csv.gz, parquet, npy or npz file as float64, rows numbered from 0.

    `columns` chooses, in this order (default: all, in the order of the file), `ignore` leaves out;
    other columns may hold anything. `nonfinite="keep"` lets missing cells through as NaN, and
    infinities. In csv a missing cell is empty or says NA, NaN, null or none; true and false are 1
    and 0.

    Raises:
        TableError: the file, a column or a cell is not as it should be, or there are fewer rows
            than `rows_needed`.

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
    chunks = list(read_chunks(path, columns=columns, ignore=ignore, nonfinite=nonfinite))
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
) -> Iterator[pd.DataFrame]:
    """The same rows as `read_table`, at most `chunk_rows` at a time; one empty chunk where there
    are none."""
    path = Path(path)
    reader = by_extension(path, READERS)
    _check_file(path)
    choose = functools.partial(choose_columns, path=path, columns=columns, ignore=ignore)
    start = 0
    for chunk in reader(path, choose, chunk_rows, ()):
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
    rows_needed: int = 1,
) -> pd.DataFrame:
    """The columns of a file as what they hold: numbers, booleans or text; rows labeled by line or
    row.

    In csv a column is of numbers if its cells spell numbers, unless it is one of `texts`, and
    missing cells are as in `read_table`.

    Raises:
        TableError: the file or a column is not as it should be, a cell is no number where almost
            all are, or there are fewer rows than `rows_needed`.
    """
    path = Path(path)
    choose = functools.partial(choose_columns, path=path, columns=columns, ignore=ignore)
    table = pd.concat(_frames(path, choose, EVERY))
    _require_rows(table, rows_needed, path)
    if path.name.lower().endswith((".csv", ".csv.gz")):
        require_commas(table, path)
        table = pd.DataFrame(
            {
                name: as_text(cells) if name in texts else typed(cells, path)
                for name, cells in table.items()
            }
        )
    return table


def read_typed_chunks(path: str | os.PathLike[str], schema: Schema) -> Iterator[pd.DataFrame]:
    """The columns of a schema in chunks of bounded memory, rows labeled by line or row."""
    columns = [*schema.modeled, *schema.context]
    choose = functools.partial(
        choose_columns, path=path, columns=[c.name for c in columns], ignore=()
    )
    yield from _frames(
        Path(path), choose, {column.name for column in columns if column.type.reads_text}
    )


class _Every:
    """A collection that holds every name."""

    def __contains__(self, name: object) -> bool:
        return True


EVERY = _Every()


def _frames(path: Path, choose: Choose, kept: Kept) -> Iterator[pd.DataFrame]:
    reader = by_extension(path, READERS)
    _check_file(path)
    return reader(path, choose, CHUNK_ROWS, kept)


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
