"""The check of a model of a typed table: its flow like any other flow, and its rows as a table."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from cnf.deprecation import renamed_argument
from cnf.diagnostics.checking import CHECKS, check, run
from cnf.diagnostics.context import CheckContext
from cnf.diagnostics.cost import answered
from cnf.diagnostics.fitting import distance, memorized, ranks, sampling_margin
from cnf.diagnostics.orders import orders_kept
from cnf.diagnostics.result import CheckResult
from cnf.diagnostics.subsets import consistent
from cnf.diagnostics.two_sample import indistinguishable
from cnf.flows import Evaluation
from cnf.flows.present_columns import flow_of_present
from cnf.rows import FEWEST_ROWS, Cells, Rows
from cnf.tables import TableError, TableFlow
from cnf.tables.cells import place
from cnf.tables.columns import NO_STATE
from cnf.tables.numeric_view import most_numbers

# A row with integer cells costs a solve for each point of its cell.
MOST_ROWS = 600


@dataclass(frozen=True)
class TableCheckContext:
    """Held-out rows, one sample for the context of each, and the scores of both."""

    rows: Cells
    drawn: Cells
    context: Tensor
    scored: Evaluation
    of_drawn: Tensor


@renamed_argument("watch", "callback")
def check_table(
    model: TableFlow,
    table: pd.DataFrame,
    *,
    strict: bool = False,
    seed: int = 0,
    callback: Callable[[float], None] = lambda done: None,
) -> tuple[CheckResult, ...]:
    """Test every claim of a model of a typed table on rows that it was not fitted to; see `check`.

    The flow over the numbers is checked for correctness on rows that hold the same numbers, given the
    other cells; whole rows are checked for fit. A plain table is checked as `check` does.

    Args:
        model: the model; it is not changed.
        table: rows with the columns of its schema; up to 600 of them, chosen at random, are used.
        strict: hold it to narrower limits.
        seed: of the rows chosen and of everything random in a check.
        callback: is called with the finished share of the checks.

    Raises:
        ValueError: for fewer than 10 rows, or, as a `TableError`, cells that the schema does not
            allow.

    Example:
        >>> from cnf.tables import Schema
        >>> table = pd.DataFrame({"x": torch.randn(60).tolist(), "group": list("aab") * 20})
        >>> claims = check_table(TableFlow(Schema.infer(table), hidden=(4, 4)), table)
        >>> claims[0].name
        'round trip'
    """
    if len(table) < FEWEST_ROWS:
        raise ValueError(f"expected at least {FEWEST_ROWS} rows; got {len(table)}")
    if model.plain and model.flow is not None:
        rows = _all_rows(model, table)
        claims = check(
            model.flow, rows.x, context=rows.context, strict=strict, seed=seed,
            names=[column.name for column in model.schema.modeled], callback=callback,
        )  # fmt: skip
        return (
            *claims,
            *consistent(model, table, seed, strict=strict),
            *orders_kept(model, table, seed, strict=strict),
        )
    # An error names the first cell in the order of the table.
    model.schema.encode(table, (*model.schema.modeled, *model.schema.context))
    generator = torch.Generator(model.device).manual_seed(seed)
    order = torch.randperm(len(table), generator=generator, device=generator.device)[
        :MOST_ROWS
    ].tolist()
    model, table = (
        copy.deepcopy(model).eval().requires_grad_(requires_grad=False),
        table.iloc[order],
    )
    trial = _trial(model, table, generator)
    case = _case(model, trial, seed, strict=strict)
    found: list[CheckResult] = []
    if case is not None:
        found += run([check for check in CHECKS if check.tables], case, callback)
    found += _fit(model, trial, seed, strict=strict)
    found += consistent(model, table, seed, strict=strict)
    found += orders_kept(model, table, seed, strict=strict)
    return tuple(found)


def _all_rows(model: TableFlow, table: pd.DataFrame) -> Rows:
    """All rows of a plain table in its units.

    Raises:
        TableError: for a cell that is missing, naming it.
    """
    cells, context = model.encode(table)
    missing = (cells.states == NO_STATE).nonzero()
    if len(missing):
        row, column = missing[0].tolist()
        where = place(table[model.schema.modeled[column].name], row)
        raise TableError(f"{where}: the cell is missing; fill it, or leave the row out")
    return Rows(cells.values, model.conditions(cells.states, context))


def _trial(model: TableFlow, table: pd.DataFrame, generator: torch.Generator) -> TableCheckContext:
    rows, context = model.encode(table)
    given = (
        table[[column.name for column in model.schema.context]] if model.schema.context else None
    )
    drawn, _ = model.encode(
        pd.concat([model.sample(len(table), given, generator=generator), *_beside(given)], axis=1)
    )
    scored = model.evaluate_cells(rows, context)
    return TableCheckContext(
        rows, drawn, context, scored, model.evaluate_cells(drawn, context).log_prob
    )


def _beside(given: pd.DataFrame | None) -> list[pd.DataFrame]:
    return [] if given is None else [given.reset_index(drop=True)]


def _case(
    model: TableFlow, trial: TableCheckContext, seed: int, *, strict: bool
) -> CheckContext | None:
    """The flow over the numbers that many rows hold together, and these rows; None for too few of them."""
    if model.flow is None:
        return None
    known, present = (trial.rows.states >= 0).all(1), model.present(trial.rows.states)
    columns = most_numbers(present[known])
    whole = (known & (present == columns).all(1)).nonzero().squeeze(1)
    if len(whole) < FEWEST_ROWS:
        return None
    rows = trial.rows.take(whole)
    conditions = model.conditions(rows.states, trial.context[whole])
    flow = flow_of_present(model.flow, conditions)
    return CheckContext(flow, Rows(rows.values[:, columns], conditions), seed, strict)


def _fit(
    model: TableFlow, trial: TableCheckContext, seed: int, *, strict: bool
) -> Iterator[CheckResult]:
    count = len(trial.rows)
    margin_of_columns = sampling_margin(
        count, count, columns=len(model.sizes) + len(model.numeric_places)
    )
    worst, name = max(_distances(model, trial))
    yield CheckResult.at_most(
        "columns",
        "each column of held-out rows is distributed as that of samples",
        worst,
        (0.02 if strict else 0.05) + margin_of_columns,
        kind="fit",
        detail=f"worst is {name!r}; {count} rows",
    )
    u = ranks(trial.scored.log_prob.nan_to_num(nan=-torch.inf), trial.of_drawn[:, None])
    yield CheckResult.at_most(
        "regions",
        "regions of highest probability contain the right share of rows",
        distance(u[:, None]).item(),
        (0.02 if strict else 0.05) + sampling_margin(count, count),
        kind="fit",
        detail=f"largest difference of shares, {count} rows",
    )
    yield indistinguishable(_table(trial.rows), _table(trial.drawn), seed, strict=strict)
    yield from memorized(
        model.metadata.as_json(), trial.scored, len(model.numeric_places), strict=strict
    )
    yield from answered(trial.scored, strict=strict)


def _distances(model: TableFlow, trial: TableCheckContext) -> Iterator[tuple[float, str]]:
    """The largest difference of shares in each column, between its states and between its
    numbers."""
    names = [column.name for column in model.schema.modeled]
    for name, a, b in zip(names, trial.rows.states.T, trial.drawn.states.T):
        shares = [
            torch.bincount(part + 1, minlength=int(max(a.max(), b.max())) + 2) / len(part)
            for part in (a, b)
        ]
        yield (shares[0] - shares[1]).abs().max().item(), name
    present = [model.present(cells.states).T for cells in (trial.rows, trial.drawn)]
    for k, at in enumerate(model.numeric_places):
        a, b = trial.rows.values[present[0][k], k], trial.drawn.values[present[1][k], k]
        # Where there are few numbers, chance alone is large.
        weight = math.sqrt(min(len(a), len(b)) / len(trial.rows))
        yield weight * apart(a, b), names[at]


def apart(a: Tensor, b: Tensor) -> float:
    """The largest distance between the distribution functions of two samples (n,) and (m,), ties
    and all.

    >>> apart(torch.tensor([1.0, 1.0, 2.0, 2.0]), torch.tensor([1.0, 1.0, 1.0, 2.0]))
    0.25
    """
    if not len(a) or not len(b):
        return 0.0
    pooled = torch.cat([a, b])
    below = [
        torch.searchsorted(part.sort().values, pooled, right=True) / len(part) for part in (a, b)
    ]
    return (below[0] - below[1]).abs().max().item()


def _table(cells: Cells) -> Tensor:
    return torch.cat([cells.values, cells.states.double()], 1)
