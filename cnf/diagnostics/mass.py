"""The mass of a density: on a grid in one or two columns, by importance sampling in more."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from cnf.diagnostics.context import CheckContext, at_first_look, log_volume
from cnf.diagnostics.result import CheckResult
from cnf.flows import BoundFlow, MixtureBase

POINTS = {1: 2001, 2: 201}
SAMPLES = 4096
# Of the range of the samples, on either side.
MARGIN = 0.35
PROPOSALS, COMPONENTS = 8192, 40
# With fewer effective draws a standard error means nothing; with a larger one it cannot tell a
# density that is right from one that is a tenth too heavy.
FEWEST_EFFECTIVE, LARGEST_ERROR = 200, 0.025
# Proposals are wider than the samples they were fitted to, and one in ten is wider still.
INFLATION, WIDE_SHARE, WIDE = 1.15, 0.1, 3.0
STANDARD_ERRORS = 4


@torch.no_grad()
def mass(case: CheckContext) -> Iterator[CheckResult]:
    """∫ p(x) dx = ∫ p(x(y)) |det ∂x/∂y| dy over model coordinates y, for the context of the first
    row.

    Not decided where no proposal comes near the density, as in many columns.
    """
    context = None if case.rows.context is None else case.rows.context[:1]
    x = case.exact.sample((SAMPLES,), context, generator=case.generator(6)).reshape(
        SAMPLES, case.flow.dim
    )
    # With steps of half the length and one solve a row: tails are many points and little mass.
    flow = at_first_look(case.flow, context, case.flow.solver.refined())
    measure = _on_a_grid if case.flow.dim in POINTS else _by_importance
    total, error, decided, detail = measure(flow, case.flow.preprocess(x)[0], case.generator(7))
    claim = CheckResult.at_most(
        "mass",
        "the density integrates to one",
        abs(total - 1),
        case.limit(1e-2, 2e-3) + error,
        detail=f"{total:.4f}, {detail}",
    )
    yield claim if decided else claim.undecided()


# The mass, what chance may do to it, whether that is little enough to decide, and how it was
# measured.
Found = tuple[float, float, bool, str]


def _on_a_grid(flow: BoundFlow, y: Tensor, generator: torch.Generator) -> Found:
    """The sum over a grid that reaches beyond the samples; every second point tells what it leaves
    open."""
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
    """The mean of p/q over draws of a mixture q near the samples; decided unless few draws carry
    all weight.

    A breach beyond what chance may do decides as well, if the draws are enough to know what chance
    may do."""
    proposal = _proposal(
        y, seed=int(torch.randint(2**31, (), generator=generator, device=y.device))
    )
    z = proposal.sample((PROPOSALS,), generator, dtype=y.dtype, device=y.device)
    weights = _density(flow, z) / proposal.log_prob(z).exp()
    total, deviation = weights.mean().item(), weights.std().item()
    effective = (weights.sum().square() / weights.square().sum()).item()
    error = deviation / math.sqrt(PROPOSALS)
    breached = abs(total - 1) > STANDARD_ERRORS * error + LARGEST_ERROR
    decided = effective >= FEWEST_EFFECTIVE and (error <= LARGEST_ERROR or breached)
    detail = f"importance sampling ± {error:.4f}, {effective:.0f} effective of {PROPOSALS:,} draws"
    return total, STANDARD_ERRORS * error, decided, detail


def _density(bound: BoundFlow, y: Tensor) -> Tensor:
    """p(x(y)) |det ∂x/∂y| (rows,); none where a score has no answer."""
    log_prob = bound.evaluate(bound.flow.preprocess.inverse(y)).log_prob.double()
    return (log_prob + log_volume(bound.flow, y)).exp().nan_to_num(nan=0.0)


def _proposal(y: Tensor, seed: int) -> MixtureBase:
    """A mixture of Gaussians fitted to samples and widened, with one broad Gaussian beside it."""
    fitted = GaussianMixture(COMPONENTS, reg_covar=1e-4, random_state=seed, max_iter=30, tol=1e-2)
    fitted.fit(y.cpu().numpy())
    means = y.new_tensor(fitted.means_)
    narrow = INFLATION * y.new_tensor(fitted.covariances_)
    covariances = torch.cat([narrow, WIDE * y.T.cov().reshape(1, *narrow.shape[1:])])
    weights = torch.cat(
        [(1 - WIDE_SHARE) * y.new_tensor(fitted.weights_), y.new_tensor([WIDE_SHARE])]
    )
    return MixtureBase(
        weights, torch.cat([means, y.mean(0, keepdim=True)]), torch.linalg.cholesky(covariances)
    )
