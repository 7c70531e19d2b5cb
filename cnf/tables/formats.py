"""Shared parts of the file formats: the error, the choice by extension, and the choice of columns."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from cnf.tables.storage import as_float64

T = TypeVar("T")
Choose = Callable[[Sequence[str]], list[str]]
"""A function from the names of a file's columns to the requested ones, in the requested order."""

Kept = Container[str]
"""Names of the columns whose cells are not converted to numbers."""


@dataclass(frozen=True)
class ReadOptions:
    """Options for reading a file.

    Attributes:
        choose: function that selects the columns.
        chunk_rows: number of rows per frame.
        kept: columns whose cells are not converted to numbers.
        missing: words for missing cells in csv, which replace the usual ones.
        array: name of the array in an npz file that holds the table.
        judged: whether a schema checks each cell afterwards, so that text among numbers is kept.
    """

    choose: Choose
    chunk_rows: int
    kept: Kept = ()
    missing: Collection[str] | None = None
    array: str | None = None
    judged: bool = False


Append = Callable[[pd.DataFrame], object]
"""Add the rows of a frame to the file being written."""


class TableError(ValueError):
    """A table that cannot be used: one line with the file, the position, what was expected and what to
    do."""

    def __init__(self, message: str) -> None:
        # Quoted content of a damaged file must not break the line or the terminal.
        super().__init__("".join(x if x.isprintable() else ascii(x)[1:-1] for x in message))


def shown(text: str) -> str:
    """`text` in quotes, on one line, cut when long."""
    return repr(text if len(text) <= 40 else f"{text[:37]}...")


def listed(names: Sequence[str]) -> str:
    """The first of `names`, each in quotes."""
    return ", ".join(map(shown, names[:20])) + (", ..." if len(names) > 20 else "")


def by_extension(path: Path, formats: Mapping[str, T]) -> T:
    """The entry of `formats` whose key ends the name of `path`."""
    for extension, entry in formats.items():
        if path.name.lower().endswith(extension):
            return entry
    raise TableError(f"{path}: unknown extension; expected one of {extensions_told(formats)}")


def extensions_told(formats: Collection[str]) -> str:
    """The extensions in a short text.

    >>> extensions_told([".csv", ".csv.gz", ".npy"])
    '.csv, .npy; .csv also with .gz'
    """
    plain = [extension for extension in formats if extension.count(".") == 1]
    pairs = [extension.rsplit(".", 1) for extension in formats if extension.count(".") == 2]
    first, last = (list(dict.fromkeys(part)) for part in zip(*pairs)) if pairs else ([], [])
    packed = f"; {', '.join(first)} also with .{' .'.join(last)}" if pairs else ""
    return ", ".join(plain) + packed


@contextmanager
def damage_reported(path: Path, kind: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn the `errors` of a parser into a TableError about `path`."""
    try:
        yield
    except TableError:
        raise
    except errors as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TableError(
            f"{path}: cannot be read as {kind} ({reason}); check the file, or write it again"
        ) from error


def block(values: np.ndarray, names: list[str], labels: pd.Index) -> pd.DataFrame:
    """Rows of a file as float64; `labels` are their positions, and its name is their unit."""
    return pd.DataFrame(as_float64(values), columns=names, index=labels)


def row_labels(start: int, count: int) -> pd.RangeIndex:
    """The labels of `count` rows of a file whose positions are rows, not lines."""
    return pd.RangeIndex(start, start + count, name="row")


def names_of(names: str | Iterable[str]) -> list[str]:
    """Names of columns; a single string is one name, not a sequence of letters.

    >>> names_of("age"), names_of(("age", "height"))
    (['age'], ['age', 'height'])
    """
    return [names] if isinstance(names, str) else list(names)


def choose_columns(
    names: Sequence[str],
    *,
    path: str | os.PathLike[str],
    columns: Sequence[str] | None,
    ignore: Collection[str],
    needed: bool = False,
) -> list[str]:
    """The requested names that are not ignored; `needed` if a model requests them."""
    _refuse_repeated(names, f"{path}: the table")
    _refuse_repeated(columns or (), f"{path}: the choice of columns")
    for name in (*(columns or ()), *ignore):
        if name not in names:
            why, ask = (", which the model needs", "is it") if needed else ("", "did you mean")
            hint = alternatives(name, names, ask)
            raise TableError(f"{path}: no column {shown(str(name))}{why}; {hint}")
    chosen = [name for name in (columns or names) if name not in ignore]
    if not chosen:
        raise TableError(f"{path}: no columns are left; choose at least one of {listed(names)}")
    return chosen


def _refuse_repeated(names: Sequence[str], where: str) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise TableError(
                f"{where} names column {shown(name)} twice; every column needs its own name"
            )
        seen.add(name)


def alternatives(name: object, names: Sequence[object], ask: str = "did you mean") -> str:
    """A hint about an unknown column name.

    >>> alternatives("regoin", ["age", "region"]), alternatives("x", ["age", "region"])
    ("did you mean 'region'?", "the columns are 'age', 'region'")
    """
    known = [str(name) for name in names]
    if near := difflib.get_close_matches(str(name), known):
        return f"{ask} {listed(near)}?"
    return f"the columns are {listed(known)}" if known else "the table has no columns"
