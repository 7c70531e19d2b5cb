"""The numeric columns of a table as one flow, with everything else fixed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from cnf.flows import CNF
from cnf.tables.columns import Column
from cnf.tables.formats import TableError, listed, shown
from cnf.tables.schema import Schema


@dataclass(frozen=True)
class NumericView:
    """p(numeric columns | all other cells, context), as a flow with a fixed context.

    Attributes:
        flow: a `CNF` in the units of the table; for an integer column, it is the density over the grid,
            which is compacted over heaped values.
        columns: names of the numeric columns.
        context: context of the flow (context_dim,), or None.
        given: the fixed categories as text, and which of them were drawn; empty if there are none.
    """

    flow: CNF
    columns: list[str]
    context: Tensor | None = None
    given: str = ""


def chosen_states(schema: Schema, levels: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """One row of states (1, columns), and a mask of the chosen ones. Every numeric cell is an ordinary
    number, and the named categories have their levels.

    Raises:
        TableError: for an unknown categorical column, or an unknown level.
    """
    columns = schema.modeled
    categories = [column.name for column in columns if not column.numeric]
    for name in levels:
        if name not in categories:
            raise TableError(
                f"levels: no categorical column {shown(name)}; they are {listed(categories) or 'none'}"
            )
    states = torch.zeros(1, len(columns), dtype=torch.long)
    for i, column in enumerate(columns):
        if column.name in levels:
            cell = pd.Series([levels[column.name]], name=column.name, dtype=object)
            states[0, i] = schema.encode(cell.to_frame(), (column,)).states[0, 0]
    chosen = [column.numeric or column.name in levels for column in columns]
    return states, torch.tensor([chosen])


def in_words(columns: tuple[Column, ...], states: list[int], chosen: list[bool]) -> str:
    """The categories of a row of states, and which of them were drawn.

    >>> column = Column("group", "categorical", levels=("a", "b"))
    >>> in_words((column,), [1], [False])
    'group = b (drawn)'
    """
    return ", ".join(
        f"{column.name} = {column.levels[state]}" + ("" if known else " (drawn)")
        for column, state, known in zip(columns, states, chosen)
        if column.levels and state < len(column.levels)
    )
