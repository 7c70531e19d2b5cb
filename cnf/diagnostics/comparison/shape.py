"""Whether columns, one by one, are distributed alike."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import ks_2samp

from cnf.diagnostics.comparison.pair import TablePair

DECIMALS = 14  # differences beyond these are rounding


def shapes(pair: TablePair) -> dict[str, float]:
    """The likeness of each column, between 0 and 1.

    For numbers it is 1 − sup |F − G| (Kolmogorov and Smirnov), for categories 1 − ½ Σ |p − q| (total
    variation), both over the cells that are not missing; NaN where there are none. These are
    KSComplement and TVComplement of sdmetrics.

    Example:
        >>> real = pd.DataFrame({"x": np.arange(20.0), "group": list("ab") * 10})
        >>> shapes(TablePair.of(real, real.assign(group="a")))
        {'x': 1.0, 'group': 0.5}
    """
    found = {}
    for name in pair.real:
        measured = _of_numbers if name in pair.numeric else _of_categories
        found[str(name)] = measured(pair.real[name].dropna(), pair.fake[name].dropna())
    return found


def _of_numbers(real: pd.Series, fake: pd.Series) -> float:
    if not len(real) or not len(fake):
        return np.nan
    return float(1 - ks_2samp(real.round(DECIMALS), fake.round(DECIMALS)).statistic)


def _of_categories(real: pd.Series, fake: pd.Series) -> float:
    if not len(real) or not len(fake):
        return np.nan
    shares = [cells.value_counts(normalize=True) for cells in (real, fake)]
    return float(1 - shares[0].sub(shares[1], fill_value=0).abs().sum() / 2)
