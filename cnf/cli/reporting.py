"""`cnf report`: a page about a model and how well it fits a table."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console

from cnf.cli.data import read_data
from cnf.cli.fitting import quantiles, split
from cnf.cli.model import Model, as_tensor, load_any
from cnf.cli.output import plain, require_writable, say, writing
from cnf.cli.typed import TypedModel
from cnf.flows import CNF
from cnf.report import write_report
from cnf.report.page import Callback
from cnf.rows import Rows


def report_model(path: Path, data: str, output: Path) -> None:
    """Write the page.

    Raises:
        ValueError: for a model, table or output that cannot be used.
    """
    model = load_any(path)
    require_writable(output, path, data)
    source = Path(data).name
    if isinstance(model, TypedModel):
        flow, rows, names = numbers_of(model, data)
        train = None
        source = (
            f"{source} that hold every number, in the scale of the flow, given the other cells"
        )
    else:
        flow, names = model.flow, model.columns
        rows, train = rows_to_judge_by(model, data)
    with writing(output), telling() as callback:
        write_report(
            flow,
            rows,
            output,
            train=train,
            names=names,
            title=path.stem,
            source=source,
            callback=callback,
        )
    say(
        f"{output}: {len(rows):,} rows, {output.stat().st_size / 1e6:.1f} MB; open it in a browser"
    )


def numbers_of(model: TypedModel, data: str) -> tuple[CNF, Rows, list[str]]:
    """The flow over the numbers of a typed table, rows in its coordinates, and the names of their
    columns.

    Raises:
        ValueError: for a table without a column of numbers, or without a row that holds all of
            them.
    """
    table = model.model
    if table.flow is None:
        raise ValueError(
            f"{model.path}: a report is about numbers; the model has categories alone"
        )
    cells, context = table.encode(pd.concat(model.chunks(data), ignore_index=True))
    whole = table.present(cells.symbols).all(1).nonzero().squeeze(1)
    found = table.coordinates(cells.take(whole), context[whole])
    flow = copy.copy(table.flow)
    flow.metadata = table.metadata
    columns = [table.schema.modeled[i].name for i in table.numeric]
    return flow, Rows(found.z, found.conditions), [f"{name} (scaled)" for name in columns]


def rows_to_judge_by(model: Model, data: str) -> tuple[Rows, Rows | None]:
    """The rows that the fit set apart and those it learned from, if DATA is its table; else all
    rows."""
    known = model.flow.metadata
    table = read_data(data, columns=[*model.columns, *model.context], seed=known.get("seed", 0))
    device = torch.device("cpu")
    context = as_tensor(table, model.context, device) if model.context else None
    rows = Rows(as_tensor(table, model.columns, device), context)
    if len(rows) != known.get("rows", 0) + known.get("valid_rows", 0):
        return rows, None
    train, valid = split(rows, known["seed"])
    same = plain(quantiles(train, model.columns)) == known["quantiles"]
    return (valid, train) if same else (rows, None)


@contextmanager
def telling() -> Iterator[Callback]:
    """A line with the title of the section, on a terminal."""
    if not sys.stderr.isatty():
        yield lambda title: None
        return
    with Console(stderr=True).status("reading") as status:
        yield status.update
