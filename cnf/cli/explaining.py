"""`cnf score --explain`: which column makes each row odd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cnf.cli.bar import bar
from cnf.cli.model import Model, load_model
from cnf.cli.output import require_writable, say, say_json, writing
from cnf.tables import table_writer
from cnf.tables.explaining import Reference

# The summary counts the rows whose p-value is at most this.
LEVEL = 0.01


@torch.no_grad()
def explain_table(
    path: Path, data: str, output: Path, *, reference: str | None, device: str, as_json: bool
) -> None:
    """Write how unusual every row of DATA is compared with `reference` (default: DATA itself): its
    conformal p-value, and the column that makes it unusual, with the surprise and the rank of that
    cell.

    Raises:
        ValueError: for a model without a conditional network, or a table, device or output that
            cannot be used.
    """
    model = load_model(path, device)
    require_writable(output, path, data)
    known = _reference(model, data if reference is None else reference)
    rows, odd = 0, 0
    with writing(output), table_writer(output) as writer, bar("explaining rows") as callback:
        for chunk in model.chunks(data, judged=True):
            found = known.explain(model.table_flow, chunk, callback=callback).rows
            writer.write(found.reset_index(drop=True))
            rows, odd = rows + len(chunk), odd + int((found["p_value"] <= LEVEL).sum())
    report: dict[str, Any] = {
        "output": str(output),
        "rows": rows,
        "reference_rows": len(known.log_prob),
        "odd_rows": odd,
        "level": LEVEL,
    }
    say_json(report) if as_json else say(_sentence(report))


def _reference(model: Model, data: str) -> Reference:
    """The rows of a table that others are compared with; an error names the file or the model."""
    try:
        with bar("reading reference rows") as callback:
            return Reference.of(model.table_flow, model.table(data), callback=callback)
    except ValueError as error:
        raise ValueError(f"{model.path}: {error}") from error


def _sentence(report: dict[str, Any]) -> str:
    return (
        f"{report['output']}: {report['rows']:,} rows compared with {report['reference_rows']:,};"
        f" {report['odd_rows']:,} are odd, with a p-value of at most {report['level']:g}"
    )
