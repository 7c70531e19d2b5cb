"""Scores of encoded rows; an invalid row does not affect the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd
import torch
from torch import Tensor

from cnf.flows import CNF, Evaluation
from cnf.rows import Cells, in_blocks
from cnf.tables.cell_integrals import CellIntegrals
from cnf.tables.columns import NO_STATE, OUTSIDE, UNSEEN, Column
from cnf.tables.conditioning import PlainConditioning, StateConditioning
from cnf.tables.discrete import DiscreteModel
from cnf.tables.gaussian_cells import NumberRows
from cnf.tables.schema import Schema, unheld
from cnf.transforms.patterns import side_by_side

Unseen = Literal["other", "impossible"]
UNSOLVED = "the solver did not reach the tolerance"


@dataclass(frozen=True)
class RowScorer:
    """log p of rows: of their states, and of their numbers given the states.

    An unseen category is either "impossible", or some "other" one. In n rows it did not occur, so that its
    probability is 1 / (n + 2), by the rule of succession. The other cells of the row are then scored as if
    that category were unknown.

    Attributes:
        conditioning: conditioning of the flow.
        discrete: distribution of the states, or None if no column has two states.
        flow: flow of the numbers, or None.
        integrals: integrals over integer cells.
        rows: number of rows that the model was fitted to.
    """

    conditioning: PlainConditioning | StateConditioning
    discrete: DiscreteModel | None
    flow: CNF | None
    integrals: CellIntegrals
    rows: int

    @torch.no_grad()
    def evaluate(self, cells: Cells, context: Tensor, unseen: Unseen) -> Evaluation:
        """log-probability, error, NFE and verdict of encoded rows and their context (rows,
        width)."""
        new = cells.states == UNSEEN
        known = (cells.states != NO_STATE).all(1) & context.isfinite().all(1)
        known = known & cells.values.isfinite().all(1)
        outside = (cells.states == OUTSIDE).any(1) | (new.any(1) & (unseen == "impossible"))
        log_prob = torch.full((len(cells),), torch.nan, dtype=torch.float64, device=known.device)
        error, nfe = log_prob.clone(), torch.zeros_like(log_prob, dtype=torch.long)
        impossible = known & outside
        log_prob[impossible], error[impossible], ok = -torch.inf, 0.0, impossible.clone()
        rows = (known & ~outside).nonzero().squeeze(1)
        # Rows with the same pattern and states are adjacent, because they are solved together.
        held = cells.states[rows]
        rows = rows[side_by_side(torch.cat([self._present(held).long(), held], 1))]
        whole, count = in_blocks(rows), len(rows)
        states = cells.states.masked_fill(new, NO_STATE)
        found = self._evaluate(Cells(cells.values, states).take(whole), context[whole], count)
        log_prob[rows], error[rows], nfe[rows], ok[rows] = (
            part[:count] for part in vars(found).values()
        )
        return Evaluation(log_prob + log_unseen(self.rows, new), error, nfe, ok)

    def _present(self, states: Tensor) -> Tensor:
        return states[:, self.conditioning.numeric] == 0

    def _evaluate(self, cells: Cells, context: Tensor, count: int) -> Evaluation:
        """Scores of valid rows: the first `count` are real ones, and the others fill a block. Unknown
        states are not scored."""
        log_states = context.new_zeros(len(cells), dtype=torch.float64)
        if self.discrete is not None:
            extra = context.to(self.discrete.dtype)
            log_states = self.discrete.log_prob(cells.states, extra).double()
        if self.flow is None:
            zero = torch.zeros_like(log_states)
            return Evaluation(log_states, zero, zero.long(), log_states.isfinite())
        conditions = self.conditioning(cells.states, context)
        rows = NumberRows(cells.values, self._present(cells.states), conditions)
        found = self.integrals.evaluate(self.flow, rows, count)
        return replace(found, log_prob=log_states + found.log_prob)


def log_unseen(rows: int, unseen: Tensor) -> Tensor:
    """Log-probability (rows,) of the cells with unseen categories (rows, columns), by the rule of
    succession after this number of training rows."""
    return -math.log(rows + 2) * unseen.sum(1, dtype=torch.float64)


def reasons(schema: Schema, table: pd.DataFrame, found: Evaluation) -> list[str]:
    """The reasons why rows have no ordinary score, each from its first invalid cell; "" for a row with a
    score.

    Args:
        schema: schema of the model.
        table: table with the rows.
        found: scores of the rows.
    """
    columns = (*schema.modeled, *schema.context)
    states = schema.encode(table, columns, strict=False).states
    why = ["" if solved else UNSOLVED for solved in found.ok.tolist()]
    for row in (states < 0).any(1).nonzero().squeeze(1).tolist():
        column, state = _first_unheld(columns, states[row].tolist())
        why[row] = f"column {column.name!r}: {unheld(table[column.name].iloc[row], state, column)}"
    return why


def _first_unheld(columns: Sequence[Column], states: Sequence[int]) -> tuple[Column, int]:
    return next((column, state) for column, state in zip(columns, states) if state < 0)
