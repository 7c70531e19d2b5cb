"""How near synthetic rows are to real ones: whether rows were memorized."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import numpy as np
import pandas as pd

from cnf.diagnostics.comparison.pair import TablePair, some_rows

MOST_ROWS = 5_000  # of each table
CHUNK = 250  # rows whose distances are held at once

Gap: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]


def closest_records(rows: pd.DataFrame, reference: pd.DataFrame, pair: TablePair) -> np.ndarray:
    """The distance of each row to the closest of a reference (rows,), between 0 and 1.

    A distance is the mean over the columns: |x − x'| over the range of the reference and at most 1
    for numbers, 0 or 1 for categories and for one missing cell of two (Gower 1971). It is the DCR
    of sdmetrics.

    Example:
        >>> table = pd.DataFrame({"x": np.arange(11.0)})
        >>> pair = TablePair.of(table, table + 0.5)
        >>> closest_records(pair.fake[:2], pair.real, pair).tolist()
        [0.05, 0.05]
    """
    parts = [_column(name, rows, reference, pair) for name in pair.real]
    found = []
    for start in range(0, len(rows), CHUNK):
        gaps = [gap(ours[start : start + CHUNK, None], theirs) for ours, theirs, gap in parts]
        found.append(np.sum(gaps, axis=0).min(1) / len(parts))
    return np.concatenate(found)


def _column(
    name: str, rows: pd.DataFrame, reference: pd.DataFrame, pair: TablePair
) -> tuple[np.ndarray, np.ndarray, Gap]:
    """A column of both tables as numbers, and the distance of two of its cells."""
    if name not in pair.numeric:
        codes = pd.factorize(pd.concat([rows[name], reference[name]]), use_na_sentinel=False)[0]
        return codes[: len(rows)], codes[len(rows) :], np.not_equal
    ours, theirs = rows[name].to_numpy(float), reference[name].to_numpy(float)
    span = np.nanmax(theirs) - np.nanmin(theirs) if np.isfinite(theirs).any() else 0.0
    return ours, theirs, partial(_gap, span=span)


def _gap(a: np.ndarray, b: np.ndarray, span: float) -> np.ndarray:
    moved = np.abs(a - b)
    scaled = np.minimum(moved / span, 1.0) if span > 0 else (moved > 0).astype(float)
    return np.where(np.isnan(moved), np.isnan(a) != np.isnan(b), scaled)


def nearer_to_training(pair: TablePair, held_out: pd.DataFrame, seed: int) -> float:
    """The share of synthetic rows whose closest real row is one of the training rows and not one of
    as many held-out rows; ½ where nothing was memorized, 1 where rows were copied.

    A tie counts half. Where there are none this is the share `closer_to_training` of
    DCROverfittingProtection in sdmetrics.

    Args:
        pair: the training rows and the synthetic ones.
        held_out: real rows that the synthetic ones were not made from, as `TablePair.beside` gives
            them.
        seed: of the rows that are compared.
    """
    random, count = np.random.default_rng(seed), min(MOST_ROWS, len(pair.real), len(held_out))
    train, other = some_rows(pair.real, count, random), some_rows(held_out, count, random)
    fake = some_rows(pair.fake, MOST_ROWS, random)
    to_train, to_other = (closest_records(fake, part, pair) for part in (train, other))
    return float((to_train < to_other).mean() + (to_train == to_other).mean() / 2)
