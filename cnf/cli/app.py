"""The application that commands belong to."""

from __future__ import annotations

import typer

app = typer.Typer(
    help="Continuous normalizing flows: fit, score, sample and plot the density of a table.",
    add_completion=False,
    rich_markup_mode=None,
)
