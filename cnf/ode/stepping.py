"""Steps along a mesh of times, whatever makes a step, and the adjoint of the discretised equation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cnf.ode.system import Gradient, System, SystemAt


class Step(NamedTuple):
    """The result of one step.

    Attributes:
        x: new state (*batch, dim).
        q: increment of the quadratures (*batch, rates).
        error: estimate of the errors in x and q, as `flat` puts them together; None where there is none.
        carried: what the step hands on to the next one.
    """

    x: Tensor
    q: Tensor
    error: Tensor | None
    carried: tuple[Tensor, ...]


def flat(x: Tensor, q: Tensor) -> Tensor:
    """A state and quadratures, or their derivatives or errors, one after the other in one flat tensor: they
    are summed together, and each lies contiguously."""
    return torch.cat([x.reshape(-1), q.reshape(-1)])


class Steps(NamedTuple):
    """A whole mesh: states at the nodes asked for (nodes, …) and what each step added (steps, …), with the
    norm of the estimate of its error in x (steps, *batch) and its absolute value in q (steps, *batch, rates);
    no steps of them where there is no estimate."""

    x: Tensor
    q: Tensor
    x_error: Tensor
    q_error: Tensor


class Scheme(ABC):
    """How one step is made from the state and from what the steps before it have handed on."""

    @abstractmethod
    def plan(self, mesh: Tensor) -> Tensor:
        """What each step has to know (steps, numbers), a differentiable function of the mesh (steps + 1,)."""

    @abstractmethod
    def times(self, plan: Tensor) -> Tensor:
        """Times at which the steps of a plan (steps, numbers) evaluate the system, (steps, stages)."""

    @abstractmethod
    def begin(self, system: System, t: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        """What the first step is handed, at time t () and state x (*batch, dim)."""

    @abstractmethod
    def step(self, moments: Sequence[SystemAt], x: Tensor, plan: Tensor, carried: tuple[Tensor, ...]) -> Step:
        """One step from x, with the system at the step's times and the step's plan (numbers,)."""


# The system is prepared for about so many times at once: more would cost memory and gain nothing.
PREPARED = 96
# The discrete adjoint evaluates so many stages again at once: one Runge-Kutta step, or a few cheaper ones.
TOGETHER = 6


def integrate(
    system: System, x: Tensor, mesh: Tensor, scheme: Scheme, *, at: Sequence[int], gradient: Gradient
) -> Steps:
    """Carry x along the mesh with a gradient of the chosen kind.

    Args:
        system: velocity and rates.
        x: state at `mesh[0]`, (*batch, dim).
        mesh: times (steps + 1,), increasing or decreasing; may require a gradient.
        scheme: what makes a step.
        at: which nodes' states are wanted.
        gradient: "direct" keeps the whole graph. "discrete" keeps states, with what the steps hand on, and
            re-evaluates a few steps at a time backwards: the same gradient to rounding, in memory of those.
    """
    plan = scheme.plan(mesh)
    if gradient == "discrete" and torch.is_grad_enabled():
        return Steps(*_DiscreteAdjoint.apply(system, scheme, at, x, mesh[0], plan, *system.tensors))
    return _collect(x, list(_steps(system, x, scheme, plan, scheme.begin(system, mesh[0], x))), at)


def _steps(
    system: System, x: Tensor, scheme: Scheme, plan: Tensor, carried: tuple[Tensor, ...]
) -> Iterator[Step]:
    """The steps in turn."""
    times = scheme.times(plan)
    stages = times.shape[1]
    together = max(PREPARED // stages, 1)
    for plans, moments in zip(plan.split(together), times.split(together)):
        prepared = iter(system.at(moments.flatten()))
        for one in plans.unbind():
            step = scheme.step(list(islice(prepared, stages)), x, one, carried)
            yield step
            x, carried = step.x, step.carried


def _collect(x: Tensor, steps: list[Step], at: Sequence[int]) -> Steps:
    nodes, q = [x, *(s.x for s in steps)], torch.stack([s.q for s in steps])
    return Steps(torch.stack([nodes[k] for k in at]), q, *_sizes([s.error for s in steps], x, q[0]))


def _sizes(errors: Sequence[Tensor | None], x: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Norms in x (steps, *batch) and absolute values in q (steps, *batch, rates) of flat errors."""
    found = [error for error in errors if error is not None]
    if not found:
        return x.new_zeros(0, *x.shape[:-1]), q.new_zeros(0, *q.shape)
    of_x, of_q = torch.stack(found).tensor_split((x.numel(),), -1)
    squares = of_x.reshape(len(found), *x.shape).square() @ x.new_ones(x.shape[-1])
    # Where the error vanishes the norm has no derivative: there it shall be nothing.
    norms = squares.clamp(min=torch.finfo(x.dtype).tiny).sqrt()
    return norms, of_q.reshape(len(found), *q.shape).abs()


class _DiscreteAdjoint(torch.autograd.Function):
    """The adjoint of the discretised equation: a few steps at a time are evaluated again, backwards.

    With aₖ = ∂L/∂xₖ, each step x' = Φ(x, p; θ) of plan p gives aₖ = aₖ₊₁ ∂Φ/∂x and adds aₖ₊₁ ∂Φ/∂θ to ∂L/∂θ.
    What a step hands on to the next one belongs to the state.
    """

    @staticmethod
    def forward(
        ctx: Any, system: System, scheme: Scheme, at: Sequence[int],
        x: Tensor, start: Tensor, plan: Tensor, *tensors: Tensor,
    ) -> Any:  # fmt: skip
        carried = scheme.begin(system, start, x)
        steps = list(_steps(system, x, scheme, plan, carried))
        states = [(x, *carried), *((step.x, *step.carried) for step in steps)]
        ctx.system, ctx.scheme, ctx.at = system, scheme, at
        ctx.stretch = max(TOGETHER // scheme.times(plan[:1]).numel(), 1)
        kept = states[: len(steps) : ctx.stretch]
        ctx.save_for_backward(start, plan, *(part for parts in kept for part in parts))
        return tuple(_collect(x, steps, at))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        system, scheme = ctx.system, ctx.scheme
        start, plan, *saved = ctx.saved_tensors
        sought = [tensor for tensor in system.tensors if tensor.requires_grad]
        totals = [torch.zeros_like(tensor) for tensor in sought]
        to_nodes, *to_increments = cotangents
        to_node = dict(zip(ctx.at, to_nodes))

        def run(plans: Tensor, x: Tensor, *carried: Tensor) -> list[Tensor]:
            steps = list(_steps(system, x, scheme, plans, carried))
            made = _collect(x, steps, range(1, len(steps) + 1))
            return [steps[-1].x, *steps[-1].carried, *made.x, *made[1:]]

        firsts = range(0, len(plan), ctx.stretch)
        width, to_plans, to_state = len(saved) // len(firsts), [], [None]
        for k, plans in reversed(list(zip(firsts, plan.split(ctx.stretch)))):
            last = k + len(plans)
            inputs = saved[width * (k // ctx.stretch) :][:width]
            to_inner = [to_node.get(node) for node in range(k + 1, last + 1)]
            increments = [part[k:last] for part in to_increments]
            given = (*to_state, *[None] * (width - len(to_state)), *to_inner, *increments)
            to_plan, *to_state = _pull_back(run, (plans, *inputs), given, sought, totals)
            to_plans.insert(0, to_plan)
        to_x, *to_carried = to_state
        to_start, to_first = _pull_back(
            lambda t, x: scheme.begin(system, t, x), (start, saved[0]), to_carried, sought, totals
        )
        to_x = to_x + to_first + to_node.get(0, torch.zeros_like(to_x))
        found = iter(totals)
        wanted = [next(found) if tensor.requires_grad else None for tensor in system.tensors]
        return None, None, None, to_x, to_start, torch.cat(to_plans), *wanted


def _pull_back(
    run: Callable[..., Sequence[Tensor]],
    inputs: Sequence[Tensor],
    cotangents: Sequence[Tensor | None],
    sought: list[Tensor],
    totals: list[Tensor],
) -> list[Tensor]:
    """Cotangents of the inputs of `run`, from those of its outputs (None: not used); those of `sought` are
    added to `totals`."""
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        outputs = run(*leaves)
    pairs = [
        (out, cotangent)
        for out, cotangent in zip(outputs, cotangents)
        if cotangent is not None and out.requires_grad
    ]
    if not pairs:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(
        [out for out, _ in pairs],
        [*leaves, *sought],
        [cotangent for _, cotangent in pairs],
        allow_unused=True,
        materialize_grads=True,
    )
    if sought:
        torch._foreach_add_(totals, found[len(leaves) :])
    return list(found[: len(leaves)])
