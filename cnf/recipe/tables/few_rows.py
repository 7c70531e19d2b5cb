"""Few rows of typed tables: a Gaussian or a mixture given the states, chosen by cross-validation, takes
the place of a flow that does not lead it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import KFold
from torch import Tensor

import cnf.recipe.defaults as defaults
from cnf.fields.masked import MaskedField
from cnf.flows import CNF, Base, MixtureBase, NormalBase
from cnf.flows.mixtures import mixture_base
from cnf.recipe.stacking import MixtureModel, WeightedRows, stacking_shares
from cnf.rows import weighted_nll
from cnf.tables.masked_flow import gaussianizing_maps
from cnf.transforms import Chain, MarginalTransform, Whitening
from cnf.transforms.grouped_whitening import GroupedWhitening
from cnf.transforms.marginals import KERNEL_GAIN


@dataclass(frozen=True)
class Numbers:
    """Dequantized numbers (rows, numeric), which are present, their features and weights."""

    x: Tensor
    present: Tensor
    features: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def take(self, places: Any) -> Numbers:
        """The rows at `places`."""
        return Numbers(*(part[places] for part in vars(self).values()))

    def joined(self, other: Numbers) -> Numbers:
        """These rows and others."""
        pairs = zip(vars(self).values(), vars(other).values())
        return Numbers(*(torch.cat(pair) for pair in pairs))

    @property
    def context(self) -> Tensor:
        """As the flow takes it."""
        return torch.cat((self.present.to(self.features.dtype), self.features), 1)


@dataclass(frozen=True)
class Candidate:
    """A Gaussian of the numbers given the features.

    Attributes:
        mixtures: whether columns are mapped by quantiles of mixtures, or linearly.
        group: first feature and number of levels of the category whose levels have covariances of
            their own; None where all share one.
        prior: rows that the shared covariance counts for beside that of a level.
    """

    mixtures: bool
    group: tuple[int, int] | None = None
    prior: float = 0.0

    def fit(self, rows: Numbers, ranges: list[Any]) -> Chain:
        """The map from rows to standard normal coordinates."""
        marginals = MarginalTransform(ranges).to(rows.x.device)
        marginals.fit(
            rows.x, rows.present, rows.weights, KERNEL_GAIN if self.mixtures else math.inf
        )
        dim, width = rows.x.shape[1], rows.features.shape[1]
        whitening = Whitening(dim, width)
        if self.group is not None:
            first, groups = self.group
            whitening = GroupedWhitening(dim, width, first=first, groups=groups, prior=self.prior)
        y = marginals.by_cell(rows.x)[0].where(rows.present, 0.0)
        whitening.to(rows.x.device).fit(y, rows.present, rows.features, rows.weights)
        return Chain(marginals, whitening)


@torch.no_grad()
def fallback_if_better(
    flow: CNF,
    groups: Sequence[tuple[int, int]],
    train: Numbers,
    valid: Numbers,
    seed: int,
) -> Fallback | None:
    """What takes the place of the flow, unless the flow leads it on held-out rows by more than
    chance.

    Args:
        flow: fitted to the training rows.
        groups: the first feature and the number of levels of each category.
        train: rows that the flow learned from.
        valid: held-out rows.
        seed: of the folds and of mixtures.
    """
    if len(train) < 2 * defaults.STACKING_FOLDS:
        return None
    ranges = gaussianizing_maps(flow)[0].ranges
    folds = list(KFold(defaults.STACKING_FOLDS, shuffle=True, random_state=seed).split(train.x))
    scores = {}
    for candidate in candidates(groups, train.x.shape[1]):
        parts = [
            (_gaussian(candidate.fit(train.take(a), ranges), train.take(b)), b) for a, b in folds
        ]
        scores[candidate] = sum((train.weights[b] @ log_prob).item() for log_prob, b in parts)
    best = max(scores, key=scores.__getitem__)
    fallback = Fallback(best, _shares(best, train, folds, ranges, seed))
    there = fallback.installed(flow, train)
    lead, error = weighted_nll(_log_prob(there, valid) - _log_prob(flow, valid), valid.weights)
    return None if lead > defaults.STACKING_ERRORS * error else fallback


@dataclass(frozen=True)
class Fallback:
    """A Gaussian, and the shares of mixtures of what it leaves, by components and shape."""

    candidate: Candidate
    shares: dict[MixtureModel | None, float]

    @property
    def choices(self) -> dict[str, str]:
        """What was chosen, in words."""
        mixtures = sum(model is not None for model in self.shares)
        own = "one covariance" if self.candidate.group is None else "covariances by category"
        base = f", {mixtures} mixtures of what it leaves" if mixtures else ""
        return {"base": f"a Gaussian given the states, {own}{base}"}

    def installed(self, flow: CNF, rows: Numbers) -> CNF:
        """A copy of the flow with this in its place, fitted to rows."""
        found = copy.deepcopy(flow)
        found.preprocess = self.candidate.fit(rows, gaussianizing_maps(flow)[0].ranges)
        found.base = self._base(found, rows).to(flow.dtype)
        assert isinstance(found.field, MaskedField), "a typed flow has absent columns"
        found.field.rest()
        return found

    def _base(self, flow: CNF, rows: Numbers) -> Base:
        """The stack of mixtures of rows in standard normal coordinates."""
        if self.shares.keys() == {None}:
            return NormalBase(flow.dim)
        y: Tensor = flow.preprocess(rows.x, rows.context, rows.present)[0]
        some = WeightedRows.of(y, rows.weights)
        parts = [
            _standard(flow.dim, y)
            if model is None
            else mixture_base(model.fit(some), y.dtype, y.device)
            for model in self.shares
        ]
        weights = [share * part.weights for share, part in zip(self.shares.values(), parts)]
        means, factors = ([getattr(part, name) for part in parts] for name in ("means", "factors"))
        return MixtureBase(torch.cat(weights), torch.cat(means), torch.cat(factors))


def candidates(groups: Sequence[tuple[int, int]], dim: int) -> Iterator[Candidate]:
    """Gaussians with one covariance, or one for each level of a category."""
    for mixtures in (False, True):
        yield Candidate(mixtures)
        for group in groups[: defaults.FEW_ROWS_GROUPS]:
            for rows in defaults.FEW_ROWS_PRIORS:
                yield Candidate(mixtures, group, rows * dim)


def _shares(
    best: Candidate, train: Numbers, folds: list[Any], ranges: list[Any], seed: int
) -> dict[MixtureModel | None, float]:
    """The shares of the normal distribution and of mixtures of what a Gaussian leaves, by what they
    make of rows outside their fold; the normal alone where numbers may be absent."""
    models: list[MixtureModel | None] = [None]
    if bool(train.present.all()):
        fewest = len(train) - len(train) // defaults.STACKING_FOLDS
        models += [
            MixtureModel(components, shape, seed)
            for components in defaults.FEW_ROWS_COMPONENTS
            for shape in defaults.STACKING_SHAPES
            if components * defaults.STACKING_ROWS_A_COMPONENT <= fewest
        ]
    if len(models) == 1:
        return {None: 1.0}
    scores = np.empty((len(train), len(models)))
    for a, b in folds:
        chain = best.fit(train.take(a), ranges)
        (y, _), (held_out, ladj) = (
            chain(rows.x, rows.context, rows.present) for rows in (train.take(a), train.take(b))
        )
        some = WeightedRows.of(y, train.weights[a])
        normal = NormalBase(y.shape[1]).log_prob(held_out)
        for k, model in enumerate(models):
            log_prob = (
                normal.numpy(force=True)
                if model is None
                else model.fit(some).score_samples(held_out.numpy(force=True))
            )
            scores[b, k] = log_prob + ladj.numpy(force=True)
    shares = stacking_shares(scores, train.weights.numpy(force=True))
    return {
        model: float(share)
        for model, share in zip(models, shares)
        if share >= defaults.SMALLEST_SHARE
    }


def _standard(dim: int, like: Tensor) -> MixtureBase:
    """The standard normal as a mixture of one."""
    return MixtureBase(like.new_ones(1), like.new_zeros(1, dim), torch.eye(dim).to(like)[None])


def _gaussian(chain: Chain, rows: Numbers) -> Tensor:
    """Log-densities (rows,) of the standard normal in the coordinates of a chain."""
    y, ladj = chain(rows.x, rows.context, rows.present)
    return NormalBase(y.shape[1]).log_prob(y) + ladj


def _log_prob(flow: CNF, rows: Numbers) -> Tensor:
    return flow.log_prob(rows.x, rows.context)
