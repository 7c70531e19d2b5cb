"""Which column makes a row unusual, and how unusual the row is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from cnf.tables.questions import table_density

Callback = Callable[[float], None]
# Reference rows for comparisons of single cells: medians and ranks need no more. P-values use all
# reference rows.
COMPARED = 200
DRAWS = 256  # rows drawn from the model
SCORED_TOGETHER = 2048  # reference rows between two reports of the progress


def silent(done: float) -> None:
    """Ignore the finished fraction."""


@dataclass(frozen=True)
class Explanation:
    """Why rows are unusual, compared with ordinary reference rows.

    Attributes:
        surprise: −log p(cell | the other cells) of every modeled column (rows, columns), nats.
        rank: share of the reference rows whose cell is less surprising (rows, columns), with the
            same effect removed.
        p_value: conformal p-value of each row (rows,): (1 + reference rows that are at most as
            likely) / (1 + reference rows). Among rows like the reference rows, it is at most α for
            a share α. A row with a category that was not in training counts as impossible. If cells
            are missing or at an atom, likelihoods are compared after removal of the mean effect of
            which cells hold a number, so that units do not matter.
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
class PresenceEffects:
    """Effects of the presence of numeric cells on values of rows, such as log-densities.

    A cell with a number contributes a density, which depends on the units; an atom or a missing cell
    contributes a probability. Without these effects, rows with any pattern of cells are comparable, in
    any units.

    Attributes:
        slopes: least-squares slopes (numeric, values).
    """

    slopes: np.ndarray

    @classmethod
    def fit(cls, present: np.ndarray, values: np.ndarray) -> PresenceEffects:
        """The effects in rows with presence (rows, numeric) and values (rows, values); values that are
        not finite are left out."""
        slopes = np.zeros((present.shape[1], values.shape[1]))
        for k, column in enumerate(values.T):
            known = np.isfinite(column)
            if known.any():
                x, y = present[known], column[known]
                slopes[:, k] = np.linalg.lstsq(x - x.mean(0), y - y.mean(), rcond=None)[0]
        return cls(slopes)

    def removed(self, present: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The values of rows without these effects."""
        return values - present @ self.slopes


class Leveled(NamedTuple):
    """Values of reference rows without the effects of presence, each column sorted in increasing order,
    and these effects."""

    values: np.ndarray
    effects: PresenceEffects

    @classmethod
    def of(cls, present: np.ndarray, values: np.ndarray) -> Leveled:
        """From rows with this presence (rows, numeric) and these values (rows, values)."""
        effects = PresenceEffects.fit(present, values)
        return cls(np.sort(effects.removed(present, values), axis=0), effects)


@dataclass(frozen=True)
class Reference:
    """Statistics of ordinary rows, for comparison with other rows.

    Attributes:
        surprise: surprises of the cells of some of the rows.
        rest: log-probabilities of these rows without each column.
        log_prob: log-probabilities of all rows without the effects of presence, sorted (rows,).
        order: places of the rows, the least likely first (rows,).
        effects: effects of presence on log-probabilities, estimated from draws of the model.
    """

    surprise: Leveled
    rest: Leveled
    log_prob: np.ndarray
    order: np.ndarray
    effects: PresenceEffects

    @classmethod
    def of(cls, model: Any, table: pd.DataFrame, *, callback: Callback = silent) -> Reference:
        """The statistics of the rows of a table.

        Args:
            model: the `TableFlow`.
            table: the rows.
            callback: called with the finished fraction.

        Raises:
            ValueError: for a model without a conditional network, or a table without rows.
        """
        if not len(table):
            raise ValueError("reference: expected at least one row; found none")
        effects = _effects_in_draws(model, table)
        some = table.iloc[:: math.ceil(len(table) / COMPARED)]
        present = _present(model, some)
        found = surprises(model, some, callback=lambda done: callback(done / 3)).to_numpy()
        rest = rests(model, some, callback=lambda done: callback((1 + done) / 3)).to_numpy()
        scored = []
        for start in range(0, len(table), SCORED_TOGETHER):
            callback((2 + start / len(table)) / 3)
            scored.append(_scores(model, table.iloc[start : start + SCORED_TOGETHER], effects))
        scores = np.concatenate(scored)
        order = scores.argsort(kind="stable")
        parts = Leveled.of(present, found), Leveled.of(present, rest)
        return cls(*parts, scores[order], order, effects)

    def p_values(self, model: Any, table: pd.DataFrame) -> pd.Series:
        """The conformal p-value of each row of a table."""
        below = np.searchsorted(self.log_prob, _scores(model, table, self.effects), side="right")
        return pd.Series((1 + below) / (1 + len(self.log_prob)), index=table.index)

    def explain(
        self, model: Any, table: pd.DataFrame, *, callback: Callback = silent
    ) -> Explanation:
        """Explain rows of a table by comparison with the reference rows."""
        present = _present(model, table)
        found = surprises(model, table, callback=lambda done: callback(done / 2))
        cells = self.surprise.effects.removed(present, found.to_numpy())
        ordinary = self.surprise.values
        rank = found.copy()
        for k, name in enumerate(found.columns):
            rank[name] = np.searchsorted(ordinary[:, k], cells[:, k]) / len(ordinary)
        rest = rests(model, table, callback=lambda done: callback((1 + done) / 2))
        excess = self.rest.effects.removed(present, rest.to_numpy())
        excess = pd.DataFrame(
            excess - np.nanmedian(self.rest.values, axis=0), rest.index, rest.columns
        )
        excess = excess.fillna(-np.inf).mask(~np.isfinite(found), np.inf)
        return Explanation(found, rank, self.p_values(model, table), excess.idxmax(axis=1))


def surprises(model: Any, table: pd.DataFrame, *, callback: Callback = silent) -> pd.DataFrame:
    """−log p(cell | the other cells of its row) of every modeled column (rows, columns), in nats, by the
    conditional network; a longitude and its latitude share the value of their point.

    It is infinite for an invalid cell, and the other cells of that row are scored as if the cell
    were missing."""
    whole = table_density(model)
    context = [column.name for column in model.schema.context]
    states = model.encode(table)[0].states.cpu().numpy()
    impossible = pd.DataFrame(states < 0, index=table.index, columns=list(whole.columns))
    known = table.mask(impossible.reindex(columns=table.columns, fill_value=False))
    found = pd.DataFrame(index=table.index, columns=list(whole.columns), dtype=float)
    for names in _asked_together(model, whole.columns, callback):
        others = [other for other in whole.columns if other not in names]
        density = whole.conditional(known[[*others, *context]]) if others or context else whole
        cells = density.marginal(names).evaluate(table).log_prob.cpu().numpy()
        for name in names:
            found[name] = np.where(impossible[name], np.inf, -cells)
    return found


def rests(model: Any, table: pd.DataFrame, *, callback: Callback = silent) -> pd.DataFrame:
    """Log-probability of every row without each modeled column (rows, columns), by the conditional
    network; a longitude and its latitude are removed together."""
    whole = table_density(model)
    found = pd.DataFrame(0.0, index=table.index, columns=list(whole.columns))
    for names in _asked_together(model, whole.columns, callback):
        others = [other for other in whole.columns if other not in names]
        if others:
            log_prob = whole.marginal(others).evaluate(table).log_prob.cpu().numpy()
            found[names] = np.column_stack([log_prob] * len(names))
    return found


def _asked_together(
    model: Any, columns: tuple[str, ...], callback: Callback
) -> Iterator[list[str]]:
    """Each column alone, and a longitude with its latitude; reports the finished fraction."""
    modeled = [column.name for column in model.schema.modeled]
    pairs = [[modeled[place] for place in pair] for pair in model.schema.pairs]
    alone = [[name] for name in columns if not any(name in pair for pair in pairs)]
    parts = [*alone, *pairs]
    for k, part in enumerate(parts):
        callback(k / len(parts))
        yield part


def _present(model: Any, table: pd.DataFrame) -> np.ndarray:
    """Presence of a number in numeric cells, as one or zero (rows, numeric)."""
    return model.present(model.encode(table)[0].states).double().cpu().numpy()


def _effects_in_draws(model: Any, table: pd.DataFrame) -> PresenceEffects:
    """The effects of presence on log-probabilities in draws from the model. They do not depend on the rows
    that are compared, so that p-values keep their level."""
    numeric = model.numeric_columns
    if all(column.n_states == 1 for column in numeric):
        return PresenceEffects(np.zeros((len(numeric), 1)))
    context = [column.name for column in model.schema.context]
    given = None
    if context:
        given = table[context].iloc[np.arange(DRAWS) % len(table)].reset_index(drop=True)
    generator = torch.Generator(model.device).manual_seed(0)
    drawn = model.sample(DRAWS, given, generator=generator)
    drawn = drawn if given is None else drawn.join(given)
    log_prob = model.log_prob(drawn).cpu().numpy()
    return PresenceEffects.fit(_present(model, drawn), log_prob[:, None])


def _scores(model: Any, table: pd.DataFrame, effects: PresenceEffects) -> np.ndarray:
    """Log-probabilities of rows (rows,) without the effects of presence; −∞ for a row without a score, and
    for an unseen category."""
    found = model.log_prob(table, unseen="impossible").nan_to_num(nan=-torch.inf).cpu().numpy()
    return effects.removed(_present(model, table), found[:, None])[:, 0]
