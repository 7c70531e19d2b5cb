"""The commands that fit and use a model, as they are typed; their work is imported when they
run, so that help needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

from cnf.cli.app import app
from cnf.cli.options import (
    AnyGiven,
    Array,
    AsJson,
    Data,
    Device,
    Engine,
    FitOptions,
    Model,
    Output,
    ProgramName,
    Seed,
    Threads,
    Unseen,
    Workers,
)

TYPE_HELP = "Types of columns, in place of those inferred: age=integer,share=bounded:0:1."


class FitCommand(TyperCommand):
    """`cnf fit`. Its help names the registered types of columns, which are imported for it."""

    def get_help(self, ctx: Any) -> str:
        """The help text, complete."""
        from cnf.tables.columns import type_usage

        for option in self.params:
            if isinstance(option, TyperOption) and option.name == "kinds":
                option.help = f"{TYPE_HELP} One of {type_usage()}."
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
            help="Does nothing any more: columns that follow from others are set aside.",
            hidden=True,
        ),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Refuse a table of which a column would be set aside, or an angle wrapped.",
        ),
    ] = False,
    missing: Annotated[
        list[str] | None,
        typer.Option(help="Words for missing cells, in place of those recognized: ?,-9."),
    ] = None,
    array: Array = None,
    any_subset: Annotated[
        bool,
        typer.Option(
            "--any-subset", help="Train for any columns given any others too, in the same budget."
        ),
    ] = False,
    source: Annotated[
        str | None,
        typer.Option(help="A table whose rows are to be carried to those of DATA, a file."),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(help="Column that says when a row was seen: one flow through all times."),
    ] = None,
    valid: Annotated[
        str | None,
        typer.Option(help="Validation rows, a file or toy:NAME. Default: a tenth of DATA."),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="What rows may take of it: 1GB. A larger table is read again and again. Default: all rows."
        ),
    ] = None,
    seed: Seed = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Budget in updates. Default: grows with the rows.")
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
            "--resume", help="Go on from the checkpoint beside the model, if there is one."
        ),
    ] = False,
) -> None:
    """Fit a flow to a table.

    Columns may be numbers, times, categories or text, with cells missing; what each was found to be
    is printed before the fit. Says how well the model predicts held-out rows.
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


@app.command()
def score(
    model: Model,
    data: Data,
    output: Output,
    unseen: Annotated[
        Unseen,
        typer.Option(help="What a category is that the fit never saw: a rare one, or impossible."),
    ] = Unseen.other,
    reason: Annotated[
        bool, typer.Option("--reason", help="Write why a row has no ordinary score, too.")
    ] = False,
    columns: Annotated[
        list[str] | None,
        typer.Option(help="Score these columns alone: a,b. The others are integrated out."),
    ] = None,
    given: Annotated[
        list[str] | None, typer.Option(help="Score given the row's values of these columns: c,d.")
    ] = None,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact", help="Of --columns and --given: by importance sampling, with bars."
        ),
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain", help="Write which column makes each row odd, and how odd it is."
        ),
    ] = False,
    reference: Annotated[
        str | None,
        typer.Option(help="Of --explain: rows that are as they should be. Default: DATA itself."),
    ] = None,
    device: Device = "cpu",
    threads: Threads = 1,
    engine: Annotated[Engine, typer.Option(help="Runs workers of a folder.")] = Engine.local,
    workers: Workers = 1,
    as_json: AsJson = False,
) -> None:
    """Write the log-density of every row of a table.

    In nats, with the bar of its numerical error. A row with a cell that its column cannot hold
    costs no other: its log_prob is -inf where the model says that it is impossible, and empty
    where it cannot say. Columns are found by name.

    DATA may be a folder or a pattern such as 'in/*.parquet': then OUTPUT is a folder, and every file
    gets a file of scores with its name. A run that was stopped goes on where it stopped.
    """
    from cnf.cli.data import listed, names_in
    from cnf.cli.explaining import explain_table
    from cnf.cli.model import use_threads
    from cnf.cli.questions import score_columns
    from cnf.cli.scoring import score_folder, score_table
    from cnf.scale import ScoreOptions
    from cnf.tables.files import is_folder

    use_threads(threads)
    asked = bool(columns or given)
    if explain and asked:
        raise ValueError("--explain: says it of all columns; leave --columns and --given out")
    if reference is not None and not explain:
        raise ValueError("--reference: goes with --explain")
    if exact and not asked:
        raise ValueError(
            "--exact: goes with --columns or --given; the score of a whole row is exact"
        )
    if explain:
        explain_table(model, data, output, reference=reference, device=device, as_json=as_json)
        return
    if asked:
        score_columns(
            model,
            data,
            output,
            columns=names_in(listed(columns)),
            given=names_in(listed(given)),
            exact=exact,
            device=device,
            as_json=as_json,
        )
        return
    options = ScoreOptions(unseen.value, reason)
    if is_folder(data):
        run = (engine.value, workers)
        score_folder(model, data, output, options, device=device, run=run, as_json=as_json)
    else:
        score_table(model, data, output, options, device=device, as_json=as_json)


@app.command()
def sample(
    model: Model,
    output: Output,
    rows: Annotated[int, typer.Option("-n", "--rows", min=1, help="How many.")] = 1000,
    seed: Seed = 0,
    given: AnyGiven = None,
    at: Annotated[
        str | None, typer.Option(help="The time of the rows, of a model of cnf fit --time.")
    ] = None,
    keep_orders: Annotated[
        bool,
        typer.Option(
            "--keep-orders",
            help="Draw rows again that break an order of columns, a ≤ b, which the table keeps.",
        ),
    ] = False,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Draw rows from a model, as a table.

    Under --given, values, ranges and levels of any columns.
    """
    from cnf.cli.model import use_threads
    from cnf.cli.sampling import sample_table

    use_threads(threads)
    sample_table(
        model,
        output,
        rows=rows,
        seed=seed,
        given=given or [],
        at=at,
        keep_orders=keep_orders,
        device=device,
    )


@app.command()
def transport(
    model: Model,
    data: Data,
    output: Output,
    reverse: Annotated[
        bool, typer.Option("--reverse", help="Carry rows of the fitted table back to its source.")
    ] = False,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Carry rows of a source to the table that a model was fitted to.

    The model has to be one of cnf fit --source.
    """
    from cnf.cli.model import use_threads
    from cnf.cli.transporting import transport_table

    use_threads(threads)
    transport_table(model, data, output, reverse=reverse, device=device)


@app.command()
def impute(
    model: Model,
    data: Data,
    output: Output,
    draws: Annotated[
        int, typer.Option("-n", "--draws", min=1, help="How often to draw the missing cells.")
    ] = 1,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Draw the missing cells of a table, given the others of their row.

    The completed tables stand one after the other; the column draw says which. The model has to be
    one of a table with missing cells.
    """
    from cnf.cli.model import use_threads
    from cnf.cli.questions import impute_table

    use_threads(threads)
    impute_table(model, data, output, draws=draws, seed=seed, device=device)


@app.command()
def export(
    model: Model,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The file to write: name.onnx or name.pt2.")
    ],
    program: Annotated[
        ProgramName, typer.Option(help="Score rows, or make rows of normal numbers.")
    ] = ProgramName.score,
    as_json: AsJson = False,
) -> None:
    """Write a model of numbers as ONNX, or as a program of torch.export.

    The file takes any number of rows in the units of the table, and gives log_prob, error and ok;
    it needs neither cnf nor, as ONNX, torch. It is checked against the model before it is written.
    """
    from cnf.cli.exporting import export_model

    export_model(model, output, program.value, as_json=as_json)
