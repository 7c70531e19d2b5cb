"""The report: all sections in one file that needs no network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from markupsafe import Markup
from plotly.offline import get_plotlyjs

from cnf.deprecation import renamed_argument
from cnf.diagnostics import CheckResult
from cnf.files import atomic_path
from cnf.flows import CNF
from cnf.pictures.context import TableRows
from cnf.report.data import OddRow, ReportData, report_data
from cnf.report.scene import compressed
from cnf.report.sections import SECTIONS
from cnf.report.templates import asset, filled
from cnf.rows import Rows
from cnf.version import VERSION

Callback = Callable[[str], None]


@renamed_argument("tell", "callback")
def write_report(
    flow: CNF,
    rows: Rows,
    output: str | Path,
    *,
    train: Rows | None = None,
    names: Sequence[str] | None = None,
    title: str = "A flow",
    source: str = "",
    whole: TableRows | None = None,
    odd: Sequence[OddRow] = (),
    show_time: Callable[[float], str] | None = None,
    calculator: str = "",
    claims: Sequence[CheckResult] | None = None,
    learned: str = "",
    callback: Callback = lambda title: None,
) -> None:
    """Write an HTML report on a flow: its description, its held-out likelihood, its calibration,
    and an animation.

    The report opens in any browser without a server or network, and is smaller than 6 MB.

    Args:
        flow: is not changed.
        rows: rows for the evaluation, in the units of the flow; they should be new to it.
        output: the file to write, replaced only by a complete new one.
        train: training rows of the flow, to which the baselines are fitted. Without them,
            baselines are fitted to one half of `rows` and evaluated on the other.
        names: of the columns; default: those in `flow.metadata`, or x₁, x₂, … Units are taken from
            `flow.metadata["units"]`, a dict from name to unit.
        title: heading of the page.
        source: where the rows are from, in words.
        whole: rows of all columns, for a table with non-numeric columns.
        odd: the most unusual rows, the most unusual first, for a model that can explain them.
        show_time: function that formats a time, for one flow through time, whose context is the
            time.
        calculator: the form that scores a row, of `cnf.report.calculator`; empty for none.
        claims: results of `cnf.diagnostics.check_table`, for a table; None checks the flow.
        learned: a statement about rows that the flow was trained on; empty if all are new to it.
        callback: is called with the title of each section as it begins.

    Raises:
        ValueError: for another number of columns than the flow has, fewer than 10 rows, or an
            output that cannot be written.
    """
    data = report_data(
        flow, rows, train, names, source, whole, odd, show_time, calculator, claims, learned
    )
    with atomic_path(output) as temporary:
        temporary.write_text(page(data, title, callback), encoding="utf-8")


def page(data: ReportData, title: str, callback: Callback) -> str:
    """The text of the page."""
    sections = []
    for section in sorted(SECTIONS, key=lambda section: section.order):
        callback(section.title)
        if body := section.render(data):
            sections.append((section.name, section.title, body))
    return filled(
        "page.html",
        title=title,
        data=data,
        judged=judged(data),
        sections=sections,
        version=VERSION,
        style=Markup(asset("page.css")),
        script=Markup(asset("flow.js")),
        library=compressed(get_plotlyjs()),
    )


def judged(data: ReportData) -> str:
    """Whether the flow and its baselines have seen the rows, in words."""
    if data.train is not None:
        return "The flow and its baselines were fitted to other rows of the same table."
    known = data.learned or "These rows are assumed to be new to the flow"
    return f"{known}. Baselines are fitted to the half that does not contain the row."
