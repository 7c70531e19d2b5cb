"""Tables as text files with a separator between cells, plain or compressed."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd

from cnf.tables.compression import DAMAGE, bare_name, open_bytes
from cnf.tables.formats import Append, ReadOptions, TableError, damage_reported, shown
from cnf.tables.recognition import missing_words
from cnf.tables.storage import as_text

# Words for a missing cell in any column; an empty cell is missing as well.
MISSING = ("na", "n/a", "nan", "null")
WORDS = dict.fromkeys(("", *MISSING, "none"), math.nan) | {"true": 1.0, "false": 0.0}
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "spaces"}
# Cells of csv files may contain spaces: only these extensions use spaces as separators.
SPACED = (".txt", ".dat", ".data")
# Longer lines are an error: a few megabytes of gzip may hold a line of gigabytes.
LONGEST_LINE = 2**24
# The part of a file from which its dialect is determined.
SNIFFED_BYTES, SNIFFED_ROWS = 2**16, 50
BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


@dataclass(frozen=True)
class Dialect:
    """The format of a text file.

    Attributes:
        separator: the sign between cells.
        encoding: UTF-8 or UTF-16.
        latin: whether its first part has bytes that are not UTF-8; such cells are read as
            Windows-1252.
    """

    separator: str = ","
    encoding: str = "utf-8-sig"
    latin: bool = False

    def lines(self) -> list[str]:
        """The unusual properties of the format, as text."""
        of_encoding = {"utf-16": "encoded in UTF-16"}.get(self.encoding, "")
        told = [
            "" if self.separator == "," else f"separated by {SEPARATORS[self.separator]}",
            of_encoding or ("encoded in Windows-1252" if self.latin else ""),
        ]
        return [line for line in told if line]


def dialect_of(path: Path) -> Dialect:
    """The format of a file, from its first rows."""
    with damage_reported(path, "csv", *DAMAGE), open_bytes(path) as file:
        head = file.read(SNIFFED_BYTES)
    encoding = BYTE_ORDER_MARKS.get(head[:2], "utf-8-sig")
    text = head.decode(encoding, "surrogateescape" if encoding == "utf-8-sig" else "replace")
    cut = len(head) == SNIFFED_BYTES
    latin = encoding == "utf-8-sig" and not _is_unicode(text[:-4] if cut else text)
    name = bare_name(path)
    if name.endswith(".tsv"):
        return Dialect("\t", encoding, latin)
    signs = [sign for sign in SEPARATORS if sign != " " or name.endswith(SPACED)]
    return Dialect(_separator(text, signs, whole=not cut), encoding, latin)


def _separator(text: str, signs: Sequence[str], *, whole: bool) -> str:
    """The first separator that divides the first rows into equally many cells; otherwise, the one that
    divides the header into most cells."""
    widths = {sign: _widths(text, sign, whole=whole) for sign in signs}
    for sign, found in widths.items():
        if len(set(found)) == 1 and found[0] > 1:
            return sign
    return max(widths, key=lambda sign: widths[sign][0] if widths[sign] else 0)


def _widths(text: str, sign: str, *, whole: bool) -> list[int]:
    """The number of cells in each of the first rows."""
    rows: list[int] = []
    try:
        for row in _cells(io.StringIO(text, newline=""), sign):
            rows += [len(row)] if row else []
            if len(rows) > SNIFFED_ROWS:
                return rows[:-1]
    except csv.Error:
        return rows[:-1]
    return rows if whole else rows[:-1]


def _cells(lines: Iterable[str], separator: str) -> Any:
    """A reader of rows; several spaces count as one separator, but not several other signs."""
    several = separator == " "
    if several:
        lines = (line.rstrip(" \r\n") + "\n" for line in lines)
    return csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=several)


def read_csv(path: Path, options: ReadOptions) -> Iterator[pd.DataFrame]:
    """The selected columns, labeled by line. All rows must be as wide as the header. Cells are converted to
    numbers except in kept columns, which may hold any text, None where missing.
    """
    dialect = dialect_of(path)
    with (
        damage_reported(path, "csv", *DAMAGE, UnicodeError),
        _opened(path, dialect.encoding) as file,
    ):
        rows = _rows(file, path, dialect.separator)
        names = _header(rows, path)
        chosen = options.choose(names)
        wanted = [names.index(name) for name in chosen]
        rows = _cells_at(rows, wanted, len(names), path)
        kept, chunk_rows = options.kept, options.chunk_rows
        missing = MISSING if options.missing is None else options.missing
        words = {word.lower() for word in missing}
        for start in itertools.count(step=chunk_rows):
            chunk = list(itertools.islice(rows, chunk_rows))
            if start and not chunk:
                return
            lines = pd.Index([line for line, _ in chunk], name="line", dtype=np.int64)
            columns = list(zip(*(cells for _, cells in chunk))) or [()] * len(chosen)
            cells = {
                name: _texts(column, lines, words)
                if name in kept
                else _numbers(column, name, lines, path, judged=options.judged)
                for name, column in zip(chosen, columns)
            }
            yield pd.DataFrame(cells, columns=chosen, index=lines)


def _opened(path: Path, encoding: str) -> TextIO:
    # Bytes that are not UTF-8 become lone surrogates, which `_readable` decodes as Windows-1252.
    errors = "surrogateescape" if encoding == "utf-8-sig" else "strict"
    return io.TextIOWrapper(open_bytes(path), encoding=encoding, errors=errors, newline="")


def _rows(file: TextIO, path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The first line of each row, and its cells; blank lines are skipped."""
    reader = _cells(_lines(file, path), separator)
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise TableError(
            f"{path}: line {line}: expected cells with {SEPARATORS[separator]} between them:"
            f" {error}; check the quotes"
        ) from error


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    """The lines of a file, in bounded memory."""
    for count, line in enumerate(iter(partial(file.readline, LONGEST_LINE), ""), 1):
        if len(line) == LONGEST_LINE:
            raise TableError(
                f"{path}: line {count}: expected at most {LONGEST_LINE:,} characters; found more:"
                " check that the file is a table"
            )
        yield line


def _header(rows: Iterator[tuple[int, list[str]]], path: Path) -> list[str]:
    line, names = next(rows, (1, []))
    if not names:
        raise TableError(f"{path}: the file is empty; expected a header and rows of numbers")
    filled = [name for name in names if name]
    if filled and all(map(_is_number, filled)):
        raise TableError(
            f"{path}: line {line}: expected names of columns, found only numbers; add a header"
        )
    # Empty names are replaced as in pandas, for example that of a row index from `to_csv`.
    return [_readable(name) or f"Unnamed: {i}" for i, name in enumerate(names)]


def _cells_at(
    rows: Iterator[tuple[int, list[str]]], wanted: Sequence[int], width: int, path: Path
) -> Iterator[tuple[int, list[str]]]:
    """The selected cells of rows, after a check that rows are as wide as the header."""
    for line, cells in rows:
        if len(cells) != width:
            raise TableError(
                f"{path}: line {line}: expected {width} cells as in the header, found {len(cells)}; "
                "complete the row, and quote cells that contain commas"
            )
        yield line, [cells[i] for i in wanted]


def _numbers(
    texts: Sequence[str], name: str, lines: pd.Index, path: Path, *, judged: bool
) -> np.ndarray | pd.Series:
    with suppress(ValueError):
        return np.array(_plain(texts))
    cells = [_number(text) for text in texts]
    for cell, line in zip(cells, lines) if not judged else ():
        if isinstance(cell, str):
            raise TableError(
                f"{path}: line {line}, column {shown(name)}: expected a number, found {shown(cell)}; "
                "correct the cell, or ignore the column"
            )
    return pd.Series(cells, lines)


def _texts(texts: Sequence[str], lines: pd.Index, words: Collection[str]) -> pd.Series:
    """Cells as text, None where they are empty or a word for a missing cell."""
    cells = [
        None if (word := text.strip().lower()) in words or not word else _readable(text)
        for text in texts
    ]
    return pd.Series(cells, lines, dtype=object)  # otherwise pandas would infer a type


def typed(cells: pd.Series) -> pd.Series:
    """A column of text converted to booleans, integers or other numbers if it spells them; otherwise the
    text itself.

    Words for missing cells among numbers are kept. A number with a leading zero is a code, and remains
    text.
    """
    present = cells[cells.notna()]
    if len(present) and present.str.strip().str.lower().isin(("true", "false")).all():
        spelled = [None if text is None else text.strip().lower() == "true" for text in cells]
        return pd.Series(
            spelled, cells.index, dtype="boolean" if None in spelled else bool, name=cells.name
        )
    if not all(map(_is_number, present)):
        return _beside_words(cells, present)
    if any(map(_is_code, present)):
        return as_text(cells)
    if len(present) and all(map(_is_whole, present)):
        whole = [None if text is None else int(text) for text in cells]
        holes = len(present) < len(cells)
        return pd.Series(whole, cells.index, dtype="Int64" if holes else "int64", name=cells.name)
    numbers = [math.nan if text is None else float(text) for text in cells]
    return pd.Series(numbers, cells.index, dtype="float64", name=cells.name)


def _beside_words(cells: pd.Series, present: pd.Series) -> pd.Series:
    """Text in which all cells are numbers, except for words for missing cells: the numbers, and the words;
    otherwise the text."""
    words = missing_words(present)
    if not words:
        return as_text(cells)
    numbers = typed(cells.mask(cells.isin(words), None))
    if not pd.api.types.is_numeric_dtype(numbers) or pd.api.types.is_bool_dtype(numbers):
        return as_text(cells)
    return numbers.astype(object).where(~cells.isin(words), cells)


def _is_code(text: str) -> bool:
    digits = text.strip().lstrip("+-")
    return len(digits) > 1 and digits[0] == "0" and digits.isdigit()


def _is_whole(text: str) -> bool:
    return text.strip().lstrip("+-").isdigit() and len(text) < 18


def _plain(texts: Sequence[str]) -> list[float]:
    # Python reads 2014_01 as a number, but in a table it is a label.
    if "_" in "".join(texts):
        raise ValueError("an underscore")
    return list(map(float, texts))


def _number(text: str) -> float | str:
    """The number in a cell, or its text if it is not a number."""
    word = text.strip().lower()
    if word in WORDS:
        return WORDS[word]
    return float(text) if _is_number(text) else _readable(text)


def _is_number(text: str) -> bool:
    try:
        return bool(_plain([text]))
    except ValueError:
        return False


def _readable(text: str) -> str:
    """Text, with bytes that are not UTF-8 decoded as Windows-1252."""
    if _is_unicode(text):
        return text
    return text.encode("utf-8", "surrogateescape").decode("cp1252", "replace")


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


@contextmanager
def write_csv(path: Path) -> Iterator[Append]:
    """Append frames as text: the shortest digits that read back as the same number, and empty cells for
    NaN."""
    with _created(path) as file:
        yield lambda frame: frame.to_csv(
            file,
            index=False,
            header=not file.tell(),
            sep="\t" if ".tsv" in path.suffixes else ",",
            quoting=_quoting(frame.columns),
            lineterminator="\n",
        )


def _created(path: Path) -> TextIO:
    # Without a time stamp, the same table gives the same bytes.
    file = (
        gzip.GzipFile(path, "wb", compresslevel=6, mtime=0)
        if path.suffix.lower() == ".gz"
        else path.open("wb")
    )
    return io.TextIOWrapper(file, encoding="utf-8", newline="")


def _quoting(names: pd.Index) -> int:
    # The csv module does not quote a lone carriage return, although it ends a line when read.
    return csv.QUOTE_NONNUMERIC if any("\r" in name for name in names) else csv.QUOTE_MINIMAL
