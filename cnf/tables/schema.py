"""The schema of a table: its columns, and the encoding of rows as numbers and discrete states."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import torch

from cnf.deprecation import removed_argument
from cnf.rows import Cells
from cnf.tables.cells import place, require_workable
from cnf.tables.column_json import column_as_json, column_from_json
from cnf.tables.column_types.circular import refuse_wrapped, with_pairs
from cnf.tables.columns import NO_STATE, OUTSIDE, UNSEEN, Column, Role
from cnf.tables.dataframes import rows_of
from cnf.tables.formats import TableError, choose_columns, listed, names_of, shown
from cnf.tables.inference import infer, same_grids
from cnf.tables.redundancy import dependent_columns
from cnf.tables.set_aside import refuse_set_aside, set_aside
from cnf.tables.spaces import charts_of, pairs_of
from cnf.transforms import Charts

MOST_COLUMNS = 500


@dataclass(frozen=True)
class Schema:
    """The columns of a table, in the order of the file.

    Example:
        >>> table = pd.DataFrame({"age": [31, 45, 28, 31] * 9, "group": ["a", "b", "a", "b"] * 9})
        >>> schema = Schema.infer(table, kinds={"age": "integer"})
        >>> [column.kind for column in schema.columns]
        ['integer', 'categorical']
        >>> Schema.from_json(schema.as_json()) == schema
        True
    """

    columns: tuple[Column, ...]

    @classmethod
    @removed_argument("drop_dependent", "dependent columns are left out")
    def infer(
        cls,
        table: pd.DataFrame,
        *,
        kinds: Mapping[str, str] | None = None,
        context: Collection[str] = (),
        ignore: Collection[str] = (),
        missing: Collection[str] | None = None,
        strict: bool = False,
    ) -> Schema:
        """The schema of a data frame; the rules are those of `cnf.tables.inference`.

        A column from which nothing can be learned is not modeled: a constant, a row counter, an
        identifier, free text, or an exact function of others. Its description gives the reason.

        Args:
            table: its rows.
            kinds: types of columns by name, which override the rules: "real", "positive",
                "bounded:0:1", "integer", "integer:0.5", "time", "angle:360", "categorical" or
                "ignored"; two columns, "lon,lat", may be a "sphere".
            context: columns that the density is conditioned on.
            ignore: columns that are left out.
            missing: words for missing cells; None recognizes them among numbers.
            strict: whether to raise an error for a column that would not be modeled, and for angles
                outside one turn.

        Raises:
            TableError: for a column that does not match its declared type, for unknown or repeated
                names, if no column is left to model, or if `strict` rejects a column.
        """
        table, context, ignore = rows_of(table, "table"), names_of(context), names_of(ignore)
        kinds = {**with_pairs(kinds or {}), **dict.fromkeys(ignore, "ignored")}
        _check_names(table, [*kinds, *context])
        columns = []
        for name in table.columns:
            require_workable(table[name])
            role: Role = "context" if name in context else "modeled"
            aside = None if name in kinds else set_aside(table[name], role)
            columns.append(aside or infer(table[name], kinds.get(name), role, missing))
        schema = cls(same_grids(tuple(columns), table, kinds))
        while found := dependent_columns(schema.columns, table):
            schema = schema._without(*found)
        refused = [c for c in schema.columns if not c.type.modeled and c.name not in kinds]
        if strict and refused:
            refuse_set_aside(refused[0])
        if not schema.modeled:
            why = "".join(f"; {c.name}: {c.describe()}" for c in refused[:3])
            raise TableError(f"no columns are left to model{why}; choose at least one")
        if strict:
            refuse_wrapped(schema.columns)
        for part in (schema.modeled, schema.context):
            charts_of([column for column in part if column.numeric])
        return schema

    def _without(self, names: list[str], how: str) -> Schema:
        """The schema without the last of several dependent columns."""
        aside = {column.name: column for column in self.columns}[names[-1]]
        ignored = Column(aside.name, "ignored", dtype=aside.dtype, reason=how)
        return replace(self, columns=tuple(ignored if c is aside else c for c in self.columns))

    @property
    def modeled(self) -> tuple[Column, ...]:
        """The columns that are modeled."""
        return tuple(c for c in self.columns if c.type.modeled and c.role == "modeled")

    @property
    def context(self) -> tuple[Column, ...]:
        """The columns that the density is conditioned on."""
        return tuple(c for c in self.columns if c.type.modeled and c.role == "context")

    @property
    def set_aside(self) -> dict[str, Column]:
        """The columns that are neither modeled nor context, by name."""
        return {column.name: column for column in self.columns if not column.type.modeled}

    @property
    def plain(self) -> bool:
        """Whether every column is continuous, without atoms or missing cells, as a `CNF` alone requires; in
        the context, angles are excluded as well."""
        straight = charts_of([column for column in self.context if column.numeric]) is None
        return straight and all(column.plain for column in (*self.modeled, *self.context))

    @property
    def charts(self) -> Charts | None:
        """The transform of the modeled numbers if they include angles or spheres."""
        return charts_of([column for column in self.modeled if column.numeric])

    def with_real_context(self) -> Schema:
        """The schema with any number allowed in the context, as for a plain model."""
        return Schema(
            tuple(
                Column(column.name, "real", "context") if column in self.context else column
                for column in self.columns
            )
        )

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Indices among the modeled columns of each longitude and its latitude."""
        return pairs_of(self.modeled)

    @property
    def ranges(self) -> tuple[tuple[float | None, float | None], ...] | None:
        """The ends of every modeled column, with None for no end; None if no column has an end."""
        ends = tuple(column.support for column in self.modeled)
        return ends if any(end is not None for pair in ends for end in pair) else None

    def column(self, name: str) -> Column:
        """The column of this name."""
        return {column.name: column for column in self.columns}[name]

    def spelling(self, name: str) -> Callable[[float], str]:
        """The text of the cells of a column, from their numbers.

        Raises:
            KeyError: for an unknown column.
        """
        column = self.column(name)
        return partial(column.type.show, column=column)

    def encode(
        self, table: pd.DataFrame, columns: tuple[Column, ...], *, strict: bool = True
    ) -> Cells:
        """Some columns of a data frame, found by name, as numbers and discrete states.

        Args:
            table: rows with these columns.
            columns: columns of the schema.
            strict: whether to raise an error for invalid cells; otherwise they have states of their own,
                see `Column.encode`.

        Raises:
            TableError: for an unknown column, or an invalid cell: an unseen category, an infinity, or a
                number outside the support.
        """
        table = rows_of(table, "table")
        if columns:
            names = [column.name for column in columns]
            choose_columns(
                list(table.columns), path="table", columns=names, ignore=(), needed=True
            )
        parts = [column.encode(table[column.name]) for column in columns]
        if strict:
            for column, (_, found) in zip(columns, parts):
                _require_held(table[column.name], found, column)
        for pair in pairs_of(columns):
            _mark_halves(*(parts[place][1] for place in pair))
        values = [torch.tensor(value) for value, _ in parts if value is not None]
        states = [torch.tensor(state) for _, state in parts]
        rows = len(table)
        return Cells(
            torch.stack(values, 1) if values else torch.zeros(rows, 0, dtype=torch.float64),
            torch.stack(states, 1) if states else torch.zeros(rows, 0, dtype=torch.long),
        )

    def decode(self, cells: Cells, columns: tuple[Column, ...]) -> pd.DataFrame:
        """The data frame that `encode` maps to these cells; −1 means missing."""
        numbers = iter(cells.values.cpu().numpy().T)
        frame = {
            column.name: column.decode(next(numbers) if column.numeric else None, states)
            for column, states in zip(columns, cells.states.cpu().numpy().T)
        }
        return pd.DataFrame(frame)

    def rows(self, cells: Cells) -> pd.DataFrame:
        """The data frame of modeled cells, with the constants of the table."""
        drawn = self.decode(cells, self.modeled)
        repeated = {
            column.name: column.type.repeated(column, len(drawn))
            for column in self.columns
            if column.role == "modeled" and not column.type.modeled
        }
        held = {name: cells for name, cells in repeated.items() if cells is not None}
        names = [column.name for column in self.columns if column.name in {*drawn, *held}]
        return drawn.assign(**held)[names]

    def lines(self) -> list[str]:
        """One line of text per column."""
        width = max(len(column.name) for column in self.columns)
        return [f"{column.name:<{width}}  {column.describe()}" for column in self.columns]

    def as_json(self) -> list[dict[str, Any]]:
        """The schema as data for JSON."""
        return [column_as_json(column) for column in self.columns]

    @classmethod
    def from_json(cls, data: list[dict[str, Any]]) -> Schema:
        """The schema from a result of `as_json`.

        Raises:
            ValueError: for any other data.
        """
        if not isinstance(data, list) or not data:
            raise ValueError("a schema is a list of columns")
        schema = cls(tuple(column_from_json(column) for column in data))
        names = [column.name for column in schema.columns]
        if len(set(names)) < len(names) or not schema.modeled:
            raise ValueError(
                "a schema has columns of different names, at least one of them modeled"
            )
        return schema


def _require_held(series: pd.Series, states: np.ndarray, column: Column) -> None:
    bad = ((states == OUTSIDE) | (states == UNSEEN)).nonzero()[0]
    if len(bad):
        why = unheld(series.iloc[bad[0]], int(states[bad[0]]), column)
        raise TableError(f"{place(series, bad[0])}: {why}; correct the cell")


def _mark_halves(longitudes: np.ndarray, latitudes: np.ndarray) -> None:
    """Mark a longitude without a latitude, or the reverse, as invalid (`NO_STATE`): a row must have both or
    neither."""
    here, there = ((states == 0) | (states == OUTSIDE) for states in (longitudes, latitudes))
    longitudes[there & ~here] = NO_STATE
    latitudes[here & ~there] = NO_STATE


def unheld(cell: Any, state: int, column: Column) -> str:
    """The reason why a column has no state for a cell.

    >>> unheld(17, OUTSIDE, Column("age", "integer", lower=17.5, step=1.0))
    '17 is outside the range of the column (integer, from 18)'
    """
    if state == NO_STATE:
        return "missing, in a column that had no missing cells in training"
    if state == UNSEEN:
        expected = listed([str(level) for level in column.levels])
        return f"unseen category {shown(str(cell))}; expected one of {expected}"
    number = column.numbers(pd.Series([cell], name=column.name))[0]
    if np.isinf(number) and not isinstance(cell, Real):
        wanted = "a number"
        if column.type.reads_cells(column):
            wanted = f"a cell like those of the column ({column.describe()})"
        return f"expected {wanted}, found {shown(str(cell))}"
    if np.isinf(number):
        return "expected a finite number, found an infinity"
    return f"{column.type.show(number, column)} is outside the range of the column ({column.describe()})"


def _check_names(table: pd.DataFrame, named: list[str]) -> None:
    """Raise an error if the table cannot be modeled, or if a column named by the user does not exist."""
    names = list(table.columns)
    if odd := [name for name in names if not isinstance(name, str)]:
        raise TableError(
            f"expected text as names of columns, found {odd[0]!r}; rename them, as by"
            " table.rename(columns=str)"
        )
    choose_columns(names, path="table", columns=None, ignore=())
    for name in named:
        choose_columns(names, path="table", columns=[name], ignore=())
    if len(names) > MOST_COLUMNS:
        raise TableError(
            f"the table has {len(names):,} columns, at most {MOST_COLUMNS} can be modeled together; "
            "choose columns"
        )
    if not len(table):
        raise TableError("the table has no rows below its header; add rows")
