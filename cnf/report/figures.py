"""The pictures of the page: `cnf.plotting` draws them, and they take their colors from the
page."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor

from cnf import plotting
from cnf.plotting.style import ACCENT, DATA, FAINT, INK, MODEL, STYLE
from cnf.report.calibration import Ranks
from cnf.report.data import ReportData

ROWS = 5000  # of a histogram
MOST_PAIRED = 7  # columns that a pair plot on a page can hold
PANEL = (2.9, 1.9)
# The page has two looks, each with its own value for these.
VARIABLES = {INK: "--ink", FAINT: "--faint", DATA: "--data", MODEL: "--model", ACCENT: "--accent"}


def picture(page: Figure, name: str, description: str) -> Markup:
    """A figure as an element of the page: scalable, its text text, its colors those of the page.

    `name` keeps apart the marks inside pictures; `description` is read to those who do not see it.
    """
    with rc_context(
        STYLE | {"svg.fonttype": "none", "svg.hashsalt": name, "savefig.facecolor": "none"}
    ):
        buffer = io.StringIO()
        page.savefig(
            buffer,
            format="svg",
            metadata={"Date": None},
            dpi=150,
            bbox_inches="tight",
            pad_inches=0.03,
        )
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'\bid="', f'id="{name}-', drawn)
    drawn = re.sub(r'((?:xlink:)?href="#|url\(#)', rf"\g<1>{name}-", drawn)
    drawn = re.sub("#[0-9a-f]{6}", own_color, drawn)
    size = re.search(r'width="([\d.]+)pt" height="[\d.]+pt"', drawn)
    label = f'role="img" aria-label="{escape(description)}" style="--width: {size[1]}"'
    return Markup(drawn.replace(size[0], label, 1))


def own_color(found: re.Match[str]) -> str:
    """The page's variable for a color of the style, or white paper, or the color itself."""
    known = {**VARIABLES, "#ffffff": "--paper"}.get(found[0])
    return found[0] if known is None else f"var({known})"


def history(records: Sequence[Mapping[str, object]]) -> list[Markup]:
    """The course of the training, in four pictures; none for a flow that does not remember it."""
    if not records:
        return []
    pages, axes = zip(*(single(PANEL) for _ in range(4)))
    plotting.history(records, axes=axes)
    names = "objective", "held-out NLL", "field evaluations", "learning rate"
    return [
        picture(page, f"history{i}", f"{name} against step")
        for i, (page, name) in enumerate(zip(pages, names))
    ]


def single(panel: tuple[float, float]) -> tuple[Figure, object]:
    """A figure of one panel, and its axes."""
    page, axes = plotting.figure(panel=panel)
    return page, axes[0, 0]


def marginals(subject: ReportData, samples: Tensor) -> list[Markup]:
    """Every column, data against samples, in a picture each."""
    pages, axes = zip(*(single((2.2, 1.6)) for _ in subject.names))
    plotting.marginals(some(subject), samples, names=subject.names, axes=axes)
    pages[0].legends.clear()  # the page has one for all
    return [
        picture(page, f"marginal{i}", f"Histograms of {name}: data and samples")
        for i, (page, name) in enumerate(zip(pages, subject.names))
    ]


def pairs(subject: ReportData, samples: Tensor) -> Markup:
    """The first columns in pairs."""
    names = subject.names[:MOST_PAIRED]
    axes = plotting.pairs(some(subject)[:, : len(names)], samples[:, : len(names)], names=names)
    return picture(
        axes[0, 0].figure,
        "pairs",
        f"Scatter plots of {', '.join(names)} in pairs: data below, samples above",
    )


def some(subject: ReportData) -> np.ndarray:
    """At most so many rows as a histogram needs."""
    x = subject.rows.x
    return x[:: max(1, len(x) // ROWS)].double().cpu().numpy()


def calibration(subject: ReportData, found: Ranks) -> list[Markup]:
    """Coverage of highest-density regions, and the ranks of every column."""
    page, ax = single((2.2, 2.0))
    plotting.calibration(found.density, ax=ax)
    pages, axes = zip(*(single((2.2, 1.6)) for _ in subject.names))
    plotting.pit(found.columns, names=subject.names, axes=axes)
    coverage = picture(
        page, "coverage", "Share of rows inside highest-density regions against their probability"
    )
    return [
        coverage,
        *(
            picture(page, f"pit{i}", f"Histogram of the ranks of {name} among draws")
            for i, (page, name) in enumerate(zip(pages, subject.names))
        ),
    ]
