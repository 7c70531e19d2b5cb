"""Which column makes a row odd, and how odd the row is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cnf.tables.questions import table_density


@dataclass(frozen=True)
class Explanation:
    """What makes rows odd, beside rows of reference that are as they should be.

    Attributes:
        surprise: −log p(cell | the other cells) of every modeled column (rows, columns), nats.
        rank: share of the reference rows whose cell is less surprising (rows, columns).
        p_value: of each row (rows,), conformal: (1 + reference rows that are no likelier) / (1 +
            reference rows). Among rows like those of reference it is at most α in a share α.
        column: name of the column that is the most surprising beyond its median of reference
            (rows,).
    """

    surprise: pd.DataFrame
    rank: pd.DataFrame
    p_value: pd.Series
    column: pd.Series

    def odd(self, count: int) -> pd.DataFrame:
        """The so many oddest rows: their p-value, their column, its surprise and its rank."""
        order = self.p_value.to_numpy().argsort(kind="stable")[:count]
        names = self.column.iloc[order]
        places = [self.surprise.columns.get_loc(name) for name in names]
        return pd.DataFrame(
            {
                "p_value": self.p_value.iloc[order],
                "column": names,
                "surprise": self.surprise.to_numpy()[order, places],
                "rank": self.rank.to_numpy()[order, places],
            }
        )


def explain(model: Any, table: pd.DataFrame, reference: pd.DataFrame) -> Explanation:
    """Why rows of a table are odd; see `TableFlow.explain`."""
    ours, theirs = (surprises(model, rows) for rows in (table, reference))
    known = np.sort(theirs.to_numpy(), axis=0)
    ranks = [
        np.searchsorted(known[:, j], ours.iloc[:, j].to_numpy()) / len(known)
        for j in range(known.shape[1])
    ]
    rank = pd.DataFrame(np.column_stack(ranks), index=ours.index, columns=ours.columns)
    excess = (ours - theirs.median()).fillna(np.inf)
    scores, held = (model.log_prob(rows).nan_to_num(nan=-np.inf) for rows in (table, reference))
    below = np.searchsorted(np.sort(held.cpu().numpy()), scores.cpu().numpy(), side="right")
    p_value = pd.Series((1 + below) / (1 + len(held)), index=table.index)
    return Explanation(ours, rank, p_value, excess.idxmax(axis=1))


def surprises(model: Any, table: pd.DataFrame) -> pd.DataFrame:
    """−log p(cell | the other cells of its row) of every modeled column (rows, columns), nats, by
    the conditional network."""
    whole = table_density(model)
    context = [column.name for column in model.schema.context]
    found = {}
    for name in whole.columns:
        others = [other for other in whole.columns if other != name]
        density = whole.conditional(table[[*others, *context]]) if others or context else whole
        found[name] = -density.marginal([name]).evaluate(table).log_prob.cpu().numpy()
    return pd.DataFrame(found, index=table.index)
