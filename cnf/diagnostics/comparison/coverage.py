"""Where rows lie: α-precision and β-recall."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import NearestNeighbors

from cnf.diagnostics.comparison.detection import encoded
from cnf.diagnostics.comparison.pair import TablePair

MOST_ROWS = 10_000  # of each table
LEVELS = np.linspace(0, 1, 30)


def coverage(pair: TablePair, seed: int) -> tuple[float, float]:
    """α-precision and β-recall (Alaa et al. 2022), between 0 and 1, without an embedding.

    The first asks of each share α whether the ball around the real mean that holds it of the real
    rows holds as much of the synthetic ones. The second asks of each share β how many real rows
    have a synthetic row nearer than the next real one, among the β most central. Each is
    1 − Σ |share − found| / Σ share over 30 shares. Columns are scaled by the range of the real
    rows, categories are one column a level.

    Example:
        >>> import pandas as pd
        >>> x = pd.DataFrame({"x": np.random.default_rng(0).normal(size=400)})
        >>> precision, recall = coverage(TablePair.of(x, x + 50), 0)
        >>> round(precision, 2)
        0.0
    """
    real, fake = encoded(pair.sampled(MOST_ROWS, seed))
    low, span = real.min(0), np.ptp(real, axis=0)
    real, fake = ((rows - low) / np.where(span > 0, span, 1) for rows in (real, fake))
    return _precision(real, fake), _recall(real, fake)


def _precision(real: np.ndarray, fake: np.ndarray) -> float:
    center = real.mean(0)
    radii = np.quantile(np.linalg.norm(real - center, axis=1), LEVELS)
    distances = np.linalg.norm(fake - center, axis=1)
    return _agreement((distances[:, None] <= radii).mean(0))


def _recall(real: np.ndarray, fake: np.ndarray) -> float:
    to_real = NearestNeighbors(n_neighbors=2).fit(real).kneighbors(real)[0][:, 1]
    to_fake, places = NearestNeighbors(n_neighbors=1).fit(fake).kneighbors(real)
    central = np.linalg.norm(fake[places[:, 0]] - fake.mean(0), axis=1)
    radii = np.quantile(central, LEVELS)
    covered = to_fake[:, 0] <= to_real
    return _agreement((covered[:, None] & (central[:, None] <= radii)).mean(0))


def _agreement(found: np.ndarray) -> float:
    return float(1 - np.abs(LEVELS - found).sum() / LEVELS.sum())
