"""Pictures of the computation: the steps of a solve, the progress of the training."""

from __future__ import annotations

from dataclasses import replace

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cnf import plotting
from cnf.flows import CNF
from cnf.pictures.context import PlotContext
from cnf.rows import evenly_spaced

ROWS = 1000  # whose errors are shown


def draw_steps(context: PlotContext) -> Figure:
    """Lengths of the solver's steps, and the error that each makes in the log-density."""
    flow = context.flow
    if not flow.solver.estimates_error:
        raise ValueError(
            f"{context.title}: steps are drawn for a flow with a calibrated grid; calibrate it"
        )
    rows = context.samples(ROWS) if context.data is None else context.data
    errors = step_errors(flow, rows[evenly_spaced(rows, ROWS)], context.context)
    # Scoring solves from the data to the base; the picture runs from the base to the data.
    times = 1 - torch.tensor(flow.solver.between(1.0, 0.0).step_times, dtype=torch.float64).flip(0)
    moves = times.diff() > 0  # a repeated time is a step of length zero
    return plotting.steps(torch.cat([times[:-1][moves], times[-1:]]), errors[moves])[0].figure


def step_errors(flow: CNF, rows: Tensor, context: Tensor | None) -> Tensor:
    """The error in log p(x) that each step makes for each row (steps, rows), in nats, by the
    flow's own error model."""
    context = None if context is None else context.expand(len(rows), -1)
    y, condition, _ = flow.to_model_coordinates(rows, context)
    found = flow.solve_log_prob(y, condition)
    model = replace(flow.error_model, floor=0.0)  # the floor belongs to no step
    steps = zip(found.x_error.split(1), found.q_error.split(1))
    return torch.stack([model.estimate(found._replace(x_error=x, q_error=q)) for x, q in steps])


def draw_history(context: PlotContext) -> Figure:
    """The course of the training."""
    known = context.metadata.get("history")
    if known is None:
        raise ValueError(
            f"{context.title}: the model has no history; `cnf fit` writes models that do"
        )
    return plotting.history(known["records"])[0].figure
