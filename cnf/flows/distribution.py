"""A flow bound to a context, as a torch distribution."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl

from cnf.flows.held_tensors import HeldTensors
from cnf.flows.support import support_of
from cnf.functional import transformed
from cnf.inputs import Numbers, as_tensor, require_context

Shape = int | Sequence[int]
# Draws of an estimate, and the seed that makes it the same every time.
DRAWS, SEED = 1024, 0


class Estimates(NamedTuple):
    """Expectations of a distribution from draws, with their standard errors.

    Attributes:
        mean: (*batch, dim)
        mean_error: of the mean.
        variance: (*batch, dim)
        variance_error: of the variance.
        entropy: (*batch,), in nats.
        entropy_error: of the entropy.
    """

    mean: Tensor
    mean_error: Tensor
    variance: Tensor
    variance_error: Tensor
    entropy: Tensor
    entropy_error: Tensor


class FlowDistribution(Distribution):
    """p(x | context) of a flow, for everything that takes a `torch.distributions.Distribution`, and
    for `pyro.sample`.

    Mean, variance and entropy are estimates from 1,024 draws, which are the same at every call;
    `estimates` gives their standard errors. `kl_divergence` between a flow and any distribution is
    estimated in the same way.

    Args:
        flow: a `CNF`.
        context: (*batch, context_dim), or None; its batch is the batch shape.
        validate_args: whether `log_prob` raises a ValueError for values outside the support; torch's
            default is True.

    Example:
        >>> from cnf.flows.flow import CNF
        >>> p = CNF(dim=2)()
        >>> p.log_prob(p.sample((4,))).shape
        torch.Size([4])
        >>> round(torch.distributions.kl_divergence(p, p).item(), 3)
        0.0
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - the name and type are torch's
    has_rsample = True

    def __init__(
        self, flow: Any, context: Numbers | None = None, *, validate_args: bool | None = None
    ) -> None:
        self.flow, self.bound = flow, flow.bind(context)
        self.context = self.bound.context
        require_context(self.context, flow.context_dim)
        self.held = HeldTensors(flow)
        self.drawn: tuple[Tensor, Tensor] | None = None
        batch = torch.Size() if self.context is None else self.context.shape[:-1]
        super().__init__(batch, torch.Size([flow.dim]), validate_args=validate_args)

    def __call__(self, sample_shape: Shape = ()) -> Tensor:
        """Draws, as pyro asks for them; if it asks for their density next, that is there."""
        self.drawn = self.rsample_and_log_prob(sample_shape)
        return self.drawn[0]

    def __getattr__(self, name: str) -> Any:
        # What pyro asks of a distribution beside torch's methods (to_event, mask, …) comes from its
        # own mixin, where pyro is in use.
        module = sys.modules.get("pyro.distributions.torch_distribution")
        found = getattr(getattr(module, "TorchDistributionMixin", None), name, None)
        if found is None or name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return found.__get__(self, type(self))

    def __repr__(self) -> str:
        """One line, without numbers."""
        return f"FlowDistribution of {self.flow!r}, batch shape {tuple(self.batch_shape)}"

    @property
    def support(self) -> constraints.Constraint:
        """The set where the density is positive: all real vectors, or those within the ranges of
        the transform."""
        return support_of(self.bound)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> FlowDistribution:
        """The same distribution with its context repeated over a larger batch shape."""
        if self.context is None:
            context = torch.empty(*batch_shape, 0, dtype=self.flow.dtype, device=self.flow.device)
        else:
            context = self.context.expand(*batch_shape, self.context.shape[-1])
        expanded = type(self)(self.flow, context, validate_args=self._validate_args)
        expanded.held = self.held
        return expanded

    def log_prob(self, value: Numbers) -> Tensor:
        """Log-density (*sample, *batch) of value (*sample, *batch, dim), in nats.

        Raises:
            ValueError: for a value outside the support, if arguments are validated.
        """
        if self.drawn is not None and value is self.drawn[0]:
            return self.drawn[1]
        if self._validate_args and not transformed():
            rows, *_ = self.bound.rows(value)
            if len(rows):  # torch cannot validate none
                self._validate_sample(as_tensor(value))
        return self.held.answer(lambda: self.bound.log_prob(value))

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """Draws (*sample, *batch, dim) through which gradients flow."""
        return self.held.answer(lambda: self.bound.rsample(sample_shape))

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Draws (*sample, *batch, dim)."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def rsample_and_log_prob(self, sample_shape: Shape = ()) -> tuple[Tensor, Tensor]:
        """Draws (*sample, *batch, dim) and their log-densities (*sample, *batch) from one solve."""
        return self.held.answer(lambda: self.bound.sample_and_log_prob(sample_shape))

    def estimates(self, draws: int = DRAWS, seed: int = SEED) -> Estimates:
        """Mean, variance and entropy from this number of draws, with their standard errors."""
        x, log_prob = _seeded(self, draws, seed)
        mean, mean_error = _mean(x)
        square = (x - mean).square()
        variance = square.sum(0) / (draws - 1)
        entropy, entropy_error = _mean(-log_prob)
        return Estimates(mean, mean_error, variance, _mean(square)[1], entropy, entropy_error)

    @property
    def mean(self) -> Tensor:
        """E x (*batch, dim), estimated."""
        return self.estimates().mean

    @property
    def variance(self) -> Tensor:
        """The variance of each column (*batch, dim), estimated."""
        return self.estimates().variance

    def entropy(self) -> Tensor:
        """−E log p (*batch,) in nats, estimated."""
        return self.estimates().entropy


def kl_estimate(
    p: Distribution, q: Distribution, draws: int = DRAWS, seed: int = SEED
) -> tuple[Tensor, Tensor]:
    """KL(p ‖ q) = E_p[log p − log q] (*batch,) in nats, and its standard error, from this number
    of draws of p."""
    x, log_prob = _seeded(p, draws, seed)
    return _mean(log_prob - q.log_prob(x))


@register_kl(FlowDistribution, FlowDistribution)
@register_kl(FlowDistribution, Distribution)
@register_kl(Distribution, FlowDistribution)
def _kl_of_flows(p: Distribution, q: Distribution) -> Tensor:
    return kl_estimate(p, q)[0]


def _seeded(p: Distribution, draws: int, seed: int) -> tuple[Tensor, Tensor]:
    """The same draws of p every time, and their log-densities; torch's generators stay as they
    are."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if isinstance(p, FlowDistribution):
            return p.rsample_and_log_prob((draws,))
        x = p.rsample((draws,)) if p.has_rsample else p.sample((draws,))
        return x, p.log_prob(x)


def _mean(values: Tensor) -> tuple[Tensor, Tensor]:
    """The mean over draws, and its standard error."""
    return values.mean(0), values.std(0) / len(values) ** 0.5
