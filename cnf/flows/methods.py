"""The methods of a flow under a context: each binds the flow and calls the method of the same
name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cnf.flows.bound import BoundFlow, SolveOptions
from cnf.flows.divergence import Hutchinson
from cnf.flows.error_model import ErrorModel, SolveResult
from cnf.flows.questions.subset_density import GivenNumber, SubsetDensity, subset_density
from cnf.flows.scoring import Evaluation
from cnf.flows.start_points import warn_of_model_coordinates
from cnf.ode import Gradient, Solver, System
from cnf.rows import Numbers, as_tensor


class FlowMethods:
    """What a flow answers, with the context and the options as arguments."""

    device: Any
    subsets: Any

    def bind(
        self,
        context: Numbers | None = None,
        *,
        solver: Solver | None = None,
        divergence: Hutchinson | str | None = None,
        error_model: ErrorModel | None = None,
        tolerance: float | None = None,
        gradient: Gradient | None = None,
        generator: torch.Generator | None = None,
    ) -> BoundFlow:
        """The flow under one context and with options of its own: what has none of them is as the
        flow has it.

        Args:
            context: (*batch, context_dim)
            solver: what solves.
            divergence: "auto", "exact" or a `Hutchinson`.
            error_model: of the error bounds.
            tolerance: of the error bounds, in nats; rows above it are solved again. Infinity asks
                for one solve and no more.
            gradient: "direct", "discrete" or "adjoint"; see `log_prob`.
            generator: source of all randomness.

        Returns:
            An object with `log_prob`, `evaluate`, `sample` and the other methods of the flow. The
            flow itself stays as it is.

        Example:
            >>> import cnf
            >>> flow = cnf.CNF(dim=2)
            >>> precise = flow.bind(solver=cnf.Grid.uniform(100), tolerance=1e-8)
            >>> precise.log_prob(torch.zeros(3, 2)).shape
            torch.Size([3])
        """
        options = SolveOptions(solver, divergence, error_model, tolerance, gradient, generator)
        given = None if context is None else as_tensor(context, self.device)
        return BoundFlow(self, given, options)

    def log_prob(
        self,
        x: Numbers,
        context: Numbers | None = None,
        *,
        t: float = 1.0,
        gradient: Gradient | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Log-density log p(x | context) in nats and in the units of x, row by row.

        It has the wider of the dtypes of x and of the flow: a float64 flow scores float64 rows in
        float64, and half-precision rows are scored as the numbers they hold. Solves take no part
        in autocast: they are done in the dtype of the weights.

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
            warning tells the number. In train mode, while a graph is recorded, every row is
            solved once, as a training loop wants it; in eval mode, under `no_grad` or where `bind`
            was given a tolerance, rows whose error bar is above it are solved again.

        Raises:
            ValueError: for a wrong number of columns, a context that is missing or not wanted, or
                t outside [0, 1].
        """
        return self.bind(context, gradient=gradient, generator=generator).log_prob(x, t=t)

    def evaluate(
        self,
        x: Numbers,
        context: Numbers | None = None,
        *,
        t: float = 1.0,
        gradient: Gradient | None = None,
        generator: torch.Generator | None = None,
    ) -> Evaluation:
        """`log_prob` with the bar of the solver's error, NFE and a verdict for each row; never an
        exception for a row that is not finite."""
        return self.bind(context, gradient=gradient, generator=generator).evaluate(x, t=t)

    def marginal(self, columns: Sequence[int], context: Numbers | None = None) -> SubsetDensity:
        """p(x[columns] | context), the other columns integrated out.

        Of a flow that was fitted with `any_subset=True` the answer is amortized, one solve of a
        conditional network, and `.exact()` checks it against the joint density by importance
        sampling. Of any other flow it is exact, with a mixture that is fitted here as the proposal,
        which takes seconds: ask what is returned again rather than the flow.

        Args:
            columns: numbers of the columns, in the order that x is to have.
            context: (*batch, context_dim)

        Raises:
            ValueError: for columns that are not there, or a flow with a context that was fitted
                without `any_subset=True`.

        Example:
            >>> import cnf
            >>> cnf.CNF(3).marginal([0, 2]).log_prob(torch.zeros(5, 2)).shape
            torch.Size([5])
        """
        return self._asked(context).marginal(columns)

    def conditional(
        self, given: Mapping[int, GivenNumber], context: Numbers | None = None
    ) -> SubsetDensity:
        """p(the other columns | given, context); see `marginal`.

        Args:
            given: column -> a number, numbers (*batch,), or a range (low, high) with None for no
                end.
            context: (*batch, context_dim)

        Raises:
            ValueError: as `marginal`.
        """
        return self._asked(context).conditional(given)

    def _asked(self, context: Numbers | None) -> SubsetDensity:
        context = None if context is None else as_tensor(context, self.device)
        return subset_density(self, self.subsets, context)

    def solve_log_prob(
        self,
        y: Tensor,
        context: Tensor | None,
        solver: Solver | None = None,
        *,
        t: float = 1.0,
        gradient: Gradient | None = None,
        generator: torch.Generator | None = None,
        extend: Callable[[System], System] | None = None,
    ) -> SolveResult:
        """Log-density of model coordinates from one solve, as it stands: hard rows are not solved
        again, and the Jacobian of the preprocessing is left out. Likelihood training
        differentiates this.

        Args:
            y: (rows, dim), and
            context: (rows, context_dim), both as `to_model_coordinates` gives them.
            solver: in place of the flow's.
            t: time whose density is asked for.
            gradient: "direct", "discrete" or "adjoint"; see `log_prob`.
            generator: source of Hutchinson's probes.
            extend: adds rates to the system of velocity and divergence, to be integrated along.

        Returns:
            The log-densities with estimates of the error of each step.
        """
        bound = self.bind(context, solver=solver, gradient=gradient, generator=generator)
        return bound.solve_log_prob(y, context, t=t, extend=extend)

    def sample(
        self,
        shape: int | Sequence[int] = (),
        context: Numbers | None = None,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Draws (*shape, *batch, dim) for context (*batch, context_dim), in the units of the data.

        They have the flow's dtype unless another is asked for. Of columns far from zero beside
        their spread, as times in seconds are, float32 keeps few digits and float64 all: the solve
        stays in the flow's dtype, and the preprocessing is inverted in float64."""
        return self.bind(context, generator=generator).sample(shape, dtype=dtype)

    def rsample(
        self,
        shape: int | Sequence[int] = (),
        context: Numbers | None = None,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """`sample`, as a differentiable function of context and parameters."""
        return self.bind(context, generator=generator).rsample(shape, dtype=dtype)

    def sample_and_log_prob(
        self,
        shape: int | Sequence[int] = (),
        context: Numbers | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draws (*shape, *batch, dim) and their log-densities (*shape, *batch) from one solve, both
        differentiable, for objectives such as the reverse Kullback-Leibler divergence."""
        return self.bind(context, generator=generator).sample_and_log_prob(shape)

    def sample_base(
        self,
        shape: int | Sequence[int] = (),
        context: Numbers | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Start points (*shape, *batch, dim) of samples, at t = 0: draws of the base, in the units
        of the data.

        Example:
            >>> import cnf
            >>> flow = cnf.CNF(dim=2)
            >>> start = flow.sample_base(5)
            >>> torch.allclose(flow.trajectory(start, [0.0, 1.0])[0], start)
            True
        """
        return self.bind(context, generator=generator).sample_base(shape)

    def trajectory(
        self,
        x: Numbers,
        t: Tensor | Sequence[float],
        context: Numbers | None = None,
        *,
        reverse: bool = False,
    ) -> Tensor:
        """Paths of particles (time, *batch, dim), in the units of the data at all times.

        Args:
            x: where the particles start at t = 0, as `sample_base` draws them, (*batch, dim); with
                `reverse`, where they end at t = 1.
            t: times in [0, 1], increasing.
            context: (*batch, context_dim), broadcast against x.
            reverse: whether the particles end at x instead of starting there.

        Raises:
            ValueError: if the times do not increase within [0, 1].

        Example:
            >>> import cnf
            >>> flow, x = cnf.CNF(dim=2), torch.randn(5, 2)
            >>> start = flow.trajectory(x, [0.0], reverse=True)[0]
            >>> torch.allclose(flow.trajectory(start, [1.0])[0], x, atol=1e-3)
            True
        """
        bound = self.bind(context)
        if not reverse:
            warn_of_model_coordinates(bound, x)
        return bound.trajectory(x, t, reverse=reverse)

    def trajectory_and_log_prob(
        self, x: Numbers, t: Tensor | Sequence[float], context: Numbers | None = None
    ) -> tuple[Tensor, Tensor]:
        """Paths of particles (time, *batch, dim) and the log-density where they are, (time,
        *batch), from one solve.

        d log pₜ(x(t)) / dt = −tr ∂v/∂x along a path: in nats and, as the paths, in the units of
        the data.

        Args:
            x: where the particles start at t = 0, as `sample_base` draws them, (*batch, dim).
            t: times in [0, 1], increasing.
            context: (*batch, context_dim), broadcast against x.

        Raises:
            ValueError: if the times do not increase within [0, 1].
        """
        bound = self.bind(context)
        warn_of_model_coordinates(bound, x)
        return bound.trajectory_and_log_prob(x, t)

    def transport(self, x: Numbers, *, reverse: bool = False) -> Tensor:
        """Where the flow carries points x (*batch, dim), from t = 0 to t = 1; with `reverse`, where
        they come from.

        The map is that from the source to the data for a flow that was fitted with `source=`.

        Example:
            >>> import cnf
            >>> flow, x = cnf.CNF(dim=2), torch.randn(5, 2)
            >>> torch.allclose(flow.transport(flow.transport(x), reverse=True), x, atol=1e-3)
            True
        """
        return self.trajectory(x, [0.0] if reverse else [1.0], reverse=reverse)[0]

    def log_density_ratio(self, x: Numbers) -> tuple[Tensor, Tensor]:
        """log p₁(x) − log p₀(x) at points x (*batch, dim), between the data at t = 1 and the source
        at t = 0, and a bound of its numerical error, each (*batch,), in nats.

        Example:
            >>> import cnf
            >>> ratio, error = cnf.CNF(dim=2).log_density_ratio(torch.zeros(3, 2))
            >>> ratio.abs().max() <= error.max()
            tensor(True)
        """
        bound = self.bind()
        with torch.no_grad():
            data, source = bound.evaluate(x), bound.log_prob(x, t=0.0)
        return data.log_prob - source, data.error

    def velocity(self, t: float, x: Numbers, context: Numbers | None = None) -> Tensor:
        """Velocity dx/dt (*batch, dim) at time t and points x (*batch, dim), in the units of the
        data."""
        return self.bind(context).velocity(t, x)
