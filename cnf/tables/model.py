"""The density of a table: exact discrete states, and one flow over its numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from cnf.fields.masked import MaskedField
from cnf.flows import CNF, Evaluation
from cnf.flows.model_file import write_model
from cnf.flows.serialization import describe
from cnf.flows.state import WholeState, tensors_of
from cnf.inputs import as_count, require_generator
from cnf.rows import Cells
from cnf.tables.cell_integrals import CellIntegrals
from cnf.tables.columns import Column
from cnf.tables.conditioning import PlainConditioning, StateConditioning, conditioning_of
from cnf.tables.context import complete, context_frame, gives_modeled
from cnf.tables.dataframes import Given
from cnf.tables.discrete import DiscreteModel
from cnf.tables.formats import TableError
from cnf.tables.imputation import Imputation, Imputer
from cnf.tables.masked_flow import gaussianizing_transform, masked_flow
from cnf.tables.metadata import FitMetadata
from cnf.tables.methods import TableMethods
from cnf.tables.number_maps import NumberMaps
from cnf.tables.rejection import accepted_given
from cnf.tables.schema import Schema
from cnf.tables.scoring import RowScorer, Unseen


class TableFlow(TableMethods, WholeState):
    """The density of a table with real, positive, bounded, integer or categorical columns, atoms
    and missing cells.

    A row is its discrete states s (categories; which cells are atoms, missing or ordinary numbers)
    and the numbers x that are present:

        p(row | context) = p(s | context) · p(x | s, context)

    p(s) is an exact autoregressive product, `discrete`. p(x | s) is one `CNF` in the units of the
    table, `flow`. It is conditioned on s and models the cells that hold a number. The velocity of
    the other cells is zero and their values are not used, so the density is normalized for every
    pattern. The probability of an integer is the integral of the density over its cell. If all
    columns are continuous and no cell is missing, s is constant, and `flow` is any CNF over the
    columns given the context.

    Args:
        schema: the columns.
        flow: a flow over the columns of a plain schema, given its context columns. The default
            flow is conditioned on the states and works for any schema.
        hidden: widths of the default flow's field.
        frequency: scale of the initial frequencies of the default flow's field.

    Attributes:
        metadata: a `FitMetadata`.
        history: the `cnf.History` of the fit; None for a model from a file.

    Raises:
        ValueError: for a flow that does not match the schema.

    Example:
        >>> table = pd.DataFrame({"x": torch.randn(60).tolist(), "group": list("aab") * 20})
        >>> model = TableFlow(Schema.infer(table), hidden=(8, 8))
        >>> model.log_prob(table).shape, list(model.sample(5).columns)
        (torch.Size([60]), ['x', 'group'])
    """

    def __init__(
        self,
        schema: Schema,
        flow: CNF | None = None,
        *,
        hidden: tuple[int, int] = (128, 128),
        frequency: float = 1.0,
    ) -> None:
        super().__init__()
        self.schema = schema
        self.numeric_places = [i for i, column in enumerate(schema.modeled) if column.numeric]
        # The state of a latitude is that of its longitude.
        given = {latitude for _, latitude in schema.pairs}
        self.sizes = [1 if j in given else c.n_states for j, c in enumerate(schema.modeled)]
        self.integrals = CellIntegrals(self.numeric_columns)
        self.conditioning = conditioning_of(schema, None if flow is None else flow.context_dim)
        self.discrete: DiscreteModel | None = None
        # It is built for the default flow even if no column has two states, because the initial weights
        # of that flow are drawn after it and would change.
        if flow is None or max(self.sizes) > 1:
            discrete = DiscreteModel(self.sizes, self.conditioning.context_width)
            self.discrete = discrete if discrete.non_constant else None
        if flow is None and self.numeric_places:
            assert isinstance(self.conditioning, StateConditioning), "no flow of its own"
            features = self.conditioning.features_width
            before = gaussianizing_transform(self.numeric_columns, features)
            dim = len(self.numeric_places)
            flow = masked_flow(dim, features, hidden, frequency=frequency, preprocess=before)
        self.flow = flow
        self._require_fit()
        self.imputer: Imputer | None = None
        self.metadata = FitMetadata()
        self.history: Any = None

    def _require_fit(self) -> None:
        """Raise an error if the flow has other numbers of columns than the schema."""
        expected = len(self.numeric_places), self.conditioning.width
        if self.flow is not None and (self.flow.dim, self.flow.context_dim) != expected:
            raise ValueError(
                f"the flow has dim={self.flow.dim}, context_dim={self.flow.context_dim};"
                f" the schema needs dim={expected[0]}, context_dim={expected[1]}"
            )

    @property
    def numeric_columns(self) -> list[Column]:
        """The modeled numeric columns."""
        return [self.schema.modeled[i] for i in self.numeric_places]

    @property
    def plain(self) -> bool:
        """Whether all columns are continuous and the flow takes the context as numbers."""
        return isinstance(self.conditioning, PlainConditioning)

    @property
    def amortized(self) -> bool:
        """Whether a conditional network was fitted in addition to the joint density."""
        subsets = None if self.flow is None else self.flow.subsets
        return self.imputer is not None or (self.plain and subsets is not None)

    @property
    def metadata(self) -> FitMetadata:
        """The metadata of the fit."""
        return self._metadata

    @metadata.setter
    def metadata(self, metadata: FitMetadata) -> None:
        self._metadata = metadata
        if self.flow is not None:
            self.flow.metadata = metadata.as_json()

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the computation."""
        return next(self.parameters(), torch.empty(0)).dtype

    @property
    def device(self) -> torch.device:
        """The device of the computation."""
        return next(self.parameters(), torch.empty(0)).device

    def encode(self, table: pd.DataFrame) -> tuple[Cells, Tensor]:
        """The modeled cells of a data frame, and its context (rows, width) for the model; invalid
        cells have states of their own, see `cnf.tables.Column.encode`.

        Raises:
            TableError: for an unknown column.
        """
        cells, given = (
            self.schema.encode(table, columns, strict=False)
            for columns in (self.schema.modeled, self.schema.context)
        )
        return cells.to(self.device), self.conditioning.context(given.to(self.device))

    def present(self, states: Tensor) -> Tensor:
        """Which numeric cells hold an ordinary number (rows, numeric)."""
        return states[:, self.numeric_places] == 0

    def conditions(self, states: Tensor, context: Tensor) -> Tensor | None:
        """The context of `flow` for states (rows, columns) and context (rows, width), in float64; None if
        it takes none."""
        return self.conditioning(states, context)

    def log_prob(self, table: pd.DataFrame, *, unseen: Unseen = "other") -> Tensor:
        """Log-probability (rows,) of every row of a data frame, its columns found by name.

        It is in nats: a density in the units of the table for continuous numbers, a probability
        for integers, categories, atoms and missing cells. For a row with missing cells it is the
        joint log-probability of the observed cells and of which cells are missing. −∞ for a number
        outside the support of its column; NaN if a cell is infinite, or missing in a column that
        had no missing cells in training.

        Args:
            table: the rows.
            unseen: how to treat a category that was not in training: "other", with the probability
                1 / (n + 2) after n rows, or "impossible", −∞.

        Raises:
            TableError: for an unknown column.
        """
        return self.evaluate(table, unseen=unseen).log_prob

    def evaluate(self, table: pd.DataFrame, *, unseen: Unseen = "other") -> Evaluation:
        """`log_prob` with a bound of the error of solver and quadrature, the NFE and a verdict."""
        return self.evaluate_cells(*self.encode(self.with_columns(table)), unseen=unseen)

    def evaluate_cells(
        self, cells: Cells, context: Tensor, *, unseen: Unseen = "other"
    ) -> Evaluation:
        """`evaluate` for encoded rows and their context (rows, width)."""
        rows = self.metadata.rows or 0
        scorer = RowScorer(self.conditioning, self.discrete, self.flow, self.integrals, rows)
        return scorer.evaluate(cells, context, unseen)

    @torch.no_grad()
    def sample(
        self,
        rows: int,
        given: Given | None = None,
        *,
        where: Callable[[pd.DataFrame], Any] | None = None,
        keep_orders: bool = False,
        generator: torch.Generator | None = None,
    ) -> pd.DataFrame:
        """Rows drawn from the model, with the types and names of the table.

        Args:
            rows: number of rows.
            given: a mapping from name to a value, a list of levels, or a range (low, high) with None
                for no end; or 1 or `rows` rows. Context columns are required.
            where: a function from a frame to booleans (rows,); other rows are drawn again.
                `attrs["acceptance"]` of the result is the share that was kept.
            keep_orders: whether to redraw rows that violate an order a ≤ b of `metadata.orders`.
            generator: source of all randomness.

        Raises:
            TableError: for a missing or unexpected context, or one with another number of rows.
            ValueError: for conditions on modeled columns if the model has no conditional network,
                or a condition that hardly any row satisfies.
        """
        rows = as_count("rows", rows, 0)
        require_generator(generator)
        wanted = {"where": where, "keep_orders": self.in_order if keep_orders else None}
        if asked := {name: condition for name, condition in wanted.items() if condition}:
            sample = partial(self.sample, generator=generator)
            return accepted_given(sample, self.schema, given, asked, rows)
        if gives_modeled(self.schema, given):
            return self._sample_given(rows, given, generator)
        context = self.drawn_context(given, rows)
        states = torch.zeros(rows, len(self.sizes), dtype=torch.long, device=context.device)
        if self.discrete is not None:
            states = self.discrete.sample(
                states, context.to(self.discrete.dtype), states.bool(), generator=generator
            )
            for longitude, latitude in self.schema.pairs:
                states[:, latitude] = states[:, longitude]
        values = torch.zeros(rows, len(self.numeric_places), dtype=torch.float64)
        if self.flow is not None and rows:
            conditions = self.conditions(states, context)
            shape = (rows,) if conditions is None else ()
            values = self.flow.sample(shape, conditions, generator=generator, dtype=torch.float64)
        return self.schema.rows(Cells(values, states))

    def context_of(self, table: pd.DataFrame) -> Tensor:
        """The context (rows, width) of a frame, without missing cells.

        Raises:
            TableError: for a missing context column or cell.
        """
        names = [c.name for c in self.schema.context if c.name in table]
        return self.drawn_context(table[names], len(table))

    def drawn_context(self, given: Given | None, rows: int) -> Tensor:
        """The context (rows, width) of rows to be drawn."""
        frame = context_frame(self.schema, given, rows)
        cells = self.schema.encode(frame, self.schema.context)
        return complete(self.conditioning.context(cells.to(self.device)))

    def with_imputer(self, donors: Mapping[str, Any] | None = None) -> TableFlow:
        """The model itself with a new imputer and space for donors, which `impute` needs.

        Raises:
            ValueError: for a model with a custom flow, which is not conditioned on states.
        """
        conditioning = self.conditioning
        if not isinstance(conditioning, StateConditioning):
            raise ValueError("an imputer needs the default flow of a TableFlow; leave `flow` out")
        widths = conditioning.context_width, conditioning.features_width
        field = None if self.flow is None else self.flow.field
        first, second = field.hidden if isinstance(field, MaskedField) else (1, 1)
        dim, charts = len(self.numeric_places), self.schema.charts
        imputer = Imputer(self.sizes, dim, *widths, (first, second), charts).make_room(donors)
        self.imputer = imputer.to(device=self.device, dtype=self.dtype)
        return self

    @property
    def imputation(self) -> Imputation:
        """The imputer with the parts of the model that it uses.

        Raises:
            ValueError: if the model was fitted without an imputer.
        """
        if self.imputer is None or not isinstance(self.conditioning, StateConditioning):
            raise ValueError("no imputer: fit with imputer=True, or cnf fit --any-subset")
        schema = self.schema
        maps = None if self.flow is None else NumberMaps.of(self.flow, schema.charts)
        return Imputation(self.imputer, self.conditioning, maps, schema.modeled, schema.pairs)

    def settings(self) -> dict[str, Any]:
        """The configuration of the model without its tensors and its flow."""
        donors = None if self.imputer is None else self.imputer.donor_sizes
        return {"schema": self.schema.as_json(), "imputer": bool(self.imputer), "donors": donors}

    def restore(self, settings: dict[str, Any]) -> None:
        """Check that the schema is the same, and build the imputer if the saved model had one."""
        if Schema.from_json(settings["schema"]) != self.schema:
            raise TableError(
                "state: expected the schema that it was taken with; construct the TableFlow with that"
                " schema, or write a file by `save` and read it by `cnf.load`"
            )
        if settings["imputer"] and self.imputer is None:
            self.with_imputer()
        if self.imputer is not None:
            self.imputer.make_room(settings.get("donors"))

    def save(self, path: str | Path) -> None:
        """Write schema, configuration, weights and metadata to one safetensors file,
        atomically; see `cnf.load`."""
        configuration = {
            "class": "TableFlow",
            **self.settings(),
            "flow": None if self.flow is None else describe(self.flow),
            "cell_error": self.integrals.measured,
            "dtype": str(self.dtype).removeprefix("torch."),
            "metadata": self.metadata.as_json(),
        }
        write_model(path, configuration, tensors_of(self))
