"""Small typed tables: a Gaussian or a mixture given the states, chosen by cross-validation, replaces a
flow that does not beat it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import KFold
from torch import Tensor

import cnf.recipe.defaults as defaults
from cnf.fields.masked import MaskedField
from cnf.flows import CNF, Base, MixtureBase, NormalBase
from cnf.flows.mixtures import mixture_base
from cnf.recipe.affordable import Deadline
from cnf.recipe.stacking import MixtureModel, WeightedRows, stacking_shares
from cnf.recipe.tables.budget import NEVER
from cnf.rows import weighted_nll
from cnf.tables.masked_flow import gaussianizing_maps
from cnf.transforms import Chain, MarginalTransform, Whitening
from cnf.transforms.grouped_whitening import GroupedWhitening
from cnf.transforms.kernels import KERNEL_GAIN


@dataclass(frozen=True)
class Numbers:
    """Dequantized numbers (rows, numeric), a mask of present cells, features and weights."""

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
        mixtures: whether columns are transformed by quantiles of mixtures, or linearly.
        group: first feature and number of levels of a category whose levels have separate covariances;
            None for one shared covariance.
        prior: pseudo-rows by which the covariance of a level is shrunk to the shared one.
    """

    mixtures: bool
    group: tuple[int, int] | None = None
    prior: float = 0.0

    def fit(
        self, rows: Numbers, ranges: list[Any], marginals: MarginalTransform | None = None
    ) -> Chain:
        """The transform from rows to standard normal coordinates, with the given maps of the columns
        if there are any."""
        marginals = marginals or column_maps(rows, ranges, mixtures=self.mixtures)
        dim, width = rows.x.shape[1], rows.features.shape[1]
        whitening = Whitening(dim, width)
        if self.group is not None:
            first, groups = self.group
            whitening = GroupedWhitening(dim, width, first=first, groups=groups, prior=self.prior)
        y = marginals.by_cell(rows.x)[0].where(rows.present, 0.0)
        whitening.to(rows.x.device).fit(y, rows.present, rows.features, rows.weights)
        return Chain(marginals, whitening)


def column_maps(rows: Numbers, ranges: list[Any], *, mixtures: bool) -> MarginalTransform:
    """The transforms of the columns, by quantiles of mixtures or linear."""
    marginals = MarginalTransform(ranges).to(rows.x.device)
    marginals.fit(rows.x, rows.present, rows.weights, KERNEL_GAIN if mixtures else math.inf)
    return marginals


@torch.no_grad()
def fallback_if_better(
    flow: CNF,
    groups: Sequence[tuple[int, int]],
    train: Numbers,
    valid: Numbers,
    seed: int,
    deadline: Deadline = NEVER,
) -> Fallback | None:
    """The model that replaces the flow, or None if the flow is significantly better on held-out rows.

    Args:
        flow: flow, fitted to the training rows.
        groups: first feature and number of levels of each category.
        train: training rows of the flow.
        valid: held-out rows.
        seed: seed of the folds and of mixtures.
        deadline: end of the cross-validation; candidates that were not reached are not considered.
    """
    if len(train) < 2 * defaults.STACKING_FOLDS:
        return None
    ranges = gaussianizing_maps(flow)[0].ranges
    folds = list(KFold(defaults.STACKING_FOLDS, shuffle=True, random_state=seed).split(train.x))

    @cache
    def maps(fold: int, *, mixtures: bool) -> MarginalTransform:
        return column_maps(train.take(folds[fold][0]), ranges, mixtures=mixtures)

    scores = {}
    for candidate in deadline.allows(candidates(groups, train.x.shape[1])):
        parts = []
        for k, (a, b) in enumerate(folds):
            chain = candidate.fit(train.take(a), ranges, maps(k, mixtures=candidate.mixtures))
            parts.append(train.weights[b] @ _gaussian(chain, train.take(b)))
        scores[candidate] = sum(part.item() for part in parts)
    best = max(scores, key=scores.__getitem__)
    fallback = Fallback(best, _shares(best, train, folds, ranges, seed, deadline))
    there = fallback.installed(flow, train)
    lead, error = weighted_nll(_log_prob(there, valid) - _log_prob(flow, valid), valid.weights)
    return None if lead > defaults.STACKING_ERRORS * error else fallback


@dataclass(frozen=True)
class Fallback:
    """A Gaussian, and the stacking weights of mixtures of its residuals, by components and shape."""

    candidate: Candidate
    shares: dict[MixtureModel | None, float]

    @property
    def choices(self) -> dict[str, str]:
        """Description of the choices."""
        mixtures = sum(model is not None for model in self.shares)
        own = "one covariance" if self.candidate.group is None else "covariances by category"
        base = f", {mixtures} mixtures of its residuals" if mixtures else ""
        return {"base": f"a Gaussian given the states, {own}{base}"}

    def installed(self, flow: CNF, rows: Numbers) -> CNF:
        """A copy of the flow with this fallback in its place, fitted to rows."""
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
    best: Candidate,
    train: Numbers,
    folds: list[Any],
    ranges: list[Any],
    seed: int,
    deadline: Deadline,
) -> dict[MixtureModel | None, float]:
    """Stacking weights of the normal distribution and of mixtures of the residuals, from out-of-fold
    scores; only the normal distribution if numbers may be absent."""
    if not bool(train.present.all()):
        return {None: 1.0}
    mapped = []
    for a, b in folds:
        chain = best.fit(train.take(a), ranges)
        learned, judged = (
            chain(rows.x, rows.context, rows.present) for rows in (train.take(a), train.take(b))
        )
        mapped.append((WeightedRows.of(learned[0], train.weights[a]), *judged, b))
    scores: dict[MixtureModel | None, NDArray[np.float64]] = {}
    for model in deadline.allows(_mixtures(len(folds[0][0]), seed)):
        scores[model] = np.empty(len(train))
        for some, held_out, ladj, b in mapped:
            scores[model][b] = _scored(model, some, held_out) + ladj.numpy(force=True)
    if len(scores) == 1:
        return {None: 1.0}
    shares = stacking_shares(np.stack(list(scores.values()), 1), train.weights.numpy(force=True))
    return {
        model: float(share)
        for model, share in zip(scores, shares)
        if share >= defaults.SMALLEST_SHARE
    }


def _mixtures(rows: int, seed: int) -> Iterator[MixtureModel | None]:
    """The normal distribution, and the mixtures that the number of rows supports."""
    yield None
    for components in defaults.FEW_ROWS_COMPONENTS:
        if components * defaults.STACKING_ROWS_A_COMPONENT <= rows:
            for shape in defaults.STACKING_SHAPES:
                yield MixtureModel(components, shape, seed)


def _scored(
    model: MixtureModel | None, rows: WeightedRows, held_out: Tensor
) -> NDArray[np.float64]:
    """Log-densities of held-out rows under a mixture fitted to others, or the normal distribution."""
    if model is None:
        return NormalBase(held_out.shape[1]).log_prob(held_out).numpy(force=True)
    return model.fit(rows).score_samples(held_out.numpy(force=True))


def _standard(dim: int, like: Tensor) -> MixtureBase:
    """The standard normal distribution as a mixture of one component."""
    return MixtureBase(like.new_ones(1), like.new_zeros(1, dim), torch.eye(dim).to(like)[None])


def _gaussian(chain: Chain, rows: Numbers) -> Tensor:
    """Log-densities (rows,) of rows that are standard normal in the coordinates of a chain."""
    y, ladj = chain(rows.x, rows.context, rows.present)
    return NormalBase(y.shape[1]).log_prob(y) + ladj


def _log_prob(flow: CNF, rows: Numbers) -> Tensor:
    return flow.log_prob(rows.x, rows.context)
