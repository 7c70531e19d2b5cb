"""Model files as the commands use them: a flow and the names of its columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from cnf.cli.data import data_chunks, names_in
from cnf.cli.metadata import require_known
from cnf.cli.typed import TypedModel
from cnf.flows import CNF, Evaluation, ModelFileError
from cnf.tables import TableFlow, load


@dataclass(frozen=True)
class Model:
    """A flow with the names of its columns and context columns."""

    path: Path
    flow: CNF
    columns: list[str]
    context: list[str]

    def chunks(self, data: str) -> Iterator[pd.DataFrame]:
        """The rows of a file or a toy in chunks of bounded memory."""
        return data_chunks(data, [*self.columns, *self.context])

    def evaluate(self, table: pd.DataFrame) -> Evaluation:
        """Log-density and error of every row of a chunk."""
        return self.flow.evaluate(*self.split(table))

    def sample(self, rows: int, given: Tensor | None, generator: torch.Generator) -> pd.DataFrame:
        """Rows drawn for one context, as a table."""
        x = self.flow.sample((rows,), given, generator=generator)
        return pd.DataFrame(x.cpu().numpy(), columns=self.columns)

    def split(self, table: pd.DataFrame) -> tuple[Tensor, Tensor | None]:
        """Rows x (rows, dim) and context (rows, context_dim) of a table, found by name."""
        x = as_tensor(table, self.columns, self.flow.device)
        return x, as_tensor(table, self.context, self.flow.device) if self.context else None

    def given(self, text: str | None) -> Tensor | None:
        """The context (context_dim,) that --given spells.

        Raises:
            ValueError: if it is missing, not wanted, or does not give one number to every context
                column.
        """
        values = dict(_assignment(part) for part in names_in(text))
        if values.keys() != set(self.context):
            example = ",".join(f"{name}=0" for name in self.context)
            wanted = (
                f'--given "{example}"' if self.context else "no --given: the model has no context"
            )
            raise ValueError(f"{self.path}: expected {wanted}; got {text!r}")
        context = torch.tensor([values[name] for name in self.context], dtype=torch.float64)
        return context.to(self.flow.device) if self.context else None


def load_any(path: Path, device: str = "cpu") -> Model | TypedModel:
    """The model in a file, of plain real columns or of a typed table.

    Raises:
        ModelFileError: if the file is missing, damaged, or names another number of columns than it
            has.
        ValueError: for a device that is not there.
    """
    found = load(path, device=checked_device(device))
    require_known(path, found.metadata)
    return TypedModel(path, found) if isinstance(found, TableFlow) else _named(path, found)


def _named(path: Path, flow: CNF) -> Model:
    """A flow with its names; one saved without has columns x0, x1, ... and context c0, c1, ..."""
    columns = _names(flow, "columns", "x", flow.dim, path)
    return Model(path, flow, columns, _names(flow, "context", "c", flow.context_dim, path))


def use_threads(count: int) -> None:
    """Let torch compute with so many threads; several on a busy machine are far slower than
    one."""
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


def as_tensor(table: pd.DataFrame, columns: Sequence[str], device: torch.device) -> Tensor:
    """The columns of a table as (rows, columns) in float64."""
    return torch.tensor(table[list(columns)].to_numpy(), dtype=torch.float64, device=device)


def _names(flow: CNF, key: str, letter: str, count: int, path: Path) -> list[str]:
    names = flow.metadata.get(key, [f"{letter}{i}" for i in range(count)])
    if len(names) != count:
        raise ModelFileError(
            f"{path}: expected {count} names in its {key}, found {len(names)}; fit it anew"
        )
    return names


def _assignment(part: str) -> tuple[str, float]:
    name, sign, value = part.rpartition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not sign or not math.isfinite(number):
        raise ValueError(f"--given: expected name=number, got {part!r}")
    return name.strip(), number
