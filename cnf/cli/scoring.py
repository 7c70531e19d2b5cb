"""`cnf score`: the log-density of every row of a table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from cnf.cli.model import Model, load_model
from cnf.cli.output import require_writable, say, say_json, writing
from cnf.flows import Evaluation
from cnf.rows import RunningMean
from cnf.tables import TableError, table_writer
from cnf.tables.columns import UNSEEN
from cnf.tables.scoring import Unseen, reasons


@dataclass(frozen=True)
class ScoreOptions:
    """What was typed after `cnf score`.

    Attributes:
        unseen: what a category is that the fit never saw, "other" or "impossible".
        reason: whether a third column says why a row has no ordinary score.
    """

    unseen: Unseen = "other"
    reason: bool = False


@torch.no_grad()
def score_table(
    path: Path, data: str, output: Path, options: ScoreOptions, *, device: str, as_json: bool
) -> None:
    """Write log_prob and error of every row of DATA, in order; a row that has no answer keeps its
    place.

    Raises:
        ValueError: for a model, table, device or output that cannot be used.
    """
    model = load_model(path, device)
    require_writable(output, path, data)
    running, rows, outside, unseen = RunningMean(), 0, 0, 0
    with writing(output), table_writer(output) as writer:
        for chunk in model.chunks(data):
            found, new = _evaluate(model, chunk, data, options.unseen)
            writer.write(_table(model, chunk, found, options))
            answers = found.log_prob[found.ok]
            running.add(answers[answers.isfinite()])
            outside += int(answers.isinf().sum())
            unseen += int((new & found.ok & found.log_prob.isfinite()).sum())
            rows += len(chunk)
        if rows == 0:
            raise ValueError(f"{data}: expected at least one row below the header; found none")
    report = {
        "output": str(output),
        "rows": rows,
        "mean_log_prob": running.mean if running.count else math.nan,
        "standard_error": running.standard_error,
        "outside": outside,
        "unseen": unseen,
        "not_ok": rows - outside - running.count,
    }
    say_json(report) if as_json else say(sentence(report))


def _evaluate(
    model: Model, chunk: pd.DataFrame, data: str, unseen: Unseen
) -> tuple[Evaluation, Tensor]:
    """Scores of a chunk, and which of its rows have a category that the fit never saw (rows,); an
    error about a cell names the file."""
    try:
        cells, context = model.table_flow.encode(chunk)
    except TableError as error:
        raise TableError(f"{data}: {error}") from error
    found = model.table_flow.evaluate_cells(cells, context, unseen=unseen)
    return found, (cells.states == UNSEEN).any(1)


def _table(
    model: Model, chunk: pd.DataFrame, found: Evaluation, options: ScoreOptions
) -> pd.DataFrame:
    """What is written of a chunk."""
    log_prob = found.log_prob.masked_fill(~found.ok, torch.nan)
    table = pd.DataFrame({"log_prob": log_prob.cpu().numpy(), "error": found.error.cpu().numpy()})
    if not options.reason:
        return table
    return table.assign(reason=reasons(model.table_flow.schema, chunk, found))


def sentence(report: dict[str, Any]) -> str:
    """The report for people."""
    parts, left_out = (
        [f"{report['output']}: {report['rows']:,} rows"],
        report["outside"] + report["not_ok"],
    )
    if report["outside"]:
        parts.append(
            f"{report['outside']:,} outside the ranges of their columns, where the density is zero"
        )
    if report["unseen"]:
        parts.append(f"{report['unseen']:,} have a category that the fit never saw, taken as rare")
    if report["not_ok"]:
        why = "cells are missing, or no solve reached the tolerance"
        parts.append(f"{report['not_ok']:,} have no log-density: {why}")
    if report["rows"] > left_out:
        of = "mean log-density of the others" if left_out else "mean log-density"
        parts.append(f"{of} {report['mean_log_prob']:.4f} ± {report['standard_error']:.4f} nats")
    return "; ".join(parts)
