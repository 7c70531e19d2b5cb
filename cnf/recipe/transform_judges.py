"""Scores of candidate transforms, by small mixtures fitted in their coordinates."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import cnf.recipe.defaults as defaults
from cnf.flows.mixtures import fitted_mixture
from cnf.recipe.growing_mixtures import growing_mixtures
from cnf.rows import Rows, weighted_nll
from cnf.transforms import Transform

Judge = Callable[[Transform, Rows, Rows, int], list[float]]


def mixture_nll(transform: Transform, train: Rows, valid: Rows, seed: int) -> list[float]:
    """Held-out NLL of two small mixtures, the coarser first, in the coordinates of the transform, in
    nats per row and the units of the data; infinite if a mixture cannot be fitted."""
    rows, y, ladj = _judged(transform, train, valid, seed)
    found = []
    for components in defaults.TRANSFORM_COMPONENTS:
        try:
            model = fitted_mixture(
                rows, components, seed=seed,
                iterations=defaults.TRANSFORM_ITERATIONS, smallest=defaults.TRANSFORM_VARIANCE,
            )  # fmt: skip
        except ValueError:  # the rows are too far apart for a covariance
            found.append(math.inf)
            continue
        scores = torch.as_tensor(model.score_samples(y.numpy(force=True)), device=y.device)
        found.append(weighted_nll(scores + ladj, valid.weights)[0])
    return found


def grown_mixture_nll(transform: Transform, train: Rows, valid: Rows, seed: int) -> list[float]:
    """`mixture_nll` with smaller mixtures, which take a tenth of the time."""
    rows, y, ladj = _judged(transform, train, valid, seed)
    sizes = defaults.HASTY_TRANSFORM_COMPONENTS
    grown = {
        len(mixture.weights): weighted_nll(mixture.to(y).log_prob(y) + ladj, valid.weights)[0]
        for mixture in growing_mixtures(torch.as_tensor(rows), seed, most=max(sizes))
        if len(mixture.weights) in sizes
    }
    return [grown.get(size, math.inf) for size in sizes]


def _judged(
    transform: Transform, train: Rows, valid: Rows, seed: int
) -> tuple[NDArray[np.float32], Tensor, Tensor]:
    """A sample of the training rows in single precision and the held-out rows, both in the coordinates
    of a transform, and the log-Jacobian of the latter."""
    generator = torch.Generator(train.x.device).manual_seed(seed)
    most = defaults.TRANSFORM_SAMPLE
    chosen = torch.randperm(len(train), generator=generator, device=train.x.device)[:most]
    if train.weights is not None:
        chosen = torch.multinomial(train.weights, most, replacement=True, generator=generator)
    y, ladj = transform(valid.x)
    return transform(train.x[chosen])[0].float().numpy(force=True), y.float(), ladj
