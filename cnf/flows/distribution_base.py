"""Densities of `torch.distributions` as bases."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from cnf.flows.bases import Base


def as_base(base: Base | Distribution) -> Base:
    """The base itself, or a distribution as a `DistributionBase`."""
    return DistributionBase(base) if isinstance(base, Distribution) else base


class DistributionBase(Base):
    """A `torch.distributions.Distribution` whose event has one axis, as a base density.

    Its tensors move with the flow, and are not trained. A model file cannot hold it: to save the
    flow, write the density as a `Base` and register it.

    Args:
        distribution: without a batch, of events (dim,).

    Raises:
        ValueError: for a batch, or events of another number of axes.

    Example:
        >>> from torch.distributions import Independent, Laplace
        >>> base = DistributionBase(Independent(Laplace(torch.zeros(2), torch.ones(2)), 1))
        >>> base.dim, base.log_prob(torch.zeros(5, 2)).shape
        (2, torch.Size([5]))
    """

    def __init__(self, distribution: Distribution) -> None:
        if distribution.batch_shape or len(distribution.event_shape) != 1:
            raise ValueError(
                "base: expected a distribution without a batch whose event has one axis; got batch"
                f" {tuple(distribution.batch_shape)} and event {tuple(distribution.event_shape)}:"
                " wrap it in torch.distributions.Independent"
            )
        super().__init__(distribution.event_shape[0])
        self.form = _mapped(distribution, self._kept)

    def config(self) -> dict[str, Any]:
        """A file holds no distribution."""
        raise ValueError(
            "a model file cannot rebuild a torch distribution: write the density as a Base"
        )

    @property
    def distribution(self) -> Distribution:
        """The distribution of the buffers. Points outside its support have density zero and raise
        no error."""
        tensors = self.buffers()
        return _mapped(self.form, lambda _: next(tensors))

    def _kept(self, tensor: Tensor) -> Tensor:
        self.register_buffer(f"tensor{len(self._buffers)}", tensor)
        return tensor

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density (*batch,) of z (*batch, dim), −∞ outside the support."""
        distribution = self.distribution
        log_prob, support = distribution.log_prob(z), distribution.support
        return log_prob if support is None else log_prob.where(support.check(z), -torch.inf)

    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draws (*shape, dim). A distribution knows no generator: a given one seeds torch's own for
        the moment."""
        distribution = self.distribution
        if generator is None:
            return distribution.sample(shape).to(device, dtype)
        seed = torch.randint(2**62, (), generator=generator, device=generator.device)
        devices = [generator.device] if generator.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed.item())
            return distribution.sample(shape).to(device, dtype)

    def describe(self) -> str:
        """The base in words."""
        inner = getattr(self.form, "base_dist", self.form)
        return type(inner).__name__


def _mapped(distribution: Distribution, fn: Callable[[Tensor], Tensor]) -> Distribution:
    """A copy of a distribution with a function applied to its tensors, and to those of the
    distributions inside it; it does not validate its arguments."""
    found = copy.copy(distribution)
    found._validate_args = False
    for name, value in vars(distribution).items():
        if isinstance(value, Tensor):
            setattr(found, name, fn(value.detach()))
        elif isinstance(value, Distribution):
            setattr(found, name, _mapped(value, fn))
    return found
