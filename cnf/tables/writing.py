"""Writing tables, whole or in chunks, without leaving incomplete files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pandas as pd

from cnf.files import atomic_path
from cnf.tables.arrays import write_npy, write_npz
from cnf.tables.formats import Append, TableError, by_extension
from cnf.tables.parquet import write_parquet
from cnf.tables.text import write_csv

WRITERS: dict[str, Callable[[Path], AbstractContextManager[Append]]] = {
    ".csv": write_csv,
    ".csv.gz": write_csv,
    ".tsv": write_csv,
    ".tsv.gz": write_csv,
    ".parquet": write_parquet,
    ".npy": write_npy,
    ".npz": write_npz,
}


class TableWriter:
    """Writes frames with the same columns to one file; made by `table_writer`."""

    def __init__(self, path: Path, append: Append) -> None:
        self.columns: list[str] | None = None
        self._path = path
        self._append = append

    def write(self, frame: pd.DataFrame) -> None:
        """Append the rows of `frame`."""
        columns = list(frame.columns)
        if self.columns not in (None, columns):
            raise TableError(f"{self._path}: expected the columns {self.columns}, found {columns}")
        self.columns = columns
        self._append(frame)


@contextmanager
def table_writer(path: str | os.PathLike[str]) -> Iterator[TableWriter]:
    """A writer of csv, tsv, either with .gz, parquet, npy or npz, by extension. The file appears only if
    the block ends without an error.

    Numbers are read back bit for bit. npy and npz keep the rows in memory until the end; npy drops
    the names.

    Raises:
        TableError: on entering, for an unknown extension or a folder that cannot be written to.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "scores.csv")
    >>> with table_writer(path) as writer:
    ...     writer.write(pd.DataFrame({"log_prob": [-1.5, -0.1]}))
    ...     writer.write(pd.DataFrame({"log_prob": [-2.0]}))
    >>> path.read_text()
    'log_prob\\n-1.5\\n-0.1\\n-2.0\\n'
    >>> folder.cleanup()
    """
    path = Path(path)
    write = by_extension(path, WRITERS)
    with ExitStack() as stack:
        try:
            temporary = stack.enter_context(atomic_path(path))
        except ValueError as error:
            raise TableError(str(error)) from error
        writer = TableWriter(path, stack.enter_context(write(temporary)))
        yield writer
        if writer.columns is None:
            raise TableError(
                f"{path}: nothing was written; expected at least one frame, if an empty one"
            )


def write_table(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a complete table; see `table_writer` for the formats and errors."""
    with table_writer(path) as writer:
        writer.write(table)
