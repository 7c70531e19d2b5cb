"""The command that fits a model, as it is typed; its work is imported when it runs, so that help needs
no torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

from cnf.cli.app import app
from cnf.cli.options import (
    Array,
    AsJson,
    Data,
    Device,
    FitOptions,
    Seed,
    Threads,
)

TYPE_HELP = "Column types that override the inferred ones: age=integer,share=bounded:0:1."
# As `type_usage` says it. The types themselves need torch, whose import takes seconds.
BUILT_IN_TYPES = (
    "real, positive, bounded:LOW:HIGH, integer, integer:STEP, time, time:clock, moment, angle:PERIOD,"
    " sphere (of two columns: lon,lat=sphere), categorical, ignored or constant"
)


class FitCommand(TyperCommand):
    """`cnf fit`. Its help names the registered types of columns."""

    def get_help(self, ctx: Any) -> str:
        """The help text, complete."""
        # A plugin that adds a type has imported the module of the registry.
        columns = sys.modules.get("cnf.tables.columns")
        usage = columns.type_usage() if columns else BUILT_IN_TYPES
        for option in self.params:
            if isinstance(option, TyperOption) and option.name == "kinds":
                option.help = f"{TYPE_HELP} One of {usage}."
        return super().get_help(ctx)


@app.command(cls=FitCommand)
def fit(
    data: Data,
    output: Annotated[Path, typer.Option("-o", "--output", help="The model to write.")],
    columns: Annotated[
        list[str] | None, typer.Option(help="Columns to model: a,b,c. Default: all.")
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Columns to leave out: a,b.")] = None,
    context: Annotated[
        list[str] | None, typer.Option(help="Columns that the density is conditioned on: a,b.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Column with the weight of each row.")
    ] = None,
    kinds: Annotated[list[str] | None, typer.Option("--type", help=TYPE_HELP)] = None,
    drop_dependent: Annotated[
        bool,
        typer.Option(
            "--drop-dependent",
            help="No longer has an effect: columns that follow from others are left out.",
            hidden=True,
        ),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Refuse a table if a column would be left out, or an angle wrapped.",
        ),
    ] = False,
    missing: Annotated[
        list[str] | None,
        typer.Option(help="Words for missing cells, instead of the recognized ones: ?,-9."),
    ] = None,
    array: Array = None,
    any_subset: Annotated[
        bool,
        typer.Option(
            "--any-subset",
            help="Also train for any columns given any others, within the same budget.",
        ),
    ] = False,
    source: Annotated[
        str | None,
        typer.Option(
            help="File with the source table, whose rows the model carries to those of DATA."
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(help="Column with the time of each row: fits one flow through all times."),
    ] = None,
    valid: Annotated[
        str | None,
        typer.Option(help="Validation rows, a file or toy:NAME. Default: a tenth of DATA."),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="Memory for rows, such as 1GB; a larger table stays in its files. Default: read all rows."
        ),
    ] = None,
    seed: Seed = 0,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Budget in training steps. Default: grows with the number of rows."
        ),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Budget in seconds, instead of steps.")
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(
            min=1, max=4096, help="Width of the hidden layers. Default: by rows and columns."
        ),
    ] = None,
    device: Device = "cpu",
    threads: Threads = 1,
    as_json: AsJson = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Resume from the checkpoint beside the model, if there is one."
        ),
    ] = False,
) -> None:
    """Fit a flow to a table.

    Columns may hold numbers, times, categories or text, and cells may be missing. The inferred
    types are printed before the fit, and the held-out negative log-likelihood after it.
    """
    from cnf.cli.data import listed, names_in
    from cnf.cli.fitting import fit_model
    from cnf.cli.model import use_threads

    use_threads(threads)
    options = FitOptions(
        data=data,
        output=str(output),
        columns=names_in(listed(columns)),
        ignore=names_in(listed(ignore)),
        context=names_in(listed(context)),
        weights=weights,
        valid=valid,
        seed=seed,
        steps=steps,
        seconds=seconds,
        width=width,
        device=device,
        kinds=listed(kinds),
        strict=strict,
        missing=names_in(listed(missing)) if missing else None,
        array=array,
        any_subset=any_subset,
        source=source,
        time=time,
        memory=memory,
    )
    fit_model(options, as_json=as_json, resume=resume)
