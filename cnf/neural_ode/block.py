"""A layer of continuous depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cnf.ode import Gradient, Solution, Solver, solve


class ODEBlock(nn.Module):
    """The layer z(t₀) ↦ z(t₁) with dz/dt = f(t, z): a residual network of continuous depth.

    A residual block z + h f(z) is one Euler step; with `solver=Grid.uniform(n, "euler")` the layer
    is a residual network of n blocks with tied weights (Chen et al., "Neural ordinary differential
    equations", 2018). Trajectories of an ODE cannot cross, so a flow in the plane cannot separate
    nested sets; `augment=k` adds k dimensions that start at zero (Dupont et al., "Augmented neural
    ODEs", 2019).

    Args:
        f: the velocity, a module called with t () and z (*batch, dim + augment).
        t: the times t₀ and t₁, in either order; an `nn.Parameter` (2,) is learned.
        solver: `Grid` (fixed steps) or `Torchdiffeq`; the default is Torchdiffeq("dopri5").
        gradient: "adjoint", in memory that does not grow with the number of steps; "direct", or,
            with a `Grid`, "discrete".
        augment: k, the number of zeros appended to the last axis of the input. They stay in the
            output.

    Raises:
        ValueError: for times that are not two different numbers, or a negative `augment`.

    Example:
        >>> from cnf.fields import MLPField
        >>> net = nn.Sequential(nn.Linear(4, 2), ODEBlock(MLPField(3, (16, 16)), augment=1), nn.Linear(3, 10))
        >>> net(torch.zeros(5, 4)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        f: nn.Module,
        *,
        t: Sequence[float] | nn.Parameter = (0.0, 1.0),
        solver: Solver | None = None,
        gradient: Gradient = "adjoint",
        augment: int = 0,
    ) -> None:
        super().__init__()
        if augment < 0:
            raise ValueError(f"augment: expected 0 or more dimensions; got {augment}")
        self.f = f
        self.t = _end_times(t)
        self.solver = solver
        self.gradient = gradient
        self.augment = augment

    def forward(self, x: Tensor) -> Tensor:
        """z(t₁), (*batch, dim + augment), of the input x (*batch, dim)."""
        return self.solve(x).x[-1]

    def solve(self, x: Tensor, t: Tensor | Sequence[float] | None = None) -> Solution:
        """The path of x through the layer; `nfe` counts the evaluations.

        Args:
            x: input (*batch, dim).
            t: times of the states z, strictly increasing or decreasing; may require a gradient.
                The default is t₀ and t₁ of the layer.

        Returns:
            The solution with states x (time, *batch, dim + augment).

        Raises:
            SolverError: if the solve cannot be finished.
            ValueError: for times that are not strictly monotone.
        """
        times = self.t if t is None else t
        z = torch.cat([x, x.new_zeros((*x.shape[:-1], self.augment))], -1) if self.augment else x
        times = times.to(z) if isinstance(times, Tensor) else times
        tensors = tuple(self.f.parameters())
        return solve(self.f, z, times, solver=self.solver, gradient=self.gradient, tensors=tensors)

    def extra_repr(self) -> str:
        """The settings, for `print`."""
        times = tuple(self.t.tolist()) if isinstance(self.t, Tensor) else self.t
        return (
            f"t={times}, solver={self.solver}, gradient={self.gradient!r}, augment={self.augment}"
        )


def _end_times(t: Sequence[float] | Tensor) -> tuple[float, float] | nn.Parameter:
    """The two end times: a parameter as it is, anything else as numbers."""
    if isinstance(t, Tensor) and t.requires_grad and not isinstance(t, nn.Parameter):
        raise ValueError(
            "t of an ODEBlock: a tensor that requires a gradient must be an nn.Parameter"
        )
    times = tuple(t.tolist() if isinstance(t, Tensor) else map(float, t))
    if len(times) != 2 or times[0] == times[1]:
        raise ValueError(f"t of an ODEBlock: expected two different times; got {times}")
    return t if isinstance(t, nn.Parameter) else times


class CallCounter:
    """Counts the calls of a module inside a `with` block.

    The adjoint and the discrete gradient evaluate the velocity again in the backward pass. These
    calls are counted too, whereas `Solution.nfe` counts the forward pass alone.

    Args:
        module: the module whose calls are counted.

    Example:
        >>> from cnf.fields import MLPField
        >>> from cnf.ode import Grid
        >>> block = ODEBlock(MLPField(2, (8, 8)), solver=Grid.uniform(10, "rk4"), gradient="discrete")
        >>> with CallCounter(block.f) as counter:
        ...     loss = block(torch.zeros(3, 2)).sum()
        ...     forwards = counter.calls
        ...     loss.backward()
        >>> forwards, counter.calls - forwards
        (40, 40)
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.calls = 0

    def __enter__(self) -> CallCounter:
        self._hook = self.module.register_forward_hook(self._count)
        return self

    def __exit__(self, *exception: object) -> None:
        self._hook.remove()

    def _count(self, *call: Any) -> None:
        self.calls += 1
