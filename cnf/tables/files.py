"""The files of a table: one file, the files of a folder, or those of a pattern."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from cnf.tables.formats import TableError, choose_columns, extensions_told, shown


def is_folder(data: str | os.PathLike[str]) -> bool:
    """Whether DATA is a folder or a pattern, which may refer to many files.

    >>> is_folder("day=*/part.parquet"), is_folder("table.csv")
    (True, False)
    """
    path = Path(data)
    return path.is_dir() or (glob.has_magic(str(data)) and not path.exists())


def files_of(data: str | os.PathLike[str], extensions: Collection[str]) -> tuple[Path, list[Path]]:
    """The common folder of the files of a folder or a pattern, and the files with these
    extensions, in order.

    Raises:
        TableError: if there are no such files.
    """
    path = Path(data)
    if path.is_dir():
        root, found = path, path.iterdir()
    else:
        parts = path.parts
        fixed = next(k for k, part in enumerate(parts) if glob.has_magic(part))
        root = Path(*parts[:fixed])
        found = root.glob(str(Path(*parts[fixed:])))
    ends = tuple(extensions)
    files = sorted(each for each in found if each.is_file() and each.name.lower().endswith(ends))
    if not files:
        raise TableError(
            f"{data}: expected files of {extensions_told(extensions)}; found none: check the name"
        )
    return root, files


class SameColumns:
    """The selection of columns in several files, which all must have the columns of the first one.

    Args:
        columns: names, in the requested order; None for all.
        ignore: names that are left out.
        needed: whether a model requests the columns.
    """

    def __init__(
        self, columns: Sequence[str] | None, ignore: Collection[str], *, needed: bool = False
    ) -> None:
        self.columns, self.ignore, self.needed = columns, ignore, needed
        self.first: tuple[Path, list[str]] | None = None

    def of(self, path: Path, names: Sequence[str]) -> list[str]:
        """The selected names among the columns of a file.

        Raises:
            TableError: naming the file and a column that it lacks, or that the first file lacks.
        """
        chosen = choose_columns(
            names, path=path, columns=self.columns, ignore=self.ignore, needed=self.needed
        )
        first, expected = self.first = self.first or (path, chosen)
        for one, other, name in (
            *((path, first, name) for name in expected if name not in chosen),
            *((first, path, name) for name in chosen if name not in expected),
        ):
            raise TableError(
                f"{one}: no column {shown(name)}, which {other} has; write files of the same"
                " columns, or choose those that all have"
            )
        return expected
