"""Rows to rows: a flow that starts from the density of a source."""

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
    """Where rows are carried from.

    Attributes:
        flow: the density of the source.
        rows: of the source, or draws of its density (rows, dim), in the units of the data.
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
    """A fitted flow as it is, with draws of it; a new flow for rows, fitted to them with its part
    of the budget.

    Args:
        given: rows, or a fitted flow.
        flow: that starts from the source.
        fit: `cnf.fit`.
        steps: of the whole budget; likewise `seconds`, in those of `clock`.
        seconds: see `steps`.
        checkpoint: of the fit of `flow`; that of the source stands beside it.
        seed: of both fits.
        ranges: (lower, upper) of every column, None for no end.
        clock: the seconds that the budget is in.

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


def start_at(
    flow: CNF, source: Source, train: Rows, ranges: Sequence[Range] | None = None
) -> None:
    """Give the flow the source as its base, and, unless its transform was given, coordinates in which
    distances are those of the data, but for one scale: optimal transport depends on the metric.

    Raises:
        ValueError: for a flow with a context, one whose base was given, and rows to learn from whose
            columns depend on each other.
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
    Affine.whiten(flow.preprocess(train.x)[0], train.weights)  # refuses rows that have no density
    flow.base = SourceBase(source.flow, flow.preprocess).to(flow.device, flow.dtype)
    flow.automatic -= {"base", "preprocess"}


def start_displaced(flow: CNF, source: Source, train: Rows, *, seed: int) -> None:
    """Add to a field at rest the motion of optimal transport between the two Gaussians that have
    the moments of the source and of the data: the field learns the rest."""
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
    """Give the flow coordinates in which each column of both tables together is nearly standard
    normal, unless its transform was given: columns of a table have no unit in common."""
    if "preprocess" not in flow.automatic:
        return
    rows = as_rows("source", source, None, None, flow.device).x
    pooled = torch.cat([train.x, rows.to(train.x)]).double()
    flow.preprocess = _opened(pooled, ranges, _by_column).to(flow.device)
    flow.automatic.remove("preprocess")


def _opened(
    x: Tensor, ranges: Sequence[Range] | None, transform_of: Callable[[Tensor], Transform]
) -> Transform:
    """The transform of rows x (rows, dim), after columns with ends are mapped to the real line."""
    if ranges is None:
        return transform_of(x)
    support = BoundedToReal(ranges).to(x.device)
    return Chain(support, transform_of(support(x)[0]))


def _one_scale(x: Tensor) -> Transform:
    """Rows x (rows, dim) to mean zero and, over all columns, deviation one."""
    mean = x.mean(0)
    scale = (x - mean).square().mean().sqrt()
    return Affine(mean, scale * torch.eye(x.shape[1]).to(scale))


def _by_column(x: Tensor) -> Transform:
    """Every column of rows x (rows, dim) to mean zero and deviation one, nearly normal where there
    are rows enough."""
    return Gaussianize.fit(x) if len(x) >= defaults.TRANSFORM_ROWS else Affine.standardize(x)


def with_source(settings: FitSettings, source: Source) -> FitSettings:
    """The settings with rows of the source paired by optimal transport, and a small penalty on the
    length of paths: it chooses among maps, and bends none."""
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
