"""A mixture of Gaussians for one column."""

from __future__ import annotations

import math

import torch
from torch import Tensor

KERNELS = 16
EM_STEPS = 25
# In units of the column's spread: keeps a kernel from collapsing onto a heap.
SMALLEST_SCALE = 5e-3
# Nats a cell that the kernels must gain over one Gaussian, and for each kernel the rows it could
# overfit.
KERNEL_GAIN = 0.005
TINY = 1e-300


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
