"""Explicit Runge-Kutta steps on a given mesh of times, and the adjoint of the discretised equation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cnf.ode.system import Gradient, System, SystemAt, no_rates
from cnf.ode.tableaux import Tableau


class Evaluation(NamedTuple):
    """Velocity (*batch, dim) and rates (*batch, rates) at one point in time."""

    velocity: Tensor
    rates: Tensor


class Step(NamedTuple):
    """The result of one step: new state, increment of the quadratures, and the estimates of their errors."""

    x: Tensor
    q: Tensor
    x_error: Tensor
    q_error: Tensor
    last: Evaluation


class Steps(NamedTuple):
    """A whole mesh: states at its nodes (steps + 1, …) and what each step added (steps, …)."""

    x: Tensor
    q: Tensor
    x_error: Tensor
    q_error: Tensor


class Method(NamedTuple):
    """A tableau with its coefficients as tensors.

    Attributes:
        tableau: the method.
        weights: those of the stages, the new state and its error, one after the other.
        c: times of the stages, (stages,).
        quadrature: weights of a quadrature and of its error, (used stages, 1 or 2).
    """

    tableau: Tableau
    weights: Tensor
    c: Tensor
    quadrature: Tensor

    @classmethod
    def of(cls, tableau: Tableau, like: Tensor) -> Method:
        """The method in the dtype and on the device of `like`."""
        sums = (*tableau.a, tableau.b, tableau.b_error)
        weights = like.new_tensor([weight for row in sums for weight in row])
        rows = (tableau.b, tableau.b_error) if tableau.b_error else (tableau.b,)
        used = [column for column, rated in zip(zip(*rows), tableau.rate_stages) if rated]
        return cls(tableau, weights, like.new_tensor(tableau.c), like.new_tensor(used))

    def sums(self, h: Tensor) -> tuple[list[tuple[Tensor, ...]], tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Coefficients of a step of length h: of each stage, of the new state and of its error."""
        scaled = iter((h * self.weights).unbind())
        a = [tuple(islice(scaled, len(row))) for row in self.tableau.a]
        return a, tuple(islice(scaled, self.tableau.stages)), tuple(scaled)


# The system is prepared for the stages of so many steps at once: more would cost memory and gain nothing.
PREPARED = 16


def integrate(system: System, x: Tensor, mesh: Tensor, tableau: Tableau, *, gradient: Gradient) -> Steps:
    """Carry x along the mesh, xₖ₊₁ = xₖ + hₖ Σᵢ bᵢ kᵢ, with a gradient of the chosen kind.

    Args:
        system: velocity and rates.
        x: state at `mesh[0]`, (*batch, dim).
        mesh: times (steps + 1,), increasing or decreasing; may require a gradient.
        tableau: the method.
        gradient: "direct" keeps the whole graph. "discrete" keeps the states at the nodes and re-evaluates
            one step at a time backwards: the same gradient to rounding, in memory of one step.
    """
    method = Method.of(tableau, x)
    if gradient == "discrete" and torch.is_grad_enabled():
        return Steps(*_DiscreteAdjoint.apply(system, method, x, mesh, *system.tensors))
    return _collect(x, list(_steps(system, x, mesh, method)))


def _steps(system: System, x: Tensor, mesh: Tensor, method: Method) -> Iterator[Step]:
    """The steps in turn; the last stage of one is the first of the next where the method allows."""
    lengths, first = mesh.diff(), None
    for starts, hs in zip(mesh[:-1].split(PREPARED), lengths.split(PREPARED)):
        moments = iter(system.at((starts[:, None] + hs[:, None] * method.c).flatten()))
        for h in hs.unbind():
            step = _step(list(islice(moments, len(method.c))), x, h, method, first)
            yield step
            x = step.x
            first = step.last if method.tableau.first_same_as_last else None


def _step(
    moments: Sequence[SystemAt], x: Tensor, h: Tensor, method: Method, first: Evaluation | None
) -> Step:
    """One step of length h through the system at the times of its stages."""
    tableau = method.tableau
    a, b, b_error = method.sums(h)
    stages, at = [], x
    for i, moment in enumerate(moments):
        if i == 0 and first is not None:
            stages.append(first)
            continue
        at = _add(x, a[i], [s.velocity for s in stages], tableau.a[i])
        stages.append(_evaluate(moment, at, needs_rates=tableau.rate_stages[i]))
    velocities = [s.velocity for s in stages]
    rates = torch.stack([s.rates for s, used in zip(stages, tableau.rate_stages) if used], -1)
    # A method that ends on its own last stage has already computed the new state there.
    new = at if tableau.first_same_as_last else _add(x, b, velocities, tableau.b)
    q, *q_error = (rates @ (h * method.quadrature)).unbind(-1)
    if not b_error:
        return Step(new, q, x[..., 0] * 0, q * 0, stages[-1])
    x_error = _add(None, b_error, velocities, tableau.b_error)
    # The tiny summand keeps the derivative of the norm finite where the error vanishes.
    x_norm = (x_error.square().sum(-1) + torch.finfo(x.dtype).tiny).sqrt()
    return Step(new, q, x_norm, q_error[0].abs(), stages[-1])


def _evaluate(moment: SystemAt, x: Tensor, *, needs_rates: bool) -> Evaluation:
    if needs_rates:
        return Evaluation(*moment.evaluate(x))
    return Evaluation(moment.velocity(x), no_rates(x))


def _add(
    x: Tensor | None, scaled: tuple[Tensor, ...], ks: list[Tensor], weights: tuple[float, ...]
) -> Tensor:
    """x + h Σᵢ wᵢkᵢ over the stages whose weight is not zero, from the products hwᵢ; without x, the sum."""
    for k, factor, weight in zip(ks, scaled, weights):
        if weight != 0:
            x = k * factor if x is None else torch.addcmul(x, k, factor)
    return x


def _collect(x: Tensor, steps: list[Step]) -> Steps:
    return Steps(
        x=torch.stack([x, *(s.x for s in steps)]),
        q=torch.stack([s.q for s in steps]),
        x_error=torch.stack([s.x_error for s in steps]),
        q_error=torch.stack([s.q_error for s in steps]),
    )


class _DiscreteAdjoint(torch.autograd.Function):
    """The adjoint of the discretised equation: one step at a time is evaluated again, backwards.

    With aₖ = ∂L/∂xₖ, each step x' = Φ(x, t, t'; θ) gives aₖ = aₖ₊₁ ∂Φ/∂x and adds aₖ₊₁ ∂Φ/∂θ to ∂L/∂θ.
    Where a step hands its last stage on to the next one, that stage belongs to the state.
    """

    @staticmethod
    def forward(ctx: Any, system: System, method: Method, x: Tensor, mesh: Tensor, *tensors: Tensor) -> Any:
        steps = list(_steps(system, x, mesh, method))
        result = _collect(x, steps)
        lasts = (
            [part for step in steps[:-1] for part in step.last] if method.tableau.first_same_as_last else []
        )
        ctx.system, ctx.method = system, method
        ctx.save_for_backward(result.x, mesh, *lasts)
        return tuple(result)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        nodes, mesh, *lasts = ctx.saved_tensors
        to_nodes, to_q, to_x_error, to_q_error = cotangents
        sought = [tensor for tensor in ctx.system.tensors if tensor.requires_grad]
        totals = [torch.zeros_like(tensor) for tensor in sought]
        to_mesh = torch.zeros_like(mesh)
        to_x, to_last = to_nodes[-1].clone(), None
        for k in reversed(range(len(mesh) - 1)):
            first = Evaluation(*lasts[2 * k - 2 : 2 * k]) if lasts and k else None
            increments = (to_q[k], to_x_error[k], to_q_error[k])
            to_x, to_start, to_end, to_last, to_tensors = _step_back(
                ctx.system, ctx.method, nodes[k], mesh[k], mesh[k + 1], first, sought,
                (to_x, *increments, *(to_last or ())),
            )  # fmt: skip
            to_x = to_x + to_nodes[k]
            to_mesh[k] += to_start
            to_mesh[k + 1] += to_end
            for total, part in zip(totals, to_tensors):
                total += part
        found = iter(totals)
        wanted = [next(found) if tensor.requires_grad else None for tensor in ctx.system.tensors]
        return None, None, to_x, to_mesh, *wanted


def _step_back(
    system: System,
    method: Method,
    x: Tensor,
    start: Tensor,
    end: Tensor,
    first: Evaluation | None,
    sought: list[Tensor],
    cotangents: tuple[Tensor, ...],
) -> tuple[Tensor, Tensor, Tensor, Evaluation | None, tuple[Tensor, ...]]:
    """Cotangents of one step's inputs: state, start, end, given first stage, tensors."""
    with torch.enable_grad():
        leaves = [leaf.detach().requires_grad_() for leaf in (x, start, end, *(first or ()))]
        h = leaves[2] - leaves[1]
        moments = system.at(leaves[1] + h * method.c)
        step = _step(moments, leaves[0], h, method, Evaluation(*leaves[3:]) if first else None)
    outputs = (step.x, step.q, step.x_error, step.q_error, *step.last)[: len(cotangents)]
    pairs = [(out, cotangent) for out, cotangent in zip(outputs, cotangents) if out.requires_grad]
    found = torch.autograd.grad(
        [out for out, _ in pairs],
        [*leaves, *sought],
        [cotangent for _, cotangent in pairs],
        allow_unused=True,
        materialize_grads=True,
    )
    to_first = Evaluation(*found[3:5]) if first else None
    return found[0], found[1], found[2], to_first, found[len(leaves) :]
