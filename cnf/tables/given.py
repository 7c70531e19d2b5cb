"""Conditions on columns: values, levels, ranges, or a frame row by row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from cnf.flows.questions.constraints import UNKNOWN, Constraints
from cnf.tables.columns import NO_STATE, OUTSIDE, UNSEEN, Column
from cnf.tables.formats import TableError, alternatives, shown
from cnf.tables.schema import Schema


def no_constraints(schema: Schema, rows: int, device: torch.device) -> Constraints:
    """Empty conditions for a number of rows."""
    numbers = torch.zeros(
        rows, sum(c.numeric for c in schema.modeled), dtype=torch.float64, device=device
    )
    states = torch.full((rows, len(schema.modeled)), UNKNOWN, device=device)
    return Constraints(states, numbers, numbers)


class FrameRows(NamedTuple):
    """The information of a frame about the modeled columns, for each of its rows.

    Attributes:
        constraints: known cells; an invalid cell counts as unknown.
        outside: mask of the rows with a cell outside the support of its column (rows,).
        unseen: mask of the cells with an unseen category (rows, modeled columns).
    """

    constraints: Constraints
    outside: Tensor
    unseen: Tensor


def of_frame(
    schema: Schema, table: pd.DataFrame, device: torch.device, *, missing: bool
) -> FrameRows:
    """The conditions from the modeled columns of a frame, for each of its rows.

    Args:
        schema: schema of the model.
        table: rows with some of its columns.
        device: device of the model.
        missing: whether a missing cell is a state of its own; otherwise it is unknown.
    """
    chosen = [i for i, c in enumerate(schema.modeled) if c.name in table.columns]
    columns = tuple(schema.modeled[i] for i in chosen)
    cells = schema.encode(table, columns, strict=False).to(device)
    found = no_constraints(schema, len(table), device)
    states, lower, upper = found.states.clone(), found.lower.clone(), found.upper.clone()
    unseen = torch.zeros_like(states, dtype=torch.bool)
    unseen[:, chosen] = cells.states == UNSEEN
    numeric = [i for i, c in enumerate(schema.modeled) if c.numeric]
    values = iter(cells.values.T)
    for column, place, found_states in zip(columns, chosen, cells.states.T):
        lost = (found_states == NO_STATE) | (found_states == OUTSIDE) | (found_states == UNSEEN)
        if not missing:
            lost = lost | (found_states == column.missing_state)
        states[:, place] = found_states.masked_fill(lost, UNKNOWN)
        if column.numeric:
            value, half = next(values), (column.step or 0.0) / 2
            lower[:, numeric.index(place)] = value - half
            upper[:, numeric.index(place)] = value + half
    return FrameRows(Constraints(states, lower, upper), (cells.states == OUTSIDE).any(1), unseen)


def require_names(
    schema: Schema, given: Iterable[str], known: Sequence[str], where: str = "given"
) -> None:
    """Raise an error for an unknown name; `where` says which argument contains it.

    Raises:
        TableError: with the name, and with the reason if it is not modeled.
    """
    for name in given:
        require_not_set_aside(schema, name)
        if name not in known:
            raise TableError(f"{where}: no column {shown(name)}; {alternatives(name, known)}")


def require_not_set_aside(schema: Schema, name: str) -> None:
    """Raise an error for the name of a column that was set aside.

    Raises:
        TableError: with the reason.
    """
    if column := schema.set_aside.get(name):
        raise TableError(
            f"given: {shown(name)} is not modeled ({column.describe()}); leave it out"
        )


def require_on_grid(columns: Iterable[Column], given: Mapping[str, Any]) -> None:
    """Raise an error for a value between two grid points of a column, such as 3.5 for integers. Rows of a
    table are rounded to the nearest value, but given values must be exact.

    Raises:
        TableError: naming the column.
    """
    for column in columns:
        if column.type.between(pd.Series([given[column.name]]), column).any():
            raise _unheld(column, given[column.name])


def of_mapping(schema: Schema, given: Mapping[str, Any], device: torch.device) -> Constraints:
    """The conditions from a mapping: name -> a value, a list of levels, or a range (low, high) with None
    for no end.

    Raises:
        TableError: for a value that is invalid for its column, or a range of a column without numbers.
    """
    sets = {name: part for name, part in given.items() if isinstance(part, list | tuple | set)}
    points = {name: [part] for name, part in given.items() if name not in sets}
    if points:
        found = of_frame(schema, pd.DataFrame(points), device, missing=False).constraints
        for column, state in zip(schema.modeled, found.states[0]):
            if column.name in points and state == UNKNOWN:
                raise _unheld(column, given[column.name])
        require_on_grid([schema.column(name) for name in points], given)
    else:
        found = no_constraints(schema, 1, device)
    lower, upper, choices = found.lower.clone(), found.upper.clone(), {}
    states = found.states.clone()
    names = [column.name for column in schema.modeled]
    numeric = [column.name for column in schema.modeled if column.numeric]
    for name, part in sets.items():
        column, place = schema.column(name), names.index(name)
        if isinstance(part, tuple) and len(part) == 2 and column.numeric:
            ends, allowed = _range(column, *part)
            lower[:, numeric.index(name)], upper[:, numeric.index(name)] = ends
        else:
            allowed = _levels(column, list(part))
        if len(allowed) == 1:
            states[:, place] = allowed[0]
        else:
            choices[place] = torch.tensor(allowed, device=device)
    return Constraints(states, lower, upper, choices)


def _range(column: Column, low: Any, high: Any) -> tuple[tuple[float, float], list[int]]:
    """The ends of the numbers in a range, and the possible states of a cell in it."""
    low = -math.inf if low is None else _number(column, low)
    high = math.inf if high is None else _number(column, high)
    if not low < high:
        raise TableError(
            f"given: expected {shown(column.name)} from low to high, low < high;"
            f" got {low:.12g} to {high:.12g}"
        )
    atoms = [1 + k for k, atom in enumerate(column.atoms) if low <= atom <= high]
    if column.step is not None:
        low, high = _cells(column, low, high)
    else:
        low = low if column.lower is None else max(low, column.lower)
        high = high if column.upper is None else min(high, column.upper)
    if not low < high and not atoms:
        raise TableError(
            f"given: no value of {shown(column.name)} ({column.describe()}) lies there"
        )
    return (low, high), [0, *atoms] if low < high else atoms


def _number(column: Column, end: Any) -> float:
    """The end of a range as a number; a time is converted as in a cell."""
    cell = column.type.reads_cells(column) and not isinstance(end, Real)
    try:
        number = float(column.numbers(pd.Series([end]))[0] if cell else end)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number) or (cell and math.isinf(number)):
        raise TableError(
            f"given: expected the ends of a range as {shown(column.name)} has them"
            f" ({column.describe()}); got {end!r}"
        )
    return number


def _cells(column: Column, low: float, high: float) -> tuple[float, float]:
    """The ends of the grid cells whose values lie in a range, on the compacted grid without heaped
    values."""
    step, heaped = column.step or 1.0, column.heaped_values
    lower, upper = column.support
    if math.isfinite(low):
        first = math.ceil(low / step - 1e-9) * step
        low = first - step * sum(value < first for value in heaped) - step / 2
    if math.isfinite(high):
        last = math.floor(high / step + 1e-9) * step
        high = last - step * sum(value <= last for value in heaped) + step / 2
    return (
        low if lower is None else max(low, lower),
        high if upper is None else min(high, upper),
    )


def _levels(column: Column, values: Sequence[Any]) -> list[int]:
    """The states of some levels of a column."""
    if column.numeric:
        raise TableError(
            f"given: expected a value or a range (low, high) of {shown(column.name)}; got {list(values)}"
        )
    texts = [str(level) for level in column.levels]
    unknown = [value for value in values if str(value) not in texts]
    if unknown or not values:
        raise TableError(
            f"given: expected levels of {shown(column.name)} among {', '.join(texts[:8])}; "
            f"got {unknown or 'none'}"
        )
    return sorted({texts.index(str(value)) for value in values})


def _unheld(column: Column, value: Any) -> TableError:
    return TableError(
        f"given: expected a value that {shown(column.name)} holds ({column.describe()}); got {value!r}"
    )
