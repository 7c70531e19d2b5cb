"""The page: everything a report shows, in one file that asks nothing of the network."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.colors import to_hex
from plotly.offline import get_plotlyjs

from cnf.diagnostics import check
from cnf.files import atomic_path
from cnf.flows import CNF
from cnf.plotting.style import DENSITY
from cnf.report.animation import PARTICLES, TIMES, motion
from cnf.report.baselines import compare
from cnf.report.calibration import ranks
from cnf.report.data import ReportData, report_data
from cnf.report.figures import MOST_PAIRED, calibration, history, marginals, pairs
from cnf.report.model_card import model_card
from cnf.rows import Rows

SAMPLES = 5000
SHADES = 16  # of a map
Tell = Callable[[str], None]


def write_report(
    flow: CNF,
    rows: Rows,
    output: str | Path,
    *,
    train: Rows | None = None,
    names: Sequence[str] | None = None,
    title: str = "A flow",
    source: str = "",
    tell: Tell = lambda part: None,
) -> None:
    """Write one page that shows a flow: what it is, how good, how calibrated, and the flow itself,
    moving.

    The page opens from the disk in any browser, asks nothing of the network, and is under 6 MB.

    Args:
        flow: it is left as it is.
        rows: to judge by; they should be new to the flow.
        output: the file to write, replaced only by a whole new one.
        train: rows that the flow was fitted to, for baselines to learn from; without them,
            baselines learn from the half of `rows` that a row is not in.
        names: of the columns; those in the flow's metadata, or x₁, x₂, … if not given. Units are
            taken from `flow.metadata["units"]`, a dict from name to unit.
        title: the page's heading.
        source: where the rows are from, in words.
        tell: is told what is being made.

    Raises:
        ValueError: for another number of columns than the flow has, fewer than 10 rows, or an
            output that cannot be written.
    """
    subject = report_data(flow, rows, train, names)
    with atomic_path(output) as temporary:
        temporary.write_text(page(subject, title, source, tell), encoding="utf-8")


def page(subject: ReportData, title: str, source: str, tell: Tell) -> str:
    """The text of the page."""
    tell("likelihood")
    scores = compare(subject)
    tell("pictures")
    pictures = pictures_of(subject)
    tell("the flow in motion")
    moving = motion(subject) | {"light": shades(), "dark": shades()[::-1]}
    scene = as_json(moving)
    tell("checks")
    claims = check(subject.flow, subject.rows.x, context=subject.rows.context)
    return template().render(
        title=title,
        source=source,
        scores=scores,
        claims=claims,
        shade=shade(exact=moving["exact"]),
        scene=squeezed(scene),
        **pictures,
        **words_of(subject),
        **fixed_parts(),
    )


def pictures_of(subject: ReportData) -> dict[str, Any]:
    """Every picture that stands still; None where there is nothing to draw."""
    samples = subject.samples(SAMPLES)
    return {
        "history": history(records(subject)),
        "marginals": marginals(subject, samples),
        "pairs": pairs(subject, samples) if subject.dim > 1 else None,
        "calibration": calibration(subject, ranks(subject)),
    }


def words_of(subject: ReportData) -> dict[str, Any]:
    """What the page says about the flow and the rows that judge it."""
    return {
        "names": subject.names,
        "rows": len(subject.rows),
        "judged": judged(subject),
        "unscored": int((~subject.log_prob.isfinite()).sum()),
        "facts": model_card(subject.flow, subject.names),
    }


def fixed_parts() -> dict[str, Any]:
    """What is the same on every page."""
    return {
        "version": version("cnf"),
        "paired": MOST_PAIRED,
        "nats": nats,
        "step": 1 / (TIMES - 1),
        "style": Markup(asset("page.css")),
        "script": Markup(asset("flow.js")),
        "library": squeezed(get_plotlyjs()),
    }


def as_json(moving: dict[str, Any]) -> str:
    """What moves, as text; refuses what no browser can draw."""
    try:
        return json.dumps(moving, allow_nan=False)
    except ValueError as failure:
        raise ValueError(
            "the flow carries its particles out of all bounds: no page can show it; `cnf check` says more"
        ) from failure


def records(subject: ReportData) -> list[dict[str, Any]]:
    """The moments of the training, if the flow remembers it."""
    return (subject.flow.metadata.get("history") or {}).get("records", [])


def judged(subject: ReportData) -> str:
    """What the rows are to the flow and its baselines."""
    if subject.train is not None:
        return "The flow and its baselines learned from other rows of the same table."
    return (
        "These rows are taken to be new to the flow."
        " Baselines learned from the half of them that a row is not in."
    )


def nats(mean: float, error: float) -> str:
    """A mean with its standard error.

    >>> nats(-0.5, 0.01)
    '−0.500 ± 0.010'
    """
    return f"{mean:.3f} ± {error:.3f}".replace("-", "−")


def shade(*, exact: bool) -> str:
    """What the picture of the flow shows, in words."""
    counted = "the density of the two columns, counted from the flow's particles"
    return (
        f"Dots are {PARTICLES} particles of the flow. Shade is {'the exact density' if exact else counted}:"
        " bare where it is zero, full at its peak at that time."
    )


def shades() -> list[str]:
    """The colors of a map, from none to the peak."""
    return [to_hex(color) for color in DENSITY(np.linspace(0, 1, SHADES))]


def squeezed(text: str) -> str:
    """Text compressed by gzip, in base64: a browser unpacks it."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def asset(name: str) -> str:
    """A file of this room."""
    return files("cnf.report").joinpath(name).read_text(encoding="utf-8")


def template() -> Any:
    """The page's frame; whatever is put into it is escaped, since names of columns are
    anyone's."""
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(
        asset("page.html")
    )
