"""Steps along a mesh of times, whatever makes a step, and the adjoint of the discretized
equation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cnf.functional import recorded, transformed
from cnf.ode.scanned import scanned
from cnf.ode.system import Gradient, System, SystemAt
from cnf.precision import backward_outside_autocast


class Step(NamedTuple):
    """The result of one step.

    Attributes:
        x: new state (*batch, dim).
        q: increment of the quadratures (*batch, rates).
        x_error: estimate of the error in x (*batch, dim); None without an estimate.
        q_error: the same in q (*batch, rates).
        carry: state passed to the next step.
    """

    x: Tensor
    q: Tensor
    x_error: Tensor | None
    q_error: Tensor | None
    carry: tuple[Tensor, ...]


def flat(x: Tensor, q: Tensor) -> Tensor:
    """The derivatives of a state and of quadratures, one after the other in one flat tensor: they
    are summed together, and each lies contiguously."""
    return torch.cat([x.reshape(-1), q.reshape(-1)])


class Steps(NamedTuple):
    """A whole mesh: states at the nodes asked for (nodes, …) and what each step added (steps, …),
    with the norm of the estimate of its error in x (steps, *batch) and its absolute value in q
    (steps, *batch, rates); no steps of them where there is no estimate, or none was asked for."""

    x: Tensor
    q: Tensor
    x_error: Tensor
    q_error: Tensor


class Scheme(ABC):
    """How one step is made from the state and the carry of the steps before."""

    @abstractmethod
    def step_coefficients(self, mesh: Tensor) -> Tensor:
        """The coefficients of each step (steps, numbers), a differentiable function of the mesh
        (steps + 1,)."""

    @abstractmethod
    def times(self, coefficients: Tensor) -> Tensor:
        """Times at which steps of these coefficients (steps, numbers) evaluate the system, (steps,
        stages)."""

    @abstractmethod
    def begin(self, system: System, t: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        """The carry of the first step, at time t () and state x (*batch, dim)."""

    @abstractmethod
    def step(
        self,
        moments: Sequence[SystemAt],
        x: Tensor,
        coefficients: Tensor,
        carry: tuple[Tensor, ...],
    ) -> Step:
        """One step from x, with the system at the step's times and its coefficients (numbers,)."""

    def iterate(
        self,
        system: System,
        x: Tensor,
        coefficients: Tensor,
        carry: tuple[Tensor, ...],
        *,
        estimate: bool,
    ) -> Iterator[Step]:
        """The steps in turn, without gradients: only x and q of a step are kept after the next.
        Without `estimate`, a scheme may omit the errors."""
        return take_steps(system, x, self, coefficients, carry)


# The system is prepared for about so many times at once: more would cost memory and gain nothing.
PREPARED = 96
# The discrete adjoint evaluates so many stages again at once: one Runge-Kutta step, or a few
# cheaper ones.
TOGETHER = 6


def integrate(
    system: System,
    x: Tensor,
    mesh: Tensor,
    scheme: Scheme,
    *,
    wanted: Sequence[int],
    gradient: Gradient,
    estimate: bool,
) -> Steps:
    """Carry x along the mesh with a gradient of the chosen kind.

    Args:
        system: velocity and rates.
        x: state at `mesh[0]`, (*batch, dim).
        mesh: times (steps + 1,), increasing or decreasing; may require a gradient.
        scheme: what makes a step.
        wanted: indices of the nodes whose states are returned.
        gradient: "direct" keeps the whole graph. "discrete" keeps states, with what the steps hand
            on, and re-evaluates a few steps at a time backwards: the same gradient to rounding, in
            memory of those.
        estimate: whether to compute errors, if the scheme estimates them.
    """
    coefficients, collect = scheme.step_coefficients(mesh), partial(_collect, estimate=estimate)
    if gradient == "discrete" and torch.is_grad_enabled() and not transformed():
        return Steps(
            *_DiscreteAdjoint.apply(
                system, scheme, collect, wanted, x, mesh[0], coefficients, *system.tensors
            )
        )
    carry = scheme.begin(system, mesh[0], x)
    if torch.compiler.is_exporting():

        def one_step(x: Tensor, one: Tensor, carry: tuple[Tensor, ...]) -> Step:
            return scheme.step(system.at(scheme.times(one[None])[0]), x, one, carry)

        end, *made = scanned(one_step, x, coefficients, carry)
        return Steps(torch.stack([x, end]), *made)
    if recorded():
        return collect(x, take_steps(system, x, scheme, coefficients, carry), wanted)
    return collect(x, scheme.iterate(system, x, coefficients, carry, estimate=estimate), wanted)


def take_steps(
    system: System, x: Tensor, scheme: Scheme, coefficients: Tensor, carry: tuple[Tensor, ...]
) -> Iterator[Step]:
    """The steps in turn."""
    for moments, one in zip(moments_of(system, scheme.times(coefficients)), coefficients.unbind()):
        step = scheme.step(moments, x, one, carry)
        yield step
        x, carry = step.x, step.carry


def moments_of(system: System, times: Tensor) -> Iterator[Sequence[SystemAt]]:
    """The system at the times (steps, stages) of each step."""
    stages = times.shape[1]
    for some in times.split(max(PREPARED // stages, 1)):
        prepared = iter(system.at(some.flatten()))
        for _ in some:
            yield list(islice(prepared, stages))


def _collect(x: Tensor, made: Iterable[Step], wanted: Sequence[int], *, estimate: bool) -> Steps:
    """What is asked of the steps, taken from each as it comes: the rest of it is free for the next
    one."""
    states, q, x_error, q_error = {0: x}, [], [], []
    for k, step in enumerate(made, 1):
        if k in wanted:
            states[k] = step.x
        q.append(step.q)
        if estimate and step.x_error is not None and step.q_error is not None:
            x_error.append(torch.linalg.vector_norm(step.x_error, dim=-1))
            q_error.append(step.q_error.abs())
    none = x.new_zeros(0, *x.shape[:-1]), q[0].new_zeros(0, *q[0].shape)
    errors = (torch.stack(x_error), torch.stack(q_error)) if x_error else none
    return Steps(torch.stack([states[k] for k in wanted]), torch.stack(q), *errors)


class _Gate(torch.autograd.Function):
    """The identity, through which no gradient passes before the gate is open."""

    @staticmethod
    def forward(ctx: Any, gate: list[bool], x: Tensor) -> Tensor:
        ctx.gate = gate
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, to_x: Tensor) -> tuple[None, Tensor | None]:
        return None, to_x if ctx.gate else None


class _DiscreteAdjoint(torch.autograd.Function):
    """The adjoint of the discretized equation: a few steps at a time are evaluated again,
    backwards.

    Where the gradient itself is to be differentiated, all steps are evaluated again, and keep their
    graph.

    With aₖ = ∂L/∂xₖ, each step x' = Φ(x, p; θ) with coefficients p gives aₖ = aₖ₊₁ ∂Φ/∂x and adds
    aₖ₊₁ ∂Φ/∂θ to ∂L/∂θ. What a step hands on to the next one belongs to the state."""

    @staticmethod
    def forward(
        ctx: Any, system: System, scheme: Scheme, collect: Callable[..., Steps], wanted: Sequence[int],
        x: Tensor, start: Tensor, coefficients: Tensor, *tensors: Tensor,
    ) -> Any:  # fmt: skip
        ctx.set_materialize_grads(False)  # what nobody asks for, such as errors, costs nothing
        carry = scheme.begin(system, start, x)
        taken = list(take_steps(system, x, scheme, coefficients, carry))
        states = [(x, *carry), *((step.x, *step.carry) for step in taken)]
        ctx.system, ctx.scheme, ctx.collect, ctx.wanted = system, scheme, collect, wanted
        ctx.stretch = max(TOGETHER // scheme.times(coefficients[:1]).numel(), 1)
        kept = states[: len(taken) : ctx.stretch]
        ctx.save_for_backward(start, coefficients, *(part for parts in kept for part in parts))
        return tuple(collect(x, taken, wanted))

    @staticmethod
    @backward_outside_autocast
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        if torch.is_grad_enabled():
            return _differentiable(ctx, cotangents)
        system, scheme = ctx.system, ctx.scheme
        start, coefficients, *saved = ctx.saved_tensors
        sought = [tensor for tensor in system.tensors if tensor.requires_grad]
        # Of start and coefficients, where end times are learnt.
        moving = ctx.needs_input_grad[5] or ctx.needs_input_grad[6]
        totals = [torch.zeros_like(tensor) for tensor in sought]
        to_nodes, *to_increments = cotangents
        to_node = {} if to_nodes is None else dict(zip(ctx.wanted, to_nodes))

        def run(stretch: Tensor, x: Tensor, *carry: Tensor) -> list[Tensor]:
            taken = list(take_steps(system, x, scheme, stretch, carry))
            made = ctx.collect(x, taken, range(1, len(taken) + 1))
            return [taken[-1].x, *taken[-1].carry, *made.x, *made[1:]]

        firsts = range(0, len(coefficients), ctx.stretch)
        width = len(saved) // len(firsts)
        to_coefficients: list[Tensor] = []
        to_state: list[Tensor] = []
        for k, stretch in reversed(list(zip(firsts, coefficients.split(ctx.stretch)))):
            last = k + len(stretch)
            inputs = saved[width * (k // ctx.stretch) :][:width]
            to_inner = [to_node.get(node) for node in range(k + 1, last + 1)]
            increments = [None if part is None else part[k:last] for part in to_increments]
            given = (*to_state, *[None] * (width - len(to_state)), *to_inner, *increments)
            leaves = (
                stretch.detach().requires_grad_(moving),
                *(part.detach().requires_grad_() for part in inputs),
            )
            to_stretch, *to_state = _pull_back(run, leaves, given, sought, totals)
            to_coefficients.insert(0, to_stretch)
        to_x, *to_carry = to_state
        leaves = (start.detach().requires_grad_(moving), saved[0].detach().requires_grad_())
        to_start, to_first = _pull_back(
            partial(scheme.begin, system), leaves, to_carry, sought, totals
        )
        to_x = to_x + to_first + to_node.get(0, torch.zeros_like(to_x))
        found = iter(totals)
        wanted = [next(found) if tensor.requires_grad else None for tensor in system.tensors]
        return None, None, None, None, to_x, to_start, torch.cat(to_coefficients), *wanted


def _differentiable(ctx: Any, cotangents: Sequence[Tensor | None]) -> Any:
    """The same cotangents as a differentiable function of everything.

    The state and the times at the start may themselves depend on what the system reads: what is
    before them is not this solve's to differentiate, until its own gradient is there.
    """
    system, scheme = ctx.system, ctx.scheme
    start, coefficients, x, *_ = ctx.saved_tensors
    gate: list[bool] = []
    inputs = [_Gate.apply(gate, part) for part in (x, start, coefficients)]
    carry = scheme.begin(system, inputs[1], inputs[0])
    made = ctx.collect(
        inputs[0], take_steps(system, inputs[0], scheme, inputs[2], carry), ctx.wanted
    )
    sought = [part for part in (*inputs, *system.tensors) if part.requires_grad]
    outputs, given = zip(*((out, to) for out, to in zip(made, cotangents) if to is not None))
    found = iter(torch.autograd.grad(outputs, sought, given, create_graph=True, allow_unused=True))
    gate.append(True)
    parts = (*inputs, *system.tensors)
    return None, None, None, None, *(next(found) if p.requires_grad else None for p in parts)


def _pull_back(
    run: Callable[..., Sequence[Tensor]],
    leaves: Sequence[Tensor],
    cotangents: Sequence[Tensor | None],
    sought: list[Tensor],
    totals: list[Tensor],
) -> list[Tensor]:
    """Cotangents of the leaves that `run` is given, zero of those that want none, from the
    cotangents of its outputs (None: not used); those of `sought` are added to `totals`."""
    with torch.enable_grad():
        outputs = run(*leaves)
    pairs = [
        (out, cotangent)
        for out, cotangent in zip(outputs, cotangents)
        if cotangent is not None and out.requires_grad
    ]
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    if not pairs:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(
        [out for out, _ in pairs],
        [*wanted, *sought],
        [cotangent for _, cotangent in pairs],
        allow_unused=True,
        materialize_grads=True,
    )
    if sought:
        torch._foreach_add_(totals, found[len(wanted) :])
    to_wanted = iter(found)
    return [next(to_wanted) if leaf.requires_grad else torch.zeros_like(leaf) for leaf in leaves]
