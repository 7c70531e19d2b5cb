"""Checks of correctness: only an error in the code can fail them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from cnf.diagnostics.context import CheckContext, at_first_look, given, jacobian
from cnf.diagnostics.local import DataSpace, LocalCoordinates, spread
from cnf.diagnostics.result import CheckResult
from cnf.flows import BoundFlow
from cnf.flows.divergence import exact_divergence
from cnf.ode import Torchdiffeq

# The reference solution; its error is far below every limit here.
REFERENCE = Torchdiffeq("dopri8", rtol=1e-8, atol=1e-8, max_evaluations=3_000)
TIMES = (0.03, 0.2, 0.5, 0.77, 0.98)
COVERED = 0.95
VOLUMES, GRADIENT_ROWS, ALONE, INWARD = 16, 32, 24, 1e-3
# Nats that the density of a sample may differ by, in ten solves' errors, between these limits: a solver
# of any tolerance that is further off is no solver.
LEAST_APART, MOST_APART = 0.01, 0.05


@torch.no_grad()
def round_trip(case: CheckContext) -> Iterator[CheckResult]:
    """x → z → x, in standard deviations of the column; the limit is in proportion to the tolerance that
    the flow was calibrated to."""
    flow, rows = case.flow, case.few
    tolerance = flow.error_model.tolerance
    bound = flow.bind(rows.context, solver=flow.solver)  # as samples are drawn
    back = bound.trajectory(case.start_points(flow, rows), [1.0])[0]
    space = DataSpace(flow.preprocess)
    everywhere, before, after = (space.points(x.double()) for x in (case.rows.x, rows.x, back))
    scale = spread(space.geometry, everywhere).clamp(min=1e-300)
    moved = space.around(before).of(after)
    distance = (moved.abs() / scale).amax(-1)
    yield CheckResult.at_most(
        "round trip",
        "a row carried to the base and back returns to its place",
        _quantile(distance, 0.99),
        case.limit(10 * tolerance, tolerance),
        unit="sd",
        detail=f"99 % of {len(rows)} rows",
    )


@torch.no_grad()
def volume(case: CheckContext) -> Iterator[CheckResult]:
    """log p(x) = log p₀(z) − log |det ∂x/∂z|, the Jacobian of the sampling map by central
    differences."""
    flow = case.exact
    context = None if case.rows.context is None else case.rows.context[:1]
    bound = at_first_look(flow, context, flow.solver)
    z = flow.base.sample((VOLUMES,), case.generator(2), dtype=flow.dtype, device=flow.device)
    space, start = DataSpace(flow.preprocess), LocalCoordinates(flow.geometry, z)
    x = _image(bound, z)
    end = space.around(space.points(x))
    steps = jacobian(
        lambda u: end.of(space.points(_image(bound, start.point(u)))),
        z.new_zeros(len(z), start.dim),
        1e-5,
    )
    log_volume = torch.linalg.slogdet(steps).logabsdet + space.log_volume
    difference = (bound.evaluate(x).log_prob - flow.base.log_prob(z) + log_volume).abs()
    yield CheckResult.at_most(
        "volume",
        "log_prob is that of the base, transported by the sampling map",
        _quantile(difference, 0.5),
        case.limit(1e-2, 2e-3),
        unit="nats",
        detail=f"half of {VOLUMES} samples, Jacobian by differences",
    )


def _image(bound: BoundFlow, z: Tensor) -> Tensor:
    """The data points that base points z (*batch, coordinates) are carried to."""
    start = bound.flow.preprocess.inverse(z, *given(bound, z))
    return bound.trajectory(start, [1.0])[0]


@torch.no_grad()
def own_samples(case: CheckContext) -> Iterator[CheckResult]:
    """log_prob of samples is the log-density that they were drawn with."""
    context, tolerance = case.few.context, case.flow.error_model.tolerance
    shape = (len(case.few),) if context is None else ()
    x, log_prob = case.exact.sample_and_log_prob(shape, context, generator=case.generator(3))
    difference = (case.flow.evaluate(x, context).log_prob - log_prob).abs()
    yield CheckResult.at_most(
        "own samples",
        "log_prob of samples is the density that they were drawn with",
        _quantile(difference, 0.95),
        case.limit(min(max(10 * tolerance, LEAST_APART), MOST_APART), 3e-3),
        unit="nats",
        detail=f"95 % of {len(x)} samples",
    )


@torch.no_grad()
def solver_error(case: CheckContext) -> Iterator[CheckResult]:
    """log_prob by the flow's own solver against dopri8 in float64, and its error bound."""
    rows = case.answered
    precise = case.exact.bind(rows.context, solver=REFERENCE, divergence="auto")
    found = case.flow.evaluate(rows.x, rows.context)
    error = (found.log_prob.double() - precise.evaluate(rows.x).log_prob).abs()
    bar = found.error.double()
    limit = case.flow.error_model.tolerance
    yield CheckResult.at_most(
        "solver error",
        "log_prob agrees with dopri8 in float64 to the tolerance",
        _quantile(error, 0.99),
        limit * case.limit(2, 1),
        unit="nats",
        detail=f"99 % of {len(error)} rows",
    )
    yield CheckResult.at_least(
        "error bars",
        "the error bound of log_prob covers its true error",
        (error <= bar).double().mean().item(),
        case.limit(COVERED, 0.98),
        detail=f"median bound {_quantile(bar, 0.5):.1e}, error {_quantile(error, 0.5):.1e} nats",
    )


def divergence(case: CheckContext) -> Iterator[CheckResult]:
    """The closed form against the trace by automatic differentiation, in float64, along the
    paths."""
    flow, rows = case.exact, case.few
    _, context, _ = flow.to_model_coordinates(rows.x, rows.context)
    bound = flow.field.bind(context)
    if not bound.closed_form:
        return
    worst = 0.0
    with torch.no_grad():
        path = flow.trajectory(rows.x, TIMES, rows.context, reverse=True)
        for x, at in zip(path, bound.at(path.new_tensor(TIMES))):
            y = flow.to_model_coordinates(x, rows.context)[0]
            assert at.velocity_and_divergence is not None, "the field has a closed form"
            found, truth = at.velocity_and_divergence(y)[1], exact_divergence(at.velocity, y)[1]
            worst = max(
                worst,
                ((found - truth).abs() / (1 + truth.abs())).nan_to_num(nan=torch.inf).max().item(),
            )
    yield CheckResult.at_most(
        "divergence",
        "the closed form of the divergence is the trace of the Jacobian",
        worst,
        case.limit(1e-8, 1e-10),
        detail=f"largest of {len(rows)} rows at {len(TIMES)} times, relative",
    )


def gradients(case: CheckContext) -> Iterator[CheckResult]:
    """Gradients of the mean log_prob against central differences, along one random direction of
    each kind."""
    flow = copy.deepcopy(case.exact).requires_grad_(requires_grad=True)
    rows = case.answered.take(
        torch.arange(min(GRADIENT_ROWS, len(case.answered)), device=case.rows.x.device)
    )
    x = rows.x.double().clone().requires_grad_()
    context = None if rows.context is None else _inside(rows.context.double()).requires_grad_()
    leaves: dict[str, list[Tensor]] = {
        "parameters": [p for p in flow.parameters() if p.numel()],
        "rows": [x],
    }
    if context is not None:
        leaves["context"] = [context]
    generator, bound = case.generator(4), at_first_look(flow, context)
    worst = max(
        _slope_mismatch(lambda: bound.evaluate(x).log_prob.mean(), group, generator)
        for group in leaves.values()
    )
    yield CheckResult.at_most(
        "gradients",
        "gradients of log_prob agree with finite differences",
        worst,
        case.limit(1e-3, 1e-4),
        detail=f"by {', '.join(leaves)}; against central differences, relative",
    )


def _inside(context: Tensor) -> Tensor:
    """Contexts (rows, context_dim) a little nearer to their mean: at the first and the last time of
    a flow through time, differences to both sides would be of two motions."""
    return torch.lerp(context, context.mean(0, keepdim=True), INWARD)


def _slope_mismatch(
    score: Callable[[], Tensor],
    leaves: list[Tensor],
    generator: torch.Generator,
    step: float = 1e-5,
) -> float:
    """The relative difference between the slope of `score` along a random direction of its leaves
    by autograd and by differences; infinite where `score` is not finite."""
    start = score()
    if not start.isfinite():
        return torch.inf
    found = torch.autograd.grad(start, leaves, allow_unused=True, materialize_grads=True)
    directions = [_direction(leaf, generator) for leaf in leaves]
    slope = sum((way * part).sum().item() for way, part in zip(directions, found))
    ends = []
    with torch.no_grad():
        for move in (step, -2 * step):
            for leaf, way in zip(leaves, directions):
                leaf += move * way
            ends.append(score().item())
    difference = (ends[0] - ends[1]) / (2 * step)
    return abs(slope - difference) / (abs(difference) + 1e-3)


def _direction(leaf: Tensor, generator: torch.Generator) -> Tensor:
    """A random direction, each column of a leaf by its own spread."""
    direction = torch.randn(leaf.shape, generator=generator, device=leaf.device, dtype=leaf.dtype)
    many = leaf.dim() == 2 and len(leaf) > 1
    return direction * leaf.detach().std(0) if many else direction


@torch.no_grad()
def independence(case: CheckContext) -> Iterator[CheckResult]:
    """log_prob of a row alone, among others and in another order, in float64."""
    flow, rows = case.exact, case.answered
    together = flow.evaluate(rows.x, rows.context).log_prob
    order = torch.randperm(len(rows), generator=case.generator(5), device=rows.x.device)
    limit = case.limit(1e-6, 1e-9)
    singles = order[:ALONE].split(1)
    alone = torch.cat(
        [flow.evaluate(part.x, part.context).log_prob for part in map(rows.take, singles)]
    )
    yield CheckResult.at_most(
        "alone",
        "log_prob of a row does not depend on the other rows",
        _largest(alone - together[order[:ALONE]]),
        limit,
        unit="nats",
        detail=f"{len(alone)} rows alone and among {len(rows)}, in float64",
    )
    shuffled = rows.take(order)
    yield CheckResult.at_most(
        "order",
        "log_prob of a row does not depend on the order of the rows",
        _largest(flow.evaluate(shuffled.x, shuffled.context).log_prob - together[order]),
        limit,
        unit="nats",
        detail=f"{len(rows)} rows, in float64",
    )


def _largest(differences: Tensor) -> float:
    """The largest difference; infinite where one is NaN or there are none."""
    return (
        differences.abs().nan_to_num(nan=torch.inf).max().item() if len(differences) else torch.inf
    )


def _quantile(values: Tensor, share: float) -> float:
    """The quantile; infinite where there are no values. NaN counts as infinite."""
    values = values.double().nan_to_num(nan=torch.inf)
    return values.quantile(share, interpolation="higher").item() if len(values) else torch.inf
