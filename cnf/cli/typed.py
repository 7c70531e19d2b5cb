"""Models of typed tables, as the commands use them: fitting, scoring and sampling by a schema."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cnf.cli.data import assignments
from cnf.cli.interrupt import orderly_interrupts
from cnf.cli.options import FitOptions
from cnf.cli.output import plain
from cnf.cli.progress import progress
from cnf.flows import Evaluation
from cnf.recipe import fit_table
from cnf.recipe.architecture import default_table_flow
from cnf.rows import FEWEST_ROWS, HELD_OUT
from cnf.tables import Schema, TableError, TableFlow, read_typed_chunks, read_typed_table
from cnf.tables.cells import numbers
from cnf.tables.columns import declared_type
from cnf.tables.formats import choose_columns
from cnf.training import History, Interrupted, TrainingError


@dataclass(frozen=True)
class TypedModel:
    """A model of a typed table, by the names of its columns."""

    path: Path
    model: TableFlow

    @property
    def columns(self) -> list[str]:
        """The columns that are modeled."""
        return [column.name for column in self.model.schema.modeled]

    @property
    def context(self) -> list[str]:
        """The columns that the density is conditioned on."""
        return [column.name for column in self.model.schema.context]

    def chunks(self, data: str) -> Iterator[pd.DataFrame]:
        """The rows of a file in chunks of bounded memory."""
        return read_typed_chunks(data, self.model.schema)

    def evaluate(self, table: pd.DataFrame) -> Evaluation:
        """Log-probability and error of every row of a chunk."""
        return self.model.evaluate(table)

    def given(self, text: str | None) -> pd.DataFrame | None:
        """The context, one row, that --given spells.

        Raises:
            ValueError: if it is missing, not wanted, or does not fit the columns.
        """
        values = assignments(text)
        if values.keys() != set(self.context):
            example = ",".join(
                f"{name}={_example(self.model.schema, name)}" for name in self.context
            )
            wanted = (
                f'--given "{example}"' if self.context else "no --given: the model has no context"
            )
            raise ValueError(f"{self.path}: expected {wanted}; got {text!r}")
        return pd.DataFrame({name: [value] for name, value in values.items()}) if values else None

    def sample(
        self, rows: int, given: pd.DataFrame | None, generator: torch.Generator
    ) -> pd.DataFrame:
        """Rows drawn for one context, typed and named as the table's."""
        return self.model.sample(rows, given, generator=generator)


def _example(schema: Schema, name: str) -> str:
    column = schema.column(name)
    return str(column.levels[0]) if column.levels else "0"


def read_for_fit(options: FitOptions) -> tuple[pd.DataFrame, Schema]:
    """The table to fit and its schema; the column of weights is read, but not part of the schema.

    Raises:
        ValueError: as a `TableError`, for a table that cannot be modeled.
    """
    kinds = assignments(options.kinds)
    table = read_typed_table(
        options.data,
        columns=options.wanted,
        ignore=options.ignore,
        texts=[name for name, kind in kinds.items() if declared_type(kind, name)[0].reads_text],
        rows_needed=FEWEST_ROWS,
    )
    choose_columns(list(table), path=options.data, columns=None, ignore=options.beside)
    beside = [] if options.weights is None else [options.weights]
    try:
        schema = Schema.infer(
            table.drop(columns=beside),
            kinds=kinds,
            context=options.context,
            drop_dependent=options.drop_dependent,
        )
    except TableError as error:
        raise TableError(f"{options.data}: {error}") from error
    return table, schema


def fit_typed(
    options: FitOptions, table: pd.DataFrame, schema: Schema, checkpoint: Path
) -> TableFlow:
    """A model fitted to the table, its metadata filled in."""
    hidden = None if options.width is None else (options.width, options.width)
    model = default_table_flow(schema, len(table), hidden=hidden, seed=options.seed).to(
        options.device
    )
    valid = _valid(options, model)
    try:
        history, interrupted = _train(model, table, valid, options, checkpoint), False
    except Interrupted as stop:
        history, interrupted = stop.history, True
    except (ValueError, TrainingError) as error:
        raise ValueError(f"{options.data}: {error}") from error
    held_out = round(HELD_OUT * len(table)) if valid is None else len(valid)
    model.metadata = plain(
        {
            "rows": len(table) - (held_out if valid is None else 0),
            "valid_rows": held_out,
            "history": history.as_dict(),
            "interrupted": interrupted,
            "seed": options.seed,
            "version": version("cnf"),
            "choices": asdict(options) | {"hidden": model.hidden},
        }
    )
    return model


def _train(
    model: TableFlow,
    table: pd.DataFrame,
    valid: pd.DataFrame | None,
    options: FitOptions,
    checkpoint: Path,
) -> History:
    """Fit the model, with a progress bar where there is a terminal."""
    with progress() as shown, orderly_interrupts() as stopping:
        return fit_table(
            model,
            table,
            valid,
            weights=None if options.weights is None else numbers(table[options.weights]),
            seed=options.seed,
            steps=options.steps,
            seconds=options.seconds,
            checkpoint=checkpoint,
            callbacks=(*shown, *stopping),
        )


def _valid(options: FitOptions, model: TableFlow) -> pd.DataFrame | None:
    """The rows of --valid, which the columns of the model can hold."""
    if options.valid is None:
        return None
    table = pd.concat(read_typed_chunks(options.valid, model.schema))
    try:
        model.encode(table)
    except TableError as error:
        raise TableError(f"{options.valid}: {error}") from error
    return table


def summarize_typed(typed: TypedModel) -> dict[str, Any]:
    """The facts about a model of a typed table."""
    model, known = typed.model, typed.model.metadata
    history = known.get("history") or {}
    last = (history.get("records") or [{}])[-1]
    return {
        "model": str(typed.path),
        "columns": typed.columns,
        "context": typed.context,
        "schema": model.schema.as_json(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "hidden": model.hidden,
        "points_a_cell": len(model.rule.weights),
        "nfe": None if model.flow is None else model.flow.solver.nfe,
        "rows": known.get("rows"),
        "valid_rows": known.get("valid_rows"),
        "nll": history.get("valid_nll"),
        "standard_error": history.get("valid_se"),
        "updates": last.get("step"),
        "seconds": last.get("seconds"),
        "rollbacks": history.get("rollbacks") or [],
        "interrupted": bool(known.get("interrupted")),
        "seed": known.get("seed"),
        "version": known.get("version"),
        "choices": known.get("choices"),
    }
