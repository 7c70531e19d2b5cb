"""Model files as the commands use them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import pandas as pd
import torch

from cnf.cli.data import assignments, table_chunks
from cnf.flows import ModelFileError
from cnf.tables import Column, TableFlow, load_table_flow
from cnf.tables.columns import NO_STATE
from cnf.tables.given import require_names, require_on_grid
from cnf.tables.reading import READERS


@dataclass(frozen=True)
class Model:
    """The model of a table and the file that it comes from."""

    path: Path
    table_flow: TableFlow

    @property
    def columns(self) -> list[str]:
        """Names of the modeled columns."""
        return [column.name for column in self.table_flow.schema.modeled]

    @property
    def numeric_columns(self) -> list[str]:
        """Names of the numeric columns among them."""
        return [column.name for column in self.table_flow.numeric_columns]

    @property
    def context(self) -> list[str]:
        """Names of the columns that the density is conditioned on."""
        return [column.name for column in self.table_flow.schema.context]

    @property
    def time(self) -> str:
        """Name of the column that says when a row was seen.

        Raises:
            ValueError: for a model that is no flow through time.
        """
        if self.table_flow.time is None:
            raise ValueError(f"{self.path}: has no time; fit it with cnf fit --time COLUMN")
        return self.table_flow.time

    def chunks(self, data: str, *, judged: bool = False) -> Iterator[pd.DataFrame]:
        """The rows of a file or a toy in chunks of bounded memory; see `read_typed_chunks`."""
        array = (self.table_flow.metadata.choices or {}).get("array")
        return table_chunks(data, self.table_flow.schema, array=array, judged=judged)

    def table(self, data: str) -> pd.DataFrame:
        """All rows of a file or a toy, labeled by their lines or rows."""
        return pd.concat(self.chunks(data))

    def given(self, text: str | None) -> pd.DataFrame | None:
        """The context from --given, one row; None for a model without context.

        Raises:
            ValueError: if it is missing, not wanted, or does not fit the columns.
        """
        values = assignments(text)
        columns = self.table_flow.schema.context
        require_names(self.table_flow.schema, values, [*self.columns, *self.context], "--given")
        if values.keys() != {column.name for column in columns}:
            example = ",".join(f"{column.name}={_example(column)}" for column in columns)
            wanted = f'--given "{example}"' if columns else "no --given: the model has no context"
            got = "none" if text is None else repr(text)
            raise ValueError(f"{self.path}: expected {wanted}; got {got}")
        return self._context(values, f"--given {text!r}") if values else None

    def at(self, text: str) -> pd.DataFrame:
        """The time from --at, one row.

        Raises:
            ValueError: if it is no time of the model, or the model has none.
        """
        return self._context({self.time: text}, f"--at {text!r}")

    def _context(self, values: dict[str, str], spelled: str) -> pd.DataFrame:
        """Values of all context columns as a row; `spelled` says how the user gave them."""
        columns = self.table_flow.schema.context
        given = pd.DataFrame({name: [value] for name, value in values.items()})
        try:
            states = self.table_flow.schema.encode(given, columns).states[0]
            require_on_grid(columns, values)
        except ValueError as error:
            raise ValueError(f"{spelled}: {error}") from error
        for column in compress(columns, states == NO_STATE):
            raise ValueError(
                f"{spelled}: expected {column.name} in the format of the table, such as"
                f" {_example(column)}; got {values[column.name]!r}"
            )
        return given


def load_model(path: Path, device: str = "cpu") -> Model:
    """The model in a file.

    Raises:
        ModelFileError: if the file is missing or damaged, or what it says of its fit does not fit
            together.
        ValueError: for a device that is not there.
    """
    where = checked_device(device)
    try:
        found = load_table_flow(path, device=where)
    except ModelFileError as error:
        if not (path.exists() and path.name.lower().endswith(tuple(READERS))):
            raise
        raise ModelFileError(
            f"{path}: expected a model, found a table: MODEL comes before DATA, and cnf fit writes one"
        ) from error
    try:
        found.metadata.require_complete()
    except ValueError as error:
        raise ModelFileError(f"{path}: {error}") from error
    return Model(path, found)


def use_threads(count: int) -> None:
    """Set the number of torch threads; on a busy machine, several are far slower than one."""
    torch.set_num_threads(count)


def checked_device(name: str) -> torch.device:
    """The device called `name`, once it has proved to be there."""
    try:
        probe = torch.zeros(1, device=name)
        probe.tolist()  # "meta" holds shapes and no numbers
        return probe.device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {name}: cannot be used ({reason}); try cpu") from error


def _example(column: Column) -> str:
    if column.levels:
        return str(column.levels[0])
    half = (column.step or 0.0) / 2  # the end of an integer column is the end of a cell
    return "0" if column.lower is None else column.type.show(column.lower + half, column)
