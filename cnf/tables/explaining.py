"""Which column makes a row unusual, and how unusual the row is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from cnf.tables.questions import table_density


@dataclass(frozen=True)
class Explanation:
    """Why rows are unusual, compared with ordinary reference rows.

    Attributes:
        surprise: −log p(cell | the other cells) of every modeled column (rows, columns), nats.
        rank: share of the reference rows whose cell is less surprising (rows, columns).
        p_value: conformal p-value of each row (rows,): (1 + reference rows that are at most as
            likely) / (1 + reference rows). Among rows like the reference rows, it is at most α for
            a share α. A row with a category that was not in training counts as impossible.
        column: name of the column whose removal makes the rest of the row most likely, relative to
            the median of the reference rows (rows,). As p(cell | rest) = p(row) / p(rest), it is
            the most surprising column, but computed without conditioning on an unusual cell.
    """

    surprise: pd.DataFrame
    rank: pd.DataFrame
    p_value: pd.Series
    column: pd.Series

    @property
    def rows(self) -> pd.DataFrame:
        """The p-value and the column of every row, and the surprise and the rank of that cell."""
        at = np.arange(len(self.column)), self.surprise.columns.get_indexer(self.column)
        cells = {
            "p_value": self.p_value,
            "column": self.column,
            "surprise": self.surprise.to_numpy()[at],
            "rank": self.rank.to_numpy()[at],
        }
        return pd.DataFrame(cells, index=self.surprise.index)

    def odd(self, count: int) -> pd.DataFrame:
        """The most unusual rows of `rows`, the most unusual first."""
        return self.rows.iloc[self.p_value.to_numpy().argsort(kind="stable")[:count]]


@dataclass(frozen=True)
class Reference:
    """Statistics of ordinary rows, for comparison with other rows.

    Attributes:
        surprise: of their cells, every column in rising order (rows, columns).
        rest: medians of the log-probability of a row without a column (columns,).
        log_prob: theirs, rising (rows,).
    """

    surprise: np.ndarray
    rest: np.ndarray
    log_prob: np.ndarray

    @classmethod
    def of(cls, model: Any, table: pd.DataFrame) -> Reference:
        """That of the rows of a table.

        Raises:
            ValueError: for a model without a conditional network, or a table without rows.
        """
        if not len(table):
            raise ValueError("reference: expected at least one row; found none")
        known = surprises(model, table)
        rest = np.nanmedian(rests(model, table), axis=0)
        return cls(np.sort(known.to_numpy(), axis=0), rest, np.sort(_scores(model, table)))

    def explain(self, model: Any, table: pd.DataFrame) -> Explanation:
        """Explain rows of a table by comparison with these."""
        found = surprises(model, table)
        count = len(self.log_prob)
        ranks = [
            np.searchsorted(known, cells) / count
            for known, cells in zip(self.surprise.T, found.to_numpy().T)
        ]
        rank = pd.DataFrame(np.column_stack(ranks), index=found.index, columns=found.columns)
        excess = (rests(model, table) - self.rest).fillna(-np.inf)
        excess = excess.mask(~np.isfinite(found), np.inf)
        below = np.searchsorted(self.log_prob, _scores(model, table), side="right")
        p_value = pd.Series((1 + below) / (1 + count), index=table.index)
        return Explanation(found, rank, p_value, excess.idxmax(axis=1))


def surprises(model: Any, table: pd.DataFrame) -> pd.DataFrame:
    """−log p(cell | the other cells of its row) of every modeled column (rows, columns), nats, by
    the conditional network; of a longitude and its latitude, that of the place.

    It is infinite for an invalid cell, and the other cells of that row are scored as if the cell
    were missing."""
    whole = table_density(model)
    context = [column.name for column in model.schema.context]
    states = model.encode(table)[0].states.cpu().numpy()
    impossible = pd.DataFrame(states < 0, index=table.index, columns=list(whole.columns))
    known = table.mask(impossible.reindex(columns=table.columns, fill_value=False))
    found = pd.DataFrame(index=table.index, columns=list(whole.columns), dtype=float)
    for names in _asked_together(model, whole.columns):
        others = [other for other in whole.columns if other not in names]
        density = whole.conditional(known[[*others, *context]]) if others or context else whole
        cells = density.marginal(names).evaluate(table).log_prob.cpu().numpy()
        for name in names:
            found[name] = np.where(impossible[name], np.inf, -cells)
    return found


def rests(model: Any, table: pd.DataFrame) -> pd.DataFrame:
    """Log-probability of every row without each modeled column (rows, columns), by the conditional
    network; of a longitude and its latitude, without the place."""
    whole = table_density(model)
    found = pd.DataFrame(0.0, index=table.index, columns=list(whole.columns))
    for names in _asked_together(model, whole.columns):
        others = [other for other in whole.columns if other not in names]
        if others:
            log_prob = whole.marginal(others).evaluate(table).log_prob.cpu().numpy()
            found[names] = np.column_stack([log_prob] * len(names))
    return found


def _asked_together(model: Any, columns: tuple[str, ...]) -> list[list[str]]:
    """Each column by itself, and a longitude with its latitude."""
    modeled = [column.name for column in model.schema.modeled]
    pairs = [[modeled[place] for place in pair] for pair in model.schema.pairs]
    alone = [[name] for name in columns if not any(name in pair for pair in pairs)]
    return [*alone, *pairs]


def _scores(model: Any, table: pd.DataFrame) -> np.ndarray:
    found = model.log_prob(table, unseen="impossible")
    return found.nan_to_num(nan=-torch.inf).cpu().numpy()
