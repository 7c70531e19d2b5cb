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
        typer.Option(
            help="How to treat a category that was not in training: as rare, or as impossible."
        ),
    ] = Unseen.other,
    reason: Annotated[
        bool, typer.Option("--reason", help="Also write why a row has no ordinary score.")
    ] = False,
    columns: Annotated[
        list[str] | None,
        typer.Option(help="Score only these columns: a,b. The others are integrated out."),
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(help="Condition on each row's values of these columns: c,d."),
    ] = None,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help="With --columns or --given: use importance sampling, with error bounds.",
        ),
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Write which column makes each row unusual, and how unusual the row is.",
        ),
    ] = False,
    reference: Annotated[
        str | None,
        typer.Option(
            help="With --explain: file of ordinary reference rows. Default: DATA itself."
        ),
    ] = None,
    device: Device = "cpu",
    threads: Threads = 1,
    engine: Annotated[
        Engine, typer.Option(help="Engine that runs the workers for a folder.")
    ] = Engine.local,
    workers: Workers = 1,
    as_json: AsJson = False,
) -> None:
    """Write the log-density of every row of a table.

    Scores are in nats, each with a bound of its numerical error. A row with an invalid cell does not
    affect the others: its log_prob is -inf if the model excludes the value, and empty if the model
    has no score for it. Columns are found by name.

    DATA may be a folder or a pattern such as 'in/*.parquet': OUTPUT is then a folder, with a file
    of scores for every file. A stopped run resumes where it stopped.
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
        raise ValueError("--explain: covers all columns; omit --columns and --given")
    if reference is not None and not explain:
        raise ValueError("--reference: needs --explain")
    if exact and not asked:
        raise ValueError("--exact: needs --columns or --given; the score of a whole row is exact")
    if not is_folder(data) and (engine is not Engine.local or workers > 1):
        raise ValueError(
            f"--engine, --workers: expected a folder or a pattern of files as DATA; got {data}: omit them"
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
        str | None, typer.Option(help="Time of the rows, for a model of cnf fit --time.")
    ] = None,
    keep_orders: Annotated[
        bool,
        typer.Option(
            "--keep-orders",
            help="Redraw rows that violate an order of columns, a ≤ b, that holds in the table.",
        ),
    ] = False,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Draw rows from a model, as a table.

    With --given, rows are drawn given values, ranges or levels of any columns.
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

    The model must be fitted with cnf fit --source.
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
        int, typer.Option("-n", "--draws", min=1, help="Number of draws of the missing cells.")
    ] = 1,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Draw the missing cells of a table, given the others of their row.

    The completed tables are written one after another, and the column draw numbers them. The model
    must be fitted to a table with missing cells, or with cnf fit --any-subset.
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
        ProgramName,
        typer.Option(help="Program to export: one that scores rows, or one that generates rows."),
    ] = ProgramName.score,
    as_json: AsJson = False,
) -> None:
    """Export a model of numeric columns to ONNX, or as a program of torch.export.

    The program takes any number of rows in the units of the table, and returns log_prob, error and
    ok. It does not need cnf; an ONNX file does not need torch either. It is checked against the model
    before it is written.
    """
    from cnf.cli.exporting import export_model

    export_model(model, output, program.value, as_json=as_json)
