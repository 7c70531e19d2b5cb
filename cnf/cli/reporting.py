"""`cnf report`: a page about a model and how well it fits a table."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import compress
from pathlib import Path

import pandas as pd
from rich.console import Console
from torch import Tensor

from cnf.cli.data import TOY, toy_table
from cnf.cli.model import Model, load_model
from cnf.cli.output import require_writable, say, writing
from cnf.diagnostics import check_table
from cnf.diagnostics.checking import FEWEST_ROWS
from cnf.flows.present_columns import flow_of_present
from cnf.pictures.tables import beside_samples
from cnf.report import write_report
from cnf.report.calculator import calculator
from cnf.report.data import OddRow
from cnf.report.page import Callback
from cnf.tables import Column, TableFlow
from cnf.tables.digest import judges_of
from cnf.tables.explaining import Reference
from cnf.tables.formats import listed
from cnf.tables.held_out import held_out_rows

ODD = 10  # rows that the page lists
# Rows with integer cells that are scored to find these: several wide cells may take 20 ms a row.
MOST_INTEGRATED = 2_000


def report_model(path: Path, data: str, output: Path, *, with_calculator: bool) -> None:
    """Write the page, with a form that scores a row if asked to.

    Raises:
        ValueError: for a model, table or output that cannot be used, and for a model without
            numeric columns.
    """
    model = load_model(path)
    require_writable(output, path, data)
    table_flow = model.table_flow.double().eval()  # columns far from zero keep their digits
    if table_flow.flow is None:
        raise ValueError(f"{path}: a report needs numeric columns; the model has only categories")
    table = judging_table(model, data)
    judges, time = judges_of(table_flow, table), table_flow.time
    present = table_flow.most_numbers(table.iloc[judges.places])
    rows, train = held_out_rows(table_flow, table, present)
    if len(rows) < FEWEST_ROWS:
        raise ValueError(
            f"{data}: a report needs held-out rows with numbers in the same columns; expected at least"
            f" {FEWEST_ROWS}, got {len(rows)}: give a table with more rows"
        )
    source, whole = Path(data).name, None
    if not table_flow.plain:
        source = f"{source} {_held(table_flow, present, len(rows) / len(judges.places))}"
        whole = beside_samples(table_flow, table)
    if judges.apart:
        source = f"{source} ({judges.words})"
    with writing(output), telling() as callback:
        odd: list[OddRow] = []
        if table_flow.amortized:
            among = table.iloc[_scored(table_flow, len(table))]
            callback(f"Likelihood of {len(among):,} rows")
            odd = odd_rows(table_flow, among)
        callback("Checks of the table")
        claims = check_table(table_flow, table.iloc[judges.places])
        form = ""
        if with_calculator:
            callback("The form that scores a row")
            form = calculator(load_model(path).table_flow, table)  # in its own precision
        write_report(
            flow_of_present(table_flow.flow, rows.context),
            rows,
            output,
            train=train,
            names=[named(column) for column in compress(table_flow.numeric_columns, present)],
            title=path.stem,
            source=source,
            whole=whole,
            odd=odd,
            show_time=None if time is None else table_flow.schema.spelling(time),
            calculator=form,
            claims=claims,
            learned="" if judges.apart else judges.words.capitalize(),
            callback=callback,
        )
    say(
        f"{output}: {len(rows):,} rows, {output.stat().st_size / 1e6:.1f} MB; open it in a browser"
    )


def _held(model: TableFlow, present: Tensor, share: float) -> str:
    """The rows of the report, and what is judged of them, in words."""
    names = [column.name for column in model.numeric_columns]
    there, absent = (listed([*compress(names, mask)]) for mask in (present, ~present))
    if not absent:
        return f"that hold every number ({share:.0%} of the rows): numbers given the other cells"
    return (
        f"with a number in {there} and none in {absent}, which are missing or at a repeated value"
        f" ({share:.0%} of the rows): {there} given the other cells"
    )


def _scored(model: TableFlow, rows: int) -> slice:
    """The rows that are scored to find the odd ones: every row, or evenly spaced ones if their cells
    are integrals."""
    integrated = any(column.step for column in model.numeric_columns)
    return slice(None, None, math.ceil(rows / MOST_INTEGRATED) if integrated else 1)


def odd_rows(model: TableFlow, table: pd.DataFrame) -> list[OddRow]:
    """The most unusual rows of a table, with their labels and cells as text."""
    reference = Reference.of(model, table)
    lowest = table.iloc[reference.order[:ODD]]
    found = reference.explain(model, lowest).odd(ODD)
    return [
        OddRow(
            str(label), row.column, str(lowest.loc[label, row.column]), row.surprise, row.p_value
        )
        for label, row in zip(found.index, found.itertuples())
    ]


def named(column: Column) -> str:
    """A column by its name, with the unit of its numbers where its cells are times."""
    if not column.type.ticks_as_cells:
        return column.name
    zero, one = (column.type.show(value, column) for value in (0.0, 1.0))
    return f"{column.name} (0 is {zero}, 1 is {one})"


def judging_table(model: Model, data: str) -> pd.DataFrame:
    """The rows of DATA; those of a toy are the rows of the fit."""
    if not data.startswith(TOY):
        return model.table(data)
    columns = [*model.columns, *model.context]
    return toy_table(data, columns=columns, seed=model.table_flow.metadata.seed or 0)


@contextmanager
def telling() -> Iterator[Callback]:
    """The title of the section that is made: a line that changes on a terminal, elsewhere one each."""
    if not sys.stderr.isatty():
        yield lambda title: print(f"cnf: {title}", file=sys.stderr, flush=True)
        return
    with Console(stderr=True).status("reading") as status:
        yield status.update
