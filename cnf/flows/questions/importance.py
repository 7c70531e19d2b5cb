"""Means of log-weights, with diagnostics of their reliability."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

# Standard errors of a bar: it covers the true value 99 times of a hundred and more.
STANDARD_ERRORS = 3.0
# The same for few parts of the draws, by Student's t with three degrees of freedom.
PARTS, PARTS_ERRORS = 4, 5.84
# The tail of the weights of a sound estimate (Vehtari et al. 2024).
SOUND_TAIL = 0.7
FEWEST_WEIGHTS = 25


class LogMean(NamedTuple):
    """The logarithm of the mean weight of each row.

    Attributes:
        value: (rows,), nats.
        error: bound of its sampling error (rows,), nats.
        ess: effective sample size (Kish) as a share of the draws (rows,), in (0, 1].
    """

    value: Tensor
    error: Tensor
    ess: Tensor


def log_mean(log_weights: Tensor, *, even: bool) -> LogMean:
    """The log-mean of log-weights (draws, rows).

    If the weights vary smoothly and the draws are `even`, as those of a Sobol sequence, the means of
    parts of them show an error far below that of independent draws.

    >>> log_mean(torch.zeros(4, 1), even=False).ess
    tensor([1.])
    """
    draws = len(log_weights)
    value = log_weights.logsumexp(0) - math.log(draws)
    relative = (log_weights - value).exp()
    ess = 1 / relative.square().mean(0).clamp(min=1.0)
    if draws == 1:
        return LogMean(value, value * 0, ess)
    parts, factor = (PARTS, PARTS_ERRORS) if even else (draws, STANDARD_ERRORS)
    means = relative.unflatten(0, (parts, -1)).mean(1)
    return LogMean(value, factor * (means.var(0) / parts).sqrt(), ess)


def importance_weights(log_ratio: Tensor) -> Tensor:
    """Weights (rows,) with mean one that turn rows from p₀ into a sample of p₁.

    w = min(p₁/p₀, √n) of n rows, over their mean: the mean of p₁/p₀ is one, and without truncation
    the few largest estimated ratios would dominate. Truncation biases averages slightly. A row
    without a ratio (NaN) has no weight either, and counts for nothing in those of the others.

    Args:
        log_ratio: log p₁ − log p₀ of every row (rows,), as `log_density_ratio` gives it.

    Source: Ionides (2008), Truncated importance sampling.

    Example:
        >>> importance_weights(torch.tensor([0.0, 0.0, 50.0, 0.0]))
        tensor([0.8000, 0.8000, 1.6000, 0.8000])
    """
    most = math.log(max(int(log_ratio.isfinite().sum()), 1)) / 2
    kept = log_ratio.clamp(max=most)
    weights = (kept - kept.nan_to_num(-math.inf).max()).exp()
    return weights / weights.nanmean()


def pareto_k(log_weights: Tensor) -> float:
    """The shape k of the generalized Pareto distribution that fits the largest weights (Vehtari et
    al. 2024).

    Weights have a finite mean for k < 1 and a finite variance for k < ½; estimates by weights are
    reliable for k < 0.7. The tail is the largest min(n/5, 3√n) of n weights, its fit that of Zhang
    and Stephens (2009), drawn towards ½ as by ten further weights.

    Args:
        log_weights: (n,), up to a constant; at least 25 of them.

    Returns:
        k; −inf where the largest weights are all the same.

    Raises:
        ValueError: for fewer than 25 weights, or one that is NaN.

    Example:
        >>> u = torch.rand(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> round(pareto_k(-0.5 * u.log()), 1)  # w = u^(−½)
        0.5
    """
    n = len(log_weights)
    if n < FEWEST_WEIGHTS or log_weights.isnan().any():
        raise ValueError(f"log_weights: expected at least 25 numbers and no NaN; got {n}")
    size = math.ceil(min(n / 5, 3 * n**0.5))
    largest = (log_weights.double() - log_weights.max()).sort().values[-size - 1 :].exp()
    tail = largest[1:] - largest[0]
    if tail[-1] <= 0:
        return -math.inf
    return (size * _pareto_shape(tail[tail > 0]) + 10 * 0.5) / (size + 10)


def _pareto_shape(x: Tensor) -> float:
    """k of a generalized Pareto sample x > 0, ascending: the posterior mean of Zhang and Stephens
    (2009)."""
    n = len(x)
    candidates = 30 + int(n**0.5)
    rank = torch.arange(1, candidates + 1, dtype=x.dtype, device=x.device)
    quartile = x[int(n / 4 + 0.5) - 1]
    theta = 1 / x[-1] + (1 - (candidates / (rank - 0.5)).sqrt()) / (3 * quartile)
    shapes = torch.log1p(-theta[:, None] * x).mean(1)
    log_likelihood = n * ((-theta / shapes).log() - shapes - 1)
    mean = (log_likelihood.softmax(0) * theta).sum()
    return torch.log1p(-mean * x).mean().item()
