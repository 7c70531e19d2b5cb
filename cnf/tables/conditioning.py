"""The conditioning of the flow over the numbers of a table."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cnf.rows import Cells
from cnf.tables.features import ContextFeatures, StateFeatures
from cnf.tables.schema import Schema


class PlainConditioning(nn.Module):
    """The numbers of the context columns, for a schema with continuous columns only.

    Args:
        schema: schema without categories, grids, atoms and missing cells.

    Raises:
        ValueError: for any other schema.
    """

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        if not schema.plain:
            raise ValueError(
                "expected a schema of continuous columns without atoms or missing cells"
            )
        self.numeric = list(range(len(schema.modeled)))
        self.context_width = self.width = len(schema.context)
        self.categories: list[tuple[int, int]] = []

    def context(self, cells: Cells) -> Tensor:
        """The context (rows, width) of its encoded cells; NaN for a missing or invalid cell."""
        return cells.values.masked_fill(cells.states < 0, torch.nan)

    def forward(self, states: Tensor, context: Tensor) -> Tensor | None:
        """The context (rows, width) of the flow, None without context columns."""
        return context if self.width else None


class StateConditioning(nn.Module):
    """The mask of the numbers that are present, then features of all states and of the context.

    Args:
        schema: the columns of the table.
    """

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.numeric = [i for i, column in enumerate(schema.modeled) if column.numeric]
        charts = schema.charts
        # The column on whose presence each coordinate of the flow depends.
        self.coordinates = (
            self.numeric
            if charts is None
            else [self.numeric[place] for place in charts.coordinates]
        )
        self.states = StateFeatures(schema.modeled)
        self.categories = self.states.categories()
        self.of_context = ContextFeatures(schema.context)
        self.context_width = self.of_context.width
        self.features_width = self.states.width + self.context_width
        self.width = len(self.coordinates) + self.features_width

    def fit(self, cells: Cells, context: Cells, weights: Tensor) -> None:
        """Fit the scores of atoms and the transforms of context numbers to rows with weights (rows,)."""
        self.of_context.fit(context, weights)
        self.states.fit(cells.states, weights)

    def context(self, cells: Cells) -> Tensor:
        """Features (rows, context_width) of the encoded cells of the context."""
        return self.of_context(cells)

    def features(self, states: Tensor, context: Tensor) -> Tensor:
        """Features (rows, features_width) of states (rows, columns) and context, in float64."""
        return torch.cat((self.states(states), context), 1)

    def forward(self, states: Tensor, context: Tensor) -> Tensor:
        """The context (rows, width) of the flow: mask, features of states, features of context."""
        features = self.features(states, context)
        present = states[:, self.coordinates] == 0
        return torch.cat((present.to(features.dtype), features), 1)


def conditioning_of(
    schema: Schema, context_dim: int | None
) -> PlainConditioning | StateConditioning:
    """The conditioning of a flow for the schema. It is the numbers of a plain context if the flow takes
    that number of columns and no mask, otherwise the states; None is a flow that is not yet built."""
    if schema.plain and context_dim == len(schema.context):
        return PlainConditioning(schema)
    return StateConditioning(schema)
