"""`cnf score`: the log-density of every row of a table."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cnf.cli.model import Model, load_model
from cnf.cli.output import require_writable, say, say_json, writing
from cnf.flows import Evaluation
from cnf.rows import RunningMean
from cnf.tables import TableError, table_writer


@torch.no_grad()
def score_table(path: Path, data: str, output: Path, *, device: str, as_json: bool) -> None:
    """Write log_prob and error of every row of DATA, in order; a row that has no answer keeps its
    place.

    Raises:
        ValueError: for a model, table, device or output that cannot be used.
    """
    model = load_model(path, device)
    require_writable(output, path, data)
    running, rows, outside = RunningMean(), 0, 0
    with writing(output), table_writer(output) as writer:
        for chunk in model.chunks(data):
            found = _evaluate(model, chunk, data)
            log_prob = found.log_prob.masked_fill(~found.ok, torch.nan)
            writer.write(
                pd.DataFrame(
                    {"log_prob": log_prob.cpu().numpy(), "error": found.error.cpu().numpy()}
                )
            )
            answers = found.log_prob[found.ok]
            running.add(answers[answers.isfinite()])
            outside += int(answers.isinf().sum())
            rows += len(chunk)
        if rows == 0:
            raise ValueError(f"{data}: expected at least one row below the header; found none")
    report = {
        "output": str(output),
        "rows": rows,
        "mean_log_prob": running.mean if running.count else math.nan,
        "standard_error": running.standard_error,
        "outside": outside,
        "not_ok": rows - outside - running.count,
    }
    say_json(report) if as_json else say(sentence(report))


def _evaluate(model: Model, chunk: pd.DataFrame, data: str) -> Evaluation:
    """Scores of a chunk; an error about a cell names the file."""
    try:
        return model.evaluate(chunk)
    except TableError as error:
        raise TableError(f"{data}: {error}") from error


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
    if report["not_ok"]:
        why = "cells are missing, or no solve reached the tolerance"
        parts.append(f"{report['not_ok']:,} have no log-density: {why}")
    if report["rows"] > left_out:
        of = "mean log-density of the others" if left_out else "mean log-density"
        parts.append(f"{of} {report['mean_log_prob']:.4f} ± {report['standard_error']:.4f} nats")
    return "; ".join(parts)
