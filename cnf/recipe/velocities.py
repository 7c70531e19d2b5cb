"""Known velocities of snapshot rows, in the form that fits take."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.functional import jvp

import cnf.recipe.defaults as defaults
from cnf.flows import CNF
from cnf.inputs import as_rows
from cnf.rows import Rows
from cnf.training.config import Phase
from cnf.training.snapshots import SnapshotMatching
from cnf.training.velocities import GuidedMatching, KnownVelocities

# Mean squared velocity, in model coordinates and for the whole span, below which rows are static.
AT_REST = 1e-3


def known_velocities(pooled: Rows, velocities: Mapping[float, Any]) -> Rows:
    """The velocities of all rows as `Rows`, NaN where they are unknown."""
    if not isinstance(velocities, Mapping):
        raise ValueError(
            "velocities: expected a dict from each time to the velocities of its rows"
        )
    assert pooled.context is not None
    known = torch.full_like(pooled.x, math.nan)
    for time, given in velocities.items():
        name = f"velocities at {time!r:.40}"
        here = (pooled.context[:, 0] == time).nonzero()[:, 0]
        if not len(here):
            times = ", ".join(f"{known:g}" for known in pooled.context[:, 0].unique().tolist())
            raise ValueError(f"{name}: expected the time of a snapshot; they are at {times}")
        found = as_rows(name, given, None, None, known.device).x
        if found.shape != known[here].shape:
            raise ValueError(
                f"{name}: expected shape {tuple(known[here].shape)}, as the snapshot has;"
                f" got {tuple(found.shape)}"
            )
        known[here] = found.to(known)
    return Rows(known)


def guided(
    phases: tuple[Phase, ...], flow: CNF, train: Rows, velocities: Tensor
) -> tuple[Phase, ...]:
    """The phases with chains that follow known velocities, and a penalty on the difference from them;
    in the likelihood phase, it is relative to their mean square."""
    assert train.context is not None
    times, group = train.context[:, 0].unique(return_inverse=True)
    length = times[-1] - times[0]
    known = velocities.isfinite().all(1)
    moves = jvp(
        lambda x: flow.preprocess(x)[0], train.x, (velocities * length).nan_to_num(0.0).to(train.x)
    )[1].where(known[:, None], torch.nan)
    rows = ((times[group] - times[0])[known] / length, train.x[known], moves[known])
    usual = moves[known].square().sum(1).mean().item()
    share = defaults.SNAPSHOT_VELOCITIES / max(usual, AT_REST)
    found: list[Phase] = []
    for phase in phases:
        objective, weight = phase.objective, share
        if isinstance(objective, SnapshotMatching):
            weight = 1.0
        if type(objective) is SnapshotMatching:
            chained = tuple(moves[group == k] for k in range(len(times)))
            objective = GuidedMatching(**vars(objective), velocities=chained)
        found.append(replace(phase, objective=KnownVelocities(objective, *rows, weight, share)))
    return tuple(found)
