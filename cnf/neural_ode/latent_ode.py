"""The latent ODE: noisy observations of a state that solves an ordinary differential equation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from cnf.fields import VelocityField
from cnf.neural_ode.latent_path import Path
from cnf.neural_ode.latent_recognition import Recognition
from cnf.neural_ode.latent_series import Series
from cnf.ode import Grid, solve


class SkipNet(nn.Module):
    """y = A x + W₂ tanh(W₁ x + b₁) + b₂: a linear map plus a network of one hidden layer."""

    def __init__(self, inputs: int, units: int, outputs: int) -> None:
        super().__init__()
        self.inner = nn.Linear(inputs, units)
        self.outer = nn.Linear(units, outputs)
        self.straight = nn.Linear(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """y (*batch, outputs) of x (*batch, inputs)."""
        return self.straight(x) + self.outer(torch.tanh(self.inner(x)))


class LatentField(VelocityField):
    """dz/dt = A (z, context) + W₂ tanh(W₁ (z, context) + b₁) + b₂, independent of time."""

    def __init__(self, dim: int, units: int, *, context_dim: int = 0) -> None:
        super().__init__(dim, context_dim)
        self.net = SkipNet(dim + context_dim, units, dim)

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Velocity (*batch, dim) of states x (*batch, dim), whatever t is."""
        return self.net(
            x if context is None else torch.cat([x, context.expand(*x.shape[:-1], -1)], -1)
        )


@dataclass(frozen=True)
class Prediction:
    """The predictive distribution of a latent ODE at some times.

    Attributes:
        mean: (batch, length, channels).
        deviation: standard deviation of an observation, due to the uncertain start and the noise,
            (batch, length, channels).
        draws: of the noise-free values, (draws, batch, length, channels).
    """

    mean: Tensor
    deviation: Tensor
    draws: Tensor


class LatentODE(nn.Module):
    """A generative model of irregular series (Chen et al. 2018; Rubanova, Chen & Duvenaud 2019).

    z(start) ~ N(0, I), dz/dt = v(z, context), and x(t) ~ N(g(z(t)), diag(noise²)); a recognition
    network computes the posterior of z(start) from the observations.

    Args:
        channels: number of channels of the series.
        latent: dimension of z.
        hidden: units of the recognition network.
        units: of the hidden layers of v and of g.
        context_dim: number of context columns of a series.
        start: time of z(start); predictions are for this time and later, observations may lie
            before it.
        horizon: unit of time, usually the length of a series; v moves z by about one in it.
        steps: steps of the solver (rk4) in one horizon.
        noise: initial standard deviation of the noise, which is trained for every channel.

    Raises:
        ValueError: for a horizon, noise or number of steps that is not positive.

    Example:
        >>> series = Series.of([(torch.tensor([0.0, 0.7]), torch.tensor([[1.0], [2.0]]))] * 5)
        >>> model = LatentODE(1)
        >>> model.predict(series, torch.linspace(0, 2, 50)).mean.shape
        torch.Size([5, 50, 1])
    """

    def __init__(
        self,
        channels: int,
        *,
        latent: int = 4,
        hidden: int = 25,
        units: int = 20,
        context_dim: int = 0,
        start: float = 0.0,
        horizon: float = 1.0,
        steps: int = 20,
        noise: float = 0.1,
    ) -> None:
        super().__init__()
        if not (horizon > 0 and noise > 0 and steps >= 1):
            raise ValueError(
                f"expected horizon, noise > 0, steps >= 1; got {horizon}, {noise}, {steps}"
            )
        self.start, self.horizon, self.steps = start, horizon, steps
        self.recognition = Recognition(channels, latent, hidden, context_dim=context_dim)
        self.field = LatentField(latent, units, context_dim=context_dim)
        self.decoder = SkipNet(latent, units, channels)
        self.log_noise = nn.Parameter(torch.full((channels,), math.log(noise)))

    def recognize(self, observed: Series, context: Tensor | None = None) -> Normal:
        """The approximate posterior of z(start), independent columns (batch, latent).

        Raises ValueError for series of another number of channels.
        """
        if observed.channels != len(self.log_noise):
            raise ValueError(
                f"series: expected the {len(self.log_noise)} channels of the model; got {observed.channels}"
            )
        clock = Series(
            (observed.times - self.start) / self.horizon, observed.values, observed.mask
        )
        return self.recognition(clock, 0.0, context)

    def states(self, z: Tensor, times: Tensor, context: Tensor | None = None) -> Tensor:
        """z(t) (batch, length, latent) at times (batch, length) from z(start) (batch, latent).

        Raises ValueError for a time before the start, or one that is not finite.
        """
        clock = (times - self.start) / self.horizon
        if not (clock >= 0).all() or not clock.isfinite().all():
            raise ValueError(
                f"times: expected finite times from the start, {self.start}, on; got earlier ones"
            )
        count = max(1, math.ceil(clock.max().item() * self.steps - 1e-4))
        nodes = torch.arange(count + 1, dtype=z.dtype, device=z.device) / self.steps
        grid = Grid.uniform(count, "rk4")
        states = solve(lambda t, z: self.field(t, z, context), z, nodes, solver=grid).x
        return Path(nodes, states, self.field(nodes[:, None], states, context)).at(clock)

    def forward(self, z: Tensor, times: Tensor, context: Tensor | None = None) -> Normal:
        """Observations (batch, length, channels) at times (batch, length), given z(start) (batch,
        latent)."""
        mean = self.decoder(self.states(z, times, context))
        return Normal(mean, self.log_noise.exp().expand_as(mean), validate_args=False)

    @torch.no_grad()
    def predict(
        self,
        observed: Series,
        times: Tensor,
        context: Tensor | None = None,
        *,
        draws: int = 50,
        generator: torch.Generator | None = None,
    ) -> Prediction:
        """Predict the values at other times, between the observations and after them.

        Args:
            observed: the series so far.
            times: (length,), or (batch, length); from the start on.
            context: (batch, context_dim).
            draws: number of draws of z(start), whose spread is the uncertainty.
            generator: of the draws.
        """
        posterior = self.recognize(observed, context)
        times = times.expand(len(observed), -1)
        found = []
        for _ in range(draws):
            noise = torch.randn(
                posterior.mean.shape,
                generator=generator,
                device=times.device,
                dtype=posterior.mean.dtype,
            )
            found.append(self(posterior.mean + posterior.stddev * noise, times, context).mean)
        values = torch.stack(found)
        variance = values.var(0, correction=0) + (2 * self.log_noise).exp()
        return Prediction(values.mean(0), variance.sqrt(), values)
