"""Transport from rows to rows: the base of the flow is the density of a source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import cnf.recipe.defaults as defaults
from cnf.fields import DisplacementField, SumField
from cnf.flows import CNF
from cnf.flows.source_base import SourceBase
from cnf.inputs import as_rows
from cnf.recipe.architecture import default_field
from cnf.recipe.preparation import at_rest
from cnf.recipe.settings import FitSettings
from cnf.rows import Rows
from cnf.training.config import Clock, Phase
from cnf.training.couplings import MinibatchOT
from cnf.training.flow_matching import FlowMatching
from cnf.training.maximum_likelihood import MaximumLikelihood
from cnf.transforms import Affine, BoundedToReal, Chain, Gaussianize, Range, Transform
from cnf.transforms.affine import moments


@dataclass(frozen=True)
class Source:
    """The source from which rows are transported.

    Attributes:
        flow: density of the source.
        rows: rows of the source, or draws from its density (rows, dim), in the units of the data.
    """

    flow: CNF
    rows: Tensor


def source_of(
    given: Any,
    flow: CNF,
    fit: Callable[..., Any],
    *,
    steps: int | None,
    seconds: float | None,
    checkpoint: str | Path | None,
    seed: int,
    ranges: Sequence[Range] | None,
    clock: Clock,
) -> Source:
    """The source as a fitted flow with rows: a given flow with draws from it, or given rows with a new
    flow, which is fitted to them with its share of the budget.

    Args:
        given: rows, or a fitted flow.
        flow: flow whose base will be the source.
        fit: `cnf.fit`.
        steps: training steps of the whole budget.
        seconds: seconds of the whole budget, measured by `clock`.
        checkpoint: checkpoint of the fit of `flow`; that of the source is written beside it.
        seed: seed of both fits.
        ranges: (lower, upper) of every column, None for no bound.
        clock: function that returns the seconds of the budget.

    Raises:
        ValueError: for rows that are not finite or too few.
    """
    if isinstance(given, CNF):
        generator = torch.Generator(given.device).manual_seed(seed)
        source, rows = given, given.sample((defaults.SOURCE_DRAWS,), generator=generator)
    else:
        rows = as_rows("source", given, None, None, flow.device).x
        source = CNF(rows.shape[1]).to(flow.device, flow.dtype)
        fit(
            source, rows, seed=seed, tolerance=defaults.SOURCE_TOLERANCE, ranges=ranges, clock=clock,
            steps=None if steps is None else max(1, int(defaults.SOURCE_SHARE * steps)),
            seconds=None if seconds is None else defaults.SOURCE_SHARE * seconds,
            checkpoint=None if checkpoint is None else f"{checkpoint}.source",
        )  # fmt: skip
    return Source(source, rows)


def start_from(
    given: Any,
    flow: CNF,
    train: Rows,
    settings: FitSettings,
    fit: Callable[..., Any],
    *,
    steps: int | None,
    seconds: float | None,
    checkpoint: str | Path | None,
    seed: int,
) -> FitSettings:
    """Make the source the base of a flow, and its displacement the start of the field; return the
    settings of the fit that follows. For the arguments, see `source_of`."""
    source = source_of(
        given, flow, fit, steps=steps, seconds=seconds, checkpoint=checkpoint,
        seed=seed, ranges=settings.ranges, clock=settings.clock,
    )  # fmt: skip
    start_at(flow, source, train, settings.ranges)
    start_displaced(flow, source, train, seed=seed)
    return with_source(settings, source)


def start_at(
    flow: CNF, source: Source, train: Rows, ranges: Sequence[Range] | None = None
) -> None:
    """Install the source as the base. Unless the transform was given, also install one that scales all
    columns alike, since optimal transport depends on the metric.

    Raises:
        ValueError: for a flow with a context, for one whose base was given, and for training rows with
            linearly dependent columns.
    """
    if source.flow.dim != flow.dim or flow.context_dim or source.flow.context_dim:
        raise ValueError(
            f"source: expected {flow.dim} columns, as x has, and no context on either side; got"
            f" {source.flow.dim} columns"
        )
    if "base" not in flow.automatic:
        raise ValueError('source: expected a flow with base="auto"')
    if "preprocess" in flow.automatic:
        pooled = torch.cat([train.x, source.rows.to(train.x)]).double()
        flow.preprocess = _opened(pooled, ranges, _one_scale).to(flow.device)
    Affine.whiten(flow.preprocess(train.x)[0], train.weights)  # rejects rows without a density
    flow.base = SourceBase(source.flow, flow.preprocess).to(flow.device, flow.dtype)
    flow.automatic -= {"base", "preprocess"}


def start_displaced(flow: CNF, source: Source, train: Rows, *, seed: int) -> None:
    """Add to a zero field the optimal transport between two Gaussians with the moments of the source
    and of the data, so that the field learns a correction."""
    if not at_rest(flow):
        return
    ends = (Rows(source.rows), train)
    found = (moments(flow.to_model_coordinates(rows.x)[0], rows.weights) for rows in ends)
    field = flow.field
    if "field" in flow.automatic:
        field = default_field(len(train), flow.dim, seed=seed)
        flow.automatic.remove("field")
    flow.field = SumField([DisplacementField.between(*found), field]).to(flow.device, flow.dtype)


def measure_by_column(
    flow: CNF, train: Rows, source: Tensor, ranges: Sequence[Range] | None
) -> None:
    """Unless the transform was given, install one that makes each column of both tables together nearly
    standard normal, since the columns of a table have no common unit."""
    if "preprocess" not in flow.automatic:
        return
    rows = as_rows("source", source, None, None, flow.device).x
    pooled = torch.cat([train.x, rows.to(train.x)]).double()
    flow.preprocess = _opened(pooled, ranges, _by_column).to(flow.device)
    flow.automatic.remove("preprocess")


def _opened(
    x: Tensor, ranges: Sequence[Range] | None, transform_of: Callable[[Tensor], Transform]
) -> Transform:
    """A transform of rows x (rows, dim), composed with maps of bounded columns to the real line."""
    if ranges is None:
        return transform_of(x)
    support = BoundedToReal(ranges).to(x.device)
    return Chain(support, transform_of(support(x)[0]))


def _one_scale(x: Tensor) -> Transform:
    """Shift rows x (rows, dim) to mean zero, and scale all columns alike to an overall deviation of one."""
    mean = x.mean(0)
    scale = (x - mean).square().mean().sqrt()
    return Affine(mean, scale * torch.eye(x.shape[1]).to(scale))


def _by_column(x: Tensor) -> Transform:
    """Transform every column of rows x (rows, dim) to mean zero and deviation one, and to a nearly normal
    shape if there are enough rows."""
    return Gaussianize.fit(x) if len(x) >= defaults.TRANSFORM_ROWS else Affine.standardize(x)


def with_source(settings: FitSettings, source: Source) -> FitSettings:
    """The settings with optimal-transport pairs from the source, and a small penalty on the length of
    paths, which selects among equally likely maps and does not distort them."""
    block = defaults.SOURCE_COUPLING_BLOCK
    phases: list[Phase] = []
    for phase in settings.phases:
        if isinstance(phase.objective, FlowMatching):
            matching = replace(
                phase.objective,
                source=source.rows,
                coupling=MinibatchOT(block),
                pairs=min(defaults.SOURCE_PAIRS, (phase.steps or defaults.SOURCE_PAIRS) * block),
            )
            phases.append(replace(phase, objective=matching, batch=block))
        elif isinstance(phase.objective, MaximumLikelihood):
            weights = replace(phase.objective.regularizers, kinetic=defaults.SOURCE_KINETIC)
            likelihood = replace(phase.objective, regularizers=weights, nfe_budget=None)
            phases.append(replace(phase, objective=likelihood))
    return replace(settings, phases=tuple(phases), ranges=None)
