"""`cnf score --columns`, `cnf sample --given` and `cnf impute`: any columns given any others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cnf.cli.data import assignments, listed, table_chunks
from cnf.cli.model import Model, checked_device, load_model
from cnf.cli.output import require_writable, say, say_json, writing
from cnf.rows import RunningMean
from cnf.tables import Column, Schema, table_writer
from cnf.tables.given import require_names
from cnf.tables.questions import TableDensity, table_density

# Each draw is chosen among several candidates.
ROWS_AT_ONCE = 4096
RANGE, OR = "..", "|"


def given_values(model: Model, texts: Sequence[str]) -> dict[str, Any]:
    """The conditions of `--given`: name=value, name=low..high with either end optional, name=a|b.

    Raises:
        ValueError: for a name that is no column, or a range that is none.
    """
    pairs = assignments(listed(texts))
    known = {
        c.name: c for c in (*model.table_flow.schema.modeled, *model.table_flow.schema.context)
    }
    require_names(model.table_flow.schema, pairs, list(known), "--given")
    return {name: _value(known[name], text) for name, text in pairs.items()}


def _value(column: Column, text: str) -> Any:
    if column.levels and text not in map(str, column.levels) and OR in text:
        return [part.strip() for part in text.split(OR)]
    if column.numeric and RANGE in text:
        if column.type.reads_cells(column):
            return tuple(end.strip() or None for end in text.split(RANGE, 1))
        try:
            low, high = (float(end) if end.strip() else None for end in text.split(RANGE))
        except ValueError:
            raise ValueError(
                f"--given {column.name}={text}: expected low..high, two numbers"
            ) from None
        return (low, high)
    return text


def drawn_given(
    model: Model, given: Sequence[str], generator: torch.Generator
) -> Callable[[int], pd.DataFrame]:
    """The function that draws whole rows under the conditions.

    Raises:
        ValueError: for a model or a value that cannot be used.
    """
    values = given_values(model, given)  # a name that is wrong is told first
    density = _density(model).conditional(values)
    return partial(density.draw, generator=generator)


@torch.no_grad()
def score_columns(
    path: Path,
    data: str,
    output: Path,
    *,
    columns: Sequence[str],
    given: Sequence[str],
    exact: bool,
    device: str,
    as_json: bool,
) -> None:
    """Write log p(columns | given) of every row of DATA with its error bound, in order, and for
    exact answers the effective sample size.

    Raises:
        ValueError: for a model, column, table, device or output that cannot be used.
    """
    model = load_model(path, device)
    require_writable(output, path, data)
    schema = model.table_flow.schema
    asked = list(columns) or [name for name in model.columns if name not in given]
    for option, names in (("--columns", asked), ("--given", given)):
        require_names(schema, names, model.columns, option)
    whole, wanted = _density(model), _schema_of(schema, [*asked, *given])
    running, rows, doubtful = RunningMean(), 0, 0
    with writing(output), table_writer(output) as writer:
        for chunk in table_chunks(data, wanted, judged=True):
            density = whole.conditional(chunk[list(given)]) if given else whole
            density = density.marginal(asked)
            found = (density.exact() if exact else density).evaluate(chunk)
            scores = {"log_prob": found.log_prob, "error": found.error}
            if density.method == "exact" or exact:
                scores["ess"] = found.ess
            writer.write(pd.DataFrame({name: part.cpu().numpy() for name, part in scores.items()}))
            running.add(found.log_prob[found.log_prob.isfinite()])
            rows, doubtful = rows + len(chunk), doubtful + int((~found.ok).sum())
        if rows == 0:
            raise ValueError(f"{data}: expected at least one row below the header; found none")
    report = {
        "output": str(output),
        "rows": rows,
        "mean_log_prob": running.mean,
        "standard_error": running.standard_error,
        "not_ok": doubtful,
        "method": "exact" if exact else whole.method,
    }
    say_json(report) if as_json else say(_sentence(report))


@torch.no_grad()
def impute_table(
    path: Path, data: str, output: Path, *, draws: int, seed: int, device: str
) -> None:
    """Write DATA with its missing cells drawn given the others of their row, `draws` times one
    after the other; a column `draw` says which.

    Raises:
        ValueError: for a model without what imputes, or a table, device or output that cannot be
            used.
    """
    model = load_model(path, device)
    require_writable(output, path, data)
    generator = torch.Generator(checked_device(device)).manual_seed(seed)
    table = model.table(data)
    filled = model.table_flow.impute(table, draws, generator=generator)
    with writing(output), table_writer(output) as writer:
        for draw, part in enumerate(filled, 1):
            part.insert(0, "draw", draw)
            writer.write(part)
    say(f"{output}: {draws * len(table):,} rows")


def _density(model: Model) -> TableDensity:
    """The density of all columns; an error names the model."""
    try:
        return table_density(model.table_flow)
    except ValueError as error:
        raise ValueError(f"{model.path}: {error}") from error


def _schema_of(schema: Schema, names: Sequence[str]) -> Schema:
    """The schema of some modeled columns and the context, which DATA has to hold."""
    kept = (c for c in schema.columns if c.name in names or c in schema.context)
    return Schema(tuple(kept))


def _sentence(report: dict[str, Any]) -> str:
    parts = [
        f"{report['output']}: {report['rows']:,} rows, {report['method']};"
        f" mean log-density {report['mean_log_prob']:.4f} ± {report['standard_error']:.4f} nats"
    ]
    if report["not_ok"]:
        parts.append(f"{report['not_ok']:,} rows are unreliable")
    return "; ".join(parts)
