"""The commands that use a model, as they are typed; their work is imported when they
run, so that help needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnf.cli.app import app
from cnf.cli.options import (
    AnyGiven,
    AsJson,
    Data,
    Device,
    Engine,
    Model,
    Output,
    ProgramName,
    Seed,
    Threads,
    Unseen,
    Workers,
)


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
