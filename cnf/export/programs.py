"""Computations on rows as modules of tensors, which `torch.export` can trace."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from cnf.export.errors import ExportError
from cnf.export.noise import drawing
from cnf.export.rows import NUMBERS, OrdinaryRows, PlainRows, ReadRows
from cnf.flows import CNF
from cnf.flows.divergence import AUTO
from cnf.flows.equation import FlowEquation, solve_equation
from cnf.ode import Grid
from cnf.tables import TableFlow

# Rows that a program is traced with; a program takes any number.
TRACED_ROWS = 5


class Program(nn.Module, ABC):
    """A computation whose inputs and outputs are tensors in float64.

    Args:
        model: of a table of real, positive, bounded or integer columns.

    Attributes:
        outputs: names of what `forward` returns.

    Raises:
        ExportError: for a model that cannot be exported, with the reason.
    """

    outputs: ClassVar[tuple[str, ...]]

    def __init__(self, model: TableFlow) -> None:
        super().__init__()
        _require_numbers(model)
        self.rows: ReadRows = PlainRows(model) if model.plain else OrdinaryRows(model)
        _require_grid(self.flow)
        self.columns = [column.name for column in model.schema.modeled]
        self.context = [column.name for column in model.schema.context]

    @property
    def flow(self) -> CNF:
        """The flow of the numbers."""
        return self.rows.flow

    @property
    @abstractmethod
    def inputs(self) -> dict[str, int]:
        """The names of the inputs of `forward` and their numbers of columns, each (rows,
        columns)."""

    @abstractmethod
    def examples(self, rows: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Plausible inputs with this number of rows."""

    def _with_context(self, name: str, width: int) -> dict[str, int]:
        return {name: width} | ({"context": len(self.context)} if self.context else {})

    def _draw_context(self, rows: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        if not self.context:
            return ()
        normal = torch.randn(rows, len(self.context), generator=generator).double()
        return (self.flow.context_map.inverse(normal),)


class ScoreProgram(Program):
    """log p of rows with an error bound and a verdict, by one solve on the calibrated grid.

    It corresponds to the first solve of `TableFlow.evaluate`: a row whose bound exceeds the
    tolerance is not re-solved, and its `ok` is false. A row outside the ranges of its columns has
    −∞, and a row with a missing or infinite number has NaN. A row of a typed table with an atom
    also has NaN.

    Example:
        >>> from cnf.tables.loading import wrapped
        >>> log_prob, error, ok = ScoreProgram(wrapped(CNF(2)))(torch.zeros(3, 2).double())
        >>> log_prob[0].item(), ok.tolist()
        (-1.8378770351409912, [True, True, True])
    """

    outputs = ("log_prob", "error", "ok")
    middle: Tensor

    def __init__(self, model: TableFlow) -> None:
        super().__init__(model)
        origin = torch.zeros(1, self.flow.base.dim, dtype=torch.float64)
        self.register_buffer("middle", self.flow.preprocess.inverse(origin)[0])
        # A gradient, which cannot be traced within what is traced.
        steepness = self.flow.base.steepness
        trace = make_fx(
            lambda z: steepness(z), tracing_mode="symbolic", _allow_non_fake_inputs=True
        )
        like = torch.zeros(TRACED_ROWS, self.flow.base.dim, dtype=self.flow.dtype)
        self.steepness = trace(like)

    @property
    def inputs(self) -> dict[str, int]:
        """The rows, and their context if the model has one."""
        return self._with_context("x", len(self.columns))

    def examples(self, rows: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Draws of the model."""
        context = self._draw_context(rows, generator)
        shape = () if context else (rows,)
        x = self.flow.sample(shape, *context, generator=generator, dtype=torch.float64)
        return (x, *context)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """log_prob (rows,) in nats, error (rows,) and ok (rows,) of x (rows, columns)."""
        (values, known), condition = self.rows.values(x), None
        if context is not None:
            known = known & context.isfinite().all(-1)
            context = context.where(known[:, None], 0.0)
            condition = self.flow.condition(context)
        outside = self.rows.outside(x)
        inside = values.where((known & ~outside)[:, None], self.middle)
        y, ladj = self.flow.preprocess(inside, context)
        found = self.flow.bind().solve_log_prob(y.to(self.flow.dtype), condition)
        found = found._replace(steepness_at=self.steepness)
        judge, (more, beside, narrow) = self.flow.error_model, self.rows.beside(inside)
        estimate, log_prob = judge.estimate(found), found.log_prob.double() + ladj + more
        error = (estimate + judge.rounding_error(found.log_prob)).double() + beside
        solved = log_prob.isfinite()
        log_prob = log_prob.where(solved, torch.nan).masked_fill(outside, -torch.inf)
        ok = known & (outside | (solved & (estimate <= judge.tolerance) & narrow))
        return (
            log_prob.where(known, torch.nan),
            error.masked_fill(outside, 0.0).where(known, torch.nan),
            ok,
        )


class SampleProgram(Program):
    """Rows of the model made from standard normal noise, and their log-densities.

    Example:
        >>> from cnf.tables.loading import wrapped
        >>> program = SampleProgram(wrapped(CNF(2)))
        >>> program.inputs
        {'noise': 2}
        >>> program(torch.ones(1, 2).double())[0].tolist()
        [[1.0, 1.0]]
    """

    outputs = ("x", "log_prob")

    def __init__(self, model: TableFlow) -> None:
        super().__init__(model)
        if not model.plain:
            raise ExportError(
                "columns: expected a plain table to export a sampler; it is typed: export its scores, or"
                " draw rows with cnf sample"
            )
        try:
            self.drawing = drawing(self.flow.base)
        except ValueError as error:
            raise ExportError(str(error)) from error

    @property
    def inputs(self) -> dict[str, int]:
        """The noise, and the context of the rows if the model has one."""
        return self._with_context("noise", self.drawing.width)

    def examples(self, rows: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Noise."""
        noise = torch.randn(rows, self.drawing.width, generator=generator).double()
        return (noise, *self._draw_context(rows, generator))

    def forward(self, noise: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (rows, columns), in the units of the table, and log_prob (rows,)."""
        flow = self.flow
        condition = None if context is None else flow.condition(context)
        z = self.drawing.draw(noise.to(flow.dtype))
        solution = solve_equation(
            FlowEquation(flow.field, AUTO), z, condition, (0.0, 1.0), flow.solver, "direct",
            estimate=True,
        )  # fmt: skip
        x = flow.preprocess.inverse(solution.x[-1].double(), context)
        log_prob = (flow.base.log_prob(z) - solution.q[-1, :, 0]).double()
        return x, log_prob + flow.preprocess(x, context)[1]


def _require_numbers(model: TableFlow) -> None:
    """Refuse columns whose cells are more than a number."""
    columns = (*model.schema.modeled, *model.schema.context)
    for column in columns:
        if column.kind not in NUMBERS:
            raise ExportError(
                f"column {column.name!r}: expected numbers to export; it is {column.describe()}:"
                " fit without it, or score with cnf.Scorer"
            )


def _require_grid(flow: CNF) -> None:
    """Refuse a flow whose score is no fixed list of products."""
    if not isinstance(flow.solver, Grid) or flow.solver.method != "adams":
        raise ExportError(
            "solver: expected a calibrated Adams grid to export; got"
            f" {flow.solver.describe()}: calibrate the model first"
        )
    if flow.base.solves:
        raise ExportError(
            "base: expected a base in closed form to export; got the flow of a source, which needs"
            " a solve of its own: score with cnf.Scorer"
        )
    condition = torch.zeros(1, flow.context_dim, dtype=flow.dtype) if flow.context_dim else None
    if flow.divergence != AUTO or not flow.field.bind(condition).closed_form:
        raise ExportError(
            "field: expected a divergence in closed form to export; got"
            f" {type(flow.field).__name__}: fit a GatedField"
        )
