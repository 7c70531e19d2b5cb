"""The continuous normalizing flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from cnf.card import fit_facts
from cnf.deprecation import RenamedAttribute, warn_renamed
from cnf.fields import GatedField, Geometry
from cnf.fields.wrapped import as_field
from cnf.flows.bases import Base
from cnf.flows.calibration import calibrated
from cnf.flows.distribution import FlowDistribution
from cnf.flows.distribution_base import as_base
from cnf.flows.divergence import AUTO, Hutchinson
from cnf.flows.error_model import ErrorModel
from cnf.flows.methods import FlowMethods
from cnf.flows.model_file import write_model
from cnf.flows.product_base import plain_base
from cnf.flows.serialization import describe
from cnf.flows.state import WholeState, flow_state, set_flow_state, tensors_of
from cnf.inputs import (
    Numbers,
    as_count,
    as_tensor,
    brief,
    require_columns,
    require_context,
)
from cnf.ode import Grid, Solver
from cnf.precision import outside_autocast
from cnf.transforms import Affine, Charts, Transform

DEFAULT_HIDDEN = (128, 128)  # of a flow that `cnf.fit` has not built
# The grid of a new flow: one evaluation a step, and steps enough for most of a training.
UNCALIBRATED = Grid.uniform(16, "adams")
PARTS = {
    "field": (nn.Module,),
    "base": (Base, Distribution),
    "preprocess": (Transform,),
    "solver": (Solver,),
}


class CNF(FlowMethods, WholeState):
    """A continuous normalizing flow: a base density at t = 0 carried to the data at t = 1.

    With dx/dt = v(t, x, context) and z = x(0), the density at x = x(1) follows the instantaneous
    change of variables (Chen et al. 2018), log p(x) = log p₀(z) − ∫₀¹ tr ∂v/∂x dt. The
    log-Jacobian of the preprocessing is added, so the density is in the units of the data.

    Args:
        dim: number of columns of x.
        hidden: widths of the two hidden layers of the default field, a `GatedField`; without them,
            `cnf.fit` builds the default field for the number of rows and columns.
        context_dim: number of columns of the context that the density depends on; 0 for none.
        field: a velocity field of your own, or any module of (t, x), see `ModuleField`; `hidden`
            is then ignored.
        base: base density, a `Base` or any `torch.distributions.Distribution` whose event has one
            axis; "auto" is the standard normal, unless `cnf.fit` chooses another.
        preprocess: transform to model coordinates; "auto" is the identity until `cnf.fit` fits it.
        solver: a `Grid` or a `Torchdiffeq`; "auto" is `UNCALIBRATED` until `calibrate` chooses a
            grid.
        divergence: "auto" (in closed form if the field has one, else exact; in training beyond
            moderate dimension, Hutchinson), "exact", "hutchinson", or a `Hutchinson` with its
            number of probes.
        periods: the period of each column that is an angle, by its index: {0: 360.0}. The density
            and its derivatives are equal at both ends of a period.
        spheres: indices of longitude and latitude, in degrees, for columns that are points on a
            sphere: [(0, 1)]. The density is per unit area of the unit sphere, 4π in all.

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
        hidden: tuple[int, int] | None = None,
        context_dim: int = 0,
        field: nn.Module | None = None,
        base: Base | Distribution | str = AUTO,
        preprocess: Transform | str = AUTO,
        solver: Solver | str = AUTO,
        divergence: Hutchinson | str = AUTO,
        periods: Mapping[int, float] | None = None,
        spheres: Sequence[tuple[int, int]] = (),
    ) -> None:
        super().__init__()
        self.dim = dim = as_count("dim", dim, 1)
        self.context_dim = context_dim = as_count("context_dim", context_dim, 0)
        charts = Charts(dim, periods, spheres) if periods or spheres else None
        if charts is not None and not isinstance(preprocess, str):
            raise ValueError('periods and spheres: expected preprocess="auto" beside them')
        space = Geometry(dim) if charts is None else charts.geometry
        given: dict[str, Any] = {"base": base, "preprocess": preprocess, "solver": solver}
        _check_parts(given | {"field": AUTO if field is None else field}, divergence)
        if field is None:
            given["field"] = AUTO if hidden is None else hidden
            field = GatedField(
                space.dim, DEFAULT_HIDDEN if hidden is None else hidden,
                context_dim=context_dim, angles=space.angles, spheres=space.spheres,
            )  # fmt: skip
        self.field = as_field(field, space.dim, context_dim)
        # What `cnf.fit` is free to choose: what was left open, and the map of a context that is no
        # mask.
        self.automatic = {name for name, part in given.items() if isinstance(part, str)}
        if self.field.mask(torch.empty(1, context_dim)) is None:
            self.automatic.add("context_map")
        transform = (charts or Affine.identity(dim)) if isinstance(preprocess, str) else preprocess
        self.preprocess: Transform = transform
        self.context_map = Affine.identity(context_dim)
        chosen = plain_base(transform.geometry) if isinstance(base, str) else as_base(base)
        self.base: Base = chosen.to(self.dtype)
        self.solver: Solver = UNCALIBRATED if isinstance(solver, str) else solver
        self.divergence = Hutchinson() if divergence == "hutchinson" else divergence
        self.error_model = ErrorModel()
        self.compiled: Solver | None = None  # on which solves are one program of torch.compile
        # The conditional network of any columns given any others, a `SubsetFlow`.
        self.subsets: Any = None
        self.metadata: dict[str, Any] = {}
        self._check_sizes()

    def _check_sizes(self) -> None:
        space = self.preprocess.geometry
        if self.base.dim != space.dim or self.preprocess.dim != self.dim:
            raise ValueError(f"base and preprocess must have {self.dim} columns, as the flow has")
        if (self.field.dim, self.field.context_dim) != (space.dim, self.context_dim):
            raise ValueError(
                f"the field has dim={self.field.dim}, context_dim={self.field.context_dim};"
                f" the flow needs dim={space.dim}, context_dim={self.context_dim}"
            )
        if self.field.geometry != space:
            raise ValueError(f"the field moves in {self.field.geometry}; the flow needs {space}")

    @property
    def geometry(self) -> Geometry:
        """The space of model coordinates."""
        return self.preprocess.geometry

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the computation."""
        return self._tensor.dtype

    @property
    def device(self) -> torch.device:
        """The device of the computation."""
        return self._tensor.device

    @property
    def like(self) -> Tensor:
        """Its old name in release 0.1."""
        warn_renamed("CNF.like", "CNF.dtype and CNF.device")
        return self._tensor

    @property
    def _tensor(self) -> Tensor:
        """The first number of the field, whose dtype and device are those of the arithmetic."""
        for tensor in (*self.field.parameters(), *self.field.buffers()):
            if tensor.is_floating_point():
                return tensor
        return torch.empty(0, device=self.context_map.shift.device)

    def forward(self, context: Numbers | None = None) -> FlowDistribution:
        """p(x | context) as a `torch.distributions.Distribution`."""
        return FlowDistribution(self, context)

    @outside_autocast
    def to_model_coordinates(
        self, x: Numbers, context: Numbers | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Rows and their context in model coordinates.

        Args:
            x: (*batch, dim), in the units of the data.
            context: (*batch, context_dim), in the units of the data.

        Returns:
            y (*batch, dim) and the context, both in the flow's dtype, and log |det ∂y/∂x|, () or
            (*batch,), in float64.
        """
        x = as_tensor(x, self.device)
        require_columns("x", x, self.dim)
        if context is not None:
            context = as_tensor(context, self.device, "context")
            require_context(context, self.context_dim)
        y, ladj = self.preprocess(x, context, self.field.mask(context))
        return y.to(self.dtype), None if context is None else self.condition(context), ladj

    @outside_autocast
    def condition(self, context: Tensor) -> Tensor:
        """The context (*batch, context_dim) in model coordinates, in the flow's dtype."""
        return self.context_map(context)[0].to(self.dtype)

    @outside_autocast
    def calibrate(
        self, x: Numbers, tolerance: float = 1e-3, *, context: Numbers | None = None
    ) -> CNF:
        """Choose the time grid on rows x (rows, dim) that keeps error bounds within the tolerance
        with the fewest evaluations.

        Args:
            x: training rows; up to 1024 finite rows are used.
            tolerance: of the error bound of log_prob without rounding, in nats. Rounding is
                measured and included in the bounds; a tolerance below it needs `.double()`.
            context: (rows, context_dim)

        Returns:
            The flow itself, with its `solver` and `error_model` set.

        Raises:
            ValueError: for a tolerance that is not positive, or if there are no rows.
        """
        self.solver, self.error_model = calibrated(self.bind(context), as_tensor(x), tolerance)
        return self

    def compile_solves(self) -> CNF:
        """Compile a whole solve on the flow's grid with torch.compile, for scoring and sampling
        without gradients.

        The program processes chunks of 1,024 rows (65,536 on an accelerator). Other chunks, such
        as those of re-solved rows, run as before. Compilation happens at the first such chunk and
        takes minutes, so it is worthwhile for tens of millions of rows. After another calibration,
        it is repeated.

        Returns:
            The flow itself.

        Raises:
            ValueError: for a flow without a grid, or with a divergence that is not in closed form.
        """
        if self.solver.nfe is None:
            raise ValueError(f"compile: expected a flow whose solver is a Grid; got {self.solver}")
        if self.divergence != AUTO or self.context_dim or not self.field.bind().closed_form:
            raise ValueError(
                "compile: expected a field without context whose divergence is in closed form"
            )
        self.compiled = self.solver
        return self

    def settings(self) -> dict[str, Any]:
        """The configuration of the flow without its tensors, ready for JSON."""
        return flow_state(self)

    def restore(self, settings: dict[str, Any]) -> None:
        """Restore the result of `settings`; parts whose settings differ are rebuilt."""
        set_flow_state(self, settings)

    def save(self, path: str | Path) -> None:
        """Write configuration, weights and metadata to one safetensors file, atomically; see
        `cnf.load`.

        Raises:
            ValueError: for a part that does not keep its settings, or a grid that is too long. A
                part whose class is not registered (`cnf.register`) is stored under its import
                path, and its class is passed to the loader.
        """
        write_model(path, {**describe(self), "metadata": self.metadata}, tensors_of(self))

    def title(self) -> str:
        """What it is."""
        return f"{type(self).__name__} of {self.dim} columns"

    def facts(self) -> dict[str, object]:
        """Its parts, and what is known of its fit."""
        weights = sum(parameter.numel() for parameter in self.field.parameters())
        return {
            "context columns": self.context_dim,
            "field": f"{type(self.field).__name__}, {weights:,} weights",
            "base": type(self.base).__name__,
            "transform": type(self.preprocess).__name__,
            "solver": f"{type(self.solver).__name__}, {self.solver.nfe or 'adaptive'} evaluations a row",
            **fit_facts(self.metadata),
        }

    score = RenamedAttribute("solve_log_prob")
    accuracy = RenamedAttribute("error_model")


def _check_parts(given: dict[str, Any], divergence: Hutchinson | str) -> None:
    """Refuse what is no part, such as a class in place of an object of it."""
    for name, part in given.items():
        if isinstance(part, str) and part != AUTO:
            raise ValueError(f"{name}: expected an object or 'auto'; got {part!r}")
        if not isinstance(part, (str, *PARTS[name])):
            kinds = " or ".join(f"a {kind.__name__}" for kind in PARTS[name])
            raise TypeError(f"{name}: expected {kinds}; got {brief(part)}")
    known = isinstance(divergence, Hutchinson) or divergence in (AUTO, "exact", "hutchinson")
    if not known:
        raise ValueError(f"divergence: expected auto, exact or hutchinson; got {divergence!r}")
