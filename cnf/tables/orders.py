"""Orders a ≤ b between columns that hold in every row."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cnf.tables.formats import TableError, listed

if TYPE_CHECKING:
    from cnf.tables.schema import Schema

# Smallest fraction of rows that violate an order once columns are shuffled; below it, it is trivial.
BROKEN_BY_CHANCE = 0.01
SOME_ROWS = 1_000  # rows of a first test, which excludes most pairs
TOLD = 6  # number of orders that a line names


def broken(a: np.ndarray, b: np.ndarray) -> float:
    """The fraction of rows with a > b among rows with both; NaN if there are none.

    >>> broken(np.array([1.0, 3.0, np.nan]), np.array([2.0, 2.0, 0.0]))
    0.5
    """
    known = ~(np.isnan(a) | np.isnan(b))
    return float((a > b)[known].mean()) if known.any() else np.nan


def orders_of(schema: Schema, table: pd.DataFrame, seed: int = 0) -> list[list[str]]:
    """The pairs [a, b] of modeled columns with a ≤ b in every row that has both, unless
    independently shuffled columns would also satisfy the order.

    Numbers compare with numbers, and times with times of the same resolution.

    Example:
        >>> from cnf.tables.schema import Schema
        >>> born = np.arange(1900.5, 1960.5)
        >>> table = pd.DataFrame({"born": born, "died": born + 30 + born % 7})
        >>> orders_of(Schema.infer(table), table)
        [['born', 'died']]
    """
    found, numbers = [], _comparable(schema, table, [column.name for column in schema.modeled])
    some = np.random.default_rng(seed).permutation(len(table))[:SOME_ROWS]
    for a, b in permutations(numbers, 2):
        (line, low), (other, high) = numbers[a], numbers[b]
        if line != other or (low[some] > high[some]).any():
            continue
        by_chance = broken(low[some], high[np.roll(some, 1)])
        if by_chance >= BROKEN_BY_CHANCE and broken(low, high) == 0:
            found.append([a, b])
    return found


def broken_orders(
    schema: Schema, orders: Sequence[Sequence[str]], table: pd.DataFrame
) -> np.ndarray:
    """Which orders each row of a frame violates (orders, rows), as booleans; a missing cell
    violates none.

    Raises:
        TableError: for a frame that lacks a column.
    """
    names = {name for order in orders for name in order}
    if lost := names - {*table}:
        raise TableError(
            f"orders: expected the columns {listed(sorted(names))}; found no {min(lost)!r}"
        )
    numbers = _comparable(schema, table, names)
    found = [numbers[a][1] > numbers[b][1] for a, b in orders]
    return np.array(found, bool).reshape(len(orders), len(table))


def in_words(orders: Sequence[Sequence[str]]) -> str:
    """A text with the first few orders.

    >>> in_words([["a", "b"]] * 8)
    'a ≤ b; a ≤ b; a ≤ b; a ≤ b; a ≤ b; a ≤ b; 2 more'
    """
    more = len(orders) - TOLD
    told = [f"{a} ≤ {b}" for a, b in orders[:TOLD]]
    return "; ".join([*told, f"{more} more"] if more > 0 else told)


def _comparable(
    schema: Schema, table: pd.DataFrame, names: Collection[str]
) -> dict[str, tuple[str, np.ndarray]]:
    """The numbers of modeled columns that lie on a line, and the line."""
    found = {}
    for column in schema.modeled:
        if column.name in names and (line := column.type.line(column)) is not None:
            name, zero = line
            found[column.name] = name, column.numbers(table[column.name]) + zero
    return found
