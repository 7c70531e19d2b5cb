"""A flow bound to a context, as a torch distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from cnf.rows import Numbers

Shape = int | Sequence[int]


class FlowDistribution(Distribution):
    """p(x | context) of a flow, for everything that takes a `torch.distributions.Distribution`.

    Args:
        flow: a `CNF`.
        context: (*batch, context_dim), or None; its batch is the batch shape.

    Example:
        >>> from cnf.flows.flow import CNF
        >>> p = CNF(dim=2)()
        >>> p.log_prob(p.sample((4,))).shape
        torch.Size([4])
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - the name and type are torch's
    has_rsample = True

    def __init__(
        self, flow: Any, context: Numbers | None = None, *, validate_args: bool | None = None
    ) -> None:
        self.flow, self.bound = flow, flow.bind(context)
        self.context = self.bound.context
        batch = torch.Size() if self.context is None else self.context.shape[:-1]
        super().__init__(batch, torch.Size([flow.dim]), validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """All real vectors."""
        return constraints.real_vector

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> FlowDistribution:
        """The same distribution with its context repeated over a larger batch shape."""
        if self.context is None:
            context = torch.empty(*batch_shape, 0, dtype=self.flow.dtype, device=self.flow.device)
        else:
            context = self.context.expand(*batch_shape, self.context.shape[-1])
        return FlowDistribution(self.flow, context, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density (*sample, *batch) of value (*sample, *batch, dim), in nats."""
        return self.bound.log_prob(value)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """Draws (*sample, *batch, dim) through which gradients flow."""
        return self.bound.rsample(sample_shape)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Draws (*sample, *batch, dim)."""
        with torch.no_grad():
            return self.rsample(sample_shape)
