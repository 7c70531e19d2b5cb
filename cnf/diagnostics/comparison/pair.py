"""Two tables with the same columns."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.api import types

from cnf.rows import FEWEST_ROWS
from cnf.tables import TableError
from cnf.tables.dataframes import as_pandas


@dataclass(frozen=True)
class TablePair:
    """A real and a synthetic table: numbers as float64, everything else as objects.

    Attributes:
        real: the real rows.
        fake: the synthetic rows, with the same columns.
        numeric: names of the columns that hold numbers, or times in nanoseconds.
        categorical: names of the others.
    """

    real: pd.DataFrame
    fake: pd.DataFrame
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]

    @classmethod
    def of(
        cls, real: pd.DataFrame, fake: pd.DataFrame, categorical: Collection[str] = ()
    ) -> TablePair:
        """Two data frames, of which `fake` may have more columns or another order.

        Raises:
            TableError: for a column that one of them lacks or that holds numbers in one alone, and
                for fewer than 10 rows.

        Example:
            >>> table = pd.DataFrame({"x": range(10), "group": list("ab") * 5})
            >>> TablePair.of(table, table).numeric
            ('x',)
        """
        real, fake = (_as_frame(table) for table in (real, fake))
        for table, what in ((real, "real"), (fake, "synthetic")):
            if len(table) < FEWEST_ROWS:
                raise TableError(
                    f"the {what} table: expected at least {FEWEST_ROWS} rows; got {len(table)}"
                )
        for name in (*real.columns, *categorical):
            if name not in fake or name not in real:
                raise TableError(
                    f"column {name!r}: expected it in both tables; compare the headers"
                )
        numeric = tuple(
            name for name in real if is_number(real[name]) and name not in set(categorical)
        )
        others = tuple(name for name in real if name not in set(numeric))
        for name in numeric:
            if not is_number(fake[name]):
                raise TableError(
                    f"column {name!r}: expected numbers, as the real table holds;"
                    f" got {fake[name].dtype} in the synthetic one"
                )
        return cls(_unified(real, numeric), _unified(fake[list(real)], numeric), numeric, others)

    def sampled(self, rows: int, seed: int) -> TablePair:
        """At most this number of rows of each table, drawn without replacement."""
        random = np.random.default_rng(seed)
        real, fake = (some_rows(table, rows, random) for table in (self.real, self.fake))
        return TablePair(real, fake, self.numeric, self.categorical)

    def beside(self, real: pd.DataFrame) -> pd.DataFrame:
        """Other real rows, such as held-out ones, with the columns and types of this pair."""
        return TablePair.of(real[list(self.real)], self.fake, self.categorical).real


def some_rows(table: pd.DataFrame, rows: int, random: np.random.Generator) -> pd.DataFrame:
    """At most this number of rows, drawn without replacement."""
    if len(table) <= rows:
        return table
    return table.iloc[np.sort(random.permutation(len(table))[:rows])]


def is_number(cells: pd.Series) -> bool:
    """Whether a column holds numbers or times."""
    if types.is_bool_dtype(cells):
        return False
    return (
        types.is_numeric_dtype(cells)
        or types.is_datetime64_any_dtype(cells)
        or types.is_timedelta64_dtype(cells)
    )


def _as_frame(table: pd.DataFrame) -> pd.DataFrame:
    found = as_pandas(table)
    if found is None:
        raise TypeError(f"expected a data frame; got {type(table).__name__}")
    return found.reset_index(drop=True)


def _unified(table: pd.DataFrame, numeric: Collection[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            name: as_numbers(cells) if name in numeric else as_objects(cells)
            for name, cells in table.items()
        }
    )


def as_numbers(cells: pd.Series) -> pd.Series:
    """The cells in float64, NaN for a missing one; times in nanoseconds."""
    if types.is_numeric_dtype(cells):
        return cells.astype("Float64").astype("float64") if cells.hasnans else cells.astype(float)
    return pd.to_numeric(cells).astype(float).mask(cells.isna())


def as_objects(cells: pd.Series) -> pd.Series:
    """The cells as objects, None for a missing one."""
    return cells.astype(object).where(cells.notna(), None)
