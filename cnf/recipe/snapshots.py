"""One flow through snapshots: tables of rows at several times."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import cnf.recipe.defaults as defaults
from cnf.fields import SumField
from cnf.flows import CNF, SnapshotFlow
from cnf.inputs import as_rows, as_seed
from cnf.recipe.architecture import default_field
from cnf.recipe.fit import fit
from cnf.recipe.preparation import at_rest
from cnf.recipe.settings import FitSettings, default_settings
from cnf.recipe.snapshot_mass import ConstantMass, GrowingMass
from cnf.recipe.source import source_of, start_at
from cnf.recipe.velocities import guided, known_velocities
from cnf.rows import FEWEST_ROWS, Rows, held_out_split
from cnf.training.callbacks import Callback
from cnf.training.config import Phase
from cnf.training.flow_matching import FlowMatching
from cnf.training.maximum_likelihood import MaximumLikelihood
from cnf.training.modes import with_gradients
from cnf.training.penalties import Regularizers

CONSTANT = ConstantMass()


@with_gradients
def fit_snapshots(
    flow: CNF,
    snapshots: Mapping[float, Any],
    *,
    seed: int = 0,
    steps: int | None = None,
    seconds: float | None = None,
    likelihood_share: float | None = None,
    growth: bool | Mapping[float, float] = False,
    velocities: Mapping[float, Any] | None = None,
    checkpoint: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    **chosen: Any,
) -> SnapshotFlow:
    """Fit one flow through unpaired rows at several times.

    The density of the first snapshot is the base, fitted with a third of the budget. The motion is
    initialized as that of Gaussians with the moments of the snapshots. Flow matching follows splines
    through chains of rows, which optimal transport pairs from each snapshot to the next.
    Maximum likelihood then scores every later row at its own time,

        Σ log p(x, time),    log p(x, time) = log p₀(z) − ∫ tr ∂v/∂x dt from the first time on,

    with a small penalty ∫ |v|² dt on the length of paths, which determines the motion between times.

    With `growth`, mass changes along the motion: a rate g(t, x) is learned together with the velocity,

        ∂ρ/∂t + div(ρ v) = g ρ,    ρ(x, time) = M(time) p(x, time),

    where log M is a natural cubic spline through the logarithms of the known masses. Flow matching
    then pairs rows by unbalanced optimal transport, and likelihood has a small penalty ∫ |∇g|² dt, so
    that mass moves where neighbors move alike, and grows where motion would tear neighbors apart.

    Args:
        flow: flow without a context, its parts at "auto"; fitted in place, from the first snapshot at
            t = 0 to the last one at t = 1.
        snapshots: time -> rows (rows, dim), array or tensor, in the user's units; times increase.
        seed: random seed.
        steps: budget in training steps of the motion; by default it grows with the rows. The density
            of the first snapshot takes a third as many in addition.
        seconds: budget in seconds instead.
        likelihood_share: fraction of the budget for maximum likelihood.
        growth: whether mass grows and shrinks: True if the mass of a snapshot is its number of rows,
            or the mass at the time of each snapshot, in any unit.
        velocities: time -> dx/dt of all rows of the snapshot at that time (rows, dim), in the user's
            units, for some or all snapshots. Chains of rows follow them, and their mean squared
            difference from v is a penalty.
        checkpoint: file that holds the state of the fit while it runs; see `cnf.fit`.
        callbacks: called with the `cnf.training.Trainer` after every training step.
        **chosen: any other field of `cnf.recipe.FitSettings`.

    Returns:
        A `cnf.SnapshotFlow` with the density, samples and trajectories at every time of the span; with
        growth, a `cnf.GrowingFlow`. Its `history` is that of the fit.

    Raises:
        ValueError: for fewer than two snapshots; for times that are not finite or do not increase; for
            rows that do not match the flow, are not finite, or too few; for masses that are not
            positive, or at other times; and for velocities that do not match the rows.
        TrainingError: if training diverges for good.
        Interrupted: (a KeyboardInterrupt) on Ctrl-C; the flow then has the best weights so far.

    Example:
        >>> import torch
        >>> days = {day: torch.randn(50, 2) + day for day in (0.0, 1.0, 3.0)}
        >>> moving = fit_snapshots(CNF(dim=2, hidden=(8, 8)), days, steps=20)
        >>> moving.log_prob(torch.zeros(5, 2), time=1.5).shape
        torch.Size([5])
    """
    seed, snapshots = as_seed(seed), _by_time(snapshots)
    pooled = _pooled(flow, snapshots)
    known = known_velocities(pooled, velocities or {})
    (train, valid), (known, _) = (held_out_split(rows, seed) for rows in (pooled, known))
    mass = ConstantMass() if growth is False else GrowingMass.of(snapshots, growth)
    moving = mass.around(flow, min(snapshots), max(snapshots))
    return fit_through_time(
        flow, moving, train, valid, mass=mass, velocities=known.x if velocities else None,
        seed=seed, steps=steps, seconds=seconds, likelihood_share=likelihood_share,
        checkpoint=checkpoint, callbacks=callbacks, **chosen,
    )  # fmt: skip


def fit_through_time(
    flow: CNF,
    moving: SnapshotFlow,
    train: Rows,
    valid: Rows,
    *,
    mass: ConstantMass = CONSTANT,
    velocities: Tensor | None = None,
    seed: int,
    steps: int | None = None,
    seconds: float | None = None,
    likelihood_share: float | None = None,
    checkpoint: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    **chosen: Any,
) -> SnapshotFlow:
    """`fit_snapshots` for training and held-out rows whose context is their time (rows, 1).

    Args:
        flow: flow with its parts at "auto".
        moving: motion of the flow; it shares the parts of the flow.
        train: training rows.
        valid: held-out rows.
        mass: model of the mass along the motion.
        velocities: velocities of the training rows (rows, dim), NaN where unknown; None if all are
            unknown.
    """
    assert train.context is not None
    times, group = train.context[:, 0].unique(return_inverse=True)
    rows = tuple(train.x[group == k] for k in range(len(times)))
    if len(rows[0]) < FEWEST_ROWS:
        raise ValueError(
            f"first snapshot: expected at least {FEWEST_ROWS} rows to learn from; got {len(rows[0])}"
            " beside those held out: give more rows"
        )
    later = train.take(group.nonzero()[:, 0])
    settings = default_settings(
        rows=len(later), dim=flow.dim, steps=steps, likelihood_share=likelihood_share,
        seconds=None if seconds is None else (1 - defaults.SOURCE_SHARE) * seconds, **chosen,
    )  # fmt: skip
    source = source_of(
        rows[0], flow, fit, steps=steps, seconds=seconds, checkpoint=checkpoint, seed=seed,
        ranges=settings.ranges, clock=settings.clock,
    )  # fmt: skip
    start_at(flow, source, later, settings.ranges)
    shares = tuple(((times - times[0]) / (times[-1] - times[0])).tolist())
    if at_rest(flow):
        _start_moving(flow, mass, shares, rows, seed)
    moving.follow(flow)
    phases = _phases(settings, mass, shares, rows)
    if velocities is not None:
        phases = guided(phases, flow, train, velocities)
    chosen |= {"phases": phases, "ranges": None}
    moving.history = fit(
        moving.flow, later.x, valid.x, context=later.context, context_valid=valid.context,
        seed=seed, checkpoint=checkpoint, callbacks=callbacks, **chosen,
    )  # fmt: skip
    flow.solver, flow.error_model = moving.flow.solver, moving.flow.error_model
    flow.automatic &= {"solver"}
    moving.settle(seed)
    return moving


def _start_moving(
    flow: CNF, mass: ConstantMass, shares: tuple[float, ...], rows: tuple[Tensor, ...], seed: int
) -> None:
    """Give the flow its field, and add the motion that the moments of the snapshots determine."""
    field = flow.field
    if "field" in flow.automatic:
        later = sum(len(part) for part in rows[1:])
        few = later < defaults.FEW_ROWS_FIELD * (len(rows) - 1)
        field = default_field(
            later, flow.dim, geometry=flow.geometry, seed=seed,
            frequency=defaults.SNAPSHOT_FREQUENCY if few else None,
        )  # fmt: skip
    motion = mass.motion(flow, shares, rows)
    parts = field if motion is None else SumField([motion, field])
    flow.field = parts.to(flow.device, flow.dtype)


def _by_time(snapshots: Mapping[float, Any]) -> dict[float, Any]:
    """The snapshots, after a check that their times increase; times become Python floats, the most
    precise type."""
    expected = "snapshots: expected a dict from time, a number, to rows"
    if not isinstance(snapshots, Mapping):
        raise ValueError(f"{expected}; got a {type(snapshots).__name__}")
    for time in snapshots:
        if not isinstance(time, Real):
            raise ValueError(f"{expected}; got the time {time!r}, a {type(time).__name__}")
    times = [float(time) for time in snapshots]
    if len(times) < 2:
        raise ValueError(f"snapshots: expected rows at two times at least; got {len(times)}")
    for before, after in pairwise(times):
        if not -math.inf < before < after < math.inf:
            raise ValueError(
                f"snapshots: expected finite times that increase; got {after:.12g} after {before:.12g}"
            )
    return dict(zip(times, snapshots.values()))


def _pooled(flow: CNF, snapshots: Mapping[float, Any]) -> Rows:
    """The rows of all snapshots, with their times as context (rows, 1)."""
    parts = []
    for time, given in snapshots.items():
        name = f"snapshot at {time:.12g}"
        x = as_rows(name, given, None, None, flow.device).x
        if x.shape[1] != flow.dim or len(x) < FEWEST_ROWS:
            raise ValueError(
                f"{name}: expected at least {FEWEST_ROWS} rows of {flow.dim} columns, as the flow"
                f" has; got {len(x)} rows of {x.shape[1]}"
            )
        parts.append(x)
    counts = torch.tensor([len(part) for part in parts])
    context = torch.tensor([*snapshots], dtype=torch.float64).repeat_interleave(counts)[:, None]
    return Rows(torch.cat(parts), context.to(flow.device))


def _phases(
    settings: FitSettings, mass: ConstantMass, shares: tuple[float, ...], rows: tuple[Tensor, ...]
) -> tuple[Phase, ...]:
    """The phases with chains of rows in place of pairs, and a penalty on length."""
    matching = mass.matching(
        shares, snapshots=rows, chains=defaults.SNAPSHOT_CHAINS, block=defaults.SNAPSHOT_BLOCK,
        times=defaults.MATCHING_TIMES,
    )  # fmt: skip
    counts = tuple(len(part) for part in rows[1:])
    phases: list[Phase] = []
    for phase in settings.phases:
        if isinstance(phase.objective, FlowMatching):
            phases.append(replace(phase, objective=matching))
        elif isinstance(phase.objective, MaximumLikelihood):
            weights = Regularizers(kinetic=defaults.SNAPSHOT_KINETIC)
            likelihood = replace(phase.objective, regularizers=weights, nfe_budget=None)
            objective = mass.likelihood(likelihood, shares, counts)
            phases.append(replace(phase, objective=objective))
    return tuple(phases)
