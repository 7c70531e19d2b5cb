"""The numeric columns of a table as one flow, with everything else fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        columns: names of its columns.
        context: context of the flow (context_dim,), or None.
        given: the fixed categories as text, and which of them were drawn; empty if there are none.
    """

    flow: CNF
    columns: list[str]
    context: Tensor | None = None
    given: str = ""


def most_numbers(present: Tensor, wanted: Sequence[int] = ()) -> Tensor:
    """Which numeric columns (numeric,) are present together in rows that hold, in all, the most numbers.

    It is one of the patterns of `present`: the one with the largest product of its rows and columns.

    Args:
        present: which numeric cells hold a number (rows, numeric).
        wanted: indices of columns that the pattern must contain if some row has them together.

    >>> most_numbers(torch.tensor([[True, False]] * 9 + [[True, True]] * 3))
    tensor([ True, False])
    >>> most_numbers(torch.tensor([[True, False]] * 9 + [[True, True]] * 4))
    tensor([True, True])
    """
    whole = present.new_ones(1, present.shape[1])  # for a table without any number
    patterns, rows = torch.cat([present, whole]).unique(dim=0, return_counts=True)
    columns = patterns.sum(1)
    having = patterns[:, list(wanted)].all(1).long()
    ranked = zip(having.tolist(), (rows * columns).tolist(), columns.tolist(), patterns)
    return max(ranked, key=lambda rank: rank[:3])[3]


def chosen_states(
    schema: Schema, levels: Mapping[str, Any], present: Tensor
) -> tuple[Tensor, Tensor]:
    """One row of states (1, columns), and a mask of the chosen ones. Present numeric cells are ordinary
    numbers, and the named categories have their levels.

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
    held = iter(present.tolist())
    chosen = [next(held) if column.numeric else column.name in levels for column in columns]
    for i, column in enumerate(columns):
        if column.name in levels:
            cell = pd.Series([levels[column.name]], name=column.name, dtype=object)
            states[0, i] = schema.encode(cell.to_frame(), (column,)).states[0, 0]
    return states, torch.tensor([chosen])


def in_words(columns: tuple[Column, ...], states: list[int], chosen: list[bool]) -> str:
    """The categories, atoms and missing cells of a row of states, and which of them were drawn.

    >>> columns = Column("group", "categorical", levels=("a", "b")), Column("rain", "real", atoms=(0.0,))
    >>> in_words(columns, [1, 1], [True, False])
    'group = b, rain = 0 (drawn)'
    """
    told = (
        (column, _word(column, state), known)
        for column, state, known in zip(columns, states, chosen)
    )
    return ", ".join(
        f"{column.name} = {word}" + ("" if known else " (drawn)")
        for column, word, known in told
        if word
    )


def _word(column: Column, state: int) -> str:
    """A state of a column; empty for an ordinary number, and for a missing category."""
    if column.levels:
        return str(column.levels[state]) if state < len(column.levels) else ""
    if state == column.missing_state:
        return "missing"
    return column.type.show(column.atoms[state - 1], column) if state > 0 else ""
