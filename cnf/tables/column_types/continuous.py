"""Continuous columns: real, positive and bounded numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from cnf.tables.column_types.numeric import (
    Numbers,
    NumericType,
    atoms_among,
    parameter_numbers,
)
from cnf.tables.columns import Column, Role, register_column_type
from cnf.tables.formats import TableError, shown

# Nats per cell by which a transform must be closer to a Gaussian than the identity.
NEARER_BY = 0.05
# Upper bounds that are tested for a bounded column: fractions and percentages.
TOPS = (1.0, 100.0)


@register_column_type
class Real(NumericType):
    """Any numbers; frequent values are atoms."""

    name = "real"
    usage = ("real",)

    def declare(self, series: pd.Series, parameters: Sequence[str], role: Role) -> Column:
        """A column of these cells without bounds."""
        if parameters:
            raise self.misused(str(series.name), parameters)
        cells = Numbers.of(self.read(series), str(series.name), role)
        distinct, counts = np.unique(cells.values, return_counts=True)
        atoms = distinct[atoms_among(counts, len(cells.values))]
        return cells.column(self.name, atoms=tuple(atoms.tolist()))


@register_column_type
class Positive(NumericType):
    """Numbers above zero; cells that are zero are an atom."""

    name = "positive"
    usage = ("positive",)

    def declare(self, series: pd.Series, parameters: Sequence[str], role: Role) -> Column:
        """A column of these cells with lower bound zero."""
        if parameters:
            raise self.misused(str(series.name), parameters)
        cells = Numbers.of(self.read(series), str(series.name), role)
        cells.require(cells.values >= 0, "numbers above zero")
        atoms = np.unique(cells.values[cells.values == 0])
        return cells.column(self.name, lower=0.0, atoms=tuple(atoms.tolist()))


@register_column_type
class Bounded(NumericType):
    """Numbers between two bounds; cells on a bound are an atom."""

    name = "bounded"
    usage = ("bounded:LOW:HIGH",)

    def declare(self, series: pd.Series, parameters: Sequence[str], role: Role) -> Column:
        """A column of these cells between the two bounds in the parameters."""
        name = str(series.name)
        cells = Numbers.of(self.read(series), name, role)
        ends = parameter_numbers(name, parameters)
        if len(ends) != 2:
            raise self.misused(name, parameters)
        lower, upper = ends
        inside = (cells.values >= lower) & (cells.values <= upper)
        cells.require(inside, f"numbers from {lower:.12g} to {upper:.12g}")
        atoms = tuple(end for end in ends if (cells.values == end).any())
        return cells.column(self.name, lower=lower, upper=upper, atoms=atoms)

    def validate(self, column: Column) -> None:
        """Check that a bounded column has both bounds."""
        super().validate(column)
        if column.lower is None or column.upper is None:
            raise ValueError("a bounded column needs two bounds: bounded:0:1")

    def details(self, column: Column) -> list[str]:
        """The ends."""
        return [f"between {column.lower:.12g} and {column.upper:.12g}"]


def continuous_column(cells: Numbers, atoms: tuple[float, ...]) -> Column:
    """A real, positive or bounded column, whichever is closest to a Gaussian after its transform.

    Raises:
        TableError: if only atoms are left.
    """
    values = cells.values[~np.isin(cells.values, atoms)]
    if (different := len(np.unique(values))) < 2:
        if atoms:
            raise TableError(
                f"column {shown(cells.name)}: only {len(atoms) + different} different values; "
                "declare it categorical, or ignore it"
            )
        return cells.column("real")
    scores: dict[tuple[str, float | None, float | None], float] = {
        ("real", None, None): gaussian_score(values, np.zeros(len(values))) + NEARER_BY
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        if values.min() > 0:
            logs = np.log(values)
            scores["positive", 0.0, None] = gaussian_score(logs, -logs)
        for top in TOPS:
            if values.min() > 0 and top / 2 < values.max() < top:
                logit = np.log(values / (top - values))
                slope = -np.log(values) - np.log(1 - values / top)
                scores["bounded", 0.0, top] = gaussian_score(logit, slope)
    kind, lower, upper = max(scores, key=lambda found: scores[found])
    return cells.column(kind, lower=lower, upper=upper, atoms=atoms)


def gaussian_score(transformed: np.ndarray, log_slope: np.ndarray) -> float:
    """Mean log-density (nats) of the best Gaussian in transformed coordinates, minus a constant."""
    # The square of a cell of 1e200 overflows, and the score is then minus infinity.
    with np.errstate(over="ignore"):
        spread = transformed.std()
    return float(log_slope.mean() - math.log(spread)) if spread > 0 else -math.inf
