"""The methods of a flow under a context: each binds the flow and calls the method of the same
name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cnf.flows.bound import BoundFlow
from cnf.flows.divergence import Hutchinson
from cnf.flows.error_model import ErrorModel, SolveResult
from cnf.flows.questions.subset_density import GivenNumber, SubsetDensity, subset_density
from cnf.flows.scoring import Evaluation
from cnf.flows.solve_options import SolveOptions
from cnf.flows.start_points import warn_of_model_coordinates
from cnf.inputs import Numbers, as_tensor
from cnf.ode import Gradient, Solver, System


class FlowMethods:
    """The methods of a flow, with the context and the options as arguments."""

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
        """The flow under one context, with its own options. Options that are not given are those
        of the flow.

        Args:
            context: (*batch, context_dim)
            solver: the solver.
            divergence: "auto", "exact" or a `Hutchinson`.
            error_model: of the error bounds.
            tolerance: of the error bounds, in nats; rows above it are re-solved. Infinity means a
                single solve.
            gradient: "direct", "discrete" or "adjoint"; see `log_prob`.
            generator: source of all randomness.

        Returns:
            An object with the methods of the flow, which itself is not changed.

        Example:
            >>> import cnf
            >>> flow = cnf.CNF(dim=2)
            >>> precise = flow.bind(solver=cnf.Grid.uniform(100), tolerance=1e-8)
            >>> precise.log_prob(torch.zeros(3, 2)).shape
            torch.Size([3])
        """
        options = SolveOptions(solver, divergence, error_model, tolerance, gradient, generator)
        given = None if context is None else as_tensor(context, self.device, "context")
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

        The result has the wider of the dtypes of x and of the flow: a float64 flow scores float64
        rows in float64, and half-precision rows are scored at their rounded values. Solves ignore
        autocast and use the dtype of the weights.

        Args:
            x: (*batch, dim)
            context: (*batch, context_dim), broadcast against x.
            t: time of the density, which is in the units of the data: 1 for the data, 0 for the
                base.
            gradient: "direct", "discrete" or "adjoint". The default is "adjoint" with torchdiffeq;
                on a grid, where the first two agree to rounding, "direct" for few rows and
                "discrete" for many. Second derivatives need "direct".
            generator: source of Hutchinson's probes.

        Returns:
            (*batch,); NaN for rows that are not finite or cannot be solved. One warning gives the
            number of the latter. In train mode, while a graph is recorded, every row is solved
            once. In eval mode, under `no_grad`, or if `bind` was given a tolerance, rows whose
            error bound exceeds the tolerance are re-solved.

        Raises:
            ValueError: for a wrong number of columns, a missing or unexpected context, or t
                outside [0, 1].
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
        """`log_prob` with an error bound, the NFE and a verdict for each row. A row that is not
        finite raises no exception."""
        return self.bind(context, gradient=gradient, generator=generator).evaluate(x, t=t)

    def marginal(self, columns: Sequence[int], context: Numbers | None = None) -> SubsetDensity:
        """p(x[columns] | context), the other columns integrated out.

        For a flow that was fitted with `any_subset=True`, the answer is amortized, one solve of a
        conditional network, and `.exact()` computes it from the joint density by importance
        sampling. For any other flow it is exact. The proposal is then a mixture that is fitted
        here, which takes seconds: reuse the returned object.

        Args:
            columns: indices of the columns, in the order in which x has them.
            context: (*batch, context_dim)

        Raises:
            ValueError: for unknown columns, or a flow with a context that was fitted without
                `any_subset=True`.

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
        context = None if context is None else as_tensor(context, self.device, "context")
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
        """Log-density in model coordinates from a single solve. Rows beyond the tolerance are not
        re-solved, and the Jacobian of the preprocessing is left out. Likelihood training
        differentiates this.

        Args:
            y: (rows, dim), and
            context: (rows, context_dim), both as `to_model_coordinates` gives them.
            solver: used instead of that of the flow.
            t: time of the density.
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

        They have the dtype of the flow unless another is given. For columns whose values are large
        compared with their spread, such as times in seconds, float32 keeps few digits and float64
        all: the solve uses the flow's dtype, and the preprocessing is inverted in float64."""
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
        """Start points (*shape, *batch, dim) of samples at t = 0: draws from the base, in the
        units of the data.

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
            x: positions of the particles at t = 0, as `sample_base` draws them, (*batch, dim);
                with `reverse`, positions at t = 1.
            t: times in [0, 1], increasing.
            context: (*batch, context_dim), broadcast against x.
            reverse: whether the particles end at x instead of starting from it.

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
        """Paths of particles (time, *batch, dim) and the log-density along them, (time, *batch),
        from one solve.

        d log pₜ(x(t)) / dt = −tr ∂v/∂x along a path: in nats and, like the paths, in the units of
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
        """The points at t = 1 to which the flow carries points x (*batch, dim) from t = 0; with
        `reverse`, from t = 1 back to t = 0.

        For a flow fitted with `source=`, this is the map from the source to the data.

        Example:
            >>> import cnf
            >>> flow, x = cnf.CNF(dim=2), torch.randn(5, 2)
            >>> torch.allclose(flow.transport(flow.transport(x), reverse=True), x, atol=1e-3)
            True
        """
        return self.trajectory(x, [0.0] if reverse else [1.0], reverse=reverse)[0]

    def log_density_ratio(self, x: Numbers) -> tuple[Tensor, Tensor]:
        """log p₁(x) − log p₀(x) at points x (*batch, dim), between the data at t = 1 and the source
        at t = 0, and a bound of its numerical error; both have shape (*batch,), in nats.

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
