"""The Adams predictor-corrector method on uneven times, with one evaluation per step."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import cycle, pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from cnf.ode.method import Method, Nodes, cumulative, picked
from cnf.ode.stepping import Scheme, Step, flat, integrate, moments_of
from cnf.ode.system import Gradient, Solution, System, SystemAt, tensor_like

# Velocities that the predictor looks back on; the corrector takes the newest in place of the
# oldest.
MEMORY = 5
# Milne's device: on even times both are off by multiples of h⁶x⁽⁶⁾, the predictor by 475/1440 and
# the corrector by −27/1440, so that the corrector's error is this part of their difference.
MILNE = 27 / 502
# A solve starts without a past, with steps of low order that must be short: the first step of a
# grid is entered in three pieces that end each so many times later than the one before. What errs
# there errs in all that follows: without care it would outweigh the other steps together.
ENTRY = 5
# A first step shorter than this part of the second gives way: the past would be too close to look
# ahead from.
SHORTEST_START = 0.5
# States on either side that a state between two nodes is interpolated from.
BESIDE = 3
# Three points and weights of Gauss and Legendre on [0, 1], exact for polynomials of degree five.
GAUSS = ((0.5 - 0.15**0.5, 0.5, 0.5 + 0.15**0.5), (5 / 18, 8 / 18, 5 / 18))


class Adams(Scheme):
    """Adams-Bashforth predicts, Adams-Moulton corrects, both of order five; the next step looks
    back on the velocity at the predicted point (PEC), so that a step takes one evaluation.

    With ℓ the Lagrange polynomials of the times that a step looks back on,

        x̂ = xₖ + Σⱼ fⱼ ∫ ℓⱼ dt over f₋₄ … f₀,    f₁ = f(tₖ₊₁, x̂),    xₖ₊₁ = xₖ + Σⱼ fⱼ ∫ ℓⱼ dt over f₋₃ … f₁,

    and a part of xₖ₊₁ − x̂ estimates the error (Hairer, Nørsett & Wanner, "Solving Ordinary
    Differential Equations I", III.1 and III.5). The first steps use as many past times as there
    are. The integrals depend on the times alone, so uneven times cost nothing. The coefficients of
    a step are its end, and the weights of past and new velocities in the predictor and in the
    correction.

    A step without length evaluates the velocity again, at the corrected state; what follows looks
    back on that in place of the one at the predicted point.

    Args:
        nodes: fractions of the span at which the steps start and end, as `with_startup_steps`
            gives them.
        like: dtype and device of the arithmetic.
    """

    def __init__(self, nodes: tuple[float, ...], like: Tensor) -> None:
        # A compiler traces through what is computed, and cannot look into a cache.
        weights = _weights if torch.compiler.is_compiling() else _known_weights
        self.weights = tensor_like(weights(nodes), like)

    def step_coefficients(self, mesh: Tensor) -> Tensor:
        """The end of each step, and its weights for the span of the mesh."""
        return torch.cat([mesh[1:, None], (mesh[-1] - mesh[0]) * self.weights], 1)

    def times(self, coefficients: Tensor) -> Tensor:
        """The ends of the steps."""
        return coefficients[:, :1]

    def begin(self, system: System, t: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        """Velocity and rates at the start, in place of all that is past."""
        return (flat(*system.at(t[None])[0].evaluate(x)),) * MEMORY

    def step(
        self,
        moments: Sequence[SystemAt],
        x: Tensor,
        coefficients: Tensor,
        carry: tuple[Tensor, ...],
    ) -> Step:
        """Predict, evaluate, correct."""
        weights, sizes = (
            coefficients[1:].view(2, MEMORY + 1),
            (x.numel(), carry[0].numel() - x.numel()),
        )
        ahead, behind = (weights[:, :MEMORY] @ torch.stack(carry)).unbind()
        ahead, ahead_q = ahead.split(sizes)
        predicted = x + ahead.view_as(x)
        velocity, rates = moments[0].evaluate(predicted)
        new = flat(velocity, rates)
        change, change_q = torch.addcmul(behind, new, weights[1, MEMORY]).split(sizes)
        change, change_q = change.view_as(x), change_q.view_as(rates)
        q = ahead_q.view_as(rates) + change_q
        return Step(predicted + change, q, MILNE * change, MILNE * change_q, (*carry[1:], new))

    def iterate(
        self,
        system: System,
        x: Tensor,
        coefficients: Tensor,
        carry: tuple[Tensor, ...],
        *,
        estimate: bool,
    ) -> Iterator[Step]:
        """Past derivatives are in a ring buffer. A step overwrites the oldest, and reuses the
        memory for sums, because new memory would cost more than the arithmetic."""
        if x.numel() == 0:  # a flat row does not say how many quadratures no rows have
            yield from super().iterate(system, x, coefficients, carry, estimate=estimate)
            return
        ring = torch.stack(carry)
        sums = torch.empty_like(ring[:2])
        (ahead, ahead_q), (change, change_q) = (_parts(row, x) for row in sums)
        places = [(row, *_parts(row, x)) for row in ring]
        steps = zip(
            moments_of(system, coefficients[:, :1]), *_turning(coefficients[:, 1:]), cycle(places)
        )
        for (moment,), past, newest, (new, velocity, rates) in steps:
            torch.mm(past, ring, out=sums)
            x = x + ahead
            if moment.velocity_and_rates is None:
                velocity.copy_(moment.velocity(x))
            else:
                for place, found in zip((velocity, rates), moment.velocity_and_rates(x)):
                    place.copy_(found)
            sums[1].addcmul_(new, newest)
            x, q = x.add_(change), ahead_q + change_q
            if estimate:
                sums[1].mul_(MILNE)
                yield Step(x, q, change, change_q, ())
            else:
                yield Step(x, q, None, None, ())


class AdamsMethod(Method):
    """`Adams` on the nodes of a grid. The requested times are not steps: states at these times are
    interpolated."""

    estimates_error = True

    def step_times(self, nodes: Nodes) -> Nodes:
        """Fractions where the steps of a solve start and end."""
        return with_startup_steps(nodes)

    def evaluations(self, nodes: Nodes) -> int:
        """Velocity evaluations of a solve over all nodes."""
        return len(self.step_times(nodes))

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
        nodes, span = self.step_times(nodes), t[-1] - t[0]
        mesh, inner = t[0] + span * tensor_like(nodes, t), (t[1:-1] - t[0]) / span
        wanted = last_visits(nodes) if len(inner) else (0, len(nodes) - 1)
        steps = integrate(
            system, x, mesh, Adams(nodes, x), wanted=wanted, gradient=gradient, estimate=estimate
        )
        visited = tuple(nodes[k] for k in wanted)
        states, quadratures = (
            torch.cat([whole[:1], interpolate(whole, visited, inner), whole[-1:]])
            if len(inner)
            else whole
            for whole in (steps.x, picked(cumulative(steps.q), wanted))
        )
        return Solution(states, quadratures, steps.x_error, steps.q_error, len(nodes))


def _parts(row: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The parts of a flat row that belong to a state like x and to the quadratures."""
    return row[: x.numel()].view_as(x), row[x.numel() :].view(*x.shape[:-1], -1)


def _turning(weights: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Of each step's weights, those of the past (2, MEMORY), in the order in which a ring that
    turns by one place a step holds it, and the new one's in the corrector ()."""
    count = len(weights)
    past = weights.view(count, 2, MEMORY + 1)
    turned = (
        torch.arange(MEMORY, device=weights.device)
        - torch.arange(count, device=weights.device)[:, None]
    )
    order = (turned % MEMORY)[:, None].expand(-1, 2, -1)
    return past.gather(2, order).unbind(), past[:, 1, MEMORY].unbind()


def with_startup_steps(nodes: tuple[float, ...]) -> tuple[float, ...]:
    """The nodes with two more inside the first step, where a solve starts without a past.

    The nearer one stands twice, for a second evaluation: the first is at a point that Euler's
    method has predicted, and so close to the start that to look ahead from the two would magnify
    its error.

    Example:
        >>> with_startup_steps((0.0, 0.75, 1.0))
        (0.0, 0.03, 0.03, 0.15, 0.75, 1.0)
    """
    start, first, *rest = nodes
    if rest and first - start < SHORTEST_START * (rest[0] - first):
        first, *rest = rest
    near, far = (start + (first - start) / ENTRY**k for k in (2, 1))
    return (start, near, near, far, first, *rest)


def last_visits(nodes: Sequence[float]) -> list[int]:
    """Places of the nodes, of one that stands twice the second."""
    return [k for k, (node, after) in enumerate(pairwise((*nodes, math.inf))) if node != after]


def _weights(nodes: tuple[float, ...]) -> Tensor:
    """The weights in the coefficients of each step (steps, 2 · (MEMORY + 1)); zeros where there is no
    past."""
    times = torch.tensor(nodes, dtype=torch.float64)
    starts, ends = times[:-1], times[1:]
    back = torch.arange(len(starts))[:, None] + torch.arange(1 - MEMORY, 2)
    there, at = back >= 0, times[back.clamp(min=0)]
    there[:, :-1] &= at[:, :-1] != at[:, 1:]  # of two evaluations at one time, the second counts
    predictor = F.pad(_integrals(at[:, :-1], there[:, :-1], starts, ends), (0, 1))
    corrector = F.pad(_integrals(at[:, 1:], there[:, 1:], starts, ends), (1, 0))
    return torch.cat([predictor, corrector - predictor], 1)


_known_weights = lru_cache(maxsize=64)(_weights)


def _integrals(at: Tensor, there: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """∫ ℓⱼ dt from start to end of the Lagrange polynomials of the times `at` (steps, k) that are
    there."""
    points, shares = at.new_tensor(GAUSS)
    lengths = ends - starts
    basis = lagrange(at[:, None], there[:, None], starts[:, None] + lengths[:, None] * points)
    return lengths[:, None] * (shares[:, None] * basis).sum(1)


def lagrange(at: Tensor, there: Tensor, t: Tensor) -> Tensor:
    """ℓⱼ(t) (…, k) at times t (…,) for the nodes `at` (…, k) that are there; zero for the
    others."""
    same = torch.eye(at.shape[-1], dtype=torch.bool, device=at.device)
    gaps = (at[..., :, None] - at[..., None, :]).masked_fill(same, 1.0)
    factors = (t[..., None, None] - at[..., None, :]) / gaps
    unused = same | ~there[..., None, :]
    return factors.masked_fill(unused, 1.0).prod(-1).masked_fill(~there, 0.0)


def interpolate(states: Tensor, nodes: tuple[float, ...], t: Tensor) -> Tensor:
    """States (time, …) at fractions t (time,) of a span, from those at its nodes (len(nodes), …).

    A polynomial of degree five through the six nodes around each time: no less accurate than the
    steps, and without an evaluation.
    """
    width = min(2 * BESIDE, len(nodes))
    firsts = [min(max(bisect_right(nodes, f) - BESIDE, 0), len(nodes) - width) for f in t.tolist()]
    at = t.new_tensor([nodes[first : first + width] for first in firsts])
    weights = lagrange(at, torch.ones_like(at, dtype=torch.bool), t)
    parts = [torch.tensordot(w, states[k : k + width], 1) for w, k in zip(weights, firsts)]
    return torch.stack(parts)
