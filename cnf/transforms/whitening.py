"""The initial Gaussian of a flow over typed columns: a linear mean of features and one
covariance."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cnf.functional import identity
from cnf.registry import register
from cnf.rows import distinct_rows, in_blocks, row_products
from cnf.transforms.affine import Transform
from cnf.transforms.covariances import covariance_by_pairs, sound_covariance
from cnf.transforms.linear_mean import fit_mean
from cnf.transforms.patterns import by_pattern

# Patterns that have a covariance of their own: the most frequent ones, of so many rows a column at
# least; it counts the one for all as if that had been seen in some rows more.
MOST_PATTERNS, MOST_NUMBERS, ROWS_A_COLUMN, PRIOR_ROWS = 16, 2**16, 10, 2
# Rows further out than any of so many Gaussian ones count less and less in mean and covariance.
OUTLIER_TAIL, REWEIGHTED = 1e-5, 8
# Rows whose patterns are factored together, few enough for a processor's cache.
FACTORED_TOGETHER = 64
# How much tails are bent, 1 / a, and the nats a cell that a bent tail must gain.
BENDS, BEND_GAIN = (0.25, 0.5), 0.005
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Whitener(NamedTuple):
    """Of one pattern: z = W (r_free − G r_given) for the free columns, with log |det W|."""

    free: Tensor
    given: Tensor
    matrix: Tensor
    gain: Tensor
    log_det: Tensor


@register
class Whitening(Transform):
    """z = W (y − E[y | features, given columns]), by the Gaussian y | features ~ N(B · features,
    Σ).

    Every row has its own pattern: some columns free, some given, the rest absent. With the
    conditional covariance C of the free columns given the given ones, in standard deviations S and
    correlation P, W = P^(−½) S⁻¹ (as `Affine.whiten`). If columns are jointly Gaussian, z is
    therefore standard normal for every pattern, and the flow need not change it. A frequent
    pattern has its own Σ, because the others are wider without the information of an absent
    column. Outliers would widen the Gaussian and lie far from the initial density: the fit gives
    them less weight, and if a column has heavier tails than the Gaussian, its coordinate is a ·
    asinh(z / a), which is close to z inside and logarithmic outside. All numbers are float64.

    As a `Transform` it takes the features of the mean from the context of a `MaskedField`: columns
    `dim` to `dim + features`, after those of the mask. Absent columns are zero in z, and a
    standard normal base scores each of them as −½ log 2π. The log-Jacobian removes this
    contribution, so the flow's density is that of the present columns.

    Args:
        dim: number of columns of y.
        features: number of columns that the mean is linear in.

    Example:
        >>> y = torch.randn(500, 2).double() @ torch.tensor([[1.0, 0.9], [0.0, 0.1]]).double()
        >>> whitening = Whitening(2, 0)
        >>> whitening.fit(y, torch.ones(500, 2, dtype=torch.bool), y[:, :0], torch.ones(500).double())
        >>> z, ladj = whitening(y)
        >>> bool((z.T.cov() - torch.eye(2)).abs().max() < 0.01)
        True
    """

    slopes: Tensor
    covariance: Tensor
    bend: Tensor
    patterns: Tensor
    covariances: Tensor

    def __init__(self, dim: int, features: int) -> None:
        super().__init__(dim)
        self.features = features
        self.register_buffer("slopes", torch.zeros(dim, 1 + features, dtype=torch.float64))
        self.register_buffer("covariance", identity(dim, torch.float64))
        self.register_buffer("bend", torch.zeros(dim, dtype=torch.float64))
        kept = min(MOST_PATTERNS, MOST_NUMBERS // dim**2) if dim else 0
        self.register_buffer("patterns", torch.full((kept, dim), -1.0, dtype=torch.float64))
        self.register_buffer(
            "covariances", identity(dim, torch.float64).expand(kept, dim, dim).clone()
        )

    @torch.no_grad()
    def fit(self, y: Tensor, present: Tensor, features: Tensor, weights: Tensor) -> None:
        """Mean and covariance from the present cells of rows y (rows, dim), by column and by
        pair."""
        self.bend.zero_()
        if not self.bend.numel():
            return
        y = y.where(present, 0.0)
        groups = self._frequent(present, weights)
        dims = present.sum(1).double()
        # The quantile of χ² for so many columns (Wilson & Hilferty 1931).
        spread = 2 / (9 * dims.clamp(min=1))
        reach = (
            dims
            * (1 - spread - spread.sqrt() * torch.special.ndtri(spread.new_tensor(OUTLIER_TAIL)))
            ** 3
        )
        counted = weights
        for _ in range(REWEIGHTED):
            self._fit_gaussian(y, present, features, counted, groups)
            distance = self._squared_distances(y, present, features)
            counted = weights * (reach / distance.clamp(min=1e-300)).clamp(max=1.0).square()
            if torch.equal(counted, weights):
                break
        self._fit_bend(self.whiten(y, present, features)[0], present, weights)

    def _squared_distances(self, y: Tensor, present: Tensor, features: Tensor) -> Tensor:
        """Of rows from their mean (rows,), in deviations. Where most patterns have fewer rows than
        columns, by Cholesky factors of several patterns at once, absent columns at zero."""
        both = torch.cat((present, self._group(features)), 1)
        patterns, which = distinct_rows(both)
        if len(patterns) * self.dim <= len(y):
            return self.whiten(y, present, features)[0].square().sum(1)
        rest = (y - self.mean(features)).where(present, 0.0)
        distances = torch.empty_like(rest[:, 0])
        for rows in which.argsort(stable=True).split(FACTORED_TOGETHER):
            some, local = which[rows].unique(return_inverse=True)
            there = patterns[some, : self.dim]
            pairs = there[:, :, None] & there[:, None]
            covariance = torch.stack(
                [self._covariance_of(*p.tensor_split([self.dim])) for p in patterns[some]]
            )
            root = torch.linalg.cholesky(covariance * pairs + (~there).to(y.dtype).diag_embed())
            z = torch.linalg.solve_triangular(root[local], rest[rows, :, None], upper=False)
            distances[rows] = z.square().sum((1, 2))
        return distances

    def _frequent(self, present: Tensor, weights: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The patterns that get a covariance of their own, and the places of their rows."""
        groups = [(pattern, rows) for pattern, rows in by_pattern(present) if pattern.any()]
        groups.sort(key=lambda group: -weights[group[1]].sum())
        large = [g for g in groups if weights[g[1]].sum() >= ROWS_A_COLUMN * present.shape[1]]
        large = large[: len(self.patterns)] if len(groups) > 1 else []
        self.patterns.fill_(-1.0)
        for k, (pattern, _) in enumerate(large):
            self.patterns[k] = pattern.double()
        return large

    def _fit_gaussian(
        self,
        y: Tensor,
        present: Tensor,
        features: Tensor,
        weights: Tensor,
        groups: list[tuple[Tensor, Tensor]],
    ) -> None:
        self.slopes[:], rest = fit_mean(features, y, present, weights)
        self.covariance = covariance_by_pairs(rest, present.to(y.dtype), weights)
        for k, (pattern, rows) in enumerate(groups):
            mass, prior = weights[rows], PRIOR_ROWS * y.shape[1]
            products = (mass[:, None] * rest[rows]).T @ rest[rows]
            own = (products + prior * self.covariance) / (mass.sum() + prior)
            self.covariances[k] = sound_covariance(
                own * torch.outer(pattern, pattern) + (~pattern).double().diag()
            )

    def _fit_bend(self, z: Tensor, present: Tensor, weights: Tensor) -> None:
        """Bend the tails of the columns that are nearer to a Gaussian then."""
        mass = weights[:, None] * present
        total = mass.sum(0).clamp(min=1e-9)
        best = (mass * z.square()).sum(0) / total / 2 - BEND_GAIN
        for bend in BENDS:
            u, log_slope = bent(z, z.new_full((z.shape[1],), bend))
            found = (mass * (u.square() / 2 - log_slope)).sum(0) / total
            self.bend = torch.where(found < best, bend, self.bend)
            best = torch.minimum(found, best)

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Model coordinates z (*batch, dim) in float64, zero outside the mask, and log |det ∂z/∂x|
        (*batch,), plus ½ log 2π for each absent column."""
        rows, present, features = self._rows(x, context, mask)
        z, log_det = self.whiten(rows.where(present, 0.0), present, features)
        ladj = log_det + HALF_LOG_2PI * (~present).sum(1, dtype=log_det.dtype)
        return z.view(x.shape), ladj.view(x.shape[:-1])

    def inverse(
        self, y: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Data x (*batch, dim), zero outside the mask, in the dtype of y."""
        rows, present, features = self._rows(y, context, mask)
        x = self.unwhiten(rows, torch.zeros_like(rows), present, features)
        return x.view(y.shape).to(y.dtype)

    def pushforward(
        self, v: Tensor, y: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """dx/dt (*batch, dim) for dy/dt = v at y, in the dtype of v."""
        rows, present, features = self._rows(y, context, mask)
        # cosh(b z) is the slope of sinh(b z) / b.
        rows = v.to(rows.dtype).expand(y.shape).reshape(rows.shape) * torch.cosh(self.bend * rows)
        moved = torch.zeros_like(rows)
        for whitener, places in self.whiteners(present, None, features):
            inverse = torch.linalg.inv_ex(whitener.matrix)[0]
            own = _pick(rows, places, whitener.free)
            moved[places[:, None], whitener.free] = row_products(own, inverse)
        return moved.view(y.shape).to(v.dtype)

    def _rows(
        self, x: Tensor, context: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x, its mask and the features of its mean in float64, as rows (rows, columns)."""
        dtype, shape = self.slopes.dtype, x.shape[:-1]
        present = torch.ones_like(x) if mask is None else mask
        given = x[..., :0] if context is None else context[..., self.dim :]
        features = given[..., : self.features].to(dtype).expand(*shape, self.features)
        count = math.prod(shape)
        return (
            x.to(dtype).reshape(count, self.dim),
            (present != 0).expand(x.shape).reshape(count, self.dim),
            features.reshape(count, self.features),
        )

    def whiten(
        self, y: Tensor, free: Tensor, features: Tensor, given: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Coordinates z (rows, dim), zero where not free, and the log-Jacobian (rows,)."""
        rest = y - self.mean(features)
        z, log_det = torch.zeros_like(y), y.new_zeros(len(y))
        for whitener, rows in self.whiteners(free, given, features):
            along = row_products(_pick(rest, rows, whitener.given), whitener.gain)
            centered = _pick(rest, rows, whitener.free) - along
            z[rows[:, None], whitener.free] = row_products(centered, whitener.matrix)
            log_det[rows] = whitener.log_det
        z, log_slope = bent(z, self.bend)
        return z, log_det + log_slope.sum(1)

    def unwhiten(
        self, z: Tensor, y: Tensor, free: Tensor, features: Tensor, given: Tensor | None = None
    ) -> Tensor:
        """y (rows, dim) with its free columns set from z; the others are not changed."""
        mean = self.mean(features)
        rest = y - mean
        y, z = y.clone(), straight(z, self.bend)
        for whitener, rows in self.whiteners(free, given, features):
            inverse = torch.linalg.inv_ex(whitener.matrix)[0]
            centered = row_products(_pick(z, rows, whitener.free), inverse)
            centered = centered + row_products(_pick(rest, rows, whitener.given), whitener.gain)
            y[rows[:, None], whitener.free] = centered + _pick(mean, rows, whitener.free)
        return y

    def conditionals(self, y: Tensor, present: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (rows, dim) of each present column under the Gaussian, given
        the other present ones."""
        rest = y - self.mean(features)
        mean, deviation = y.clone(), torch.ones_like(y)
        for pattern, found in by_pattern(torch.cat((present, self._group(features)), 1)):
            of_row, group = pattern[: self.dim], pattern[self.dim :]
            rows, columns = in_blocks(found), of_row.nonzero().squeeze(1)
            covariance = self._covariance_of(of_row, group)[columns][:, columns]
            precision = torch.linalg.inv_ex(covariance)[0]
            own = precision.diagonal()
            along = row_products(_pick(rest, rows, columns), precision)
            mean[rows[:, None], columns] -= along / own
            deviation[rows[:, None], columns] = own.rsqrt()
        return mean, deviation

    def mean(self, features: Tensor) -> Tensor:
        """E[y | features] (rows, dim)."""
        return row_products(_with_one(features), self.slopes)

    def whiteners(
        self, free: Tensor, given: Tensor | None, features: Tensor
    ) -> list[tuple[Whitener, Tensor]]:
        """The whitener of each pattern among rows, and the indices of its rows."""
        given = torch.zeros_like(free) if given is None else given
        both = torch.cat((free, given, self._group(features)), 1)
        sizes = (self.dim, self.dim, both.shape[1] - 2 * self.dim)
        return [
            (self._whitener(*pattern.split(sizes)), in_blocks(rows))
            for pattern, rows in by_pattern(both)
        ]

    def _group(self, features: Tensor) -> Tensor:
        """What tells rows with another covariance apart (rows, groups), beside their pattern."""
        return torch.zeros_like(features[:, :0], dtype=torch.bool)

    def _covariance_of(self, present: Tensor, group: Tensor) -> Tensor:
        own = (self.patterns == present).all(1).nonzero()
        return self.covariances[own[0, 0]] if len(own) else self.covariance

    def _whitener(self, free: Tensor, given: Tensor, group: Tensor) -> Whitener:
        covariance = self._covariance_of(free | given, group)
        free, given = (mask.nonzero().squeeze(1) for mask in (free, given))
        crossed = covariance[free][:, given]
        # The covariance of a damaged file makes NaN, and no error.
        gain = torch.linalg.solve_ex(covariance[given][:, given], crossed.T)[0].T
        conditional = covariance[free][:, free] - gain @ crossed.T
        deviation = conditional.diagonal().sqrt()
        correlation = (conditional / deviation / deviation[:, None]).nan_to_num(0.0, 0.0, 0.0)
        eigenvalues, vectors = torch.linalg.eigh(correlation)
        root = (vectors * eigenvalues.clamp(min=1e-12).rsqrt()) @ vectors.T
        log_det = -0.5 * eigenvalues.clamp(min=1e-12).log().sum() - deviation.log().sum()
        return Whitener(free, given, root / deviation, gain, log_det)


def bent(z: Tensor, bend: Tensor) -> tuple[Tensor, Tensor]:
    """asinh(b z) / b by column, z itself where b is zero, and the logarithm of its slope."""
    safe = bend.where(bend > 0, 1.0)
    u, log_slope = torch.asinh(safe * z) / safe, -0.5 * (safe * z).square().log1p()
    return u.where(bend > 0, z), log_slope.where(bend > 0, 0.0)


def straight(u: Tensor, bend: Tensor) -> Tensor:
    """z from asinh(b z) / b."""
    safe = bend.where(bend > 0, 1.0)
    return (torch.sinh(safe * u) / safe).where(bend > 0, u)


def _pick(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return values[rows[:, None], columns]


def _with_one(features: Tensor) -> Tensor:
    return torch.cat((features.new_ones(len(features), 1), features), 1)
