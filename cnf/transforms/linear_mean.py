"""The mean of columns as a linear function of features, by ridge regression."""

from __future__ import annotations

import torch
from torch import Tensor

# One row's worth of pull towards zero keeps the slopes of rare categories small.
RIDGE = 1.0
# Of fewer rows for each feature, the pull is one of these times as strong as leave-one-out errors
# ask for, and these errors are what the columns differ from their means by.
ROWS_A_FEATURE, PULLS = 10, (1.0, 4.0, 16.0, 64.0, 256.0, 1e6)


def fit_mean(
    features: Tensor, y: Tensor, present: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Slopes (columns, 1 + features) of E[y | features], the level first, and how far rows are from
    that mean (rows, columns), zero where absent.

    A row of few is as far as from a mean that was fitted without it, (yᵢ − ŷᵢ) / (1 − hᵢ) with the
    leverage hᵢ: as many features as rows would otherwise leave nothing.

    Args:
        features: (rows, features)
        y: (rows, columns)
        present: which cells there are (rows, columns).
        weights: of the rows (rows,).

    Example:
        >>> x = torch.linspace(-1, 1, 100).double()[:, None]
        >>> slopes, rest = fit_mean(x, 2 * x + 1, x == x, torch.ones(100).double())
        >>> [round(each, 2) for each in slopes[0].tolist()], bool(rest.abs().max() < 0.1)
        ([1.0, 1.94], True)
    """
    if len(y) < ROWS_A_FEATURE * features.shape[1]:
        return _of_few(features, y, present, weights)
    x = torch.cat((features.new_ones(len(features), 1), features), 1)
    pull = RIDGE * torch.eye(x.shape[1], dtype=y.dtype, device=y.device)
    pull[0, 0] = 1e-9  # the level itself is free
    slopes = []
    for j in range(y.shape[1]):
        mass = weights * present[:, j]
        normal = (mass[:, None] * x).T @ x + pull
        slopes.append(torch.linalg.solve(normal, (mass[:, None] * x).T @ y[:, j]))
    held = torch.stack(slopes)
    return held, (y - x @ held.T).where(present, 0.0)


def _of_few(
    features: Tensor, y: Tensor, present: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """`fit_mean` with the pull that leave-one-out errors over all columns choose."""
    pulls = RIDGE * y.new_tensor(PULLS)
    slopes, left = [], []
    for j in range(y.shape[1]):
        found = _ridge_path(features, y[:, j], weights * present[:, j], pulls)
        slopes.append(found[0])
        left.append(found[1])
    rest = torch.stack(left, 2).where(present, 0.0)  # (pulls, rows, columns)
    best = (weights[:, None] * rest.square()).sum((1, 2)).argmin()
    return torch.stack(slopes, 1)[best], rest[best]


def _ridge_path(features: Tensor, y: Tensor, mass: Tensor, pulls: Tensor) -> tuple[Tensor, Tensor]:
    """Of one column, for each pull: the slopes (pulls, 1 + features), and the errors without the
    row itself (pulls, rows)."""
    share = mass / mass.sum().clamp(min=1e-9)
    center, level = share @ features, share @ y
    root = mass.sqrt()
    u, s, v = torch.linalg.svd(root[:, None] * (features - center), full_matrices=False)
    along = u.T @ (root * (y - level))
    kept = s.square() / (s.square() + pulls[:, None])  # (pulls, directions)
    slopes = (kept / s.clamp(min=1e-12) * along) @ v
    levels = level - slopes @ center
    leverage = kept @ u.square().T + share
    errors = (y - levels[:, None] - slopes @ features.T) / (1 - leverage).clamp(min=1e-3)
    return torch.cat((levels[:, None], slopes), 1), errors
