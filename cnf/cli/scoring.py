"""`cnf score`: the log-density of every row of a table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from cnf.cli.model import Model, load_any
from cnf.cli.output import require_writable, say, say_json, writing
from cnf.cli.typed import TypedModel
from cnf.flows import Evaluation
from cnf.tables import TableError, table_writer


@dataclass
class Tally:
    """Count, mean and sum of squared deviations of numbers that come in parts.

    >>> tally = Tally()
    >>> tally.add(torch.tensor([1.0, 2.0])), tally.add(torch.tensor([6.0]))
    (None, None)
    >>> tally.mean, tally.deviations
    (3.0, 14.0)
    """

    count: int = 0
    mean: float = 0.0
    deviations: float = 0.0

    def add(self, values: Tensor) -> None:
        """Take numbers (n,) in (Chan, Golub & LeVeque 1979)."""
        if not len(values):
            return
        old, new = self.count, len(values)
        step = values.mean().item() - self.mean
        self.count = old + new
        self.mean += step * new / self.count
        self.deviations += (
            values - values.mean()
        ).square().sum().item() + step**2 * old * new / self.count

    @property
    def standard_error(self) -> float:
        """Of the mean."""
        return math.sqrt(self.deviations) / self.count if self.count else math.nan


@torch.no_grad()
def score_table(path: Path, data: str, output: Path, *, device: str, as_json: bool) -> None:
    """Write log_prob and error of every row of DATA, in order; a row that has no answer keeps its
    place.

    Raises:
        ValueError: for a model, table, device or output that cannot be used.
    """
    model = load_any(path, device)
    require_writable(output, path, data)
    tally, rows, outside = Tally(), 0, 0
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
            tally.add(answers[answers.isfinite()])
            outside += int(answers.isinf().sum())
            rows += len(chunk)
        if rows == 0:
            raise ValueError(f"{data}: expected at least one row below the header; found none")
    report = {
        "output": str(output),
        "rows": rows,
        "mean_log_prob": tally.mean if tally.count else math.nan,
        "standard_error": tally.standard_error,
        "outside": outside,
        "not_ok": rows - outside - tally.count,
    }
    say_json(report) if as_json else say(sentence(report))


def _evaluate(model: Model | TypedModel, chunk: pd.DataFrame, data: str) -> Evaluation:
    """SolveResult of a chunk; a cell that its column cannot hold is told with the name of the
    file."""
    try:
        return model.evaluate(chunk)
    except TableError as error:
        raise TableError(f"{data}: {error}") from error


def sentence(report: dict[str, object]) -> str:
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
