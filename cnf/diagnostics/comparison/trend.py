"""Whether columns, two by two, go together alike."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from cnf.diagnostics.comparison.pair import TablePair


def trends(pair: TablePair) -> pd.DataFrame:
    """The likeness of each pair of columns, between 0 and 1, as a symmetric frame by name.

    For two numeric columns it is 1 − ½ |ρ − ρ'| with Pearson's correlations; otherwise 1 − ½ Σ |p −
    p'| over the cells of the contingency table, a missing cell being a level, and numbers in ten
    bins over the range that each table has. These are CorrelationSimilarity and
    ContingencySimilarity of sdmetrics, whose average over pairs is its Column Pair Trends. NaN on
    the diagonal, and where a column is constant.

    Example:
        >>> x = np.arange(20.0)
        >>> real, fake = pd.DataFrame({"x": x, "y": x}), pd.DataFrame({"x": x, "y": -x})
        >>> trends(TablePair.of(real, fake)).loc["x", "y"].item()
        0.0
    """
    binned = [_binned(table, pair) for table in (pair.real, pair.fake)]
    names = list(pair.real)
    found = pd.DataFrame(np.nan, index=names, columns=names)
    correlations = [_correlations(table[list(pair.numeric)]) for table in (pair.real, pair.fake)]
    for a, b in combinations(names, 2):
        if a in pair.numeric and b in pair.numeric:
            value = 1 - abs(correlations[0].loc[a, b] - correlations[1].loc[a, b]) / 2
        else:
            value = _contingency(binned[0][[a, b]], binned[1][[a, b]])
        found.loc[a, b] = found.loc[b, a] = value
    return found


def _correlations(table: pd.DataFrame) -> pd.DataFrame:
    """Pearson's correlations; NaN where a column is constant."""
    constant = table.nunique() < 2
    found = table.corr()
    found.loc[constant, :] = found.loc[:, constant] = np.nan
    return found


def _binned(table: pd.DataFrame, pair: TablePair) -> pd.DataFrame:
    """Numbers as the place of their bin; a missing one is in the last."""
    return table.assign(**{name: _digits(table[name]) for name in pair.numeric})


def _digits(numbers: pd.Series) -> np.ndarray:
    finite = numbers[np.isfinite(numbers)]
    return np.digitize(numbers, np.histogram_bin_edges(finite))


def _contingency(real: pd.DataFrame, fake: pd.DataFrame) -> float:
    shares = [
        table.groupby(list(table), dropna=False).size() / len(table) for table in (real, fake)
    ]
    return float(1 - shares[0].sub(shares[1], fill_value=0).abs().sum() / 2)
