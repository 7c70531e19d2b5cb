"""All measures of the difference between two tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd

from cnf.diagnostics.comparison.constraints import Constraint, constraints
from cnf.diagnostics.comparison.coverage import coverage
from cnf.diagnostics.comparison.detection import boosted_trees, detection, logistic_regression
from cnf.diagnostics.comparison.efficacy import efficacy
from cnf.diagnostics.comparison.measure import Measure
from cnf.diagnostics.comparison.pair import TablePair
from cnf.diagnostics.comparison.records import MOST_ROWS as MOST_RECORDS
from cnf.diagnostics.comparison.records import closest_records, nearer_to_training, some_rows
from cnf.diagnostics.comparison.shape import shapes
from cnf.diagnostics.comparison.trend import trends


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`.

    Attributes:
        pair: the tables.
        measures: one number each.
        shapes: the similarity of each column, by name.
        trends: the similarity of each pair of columns.
        constraints: orders of columns that hold in real rows.
    """

    pair: TablePair
    measures: tuple[Measure, ...]
    shapes: dict[str, float]
    trends: pd.DataFrame
    constraints: list[Constraint]

    def __getitem__(self, name: str) -> Measure:
        """The measure of this name."""
        return {measure.name: measure for measure in self.measures}[name]

    def as_dict(self) -> dict[str, Any]:
        """Everything except the tables, for JSON."""
        return {
            "measures": [measure.as_dict() for measure in self.measures],
            "shapes": {name: _known(value) for name, value in self.shapes.items()},
            "trends": {
                f"{a}, {b}": _known(value)
                for (a, b), value in self.trends.stack().items()
                if list(self.trends).index(a) < list(self.trends).index(b)
            },
            "constraints": [vars(constraint) for constraint in self.constraints],
        }


class Density(Protocol):
    """A model of the table: its rows have a log-density."""

    def log_prob(self, table: Any) -> Any:
        """The log-density of each row (rows,)."""


def compare(
    real: pd.DataFrame,
    fake: pd.DataFrame,
    *,
    held_out: pd.DataFrame | None = None,
    target: str | None = None,
    model: Density | None = None,
    categorical: Collection[str] = (),
    seed: int = 0,
    callback: Callable[[float], None] = lambda done: None,
) -> Comparison:
    """Measure how close a synthetic table is to a real one, whatever method generated it.

    Shape and Trend are averages over columns and pairs of columns, as in sdmetrics. The two
    classifier scores are 2 (1 − AUC). With held-out rows, memorization and efficacy are also
    measured.

    Args:
        real: the rows that the synthetic ones were made from; its columns are compared.
        fake: the synthetic rows.
        held_out: real rows that the synthetic ones were not made from.
        target: column whose prediction is compared; needs `held_out`.
        model: the model that made the synthetic rows, whose log-densities show whether it
            memorized real rows; needs `held_out`.
        categorical: numeric columns that hold codes.
        seed: of folds, classifiers and the rows that are chosen from large tables.
        callback: is called with the finished share of the work.

    Raises:
        ValueError: for a target or model without held-out rows, or, as a `TableError`, columns
            that do not agree, an unknown target or fewer than 10 rows.

    Example:
        >>> random = np.random.default_rng(0)
        >>> a, b = (pd.DataFrame({"x": random.normal(size=300)}) for _ in range(2))
        >>> compare(a, b)["shape"].value > 0.9
        True
    """
    for name, given in (("target", target), ("model", model)):
        if given is not None and held_out is None:
            raise ValueError(f"{name}: expected held-out rows beside it; got none")
    pair = TablePair.of(real, fake, categorical)
    other = None if held_out is None else pair.beside(held_out)
    columns, pairs, orders = shapes(pair), trends(pair), constraints(pair, seed)
    parts = [
        _likeness(columns, pairs),
        _kept(orders),
        _classifiers(pair, seed),
        _places(pair, seed),
        _nearness(pair, other, seed),
        _memory(pair, other, seed),
        _usefulness(pair, other, target, seed),
        _likelihood_gap(model, real, held_out),
    ]
    measures: list[Measure] = []
    for k, part in enumerate(parts, 1):
        measures += part
        callback(k / len(parts))
    return Comparison(pair, tuple(measures), columns, pairs, orders)


def _likeness(columns: dict[str, float], pairs: pd.DataFrame) -> Iterator[Measure]:
    known = {name: value for name, value in columns.items() if not math.isnan(value)}
    worst = min(known, key=known.__getitem__)
    detail = f"mean over columns; the least is {known[worst]:.3f}, of {worst!r}"
    yield Measure("shape", float(np.mean([*known.values()])), 1.0, detail)
    upper = pairs.to_numpy()[np.triu_indices(len(pairs), 1)]
    upper = upper[~np.isnan(upper)]
    if len(upper):
        detail = f"mean over pairs of columns; the least is {upper.min():.3f}"
        yield Measure("trend", float(upper.mean()), 1.0, detail)


def _kept(orders: list[Constraint]) -> Iterator[Measure]:
    if orders:
        detail = f"share of rows that violate the most violated order of columns: {orders[0].text}"
        yield Measure("constraints", orders[0].fake, orders[0].real, detail)


def _classifiers(pair: TablePair, seed: int) -> Iterator[Measure]:
    for name, classifier in (
        ("detection by trees", boosted_trees),
        ("detection by regression", logistic_regression),
    ):
        score = detection(pair, classifier, seed)
        area = f"2 (1 − AUC); the area under the curve is {1 - score / 2:.3f}"
        yield Measure(name, score, 1.0, area)


def _places(pair: TablePair, seed: int) -> Iterator[Measure]:
    precision, recall = coverage(pair, seed)
    yield Measure("α-precision", precision, 1.0, "synthetic rows lie where real ones do")
    detail = "real rows have a synthetic row closer than the next real one"
    yield Measure("β-recall", recall, 0.5, detail)


def _nearness(pair: TablePair, held_out: pd.DataFrame | None, seed: int) -> Iterator[Measure]:
    random = np.random.default_rng(seed)
    real, fake = (some_rows(table, MOST_RECORDS, random) for table in (pair.real, pair.fake))
    nearest, ideal = closest_records(fake, real, pair), math.nan
    if held_out is not None:
        other = some_rows(held_out, MOST_RECORDS, random)
        ideal = float(np.median(closest_records(other, real, pair)))
    detail = f"median distance to the closest real row; {(nearest == 0).mean():.1%} are copies"
    yield Measure("closest record", float(np.median(nearest)), ideal, detail)


def _memory(pair: TablePair, held_out: pd.DataFrame | None, seed: int) -> Iterator[Measure]:
    if held_out is None:
        return
    detail = "share of synthetic rows closer to a training row than to held-out ones"
    yield Measure("memorization", nearer_to_training(pair, held_out, seed), 0.5, detail)


def _usefulness(
    pair: TablePair, held_out: pd.DataFrame | None, target: str | None, seed: int
) -> Iterator[Measure]:
    if held_out is None or target is None:
        return
    ours, theirs = efficacy(pair, held_out, target, seed)
    detail = f"{target!r} of held-out rows, predicted from synthetic rows and from real ones"
    yield Measure("efficacy", ours, theirs, detail)


def _likelihood_gap(
    model: Density | None, real: pd.DataFrame, held_out: pd.DataFrame | None
) -> Iterator[Measure]:
    if model is None:
        return
    scores = [np.asarray(model.log_prob(table), float) for table in (real, held_out)]
    scores = [part[np.isfinite(part)] for part in scores]
    gap = float(scores[0].mean() - scores[1].mean())
    error = math.hypot(*(part.std() / math.sqrt(len(part)) for part in scores))
    detail = f"mean log-density of training rows minus that of held-out ones, nats, ± {error:.3f}"
    yield Measure("likelihood gap", gap, 0.0, detail)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
