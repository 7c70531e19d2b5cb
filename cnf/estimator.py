"""A flow as a scikit-learn estimator."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
    check_array,
    check_consistent_length,
    check_is_fitted,
    validate_data,
)

from cnf.flows import CNF, Evaluation
from cnf.inputs import brief
from cnf.recipe.architecture import default_table_flow
from cnf.recipe.tables.model_fit import fit_table_flow
from cnf.rows import FEWEST_ROWS
from cnf.tables import Column, Schema, TableFlow
from cnf.tables.dataframes import as_native, as_pandas, empty_like, rows_of
from cnf.tables.explaining import Explanation
from cnf.tables.questions import TableDensity
from cnf.training.modes import with_gradients

# The bar that is reported covers this share of the rows it was taken on, at most so many of them.
COVERED, BAR_ROWS = 0.99, 1000


class CNFDensity(DensityMixin, BaseEstimator):
    """A continuous normalizing flow as a scikit-learn density estimator: fit, score_samples,
    score, sample.

    It takes arrays of numbers, and data frames of pandas or polars with numbers, integers,
    categories, booleans and missing cells. It works in pipelines, searches and cross-validation
    like any estimator. Scores are in nats per row, in the units of X, and are computed in float64.
    A fit does not depend on the order of the rows, and a weight has the same effect as repeated
    rows.

    Args:
        steps: budget of the fit in training steps; None lets it grow with the number of rows.
        seconds: budget in seconds instead.
        hidden: widths of the two hidden layers; None chooses by rows and columns.
        kinds: types of the columns of a data frame, by name, which override the inferred ones; as
            in `cnf.Schema.infer`.
        context: names of columns that the density is conditioned on: p(other columns | context).
        any_subset: whether to fit also the network for `marginal` and `conditional`, within the
            budget.
        imputer: whether to fit also the imputer; None means only if a data frame has missing
            cells.
        members: number of flows, each with its own seed, validation rows and the whole budget; the
            density is their mean, p(x) = (1/K) Σₖ pₖ(x).
        random_state: seed of the initial weights and of the fit: an int, a RandomState, or None
            for that of numpy.

    Attributes:
        model_: the fitted `cnf.TableFlow`, in float32; the first member.
        flow_: its `cnf.CNF` over the numeric columns.
        members_: all members.
        schema_: the columns: those of an array are real, and called x0, x1, …
        history_: the `cnf.History` of the first member's fit.
        log_prob_error_: 99 % quantile of the error bounds over the rows of the fit, in nats.
        n_features_in_: number of columns.
        feature_names_in_: their names, where X had any.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> density = CNFDensity(steps=20, hidden=(8, 8), random_state=0).fit(X)
        >>> density.score_samples(X).shape, density.sample(5).shape
        ((200,), (5, 2))
        >>> table = pd.DataFrame({"height": X[:, 0], "sex": np.where(X[:, 1] > 0, "f", "m")})
        >>> density = CNFDensity(steps=20, hidden=(8, 8), context=["sex"], random_state=0).fit(table)
        >>> density.sample(3, given=pd.DataFrame({"sex": ["f"]})).columns.tolist()
        ['height']
    """

    def __init__(
        self,
        *,
        steps: int | None = None,
        seconds: float | None = None,
        hidden: tuple[int, int] | None = None,
        kinds: Mapping[str, str] | None = None,
        context: Sequence[str] | None = None,
        any_subset: bool = False,
        imputer: bool | None = None,
        members: int = 1,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.steps = steps
        self.seconds = seconds
        self.hidden = hidden
        self.kinds = kinds
        self.context = context
        self.any_subset = any_subset
        self.imputer = imputer
        self.members = members
        self.random_state = random_state

    @with_gradients
    def fit(
        self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None
    ) -> CNFDensity:
        """Fit the density to rows X (rows, columns), weighted by sample_weight (rows,); y is not
        used.

        Raises:
            ValueError: for fewer than 10 rows, numbers that are not finite, columns that are
                constant or linearly dependent, weights that are negative, all zero or of another
                length, or, as a `cnf.TableError`, a data frame that cannot be modeled.
        """
        if self.members < 1:
            raise ValueError(f"members: expected at least 1; got {self.members}")
        table = _named_table(X)
        self._like = None if table is None else empty_like(X)
        table = self._validated(X, reset=True)
        if self._like is not None:
            self.schema_ = Schema.infer(table, kinds=self.kinds, context=self.context or ())
        elif self.kinds or self.context or self.imputer:
            raise ValueError(
                "kinds, context and imputer need a data frame with named columns; got an array"
            )
        else:
            self.schema_ = Schema(tuple(Column(name, "real") for name in table))
        weights = _checked_weights(X, sample_weight)
        if self.schema_.plain and not self.imputer:
            table, weights = _merged(table[self._names], weights)
        random = check_random_state(self.random_state)
        self.members_ = [self._member(table, weights, _seed(random)) for _ in range(self.members)]
        self.model_, self.history_ = self.members_[0], self.members_[0].history
        self.log_prob_error_ = self._bar(table)
        return self

    def _member(self, table: pd.DataFrame, weights: np.ndarray | None, seed: int) -> TableFlow:
        """One model fitted to the rows."""
        imputer = bool(self.imputer)
        model = default_table_flow(
            self.schema_, len(table), hidden=self.hidden, imputer=imputer, seed=seed
        )
        fit_table_flow(
            model,
            table,
            weights=weights,
            imputer=self.imputer,
            any_subset=self.any_subset,
            steps=self.steps,
            seconds=self.seconds,
            seed=seed,
        )
        return model

    @property
    def flow_(self) -> CNF | None:
        """The flow over the numeric columns of the first member."""
        return self.model_.flow

    @property
    def _names(self) -> list[str]:
        """The columns that the fit needs."""
        return [column.name for column in (*self.schema_.modeled, *self.schema_.context)]

    def _validated(self, X: ArrayLike, *, reset: bool) -> pd.DataFrame:
        """X as a table, checked as scikit-learn checks it, and against the table of the fit."""
        if isinstance(X, str | PathLike):
            raise TypeError(
                f"X: expected an array or a data frame; got {brief(X)}: read a file by"
                " cnf.tables.read_typed_table"
            )
        if self._like is not None:
            table = as_pandas(X)
            if table is None:
                raise ValueError(
                    f"X: expected a data frame with the columns of the fit; got {type(X).__name__}"
                )
            validate_data(self, X, skip_check_array=True, reset=reset)
            return table
        rows = {"ensure_min_samples": FEWEST_ROWS} if reset else {}
        matrix = validate_data(self, X, dtype=np.float64, order="C", reset=reset, **rows)
        return pd.DataFrame(matrix, columns=[f"x{i}" for i in range(matrix.shape[1])])

    def score_samples(self, X: ArrayLike) -> np.ndarray:
        """Log-density (rows,) of every row of X (rows, columns), in nats."""
        check_is_fitted(self)
        return self._evaluate(self._validated(X, reset=False)).log_prob.numpy()

    @torch.no_grad()
    def _evaluate(self, table: pd.DataFrame) -> Evaluation:
        return Evaluation.of_mixture([_exact(model).evaluate(table) for model in self.members_])

    def _bar(self, table: pd.DataFrame) -> float:
        some = np.linspace(0, len(table) - 1, min(BAR_ROWS, len(table))).astype(int)
        return float(self._evaluate(table.iloc[some]).error.double().nanquantile(COVERED))

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """Mean log-density of the rows of X (rows, columns), in nats; y is not used."""
        return float(self.score_samples(X).mean())

    def sample(
        self,
        n_samples: int = 1,
        random_state: int | np.random.RandomState | None = None,
        *,
        given: Any = None,
    ) -> Any:
        """Draw rows (n_samples, columns) from the fitted density; random_state seeds the draws.

        They have the form of the data of the fit: an array, or a frame with its columns, dtypes
        and categories. `given` is the context, one row for all or one for each: a frame, a
        mapping, a Series or a list of mappings.

        Raises:
            ValueError: for a negative number of rows, or, as a `cnf.TableError`, a context that
                does not fit.
        """
        check_is_fitted(self)
        if n_samples < 0:
            raise ValueError(f"n_samples: expected at least 0; got {n_samples}")
        if given is not None and not self.context:
            raise ValueError("given: expected none: the density was fitted without context")
        generator = torch.Generator().manual_seed(_seed(random_state))
        chosen = torch.randint(len(self.members_), (n_samples,), generator=generator).numpy()
        context = None if given is None else rows_of(given)
        if context is not None and len(context) not in (1, n_samples):
            raise ValueError(f"given: expected 1 or {n_samples} rows; got {len(context)}")
        drawn = []
        for k, model in enumerate(self.members_):
            places = np.flatnonzero(chosen == k)
            held = context
            if context is not None and len(context) == n_samples:
                held = context.iloc[places]
            drawn.append(_exact(model).sample(len(places), held, generator=generator))
        # The members' rows one after the other, back to the places they were drawn for.
        order = np.argsort(np.argsort(chosen, kind="stable"), kind="stable")
        frame = pd.concat(drawn).iloc[order].reset_index(drop=True)
        return frame.to_numpy() if self._like is None else as_native(frame, self._like)

    def marginal(self, columns: Sequence[str]) -> TableDensity:
        """p(columns), the others integrated out, of the first member; those of an array are called
        x0, x1, …; see `TableFlow.marginal`."""
        check_is_fitted(self)
        return _exact(self.model_).marginal(columns)

    def conditional(self, given: Any) -> TableDensity:
        """p(the other columns | given) of the first member: name -> a value, a list of levels or a
        range; or a frame, which conditions row by row; see `TableFlow.conditional`."""
        check_is_fitted(self)
        return _exact(self.model_).conditional(given)

    def explain(self, X: Any, reference: Any) -> Explanation:
        """Which column makes each row unusual compared with reference rows, by the first member;
        see `TableFlow.explain`."""
        check_is_fitted(self)
        rows, known = (self._validated(table, reset=False) for table in (X, reference))
        return _exact(self.model_).explain(rows, known)

    def impute(
        self, X: Any, n: int = 1, random_state: int | np.random.RandomState | None = None
    ) -> list[Any]:
        """X completed n times: missing cells of modeled columns, drawn by the first member given
        the others of their row; see `TableFlow.impute`.

        Raises:
            ValueError: for an array, which has no missing cells, or if no imputer was fitted.
        """
        check_is_fitted(self)
        if self._like is None:
            raise ValueError("no imputer: fit it to a data frame")
        table, generator = self._validated(X, reset=False), torch.Generator()
        drawn = _exact(self.model_).impute(
            table, n, generator=generator.manual_seed(_seed(random_state))
        )
        return [as_native(table.assign(**frame), self._like) for frame in drawn]


def _exact(model: TableFlow) -> TableFlow:
    """The model in float64."""
    return copy.deepcopy(model).double()


def _named_table(X: Any) -> pd.DataFrame | None:
    """X as a data frame with rows and named columns; None where it is none, and is taken as an
    array."""
    table = as_pandas(X)
    named = (
        table is not None and len(table) and all(isinstance(name, str) for name in table.columns)
    )
    return table if named else None


def _checked_weights(X: Any, sample_weight: ArrayLike | None) -> np.ndarray | None:
    if sample_weight is None:
        return None
    weights = check_array(sample_weight, dtype=np.float64, ensure_2d=False)
    check_consistent_length(X, weights)
    if (weights < 0).any():
        raise ValueError(f"sample_weight: expected weights >= 0; got {weights.min():g}")
    if not weights.any():
        raise ValueError("sample_weight: expected a weight above zero; all are zero")
    return weights


def _merged(
    table: pd.DataFrame, weights: np.ndarray | None
) -> tuple[pd.DataFrame, np.ndarray | None]:
    """The different rows of weight above zero, sorted, and the sums of their weights; None if
    equal.

    Too few different rows for a fit are taken several times each.
    """
    rows, inverse = np.unique(table.to_numpy(dtype=np.float64), axis=0, return_inverse=True)
    sums = np.bincount(inverse.ravel(), weights)
    rows, sums = rows[sums != 0], sums[sums != 0]
    times = math.ceil(FEWEST_ROWS / len(rows))
    rows, sums = np.tile(rows, (times, 1)), np.tile(sums, times)
    equal = (sums == sums[0]).all() and sums[0] > 0
    return pd.DataFrame(rows, columns=list(table)), None if equal else sums


def _seed(random_state: int | np.random.RandomState | None) -> int:
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
