"""Strictly increasing maps of single columns to nearly Gaussian coordinates, with their
Jacobians."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cnf.functional import transformed
from cnf.registry import register
from cnf.rows import in_blocks
from cnf.transforms.affine import Transform
from cnf.transforms.bounded import Range
from cnf.transforms.kernels import KERNEL_GAIN, KERNELS, TINY, fit_mixture
from cnf.transforms.normal import FAR_TAIL, far_quantile, ndtr, quantile

MOST_ROWS = 10_000
MOST_LOG = 690.0
# The smallest probability with all its digits.
SMALLEST = 1e-290
# Where Newton's method may start: multiples of the deviation around the centre of each kernel.
KERNEL_POINTS = (-4.0, -2.5, -1.5, -0.75, 0.0, 0.75, 1.5, 2.5, 4.0)
# Rows that are inverted together.
SOLVED_TOGETHER = 4_096


@register
class MarginalTransform(Transform):
    """y = Φ⁻¹(F(s(x))) for each column: s opens the support, F is a mixture of Gaussians.

    s is log(x − a), −log(b − x) or log((x − a)/(b − x)) where the support ends at a, b or both,
    and x itself elsewhere. F = Σₖ wₖ Φ((s − μₖ)/σₖ) is the column's own distribution, so that y is
    nearly standard normal. The map is smooth and strictly increasing, and its tails are linear,
    those of the widest kernel. Where one Gaussian does as well, all kernels are that one, and y =
    (s − μ)/σ. Cells outside the mask are zero on either side and add nothing to the log-Jacobian.
    All numbers are float64.

    Args:
        ranges: (lower, upper) of every column, None for no end.

    Example:
        >>> marginals = MarginalTransform([(0.0, None)])
        >>> x = torch.randn(1000, 1).double().exp()
        >>> marginals.fit(x, torch.ones(1000, 1, dtype=torch.bool), torch.ones(1000).double())
        >>> y, ladj = marginals(x)
        >>> torch.allclose(marginals.inverse(y), x)
        True
    """

    centres: Tensor
    scales: Tensor
    weights: Tensor

    def __init__(self, ranges: Sequence[Range]) -> None:
        super().__init__(len(ranges))
        self.ranges = [
            tuple(None if end is None else float(end) for end in ends) for ends in ranges
        ]
        shape = (len(ranges), KERNELS)
        self.register_buffer("centres", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("scales", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("weights", torch.full(shape, 1 / KERNELS, dtype=torch.float64))

    @property
    def ends(self) -> Tensor:
        """The ends of the ranges (2, dim), zero where there is none."""
        lower, upper = (
            [low or 0.0 for low, _ in self.ranges],
            [high or 0.0 for _, high in self.ranges],
        )
        return self.centres.new_tensor([lower, upper])

    @property
    def bounded(self) -> bool:
        """Whether a column has an end."""
        return any(end is not None for ends in self.ranges for end in ends)

    @property
    def has_ends(self) -> Tensor:
        """Which ends there are (2, dim)."""
        lower, upper = ([ends[k] is not None for ends in self.ranges] for k in (0, 1))
        return torch.tensor([lower, upper], dtype=torch.bool, device=self.centres.device)

    def config(self) -> dict[str, Any]:
        """The ranges of the columns; the rest is tensors."""
        return {"ranges": self.ranges}

    @classmethod
    def from_config(cls, config: dict[str, Any], dim: int) -> MarginalTransform:
        """The map of such ranges, whose tensors are then read from a file."""
        return cls(**config)

    @torch.no_grad()
    def fit(
        self, x: Tensor, present: Tensor, weights: Tensor, kernel_gain: float = KERNEL_GAIN
    ) -> None:
        """Fit every column to its present cells.

        Args:
            x: (rows, columns)
            present: which cells hold a number (rows, columns).
            weights: of the rows (rows,).
            kernel_gain: nats a cell that the kernels must gain over one Gaussian; infinity leaves
                every column straight.
        """
        for j in range(x.shape[1]):
            chosen = present[:, j].nonzero().squeeze(1)
            chosen = chosen[:: 1 + len(chosen) // MOST_ROWS]
            if len(chosen) < 2:
                continue
            s = self._open(x)[0][chosen, j]
            mixture = fit_mixture(s, weights[chosen], kernel_gain)
            for buffer, found in zip((self.centres, self.scales, self.weights), mixture):
                buffer[j] = found

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Model coordinates y (*batch, dim) in float64, and log |det ∂y/∂x| (*batch,)."""
        y, log_slope = self.by_cell(x.double() if mask is None else _masked(x.double(), mask))
        if mask is None:
            return y, log_slope.sum(-1)
        return _masked(y, mask), _masked(log_slope, mask).sum(-1)

    def by_cell(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates y (*batch, dim) and the logarithm of each cell's slope dy/dx (*batch, dim)."""
        s, log_opening = self._open(x)
        y, log_slope = self._normalize(s)
        return y, log_slope + log_opening

    def by_value(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`by_cell` of rows x (rows, dim) whose columns hold few different values, each of them mapped
        once."""
        if not x.numel():
            return self.by_cell(x)
        found = [column.unique(return_inverse=True) for column in x.unbind(1)]
        most = max(len(values) for values, _ in found)
        places = in_blocks(torch.arange(most, device=x.device))
        values = [values[places.clamp(max=len(values) - 1)] for values, _ in found]
        which = torch.stack([inverse for _, inverse in found], 1)
        y, log_slope = self.by_cell(torch.stack(values, 1))
        return y.gather(0, which), log_slope.gather(0, which)

    def of_columns(self, columns: Tensor) -> MarginalTransform:
        """The map of some columns alone, by their places."""
        part = MarginalTransform([self.ranges[j] for j in columns.tolist()])
        for name in ("centres", "scales", "weights"):
            setattr(part, name, getattr(self, name)[columns])
        return part

    def inverse(
        self, y: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Data x (*batch, dim), in the dtype of y, by bisection and Newton's method."""
        x = self._solve(y.double() if mask is None else _masked(y.double(), mask))
        return (x if mask is None else _masked(x, mask)).to(y.dtype)

    def pushforward(
        self, v: Tensor, y: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """dx/dt (*batch, dim) for dy/dt = v at y, in the dtype of v."""
        log_slope = self.by_cell(self.inverse(y.double(), context, mask))[1]
        moved = v.double() * torch.exp(-log_slope)
        return (moved if mask is None else _masked(moved, mask)).to(v.dtype)

    def _solve(self, y: Tensor) -> Tensor:
        """x at y, in parts that fit into a processor's cache; each takes the steps it needs."""
        rows = y.reshape(math.prod(y.shape[:-1]), self.dim)
        parts = [self._solve_rows(some) for some in rows.split(SOLVED_TOGETHER)]
        return torch.cat(parts).view(y.shape)

    def _solve_rows(self, y: Tensor) -> Tensor:
        """x at y (rows, dim): F is increasing, so each step of Newton's method stays within a
        bracket. A cell stops at its own last step, whatever its neighbors need."""
        s, low, high = self._start(y)
        done = torch.zeros_like(y, dtype=torch.bool)
        for _ in range(60):
            found, log_slope = self._normalize(s)
            low, high = torch.where(found < y, s, low), torch.where(found < y, high, s)
            step = s - (found - y) * torch.exp(-log_slope)
            inside = (step >= low) & (step <= high)
            s = torch.where(done, s, torch.where(inside, step, (low + high) / 2))
            # The next error is the square of this one.
            done |= (found - y).abs() <= 1e-7 * (1 + y.abs())
            if done.all():
                break
        return self._close(s)

    def _start(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """s near F⁻¹(Φ(y)), and a bracket around it: between points of the kernels where they are
        dense; F is an average, so beyond these the answer lies between those of the single
        kernels."""
        spread = self.scales * y[..., None] + self.centres
        low, high = spread.amin(-1), spread.amax(-1)
        offsets = torch.tensor(KERNEL_POINTS, dtype=y.dtype, device=y.device)
        points = (
            (self.centres[..., None] + self.scales[..., None] * offsets).flatten(1).sort().values
        )
        levels = self._normalize(points.T)[0].T.contiguous()
        right = torch.searchsorted(levels, y.T.contiguous())
        at = right.clamp(1, points.shape[1] - 1)

        def around(values: Tensor, shift: int) -> Tensor:
            return values.gather(1, (at + shift).clamp(0, values.shape[1] - 1)).T

        (below, above), (left, end) = (
            (around(values, -1), around(values, 0)) for values in (levels, points)
        )
        share = ((y - below) / (above - below)).nan_to_num(0.5, 0.5, 0.5)
        within = ((right > 1) & (right < points.shape[1] - 1)).T
        # One point further on either side: a level is good to its rounding only.
        low = torch.where(within, around(points, -2), low)
        high = torch.where(within, around(points, 1), high)
        return torch.where(within, left + share * (end - left), (low + high) / 2), low, high

    def _open(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """s(x) and log ds/dx; cells outside the support, such as absent ones, are moved inside."""
        (lower, upper), (below, above) = self.ends, self.has_ends
        log_a, log_b = (x - lower).clamp(min=TINY).log(), (upper - x).clamp(min=TINY).log()
        zero = torch.zeros((), dtype=x.dtype, device=x.device)
        s = torch.where(below, log_a, zero) - torch.where(above, log_b, zero)
        width = torch.where(below & above, upper - lower, 1.0).log()
        log_slope = width - torch.where(below, log_a, zero) - torch.where(above, log_b, zero)
        return torch.where(below | above, s, x), log_slope

    def _close(self, s: Tensor) -> Tensor:
        (lower, upper), (below, above) = self.ends, self.has_ends
        both = lower + (upper - lower) * torch.sigmoid(s)
        s = torch.where(below | above, s.clamp(-MOST_LOG, MOST_LOG), s)
        one = torch.where(below, lower + s.exp(), upper - (-s).exp())
        return torch.where(below & above, both, torch.where(below | above, one, s))

    def _normalize(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """Φ⁻¹(F(s)) and the logarithm of its slope."""
        z = (s[..., None] - self.centres) / self.scales
        below, above = (self.weights * ndtr(z)).sum(-1), (self.weights * ndtr(-z)).sum(-1)
        level = torch.minimum(below, above)
        y = quantile(level, FAR_TAIL if not transformed() else SMALLEST)
        y = torch.where(below < above, y, -y)
        log_density = (self.weights / self.scales * (-0.5 * z.square()).exp()).sum(-1).log()
        # Where no shape may depend on a number, cells beyond `SMALLEST` have no logarithm.
        far = () if transformed() else (level < FAR_TAIL).nonzero(as_tuple=True)
        if far and len(far[0]):
            y = y.index_put(far, self._tail(z[far], far[-1]))
            log_parts = (self.weights / self.scales).clamp(min=TINY).log()[far[-1]] - 0.5 * z[
                far
            ].square()
            log_density = log_density.index_put(far, log_parts.logsumexp(-1))
        return y, log_density + 0.5 * y.square()

    def _tail(self, z: Tensor, columns: Tensor) -> Tensor:
        """Φ⁻¹(F) by logarithms, for cells (n, KERNELS) in the far tails of their columns (n,)."""
        log_weights = self.weights.clamp(min=TINY).log()[columns]
        log_below = (torch.special.log_ndtr(z) + log_weights).logsumexp(-1)
        log_above = (torch.special.log_ndtr(-z) + log_weights).logsumexp(-1)
        return torch.where(
            log_below < log_above, far_quantile(log_below), -far_quantile(log_above)
        )


def _masked(values: Tensor, mask: Tensor) -> Tensor:
    """The values, zero outside the mask (broadcast against them)."""
    return values.where(mask != 0, 0.0)
