"""The recognition network: the posterior of the initial latent state given a series."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from cnf.neural_ode.latent_series import Series


class Recognition(nn.Module):
    """q(z(start) | series): a recurrent network that reads from the farthest observation to the start.

    For observations after the start it reads backward in time (Chen et al. 2018). At each observation
    the network (a GRU) is given the values, the mask, and the time to the next observation it reads,
    or to the start after the last one.

    Args:
        channels: of the series.
        latent: dimension of z.
        hidden: units of the network.
        context_dim: number of context columns of a series.

    Example:
        >>> series = Series.of([(torch.tensor([0.0, 0.7]), torch.tensor([[1.0], [2.0]]))])
        >>> Recognition(1, latent=3, hidden=8)(series, start=0.0).mean.shape
        torch.Size([1, 3])
    """

    def __init__(self, channels: int, latent: int, hidden: int, *, context_dim: int = 0) -> None:
        super().__init__()
        self.reader = nn.GRU(2 * channels + 1, hidden, batch_first=True)
        self.head = nn.Linear(hidden + context_dim, 2 * latent)

    def forward(self, series: Series, start: float, context: Tensor | None = None) -> Normal:
        """The normal distribution of z at the start, independent columns (batch, latent).

        A series without any observation is read as one that says nothing at the start.
        """
        inputs, lengths = towards(series, start)
        # Padding comes last: reading on is harmless, and faster than a packed sequence.
        states, _ = self.reader(inputs)
        read = states[torch.arange(len(states), device=states.device), lengths - 1]
        known = read if context is None else torch.cat([read, context], -1)
        mean, log_scale = self.head(known).chunk(2, -1)
        return Normal(mean, log_scale.exp(), validate_args=False)


def towards(series: Series, start: float) -> tuple[Tensor, Tensor]:
    """Inputs (batch, length, 2 channels + 1) in the order of reading, and how many are real,
    (batch,)."""
    distance = (series.times - start).abs().masked_fill(~series.seen, -1.0)
    distance, order = distance.sort(dim=1, descending=True, stable=True)
    distance = distance.clamp(min=0)
    gaps = torch.cat([distance[:, :-1] - distance[:, 1:], distance[:, -1:]], 1)
    chosen = order[..., None].expand_as(series.values)
    mask = series.mask.gather(1, chosen)
    values = series.values.gather(1, chosen) * mask
    inputs = torch.cat([values, mask.to(values), gaps[..., None].to(values)], -1)
    return inputs, series.seen.sum(1).clamp(min=1)
