"""Tables larger than memory: choices are made on a sample, and training rows are streamed."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import cnf.recipe.defaults as defaults
from cnf.recipe.tables.reading import text_columns, told_of, wanted_columns
from cnf.rows import HELD_OUT
from cnf.tables.dataframes import as_pandas
from cnf.tables.model import TableFlow
from cnf.tables.row_groups import RowGroups
from cnf.tables.schema import Schema
from cnf.training.streams import RowStream

UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
SIZE = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]?)(i?)B?\s*", re.IGNORECASE)


def bytes_of(memory: str | int) -> int:
    """Convert a number of bytes, or text such as "1GB", "500 MB" or "2GiB", to bytes.

    Raises:
        ValueError: for anything else.

    >>> bytes_of("1.5GB"), bytes_of("1KiB"), bytes_of(10)
    (1500000000, 1024, 10)
    """
    found = SIZE.fullmatch(str(memory))
    if found is None:
        raise ValueError(f"memory: expected a size such as 1GB or 500MB; got {memory!r}")
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** UNITS[unit.upper()])


def in_words(size: float) -> str:
    """Format a number of bytes, rounded up.

    >>> in_words(1_230_000_000), in_words(1e5)
    ('1.3GB', '1MB')
    """
    if size < 1e9:
        return f"{int(np.ceil(size / 1e6))}MB"
    return f"{np.ceil(size / 1e8) / 10:g}GB"


@dataclass(frozen=True)
class StreamedTable:
    """A table of which only some rows are in memory at a time.

    Attributes:
        name: name of the table, for messages.
        groups: row groups of the table.
        memory: bytes that rows may take; a quarter each for the sample, for the pool, and for rows on
            their way into the pool.
        split: function that selects the held-out rows of a row group, the same ones at each call.
        schema: schema of the sample.
        train: training rows of the sample.
        valid: held-out rows of the sample.
        weights: None.
    """

    name: str
    groups: RowGroups
    memory: int
    split: Split
    schema: Schema
    train: pd.DataFrame
    valid: pd.DataFrame
    weights: None = None

    @property
    def rows(self) -> int:
        """Expected number of training rows; an exact count would need to read the whole table."""
        return self.groups.rows - round(self.split.share * self.groups.rows)

    def describe(self) -> list[str]:
        """Description of the table and of its sample."""
        return [
            f"{self.name}: {self.groups.rows:,} rows in {len(self.groups.groups):,} row groups;"
            f" {len(self.train) + len(self.valid):,} of them, drawn from"
            f" {min(defaults.STREAM_SAMPLE_GROUPS, len(self.groups.groups))} row groups, settle types and"
            " choices"
        ]

    def stream(self, model: TableFlow) -> RowStream:
        """Data frames of the training rows.

        Raises:
            ValueError: if the memory has no room for the pool beside one row group.
        """
        columns = [column.name for column in (*self.schema.modeled, *self.schema.context)]
        pooled = _pooled_bytes(model)
        most = self.memory / 4 / pooled
        large = max(self.groups.groups, key=lambda group: group.rows)
        if 2 * large.rows > most:
            raise ValueError(
                f"memory: expected at least {in_words(8 * large.rows * pooled)} for the"
                f" {large.rows:,} rows of a row group of {large.path}; got {in_words(self.memory)}:"
                " give more, or write smaller row groups"
            )
        parts = self._parts(most / defaults.STREAM_POOL_PARTS)
        largest = max(sum(self.groups.groups[k].rows for k in part) for part in parts)
        chunk_rows = _chunk_rows(self.memory, _row_bytes(self.schema))

        def load(part: int) -> Iterator[pd.DataFrame]:
            for k in parts[part]:
                group, apart = self.groups.groups[k], self.split(k)
                for frame in group.frames(columns, chunk_rows):
                    yield frame[~apart[frame.index.to_numpy() - group.start]]

        return RowStream(load, len(parts), self.rows, min(int(most / largest), len(parts)))

    def _parts(self, rows: float) -> list[list[int]]:
        """The row groups in random order, divided into parts of a given number of rows."""
        parts: list[list[int]] = [[]]
        together = 0
        order = np.random.default_rng(self.split.seed).permutation(len(self.groups.groups))
        for k in order.tolist():
            size = self.groups.groups[k].rows
            if parts[-1] and together + size > rows:
                parts.append([])
                together = 0
            parts[-1].append(k)
            together += size
        return parts


@dataclass(frozen=True)
class Split:
    """A random fraction of the rows of each row group, determined by the seed."""

    groups: RowGroups
    seed: int
    share: float

    def __call__(self, k: int) -> NDArray[np.bool_]:
        """Mask (rows,) of the rows of row group k that are selected."""
        return (
            np.random.default_rng((self.seed, k)).random(self.groups.groups[k].rows) < self.share
        )


def streamed_table(
    data: Any,
    memory: str | int,
    columns: Collection[str],
    context: Collection[str],
    infer: Callable[[pd.DataFrame], Schema],
    *,
    seed: int,
    holds_out: bool,
    ignore: Collection[str],
    kinds: Mapping[str, str],
    **options: Any,
) -> StreamedTable | None:
    """A table that is larger than the memory; None for one that fits.

    Args:
        data: path of a file or a folder, or a pattern.
        memory: see `bytes_of`.
        columns: names of the columns to model; empty for all.
        context: names of columns that the density is conditioned on.
        infer: function from a data frame to its schema.
        seed: random seed.
        holds_out: whether a tenth of the rows is held out.
        ignore: columns that are left out.
        kinds: types of columns by name.
        **options: missing and array, as in `read_typed_table`.

    Raises:
        ValueError: if the memory holds too few rows.
        TableError: for a table that cannot be modeled, or files whose columns differ.
    """
    size = bytes_of(memory)
    if as_pandas(data) is not None:
        raise ValueError("memory: expected a file, a folder or a pattern; got a data frame")
    groups = RowGroups(data, wanted_columns(columns, context), ignore, **options)
    split = Split(groups, seed, HELD_OUT if holds_out else 0.0)
    frame, apart = _sample(groups, size, split)
    frame = groups.typed(frame, text_columns(kinds))
    with told_of(data):
        schema = infer(frame)
    if groups.rows * _row_bytes(schema) <= size:
        return None
    return StreamedTable(str(data), groups, size, split, schema, frame[~apart], frame[apart])


def _sample(
    groups: RowGroups, memory: int, split: Split
) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """Rows of randomly drawn row groups, with a mask of the held-out ones."""
    row_bytes = float(defaults.TYPED_CELL_BYTES * len(groups.columns))
    most = min(int(memory / 4 / row_bytes), defaults.STREAM_SAMPLE_ROWS)
    if most < (fewest := min(defaults.STREAM_FEWEST_ROWS, groups.rows)):
        raise ValueError(
            f"memory: expected at least {in_words(4 * fewest * row_bytes)} for"
            f" {len(groups.columns)} columns; got {in_words(memory)}"
        )
    order = np.random.default_rng(split.seed).permutation(len(groups.groups))
    chosen = sorted(order[: defaults.STREAM_SAMPLE_GROUPS].tolist())
    share = most / sum(groups.groups[k].rows for k in chosen)
    frames, apart = [], []
    for k in chosen:
        group, held = groups.groups[k], split(k)
        drawn = np.random.default_rng((split.seed, k, 1)).random(group.rows) < share
        for frame in group.frames(groups.columns, _chunk_rows(memory, row_bytes)):
            places = frame.index.to_numpy() - group.start
            places = places[drawn[places]]
            frames.append(frame.loc[places + group.start])
            apart.append(held[places])
    return pd.concat(frames), np.concatenate(apart)


def _chunk_rows(memory: int, row_bytes: float) -> int:
    return max(1, min(int(memory / 4 / row_bytes), defaults.STREAM_CHUNK_ROWS))


def _row_bytes(schema: Schema) -> float:
    """Largest number of bytes of a row during a fit."""
    cell = defaults.PLAIN_CELL_BYTES if schema.plain else defaults.TYPED_CELL_BYTES
    return float(cell * len(schema.columns))


def _pooled_bytes(model: TableFlow) -> float:
    """Bytes of a row in the pool: its numbers and their context, or its states, and its index."""
    flow, states = model.flow, len(model.schema.modeled)
    numbers = 0 if flow is None else flow.base.dim + flow.context_dim
    return float(defaults.POOLED_NUMBER_BYTES * (numbers + 2 * states))
