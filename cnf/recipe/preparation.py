"""Preparation of a fit: rows are checked, and parts left at "auto" are fitted."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import torch

import cnf.recipe.defaults as defaults
from cnf.fields import Geometry
from cnf.flows import CNF
from cnf.inputs import as_rows
from cnf.recipe.architecture import default_field
from cnf.recipe.bases import base_in_space, grown_base
from cnf.recipe.pilot_fits import affords_pilot_fits, best_transform
from cnf.recipe.settings import FitSettings
from cnf.recipe.transform_judges import grown_mixture_nll, mixture_nll
from cnf.recipe.transforms import transforms_in_space
from cnf.rows import FEWEST_ROWS, Rows, held_out_split
from cnf.training.batches import in_model_coordinates
from cnf.training.validation import validation_subset
from cnf.transforms import Affine

PROBES = 16  # points at which a zero field is recognized


@dataclass(frozen=True)
class FitPlan:
    """The choices made before the first training step.

    Attributes:
        choices: what was chosen for the flow, by name.
        allow_mixture_fallback: whether a mixture that beats the flow may replace it at the end.
        transform_is_free: whether the fallback may replace the transform as well.
    """

    choices: dict[str, Any] = field(default_factory=dict)
    allow_mixture_fallback: bool = False
    transform_is_free: bool = False


def checked_rows(
    flow: CNF, given: tuple[Any, Any, Any], valid: tuple[Any, Any], seed: int
) -> tuple[Rows, Rows]:
    """Checked training and held-out rows; `given` is (x, context, weights), `valid` is (x_valid,
    context_valid)."""
    if not isinstance(flow, CNF):
        raise TypeError(
            f"flow: expected a CNF; got {type(flow).__name__}: rows are the second argument, and a table"
            " is fitted by cnf.fit_table"
        )
    x, context, weights = given
    train = as_rows("x", x, context, weights, flow.device)
    if len(train) < FEWEST_ROWS:
        raise ValueError(f"x: expected at least {FEWEST_ROWS} rows; got {len(train)}")
    if valid[0] is None and valid[1] is not None:
        raise ValueError("context_valid: expected x_valid beside it; got none")
    if valid[0] is None:
        train, held_out = held_out_split(train, seed)
    else:
        held_out = as_rows("x_valid", valid[0], valid[1], None, flow.device)
    if len(held_out) == 0:
        raise ValueError("x_valid: expected at least one row; got none")
    for rows in (train, held_out):
        columns = 0 if rows.context is None else rows.context.shape[1]
        if (rows.x.shape[1], columns) != (flow.dim, flow.context_dim):
            raise ValueError(
                f"the flow has dim={flow.dim}, context_dim={flow.context_dim};"
                f" the rows have {rows.x.shape[1]} columns and {columns} of context"
            )
    return train, held_out


def prepare(
    flow: CNF,
    train: Rows,
    valid: Rows,
    settings: FitSettings,
    seed: int,
    *,
    rows: int,
    as_mixture: bool,
) -> FitPlan:
    """Build and fit the parts left at "auto", and plan which mixture may replace the flow at the end.

    Parts that an earlier fit has chosen stay when the flow is fitted again; only its grid is placed
    anew.

    Args:
        flow: changed in place.
        train: training rows.
        valid: held-out rows.
        settings: settings of the fit.
        seed: seed of every choice.
        rows: number of rows that the user gave, before some were held out; it determines the size of
            the field.
        as_mixture: whether the flow will stay a mixture, see `stays_mixture`.
    """
    free, resting = set(flow.automatic), at_rest(flow)
    if "field" in free and resting:
        field = default_field(
            rows, flow.dim, context_dim=flow.context_dim, geometry=flow.geometry, seed=seed
        )
        flow.field = field.to(flow.device, flow.dtype)
    choices = {"preprocess": "given", "base": "given", "rows": len(train)}
    fit_context_map(flow, train)
    choices |= _fit_transform(flow, train, valid, settings, seed)
    if "base" in free:
        y, held_out = (in_model_coordinates(flow, part) for part in (train, valid))
        if as_mixture:
            seconds = defaults.SHORT_MIXTURE_SHARE * settings.budget[1]
            judges = validation_subset(held_out)
            flow.base = grown_base(y, judges, seconds=seconds, clock=settings.clock, seed=seed)
        else:
            flow.base = base_in_space(flow.geometry, y, held_out, seed)
        choices["base"] = flow.base.describe()
    flow.automatic &= {"solver"}
    known = flow.geometry.flat or flow.geometry == Geometry(0, spheres=1)
    fallback = "base" in free and not flow.context_dim and resting and known and not as_mixture
    return FitPlan(choices, fallback, "preprocess" in free)


@torch.no_grad()
def at_rest(flow: CNF) -> bool:
    """Whether the flow's field is zero, as in a new `GatedField`."""
    probe = torch.linspace(-1, 1, PROBES, dtype=flow.dtype, device=flow.device)[:, None]
    y, context = probe.expand(-1, flow.geometry.dim), probe.expand(-1, flow.context_dim)
    return not flow.field(probe.new_tensor(0.5), y, context if flow.context_dim else None).any()


def fit_context_map(flow: CNF, train: Rows) -> None:
    """Standardize the context, unless an earlier fit has done so."""
    if "context_map" not in flow.automatic or train.context is None:
        return
    for column in (train.context == train.context[0]).all(0).nonzero().flatten().tolist():
        warnings.warn(
            f"context: column {column} (counted from 0) is constant: the density does not depend on it",
            stacklevel=2,
        )
    flow.context_map = Affine.standardize_context(train.context, train.weights).to(flow.device)


def stays_mixture(flow: CNF, train: Rows, valid: Rows, settings: FitSettings) -> bool:
    """Whether the fit is so short, for its number of rows, that no flow could beat a mixture."""
    many = len(train) + len(valid) >= defaults.STACKING_ROWS and train.context is None
    free = "base" in flow.automatic and flow.geometry.flat and at_rest(flow)
    return settings.short and many and free


def _fit_transform(
    flow: CNF, train: Rows, valid: Rows, settings: FitSettings, seed: int
) -> dict[str, str]:
    """Choose and fit the transform if it is at "auto", and return the choice by name."""
    ranges, free = settings.ranges, "preprocess" in flow.automatic
    if ranges is not None and len(ranges) != flow.dim:
        raise ValueError(f"ranges: expected one for each of {flow.dim} columns; got {len(ranges)}")
    if ranges is not None and not free:
        raise ValueError(
            'ranges: expected none beside a given preprocess; preprocess="auto" takes ranges'
        )
    if not free:
        return {}
    judge = grown_mixture_nll if settings.hasty else mixture_nll
    found = transforms_in_space(flow.preprocess, train, valid, ranges, seed, judge=judge)
    names, candidates = list(found), [transform.to(flow.device) for transform in found.values()]
    chosen = len(found) - 1
    if chosen and affords_pilot_fits(settings):
        chosen = best_transform(flow, candidates, train, valid, settings, seed=seed)
    flow.preprocess = candidates[chosen]
    return {"preprocess": names[chosen]}
