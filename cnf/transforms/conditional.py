"""A Gaussian mixture of all columns, and the normal coordinates of any of them given any others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cnf.functional import identity
from cnf.registry import register
from cnf.rows import distinct_rows
from cnf.transforms.affine import Transform
from cnf.transforms.normal import FAR_TAIL, far_quantile, ndtr, quantile

LOG_2PI = math.log(2 * math.pi)
# Numbers of one (rows, components, columns, columns) array: rows go in parts of that size.
AT_ONCE = 2**22
# Newton's method on the distribution function of one column stays within a bracket.
STEPS, ACCURACY = 60, 1e-9


class Order(NamedTuple):
    """How rows go through their columns: given ones first, then free ones, then absent ones.

    Attributes:
        columns: the column at each place (rows, width).
        free: which places are free (rows, width).
        means: of the components, in this order (rows, components, width).
        factors: Cholesky factors of their covariances (rows, components, width, width).
    """

    columns: Tensor
    free: Tensor
    means: Tensor
    factors: Tensor


@register
class ConditionalMixture(Transform):
    """z = Φ⁻¹(F(yⱼ | columns before j, given columns)), one free column after the other.

    F is the distribution function of a Gaussian mixture of all columns and of the features of the
    context, Σₖ wₖ N(μₖ, Σₖ). Conditionals and marginals of a mixture are mixtures, so z is standard
    normal for every choice of free and given columns if the columns follow the mixture: the
    transform of Rosenblatt (1952). Its log-Jacobian is log p(y_free | y_given) − log φ(z).

    The context (*batch, dim + features + 2 · dim) has the mask of the free columns, the features,
    the given columns (zero for the others), and which are given. What is neither free nor given is
    absent: it is integrated out.

    Args:
        weights: w, (components,)
        means: μ, (components, dim + features)
        covariances: Σ, (components, dim + features, dim + features)
        features: number of columns that are always given.

    Example:
        >>> covariance = torch.tensor([[[1.0, 0.8], [0.8, 1.0]]])
        >>> mixture = ConditionalMixture(torch.ones(1), torch.zeros(1, 2), covariance)
        >>> context = torch.tensor([[1.0, 0.0, 0.0, 2.0, 0.0, 1.0]])  # y₀ given y₁ = 2
        >>> z, _ = mixture(torch.tensor([[2.2, 0.0]]), context, context[:, :2])
        >>> z.round(decimals=4)  # (2.2 − 0.8 · 2) / √(1 − 0.8²)
        tensor([[1., 0.]], dtype=torch.float64)
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor

    def __init__(
        self, weights: Tensor, means: Tensor, covariances: Tensor, features: int = 0
    ) -> None:
        super().__init__(means.shape[1] - features)
        self.features = features
        self.register_buffer("weights", weights.double())
        self.register_buffer("means", means.double())
        self.register_buffer("covariances", covariances.double())

    def config(self) -> dict[str, Any]:
        """Numbers of components and features; the rest is tensors."""
        return {"components": len(self.weights), "features": self.features}

    @classmethod
    def from_config(cls, config: dict[str, Any], dim: int) -> ConditionalMixture:
        """A mixture with this number of components, whose tensors are then read from a file."""
        count, width = config["components"], dim + config["features"]
        unit = identity(width).expand(count, width, width).clone()
        return cls(torch.ones(count), torch.zeros(count, width), unit, config["features"])

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Model coordinates z (*batch, dim) in float64, zero outside the mask, and log |det ∂z/∂x|
        (*batch,), plus ½ log 2π for each column outside."""
        rows, free, given = self._rows(x, context, mask)
        parts = [self._normalize(*part) for part in self._parts(rows, free, given)]
        z, ladj = (torch.cat(part) for part in zip(*parts))
        outside = (~free[:, : self.dim]).sum(1, dtype=ladj.dtype)
        return z.view(x.shape), (ladj + 0.5 * LOG_2PI * outside).view(x.shape[:-1])

    def inverse(
        self, y: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Data x (*batch, dim), zero outside the mask, in the dtype of y."""
        rows, free, given = self._rows(y, context, mask, coordinates=True)
        parts = [self._solve(*part) for part in self._parts(rows, free, given)]
        return torch.cat(parts).view(y.shape).to(y.dtype)

    def pushforward(
        self, v: Tensor, y: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """dx/dt (*batch, dim) for dy/dt = v at y, in the dtype of v."""
        x = self.inverse(y.double(), context, mask)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            z = self.forward(x, context, mask)[0]
            slopes = torch.stack(
                [torch.autograd.grad(z[..., j].sum(), x, retain_graph=True)[0] for j in range(self.dim)],
                -2,
            )  # fmt: skip
        present = (
            torch.ones_like(x, dtype=torch.bool) if mask is None else mask.expand(x.shape) != 0
        )
        slopes = slopes + torch.diag_embed((~present).to(slopes.dtype))
        moved = torch.linalg.solve(slopes, v.to(slopes.dtype).where(present, 0.0)[..., None])
        return moved.squeeze(-1).to(v.dtype)

    def _rows(
        self, x: Tensor, context: Tensor | None, mask: Tensor | None, *, coordinates: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All columns of rows (rows, dim + features), which are free, and which are given.

        Free columns are those of x, which with `coordinates` are z."""
        dim, count = self.dim, math.prod(x.shape[:-1])
        rows = x.double().reshape(count, dim)
        if context is None:
            free = torch.ones_like(rows, dtype=torch.bool)
            return rows, free, ~free
        context = context.double().expand(*x.shape[:-1], -1).reshape(count, -1)
        features, values, flags = context[:, dim:].split((self.features, dim, dim), 1)
        free = (
            context[:, :dim] if mask is None else mask.expand(x.shape).reshape(count, dim)
        ) != 0
        always = torch.ones_like(features, dtype=torch.bool)
        given = torch.cat(((flags != 0) & ~free, always), 1)
        rows = torch.cat((torch.where(free, rows, values), features), 1)
        return rows, torch.cat((free, ~always), 1), given

    def _parts(self, rows: Tensor, free: Tensor, given: Tensor) -> Iterator[tuple[Tensor, Order]]:
        """Rows in parts that fit into memory, with their orders."""
        size = max(1, AT_ONCE // self.covariances.numel())
        for some, *masks in zip(*(part.split(size) for part in (rows, free, given))):
            yield some, self._order(*masks)

    def _order(self, free: Tensor, given: Tensor) -> Order:
        rank = torch.where(given, 0, torch.where(free, 1, 2))
        patterns, group = distinct_rows(rank)
        columns = patterns.argsort(dim=1, stable=True)
        means = self.means[:, columns].transpose(0, 1)
        covariances = self.covariances[:, columns[:, :, None], columns[:, None, :]].transpose(0, 1)
        factors, placed = torch.linalg.cholesky(covariances), patterns.gather(1, columns) == 1
        return Order(columns[group], placed[group], means[group], factors[group])

    def _normalize(self, rows: Tensor, order: Order) -> tuple[Tensor, Tensor]:
        """z (rows, dim) and the log-Jacobian (rows,)."""
        y = rows.gather(1, order.columns)[:, None, :]
        residual = torch.linalg.solve_triangular(
            order.factors, (y - order.means)[..., None], upper=False
        ).squeeze(-1)
        scales = order.factors.diagonal(dim1=-2, dim2=-1)
        log_parts = -0.5 * residual.square() - scales.log() - 0.5 * LOG_2PI
        # Of every place: what the columns before it say of the components.
        before = log_parts.cumsum(-1) - log_parts + self.weights.log()[:, None]
        log_share = before.log_softmax(1)
        z = normal_score(residual.transpose(1, 2), log_share.transpose(1, 2))
        log_slope = (log_share + log_parts).logsumexp(1) + 0.5 * z.square() + 0.5 * LOG_2PI
        z, log_slope = z.where(order.free, 0.0), log_slope.where(order.free, 0.0)
        return torch.zeros_like(z).scatter(1, order.columns, z)[:, : self.dim], log_slope.sum(1)

    def _solve(self, rows: Tensor, order: Order) -> Tensor:
        """y (rows, dim), zero where not free, from rows with z in the place of their free
        columns."""
        placed = rows.gather(1, order.columns)
        residual, log_share = (
            torch.zeros_like(order.means),
            self.weights.log().expand(len(rows), -1),
        )
        found = []
        for j in range(placed.shape[1]):
            centers = order.means[..., j] + (order.factors[..., j, :] * residual).sum(-1)
            scales = order.factors[..., j, j]
            log_share = log_share.log_softmax(1)
            y = placed[:, j]
            free = order.free[:, j]
            if free.any():
                y = y.index_put(
                    (free,),
                    mixture_quantile(y[free], centers[free], scales[free], log_share[free]),
                )
            found.append(y.where(free, 0.0))
            here = (y[:, None] - centers) / scales
            residual = residual.clone()
            residual[..., j] = here
            log_share = log_share - 0.5 * here.square() - scales.log()
        y = torch.stack(found, 1) if found else placed
        return torch.zeros_like(y).scatter(1, order.columns, y)[:, : self.dim]


def normal_score(residual: Tensor, log_share: Tensor) -> Tensor:
    """Φ⁻¹(Σ share · Φ(residual)) over the last axis, by logarithms in the far tails."""
    share = log_share.exp()
    below, above = (share * ndtr(residual)).sum(-1), (share * ndtr(-residual)).sum(-1)
    z = torch.where(below < above, quantile(below), -quantile(above))
    far = (torch.minimum(below, above) < FAR_TAIL).nonzero(as_tuple=True)
    if not len(far[0]):
        return z
    log_below = (torch.special.log_ndtr(residual[far]) + log_share[far]).logsumexp(-1)
    log_above = (torch.special.log_ndtr(-residual[far]) + log_share[far]).logsumexp(-1)
    tail = torch.where(log_below < log_above, far_quantile(log_below), -far_quantile(log_above))
    return z.index_put(far, tail)


def mixture_quantile(z: Tensor, centers: Tensor, scales: Tensor, log_share: Tensor) -> Tensor:
    """y (rows,) whose normal score under a mixture of each row (rows, components) is z (rows,), by
    Newton's method within a bracket."""
    spread = centers + scales * z[:, None]
    low, high = spread.amin(1), spread.amax(1)
    y = (log_share.exp() * spread).sum(1)
    for _ in range(STEPS):
        residual = (y[:, None] - centers) / scales
        found = normal_score(residual, log_share)
        low, high = torch.where(found < z, y, low), torch.where(found < z, high, y)
        log_slope = (log_share - scales.log() - 0.5 * residual.square()).logsumexp(1)
        step = y - (found - z) * torch.exp(-log_slope - 0.5 * found.square())
        y = torch.where((step >= low) & (step <= high), step, (low + high) / 2)
        if ((found - z).abs() <= ACCURACY * (1 + z.abs())).all():
            break
    return y
