"""The continuous normalizing flow."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from cnf.flows.calibration import calibrate
from cnf.flows.configuration import describe
from cnf.flows.distribution import FlowDistribution
from cnf.flows.model_file import write_model
from cnf.flows.parts import AUTO, FlowParts, Given, increasing_times
from cnf.flows.scoring import Evaluation, SolveResult, evaluate_rows
from cnf.ode import Gradient, Grid, Solver, System
from cnf.rows import evenly_spaced


class UnsolvedWarning(UserWarning):
    """Finite rows that no solve could follow."""


class CNF(FlowParts):
    """A continuous normalizing flow: a base density at t = 0 carried to the data at t = 1.

    With dx/dt = v(t, x, context) and z = x(0), the density at x = x(1) follows the instantaneous
    change of variables (Chen et al. 2018), log p(x) = log p₀(z) − ∫₀¹ tr ∂v/∂x dt, plus the
    log-Jacobian of the preprocessing, so that it is in the units of the data.

    Args:
        dim: number of columns of x.
        hidden: widths of the two hidden layers of the default field, a `GatedField`.
        context_dim: number of columns of the context that the density depends on; 0 for none.
        field: a velocity field of your own; then `hidden` has no meaning.
        base: base density; "auto" is the standard normal, unless `cnf.fit` chooses another.
        preprocess: map to model coordinates; "auto" is the identity until `cnf.fit` fits it.
        solver: a `Grid` or a `Torchdiffeq`; "auto" is a grid of 16 steps until `calibrate` places
        it.
        divergence: "auto" (closed form where the field has one, else exact, else, in training
            beyond moderate dimension, Hutchinson), "exact", "hutchinson", or a `Hutchinson` with
            its number of probes.

    Raises:
        ValueError: if the parts do not fit together.

    Example:
        >>> flow = CNF(dim=2)
        >>> x = flow.sample((1000,))
        >>> flow.log_prob(x).shape
        torch.Size([1000])
    """

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
            t: time whose density is asked for: 1 is the data's, 0 the base's, in the units of the
            data.
            gradient: "direct", "discrete" or "adjoint". The default is "adjoint" with torchdiffeq;
                on a grid, where the first two agree to rounding, "direct" for few rows and
                "discrete" for many. Second derivatives want "direct".
            generator: source of Hutchinson's probes.

        Returns:
            (*batch,); NaN for rows that are not finite or cannot be solved. Of the latter, one
            warning tells the number.

        Raises:
            ValueError: for a wrong number of columns, a context that is missing or not wanted, or
                t outside [0, 1].
        """
        found = self.evaluate(x, context, t=t, gradient=gradient, generator=generator)
        finite = x.isfinite().all(-1)
        if context is not None:
            finite = finite & context.isfinite().all(-1)
        lost = int((found.log_prob.isnan() & finite).sum())
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
        """`log_prob` with the bar of the solver's error, NFE and a verdict for each row; never an
        exception for a row that is not finite."""
        if not 0 <= t <= 1:
            raise ValueError(f"t: expected a time in [0, 1]; got {t}")
        rows, given, shape = self._rows(x, context)
        y, ladj = self.preprocess(rows, given.context, given.mask)
        solver = self.solver
        if gradient == "adjoint" and isinstance(solver, Grid) and t > 0:
            # What solves is not the grid, so its estimate says nothing about the row.
            solver = solver.between(t, 0.0).as_torchdiffeq(t)

        def score(y: Tensor, condition: Tensor | None, solver: Solver) -> SolveResult:
            kind = gradient or self._usual_gradient(solver, len(rows), given.condition)
            return self.score(y, condition, solver, t=t, gradient=kind, generator=generator)

        found = evaluate_rows(score, y.to(self.dtype), given.condition, solver, self.accuracy)
        dtype = x.dtype if x.is_floating_point() else self.dtype
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
    ) -> SolveResult:
        """Log-density of model coordinates y (rows, dim) from one solve, as it stands: no second
        look at hard rows, no Jacobian of the preprocessing. This is what likelihood training
        differentiates.

        `extend` may add rates to the system of velocity and divergence, to be integrated along.
        """
        if t == 0:
            nothing = y.new_zeros(1, len(y))
            return SolveResult(self.base.log_prob(y), nothing, nothing, 0, y.new_zeros(len(y), 0))
        make_system = self._density_system
        if generator is not None or extend is not None:
            make_system = partial(self._density_system, generator=generator, extend=extend)
        gradient = gradient or self._usual_gradient(solver, len(y), context)
        solution = self._solve_rows(
            make_system, y, context, (t, 0.0), solver, gradient, estimate=True
        )
        log_prob = self.base.log_prob(solution.x[-1]) + solution.q[-1, ..., 0]
        x_error, q_error = solution.x_error.flip(0), solution.q_error[..., 0].flip(0)
        # The solve runs from the data to the base, and integrals change sign with its direction.
        return SolveResult(log_prob, x_error, q_error, solution.nfe, -solution.q[-1, ..., 1:])

    def sample(
        self,
        shape: Sequence[int] = (),
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draws (*shape, *batch, dim) for context (*batch, context_dim), in the units of the data.

        They have the flow's dtype: of columns far from zero beside their spread, as times in
        seconds are, float32 keeps few digits, and `flow.double()` all."""
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
        z, given, batch = self._start(shape, context, generator)
        y = self._integrate(z, given.condition, (0.0, 1.0), self._system)[0][-1]
        return self.preprocess.inverse(y, given.context, given.mask).reshape(*batch, self.dim)

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
        z, given, batch = self._start(shape, context, generator)
        make_system = partial(self._density_system, generator=generator)
        states, quadratures = self._integrate(z, given.condition, (0.0, 1.0), make_system)
        x = self.preprocess.inverse(states[-1], given.context, given.mask)
        ladj = self.preprocess(x, given.context, given.mask)[1].to(x.dtype)
        log_prob = self.base.log_prob(z) - quadratures[-1, ..., 0] + ladj
        return x.reshape(*batch, self.dim), log_prob.reshape(batch)

    def trajectory(
        self,
        z: Tensor,
        t: Tensor | Sequence[float],
        context: Tensor | None = None,
        *,
        reverse: bool = False,
    ) -> Tensor:
        """Paths of particles (time, *batch, dim), in the units of the data at all times.

        Args:
            z: base points (*batch, dim) at t = 0; with `reverse`, data points at t = 1.
            t: times in [0, 1], increasing.
            context: (*batch, context_dim), broadcast against z.
            reverse: whether the particles end at given data points instead of starting at base
            points.

        Raises:
            ValueError: if the times do not increase within [0, 1].
        """
        times = increasing_times(t)
        rows, given, shape = self._rows(z, context)
        start = (
            self.preprocess(rows, given.context, given.mask)[0]
            if reverse
            else self._present(rows, given.mask)
        ).to(self.dtype)
        way = [1.0, *reversed(times)] if reverse else [0.0, *times]
        # Where the first time asked for is the start itself, it must not stand there twice.
        way = way if way[0] != way[1] else way[1:]
        path = (
            self._integrate(start, given.condition, way, self._system)[0]
            if len(way) > 1
            else start[None]
        )
        path = path[-len(times) :].flip(0) if reverse else path[-len(times) :]
        x = self.preprocess.inverse(path, given.context, given.mask)
        return x.reshape(len(times), *shape, self.dim)

    def trajectory_and_log_prob(
        self, z: Tensor, t: Tensor | Sequence[float], context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Paths of particles (time, *batch, dim) and the log-density where they are, (time,
        *batch), from one solve.

        d log pₜ(x(t)) / dt = −tr ∂v/∂x along a path: in nats and, as the paths, in the units of
        the data.

        Args:
            z: base points (*batch, dim) at t = 0.
            t: times in [0, 1], increasing.
            context: (*batch, context_dim), broadcast against z.

        Raises:
            ValueError: if the times do not increase within [0, 1].
        """
        times = increasing_times(t)
        rows, given, shape = self._rows(z, context)
        rows = self._present(rows, given.mask).to(self.dtype)
        way = [0.0, *times] if times[0] > 0 else times
        if len(way) > 1:
            path, quadratures = self._integrate(rows, given.condition, way, self._density_system)
        else:
            path, quadratures = rows[None], rows.new_zeros(1, len(rows), 1)
        x = self.preprocess.inverse(path[-len(times) :], given.context, given.mask)
        ladj = self.preprocess(x, given.context, given.mask)[1].to(x.dtype)
        log_prob = self.base.log_prob(rows) - quadratures[-len(times) :, :, 0] + ladj
        return x.reshape(len(times), *shape, self.dim), log_prob.reshape(len(times), *shape)

    def velocity(self, t: float, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Velocity dx/dt (*batch, dim) at time t and points x (*batch, dim), in the units of the
        data."""
        rows, given, shape = self._rows(x, context)
        y = self.preprocess(rows, given.context, given.mask)[0].to(self.dtype)
        bound = self.field.bind(given.condition)
        v = bound.velocity(torch.tensor(t, dtype=y.dtype, device=y.device), y)
        moved = self.preprocess.pushforward(v, y, given.context, given.mask)
        return moved.reshape(*shape, self.dim)

    @torch.no_grad()
    def calibrate(
        self, x: Tensor, tolerance: float = 1e-3, *, context: Tensor | None = None
    ) -> CNF:
        """Place the time grid on rows x (rows, dim) so that error bars within the tolerance cost
        the fewest evaluations.

        Args:
            x: training rows; up to 1024 of those that are finite are used.
            tolerance: of the error bar of log_prob, in nats, but for rounding. What the flow's
                arithmetic loses is measured and stands in its bars; a tolerance below that asks
                for `.double()`.
            context: (rows, context_dim)

        Returns:
            The flow itself, with its `solver` and `accuracy` set.

        Raises:
            ValueError: for a tolerance that is not positive, or no rows.
        """
        if not tolerance > 0:
            raise ValueError(f"tolerance: expected a positive number of nats; got {tolerance}")
        rows, given, _ = self._rows(x, context)
        finite = self._present(rows, given.mask).isfinite().all(1)
        if context is not None:
            finite = finite & given.context.isfinite().all(1)
        places = finite.nonzero().squeeze(1)
        if len(places) == 0:
            raise ValueError("calibrate: expected at least one finite row of x; got none")
        chosen = places[evenly_spaced(places, 1024)]
        given = Given(*(None if part is None else part[chosen] for part in given))
        y, context = self.preprocess(rows[chosen], given.context, given.mask)[0], given.condition
        # Probes of an estimate would differ between the two and pass for errors of the solver.
        plain = copy.deepcopy(self).eval()
        plain.divergence = AUTO
        exact, context64 = (
            copy.deepcopy(plain).double(),
            None if context is None else context.double(),
        )
        score = partial(plain.score, y.to(self.dtype), context)
        reference = partial(exact.score, y.double(), context64)
        self.solver, self.accuracy = calibrate(score, reference, tolerance)
        return self

    def compile(self) -> CNF:
        """Have torch.compile make one program of a whole solve on the flow's grid, for scoring and
        sampling without a gradient.

        The program is made for chunks of 1,024 rows (65,536 on an accelerator); others, second
        looks at hard rows among them, go as before. It is made when the first such chunk comes,
        which takes minutes: worth while for tens of millions of rows. A grid that is calibrated
        later wants a program of its own.

        Returns:
            The flow itself.

        Raises:
            ValueError: for a flow without a grid, or with a divergence that is not in closed form.
        """
        if not isinstance(self.solver, Grid):
            raise ValueError(f"compile: expected a flow whose solver is a Grid; got {self.solver}")
        if self.divergence != AUTO or self.context_dim or not self.field.bind().closed_form:
            raise ValueError(
                "compile: expected a field without context whose divergence is in closed form"
            )
        self.compiled = self.solver
        return self

    def save(self, path: str | Path) -> None:
        """Write configuration, weights and metadata to one safetensors file, atomically; see
        `cnf.load`.

        Raises:
            ValueError: for a field or base of your own, which a file cannot rebuild, or too long a
        grid."""
        write_model(path, {**describe(self), "metadata": self.metadata}, self.state_dict())
