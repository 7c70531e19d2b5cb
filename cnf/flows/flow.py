"""The continuous normalizing flow."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnf.fields import FieldAt, GatedField, VelocityField
from cnf.flows.bases import Base, NormalBase
from cnf.flows.calibration import Calibrated, calibrate, calibration_rows
from cnf.flows.configuration import describe
from cnf.flows.distribution import FlowDistribution
from cnf.flows.divergence import Hutchinson, choose_divergence
from cnf.flows.model_file import write_model
from cnf.flows.preprocessing import Affine, Preprocess
from cnf.flows.scoring import Accuracy, Evaluation, Scores, chunks, evaluate_rows
from cnf.ode import Gradient, Grid, Solution, Solver, System, SystemAt

AUTO = "auto"
MakeSystem = Callable[[Tensor, Tensor | None], System]


class UnsolvedWarning(UserWarning):
    """Finite rows that no solve could follow."""


class CNF(nn.Module):
    """A continuous normalizing flow: a base density at t = 0 carried to the data at t = 1.

    With dx/dt = v(t, x, context) and z = x(0), the density at x = x(1) follows the instantaneous change of
    variables (Chen et al. 2018), log p(x) = log p₀(z) − ∫₀¹ tr ∂v/∂x dt, plus the log-Jacobian of the
    preprocessing, so that it is in the units of the data.

    Args:
        dim: number of columns of x.
        hidden: widths of the two hidden layers of the default field, a `GatedField`.
        context_dim: number of columns of the context that the density depends on; 0 for none.
        field: a velocity field of your own; then `hidden` has no meaning.
        base: base density; "auto" is the standard normal, unless `cnf.fit` finds a mixture that is ahead.
        preprocess: map to model coordinates; "auto" is the identity until `cnf.fit` fits it.
        solver: a `Grid` or a `Torchdiffeq`; "auto" is a grid of 16 steps until `calibrate` places it.
        divergence: "auto" (closed form where the field has one, else exact, else, in training beyond moderate
            dimension, Hutchinson), "exact", "hutchinson", or a `Hutchinson` with its number of probes.

    Raises:
        ValueError: if the parts do not fit together.

    Example:
        >>> flow = CNF(dim=2)
        >>> x = flow.sample((1000,))
        >>> flow.log_prob(x).shape
        torch.Size([1000])
    """

    def __init__(
        self,
        dim: int,
        *,
        hidden: tuple[int, int] = (128, 128),
        context_dim: int = 0,
        field: VelocityField | None = None,
        base: Base | str = AUTO,
        preprocess: Preprocess | str = AUTO,
        solver: Solver | str = AUTO,
        divergence: Hutchinson | str = AUTO,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.context_dim = context_dim
        self.field = field if field is not None else GatedField(dim, hidden, context_dim=context_dim)
        given = {"base": base, "preprocess": preprocess, "solver": solver}
        # What `cnf.fit` is free to choose; the map of the context is always its own.
        self.automatic = {"context_map", *(name for name, part in given.items() if isinstance(part, str))}
        self.preprocess: Preprocess = Affine.identity(dim) if isinstance(preprocess, str) else preprocess
        self.context_map = Affine.identity(context_dim)
        self.base = (NormalBase(dim) if isinstance(base, str) else base).to(self.like.dtype)
        self.solver: Solver = Grid.uniform(16) if isinstance(solver, str) else solver
        self.divergence = Hutchinson() if divergence == "hutchinson" else divergence
        self.accuracy = Accuracy()
        self.metadata: dict[str, Any] = {}
        self._check_parts((base, preprocess, solver))

    def _check_parts(self, given: Sequence[object]) -> None:
        for name, part in zip(("base", "preprocess", "solver"), given):
            if isinstance(part, str) and part != AUTO:
                raise ValueError(f"{name}: expected an object or 'auto'; got {part!r}")
        if not isinstance(self.divergence, Hutchinson) and self.divergence not in (AUTO, "exact"):
            raise ValueError(f"divergence: expected auto, exact or hutchinson; got {self.divergence!r}")
        if (self.field.dim, self.field.context_dim) != (self.dim, self.context_dim):
            raise ValueError(
                f"the field has dim={self.field.dim}, context_dim={self.field.context_dim};"
                f" the flow wants dim={self.dim}, context_dim={self.context_dim}"
            )
        if self.base.dim != self.dim or self.preprocess.dim != self.dim:
            raise ValueError(f"base and preprocess must have {self.dim} columns, as the flow has")

    @property
    def like(self) -> Tensor:
        """An empty tensor with the dtype and on the device of the flow's arithmetic."""
        for tensor in (*self.field.parameters(), *self.field.buffers()):
            if tensor.is_floating_point():
                return tensor.detach().new_empty(0)
        return torch.empty(0, device=self.context_map.shift.device)

    def forward(self, context: Tensor | None = None) -> FlowDistribution:
        """p(x | context) as a `torch.distributions.Distribution`."""
        return FlowDistribution(self, context)

    def log_prob(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        t: float = 1.0,
        gradient: Gradient | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Log-density log p(x | context) in nats and in the units of x, row by row.

        Args:
            x: (*batch, dim)
            context: (*batch, context_dim), broadcast against x.
            t: time whose density is asked for: 1 is the data's, 0 the base's, in the units of the data.
            gradient: "discrete" (default on a grid), "adjoint" (default with torchdiffeq) or "direct".
            generator: source of Hutchinson's probes.

        Returns:
            (*batch,); NaN for rows that are not finite or cannot be solved. Of the latter, one warning tells
            the number.

        Raises:
            ValueError: for a wrong number of columns, a context that is missing or not wanted, or t outside
                [0, 1].
        """
        found = self.evaluate(x, context, t=t, gradient=gradient, generator=generator)
        lost = int((found.log_prob.isnan() & x.isfinite().all(-1)).sum())
        if lost:
            warnings.warn(
                f"{lost} of {found.ok.numel()} rows could not be solved and are NaN; `evaluate` says which",
                UnsolvedWarning,
                stacklevel=2,
            )
        return found.log_prob

    def evaluate(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        t: float = 1.0,
        gradient: Gradient | None = None,
        generator: torch.Generator | None = None,
    ) -> Evaluation:
        """`log_prob` with the bar of the solver's error, NFE and a verdict for each row; never an exception
        for a row that is not finite."""
        if not 0 <= t <= 1:
            raise ValueError(f"t: expected a time in [0, 1]; got {t}")
        rows, context, shape = self._rows(x, context)
        y, ladj = self.preprocess.to_model(rows)
        solver = self.solver
        if gradient == "adjoint" and isinstance(solver, Grid) and t > 0:
            # What solves is not the grid, so its estimate says nothing about the row.
            solver = solver.between(t, 0.0).counterpart(t)

        def score(y: Tensor, context: Tensor | None, solver: Solver) -> Scores:
            return self.score(y, context, solver, t=t, gradient=gradient, generator=generator)

        found = evaluate_rows(score, y.to(self.like.dtype), context, solver, self.accuracy)
        dtype = x.dtype if x.is_floating_point() else self.like.dtype
        parts = (found.log_prob.to(dtype) + ladj.to(dtype), found.error, found.nfe, found.ok)
        return Evaluation(*(part.reshape(shape) for part in parts))

    def score(
        self,
        y: Tensor,
        context: Tensor | None,
        solver: Solver,
        *,
        t: float = 1.0,
        gradient: Gradient | None = None,
        generator: torch.Generator | None = None,
        extend: Callable[[System], System] | None = None,
    ) -> Scores:
        """Log-density of model coordinates y (rows, dim) from one solve, as it stands: no second look at hard
        rows, no Jacobian of the preprocessing. This is what likelihood training differentiates.

        `extend` may add rates to the system of velocity and divergence, to be integrated along.
        """
        if t == 0:
            nothing = y.new_zeros(1, len(y))
            return Scores(self.base.log_prob(y), nothing, nothing, 0, y.new_zeros(len(y), 0))
        system = self._density_system(y, context, generator)
        solution = self._solve(system if extend is None else extend(system), y, (t, 0.0), solver, gradient)
        log_prob = self.base.log_prob(solution.x[-1]) + solution.q[-1, ..., 0]
        x_error, q_error = solution.x_error.flip(0), solution.q_error[..., 0].flip(0)
        # The solve runs from the data to the base, and integrals change sign with its direction.
        return Scores(log_prob, x_error, q_error, solution.nfe, -solution.q[-1, ..., 1:])

    def sample(
        self,
        shape: Sequence[int] = (),
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draws (*shape, *batch, dim) for context (*batch, context_dim), in the units of the data."""
        with torch.no_grad():
            return self.rsample(shape, context, generator=generator)

    def rsample(
        self,
        shape: Sequence[int] = (),
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """`sample`, as a differentiable function of context and parameters."""
        z, context, batch = self._start(shape, context, generator)
        y = self._carry(z, context, (0.0, 1.0), self._system)[0][-1]
        return self.preprocess.to_data(y).reshape(*batch, self.dim)

    def sample_and_log_prob(
        self,
        shape: Sequence[int] = (),
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draws (*shape, *batch, dim) and their log-densities (*shape, *batch) from one solve.

        Both are differentiable, for objectives such as the reverse Kullback-Leibler divergence.
        """
        z, context, batch = self._start(shape, context, generator)
        make_system = partial(self._density_system, generator=generator)
        states, quadratures = self._carry(z, context, (0.0, 1.0), make_system)
        x = self.preprocess.to_data(states[-1])
        ladj = self.preprocess.to_model(x)[1].to(x.dtype)
        log_prob = self.base.log_prob(z) - quadratures[-1, ..., 0] + ladj
        return x.reshape(*batch, self.dim), log_prob.reshape(batch)

    def trajectory(
        self, z: Tensor, t: Tensor | Sequence[float], context: Tensor | None = None, *, reverse: bool = False
    ) -> Tensor:
        """Paths of particles (time, *batch, dim), in the units of the data at all times.

        Args:
            z: base points (*batch, dim) at t = 0; with `reverse`, data points at t = 1.
            t: times in [0, 1], increasing.
            context: (*batch, context_dim), broadcast against z.
            reverse: whether the particles end at given data points instead of starting at base points.

        Raises:
            ValueError: if the times do not increase within [0, 1].
        """
        times = _increasing(t)
        rows, context, shape = self._rows(z, context)
        start = self.preprocess.to_model(rows)[0].to(self.like.dtype) if reverse else rows.to(self.like.dtype)
        way = [1.0, *reversed(times)] if reverse else [0.0, *times]
        # Where the first time asked for is the start itself, it must not stand there twice.
        way = way if way[0] != way[1] else way[1:]
        path = self._carry(start, context, way, self._system)[0] if len(way) > 1 else start[None]
        path = path[-len(times) :].flip(0) if reverse else path[-len(times) :]
        return self.preprocess.to_data(path).reshape(len(times), *shape, self.dim)

    def trajectory_and_log_prob(
        self, z: Tensor, t: Tensor | Sequence[float], context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Paths of particles (time, *batch, dim) and the log-density where they are, (time, *batch), from one
        solve.

        d log pₜ(x(t)) / dt = −tr ∂v/∂x along a path: in nats and, as the paths, in the units of the data.

        Args:
            z: base points (*batch, dim) at t = 0.
            t: times in [0, 1], increasing.
            context: (*batch, context_dim), broadcast against z.

        Raises:
            ValueError: if the times do not increase within [0, 1].
        """
        times = _increasing(t)
        rows, context, shape = self._rows(z, context)
        rows = rows.to(self.like.dtype)
        way = [0.0, *times] if times[0] > 0 else times
        if len(way) > 1:
            path, quadratures = self._carry(rows, context, way, self._density_system)
        else:
            path, quadratures = rows[None], rows.new_zeros(1, len(rows), 1)
        x = self.preprocess.to_data(path[-len(times) :])
        ladj = self.preprocess.to_model(x)[1].to(x.dtype)
        log_prob = self.base.log_prob(rows) - quadratures[-len(times) :, :, 0] + ladj
        return x.reshape(len(times), *shape, self.dim), log_prob.reshape(len(times), *shape)

    def velocity(self, t: float, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Velocity dx/dt (*batch, dim) at time t and points x (*batch, dim), in the units of the data."""
        rows, context, shape = self._rows(x, context)
        y = self.preprocess.to_model(rows)[0].to(self.like.dtype)
        v = self.field.bind(context).velocity(torch.tensor(t, dtype=y.dtype, device=y.device), y)
        return self.preprocess.velocity_to_data(v, y).reshape(*shape, self.dim)

    @torch.no_grad()
    def calibrate(self, x: Tensor, tolerance: float = 1e-3, *, context: Tensor | None = None) -> CNF:
        """Place the time grid on rows x (rows, dim) so that the error bar of a row stays below the tolerance.

        Args:
            x: training rows; up to 2048 of them are used.
            tolerance: of the error bar of log_prob, in nats.
            context: (rows, context_dim)

        Returns:
            The flow itself, with its `solver` and `accuracy` set.

        Raises:
            ValueError: for a tolerance that is not positive, or no rows.
        """
        if not tolerance > 0:
            raise ValueError(f"tolerance: expected a positive number of nats; got {tolerance}")
        rows, context, _ = self._rows(x, context)
        if len(rows) == 0:
            raise ValueError("calibrate: expected at least one row of x; got none")
        most = calibration_rows(rows, 2048)
        y, context = self.preprocess.to_model(rows[most])[0], None if context is None else context[most]
        # Probes of an estimate would differ between the two and pass for errors of the solver.
        plain = copy.deepcopy(self).eval()
        plain.divergence = AUTO
        exact = copy.deepcopy(plain).double()

        def solves(chosen: Tensor) -> Calibrated:
            part, given = y[chosen], None if context is None else context[chosen]
            fine = part.double(), None if given is None else given.double()
            return Calibrated(
                partial(plain.score, part.to(self.like.dtype), given), partial(exact.score, *fine)
            )

        few, many = solves(calibration_rows(y)), solves(torch.arange(len(y), device=y.device))
        self.solver, self.accuracy = calibrate(few, many, tolerance)
        return self

    def save(self, path: str | Path) -> None:
        """Write configuration, weights and metadata to one safetensors file, atomically; see `cnf.load`.

        Raises:
            ValueError: for a field or base of your own, which a file cannot rebuild.
        """
        write_model(path, {**describe(self), "metadata": self.metadata}, self.state_dict())

    def _rows(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None, torch.Size]:
        """x and context as (rows, columns), and the batch shape they came in."""
        if x.dim() < 1 or x.shape[-1] != self.dim:
            raise ValueError(f"x: expected {self.dim} columns; got shape {tuple(x.shape)}")
        context = self._condition(context)
        shape = x.shape[:-1] if context is None else torch.broadcast_shapes(x.shape[:-1], context.shape[:-1])
        rows = x.expand(*shape, self.dim).reshape(-1, self.dim)
        if self.context_dim == 0:
            return rows, None, shape
        return rows, context.expand(*shape, self.context_dim).reshape(-1, self.context_dim), shape

    def _condition(self, context: Tensor | None) -> Tensor | None:
        """The context in model coordinates; refuses one that is missing, or not wanted."""
        given = (0,) if context is None else tuple(context.shape)
        if given[-1:] != (self.context_dim,):
            raise ValueError(f"context: expected {self.context_dim} columns; got shape {given}")
        return None if context is None else self.context_map.to_model(context)[0].to(self.like.dtype)

    def _start(
        self, shape: Sequence[int], context: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor | None, tuple[int, ...]]:
        """Base points (rows, dim) and context (rows, context_dim) of a sample, and its batch shape."""
        context = self._condition(context)
        batch = (*shape, *(() if context is None else context.shape[:-1]))
        z = self.base.sample(batch, self.like, generator).reshape(-1, self.dim)
        if self.context_dim == 0:
            return z, None, batch
        return z, context.expand(*batch, -1).reshape(-1, self.context_dim), batch

    def _carry(
        self, z: Tensor, context: Tensor | None, way: Sequence[float], make_system: MakeSystem
    ) -> tuple[Tensor, Tensor]:
        """States (time, rows, dim) and quadratures (time, rows, rates) along the way, chunk by chunk."""
        states, quadratures = [], []
        for chunk in chunks(z):
            given = None if context is None else context[chunk]
            solution = self._solve(make_system(z[chunk], given), z[chunk], way, self.solver, None)
            states.append(solution.x)
            quadratures.append(solution.q)
        if not states:
            return z.new_zeros(len(way), 0, self.dim), z.new_zeros(len(way), 0, 1)
        return torch.cat(states, 1), torch.cat(quadratures, 1)

    def _solve(
        self, system: System, x: Tensor, way: Sequence[float], solver: Solver, gradient: Gradient | None
    ) -> Solution:
        """Solve through the times of `way`, on the part of a grid that they span."""
        default = "adjoint"
        if isinstance(solver, Grid):
            solver, default = solver.between(way[0], way[-1]), "discrete"
        times = torch.tensor(way, dtype=x.dtype, device=x.device)
        return solver.solve(system, x, times, gradient=gradient or default)

    def _system(self, x: Tensor, context: Tensor | None) -> System:
        bound = self.field.bind(context)
        return System(lambda times: [SystemAt(at.velocity) for at in bound.at(times)], bound.tensors)

    def _density_system(
        self, x: Tensor, context: Tensor | None, generator: torch.Generator | None = None
    ) -> System:
        """The velocity with its divergence as quadrature; probes are drawn here, once for the solve."""
        bound = self.field.bind(context)
        training = self.training and torch.is_grad_enabled()
        divergence = choose_divergence(bound, self.divergence, x, generator, training=training)

        def rates(at: FieldAt, x: Tensor) -> tuple[Tensor, Tensor]:
            v, d = divergence(at, x)
            return v, d[..., None]

        def system_at(times: Tensor) -> list[SystemAt]:
            return [SystemAt(at.velocity, partial(rates, at)) for at in bound.at(times)]

        return System(system_at, bound.tensors)


def _increasing(t: Tensor | Sequence[float]) -> list[float]:
    """The times, which have to increase within [0, 1]."""
    times = torch.as_tensor(t, dtype=torch.float64).tolist()
    increasing = all(a < b for a, b in pairwise(times))
    if not times or not increasing or not 0 <= times[0] <= times[-1] <= 1:
        raise ValueError(f"t: expected increasing times in [0, 1]; got {times}")
    return times
