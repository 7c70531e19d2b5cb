"""The commands that show and judge a model, as they are typed; their work is imported when they
run, so that help needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnf.cli.app import app
from cnf.cli.options import (
    AsJson,
    Color,
    Data,
    Device,
    Given,
    Model,
    Output,
    PlotCommand,
    Seed,
    Threads,
    known_kind,
)


@app.command(cls=PlotCommand)
def plot(
    model: Model,
    kind: Annotated[
        str,
        typer.Argument(metavar="KIND", callback=known_kind, help="What to draw: see below."),
    ],
    output: Output,
    data: Annotated[
        str | None, typer.Option(help="Rows to draw as well: a file or toy:NAME.")
    ] = None,
    axes: Annotated[
        list[str] | None,
        typer.Option(
            help="The two columns to show: a,b; or principal (trajectories). Default: the first."
        ),
    ] = None,
    given: Given = None,
    sweep: Annotated[
        str | None, typer.Option(help="The context column that what-if sweeps: name=low:high.")
    ] = None,
    color: Annotated[
        Color, typer.Option("--color", "--colour", help="What the colors of trajectories show.")
    ] = Color.time,
    frames: Annotated[
        int, typer.Option(min=20, max=2000, help="Number of frames of an animation.")
    ] = 48,
    frame_rate: Annotated[
        int, typer.Option(min=1, max=100, help="Frames per second of an animation.")
    ] = 20,
    inches: Annotated[
        float,
        typer.Option(
            min=1, max=20, help="Side length of an animation in inches, at 100 dots per inch."
        ),
    ] = 4.0,
) -> None:
    """Plot a model.

    The extension of the output chooses the format: png, svg or pdf for a plot; gif or mp4 for an
    animation of the density, trajectories or field.
    """
    from cnf.cli.data import listed, names_in
    from cnf.cli.model import use_threads
    from cnf.cli.pictures import plot_model
    from cnf.cli.plot_context import PlotOptions
    from cnf.pictures.animations import AnimationOptions

    use_threads(1)
    plot_model(
        model,
        kind,
        output,
        PlotOptions(data, names_in(listed(axes)), listed(given), sweep, color),
        AnimationOptions(frames=frames, frame_rate=frame_rate, inches=inches),
    )


@app.command()
def check(
    model: Model,
    data: Data,
    strict: Annotated[bool, typer.Option("--strict", help="Use stricter limits.")] = False,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = 1,
    as_json: AsJson = False,
) -> None:
    """Test every claim of a model on rows that it was not fitted to.

    The claims are about correct numbers, the quality of the fit and the cost of a score. The exit code
    is 1 if a claim does not hold.
    """
    from cnf.cli.checking import check_model
    from cnf.cli.model import use_threads

    use_threads(threads)
    if not check_model(model, data, strict=strict, seed=seed, device=device, as_json=as_json):
        raise typer.Exit(1)


@app.command()
def report(
    model: Model,
    data: Data,
    output: Output,
    calculator: Annotated[
        bool,
        typer.Option(
            "--calculator",
            help="Add a form that scores a typed-in row; takes 10 to 60 s more and needs cnf[onnx].",
        ),
    ] = False,
    threads: Threads = 1,
) -> None:
    """Write an HTML report on a model and on how well it fits a table.

    The report describes the model, its training, columns and calibration, compares it with a Gaussian,
    and with a mixture where that is better, and has an animation of the flow. Give rows that are new to
    the model, or the table of the fit, whose held-out rows are then used.
    """
    from cnf.cli.model import use_threads
    from cnf.cli.reporting import report_model

    use_threads(threads)
    report_model(model, data, output, with_calculator=calculator)


@app.command()
def compare(
    real: Annotated[Path, typer.Argument(metavar="REAL", help="The real table.")],
    fake: Annotated[Path, typer.Argument(metavar="FAKE", help="The synthetic table.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="HTML page with plots to write.")
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(help="Real rows that were not used to make FAKE, to measure memorization."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Column to predict, after training on FAKE and on REAL; needs --held-out."
        ),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Model that made FAKE; needs --held-out.")
    ] = None,
    categorical: Annotated[
        list[str] | None, typer.Option(help="Numeric columns that hold codes: a,b.")
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Measure how close a synthetic table is to a real one.

    The measures compare columns and pairs of columns, classifiers that distinguish the tables, the
    positions of the rows, and whether real rows were memorized. Any two tables with the same columns
    can be compared.
    """
    from cnf.cli.comparing import compare_tables
    from cnf.cli.data import listed, names_in
    from cnf.cli.model import use_threads

    use_threads(1)
    compare_tables(
        real,
        fake,
        output=output,
        held_out=held_out,
        target=target,
        model=model,
        categorical=names_in(listed(categorical)),
        seed=seed,
        as_json=as_json,
    )


@app.command()
def info(model: Model, as_json: AsJson = False) -> None:
    """Describe a model and the quality of its fit."""
    from cnf.cli.summary import inform

    inform(model, as_json=as_json)
