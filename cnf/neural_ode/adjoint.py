"""The adjoint of a solution at every time, which `gradient="adjoint"` computes internally."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cnf.ode import Solver, System, Torchdiffeq


@dataclass(frozen=True)
class Adjoint:
    """Derivatives of a loss along a solution.

    Attributes:
        a: ∂L/∂z(t), (time, *shape of z), in the order of the times.
        z: the state, solved backward, (time, *shape of z).
        tensors: ∂L/∂θ for each of the tensors θ.
        start: ∂L/∂t₀, ().
        end: ∂L/∂t₁, ().
    """

    a: Tensor
    z: Tensor
    tensors: tuple[Tensor, ...]
    start: Tensor
    end: Tensor


def adjoint(
    f: Callable[[Tensor, Tensor], Tensor],
    z: Tensor,
    a: Tensor,
    t: Tensor,
    *,
    tensors: Sequence[Tensor] = (),
    solver: Solver | None = None,
) -> Adjoint:
    """Integrate a = ∂L/∂z backward in time along the solution of dz/dt = f(t, z) that ends in z.

        da/dt = −aᵀ ∂f/∂z,    ∂L/∂θ = ∫ aᵀ ∂f/∂θ dt,    ∂L/∂t₁ = a(t₁)ᵀf(t₁),    ∂L/∂t₀ = −a(t₀)ᵀf(t₀)

    The state is solved backward together with the adjoint, as in algorithm 1 of Chen et al., "Neural
    ordinary differential equations", 2018. For training, `cnf.ode.solve(gradient="adjoint")` is
    faster; this function returns the adjoint itself, which shows how much each time contributes to
    the loss.

    Args:
        f: velocity, called with t () and z of any shape.
        z: z(t₁).
        a: ∂L/∂z(t₁), of the shape of z.
        t: times from t₀ to t₁ (time,), strictly increasing or decreasing.
        tensors: θ, the tensors that f depends on.
        solver: `Grid` or `Torchdiffeq`; the default is Torchdiffeq("dopri5").

    Raises:
        ValueError: if a and z differ in shape.
        SolverError: if the solve cannot be finished.

    Example:
        The adjoint of dz/dt = −z grows from ∂L/∂z(0) = e⁻¹ to ∂L/∂z(1) = 1.

        >>> from cnf.ode import Grid
        >>> end, times = torch.tensor([0.3]), torch.tensor([0.0, 1.0])
        >>> adjoint(lambda t, z: -z, end, torch.ones(1), times, solver=Grid.uniform(8)).a.flatten()
        tensor([0.3679, 1.0000])
    """
    if a.shape != z.shape:
        raise ValueError(f"a: expected the shape of z, {tuple(z.shape)}; got {tuple(a.shape)}")
    system = _backwards(f, z.shape, tuple(tensors))
    with torch.no_grad():
        ends = torch.cat([z.flatten(), a.flatten()])
        solution = (solver or Torchdiffeq()).solve(
            system, ends, t.detach().flip(0), gradient="direct"
        )
        states, adjoints = (part.reshape(-1, *z.shape) for part in solution.x.flip(0).chunk(2, -1))
        parts = (-solution.q[-1]).split([tensor.numel() for tensor in tensors])
        return Adjoint(
            a=adjoints,
            z=states,
            tensors=tuple(part.view_as(tensor) for part, tensor in zip(parts, tensors)),
            start=-(adjoints[0] * f(t[0], states[0])).sum(),
            end=(adjoints[-1] * f(t[-1], states[-1])).sum(),
        )


def _backwards(
    f: Callable[[Tensor, Tensor], Tensor], shape: torch.Size, tensors: tuple[Tensor, ...]
) -> System:
    """The system of state and adjoint, one after the other in a vector; its rates are aᵀ ∂f/∂θ."""

    def derivative(t: Tensor, both: Tensor) -> tuple[Tensor, Tensor]:
        state, a = (part.reshape(shape) for part in both.detach().chunk(2))
        with torch.enable_grad():
            v = f(t, state.requires_grad_())
            v = v + 0 * state  # a velocity may depend on nothing
            to_state, *to_tensors = torch.autograd.grad(
                v, (state, *tensors), a, allow_unused=True, materialize_grads=True
            )
        rates = torch.cat([both.new_zeros(0), *(part.flatten() for part in to_tensors)])
        return torch.cat([v.detach().flatten(), -to_state.flatten()]), rates

    return System.of(lambda t, both: derivative(t, both)[0], derivative)
