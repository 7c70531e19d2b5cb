"""What a flow is made of, and the solves that are made with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import pairwise, repeat
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cnf.fields import FieldAt, GatedField, VelocityField
from cnf.flows.bases import Base, NormalBase
from cnf.flows.divergence import Hutchinson, choose_divergence
from cnf.flows.scoring import Accuracy, chunk_size
from cnf.ode import Gradient, Grid, Solution, Solver, System, SystemAt, tensor_like
from cnf.transforms.affine import Affine, Transform

AUTO = "auto"
# Evaluations of the field, summed over rows, whose graph is kept: some hundreds of megabytes in a
# wide one.
GRAPH = 32_768
MakeSystem = Callable[[Tensor, Tensor | None], System]


class Given(NamedTuple):
    """What rows are given, one row each.

    Attributes:
        context: in the units of the data (rows, context_dim), or None.
        mask: which columns each row has (rows, dim), or None for all of them.
        condition: the context in model coordinates (rows, context_dim), or None.
    """

    context: Tensor | None
    mask: Tensor | None
    condition: Tensor | None


class FlowParts(nn.Module):
    """The parts of a `CNF`, checked against each other, and solves of its equation in model
    coordinates.

    Arguments and errors are those of `CNF`.
    """

    def __init__(
        self,
        dim: int,
        *,
        hidden: tuple[int, int] = (128, 128),
        context_dim: int = 0,
        field: VelocityField | None = None,
        base: Base | str = AUTO,
        preprocess: Transform | str = AUTO,
        solver: Solver | str = AUTO,
        divergence: Hutchinson | str = AUTO,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.context_dim = context_dim
        self.field = (
            field if field is not None else GatedField(dim, hidden, context_dim=context_dim)
        )
        given = {"base": base, "preprocess": preprocess, "solver": solver}
        # What `cnf.fit` is free to choose; the map of the context is always its own.
        self.automatic = {
            "context_map",
            *(name for name, part in given.items() if isinstance(part, str)),
        }
        self.preprocess: Transform = (
            Affine.identity(dim) if isinstance(preprocess, str) else preprocess
        )
        self.context_map = Affine.identity(context_dim)
        self.base = (NormalBase(dim) if isinstance(base, str) else base).to(self.dtype)
        self.solver: Solver = Grid.uniform(16) if isinstance(solver, str) else solver
        self.divergence = Hutchinson() if divergence == "hutchinson" else divergence
        self.accuracy = Accuracy()
        self.compiled: Grid | None = None  # on which solves are one program of torch.compile
        self.metadata: dict[str, Any] = {}
        self._check_parts((base, preprocess, solver))

    def _check_parts(self, given: Sequence[object]) -> None:
        for name, part in zip(("base", "preprocess", "solver"), given):
            if isinstance(part, str) and part != AUTO:
                raise ValueError(f"{name}: expected an object or 'auto'; got {part!r}")
        if not isinstance(self.divergence, Hutchinson) and self.divergence not in (AUTO, "exact"):
            raise ValueError(
                f"divergence: expected auto, exact or hutchinson; got {self.divergence!r}"
            )
        if (self.field.dim, self.field.context_dim) != (self.dim, self.context_dim):
            raise ValueError(
                f"the field has dim={self.field.dim}, context_dim={self.field.context_dim};"
                f" the flow wants dim={self.dim}, context_dim={self.context_dim}"
            )
        if self.base.dim != self.dim or self.preprocess.dim != self.dim:
            raise ValueError(f"base and preprocess must have {self.dim} columns, as the flow has")

    @property
    def dtype(self) -> torch.dtype:
        """Of the arithmetic."""
        return self.like.dtype

    @property
    def device(self) -> torch.device:
        """Where the arithmetic is done."""
        return self.like.device

    @property
    def like(self) -> Tensor:
        """An empty tensor with the dtype and on the device of the flow's arithmetic."""
        for tensor in (*self.field.parameters(), *self.field.buffers()):
            if tensor.is_floating_point():
                return tensor.detach().new_empty(0)
        return torch.empty(0, device=self.context_map.shift.device)

    def to_model_coordinates(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Rows and their context where the field lives.

        Args:
            x: (*batch, dim), in the units of the data.
            context: (*batch, context_dim), in the units of the data.

        Returns:
            y (*batch, dim) and the context, both in the flow's dtype, and log |det ∂y/∂x|, () or
            (*batch,), in float64.
        """
        y, ladj = self.preprocess(x, context, self.field.mask(context))
        return y.to(self.dtype), self._condition(context), ladj

    def _rows(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Given, torch.Size]:
        """x (rows, dim) and what its rows are given, and the batch shape they came in."""
        if x.dim() < 1 or x.shape[-1] != self.dim:
            raise ValueError(f"x: expected {self.dim} columns; got shape {tuple(x.shape)}")
        shape = (
            x.shape[:-1]
            if context is None
            else torch.broadcast_shapes(x.shape[:-1], context.shape[:-1])
        )
        return x.expand(*shape, self.dim).reshape(-1, self.dim), self._given(context, shape), shape

    def _given(self, context: Tensor | None, shape: Sequence[int]) -> Given:
        """What the rows of a batch are given; refuses a context that is missing, or not wanted."""
        condition = self._condition(context)
        if self.context_dim == 0:
            return Given(None, None, None)
        context, condition = (
            part.expand(*shape, -1).reshape(-1, self.context_dim) for part in (context, condition)
        )
        return Given(context, self.field.mask(context), condition)

    def _present(self, z: Tensor, mask: Tensor | None) -> Tensor:
        """Base points z (rows, dim), zero in the columns that their rows lack."""
        return z if mask is None else z.where(mask, 0.0)

    def _condition(self, context: Tensor | None) -> Tensor | None:
        """The context in model coordinates; refuses one that is missing, or not wanted."""
        given = (0,) if context is None else tuple(context.shape)
        if given[-1:] != (self.context_dim,):
            raise ValueError(f"context: expected {self.context_dim} columns; got shape {given}")
        return None if context is None else self.context_map(context)[0].to(self.dtype)

    def _start(
        self, shape: Sequence[int], context: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Given, tuple[int, ...]]:
        """Base points (rows, dim) of a sample and what they are given, and its batch shape."""
        batch = (*shape, *(() if context is None else context.shape[:-1]))
        given = self._given(context, batch)
        z = self.base.sample(batch, self.like, generator).reshape(-1, self.dim)
        return self._present(z, given.mask), given, batch

    def _integrate(
        self, z: Tensor, context: Tensor | None, way: Sequence[float], make_system: MakeSystem
    ) -> tuple[Tensor, Tensor]:
        """States (time, rows, dim) and quadratures (time, rows, rates) along the way, chunk by
        chunk."""
        if len(z) == 0:
            return z.new_zeros(len(way), 0, self.dim), z.new_zeros(len(way), 0, 1)
        states, quadratures = [], []
        gradient = self._usual_gradient(self.solver, len(z), context)
        given = repeat(None) if context is None else context.split(chunk_size(z))
        for rows, condition in zip(z.split(chunk_size(z)), given):
            solution = self._solve_rows(
                make_system, rows, condition, way, self.solver, gradient, estimate=False
            )
            states.append(solution.x)
            quadratures.append(solution.q)
        return torch.cat(states, 1), torch.cat(quadratures, 1)

    def _solve_rows(
        self,
        make_system: MakeSystem,
        x: Tensor,
        context: Tensor | None,
        way: Sequence[float],
        solver: Solver,
        gradient: Gradient,
        *,
        estimate: bool,
    ) -> Solution:
        """Solve the system that is made for rows x (rows, dim) and their context; where all of it
        is what was compiled, for a whole chunk of rows, by the program."""
        # Other spans, numbers of rows or grids would want programs of their own, each of which
        # takes minutes.
        fits = solver == self.compiled and sorted(way) == [0.0, 1.0] and len(x) == chunk_size(x)
        known = make_system in (self._system, self._density_system) and not torch.is_grad_enabled()
        solve = _program() if fits and known else FlowParts._solve_eager
        return solve(
            self, make_system, x, context, tuple(way), solver, gradient, estimate=estimate
        )

    def _solve_eager(
        self,
        make_system: MakeSystem,
        x: Tensor,
        context: Tensor | None,
        way: tuple[float, ...],
        solver: Solver,
        gradient: Gradient,
        *,
        estimate: bool,
    ) -> Solution:
        return self._solve(make_system(x, context), x, way, solver, gradient, estimate=estimate)

    def _solve(
        self,
        system: System,
        x: Tensor,
        way: Sequence[float],
        solver: Solver,
        gradient: Gradient,
        *,
        estimate: bool,
    ) -> Solution:
        """Solve through the times of `way`, on the part of a grid that they span; it may estimate
        errors."""
        times = tensor_like(way, x)
        if isinstance(solver, Grid):
            grid = solver.between(way[0], way[-1])
            return grid.solve(system, x, times, gradient=gradient, estimate=estimate)
        return solver.solve(system, x, times, gradient=gradient)

    def _usual_gradient(self, solver: Solver, rows: int, context: Tensor | None) -> Gradient:
        """The gradient for so many rows where none was asked for.

        On a grid the discrete adjoint is direct backpropagation to rounding. Where the graph is
        small, keeping it takes a quarter of the time less than evaluating it again."""
        if not isinstance(solver, Grid):
            return "adjoint"
        evaluations = rows * solver.nfe
        if evaluations > GRAPH or not torch.is_grad_enabled():
            return "discrete"
        by_autograd = self.divergence != AUTO or not self.field.bind(context).closed_form
        return "direct" if evaluations * (self.dim if by_autograd else 1) <= GRAPH else "discrete"

    def _system(self, x: Tensor, context: Tensor | None) -> System:
        bound = self.field.bind(context)
        return System(
            lambda times: [SystemAt(at.velocity) for at in bound.at(times)], bound.tensors
        )

    def _density_system(
        self,
        x: Tensor,
        context: Tensor | None,
        generator: torch.Generator | None = None,
        extend: Callable[[System], System] | None = None,
    ) -> System:
        """The velocity with its divergence as quadrature, and what `extend` adds to them; probes
        are drawn here, once for the solve."""
        bound = self.field.bind(context)
        training = self.training and torch.is_grad_enabled()
        divergence = choose_divergence(bound, self.divergence, x, generator, training=training)

        def rates(at: FieldAt, x: Tensor) -> tuple[Tensor, Tensor]:
            v, d = divergence(at, x)
            return v, d[..., None]

        def system_at(times: Tensor) -> list[SystemAt]:
            return [SystemAt(at.velocity, partial(rates, at)) for at in bound.at(times)]

        system = System(system_at, bound.tensors)
        return system if extend is None else extend(system)


@cache
def _program() -> Callable[..., Solution]:
    """`_solve_eager`, compiled for the shapes and the grid that it meets, when it meets them."""
    return torch.compile(FlowParts._solve_eager, dynamic=False)


def increasing_times(t: Tensor | Sequence[float]) -> list[float]:
    """The times as numbers.

    Raises:
        ValueError: if they do not increase within [0, 1].
    """
    times = torch.as_tensor(t, dtype=torch.float64).tolist()
    increasing = all(a < b for a, b in pairwise(times))
    if not times or not increasing or not 0 <= times[0] <= times[-1] <= 1:
        raise ValueError(f"t: expected increasing times in [0, 1]; got {times}")
    return times
