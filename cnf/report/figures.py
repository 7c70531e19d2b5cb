"""The plots of a report by `cnf.plotting`, in the colors of the page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnf import plotting
from cnf.diagnostics.calibration import CalibrationRanks
from cnf.pictures.circles import roses as draw_roses
from cnf.pictures.context import TableRows
from cnf.plotting.style import ACCENT, DATA, FAINT, INK, MODEL, STYLE, as_svg, without_controls

MOST_PAIRED = 7  # columns of the pair plot
PANEL = (2.9, 1.9)
# Colors of pictures by the variables of the page, which has a light and a dark scheme.
VARIABLES = {INK: "--ink", FAINT: "--faint", DATA: "--data", MODEL: "--model", ACCENT: "--accent"}


def picture(page: Figure, name: str, description: str) -> Markup:
    """A figure as an svg element of the page, with text as text and the colors of the page.

    `name` is the prefix of all ids inside the picture; `description` is for screen readers.
    """
    with rc_context(
        STYLE | {"svg.fonttype": "none", "svg.hashsalt": name, "savefig.facecolor": "none"}
    ):
        drawn = as_svg(page, dpi=150)
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    # Text stands between the tags, and stays as it is.
    drawn = re.sub("<[^>]*>", lambda tag: own_tag(tag[0], name), drawn)
    size = re.search(r'width="([\d.]+)pt" height="[\d.]+pt"', drawn)
    assert size is not None, "matplotlib gives every svg a size"
    label = f'role="img" aria-label="{escape(without_controls(description))}" style="--width: {size[1]}"'
    return Markup(drawn.replace(size[0], label, 1))


def own_tag(tag: str, name: str) -> str:
    """A tag with ids of its own, and the colors of the page."""
    tag = re.sub(r'\bid="', f'id="{name}-', tag)
    tag = re.sub(r'((?:xlink:)?href="#|url\(#)', rf"\g<1>{name}-", tag)
    return re.sub("#[0-9a-f]{6}", own_color, tag)


def own_color(found: re.Match[str]) -> str:
    """The variable of the page for a color of the style, or else the color itself."""
    known = {**VARIABLES, "#ffffff": "--paper"}.get(found[0])
    return found[0] if known is None else f"var({known})"


def history(records: Sequence[Mapping[str, object]]) -> list[Markup]:
    """The history of the training, in four plots."""
    pages, axes = zip(*(single(PANEL) for _ in range(4)))
    plotting.history(records, axes=axes)
    names = "objective", "held-out NLL", "field evaluations", "learning rate"
    return [
        picture(page, f"history{i}", f"{name} against step")
        for i, (page, name) in enumerate(zip(pages, names))
    ]


def single(panel: tuple[float, float]) -> tuple[Figure, Axes]:
    """A figure of one panel, and its axes."""
    page, axes = plotting.figure(panel=panel)
    return page, axes[0, 0]


def marginals(rows: TableRows) -> list[Markup]:
    """A plot for every column, data against samples."""
    pages, axes = zip(*(single((2.2, 1.6)) for _ in rows.names))
    plotting.marginals(
        *rows.tables, names=rows.names, levels=rows.levels, formats=rows.formats, axes=axes
    )
    pages[0].legends.clear()  # the page has one for all
    return [
        picture(page, f"marginal{i}", f"Histograms of {name}: data and samples")
        for i, (page, name) in enumerate(zip(pages, rows.names))
    ]


def roses(rows: TableRows) -> list[Markup]:
    """A plot for every column of angles, data against samples."""
    if not rows.turns:
        return []
    axes = draw_roses(rows)
    axes[0].figure.legends.clear()
    names = ", ".join(rows.names[place] for place in rows.turns)
    return [picture(axes[0].figure, "roses", f"Roses of {names}: data and samples")]


def globes(rows: TableRows) -> list[Markup]:
    """Plots of every longitude with its latitude: positions of the data and of samples."""
    return [
        _globe(part[:, list(pair)], f"globe{i}-{what}", what, color)
        for i, pair in enumerate(rows.spheres)
        for part, what, color in zip(rows.tables, ("data", "samples"), (DATA, MODEL))
    ]


def _globe(places: np.ndarray, name: str, what: str, color: str) -> Markup:
    page, ax = plotting.sphere_figure()
    plotting.sphere_points(places[np.isfinite(places).all(1)], ax=ax, color=color)
    return picture(page, name, f"Places on the sphere: {what}")


def pairs(rows: TableRows) -> Markup:
    """The first columns in pairs."""
    names = rows.names[:MOST_PAIRED]
    axes = plotting.pairs(
        *(table[:, : len(names)] for table in rows.tables),
        names=names,
        levels=rows.levels[: len(names)],
        formats=rows.formats,
    )
    return picture(
        axes[0, 0].figure,
        "pairs",
        f"Scatter plots of {', '.join(names)} in pairs: data below, samples above",
    )


def calibration(found: CalibrationRanks, names: Sequence[str]) -> list[Markup]:
    """Coverage of highest-density regions, and the ranks of every column."""
    page, ax = single((2.2, 2.0))
    plotting.calibration(found.density, ax=ax)
    pages, axes = zip(*(single((2.2, 1.6)) for _ in names))
    plotting.pit(found.columns, names=names, axes=axes)
    coverage = picture(
        page, "coverage", "Share of rows inside highest-density regions against their probability"
    )
    return [
        coverage,
        *(
            picture(page, f"pit{i}", f"Histogram of the ranks of {name} among samples")
            for i, (page, name) in enumerate(zip(pages, names))
        ),
    ]
