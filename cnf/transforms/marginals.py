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

KERNELS = 16
EM_STEPS = 25
MOST_ROWS = 10_000
# In units of the column's spread: keeps a kernel from collapsing onto a heap.
SMALLEST_SCALE = 5e-3
# Nats a cell that the kernels must gain over one Gaussian, and for each kernel the rows it could
# overfit.
KERNEL_GAIN = 0.005
TINY = 1e-300
MOST_LOG = 690.0
# A probability below which logarithms are needed.
FAR_TAIL = 1e-30
# The smallest probability with all its digits.
SMALLEST = 1e-290
LOG_2PI = math.log(2 * math.pi)
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
        """The map of such ranges, in whose place the tensors of a file come."""
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


def ndtr(z: Tensor) -> Tensor:
    """Φ(z), with all its digits in the left tail too."""
    return 0.5 * torch.special.erfc(-math.sqrt(0.5) * z)


def quantile(p: Tensor, smallest: float = FAR_TAIL) -> Tensor:
    """Φ⁻¹(p) for p from the smallest to ½, by `ndtri`, good to nine digits, and a step of Newton's
    method.

    >>> quantile(torch.tensor(1e-10).double())
    tensor(-6.3613, dtype=torch.float64)
    """
    y = torch.special.ndtri(p.clamp(min=smallest, max=0.5))
    return y - (ndtr(y) - p) * (0.5 * (y.square() + LOG_2PI)).exp()


def far_quantile(log_p: Tensor) -> Tensor:
    """Φ⁻¹(p) for small p, given log p.

    >>> far_quantile(torch.tensor(-5000.0).double())
    tensor(-99.9447, dtype=torch.float64)
    """
    depth = -2 * log_p.clamp(max=-10)
    y = -(depth - (2 * math.pi * depth).log()).sqrt()
    for _ in range(5):  # Newton's method on log Φ(y) = log p
        log_ndtr = torch.special.log_ndtr(y)
        log_slope = -0.5 * y.square() - 0.5 * LOG_2PI - log_ndtr
        y = y - (log_ndtr - log_p.clamp(max=-10)) * torch.exp(-log_slope)
    return y


def fit_mixture(
    s: Tensor, weights: Tensor, kernel_gain: float = KERNEL_GAIN
) -> tuple[Tensor, Tensor, Tensor]:
    """Centres, scales and weights (KERNELS,) of a mixture of Gaussians by
    expectation-maximization.

    All kernels are one Gaussian where a mixture gains too little, or none is wanted.
    """
    share = weights / weights.sum()
    mean = share @ s
    spread = (share @ (s - mean).square()).sqrt().clamp(min=TINY)
    z = (s - mean) / spread
    one = (z.new_zeros(KERNELS), z.new_ones(KERNELS), z.new_full((KERNELS,), 1 / KERNELS))
    centres, scales, portions = start = _start(z, share)
    rows = 1 / share.square().sum()
    for _ in range(0 if math.isinf(kernel_gain) else EM_STEPS):
        parts = _log_parts(z, centres, scales, portions)
        claims = torch.softmax(parts, -1) * share[:, None]
        portions = claims.sum(0)
        mass = portions + 1e-12
        centres = (claims.T @ z) / mass
        variance = (claims * (z[:, None] - centres).square()).sum(0) / mass
        # A little of the starting scales, worth one row, smooths kernels that hold few rows.
        scales = ((mass * variance + start[1].square() / rows) / (mass + 1 / rows)).sqrt()
        scales = scales.clamp(min=SMALLEST_SCALE)
    gain = share @ (_log_parts(z, centres, scales, portions).logsumexp(-1) + 0.5 * z.square())
    chosen = (centres, scales, portions) if gain > kernel_gain + KERNELS / rows else one
    return mean + spread * chosen[0], spread * chosen[1], chosen[2] / chosen[2].sum()


def _log_parts(z: Tensor, centres: Tensor, scales: Tensor, portions: Tensor) -> Tensor:
    """log wₖ N(z; μₖ, σₖ), less ½ log 2π (rows, KERNELS)."""
    scaled = (z[:, None] - centres) / scales
    return portions.clamp(min=TINY).log() - scales.log() - 0.5 * scaled.square()


def _start(z: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Kernels at quantiles, denser in levels towards the tails, as wide as their distances."""
    order = z.argsort()
    levels = share[order].cumsum(0)
    reach = math.log(max(len(z), 4))
    edges = torch.sigmoid(
        torch.linspace(-reach, reach, KERNELS + 1, dtype=z.dtype, device=z.device)
    )
    middles = (edges[1:] + edges[:-1]) / 2
    at = torch.searchsorted(levels, middles).clamp(max=len(z) - 1)
    centres = z[order][at]
    padded = torch.cat((centres[:1], centres, centres[-1:]))
    scales = ((padded[2:] - padded[:-2]) / 2).clamp(min=0.05)
    portions = edges.diff()
    return centres, scales, portions / portions.sum()
