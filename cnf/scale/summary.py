"""Scores of a table, written in chunks, and a summary of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cnf.rows import RunningMean
from cnf.scale.scorer import ScoreOptions, score_rows
from cnf.tables import TableError, TableFlow, table_writer


@dataclass
class ScoreSummary:
    """Counts and mean of scores that come in parts.

    Attributes:
        rows: how many.
        outside: how many of them lie outside the ranges of their columns, with density zero.
        unseen: number of rows with a score and a category that was not in training; known only for
            newly scored rows.
        left_out: why the first row without an answer has none; known only for newly scored rows.
        answers: the mean of the other log-densities, but for rows without an answer.
    """

    rows: int = 0
    outside: int = 0
    unseen: int = 0
    left_out: str = ""
    answers: RunningMean = field(default_factory=RunningMean)

    def add(self, log_prob: pd.Series, unseen: int = 0, left_out: str = "") -> None:
        """Take scores in: −∞ for a row outside, NaN for one without an answer."""
        values = torch.tensor(log_prob.to_numpy(dtype="float64"))
        self.rows += len(values)
        self.outside += int(values.isneginf().sum())
        self.unseen += unseen
        self.left_out = self.left_out or left_out
        self.answers.add(values[values.isfinite()])

    def merge(self, other: ScoreSummary) -> None:
        """Add the scores of another summary."""
        self.rows += other.rows
        self.outside += other.outside
        self.unseen += other.unseen
        self.left_out = self.left_out or other.left_out
        self.answers.merge(other.answers)

    def as_json(self) -> dict[str, Any]:
        """The summary as data for JSON."""
        return {
            "rows": self.rows,
            "mean_log_prob": self.answers.mean if self.answers.count else math.nan,
            "standard_error": self.answers.standard_error,
            "outside": self.outside,
            "unseen": self.unseen,
            "left_out": self.left_out,
            "not_ok": self.rows - self.outside - self.answers.count,
        }


def write_scores(
    model: TableFlow,
    chunks: Iterable[pd.DataFrame],
    output: Path,
    source: str,
    options: ScoreOptions,
    *,
    rows_needed: int = 0,
) -> ScoreSummary:
    """Write log_prob and error of every row, in order; a row without an answer keeps its place.

    Args:
        model: what scores them.
        chunks: the rows.
        output: the file to write, atomically.
        source: where the rows come from, for messages.
        options: how rows are scored.
        rows_needed: how many rows there are at least.

    Raises:
        TableError: for rows that cannot be scored, or too few of them, or an output that cannot be
            written.
    """
    summary = ScoreSummary()
    with table_writer(output) as writer:
        for chunk in chunks:
            try:
                found = score_rows(model, chunk, options)
            except TableError as error:
                raise TableError(f"{source}: {error}") from error
            writer.write(found.table)
            summary.add(found.table["log_prob"], *found[1:])
        if summary.rows < rows_needed:
            raise TableError(
                f"{source}: expected at least one row below the header; found none; add rows"
            )
    return summary
