"""Fit the conditional network of a flow, which models random columns given random others."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

import cnf.recipe.defaults as defaults
from cnf.flows import CNF
from cnf.flows.questions.coordinates import COMPONENTS, fit_coordinates
from cnf.flows.subset_flow import SubsetFlow
from cnf.recipe.affordable import AsSecondsAllow, affordable_rows
from cnf.recipe.architecture import default_hidden
from cnf.recipe.calibration import calibrate
from cnf.recipe.settings import FitSettings, default_settings, default_steps
from cnf.rows import Rows, evenly_spaced
from cnf.training.callbacks import Callback
from cnf.training.config import Clock
from cnf.training.trainer import Trainer

SUBSET_STAGE = "conditional network"


def fit_subsets(
    flow: CNF,
    train: Rows,
    valid: Rows,
    settings: FitSettings,
    *,
    seed: int,
    steps: int | None,
    seconds: float | None,
    callbacks: Sequence[Callback] = (),
) -> SubsetFlow:
    """Fit the `SubsetFlow` of a flow by flow matching on copies of the rows, each with its own random
    choice of free and given columns.

    Args:
        flow: fitted joint density, whose context transform is reused.
        train: training rows.
        valid: held-out rows.
        settings: settings of the fit of the joint density.
        seed: random seed.
        steps: budget of the joint density in training steps; this fit takes a fraction of it in
            addition.
        seconds: budget in seconds instead.
        callbacks: called after every training step.
    """
    if flow.preprocess.geometry.angles or flow.preprocess.geometry.spheres:
        raise ValueError(
            "any_subset: expected a flow of real columns; this one has angles or spheres"
        )
    start = settings.clock()
    ranges = settings.ranges or ((None, None),) * flow.dim
    rows = _by_weight(train, seed)
    # Half of the time is for mixtures of linearly mapped columns, and half for transformed ones.
    each = _share(seconds, defaults.SUBSET_MIXTURES_SHARE / 2)
    tried = AsSecondsAllow(COMPONENTS, each, settings.clock)
    coordinates = fit_coordinates(
        rows.x, _features(flow, rows), ranges, seed=seed, components=tried
    )
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        subsets = SubsetFlow(coordinates, hidden=default_hidden(len(train), flow.dim))
    subsets = subsets.to(flow.device, flow.dtype)
    generator = torch.Generator(flow.device).manual_seed(seed)
    count = _conditioned_rows(flow, subsets, rows, seconds, settings.clock)
    learned = _chosen(flow, subsets, rows, count, generator)
    judges = valid.take(evenly_spaced(valid.x, defaults.SUBSET_JUDGED_ROWS))
    judged = _chosen(flow, subsets, judges, len(judges), generator)
    if seconds is None:
        budget = math.ceil(defaults.SUBSET_STEPS_SHARE * (steps or default_steps(len(train))))
        left = None
    else:
        left = (1 - defaults.SUBSET_GRID_SHARE) * seconds - (settings.clock() - start)
        budget, left = None, max(left, defaults.SMALLEST_SHARE * seconds)
    matching = default_settings(
        rows=len(train), dim=flow.dim, context_dim=subsets.flow.context_dim,
        steps=budget, seconds=left, likelihood_share=0.0, clock=settings.clock,
        matching_name=SUBSET_STAGE,
    )  # fmt: skip
    trainer = Trainer(
        subsets.flow, learned, judged, matching.training(), seed=seed, callbacks=tuple(callbacks)
    )
    trainer.run()
    allowed = _share(seconds, defaults.SUBSET_GRID_SHARE)
    calibrate(subsets.flow, learned, settings.tolerance, seconds=allowed, clock=settings.clock)
    return subsets.eval()


def _share(seconds: float | None, share: float) -> float | None:
    return None if seconds is None else share * seconds


def _conditioned_rows(
    flow: CNF, subsets: SubsetFlow, rows: Rows, seconds: float | None, clock: Clock
) -> int:
    """Number of rows, in copies, to train on: as many as a fraction of the time allows."""
    copies = min(defaults.SUBSET_MOST_COPIES, math.ceil(defaults.SUBSET_ROWS / len(rows)))
    most = min(copies * len(rows), max(len(rows), defaults.SUBSET_ROWS))
    if seconds is None:
        return most
    generator = torch.Generator(flow.device).manual_seed(0)

    def conditioned(count: int) -> Rows:
        return _chosen(flow, subsets, rows, count, generator)

    share, fewest = defaults.SUBSET_ROWS_SHARE * seconds, defaults.FEWEST_MAPPED_ROWS
    return affordable_rows(most, share, conditioned, fewest=fewest, clock=clock)


def random_choices(rows: int, dim: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Masks of the free and of the given columns of each row (rows, dim).

    The number of given columns ranges from none to all. In half of the rows all others are free; in
    the other half some are absent.
    """
    device = generator.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    given = uniform(rows, dim) < uniform(rows, 1)
    absent = (uniform(rows, dim) < uniform(rows, 1)) & (uniform(rows, 1) < 0.5)
    one = torch.nn.functional.one_hot((uniform(rows) * dim).long().clamp(max=dim - 1), dim).bool()
    free = ~given & ~absent
    free = free | (one & ~free.any(1, keepdim=True))
    return free, given & ~free


def _by_weight(rows: Rows, seed: int) -> Rows:
    """Rows of equal weight, drawn by their weights if these differ."""
    if rows.weights is None:
        return rows
    generator = torch.Generator(rows.x.device).manual_seed(seed)
    drawn = torch.multinomial(rows.weights, len(rows), replacement=True, generator=generator)
    chosen = rows.take(drawn)
    return Rows(chosen.x, chosen.context)


def _features(flow: CNF, rows: Rows) -> Tensor:
    return rows.x[:, :0] if rows.context is None else flow.condition(rows.context).to(rows.x.dtype)


def _chosen(
    flow: CNF, subsets: SubsetFlow, rows: Rows, count: int, generator: torch.Generator
) -> Rows:
    """Copies of the rows, each with its own columns, as far as the network accepts them."""
    places = torch.arange(len(rows), device=rows.x.device)
    chosen = places.repeat(math.ceil(count / len(rows)))[:count]
    rows = rows.take(chosen if count >= len(rows) else places[evenly_spaced(places, count)])
    free, given = random_choices(len(rows), flow.dim, generator)
    coordinates = subsets.coordinates
    condition = coordinates.condition(rows.x.double(), free, given, _features(flow, rows))
    z, _ = coordinates.normalize(rows.x.double().where(free, 0.0), condition)
    return Rows(z, condition)
