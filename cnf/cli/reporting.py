"""`cnf report`: a page about a model and how well it fits a table."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from rich.console import Console

from cnf.cli.data import TOY, toy_table
from cnf.cli.model import Model, load_model
from cnf.cli.output import require_writable, say, writing
from cnf.pictures.tables import beside_samples
from cnf.report import write_report
from cnf.report.data import OddRow
from cnf.report.page import Callback
from cnf.tables import TableFlow
from cnf.tables.digest import judges_of
from cnf.tables.held_out import held_out_rows

# Rows that are explained, and the oddest of them that the page lists.
EXPLAINED, ODD = 2_000, 10


def report_model(path: Path, data: str, output: Path) -> None:
    """Write the page.

    Raises:
        ValueError: for a model, table or output that cannot be used, and for a model without
            numeric columns.
    """
    model = load_model(path)
    require_writable(output, path, data)
    table_flow = model.table_flow.double().eval()  # columns far from zero keep their digits
    if table_flow.flow is None:
        raise ValueError(f"{path}: a report is about numbers; the model has categories alone")
    table = judging_table(model, data)
    rows, train = held_out_rows(table_flow, table)
    source, whole = Path(data).name, None
    if not table_flow.plain:
        source = f"{source} that hold every number, given the other cells"
        whole = beside_samples(table_flow, table)
    if words := judges_of(table_flow, table).words:
        source = f"{source} ({words})"
    odd = odd_rows(table_flow, table) if table_flow.amortized else []
    names, time = [column.name for column in table_flow.numeric_columns], table_flow.time
    with writing(output), telling() as callback:
        write_report(
            table_flow.flow,
            rows,
            output,
            train=train,
            names=names,
            title=path.stem,
            source=source,
            whole=whole,
            odd=odd,
            show_time=None if time is None else table_flow.schema.spelling(time),
            callback=callback,
        )
    say(
        f"{output}: {len(rows):,} rows, {output.stat().st_size / 1e6:.1f} MB; open it in a browser"
    )


def odd_rows(model: TableFlow, table: pd.DataFrame) -> list[OddRow]:
    """The oddest rows of a table beside the others, with their labels and cells as text."""
    some = table.iloc[:: math.ceil(len(table) / EXPLAINED)]
    found = model.explain(some, some).odd(ODD)
    return [
        OddRow(str(label), row.column, str(some.loc[label, row.column]), row.surprise, row.p_value)
        for label, row in zip(found.index, found.itertuples())
    ]


def judging_table(model: Model, data: str) -> pd.DataFrame:
    """The rows of DATA; those of a toy are the rows that the fit had."""
    if not data.startswith(TOY):
        return model.table(data)
    columns = [*model.columns, *model.context]
    return toy_table(data, columns=columns, seed=model.table_flow.metadata.seed or 0)


@contextmanager
def telling() -> Iterator[Callback]:
    """A line with the title of the section, on a terminal."""
    if not sys.stderr.isatty():
        yield lambda title: None
        return
    with Console(stderr=True).status("reading") as status:
        yield status.update
