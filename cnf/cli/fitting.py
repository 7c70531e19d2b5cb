"""`cnf fit`: from a table to a model file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cnf.cli.data import TOY, read_data
from cnf.cli.interrupt import orderly_interrupts
from cnf.cli.model import as_tensor, checked_device
from cnf.cli.options import FitOptions
from cnf.cli.output import plain, require_writable, say, writing
from cnf.cli.progress import progress
from cnf.cli.summary import inform
from cnf.cli.typed import fit_typed, read_for_fit
from cnf.flows import CNF, ModelFileError
from cnf.flows.gaussian import LinearGaussian
from cnf.recipe import fit
from cnf.recipe.architecture import default_flow
from cnf.recipe.defaults import default_settings
from cnf.recipe.transforms import require_inside
from cnf.rows import FEWEST_ROWS, HELD_OUT, Rows, as_rows, weighted_nll
from cnf.tables import TableFlow, load, require_fittable
from cnf.tables.formats import choose_columns, listed
from cnf.training import History, Interrupted, TrainingError
from cnf.training.checkpoint import discard, generations
from cnf.transforms import Range

LEVELS = (0.005, 0.025, 0.25, 0.5, 0.75, 0.975, 0.995)


def fit_model(options: FitOptions, *, as_json: bool, resume: bool) -> None:
    """Fit a flow to a table and write it, with what the other commands need to know.

    Raises:
        ValueError: for options that exclude each other, a table that cannot be fitted, an output
            that cannot be written, or a training that diverged.
    """
    output = Path(options.output)
    if not (resume and is_finished(output)):
        require_writable(output, options.data, options.valid)
        check_budget(options)
        if not resume:
            discard(checkpoint_beside(output))
        flow = fit_any(options)
        with writing(output):
            flow.save(output)
        if flow.metadata.get("interrupted"):
            raise KeyboardInterrupt(
                f"interrupted; {output} holds the best model so far, and --resume goes on from there"
            )
        discard(checkpoint_beside(output))
    elif not as_json:
        say(f"{output}: already finished; leave --resume out to fit it anew")
    inform(output, as_json=as_json)


def is_finished(output: Path) -> bool:
    """Whether the work of a fit is done: a model of a whole history, and no checkpoint of a fit
    under way."""
    if any(generation.exists() for generation in generations(checkpoint_beside(output))):
        return False
    try:
        metadata = load(output).metadata
    except ModelFileError:
        return False
    return "history" in metadata and not metadata.get("interrupted")


def checkpoint_beside(output: Path) -> Path:
    """Where the state of an unfinished fit is kept."""
    return output.with_name(f"{output.name}.checkpoint")


def check_budget(options: FitOptions) -> None:
    """Refuse an impossible budget before anything is read."""
    if options.seconds is not None and not math.isfinite(options.seconds):
        raise ValueError(f"--seconds: expected a finite number above 0, got {options.seconds}")
    default_settings(
        rows=FEWEST_ROWS,
        dim=1,
        steps=options.steps,
        seconds=options.seconds,
        likelihood_share=None,
    )


def fit_any(options: FitOptions) -> CNF | TableFlow:
    """A model fitted to the table that the options name: of a typed table, or of plain real
    columns."""
    checked_device(options.device)
    if options.data.startswith(TOY):
        if options.kinds or options.drop_dependent:
            raise ValueError(
                f"{options.data}: has real columns; leave --type and --drop-dependent out"
            )
        return fit_flow(options)
    table, schema = read_for_fit(options)
    if options.kinds or not schema.plain:
        return fit_typed(options, table, schema, checkpoint_beside(Path(options.output)))
    flow = fit_flow(
        replace(options, columns=tuple(column.name for column in schema.modeled)), schema.ranges
    )
    flow.metadata["schema"] = schema.as_json()
    return flow


def fit_flow(options: FitOptions, ranges: Sequence[Range] | None = None) -> CNF:
    """A flow fitted to the plain table that the options name, its metadata filled in."""
    device = checked_device(options.device)
    table = read_data(
        options.data,
        columns=options.wanted,
        ignore=options.ignore,
        rows_needed=FEWEST_ROWS,
        seed=options.seed,
    )
    columns = choose_columns(list(table), path=options.data, columns=None, ignore=options.beside)
    require_fittable(table[[*columns, *options.context]], options.data)
    judges = rows_to_judge_by(columns, options, device)
    if judges is not None and ranges is not None:
        require_inside(options.valid, judges, ranges)
    try:
        rows = rows_of(table, columns, options, device)
        return flow_of(rows, judges, columns, options, ranges)
    except (ValueError, TrainingError) as error:
        raise ValueError(f"{options.data}: {error} (columns: {listed(columns)})") from error


def rows_of(
    table: pd.DataFrame, columns: list[str], options: FitOptions, device: torch.device
) -> Rows:
    """The rows of a table with their context and weights."""
    context = as_tensor(table, options.context, device) if options.context else None
    weights = (
        None if options.weights is None else as_tensor(table, [options.weights], device)[:, 0]
    )
    return as_rows("rows", as_tensor(table, columns, device), context, weights, device)


def rows_to_judge_by(columns: list[str], options: FitOptions, device: torch.device) -> Rows | None:
    """The rows of --valid, each of weight one."""
    if options.valid is None:
        return None
    table = read_data(options.valid, columns=[*columns, *options.context], seed=options.seed + 1)
    return rows_of(table, columns, replace(options, weights=None), device)


def flow_of(
    rows: Rows,
    judges: Rows | None,
    columns: list[str],
    options: FitOptions,
    ranges: Sequence[Range] | None,
) -> CNF:
    """A flow fitted to checked rows, its metadata filled in."""
    train, valid = split(rows, options.seed) if judges is None else (rows, judges)
    gaussian = gaussian_nll(train, valid)
    hidden = None if options.width is None else (options.width, options.width)
    flow = default_flow(
        len(train),
        len(columns),
        context_dim=len(options.context),
        hidden=hidden,
        seed=options.seed,
    ).to(rows.x.device)
    try:
        history, interrupted = train_flow(flow, rows, judges, options, ranges), False
    except Interrupted as stop:
        history, interrupted = stop.history, True
    flow.metadata = plain(
        {
            "columns": columns,
            "context": options.context,
            "quantiles": quantiles(train, columns),
            "rows": len(train),
            "valid_rows": len(valid),
            "gaussian": dict(zip(("nll", "standard_error"), gaussian)),
            "history": history.as_dict(),
            "interrupted": interrupted,
            "seed": options.seed,
            "version": version("cnf"),
            "choices": asdict(options) | {"hidden": flow.field.hidden},
        }
    )
    return flow


def split(rows: Rows, seed: int) -> tuple[Rows, Rows]:
    """The rows that `cnf.fit` learns from under this seed, and the tenth that it sets apart."""
    return rows.split(HELD_OUT, torch.Generator(rows.x.device).manual_seed(seed))


def train_flow(
    flow: CNF, rows: Rows, judges: Rows | None, options: FitOptions, ranges: Sequence[Range] | None
) -> History:
    """Fit the flow, with a progress bar where there is a terminal."""
    checkpoint = checkpoint_beside(Path(options.output))
    with progress() as shown, orderly_interrupts() as stopping:
        return fit(
            flow,
            rows.x,
            None if judges is None else judges.x,
            context=rows.context,
            context_valid=None if judges is None else judges.context,
            weights=rows.weights,
            ranges=ranges,
            seed=options.seed,
            steps=options.steps,
            seconds=options.seconds,
            checkpoint=checkpoint,
            callbacks=(*shown, *stopping),
        )


def gaussian_nll(train: Rows, valid: Rows) -> tuple[float, float]:
    """Held-out NLL of one Gaussian fitted to the training rows, and its standard error, in nats."""
    return weighted_nll(LinearGaussian.fit(train).log_prob(valid), valid.weights)


def quantiles(train: Rows, columns: list[str]) -> dict[str, Any]:
    """Quantiles of every column of the training rows: limits for plots without the table."""
    values = np.quantile(train.x.cpu().numpy(), LEVELS, axis=0)
    return {"levels": LEVELS, "columns": dict(zip(columns, values.T.tolist()))}
