"""Kernel densities on the sphere, which a flow has to beat if places repeat and lie on lines."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from scipy.spatial import cKDTree

import cnf.recipe.defaults as defaults
from cnf.flows import VonMisesFisherBase
from cnf.recipe.periodic_bases import some_rows
from cnf.rows import Rows, weighted_nll


def sphere_kernels(train: Rows, valid: Rows, seed: int) -> tuple[VonMisesFisherBase, float]:
    """A von Mises-Fisher kernel at every row, whose width is a factor times the distance to the k-th
    neighbor (Breiman, Meisel & Purcell 1977), and its held-out NLL; held-out rows choose k and the
    factor.

    The distance between repeated rows is zero; `defaults.KERNEL_LEAST_SPREAD` is the smallest width.

    Args:
        train: unit vectors; a subsample is taken of many.
        valid: held-out unit vectors.
        seed: seed of the subsample.
    """
    rows = some_rows(train, seed)
    points = rows.x.cpu().numpy()
    most = min(max(defaults.KERNEL_NEIGHBORS), len(points) - 1)
    distances, _ = cKDTree(points).query(points, k=most + 1)
    found: list[tuple[float, VonMisesFisherBase]] = []
    for neighbor, share in product(defaults.KERNEL_NEIGHBORS, defaults.KERNEL_SHARES):
        spread = share * distances[:, min(neighbor, most)]
        base = _kernels(rows, np.maximum(spread, defaults.KERNEL_LEAST_SPREAD)).to(train.x)
        found.append((weighted_nll(base.log_prob(valid.x), valid.weights)[0], base))
    nll, best = min(found, key=lambda pair: pair[0])
    return best, nll


def _kernels(rows: Rows, spreads: np.ndarray) -> VonMisesFisherBase:
    weights = rows.weights
    weights = torch.ones(len(rows), dtype=rows.x.dtype) if weights is None else weights.to(rows.x)
    return VonMisesFisherBase(weights.to(rows.x), rows.x, torch.as_tensor(spreads).to(rows.x))
