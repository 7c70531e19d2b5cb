"""Pictures of all columns."""

from __future__ import annotations

from matplotlib.figure import Figure

from cnf import plotting
from cnf.diagnostics.calibration import calibration_ranks
from cnf.pictures.context import PlotContext, seeded
from cnf.pictures.visible import visible_log_prob
from cnf.plotting.style import styled

DRAWS = 2000  # samples under each value of a context that is swept


def draw_marginals(context: PlotContext) -> Figure:
    """Every column of the samples, over the data if there are any."""
    rows = context.rows
    return plotting.marginals(
        *rows.tables, names=rows.names, levels=rows.levels, formats=rows.formats
    )[0].figure


def draw_pairs(context: PlotContext) -> Figure:
    """Columns in pairs: samples, or the data below the diagonal and samples above it."""
    rows = context.rows
    return plotting.pairs(
        *rows.tables, names=rows.names, levels=rows.levels, formats=rows.formats
    )[0, 0].figure


def draw_slices(context: PlotContext) -> Figure:
    """The log-density along every column, through five rows."""
    flow = context.flow
    return plotting.slices(
        lambda rows: visible_log_prob(flow, rows, context.context),
        context.typical(5),
        context.all_limits,
        names=context.columns,
    )[0].figure


def draw_what_if(context: PlotContext) -> Figure:
    """Every column against the context column that is swept."""
    sweep = context.sweep
    assert sweep is not None, "the kind what-if has a sweep"
    drawn = context.flow.sample((DRAWS,), sweep.context, generator=seeded())
    return plotting.what_if(
        sweep.values, drawn.transpose(0, 1), context=sweep.name, names=context.columns
    )[0].figure


@styled
def draw_calibration(context: PlotContext) -> Figure:
    """Coverage of highest-density regions, and the ranks of every column."""
    assert context.held_out is not None, "the kind calibration has rows"
    found = calibration_ranks(context.flow, context.held_out)
    dim = context.flow.dim
    across = min(dim + 1, 4)
    page, grid = plotting.figure(-(-(dim + 1) // across), across, panel=(2.0, 1.9))
    first, *others = grid.ravel()
    plotting.calibration(found.density, ax=first)
    plotting.pit(found.columns, names=context.columns, axes=others[:dim])
    for ax in others[dim:]:
        page.delaxes(ax)
    return page
