"""Explicit Runge-Kutta steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from cnf.ode.method import NEAR, Method, Nodes, cumulative, picked
from cnf.ode.stepping import Scheme, Step, integrate
from cnf.ode.system import Gradient, Solution, System, SystemAt, no_rates, tensor_like
from cnf.ode.tableaux import Tableau


class Evaluation(NamedTuple):
    """Velocity (*batch, dim) and rates (*batch, rates) at one point in time."""

    velocity: Tensor
    rates: Tensor


@dataclass(frozen=True)
class RungeKutta(Scheme):
    """Steps x' = x + h Σᵢ bᵢ kᵢ of a tableau.

    A step's coefficients are its start and its length. Where the last stage of one step is the first of the
    next, it is handed on.

    Attributes:
        tableau: the method.
        weights: those of the stages, the new state and its error, one after the other.
        c: times of the stages that a step evaluates itself, as fractions of the step.
        quadrature: weights of a quadrature and of its error, (used stages, 1 or 2).
    """

    tableau: Tableau
    weights: Tensor
    c: Tensor
    quadrature: Tensor

    @classmethod
    def of(cls, tableau: Tableau, like: Tensor) -> RungeKutta:
        """The method in the dtype and on the device of `like`."""
        sums = (*tableau.a, tableau.b, tableau.b_error)
        weights = tensor_like([weight for row in sums for weight in row], like)
        rows = (tableau.b, tableau.b_error) if tableau.b_error else (tableau.b,)
        used = [column for column, rated in zip(zip(*rows), tableau.rate_stages) if rated]
        own = tableau.c[tableau.first_same_as_last :]
        return cls(tableau, weights, tensor_like(own, like), tensor_like(used, like))

    def step_coefficients(self, mesh: Tensor) -> Tensor:
        """Start and length of each step."""
        return torch.stack([mesh[:-1], mesh.diff()], -1)

    def times(self, coefficients: Tensor) -> Tensor:
        """Times of the stages that a step evaluates itself."""
        return coefficients[:, :1] + coefficients[:, 1:] * self.c

    def begin(self, system: System, t: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        """The first stage of the first step, where steps are handed theirs."""
        if not self.tableau.first_same_as_last:
            return ()
        return _evaluate(system.at(t[None])[0], x, needs_rates=self.tableau.rate_stages[0])

    def step(
        self,
        moments: Sequence[SystemAt],
        x: Tensor,
        coefficients: Tensor,
        carry: tuple[Tensor, ...],
    ) -> Step:
        """One step of length h = coefficients[1]."""
        tableau, h = self.tableau, coefficients[1]
        a, b, b_error = self._sums(h)
        stages, at = [Evaluation(*carry)] if carry else [], x
        for moment in moments:
            i = len(stages)
            at = _add(x, a[i], [s.velocity for s in stages], tableau.a[i])
            stages.append(_evaluate(moment, at, needs_rates=tableau.rate_stages[i]))
        velocities = [s.velocity for s in stages]
        rates = torch.stack([s.rates for s, used in zip(stages, tableau.rate_stages) if used], -1)
        # A method that ends on its own last stage has already computed the new state there.
        new = at if tableau.first_same_as_last else _add(x, b, velocities, tableau.b)
        q, *q_error = (rates @ (h * self.quadrature)).unbind(-1)
        on = tuple(stages[-1]) if tableau.first_same_as_last else ()
        if not b_error:
            return Step(new, q, None, None, on)
        return Step(new, q, _add(None, b_error, velocities, tableau.b_error), q_error[0], on)

    def _sums(
        self, h: Tensor
    ) -> tuple[list[tuple[Tensor, ...]], tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Coefficients of a step of length h: of each stage, of the new state and of its error."""
        scaled = iter((h * self.weights).unbind())
        a = [tuple(islice(scaled, len(row))) for row in self.tableau.a]
        return a, tuple(islice(scaled, self.tableau.stages)), tuple(scaled)


def _evaluate(moment: SystemAt, x: Tensor, *, needs_rates: bool) -> Evaluation:
    if needs_rates:
        return Evaluation(*moment.evaluate(x))
    return Evaluation(moment.velocity(x), no_rates(x))


def _add(
    x: Tensor | None, scaled: tuple[Tensor, ...], ks: list[Tensor], weights: tuple[float, ...]
) -> Tensor:
    """x + h Σᵢ wᵢkᵢ over the stages whose weight is not zero, from the products hwᵢ; without x,
    the sum."""
    terms = [(k, factor) for k, factor, weight in zip(ks, scaled, weights) if weight != 0]
    if x is None:
        (k, factor), *terms = terms
        x = k * factor
    for k, factor in terms:
        x = torch.addcmul(x, k, factor)
    return x


@dataclass(frozen=True)
class RungeKuttaMethod(Method):
    """Explicit Runge-Kutta steps; the times asked for become nodes."""

    tableau: Tableau

    @property
    def estimates_error(self) -> bool:
        """Whether the tableau has an embedded partner."""
        return bool(self.tableau.b_error)

    def evaluations(self, nodes: Nodes) -> int:
        """Velocity evaluations of a solve over all nodes."""
        return self.tableau.evaluations(len(nodes) - 1)

    def solve(
        self,
        nodes: Nodes,
        system: System,
        x: Tensor,
        t: Tensor,
        *,
        gradient: Gradient,
        estimate: bool,
    ) -> Solution:
        """States at the times t (time,) from x (*batch, dim) at t[0]."""
        mesh, requested = _merged(nodes, t)
        scheme = RungeKutta.of(self.tableau, x)
        steps = integrate(
            system, x, mesh, scheme, wanted=requested, gradient=gradient, estimate=estimate
        )
        q = picked(cumulative(steps.q), requested)
        nfe = self.tableau.evaluations(len(steps.q))
        return Solution(steps.x, q, steps.x_error, steps.q_error, nfe)


def _merged(nodes: Nodes, t: Tensor) -> tuple[Tensor, list[int]]:
    """The nodes over the span of t merged with t, and where the times of t stand among them.

    Nodes move with the ends of the span, so that end times receive gradients.
    """
    times = t[0] + (t[-1] - t[0]) * tensor_like(nodes, t)
    if len(t) == 2:
        return times, [0, len(nodes) - 1]
    wanted = ((t - t[0]) / (t[-1] - t[0])).tolist()
    free = [k for k, node in enumerate(nodes) if min(abs(node - w) for w in wanted) > NEAR]
    merged = torch.cat([t, times[free]])
    places = wanted + [nodes[k] for k in free]
    order = sorted(range(len(places)), key=places.__getitem__)
    return merged[order], [order.index(k) for k in range(len(t))]
