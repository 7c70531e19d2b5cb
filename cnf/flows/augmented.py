"""Augmented flows: additional noise columns, and a lower bound of the density."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cnf.flows.bases import NormalBase
from cnf.flows.flow import CNF


class AugmentedCNF(nn.Module):
    """A flow over data x and noise columns e, whose marginal p(x) = ∫ p(x, e) de is the model.

    A flow in the plane is a homeomorphism of the plane; with noise columns q(e) = N(0, I) the same
    points may leave it and pass each other (Huang et al., "Augmented normalizing flows", 2020;
    Chen et al., "VFlow", 2020). In return, p(x) is an integral. It has a lower bound, which
    increases towards log p(x) with the number of draws (Burda et al., "Importance weighted
    autoencoders", 2016),

        log p(x) ≥ E log (1/K) Σₖ p(x, eₖ) / q(eₖ),    e₁ … e_K ~ q,

    so this class has `log_prob_bound` instead of `log_prob`. Samples are exact.

    Args:
        flow: the joint flow, over the columns of x followed by those of e.
        augment: number of columns of e.

    Raises:
        ValueError: if `augment` does not leave a column for the data.

    Example:
        >>> model = AugmentedCNF(CNF(dim=3), augment=1)
        >>> model.sample((5,)).shape
        torch.Size([5, 2])
        >>> model.log_prob_bound(torch.zeros(4, 2), draws=10).shape
        torch.Size([4])
    """

    def __init__(self, flow: CNF, *, augment: int) -> None:
        super().__init__()
        if not 0 < augment < flow.dim:
            raise ValueError(
                f"augment: expected 1 to {flow.dim - 1} of the flow's columns; got {augment}"
            )
        self.flow = flow
        self.dim = flow.dim - augment
        self.noise = NormalBase(augment)

    def join(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """x (*batch, dim) with new noise columns, (*batch, dim + augment), for the fit of the
        joint flow.

        Maximum likelihood on such rows raises the bound of one draw, because the entropy of the
        noise is constant."""
        return torch.cat([x, self._noise(x, generator)], -1)

    def _noise(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.noise.sample(tuple(x.shape[:-1]), generator, dtype=x.dtype, device=x.device)

    def log_prob_bound(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        draws: int = 1,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """A random value in nats whose mean is at most log p(x | context), row by row.

        The mean over the noise does not decrease with the number of draws, and converges to log
        p(x); the mean of the exponential is p(x) for any number of draws.

        Args:
            x: (*batch, dim)
            context: (*batch, context_dim), broadcast against x.
            draws: K; every draw costs as much as a row of the joint flow.
            generator: source of the noise.

        Returns:
            (*batch,); NaN for rows that are not finite or cannot be solved.

        Raises:
            ValueError: for a wrong number of columns or no draws.
        """
        if draws < 1:
            raise ValueError(f"draws: expected at least 1; got {draws}")
        if x.shape[-1:] != (self.dim,):
            raise ValueError(f"x: expected {self.dim} columns; got shape {tuple(x.shape)}")
        batch = (
            x.shape[:-1]
            if context is None
            else torch.broadcast_shapes(x.shape[:-1], context.shape[:-1])
        )
        joint = self.join(x.expand(draws, *batch, self.dim), generator)
        log_ratio = self.flow.log_prob(joint, context) - self.noise.log_prob(
            joint[..., self.dim :]
        )
        return log_ratio.logsumexp(0) - math.log(draws)

    def sample(
        self,
        shape: Sequence[int] = (),
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draws (*shape, *batch, dim) of p(x | context), in the units of the data."""
        return self.flow.sample(shape, context, generator=generator)[..., : self.dim]
