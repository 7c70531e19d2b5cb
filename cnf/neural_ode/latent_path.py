"""Latent states between the nodes of a solve, at times that differ between series."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Path:
    """A solution as cubic Hermite polynomials between nodes, from states and velocities at the nodes.

    The interpolation error is of fourth order in the spacing, like that of a Runge-Kutta method of
    order four at the nodes. So one solve on shared nodes serves all series at all their times.

    Attributes:
        times: of the nodes, equally spaced, (nodes,).
        states: (nodes, batch, latent).
        velocities: (nodes, batch, latent).
    """

    times: Tensor
    states: Tensor
    velocities: Tensor

    def at(self, times: Tensor) -> Tensor:
        """States (batch, length, latent) at times (batch, length) between the first node and the
        last.

        >>> import torch
        >>> nodes = torch.tensor([0.0, 1.0, 2.0])
        >>> cube = Path(nodes, nodes[:, None, None] ** 3, 3 * nodes[:, None, None] ** 2)
        >>> cube.at(torch.tensor([[0.5, 1.5]])).flatten()
        tensor([0.1250, 3.3750])
        """
        width = self.times[1] - self.times[0]
        place = (times - self.times[0]) / width
        left = place.detach().floor().long().clamp(0, len(self.times) - 2)
        s = (place - left)[..., None]
        x0, x1 = self._pick(self.states, left), self._pick(self.states, left + 1)
        v0, v1 = (
            self._pick(self.velocities, left) * width,
            self._pick(self.velocities, left + 1) * width,
        )
        rise = x1 - x0
        # Horner: x₀ + s (v₀ + s (3 rise − 2 v₀ − v₁ + s (v₀ + v₁ − 2 rise)))
        return x0 + s * (v0 + s * (3 * rise - 2 * v0 - v1 + s * (v0 + v1 - 2 * rise)))

    @staticmethod
    def _pick(rows: Tensor, places: Tensor) -> Tensor:
        """Rows (nodes, batch, latent) at places (batch, length): (batch, length, latent)."""
        return rows.transpose(0, 1).gather(1, places[..., None].expand(-1, -1, rows.shape[-1]))
