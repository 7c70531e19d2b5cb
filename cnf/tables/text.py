"""Tables as comma-separated text, plain or compressed."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd

from cnf.tables.cells import as_text
from cnf.tables.formats import Append, Choose, Kept, TableError, damage_reported, shown

MISSING = ("", "na", "n/a", "nan", "null", "none")
WORDS = dict.fromkeys(MISSING, math.nan) | {"true": 1.0, "false": 0.0}
# A column with a larger share of cells that are no numbers holds text.
MOST_SPOILT = 0.1


def read_csv(
    path: Path, choose: Choose, chunk_rows: int, kept: Kept = ()
) -> Iterator[pd.DataFrame]:
    """The chosen columns, labeled by line; rows are as wide as the header and chosen cells are
    numbers.

    Columns in `kept` may hold any text, None where a cell is missing.
    """
    with damage_reported(path, "csv", OSError, EOFError, zlib.error), _opened(path) as file:
        rows = _rows(file, path)
        names = _header(rows, path)
        chosen = choose(names)
        wanted = [names.index(name) for name in chosen]
        rows = _of_width(rows, len(names), path)
        for start in itertools.count(step=chunk_rows):
            chunk = list(itertools.islice(rows, chunk_rows))
            if start and not chunk:
                return
            lines = pd.Index([line for line, _ in chunk], name="line", dtype=np.int64)
            columns = list(zip(*(cells for _, cells in chunk))) or [()] * len(names)
            cells = {
                names[i]: (_texts if names[i] in kept else _numbers)(
                    columns[i], names[i], lines, path
                )
                for i in wanted
            }
            yield pd.DataFrame(cells, columns=chosen, index=lines)


def _opened(path: Path) -> TextIO:
    # Bytes that are not UTF-8 become lone surrogates: harmless in a column nobody asked for, and
    # elsewhere an error that can name its line.
    opened: Any = gzip.open if path.suffix.lower() == ".gz" else open
    return io.TextIOWrapper(
        opened(path, "rb"), encoding="utf-8-sig", errors="surrogateescape", newline=""
    )


def _rows(file: TextIO, path: Path) -> Iterator[tuple[int, list[str]]]:
    """The line a row starts on and its cells; blank lines are passed over."""
    reader = csv.reader(file, strict=True)
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise TableError(
            f"{path}: line {line}: expected comma-separated cells: {error}; check the quotes"
        ) from error


def _header(rows: Iterator[tuple[int, list[str]]], path: Path) -> list[str]:
    line, names = next(rows, (1, []))
    if not names:
        raise TableError(f"{path}: the file is empty; expected a header and rows of numbers")
    if not _is_unicode("".join(names)):
        raise TableError(f"{path}: line {line}: the header is not UTF-8; save it as UTF-8")
    filled = [name for name in names if name]
    if filled and all(map(_is_number, filled)):
        raise TableError(
            f"{path}: line {line}: expected names of columns, found only numbers; add a header"
        )
    return names


def _of_width(
    rows: Iterator[tuple[int, list[str]]], width: int, path: Path
) -> Iterator[tuple[int, list[str]]]:
    for line, cells in rows:
        if len(cells) != width:
            raise TableError(
                f"{path}: line {line}: expected {width} cells as in the header, found {len(cells)}; "
                "complete the row, and quote cells that contain commas"
            )
        yield line, cells


def _numbers(texts: Sequence[str], name: str, lines: pd.Index, path: Path) -> np.ndarray:
    try:
        return np.array(_plain(texts))
    except ValueError:
        return np.array([_number(text, name, line, path) for text, line in zip(texts, lines)])


def _texts(texts: Sequence[str], name: str, lines: pd.Index, path: Path) -> pd.Series:
    for text, line in zip(texts, lines):
        if not _is_unicode(text):
            raise TableError(
                f"{path}: line {line}, column {shown(name)}: {shown(text)} is not UTF-8; save it as UTF-8"
            )
    cells = [None if text.strip().lower() in MISSING else text for text in texts]
    return pd.Series(cells, lines, dtype=object)  # pandas would choose a type of its own


def require_commas(table: pd.DataFrame, path: Path) -> None:
    """Refuse a table of one column that another separator than the comma would split.

    Raises:
        TableError: naming the separator.
    """
    if len(table.columns) != 1:
        return
    (name,) = table.columns
    for sign in ";\t|":
        if sign in name and all(text is not None and sign in text for text in table[name]):
            raise TableError(
                f"{path}: expected commas between columns, found one column with {sign!r} in every line,"
                f" {shown(name)}; save the table with commas"
            )


def typed(cells: pd.Series, path: str | os.PathLike[str]) -> pd.Series:
    """A column of text as what it spells: booleans, whole or other numbers; else the text itself.

    Raises:
        TableError: for a cell that is no number where almost all others are.
    """
    present = [text for text in cells if text is not None]
    if present and all(text.strip().lower() in ("true", "false") for text in present):
        spelled = [None if text is None else text.strip().lower() == "true" for text in cells]
        return pd.Series(
            spelled, cells.index, dtype="boolean" if None in spelled else bool, name=cells.name
        )
    bad = [i for i, text in enumerate(cells) if text is not None and not _is_number(text)]
    if bad and len(bad) > MOST_SPOILT * len(present):
        return as_text(cells)
    if bad:
        text = cells.iloc[bad[0]]
        raise TableError(
            f"{path}: line {cells.index[bad[0]]}, column {shown(str(cells.name))}: expected a number as in "
            f"most rows, found {shown(text)}; correct the cell, ignore the column, or declare it categorical"
        )
    numbers = pd.Series(
        [math.nan if text is None else float(text) for text in cells], cells.index, name=cells.name
    )
    whole = len(present) == len(cells) and all(_is_whole(text) for text in present)
    return numbers.astype("int64") if whole else numbers.astype("float64")


def _is_whole(text: str) -> bool:
    return text.strip().lstrip("+-").isdigit() and len(text) < 18


def _plain(texts: Sequence[str]) -> list[float]:
    # Python reads 2014_01 as a number; in a table it is a label.
    if "_" in "".join(texts):
        raise ValueError("an underscore")
    return list(map(float, texts))


def _number(text: str, name: str, line: int, path: Path) -> float:
    word = text.strip().lower()
    if word in WORDS:
        return WORDS[word]
    if _is_number(text):
        return float(text)
    found = shown(text) if _is_unicode(text) else f"{shown(text)}, which is not UTF-8"
    raise TableError(
        f"{path}: line {line}, column {shown(name)}: expected a number, found {found}; "
        "correct the cell, or ignore the column"
    )


def _is_number(text: str) -> bool:
    try:
        return bool(_plain([text]))
    except ValueError:
        return False


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


@contextmanager
def write_csv(path: Path) -> Iterator[Append]:
    """Appends frames as text: the shortest digits that read back as the same number, empty cells
    for NaN."""
    with _created(path) as file:
        yield lambda frame: frame.to_csv(
            file,
            index=False,
            header=not file.tell(),
            quoting=_quoting(frame.columns),
            lineterminator="\n",
        )


def _created(path: Path) -> TextIO:
    # No time stamp: the same table gives the same bytes.
    file = (
        gzip.GzipFile(path, "wb", compresslevel=6, mtime=0)
        if path.suffix.lower() == ".gz"
        else path.open("wb")
    )
    return io.TextIOWrapper(file, encoding="utf-8", newline="")


def _quoting(names: pd.Index) -> int:
    # The csv module leaves a lone carriage return bare, although it ends a line when read.
    return csv.QUOTE_NONNUMERIC if any("\r" in name for name in names) else csv.QUOTE_MINIMAL
