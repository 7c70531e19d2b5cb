"""Models of the right size for a table, before training."""

from __future__ import annotations

import torch

from cnf.fields import GatedField
from cnf.flows import CNF
from cnf.tables.model import TableFlow
from cnf.tables.schema import Schema

# Rows that bear a wider field in two columns.
MANY_ROWS = 50_000
# Of typed tables: what is wider gains less than the updates that it costs.
WIDEST = 128


def default_flow(
    rows: int, dim: int, *, context_dim: int = 0, hidden: tuple[int, int] | None = None, seed: int
) -> CNF:
    """A flow for a table of so many rows and columns; torch's own generator is left as it was.

    More data bear a wider field and higher frequencies to start with; on a small table both
    overfit.

    Args:
        rows: number of rows to learn from.
        dim: number of columns.
        context_dim: number of columns of the context.
        hidden: widths of the hidden layers, in place of the choice made here.
        seed: of the weights.

    Example:
        >>> default_flow(100, 3, seed=0).field.hidden
        (64, 64)
    """
    hidden, frequency = hidden or default_hidden(rows, dim), default_frequency(rows, dim)
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        field = GatedField(dim, hidden, context_dim=context_dim, frequency=frequency)
        return CNF(dim, context_dim=context_dim, field=field)


def default_hidden(rows: int, columns: int) -> tuple[int, int]:
    """Widths of the two hidden layers for a table of so many rows and columns."""
    if rows < 2_000 or columns <= 2:
        # What is fine in a plane takes many waves in the first layer; the second is what an update
        # costs.
        return (96, 64) if rows > MANY_ROWS else (64, 64)
    return (192, 192) if rows > 20_000 and columns > 6 else (128, 128)


def default_frequency(rows: int, columns: int) -> float:
    """Scale of the frequencies that the first layer starts with."""
    if columns <= 2:
        return 3.0 if rows < 2_000 else 5.0
    return 1.0 if rows < 5_000 else 3.0


def default_table_flow(
    schema: Schema,
    rows: int,
    *,
    hidden: tuple[int, int] | None = None,
    imputer: bool = False,
    seed: int,
) -> TableFlow:
    """A model of the right size for a table of so many rows; torch's own generator is left as it
    was.

    A table of continuous columns has the flow of `default_flow`, with the numbers of its context,
    unless it is to impute.

    Args:
        schema: the columns.
        rows: number of rows to learn from.
        hidden: widths of the hidden layers, in place of the choice made here.
        imputer: whether the model is to have an imputer.
        seed: of the weights.
    """
    if schema.plain and not imputer:
        flow = default_flow(
            rows, len(schema.modeled), context_dim=len(schema.context), hidden=hidden, seed=seed
        )
        with torch.random.fork_rng(devices=()):
            return TableFlow(schema.with_real_context(), flow)
    dim = max(1, sum(column.numeric for column in schema.modeled))
    # A narrower second layer was measured where nothing but numbers passes it.
    width = min(max(default_hidden(rows, dim)), WIDEST)
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        return TableFlow(
            schema,
            hidden=hidden or (width, width),
            frequency=min(default_frequency(rows, dim), 3.0),
        )
