"""The integral of a density: on a grid in one or two columns, by importance sampling else."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from cnf.diagnostics.context import CheckContext, at_first_look, given, jacobian
from cnf.diagnostics.local import DataSpace, LocalCoordinates
from cnf.diagnostics.proposals import proposal
from cnf.diagnostics.result import CheckResult
from cnf.flows import BoundFlow

POINTS = {1: 2001, 2: 201}
SAMPLES = 4096
# The grid extends beyond the range of the samples by this share of it, on either side.
MARGIN = 0.35
PROPOSALS = 8192
# With fewer effective draws the standard error is unreliable. With a larger standard error, a mass of
# 1.1 cannot be told from 1.
FEWEST_EFFECTIVE, LARGEST_ERROR = 200, 0.025
STANDARD_ERRORS = 4


@torch.no_grad()
def mass(case: CheckContext) -> Iterator[CheckResult]:
    """∫ p(x) dx = ∫ p(x(y)) |det ∂x/∂y| dy over model coordinates y, for the context of the first
    row.

    Not decided where no proposal is close to the density, as in many columns.
    """
    context = None if case.rows.context is None else case.rows.context[:1]
    x = case.exact.sample((SAMPLES,), context, generator=case.generator(6)).reshape(
        SAMPLES, case.flow.dim
    )
    # Steps of half the length and one solve a row: the tails have many points and little mass.
    flow = at_first_look(case.flow, context, case.flow.solver.refined())
    flat = case.flow.geometry.flat
    measure = _on_a_grid if flat and case.flow.dim in POINTS else _by_importance
    y = case.flow.preprocess(x, *given(flow, x))[0]
    total, error, decided, detail = measure(flow, y, case.generator(7))
    claim = CheckResult.at_most(
        "mass",
        "the density integrates to one",
        abs(total - 1),
        case.limit(1e-2, 2e-3) + error,
        detail=f"{total:.4f}, {detail}",
    )
    yield claim if decided else claim.undecided()


# The mass, its margin of error, whether that is small enough to decide, and how it was measured.
Found = tuple[float, float, bool, str]


def _on_a_grid(flow: BoundFlow, y: Tensor, generator: torch.Generator) -> Found:
    """The sum over a grid that extends beyond the samples; the sum over every second point gives
    its error."""
    dim = y.shape[1]
    points = POINTS[dim]
    low, high = y.amin(0), y.amax(0)
    pad = MARGIN * (high - low)
    axes = [torch.linspace(0, 1, points, dtype=y.dtype, device=y.device)] * dim
    unit = torch.cartesian_prod(*axes).reshape(-1, dim)
    density = _density(flow, low - pad + unit * (high - low + 2 * pad)).reshape([points] * dim)
    cell = ((high - low + 2 * pad) / (points - 1)).prod()
    total = (density.sum() * cell).item()
    every_second = density[(slice(None, None, 2),) * dim]
    coarse = (every_second.sum() * cell).item() * 2**dim
    return total, abs(total - coarse) / 3, True, f"grid of {' × '.join([str(points)] * dim)}"


def _by_importance(flow: BoundFlow, y: Tensor, generator: torch.Generator) -> Found:
    """The mean of p/q over draws of a mixture q close to the samples.

    It is decided where enough draws share the weight and the standard error is small, or where the
    mass differs from 1 by more than its margin.
    """
    near = proposal(flow.flow.geometry, y, generator)
    z = near.draw(PROPOSALS, generator)
    weights = _density(flow, z) / near.log_prob(z).exp()
    total, deviation = weights.mean().item(), weights.std().item()
    effective = (weights.sum().square() / weights.square().sum()).item()
    error = deviation / math.sqrt(PROPOSALS)
    breached = abs(total - 1) > STANDARD_ERRORS * error + LARGEST_ERROR
    decided = effective >= FEWEST_EFFECTIVE and (error <= LARGEST_ERROR or breached)
    detail = f"importance sampling ± {error:.4f}, {effective:.0f} effective of {PROPOSALS:,} draws"
    return total, STANDARD_ERRORS * error, decided, detail


def _density(bound: BoundFlow, y: Tensor) -> Tensor:
    """p(x(y)) |det ∂x/∂y| (rows,); 0 where the solve failed."""
    y = y.double()
    transform, space = bound.flow.preprocess, DataSpace(bound.flow.preprocess)
    x = transform.inverse(y, *given(bound, y))
    model = LocalCoordinates(bound.flow.geometry, y)
    data = space.around(space.points(x))

    def image(u: Tensor) -> Tensor:
        moved = model.point(u)
        return data.of(space.points(transform.inverse(moved, *given(bound, moved))))

    # By differences, independently of the Jacobian that the map itself returns.
    steps = jacobian(image, y.new_zeros(len(y), model.dim), 1e-4)
    log_volume = torch.linalg.slogdet(steps).logabsdet + space.log_volume
    log_prob = bound.evaluate(x).log_prob.double()
    return (log_prob + log_volume).exp().nan_to_num(nan=0.0)
