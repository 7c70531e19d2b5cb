"""`cnf plot`: pictures and animations of a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from cnf import plotting
from cnf.cli.bar import bar
from cnf.cli.model import load_model
from cnf.cli.options import Color
from cnf.cli.output import require_writable, writing
from cnf.cli.plot_context import PlotOptions, plot_context
from cnf.pictures import KINDS, PlotKind
from cnf.pictures.animations import AnimationOptions
from cnf.pictures.context import PlotContext

ANIMATED = (".gif", ".mp4")


@torch.no_grad()
def plot_model(
    path: Path, name: str, output: Path, options: PlotOptions, animation: AnimationOptions
) -> None:
    """Draw a picture of the model, or an animation if the output is a gif or mp4.

    Raises:
        ValueError: for a model, table, context or output that cannot be used, and for a kind of
            picture that the model does not have.
    """
    kind = KINDS[name]
    model = load_model(path)
    require_writable(output, path, options.data)
    animated = output.suffix.lower() in ANIMATED
    if animated and kind.animate is None:
        raise ValueError(
            f"{output}: {kind.name} has no animation: give a name that ends in .png, .svg or .pdf"
        )
    require_options_of(kind, options, animated=animated)
    model.table_flow.double().eval()  # float32 does not tell rows apart in columns far from zero
    context = plot_context(model, kind, options)
    if animated:
        animate(kind, context, output, animation)
    else:
        draw(kind, context, output)


def draw(kind: PlotKind, context: PlotContext, output: Path) -> None:
    """Write the picture, with the categories that it is conditioned on as its title."""
    page = kind.drawing(context)
    if not kind.table and context.numeric is not None and context.numeric.given:
        page.suptitle(f"given {context.numeric.given}", fontsize="small")
    with writing(output):
        plotting.save(page, output)


def animate(kind: PlotKind, context: PlotContext, output: Path, options: AnimationOptions) -> None:
    """Write the animation."""
    assert kind.animation is not None
    with writing(output), bar("animation") as callback:
        kind.animation(context, replace(options, output=output, callback=callback))


def require_options_of(kind: PlotKind, options: PlotOptions, *, animated: bool) -> None:
    """Refuse options that a picture or animation of this kind would ignore.

    Raises:
        ValueError: naming the option.
    """
    if options.sweep is not None and kind.context != "swept":
        raise ValueError(f"--sweep: {kind.name} has one context: give it by --given")
    if options.color is not Color.time and (animated or not kind.particles):
        what = f"an animation of {kind.name}" if animated else kind.name
        raise ValueError(
            f"--colour: applies to pictures of trajectories only; {what} has its own colors"
        )
