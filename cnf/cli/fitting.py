"""`cnf fit`: from a table to a model file."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cnf.cli.data import TOY, TOY_COLUMNS, declarations, toy_table
from cnf.cli.interrupt import orderly_interrupts
from cnf.cli.model import checked_device
from cnf.cli.options import FitOptions
from cnf.cli.output import require_writable, say, writing
from cnf.cli.processes import joined
from cnf.cli.progress import progress
from cnf.cli.summary import inform
from cnf.flows import ModelFileError
from cnf.recipe import InterruptedFit, fit_table
from cnf.recipe.settings import default_settings
from cnf.rows import FEWEST_ROWS
from cnf.tables import TableFlow, load_table_flow
from cnf.training import TrainingError
from cnf.training.checkpoint import checkpoint_beside, discard, generations


def fit_model(options: FitOptions, *, as_json: bool, resume: bool) -> None:
    """Fit a model to a table and write it, with the metadata for the other commands.

    Raises:
        ValueError: for options that exclude each other, a table that cannot be fitted, an output
            that cannot be written, or a training that diverged.
    """
    output = Path(options.output)
    with joined(options.device) as group:
        finished = bool(group.agreed(resume and is_finished(output)))
        if not finished:
            require_writable(output, options.data, options.valid, options.source)
            check_budget(options)
            if group.first and not resume:
                discard(checkpoint_beside(output))
            group.agreed(0)  # no process reads a checkpoint that is about to go
            quiet = as_json or not group.first
            model = fitted(options, announce=None if quiet else say, shows=group.first)
        if not group.first:
            return
    if not finished:
        _keep(model, output)
    elif not as_json:
        say(f"{output}: already finished; omit --resume to fit again")
    inform(output, as_json=as_json, columns=finished)


def _keep(model: TableFlow, output: Path) -> None:
    """Write a model, and say where it was interrupted."""
    with writing(output):
        model.save(output)
    if model.metadata.interrupted:
        raise KeyboardInterrupt(
            f"interrupted; {output} has the best model so far, and --resume continues the fit"
        )
    discard(checkpoint_beside(output))


def is_finished(output: Path) -> bool:
    """Whether a fit is finished: a model with a complete history, and no checkpoint."""
    if any(generation.exists() for generation in generations(checkpoint_beside(output))):
        return False
    try:
        metadata = load_table_flow(output).metadata
    except ModelFileError:
        return False
    return metadata.history is not None and not metadata.interrupted


def check_budget(options: FitOptions) -> None:
    """Refuse an impossible budget before anything is read."""
    if options.seconds is not None and not 0 < options.seconds < math.inf:
        raise ValueError(f"--seconds: expected a finite number above 0, got {options.seconds}")
    default_settings(
        rows=FEWEST_ROWS,
        dim=1,
        steps=options.steps,
        seconds=options.seconds,
        likelihood_share=None,
    )


def fitted(
    options: FitOptions,
    *,
    announce: Callable[..., object] | None = None,
    shows: bool = True,
) -> TableFlow:
    """A model fitted to the table that the options name, complete or interrupted; where it `shows`,
    with a progress bar on a terminal, and lines about the stages elsewhere.

    Raises:
        ValueError: naming DATA.
    """
    device = checked_device(options.device)
    try:
        with progress() if shows else nullcontext(()) as shown, orderly_interrupts() as stopping:
            model = fit_table(
                **_tables(options),
                columns=options.columns,
                context=options.context,
                ignore=options.ignore,
                missing=options.missing,
                strict=options.strict,
                array=options.array,
                announce=announce,
                weights=options.weights,
                seed=options.seed,
                any_subset=options.any_subset,
                source=options.source,
                time=options.time,
                memory=options.memory,
                hidden=None if options.width is None else (options.width, options.width),
                device=device,
                steps=options.steps,
                seconds=options.seconds,
                checkpoint=checkpoint_beside(Path(options.output)),
                callbacks=(*shown, *stopping),
            )
    except InterruptedFit as stop:
        model = stop.model
    except (ValueError, TrainingError) as error:
        tables = (options.data, options.valid, options.source)
        named = str(error).startswith(tuple(f"{table}:" for table in tables))
        raise ValueError(str(error) if named else f"{options.data}: {error}") from error
    hidden = None if model.flow is None else model.flow.field.hidden
    choices = asdict(options) | {"hidden": hidden}
    model.metadata = replace(model.metadata, choices=choices)
    return model


def _tables(options: FitOptions) -> dict[str, Any]:
    """The rows to fit and to validate by, and the types that are declared; the columns of a toy are
    real numbers.

    Raises:
        ValueError: for types of a toy's columns, or a toy that does not exist.
    """
    kinds = declarations(options.kinds)
    tables = {"table": options.data, "valid": options.valid}
    if options.data.startswith(TOY):
        if kinds:
            raise ValueError(f"{options.data}: has real columns; omit --type")
        wanted = options.wanted or TOY_COLUMNS
        kinds = {name: "real" for name in wanted if name not in options.ignore}
    for k, (name, data) in enumerate(tables.items()):
        if data is not None and data.startswith(TOY):
            tables[name] = toy_table(data, seed=options.seed + k)
    return {**tables, "kinds": kinds}
