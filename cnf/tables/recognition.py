"""The recognition of the cells of a column, independent of storage and format."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pandas as pd

from cnf.tables.spelling import NumberSpelling, Spelling, TimeSpelling
from cnf.tables.storage import CLOCK, plain_cells, storage_of

# Words for a missing number, unless they spell a number.
MISSING_NUMBERS = {
    "?", "-", "--", "---", ".", "..", "*", "none", "missing", "unknown", "#n/a", "#na", "#value!",
    "#div/0!", "#num!", "na", "n/a", "nan", "null",
}  # fmt: skip
# Any other word is one as well if numbers have this fraction of the cells, or this many values.
MOST_SPOILT, MOST_OFTEN, MANY_NUMBERS = 0.1, 0.5, 12
INFINITE = (float("inf"), float("-inf"))
# Largest number of such words.
MOST_WORDS = 5


@dataclass(frozen=True)
class Recognized:
    """Cells of a column as numbers, booleans, times, durations or text.

    Attributes:
        cells: their values; a word for missing cells is missing.
        spelling: their text format; None if they are not stored as text.
        words: the cells that count as missing.
        of_day: whether durations are times of day.
    """

    cells: pd.Series
    spelling: Spelling | None = None
    words: tuple[str, ...] = ()
    of_day: bool = False


def is_text(series: pd.Series) -> bool:
    """Whether all cells that are not missing are text."""
    if isinstance(series.dtype, pd.CategoricalDtype):
        return False
    if series.dtype == object:
        return pd.api.types.infer_dtype(series, skipna=True) == "string"
    return pd.api.types.is_string_dtype(series)


def recognized(series: pd.Series, missing: Collection[str] | None = None) -> Recognized:
    """The cells of a series.

    Args:
        series: a column of a data frame.
        missing: the words for missing cells; None recognizes them among numbers.

    Example:
        >>> recognized(pd.Series(["1,5 kg", "?", "12 kg"])).cells.tolist()
        [1.5, nan, 12.0]
    """
    if missing is not None:
        return _read(without(series, missing), tuple(missing))
    mixed = series.dtype == object and pd.api.types.infer_dtype(series).startswith("mixed")
    if not (mixed or is_text(series)):
        return _finite(_read(series, ()))
    words = missing_words(series)
    found = _read(series.mask(series.isin(words), None), words) if words else _read(series, ())
    known = found.spelling or pd.api.types.is_numeric_dtype(found.cells)
    return found if known else Recognized(series)


def _finite(found: Recognized) -> Recognized:
    """Cells with infinities replaced by missing cells."""
    if not pd.api.types.is_float_dtype(found.cells) or not found.cells.isin(INFINITE).any():
        return found
    words = tuple(
        word for word, number in zip(("inf", "-inf"), INFINITE) if number in set(found.cells)
    )
    return Recognized(without(found.cells, words), words=words)


def _read(series: pd.Series, words: tuple[str, ...]) -> Recognized:
    """The cells of a series that contains no words for missing cells."""
    if is_text(series):
        distinct = [str(cell) for cell in pd.unique(series[series.notna()])]
        spelling = _spelling(distinct) if distinct else None
        if spelling is not None:
            cells = spelling.read(series)
            return Recognized(cells, spelling, words, getattr(spelling, "of_day", False))
        return Recognized(series, None, words)
    of_day = storage_of(series) == CLOCK
    return Recognized(plain_cells(series), None, words, of_day)


def _spelling(distinct: Sequence[str]) -> Spelling | None:
    """The spelling of numbers or times in texts; None if they have none."""
    return NumberSpelling.of(distinct) or TimeSpelling.of(distinct)


def without(series: pd.Series, words: Collection[str]) -> pd.Series:
    """A series in which these words, and numbers of the same spelling, are missing."""
    if pd.api.types.is_bool_dtype(series) or isinstance(series.dtype, pd.CategoricalDtype):
        return series
    if pd.api.types.is_numeric_dtype(series):
        hit = series.isin([_number(word) for word in words])
    else:
        texts = series.map(str, na_action="ignore").str.strip()
        hit = texts.isin(list(words))
        infinite = [number for number in map(_number, words) if number in INFINITE]
        if infinite:  # R writes it as Inf
            hit |= texts.map(_number, na_action="ignore").isin(infinite)
    return series.mask(hit) if hit.any() else series


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return float("nan")


def missing_words(series: pd.Series) -> tuple[str, ...]:
    """The text among numbers or times that means a missing cell; none if it may have another
    meaning.

    >>> missing_words(pd.Series(["1.5", "-", "2.5"])), missing_words(pd.Series(["none", "mild"]))
    (('-',), ())
    """
    counts = series.value_counts()
    odd = [cell for cell in counts.index if isinstance(cell, str) and not _has_digit(cell)]
    if not odd and counts.index.map(lambda cell: isinstance(cell, str)).any():
        unlike = (cell for cell in counts.index if isinstance(cell, str) and not _spells(cell))
        odd = list(itertools.islice(unlike, MOST_WORDS + 1))
    if not 0 < len(odd) <= MOST_WORDS or len(odd) == len(counts):
        return ()
    share, others = counts[odd].sum() / counts.sum(), len(counts) - len(odd)
    known = all(cell.strip().lower() in MISSING_NUMBERS for cell in odd)
    rare = share <= MOST_SPOILT or (share <= MOST_OFTEN and others > MANY_NUMBERS)
    return tuple(sorted(odd)) if known or rare else ()


def _has_digit(text: str) -> bool:
    return any(sign.isdigit() for sign in text)


def _spells(text: str) -> bool:
    return NumberSpelling.of([text]) is not None
