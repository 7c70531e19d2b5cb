"""Fit a table with discrete states: the states first, then the flow over the numbers, then the
imputer."""

from __future__ import annotations

import math
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import cnf.recipe.defaults as defaults
from cnf.fields import AT_REST
from cnf.recipe.fit import fit
from cnf.recipe.tables.budget import Budget
from cnf.recipe.tables.discrete import DiscreteRows, fit_discrete
from cnf.recipe.tables.few_rows import Fallback, Numbers, fallback_if_better
from cnf.recipe.tables.imputer import fit_imputer
from cnf.recipe.tables.rows import TableRows, dequantized
from cnf.rows import Rows, distinct_rows, evenly_spaced, weighted_nll
from cnf.tables.conditioning import StateConditioning
from cnf.tables.gaussian_cells import NumberRows
from cnf.tables.masked_flow import gaussianizing_maps
from cnf.tables.model import TableFlow
from cnf.training.checkpoint import extent
from cnf.training.config import Clock
from cnf.training.errors import Interrupted
from cnf.training.history import History
from cnf.training.streams import RowStream

# The seconds of a flow are rounded to these decimals, so that their parts add up exactly.
ROUNDED = 6


def fit_states(
    model: TableFlow,
    train: TableRows,
    valid: TableRows,
    *,
    seed: int,
    steps: int | None,
    seconds: float | None,
    spent: float,
    clock: Clock,
    imputer: bool,
    refit: bool,
    likelihood_share: float | None,
    stream: RowStream | None = None,
    **options: Any,
) -> History:
    """Fit a model whose flow is conditioned on states to encoded rows; see `cnf.fit_table`.

    `options` are the checkpoint and the callbacks of `cnf.fit`, and `spent` is the number of seconds
    already used. `refit` says whether the fallback for few rows is finally refitted to the held-out
    rows as well. `stream` contains all training rows if `train` is a sample of them.
    """
    whole = Budget.now(steps, seconds, clock, spent)
    share = 1 - defaults.IMPUTER_SHARE if imputer else 1.0
    budget = Budget.now(steps, None if seconds is None else share * seconds, clock, share * spent)
    generator = torch.Generator(model.device).manual_seed(seed)
    mapped = train.take(evenly_spaced(train.weights, _mapped_rows(model, train, budget)))
    start = budget.clock()
    fit_maps(model, mapped, generator)
    few = model.schema.charts is None and _few(
        budget, len(train), len(valid), budget.clock() - start
    )
    if model.discrete is not None:
        pairs = [_discrete_rows(model, part) for part in (train, valid)]
        states = None if stream is None else stream.mapped(partial(_discrete_rows, model))
        fit_discrete(model.discrete, *pairs, budget=budget, seed=seed, stream=states)
    history, stopped, fallback = History(), None, None
    try:
        if model.flow is not None:
            history = _fit_flow(
                model, train, valid, budget, generator,
                few=few, seed=seed, likelihood_share=likelihood_share, stream=stream, **options,
            )  # fmt: skip
            if few:
                numbers = [_numbers(model, rows, generator) for rows in (train, valid)]
                groups = model.conditioning.categories
                deadline = budget.deadline(defaults.FEW_ROWS_SHARE)
                fallback = fallback_if_better(
                    model.flow, groups, numbers[0], numbers[1], seed, deadline
                )
    except Interrupted as stop:
        history, stopped = stop.history, stop
    model.eval()
    if fallback is not None:
        _install(model, fallback, numbers[0], history)
    _measure(model, train, budget)
    history.valid_nll, history.valid_se = _mean_nll(model, valid, budget)
    if fallback is not None and refit:
        _install(model, fallback, numbers[0].joined(numbers[1]), history)
        history.refit = True
        _measure(model, train, budget)
    history.train_nll, history.train_se = _mean_nll(model, train, budget)
    if imputer and stopped is None:
        rest = Budget.now(steps, whole.left, clock)
        callbacks = options.get("callbacks", ())
        try:
            fit_imputer(model, train, valid, rest, seed=seed, callbacks=callbacks)
        except Interrupted:
            stopped = Interrupted(history)
    if stopped is not None:
        raise stopped
    return history


def _fit_flow(
    model: TableFlow,
    train: TableRows,
    valid: TableRows,
    budget: Budget,
    generator: torch.Generator,
    *,
    few: bool,
    seed: int,
    likelihood_share: float | None,
    stream: RowStream | None,
    checkpoint: str | Path | None = None,
    **options: Any,
) -> History:
    """Fit the flow over the numbers by the recipe of `cnf.fit`; with `few` rows, time is reserved for a
    cross-validation."""
    assert model.flow is not None, "there are numbers"
    # A resumed fit uses the rows and the seconds of its start, whatever the timings are now.
    begun = None if checkpoint is None else extent(Path(checkpoint))
    seconds: float | None
    if begun is not None and stream is None:
        rows, judges, seconds = begun
        seconds /= defaults.TRAINING_SHARE
    else:
        rows, judges = _affordable(model, train, valid, budget)
        seconds = budget.flow_seconds(
            defaults.CELLS_SHARE
            + defaults.LAST_SCORE_SHARE
            + (defaults.FEW_ROWS_SHARE if few else 0.0)
        )
    train = train.take(evenly_spaced(train.weights, rows))
    valid = valid.take(evenly_spaced(valid.weights, judges))
    copies = rows // len(train)
    x, context = _dequantized_copies(model, train, copies, generator)
    x_valid, context_valid = _dequantized_copies(model, valid, 1, generator)
    history = fit(
        model.flow, x, x_valid,
        context=context, context_valid=context_valid,
        weights=None if stream is not None else train.weights.repeat(copies), seed=seed,
        steps=budget.flow_steps(len(train) if stream is None else stream.rows),
        seconds=None if seconds is None else round(seconds, ROUNDED), clock=budget.clock,
        likelihood_share=budget.likelihood_share(likelihood_share),
        tolerance=defaults.TYPED_TOLERANCE, checkpoint=checkpoint, scored=False,
        stream=None if stream is None else _flow_stream(model, stream, seed), **options,
    )  # fmt: skip
    # The transform and the base are those of every table with states; rows were drawn several times.
    known = {key: choice for key, choice in history.choices.items() if choice != "given"}
    history.choices = {**known, "rows": known["rows"] // copies}
    return history


def _flow_stream(model: TableFlow, stream: RowStream, seed: int) -> RowStream:
    """The dequantized numbers of encoded rows, and the flow's context."""

    def rows(chunk: TableRows, generator: torch.Generator) -> Rows:
        return Rows(*_dequantized_copies(model, chunk, 1, generator))

    return stream.mapped_at_random(rows, seed, model.device)


def _few(budget: Budget, train: int, valid: int, seconds: float) -> bool:
    """Whether there are so few rows that a cross-validation is done, and time for it: each fold takes at
    least the `seconds` that fitting the transforms took."""
    if train + valid >= defaults.STACKING_ROWS:
        return False
    if budget.seconds is None:
        return (budget.flow_steps(train) or 0) >= defaults.STACKING_STEPS
    return defaults.STACKING_FOLDS * seconds <= defaults.FEW_ROWS_SHARE * budget.seconds


def _numbers(model: TableFlow, rows: TableRows, generator: torch.Generator) -> Numbers:
    conditioning = model.conditioning
    assert isinstance(conditioning, StateConditioning), "plain tables have a fallback of their own"
    states = rows.cells.states
    features = conditioning.features(states, conditioning.context(rows.context))
    x = dequantized(model, rows.cells, generator).values
    return Numbers(x, model.present(states), features, rows.weights)


def _install(model: TableFlow, fallback: Fallback, rows: Numbers, history: History) -> None:
    """Replace the flow by a fallback, fitted to rows."""
    assert model.flow is not None, "there are numbers"
    model.flow = fallback.installed(model.flow, rows)
    model.flow.calibrate(rows.x, defaults.TYPED_TOLERANCE, context=rows.context)
    history.choices = {**(history.choices or {}), **fallback.choices, "field": AT_REST}


def _measure(model: TableFlow, train: TableRows, budget: Budget) -> None:
    """Measure the error of a single quadrature point per cell, on as many rows as time allows. Its
    Gaussian model does not apply to circles, where all cells use one rule."""
    flow = model.flow
    if flow is None or model.schema.charts is not None:
        return

    def measured(rows: int) -> None:
        some = train.take(evenly_spaced(train.weights, rows))
        states = some.cells.states
        conditions = model.conditions(states, model.conditioning.context(some.context))
        numbers = NumberRows(some.cells.values, model.present(states), conditions)
        model.integrals.measure(flow, numbers)

    fewest = defaults.FEWEST_MEASURED_ROWS
    measured(budget.rows(len(train), defaults.CELLS_SHARE, measured, fewest=fewest))


def _mean_nll(model: TableFlow, rows: TableRows, budget: Budget) -> tuple[float, float]:
    """Mean of −log p over whole rows, in the units of the table, and its standard error; as many rows
    are scored as time allows."""

    @cache
    def nll(count: int) -> tuple[float, float]:
        chosen = rows.take(evenly_spaced(rows.weights, count))
        return weighted_nll(_log_prob(model, chosen), chosen.weights)

    most, fewest = defaults.TYPED_JUDGED_ROWS, defaults.TYPED_FEWEST_JUDGED_ROWS
    most = min(most, len(rows))
    return nll(budget.rows(most, defaults.LAST_SCORE_SHARE, nll, fewest=fewest))


def _log_prob(model: TableFlow, rows: TableRows) -> Tensor:
    context = model.conditioning.context(rows.context)
    return model.evaluate_cells(rows.cells, context).log_prob


def _mapped_rows(model: TableFlow, train: TableRows, budget: Budget) -> int:
    """Number of rows to which the transforms are fitted. With many patterns of missing cells, it is
    limited by the seconds. It depends on no clock, so that a resumed fit has the same transforms."""
    present = model.present(train.cells.states)
    patterns = len(distinct_rows(present)[0]) if present.numel() else 0
    if budget.seconds is None or not patterns:
        return len(train)
    usual, cubic = defaults.PATTERN_SECONDS
    cost = patterns * (usual + cubic * present.shape[1] ** 3)
    share = defaults.MAPS_SHARE * budget.seconds / cost
    return min(len(train), max(defaults.FEWEST_MAPPED_ROWS, int(share * len(train))))


def fit_maps(model: TableFlow, train: TableRows, generator: torch.Generator) -> None:
    """Fit the features of states and context, and the transforms of the flow."""
    conditioning = model.conditioning
    assert isinstance(conditioning, StateConditioning), "plain tables have no maps"
    conditioning.fit(train.cells, train.context, train.weights)
    cells = dequantized(model, train.cells, generator)
    if model.flow is None:
        return
    marginals, whitening = gaussianizing_maps(model.flow)
    present, context = model.present(cells.states), conditioning.context(train.context)
    values, charts = cells.values, model.schema.charts
    if charts is not None:
        values, present = values[:, charts.reals], present[:, charts.reals]
    marginals.fit(values, present, train.weights)
    y = marginals.by_cell(values)[0].where(present, 0.0)
    whitening.fit(y, present, conditioning.features(cells.states, context), train.weights)


def _dequantized_copies(
    model: TableFlow, rows: TableRows, copies: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Numbers (copies · rows, numeric), dequantized anew in each copy, and the flow's context."""
    context = model.conditioning.context(rows.context)
    conditions = model.conditions(rows.cells.states, context)
    assert conditions is not None, "states condition the flow"
    parts = [dequantized(model, rows.cells, generator).values for _ in range(copies)]
    return torch.cat(parts), conditions.repeat(copies, 1)


def _affordable(
    model: TableFlow, train: TableRows, valid: TableRows, budget: Budget
) -> tuple[int, int]:
    """Number of rows that the flow is trained on, counting each dequantized copy, and number of validation
    rows: as many as time allows to transform."""
    flow = model.flow
    assert flow is not None, "there are numbers"
    generator = torch.Generator(model.device).manual_seed(0)

    def mapped(rows: int) -> None:
        some = train.take(evenly_spaced(train.weights, rows, repeat=True))
        flow.to_model_coordinates(*_dequantized_copies(model, some, 1, generator))

    copies = 1
    if any(column.step for column in model.schema.modeled):
        wanted = math.ceil(defaults.DEQUANTIZED_ROWS / len(train))
        copies = min(defaults.DEQUANTIZED_MOST_COPIES, wanted)
    most, fewest = (copies * len(train), len(valid)), defaults.FEWEST_MAPPED_ROWS
    shares = defaults.COPIES_SHARE, defaults.JUDGES_SHARE
    learned, judges = (budget.rows(*part, mapped, fewest=fewest) for part in zip(most, shares))
    return learned, judges


def _discrete_rows(model: TableFlow, rows: TableRows) -> DiscreteRows:
    extra = model.conditioning.context(rows.context).to(model.dtype)
    states = rows.cells.states
    return DiscreteRows(states, extra, torch.zeros_like(states, dtype=torch.bool), rows.weights)
