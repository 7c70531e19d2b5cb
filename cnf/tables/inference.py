"""What a column is, found from its cells: the rules behind a schema.

text, booleans                           categorical
whole numbers                            integer; categorical where there are few, each frequent
multiples of 0.1 … 0.0001, repeating     integer times that step (one cell in a thousand may lie beside,
                                         and counts as the nearest multiple)
other numbers                            positive or bounded (0 to 1, 0 to 100) where the logarithm or
                                         the logit is clearly nearer to a Gaussian, else real
a number holding 3 % of a real column,   an atom
or of the end of an integer one
values of an integer column that stand   atoms, all frequent values of it
out from those around them
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from cnf.tables.cells import dtype_of, is_numeric, levels, numbers
from cnf.tables.columns import MOST_LEVELS, MOST_STEPS, Column, Level
from cnf.tables.formats import TableError, shown
from cnf.tables.heaps import heaped_values

FEW_VALUES, FREQUENT, FREQUENT_ROWS = 12, 0.02, 10
DECIMALS = 4
# A real column repeats itself by chance; on a grid that matters each value stands five times or
# more.
REPEATED = 0.2
BESIDE = 1e-3
ATOM_SHARE, ATOM_ROWS, ATOM_LEAD = 0.03, 5, 3.0
# An integer column ends where its last value is still this frequent.
END_SHARE, END_ROWS = 0.01, 5
# Nats a cell by which another transform must be nearer to a Gaussian than none.
NEARER_BY = 0.05


def infer(series: pd.Series, kind: str | None = None, role: str = "modeled") -> Column:
    """The column that a series of a data frame is.

    Args:
        series: its cells.
        kind: what the user says it is: a kind, "bounded:0:1", or "integer:0.5" with its step.
        role: "modeled" or "context".

    Raises:
        TableError: for cells that do not fit the kind, or a column that cannot be modeled.

    Example:
        >>> infer(pd.Series(["a", "b", None], name="group")).describe()
        'categorical, 2 levels: a, b, with missing cells'
    """
    name = str(series.name)
    word, *parameters = (kind or "").split(":")
    if word == "ignored":
        return Column(name, "ignored", dtype=dtype_of(series))
    if series.isna().all():
        raise TableError(f"column {shown(name)}: every cell is missing; ignore the column")
    if word == "categorical" or (not word and not is_numeric(series)):
        return _categorical(series, role)
    values = numbers(series)
    common = {"role": role, "missing": bool(np.isnan(values).any())}
    values = values[~np.isnan(values)]
    if np.ptp(values) == 0:
        raise TableError(f"expected columns that vary, found constant {shown(name)}; ignore it")
    if not word:
        return _unstated(series, values, common)
    if word == "integer":
        return _declared_integer(series, values, parameters, common)
    return _declared(name, values, word, [_number(name, text) for text in parameters], common)


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise TableError(f"type of {shown(name)}: expected a number, got {shown(text)}") from None


def _categorical(series: pd.Series, role: str) -> Column:
    name, dtype = str(series.name), dtype_of(series)
    cells = levels(series)
    present = [cell for cell in cells if cell is not None]
    if dtype == "bool":
        found: list[Level] = [False, True]
    elif dtype == "category":
        seen = set(present)
        found = [level for level in series.cat.categories.tolist() if level in seen]
    else:
        found = sorted(set(present), key=lambda level: (isinstance(level, str), level))
    if len(found) > MOST_LEVELS:
        raise TableError(
            f"column {shown(name)}: {len(found):,} categories in {len(cells):,} rows; at most {MOST_LEVELS:,}"
            " can be learnt; ignore the column, or group its levels"
        )
    return Column(
        name,
        "categorical",
        role,
        levels=tuple(found),
        missing=len(present) < len(cells),
        dtype=dtype,
    )


def _unstated(series: pd.Series, values: np.ndarray, common: dict) -> Column:
    """A numeric column that the user said nothing about."""
    distinct, counts = np.unique(values, return_counts=True)
    step = decimal_step(distinct, counts)
    few = len(distinct) <= FEW_VALUES and counts.min() >= max(
        FREQUENT * len(values), FREQUENT_ROWS
    )
    if step == 1 and few:
        return _categorical(series, common["role"])
    if step is not None:
        return _integer(str(series.name), values, step, common | {"dtype": _dtype(series)})
    atoms = tuple(distinct[_heavy(counts, len(values))].tolist())
    return _continuous(str(series.name), values[~np.isin(values, atoms)], atoms, common)


def _dtype(series: pd.Series) -> str:
    return dtype_of(series) if is_numeric(series) else "float64"


def decimal_step(distinct: np.ndarray, counts: np.ndarray) -> float | None:
    """1 or the power of ten that the values are multiples of; None where they are real numbers, or
    so large that neighboring multiples are one number.

    >>> once = np.array([50, 50])
    >>> decimal_step(np.array([0.25, 0.5]), once), decimal_step(np.array([0.1234567, 0.5]), once)
    (0.01, None)
    """
    rows = counts.sum()
    repeats = len(distinct) <= REPEATED * rows
    for decimals in range(DECIMALS + 1):
        scaled = distinct * 10.0**decimals
        largest = np.abs(scaled).max()
        if largest > MOST_STEPS:
            return None
        # What rounding leaves of zero counts as zero, but not where all numbers are as small.
        rounding = 8 * np.finfo(float).eps * np.maximum(np.abs(scaled), min(largest, 1.0))
        beside = np.abs(scaled - np.round(scaled)) > rounding
        if counts[beside].sum() <= (BESIDE * rows if repeats else 0):
            return 10.0**-decimals if decimals == 0 or repeats else None
    return None


def _heavy(counts: np.ndarray, rows: int) -> np.ndarray:
    return counts >= max(ATOM_SHARE * rows, ATOM_ROWS)


def _integer(name: str, values: np.ndarray, step: float, common: dict) -> Column:
    """A grid of multiples of step; an end that holds far more than any other value is an atom."""
    distinct, counts = np.unique(np.round(values / step), return_counts=True)
    atoms = []
    for end in (0, -1):
        others = np.delete(counts, end)
        lead = len(others) > 2 and counts[end] >= ATOM_LEAD * others.max()
        if lead and _heavy(counts[end], len(values)):
            atoms.append(end)
    lower = _end(distinct, counts, 0, len(values)) if 0 not in atoms else distinct[0] + 0.5
    upper = _end(distinct, counts, -1, len(values)) if -1 not in atoms else distinct[-1] - 0.5
    if lower is None and 0 <= distinct[0] < np.ptp(distinct) / 2:
        lower = -0.5  # what is counted is not negative
    heaped = np.zeros(len(distinct), dtype=bool)
    if common["role"] == "modeled":
        rest = np.isin(
            np.arange(len(distinct)), [end % len(distinct) for end in atoms], invert=True
        )
        heaped[rest] = heaped_values(distinct[rest], counts[rest])
    heaped[atoms] = True
    return Column(
        name,
        "integer",
        lower=None if lower is None else float(lower * step),
        upper=None if upper is None else float(upper * step),
        step=step,
        atoms=tuple((distinct[heaped] * step).tolist()),
        **common,
    )


def _end(distinct: np.ndarray, counts: np.ndarray, end: int, rows: int) -> float | None:
    """Half a step outside the first or last value, where that is frequent enough to be the end."""
    if counts[end] < max(END_SHARE * rows, END_ROWS):
        return None
    return distinct[end] + (0.5 if end else -0.5)


def _continuous(name: str, values: np.ndarray, atoms: tuple[float, ...], common: dict) -> Column:
    """Real, positive or bounded, whichever is nearest to a Gaussian after its transform."""
    if len(np.unique(values)) < 2:
        if atoms:
            raise TableError(
                f"column {shown(name)}: only {len(atoms) + len(np.unique(values))} different values; "
                "declare it categorical, or ignore it"
            )
        return Column(name, "real", **common)
    scores = {("real", None, None): gaussian_score(values, np.zeros(len(values))) + NEARER_BY}
    with np.errstate(divide="ignore", invalid="ignore"):
        if values.min() > 0:
            logs = np.log(values)
            scores["positive", 0.0, None] = gaussian_score(logs, -logs)
        for top in (1.0, 100.0):
            if values.min() > 0 and top / 2 < values.max() < top:
                logit = np.log(values / (top - values))
                slope = -np.log(values) - np.log(1 - values / top)
                scores["bounded", 0.0, top] = gaussian_score(logit, slope)
    kind, lower, upper = max(scores, key=scores.get)
    return Column(name, kind, lower=lower, upper=upper, atoms=atoms, **common)


def gaussian_score(transformed: np.ndarray, log_slope: np.ndarray) -> float:
    """Mean log-density (nats) of the best Gaussian in transformed coordinates, less a constant."""
    with np.errstate(
        over="ignore"
    ):  # a cell of 1e200 has no square, and an infinite spread says so
        spread = transformed.std()
    return float(log_slope.mean() - math.log(spread)) if spread > 0 else -math.inf


def _declared(
    name: str, values: np.ndarray, word: str, parameters: list[float], common: dict
) -> Column:
    """A numeric column of the kind that the user named, but for integers; its cells must fit."""
    if word == "positive" and not parameters:
        atoms = tuple(np.unique(values[values == 0]).tolist())
        _require(name, values, values >= 0, "numbers above zero")
        return Column(name, "positive", lower=0.0, atoms=atoms, **common)
    if word == "bounded" and len(parameters) == 2:
        lower, upper = parameters
        _require(
            name,
            values,
            (values >= lower) & (values <= upper),
            f"numbers from {lower:g} to {upper:g}",
        )
        atoms = tuple(end for end in parameters if (values == end).any())
        return Column(name, "bounded", lower=lower, upper=upper, atoms=atoms, **common)
    if word == "real" and not parameters:
        distinct, counts = np.unique(values, return_counts=True)
        return Column(
            name, "real", atoms=tuple(distinct[_heavy(counts, len(values))].tolist()), **common
        )
    raise TableError(
        f"type of {shown(name)}: expected real, positive, bounded:LOW:HIGH, integer, integer:STEP, "
        f"categorical or ignored, got {shown(':'.join([word, *(f'{number:g}' for number in parameters)]))}"
    )


def _declared_integer(
    series: pd.Series, values: np.ndarray, parameters: list[str], common: dict
) -> Column:
    """A column of multiples of one, or of the step that the user named."""
    name = str(series.name)
    if len(parameters) > 1:
        raise TableError(f"type of {shown(name)}: expected one step, got {len(parameters)}")
    step = _number(name, parameters[0]) if parameters else 1.0
    if not (math.isfinite(step) and step > 0):
        raise TableError(f"type of {shown(name)}: expected a step above zero, got {step:g}")
    steps = values / step
    fits = (np.abs(steps - np.round(steps)) < 1e-6) & (np.abs(steps) <= MOST_STEPS)
    _require(name, values, fits, f"multiples of {step:g}, at most 2^53 of them")
    dtype = "int64" if step == 1 and not common["missing"] else _dtype(series)
    return _integer(name, values, step, common | {"dtype": dtype})


def _require(name: str, values: np.ndarray, fits: np.ndarray, wanted: str) -> None:
    if not fits.all():
        raise TableError(
            f"column {shown(name)}: expected {wanted}, found {values[~fits][0]:g}; give it another type"
        )
