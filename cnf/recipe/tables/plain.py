"""Fit a table of continuous columns: the recipe of `cnf.fit`, with the supports of the
columns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cnf.flows import CNF, SnapshotFlow
from cnf.flows.gaussian import LinearGaussian
from cnf.inputs import as_rows
from cnf.recipe.fit import fit
from cnf.recipe.snapshots import fit_through_time
from cnf.recipe.source import measure_by_column
from cnf.recipe.tables.rows import TableRows
from cnf.rows import Rows, held_out_split, weighted_nll
from cnf.tables.model import TableFlow
from cnf.training.history import History


def plain_rows(model: TableFlow, rows: TableRows, *, weighted: bool) -> Rows:
    """Encoded rows in the form that `cnf.fit` takes; rows of weight zero are left out.

    Raises:
        ValueError: for missing cells, with the name of the row.
    """
    x = rows.cells.values.masked_fill(rows.cells.states < 0, torch.nan)
    context = model.conditions(rows.cells.states, model.conditioning.context(rows.context))
    return as_rows("rows", x, context, rows.counts if weighted else None, x.device)


def fit_plain(
    model: TableFlow, rows: Rows, valid: Rows | None, *, source: Tensor | None, **options: Any
) -> History:
    """Fit a model with a numeric context or none by `cnf.fit`, with its `options`."""
    assert model.flow is not None, "a plain table has numbers"
    if source is not None:
        measure_by_column(model.flow, rows, source, model.schema.ranges)
    return fit(
        model.flow,
        rows.x,
        None if valid is None else valid.x,
        context=rows.context,
        context_valid=None if valid is None else valid.context,
        weights=rows.weights,
        ranges=model.schema.ranges,
        source=source,
        **options,
    )


def fit_moving(
    model: TableFlow,
    rows: Rows,
    valid: Rows | None,
    *,
    seed: int,
    any_subset: bool,
    source: None,
    stream: None,
    **options: Any,
) -> History:
    """Fit a model of one flow through time to rows whose context is the time.

    Raises:
        ValueError: for `any_subset`, which is not available with `time`.
    """
    if any_subset:
        raise ValueError("time: expected no any_subset beside it; leave one of them out")
    assert model.flow is not None
    moving = SnapshotFlow(model.flow)
    flow = CNF(model.flow.dim, field=moving.field).to(model.device)
    train, held_out = held_out_split(rows, seed) if valid is None else (rows, valid)
    fit_through_time(
        flow, moving, train, held_out, seed=seed, ranges=model.schema.ranges, **options
    )
    return moving.history


def gaussian_nll(train: Rows, valid: Rows) -> tuple[float, float]:
    """Held-out NLL of one Gaussian fitted to the training rows, and its standard error, in nats.

    Its mean is linear in the context, if there is one.
    """
    return weighted_nll(LinearGaussian.fit(train).log_prob(valid), valid.weights)
