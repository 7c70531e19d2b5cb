"""Reading of the rows for a fit, from a file or a data frame."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import Tensor

from cnf.rows import FEWEST_ROWS, held_out_rows
from cnf.tables.cells import numbers
from cnf.tables.dataframes import as_pandas
from cnf.tables.declarations import declared_type
from cnf.tables.formats import TableError, choose_columns
from cnf.tables.model import TableFlow
from cnf.tables.moments import with_moments
from cnf.tables.reading import file_lines, read_typed_chunks, read_typed_table
from cnf.tables.schema import Schema


@dataclass(frozen=True)
class WholeTable:
    """A table with all rows in memory; see `StreamedTable`.

    Attributes:
        schema: column types of the table.
        train: all rows of the table.
        weights: weights of the rows, or None.
        holds_out: whether the fit holds out some rows for validation.
        valid: None, since the fit draws the validation rows itself.
    """

    schema: Schema
    train: pd.DataFrame
    weights: Any
    holds_out: bool
    valid: None = None

    @property
    def rows(self) -> int:
        """Number of rows that determines the size of a flow."""
        # The flow of a table with states is sized by all of its rows.
        apart = self.holds_out and self.schema.plain
        return len(self.train) - (held_out_rows(len(self.train)) if apart else 0)

    def describe(self) -> list[str]:
        """Nothing to say."""
        return []

    def stream(self, model: TableFlow) -> None:
        """None, since all rows are in memory."""


def whole_table(
    source: Any,
    columns: Collection[str],
    context: Collection[str],
    infer: Callable[[pd.DataFrame], Schema],
    *,
    weights: Any,
    time: str | None,
    holds_out: bool,
    **options: Any,
) -> WholeTable:
    """The rows of a file or a data frame.

    Args:
        source: path of a file or a folder, a pattern, or a data frame.
        columns: names of the columns to model; empty for all.
        context: names of columns that the density is conditioned on.
        infer: function from a data frame to its schema.
        weights: weights of the rows, or the name of the column with them.
        time: name of the column with the observation time of a row, or None.
        holds_out: whether the fit holds out some rows for validation.
        **options: options of `table_frame`.

    Raises:
        TableError: for a table that cannot be modeled.
    """
    apart = [name for name in (weights, time) if isinstance(name, str)]
    frame = table_frame(source, columns, [*context, *apart], **options)
    if isinstance(weights, str):
        weights = numbers(frame[weights])
    with told_of(source):
        schema = infer(frame.drop(columns=apart))
        if time is not None:
            schema = with_moments(schema, frame[time], frame.columns.get_loc(time))
    return WholeTable(schema, frame, weights, holds_out)


def validation_table(source: Any, schema: Schema) -> pd.DataFrame:
    """The validation rows of a file or a data frame, after a check against the schema.

    Raises:
        TableError: for rows that do not match the schema, with the name of the file.
    """
    frame = as_pandas(source)
    frame = pd.concat(read_typed_chunks(source, schema)) if frame is None else frame
    with told_of(source):
        for columns in (schema.modeled, schema.context):
            schema.encode(frame, columns)
    return frame


def source_table(source: Any, schema: Schema) -> pd.DataFrame:
    """The source rows of a plain table, from a file or a data frame, after a check against the schema.

    Raises:
        TableError: for rows that do not match the schema, with the name of the file, and for a column
            that is not continuous.
    """
    for column in schema.columns:
        if column.role == "context" or not column.plain or column.type.circle(column):
            raise TableError(
                f"source: expected continuous columns; {column.name!r} is"
                f" {column.describe()}: leave it out, or declare it real"
            )
    return validation_table(source, schema)


def source_rows(model: TableFlow, source: pd.DataFrame | None) -> Tensor | None:
    """The numbers of the source rows of a model; None without a source."""
    return None if source is None else model.encode(source)[0].values


@contextmanager
def told_of(source: Any) -> Iterator[None]:
    """Add the name of the file to errors about a table; a data frame has no name."""
    try:
        yield
    except TableError as error:
        if as_pandas(source) is not None:
            raise
        raise TableError(f"{source}: {error}") from error


def table_frame(
    source: Any,
    columns: Collection[str],
    beside: Collection[str],
    *,
    ignore: Collection[str],
    kinds: Mapping[str, str],
    **options: Any,
) -> pd.DataFrame:
    """The selected columns of a file or a data frame, with the extra ones; raises an error if there are
    fewer rows than a fit needs."""
    wanted = wanted_columns(columns, beside)
    frame = as_pandas(source)
    if frame is None:
        texts = text_columns(kinds)
        frame = read_typed_table(
            source, columns=wanted, ignore=ignore, texts=texts, rows_needed=FEWEST_ROWS, **options
        )
        path = source
    else:
        path = "table"
        frame = frame[choose_columns(list(frame), path=path, columns=wanted, ignore=ignore)]
    choose_columns(list(frame), path=path, columns=None, ignore=beside)
    return frame


def wanted_columns(columns: Collection[str], beside: Collection[str]) -> list[str] | None:
    """Names of the columns to read; None for all."""
    return [*columns, *(name for name in beside if name not in columns)] if columns else None


def text_columns(kinds: Mapping[str, str]) -> list[str]:
    """Names of the columns whose declared type needs the original text."""
    return [name for name, kind in kinds.items() if declared_type(kind, name)[0].reads_text]


def unusual_lines(source: Any) -> list[str]:
    """Lines about unusual properties of a file's format."""
    return (
        []
        if as_pandas(source) is not None
        else [f"{source}: {line}" for line in file_lines(source)]
    )
