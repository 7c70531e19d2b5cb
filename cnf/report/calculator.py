"""The form of the page that scores a typed-in row, by the program that `cnf export` writes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from markupsafe import Markup

from cnf.export import ExportError, ScoreProgram, write_program
from cnf.export.graph import Graph, graph_of, operators
from cnf.report.data import with_units
from cnf.report.templates import asset, filled
from cnf.tables import Column, TableFlow

# Rows of the table among which the first row of the form is chosen.
CANDIDATES = 200


def calculator(model: TableFlow, table: pd.DataFrame) -> Markup:
    """The form, as a section of the page; or why a model has none, in one line.

    It begins with the row whose log p is the median of those of some rows.

    Args:
        model: in the precision in which `cnf score` takes it.
        table: rows with the columns of the model.
    """
    try:
        program = ScoreProgram(model)
        graph = page_graph(program)
    except ExportError as error:
        return filled("calculator.html", refusal=str(error))
    columns = [*model.schema.modeled, *model.schema.context]
    row = typical_row(program, columns, table)
    return filled(
        "calculator.html",
        refusal="",
        names=with_units([column.name for column in columns], program.flow),
        cells=list(zip(columns, (_spelled(cell, column) for cell, column in zip(row, columns)))),
        page={
            "graph": graph,
            "widths": list(program.inputs.values()),
            "tolerance": program.flow.error_model.tolerance,
            "columns": [_told(column) for column in columns],
        },
        scripts=[Markup(asset("onnx.js")), Markup(asset("calculator.js"))],
    )


def page_graph(program: ScoreProgram) -> Graph:
    """A program as the data that onnx.js runs, after the checks of a file.

    Raises:
        ExportError: as `write_program`, and for an operator that onnx.js does not have.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        write_program(program, path)
        graph = graph_of(path)
    _, table = asset("onnx.js").split("const OPERATORS = {")
    if lacking := sorted(set(operators(graph)) - set(re.findall(r"^    (\w+): ", table, re.M))):
        raise ExportError(f"the page cannot compute {', '.join(lacking)}; score with cnf.Scorer")
    return graph


@torch.no_grad()
def typical_row(
    program: ScoreProgram, columns: Sequence[Column], table: pd.DataFrame
) -> list[float]:
    """The row of a table of the median log p among some that the program can score."""
    some = table.iloc[:: max(1, len(table) // CANDIDATES)]
    cells = np.column_stack([column.numbers(some[column.name]) for column in columns])
    log_prob, _, ok = program(*torch.tensor(cells).split([*program.inputs.values()], 1))
    known = (ok & log_prob.isfinite()).nonzero().squeeze(1)
    if not len(known):
        return cells[0].tolist()
    return cells[known[log_prob[known].argsort()[len(known) // 2]]].tolist()


def _spelled(cell: float, column: Column) -> str:
    return column.type.show(cell, column) if np.isfinite(cell) else ""


def _told(column: Column) -> dict[str, object]:
    """What the page has to know of a column to say why a row has no density or no score."""
    ends = (None, None) if column.role == "context" else (column.lower, column.upper)
    return {"name": column.name, "lower": ends[0], "upper": ends[1], "atoms": column.atoms}
