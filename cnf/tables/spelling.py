"""Numbers and times stored as text: their spelling is recognized, read and written."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, Protocol

import numpy as np
import pandas as pd

# Separators of thousands and of decimals. The first pair that matches all cells is used.
MARKS = (
    ("", "."), (",", "."), ("", ","), (".", ","), (" ", ","), (" ", "."),
    ("\u00a0", ","), ("\u202f", ","), ("'", "."), ("\u2019", "."),
)  # fmt: skip
CURRENCIES = r"[$€£¥₹₽₩]|(?:US|C|A|R|HK|NZ)\$|USD|EUR|GBP|CHF|JPY|kr\.?|Rs\.?"
BEFORE = re.compile(rf"(?:{CURRENCIES})\s?")
# A percent sign, a currency or a short unit ends a number: 12%, 12 kg, 12 €.
AFTER = re.compile(rf"\s?(?:[%‰°]|{CURRENCIES}|[A-Za-zµ°]{{1,4}}(?:[/²³][A-Za-z\d]{{0,3}})?)")
SHARES = ("%", "‰")
# Numbers with more digits come from binary fractions, not from a spelling.
MOST_PLACES = 10


class Spelling(Protocol):
    """The spelling of the cells of a column."""

    def read(self, texts: pd.Series) -> pd.Series:
        """Convert text to numbers, times or durations; NaN or NaT for other cells."""

    def write(self, cells: pd.Series) -> pd.Series:
        """Convert numbers, times or durations to text, None where missing."""

    @property
    def bare(self) -> bool:
        """Whether any program can read such cells without the spelling."""

    def describe(self) -> str:
        """Describe the spelling by an example."""


@dataclass(frozen=True)
class NumberSpelling:
    """Numbers with prefixes, suffixes and separators between their digits.

    Attributes:
        before: text before the digits, such as "$".
        after: text after the digits, such as "%" or " kg".
        thousands: separator of groups of three digits.
        decimal: separator of the decimals.
        places: number of decimals if it is the same in all cells; None otherwise.

    Example:
        >>> texts = pd.Series(["$1,200.50", "-$3.00"])
        >>> spelling = NumberSpelling.of(texts.tolist())
        >>> spelling.read(texts).tolist(), spelling.write(pd.Series([1e6])).tolist()
        ([1200.5, -3.0], ['$1,000,000.00'])
    """

    before: str = ""
    after: str = ""
    thousands: str = ""
    decimal: str = "."
    places: int | None = None

    @classmethod
    def of(cls, texts: Sequence[str]) -> NumberSpelling | None:
        """The spelling of distinct texts; None if they do not spell numbers in one way.

        A number with a leading zero is a code.
        """
        texts = [text.strip() for text in texts]
        before = _common(BEFORE, texts[0].lstrip("+-"), texts, str.startswith)
        after = _common(AFTER, texts[0], texts, str.endswith)
        bare = [text.replace(before, "", 1) if before else text for text in texts]
        bare = [text.removesuffix(after) if after else text for text in bare]
        for thousands, decimal in MARKS:
            form = _form(thousands, decimal)
            if all(map(form.fullmatch, bare)) and (
                not thousands or any(thousands in text for text in bare)
            ):
                places = {len(text.partition(decimal)[2]) for text in bare}
                plain = not any("e" in text.lower() for text in bare)
                fixed = places.pop() if len(places) == 1 and plain else None
                return cls(before, after, thousands, decimal, fixed)
        return None

    @property
    def bare(self) -> bool:
        """Whether any program can read such numbers without the spelling."""
        return not (self.before or self.after or self.thousands or self.decimal != ".")

    def read(self, texts: pd.Series) -> pd.Series:
        """Convert text to numbers, NaN for other cells. Plain numbers are read as well, except for
        percentages: next to 12 %, the text 12 may mean twelve or twelve hundredths."""
        distinct = pd.unique(texts[texts.notna()])
        values = {text: self._number(text) for text in distinct}
        return texts.map(values).astype("float64")

    def _number(self, text: Any) -> float:
        if not isinstance(text, str):
            return float(text)
        digits = text.strip()
        if self.before:
            digits = digits.replace(self.before, "", 1)
        unit = self.after.strip()
        if unit in SHARES and not digits.endswith(unit):
            return math.nan
        digits = digits.removesuffix(unit).rstrip() if unit else digits
        if _form(self.thousands, self.decimal).fullmatch(digits):
            digits = digits.replace(self.thousands, "") if self.thousands else digits
            return float(digits.replace(self.decimal, "."))
        return float(digits) if _form("", ".").fullmatch(digits) else math.nan

    def write(self, cells: pd.Series) -> pd.Series:
        """Convert numbers to text, None where missing."""
        spelled = [None if math.isnan(cell) else self._text(cell) for cell in cells.astype(float)]
        return pd.Series(spelled, index=cells.index, dtype=object)

    def _text(self, value: float) -> str:
        mark = "," if self.thousands else ""
        if self.places is None:
            digits = np.format_float_positional(abs(value), trim="-", precision=MOST_PLACES)
            whole, point, decimals = digits.partition(".")
            digits = f"{int(whole):{mark}}{point}{decimals}"
        else:
            digits = f"{abs(value):{mark}.{self.places}f}"
        marks = str.maketrans({",": self.thousands, ".": self.decimal})
        sign = "-" if value < 0 and float(re.sub("[^0-9.]", "", digits)) else ""
        return f"{sign}{self.before}{digits.translate(marks)}{self.after}"

    def describe(self) -> str:
        """Describe the spelling by an example."""
        return f"spelled {self._text(1234.5)}"


def _form(thousands: str, decimal: str) -> re.Pattern[str]:
    """A pattern for numbers with these separators, without leading zeros."""
    groups = rf"[1-9]\d{{0,2}}(?:{re.escape(thousands)}\d{{3}})+|" if thousands else ""
    point = re.escape(decimal)
    return re.compile(
        rf"[+-]?(?:{groups}0|[1-9]\d*|(?=0?{point}\d)0?)(?:{point}\d*)?(?:[eE][+-]?\d+)?"
    )


def _common(pattern: re.Pattern[str], first: str, texts: Sequence[str], has: Any) -> str:
    """The match of the pattern at the beginning or the end of all texts; "" if they differ."""
    at_start = has is str.startswith
    found = pattern.match(first) if at_start else re.search(rf"(?:{pattern.pattern})$", first)
    sign = found.group() if found else ""
    # Some texts are plain numbers, such as 1e5 or the word "nan", and have no unit.
    if not sign or _form("", ".").fullmatch(first) or sign == first:
        return ""
    stripped = (text.lstrip("+-") if at_start else text for text in texts)
    return sign if all(has(text, sign) for text in stripped) else ""


# Formats of dates and times, the frequent ones first; the first that fits all cells sets day and month.
DATES = (
    "%Y-%m-%d", "%Y/%m/%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%d-%b-%Y",
    "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%d-%b-%y", "%m/%d/%y", "%d/%m/%y", "%d.%m.%y",
    "%Y.%m.%d", "%Y-%m", "%m/%Y", "%b %Y", "%B %Y",
)  # fmt: skip
CLOCKS = ("%H:%M", "%H:%M:%S", "%H:%M:%S.%f", "%I:%M %p", "%I:%M:%S %p")
JOINTS = (" ", "T", ", ")
MOMENTS = [f"{date}{sign}{clock}" for date in DATES for sign in JOINTS for clock in CLOCKS]
ZONE = re.compile(r"\s?(?:Z|UTC|GMT|[+-]\d{2}:?\d{2})$")
DURATION = re.compile(r"[+-]?\d+ days?(?:,? [+-]?\d+:\d{2}(?::\d{2}(?:\.\d+)?)?)?")
LONG_CLOCK = re.compile(r"\d{1,4}:[0-5]\d:[0-5]\d")


@dataclass(frozen=True)
class TimeSpelling:
    """Dates, times of day or both in a fixed format; durations in days or hours.

    Attributes:
        format: format of `strftime`; "days" for durations as in pandas, "hours" for H:MM:SS.
        zone: common suffix of all cells, such as "Z" or "+02:00".
        padded: whether days, months and hours below ten have a leading zero.
        fraction: number of digits of fractions of a second.

    Example:
        >>> texts = pd.Series(["1/5/2020", "12/31/2020"])
        >>> spelling = TimeSpelling.of(texts.tolist())
        >>> spelling.format, spelling.write(spelling.read(texts)).tolist()
        ('%m/%d/%Y', ['1/5/2020', '12/31/2020'])
    """

    format: str
    zone: str = ""
    padded: bool = True
    fraction: int = 6

    @classmethod
    def of(cls, texts: Sequence[str]) -> TimeSpelling | None:
        """The spelling of distinct texts; None if they are not times or durations in one format."""
        texts = [text.strip() for text in texts]
        if not all(len(text) < 40 and text[-1:] and re.search(r"\d", text) for text in texts):
            return None
        if all(map(DURATION.fullmatch, texts)):
            return cls("days")
        zone = ZONE.search(texts[0])
        sign = zone.group() if zone and ":" in texts[0] else ""
        sign = sign if all(text.endswith(sign) for text in texts) else ""
        bare = pd.Series([text.removesuffix(sign) for text in texts], dtype=object)
        for form in _formats().get(_shape(bare[0]), ()):
            if _parsed(bare[:1], form).notna().all() and _parsed(bare, form).notna().all():
                return _exact(cls(form, sign), pd.Series(texts, dtype=object))
        return cls("hours") if all(map(LONG_CLOCK.fullmatch, texts)) else None

    @property
    def bare(self) -> bool:
        """Whether any program can read such times without the spelling."""
        return self.format == "%Y-%m-%d" and not self.zone

    @property
    def of_day(self) -> bool:
        """Whether it spells times of day."""
        return self.format in CLOCKS

    def read(self, texts: pd.Series) -> pd.Series:
        """Convert text to times, or to durations (including times of day); NaT for other cells. Omitted
        parts are zero: a date without hours is midnight."""
        if self.format in ("days", "hours"):
            return pd.to_timedelta(texts, errors="coerce")
        bare = texts.map(
            lambda text: str(text).strip().removesuffix(self.zone), na_action="ignore"
        )
        moments = _parsed(bare, self.format)
        for form in _shorter(self.format):
            if not (rest := moments.isna() & bare.notna()).any():
                break
            moments = moments.fillna(_parsed(bare[rest], form))
        return moments - pd.Timestamp("1900-01-01") if self.of_day else moments

    def write(self, cells: pd.Series) -> pd.Series:
        """Convert times or durations to text, None where missing."""
        spelled = [None if pd.isna(cell) else self._text(cell) for cell in cells]
        return pd.Series(spelled, index=cells.index, dtype=object)

    def _text(self, cell: Any) -> str:
        if self.format == "days":
            return str(cell)
        if self.format == "hours":
            seconds = round(cell / timedelta(seconds=1))
            return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        moment = pd.Timestamp("1900-01-01") + cell if self.of_day else cell
        digits = f"{moment.microsecond:06}"[: self.fraction]
        text = moment.strftime(self.format.replace("%f", digits))
        return (text if self.padded else re.sub(r"(?<![\d:.])0(?=\d)", "", text)) + self.zone

    def describe(self) -> str:
        """Describe the spelling by an example."""
        moment = pd.Timestamp("2020-12-31 23:59:00")
        held = {"days": moment - pd.Timestamp("2020-12-30"), "hours": timedelta(hours=26)}
        day = moment - pd.Timestamp("2020-12-31")
        return f"spelled {self._text(held.get(self.format, day if self.of_day else moment))}"


@cache
def _formats() -> dict[str, list[str]]:
    """The formats, grouped by the shape of their texts; a text of any other shape matches none."""
    moment, shapes = pd.Timestamp("2020-10-31 11:59:58.123456"), defaultdict(list)
    for form in (*CLOCKS, *DATES, *MOMENTS):
        shapes[_shape(moment.strftime(form))].append(form)
    return shapes


def _shape(text: str) -> str:
    """A text with one sign for each number, word and gap.

    >>> _shape("31 Oct 2020, 9:05"), _shape("1 May 1999,  11:59")
    ('0 a 0, 0:0', '0 a 0, 0:0')
    """
    words = re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "0", text))
    return re.sub(r"\s+", " ", words)


def _shorter(form: str) -> Iterator[str]:
    """The format without fractions, then also without seconds, then without hours, as far as it has them.

    >>> list(_shorter("%d %b %Y, %H:%M:%S"))
    ['%d %b %Y, %H:%M', '%d %b %Y']
    """
    for end in (".%f", ":%S"):
        if form.endswith(end):
            form = form.removesuffix(end)
            yield form
    date = re.match(r"(.+?)(?:, |[ T])%[HI]", form)
    if date:
        yield date.group(1)


def _parsed(texts: pd.Series, form: str) -> pd.Series:
    return pd.to_datetime(texts, format=form, errors="coerce")


def _exact(spelling: TimeSpelling, texts: pd.Series) -> TimeSpelling:
    """The variant of a spelling that reproduces the texts; otherwise the spelling itself."""
    cells = spelling.read(texts)
    for fraction in (6, 3, 2, 1) if "%f" in spelling.format else (6,):
        for padded in (True, False):
            variant = TimeSpelling(spelling.format, spelling.zone, padded, fraction)
            if variant.write(cells).equals(texts):
                return variant
    return spelling


def spelling_from_json(data: dict[str, Any]) -> Spelling:
    """The spelling with these attributes.

    Raises:
        ValueError: for any other data.
    """
    try:
        spelling: Any = (TimeSpelling if "format" in data else NumberSpelling)(**data)
        spelling.describe()
    except (TypeError, AttributeError, re.error) as error:
        raise ValueError(f"not a spelling: {data!r:.100}") from error
    return spelling
