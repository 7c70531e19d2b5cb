"""The registry of report sections, rendered in their order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from cnf.diagnostics import check
from cnf.diagnostics.calibration import calibration_ranks
from cnf.plugins import Registry
from cnf.report.animation import PARTICLES, TIMES, has_exact_map
from cnf.report.baselines import compare
from cnf.report.data import ReportData
from cnf.report.figures import MOST_PAIRED, calibration, globes, history, marginals, pairs, roses
from cnf.report.model_card import model_card, records
from cnf.report.scene import scene
from cnf.report.templates import filled


@dataclass(frozen=True)
class Section:
    """One section of a report.

    Attributes:
        name: of its anchor on the page.
        title: its heading.
        render: a function from the `ReportData` to the markup under the heading; an empty result
            leaves the section out. Text that is not `Markup` is escaped.
        order: sections come in rising order; the built-in ones are at 10, 20, …, 80.
    """

    name: str
    title: str
    render: Callable[[ReportData], str]
    order: float = 100


def nats(mean: float, error: float) -> str:
    """A mean with its standard error.

    >>> nats(-0.5, 0.01)
    '−0.500 ± 0.010'
    """
    return f"{mean:.3f} ± {error:.3f}".replace("-", "−")


def render_model(data: ReportData) -> Markup:
    """Facts about the flow."""
    return filled("about.html", facts=model_card(data.flow, data.names))


def render_scores(data: ReportData) -> Markup:
    """The negative log-likelihood and those of the baselines."""
    unscored = int((~data.log_prob.isfinite()).sum())
    known = {} if data.whole is None else data.flow.metadata.get("history") or {}
    return filled("scores.html", scores=compare(data), nats=nats, unscored=unscored, fit=known)


def render_flow(data: ReportData) -> Markup:
    """The flow in motion, which flow.js draws."""
    counted = "the density of the two columns, counted from particles"
    return filled(
        "flow.html",
        step=1 / (TIMES - 1),
        particles=PARTICLES,
        shade="the exact density" if has_exact_map(data) else counted,
        scene=scene(data),
    )


def render_calculator(data: ReportData) -> str:
    """The form that scores a row, where it was asked for."""
    return data.calculator


def render_training(data: ReportData) -> str:
    """The course of the training, for a flow that has a history."""
    known = records(data.flow)
    return filled("training.html", pictures=history(known)) if known else ""


def render_columns(data: ReportData) -> Markup:
    """Histograms of every column; roses of angles, and maps of places on a sphere."""
    rows = data.table
    return filled("columns.html", pictures=[*marginals(rows), *roses(rows), *globes(rows)])


def render_pairs(data: ReportData) -> str:
    """Scatter plots of every two columns."""
    count = len(data.table.names)
    if count < 2:
        return ""
    return filled("pairs.html", picture=pairs(data.table), count=count, most=MOST_PAIRED)


def render_odd_rows(data: ReportData) -> str:
    """The most unusual rows, with the columns that make them so."""
    return filled("odd.html", rows=data.odd) if data.odd else ""


def render_calibration(data: ReportData) -> Markup:
    """Ranks of the rows among samples."""
    found = calibration_ranks(data.flow, data.rows, data.log_prob)
    return filled("calibration.html", pictures=calibration(found, data.names))


def render_checks(data: ReportData) -> Markup:
    """The results of `cnf.diagnostics.check`, or those of a whole table."""
    claims = data.claims
    if claims is None:
        claims = check(data.flow, data.rows.x, context=data.rows.context)
    return filled("checks.html", claims=claims)


SECTIONS: Registry[Section] = Registry(
    "section of the report",
    [
        Section("about", "The model", render_model, 10),
        Section("held-out", "Held-out likelihood", render_scores, 20),
        Section("flow", "The flow, from base to data", render_flow, 30),
        Section("calculator", "Score a row", render_calculator, 35),
        Section("training", "Training", render_training, 40),
        Section("columns", "Columns", render_columns, 50),
        Section("pairs", "Columns in pairs", render_pairs, 60),
        Section("odd", "Odd rows", render_odd_rows, 65),
        Section("calibration", "Calibration", render_calibration, 70),
        Section("checks", "Checks", render_checks, 80),
    ],
)
