"""Explicit Runge-Kutta steps on a given mesh of times, and the adjoint of the discretised equation."""

from __future__ import annotations

from collections.abc import Iterator
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
    """A tableau with its coefficients as tensors: those of all its sums in one row, and its times (stages,)."""

    tableau: Tableau
    weights: Tensor
    c: Tensor

    @classmethod
    def of(cls, tableau: Tableau, like: Tensor) -> Method:
        """The method in the dtype and on the device of `like`."""
        sums = (*tableau.a, tableau.b, tableau.b_error)
        weights = like.new_tensor([weight for row in sums for weight in row])
        return cls(tableau, weights, like.new_tensor(tableau.c))

    def sums(self, h: Tensor) -> tuple[list[tuple[Tensor, ...]], tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Coefficients of a step of length h: of each stage, of the new state and of its error."""
        scaled = iter((h * self.weights).unbind())
        a = [tuple(islice(scaled, len(row))) for row in self.tableau.a]
        return a, tuple(islice(scaled, self.tableau.stages)), tuple(scaled)


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
    first = None
    for start, end in zip(mesh[:-1].unbind(), mesh[1:].unbind()):
        step = _step(system, x, start, end, method, first)
        yield step
        x = step.x
        first = step.last if method.tableau.first_same_as_last else None


def _step(
    system: System, x: Tensor, start: Tensor, end: Tensor, method: Method, first: Evaluation | None
) -> Step:
    tableau, h = method.tableau, end - start
    a, b, b_error = method.sums(h)
    known = 0 if first is None else 1
    stages, at = ([] if first is None else [first]), x
    for i, moment in enumerate(system.at(start + method.c[known:] * h), known):
        at = _add(x, a[i], [s.velocity for s in stages], tableau.a[i])
        stages.append(_evaluate(moment, at, needs_rates=tableau.rate_stages[i]))
    velocities = [s.velocity for s in stages]
    # A method that ends on its own last stage has already computed the new state there.
    new = at if tableau.first_same_as_last else _add(x, b, velocities, tableau.b)
    rates = [s.rates for s in stages]
    q = _add(None, b, rates, tableau.b)
    if not b_error:
        return Step(new, q, x[..., 0] * 0, q * 0, stages[-1])
    x_error = _add(None, b_error, velocities, tableau.b_error)
    # The tiny summand keeps the derivative of the norm finite where the error vanishes.
    x_norm = (x_error.square().sum(-1) + torch.finfo(x.dtype).tiny).sqrt()
    q_error = _add(None, b_error, rates, tableau.b_error)
    return Step(new, q, x_norm, q_error.abs(), stages[-1])


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
        step = _step(system, *leaves[:3], method, Evaluation(*leaves[3:]) if first else None)
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
