"""The pinwheel: Gaussian arms wound around the origin, and its exact density by inverting the
winding."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cnf.datasets.planar import Toy, log_normal


@dataclass(frozen=True)
class Pinwheel(Toy):
    """Gaussian arms f ~ N((1, 0), diag(radial², tangential²)), wound by a = 2πk/arms +
    rate·exp(f₀).

    x = 2 R(−a) f with k uniform, so p(x) = 1/(4·arms) Σ p(f) / |1 + rate·exp(f₀) f₁|, summed over
    all (k, f) that lead to x."""

    arms: int = 5
    radial: float = 0.3
    tangential: float = 0.1
    rate: float = 0.25

    def _draw(self, n: int, like: dict[str, Any]) -> Tensor:
        scale = torch.tensor(
            (self.radial, self.tangential), dtype=like["dtype"], device=like["device"]
        )
        features = scale * torch.randn(n, 2, **like)
        features[:, 0] += 1
        arm = (self.arms * torch.rand(n, **like)).floor()
        angle = 2 * math.pi / self.arms * arm + self.rate * features[:, 0].exp()
        return 2 * torch.stack(_turn(features[:, 0], features[:, 1], -angle), dim=1)

    def _log_density(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            found, angle, arm_angle = self._preimages(x / 2)
        first, second = (
            coordinate[:, None].expand_as(found)[found] / 2 for coordinate in x.unbind(1)
        )
        f0, f1 = _turn(first, second, angle)
        slope = 1 + self.rate * f0.exp() * f1
        # One more Newton step, under autograd: it polishes the root and gives it its exact
        # derivative.
        angle = angle - (angle - self.rate * f0.exp() - arm_angle) / slope.detach()
        f0, f1 = _turn(first, second, angle)
        jacobian = 4 * self.arms * (1 + self.rate * f0.exp() * f1).abs()
        terms = torch.full(found.shape, -torch.inf, dtype=x.dtype, device=x.device)
        terms[found] = (
            log_normal(f0 - 1, self.radial) + log_normal(f1, self.tangential) - jacobian.log()
        )
        return terms.logsumexp(1)

    def _preimages(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Find the angles a that lead to u = x/2: a mask (n, 39), and a and 2πk/arms where it is
        true.

        In polar coordinates u = (r, ψ) and f = (r, φ) with φ = a + ψ, so that g(φ) = φ −
        rate·exp(r cos φ) must hit one of the levels ψ + 2πk/arms. On each of the three stretches
        where g is monotone, the 13 levels around g(0) are tried: the others lie many deviations
        off the arm."""
        radius = torch.linalg.vector_norm(u, dim=1).reshape(-1, 1, 1)
        polar = torch.atan2(u[:, 1], u[:, 0]).reshape(-1, 1, 1)
        gap = 2 * math.pi / self.arms
        middle = ((-self.rate * radius.exp() - polar) / gap).round()
        arm_angle = gap * (middle + torch.arange(-6, 7, dtype=u.dtype, device=u.device))
        start, stop = self._climbs(radius)

        def above(phi: Tensor, radius: Tensor, level: Tensor) -> Tensor:
            return phi - self.rate * (radius * phi.cos()).exp() - level

        level = polar + arm_angle
        found = (above(start, radius, level) <= 0) & (above(stop, radius, level) > 0)
        radius, polar, arm_angle, level, start, stop = (
            value.expand_as(found)[found]
            for value in (radius, polar, arm_angle, level, start, stop)
        )
        phi = _bisect(lambda phi: above(phi, radius, level), start, stop)
        return found.flatten(1), phi - polar, arm_angle

    def _climbs(self, radius: Tensor) -> tuple[Tensor, Tensor]:
        """Return ends (n, 3, 1) between which g rises: −π to its peak, valley to peak, valley to
        π.

        g′(φ) = 1 + rate·r sin φ exp(r cos φ) is below 0 only around its minimum, cos φ = 2r/(1 +
        √(1 + 4r²)), and only far from the origin; elsewhere peak and valley are that same point.
        """

        def fall(angle: Tensor) -> Tensor:
            return self.rate * radius * angle.sin() * (radius * angle.cos()).exp() - 1

        steepest = (2 * radius / (1 + (1 + 4 * radius**2).sqrt())).acos()
        valley = -_bisect(fall, torch.zeros_like(radius), steepest)
        end = torch.full_like(radius, math.pi)
        peak = -_bisect(fall, end, steepest)
        return torch.cat((-end, valley, valley), dim=1), torch.cat((peak, peak, end), dim=1)


def _turn(first: Tensor, second: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate the point (first, second) by the angle, counter-clockwise."""
    cos, sin = angle.cos(), angle.sin()
    return cos * first - sin * second, sin * first + cos * second


def _bisect(function: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """Return where function changes from ≤ 0, at `low`, to > 0, at `high`, on whichever side
    `high` is."""
    for _ in range(48):
        middle = (low + high) / 2
        below = function(middle) <= 0
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2
