"""Marginal Gaussianization: each column through its own smooth, strictly increasing spline."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cnf.functional import transformed
from cnf.registry import register
from cnf.transforms.affine import Transform, column_moments

# Knots stand at the quantiles of evenly spaced normal scores, up to this one: one row in 160 lies
# beyond it.
KNOTS = 25
FARTHEST = 2.5
# Slopes, in normal scores per standard deviation: a steeper piece would turn heaped values into a
# plateau that no smooth field can carry, a flatter one would push a tail to infinity.
STEEPEST = 10.0
FLATTEST = 0.02
# Knots closer than this, in standard deviations, are one.
CLOSEST = 1e-3
# Rows that are mapped at a time: a spline's intermediate results take many times the memory of its
# rows.
ROWS_TOGETHER = 65_536


@register
class Gaussianize(Transform):
    """yⱼ = hⱼ(xⱼ): monotone rational-quadratic splines, linear beyond their last knots.

    With bin width w, rise r, mean slope s = r/w, slopes d, d' at its ends and ξ = (x − xₖ)/w,

        h = yₖ + r (s ξ² + d ξ(1 − ξ)) / (s + (d + d' − 2s) ξ(1 − ξ)),

    strictly increasing with a continuous derivative, inverted in closed form (Gregory & Delbourgo
    1982). log |det ∂y/∂x| = Σⱼ log hⱼ′(xⱼ). Its numbers are float64.

    Args:
        knots: x, increasing along the last axis, (dim, knots)
        values: y, increasing along the last axis, (dim, knots)
        slopes: h′ at the knots, positive, (dim, knots)

    Example:
        >>> x = torch.randn(1000, 1).exp()
        >>> y, ladj = Gaussianize.fit(x)(x)
        >>> y.abs().median() < 1, ladj.shape
        (tensor(True), torch.Size([1000]))
    """

    knots: Tensor
    values: Tensor
    slopes: Tensor

    def __init__(self, knots: Tensor, values: Tensor, slopes: Tensor) -> None:
        super().__init__(len(knots))
        self.register_buffer("knots", knots.double())
        self.register_buffer("values", values.double())
        self.register_buffer("slopes", slopes.double())

    @classmethod
    def fit(cls, x: Tensor, weights: Tensor | None = None) -> Gaussianize:
        """Columns of x (rows, dim) to nearly standard normal ones.

        Quantiles become normal scores, within bounds on the slope; a heaped value makes a steep
        but smooth piece.

        Raises:
            ValueError: if a column is constant.
        """
        x = x.double()
        mean, deviation = column_moments(x, weights)
        y = (x - mean) / deviation
        mass = torch.ones_like(x[:, 0]) if weights is None else weights.double()
        columns = [_fit_column(column, mass) for column in y.unbind(1)]
        knots, values, slopes = (torch.stack(part) for part in zip(*columns))
        return cls(mean[:, None] + deviation[:, None] * knots, values, slopes / deviation[:, None])

    def config(self) -> dict[str, Any]:
        """The number of knots; the rest is tensors."""
        return {"knots": self.knots.shape[1]}

    @classmethod
    def from_config(cls, config: dict[str, Any], dim: int) -> Gaussianize:
        """A map with this number of knots, whose tensors are then read from a file."""
        line = torch.arange(config["knots"]).expand(dim, -1)
        return cls(line, line, torch.ones_like(line))

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Model coordinates y (*batch, dim) in float64, and the log-Jacobian log |det ∂y/∂x|
        (*batch,)."""
        rows = x.to(self.knots.dtype).reshape(-1, x.shape[-1])
        parts = (rows,) if transformed() else rows.split(ROWS_TOGETHER)
        found = [self._value_and_slope(some) for some in parts]
        y, slope = (torch.cat(part) for part in zip(*found))
        return y.view(x.shape), slope.log().sum(-1).view(x.shape[:-1])

    def _value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """h and h′ of each entry."""
        left, right = self._bins(x, self.knots)
        width, rise = right.knot - left.knot, right.value - left.value
        mean, inside = rise / width, (x - left.knot) / width
        xi = inside.clamp(0, 1)
        between = xi * (1 - xi)
        denominator = mean + (left.slope + right.slope - 2 * mean) * between
        y = left.value + rise * (mean * xi**2 + left.slope * between) / denominator
        slope = mean**2 * (right.slope * xi**2 + 2 * mean * between + left.slope * (1 - xi) ** 2)
        slope = slope / denominator**2
        # Beyond the ends, where ξ is clamped, the line goes on with the slope of the last knot.
        return y + slope * (inside - xi) * width, slope

    def inverse(
        self, y: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Data x (*batch, dim), in the dtype of y."""
        target = y.to(self.knots.dtype)
        left, right = self._bins(target, self.values)
        width, rise = right.knot - left.knot, right.value - left.value
        mean = rise / width
        share = (target - left.value) / rise
        clamped = share.clamp(0, 1)
        bend = (left.slope + right.slope - 2 * mean) * clamped
        a, b = mean - left.slope + bend, left.slope - bend
        # The root of aξ² + bξ − s·share in the form that does not cancel.
        xi = 2 * mean * clamped / (b + (b**2 + 4 * a * mean * clamped).clamp(min=0).sqrt())
        beyond = (share - clamped) * rise / torch.where(share > 1, right.slope, left.slope)
        return (left.knot + xi * width + beyond).to(y.dtype)

    def pushforward(
        self, v: Tensor, y: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """dx/dt (*batch, dim) for dy/dt = v at y, in the dtype of v."""
        slope = self._value_and_slope(self.inverse(y.to(self.knots.dtype)))[1]
        return (v / slope).to(v.dtype)

    def _bins(self, at: Tensor, edges: Tensor) -> tuple[_Knot, _Knot]:
        """The knots left and right of each entry; the outermost pair beyond the ends."""
        columns = at.detach().reshape(-1, self.dim).T.contiguous()
        right = _places(columns, edges).clamp(1, edges.shape[1] - 1)
        found = [
            _Knot(*(part.gather(1, places).T.reshape(at.shape) for part in self._parts))
            for places in (right - 1, right)
        ]
        return found[0], found[1]

    @property
    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.knots, self.values, self.slopes


def _places(columns: Tensor, edges: Tensor) -> Tensor:
    """How many of the edges (dim, knots) are not above each entry of the columns (dim, rows)."""
    if transformed():  # what vmap makes of the other is slower, and warns
        return (columns[..., None] >= edges[:, None, :]).sum(-1)
    return torch.searchsorted(edges, columns, right=True)


class _Knot:
    """Place, value and slope of the knot beside each entry."""

    def __init__(self, knot: Tensor, value: Tensor, slope: Tensor) -> None:
        self.knot, self.value, self.slope = knot, value, slope


def _fit_column(x: Tensor, mass: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Knots, values and slopes of a standardized column (rows,), each (KNOTS,)."""
    order = x.argsort()
    x, mass = x[order], mass[order]
    # Probability below the middle of each row's mass.
    below = (mass.cumsum(0) - mass / 2) / mass.sum()
    scores = torch.linspace(-FARTHEST, FARTHEST, KNOTS, dtype=x.dtype, device=x.device)
    quantiles = torch.special.ndtr(scores)
    places = torch.searchsorted(below, quantiles).clamp(1, len(x) - 1)
    share = (quantiles - below[places - 1]) / (below[places] - below[places - 1])
    knots = torch.lerp(x[places - 1], x[places], share.clamp(0, 1))
    # Equal knots are moved apart by a hair; the bound on the slope turns that into a small rise.
    steps = knots.diff().clamp(min=CLOSEST)
    means = (scores.diff() / steps).clamp(FLATTEST, STEEPEST)
    middle = KNOTS // 2
    knots = _accumulated(steps, knots[middle], middle)
    values = _accumulated(means * steps, scores[middle], middle)
    # Fritsch & Butland (1984): the harmonic mean of neighbors.
    inner = 2 / (1 / means[1:] + 1 / means[:-1])
    return knots, values, torch.cat([means[:1], inner, means[-1:]])


def _accumulated(steps: Tensor, value: Tensor, at: int) -> Tensor:
    """Running sum of steps that has the given value at place `at`."""
    sums = torch.cat([steps.new_zeros(1), steps.cumsum(0)])
    return sums - sums[at] + value
