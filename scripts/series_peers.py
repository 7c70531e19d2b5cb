"""The recurrent networks with which the latent ODE is compared; they receive the gaps between
times."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from cnf.neural_ode import Series
from cnf.neural_ode.latent_objective import LATENT_SCHEDULE
from cnf.training import minimize

Recurrence = type[nn.RNN] | type[nn.GRU]


@dataclass(frozen=True)
class Budget:
    """Updates, series of an update, and the peak of the learning rate: the same for both sides."""

    steps: int
    batch: int
    learning_rate: float


class GapRNN(nn.Module):
    """Given a value (zeros where missing), its mask and the gap to the next time, the next value's
    mean.

    It goes on for ever when it is fed its own predictions.
    """

    def __init__(
        self, cell: Recurrence, channels: int, hidden: int, *, noise: float = 0.1
    ) -> None:
        super().__init__()
        self.cell = cell(2 * channels + 1, hidden, batch_first=True)
        self.head = nn.Linear(hidden, channels)
        self.log_noise = nn.Parameter(torch.full((channels,), math.log(noise)))

    def read(self, series: Series, until: Tensor) -> tuple[Tensor, Tensor]:
        """Means at the next times (batch, length, channels), of which the last is at `until`
        (batch,)."""
        gaps = torch.cat([series.times, until[:, None]], 1).diff(dim=1)
        inputs = torch.cat([series.values, series.mask.to(series.values), gaps[..., None]], -1)
        states, last = self.cell(inputs)
        return self.head(states), last

    def one_ahead(self, series: Series) -> Tensor:
        """Log-likelihood (batch,) of every observation but the first, each given those before
        it."""
        means, _ = self.read(series, series.times[:, -1])
        return self.score(means[:, :-1], series.values[:, 1:], series.mask[:, 1:])

    def score(self, mean: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Log-likelihood (batch,) of the values that the mask shows."""
        law = Normal(mean, self.log_noise.exp().expand_as(mean), validate_args=False)
        return law.log_prob(values).masked_fill(~mask, 0.0).sum((1, 2))

    def roll(self, series: Series, times: Tensor) -> Tensor:
        """Means (batch, length, channels) at later times (batch, length), on its own
        predictions."""
        means, state = self.read(series, times[:, 0])
        found, ones = [means[:, -1]], torch.ones_like(means[:, -1])
        for gap in times.diff(dim=1).unbind(1):
            inputs = torch.cat([found[-1], ones, gap[:, None]], -1)
            out, state = self.cell(inputs[:, None], state)
            found.append(self.head(out[:, 0]))
        return torch.stack(found, 1)


def peer_like(model: nn.Module, cell: Recurrence, channels: int) -> GapRNN:
    """A network with about as many parameters as the model has, and the noise that it started
    with."""
    wanted = count(model)
    hidden = min(range(4, 200), key=lambda h: abs(count(GapRNN(cell, channels, h)) - wanted))
    return GapRNN(cell, channels, hidden, noise=model.log_noise.exp().mean().item())


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def train(
    model: nn.Module,
    loss: Callable[[Tensor], Tensor],
    rows: int,
    *,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
) -> None:
    """Adam, warm-up, cosine and clipping as for the latent ODE, on a loss of chosen rows."""
    generator = torch.Generator().manual_seed(seed)

    def objective(step: int) -> tuple[Tensor, Tensor]:
        value = loss(torch.randint(rows, (batch,), generator=generator))
        return value, value

    minimize(
        model.parameters(),
        objective,
        phase="recurrent network",
        steps=steps,
        learning_rate=learning_rate,
        schedule=LATENT_SCHEDULE,
    )
