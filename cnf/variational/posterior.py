"""A posterior known up to its normalizing constant, and its Laplace approximation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.functional import hessian, jacobian
from torch.nn.functional import logsigmoid

from cnf.transforms import Affine
from cnf.variational.reverse_kl import LogDensity

NEWTON_STEPS = 50


class LogisticPosterior:
    """Bayesian logistic regression: log p(w | data) = Σᵢ log σ(yᵢ (w₀ + w·xᵢ)) − |w|² / 2s² +
    constant.

    Intercept and coefficients have independent normal priors of mean 0 and the standard deviation
    s.

    Args:
        features: x (rows, columns), best standardized.
        labels: true or false, (rows,).
        prior_scale: s.

    Raises:
        ValueError: for shapes that do not fit, or a scale that is not positive.

    Example:
        >>> posterior = LogisticPosterior(torch.randn(20, 3), torch.rand(20) < 0.5)
        >>> posterior.dim, posterior.log_density(torch.zeros(5, 4)).shape
        (4, torch.Size([5]))
    """

    def __init__(self, features: Tensor, labels: Tensor, *, prior_scale: float = 1.0) -> None:
        if features.dim() != 2 or labels.shape != features.shape[:1] or not prior_scale > 0:
            raise ValueError(
                "expected features (rows, columns), labels (rows,) and a positive prior_scale;"
                f" got {tuple(features.shape)}, {tuple(labels.shape)}, {prior_scale}"
            )
        signs = 2 * labels.to(features) - 1
        # σ(y (w₀ + w·x)): each row is multiplied by its sign, so one matrix product scores every w.
        self.signed = signs[:, None] * torch.cat(
            [features.new_ones(len(features), 1), features], 1
        )
        self.prior_scale = prior_scale
        self.dim = self.signed.shape[1]

    def log_density(self, w: Tensor) -> Tensor:
        """log p(w | data) (*batch,) up to a constant, in nats; w (*batch, 1 + columns), intercept
        first."""
        fit = logsigmoid(w @ self.signed.to(w).T).sum(-1)
        return fit - 0.5 * (w / self.prior_scale).square().sum(-1)


def laplace(log_density: LogDensity, start: Tensor) -> Affine:
    """The Gaussian at the mode of a log-concave density: x = mode + A y with A Aᵀ = (−∇²log p)⁻¹.

    Used as the `preprocess` of a flow, it makes the untrained flow equal to that Gaussian. The mode
    is found by Newton's method in float64.

    Args:
        log_density: log p̃ () of x (dim,), twice differentiable.
        start: start of the search for the mode, (dim,).

    Raises:
        ValueError: if the density is not log-concave along the way, or the search does not end.

    Example:
        >>> gaussian = laplace(lambda x: -((x - 3) / 0.5).square().sum() / 2, torch.zeros(1))
        >>> gaussian.shift, gaussian.matrix
        (tensor([3.], dtype=torch.float64), tensor([[0.5000]], dtype=torch.float64))
    """
    x, best = start.double(), log_density(start.double())
    for _ in range(NEWTON_STEPS):
        factor, info = torch.linalg.cholesky_ex(-hessian(log_density, x))
        if info > 0:
            raise ValueError(
                "laplace: expected a log-concave density; its curvature has another sign"
            )
        slope = jacobian(log_density, x)
        step = torch.cholesky_solve(slope[:, None], factor)[:, 0]
        gain = slope @ step  # twice what a quadratic would gain
        if gain < 1e-18 * max(1.0, best.abs().item()):
            return Affine(x, torch.linalg.inv(factor).T)
        while (found := log_density(x + step)) < best + 0.1 * gain and gain > 1e-12:
            step, gain = step / 2, gain / 2
        x, best = x + step, found
    raise ValueError(f"laplace: no mode was found in {NEWTON_STEPS} steps of Newton's method")
