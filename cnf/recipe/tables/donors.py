"""Fit the forests that find donors of missing cells."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from scipy.special import ndtri
from scipy.stats import rankdata
from sklearn.tree import DecisionTreeRegressor
from torch import Tensor, nn

import cnf.recipe.defaults as defaults
from cnf.recipe.tables.budget import Budget
from cnf.recipe.tables.rows import TableRows
from cnf.rows import Cells, evenly_spaced
from cnf.tables.columns import Column
from cnf.tables.donors import LEAF, Donors, Forest, as_numbers, groups_of
from cnf.tables.imputation import Imputation
from cnf.tables.model import TableFlow


def fit_donors(model: TableFlow, train: TableRows, budget: Budget, *, seed: int) -> Donors:
    """Donors among the training rows, as many as a fraction of the time allows; the networks of the
    imputer complete their missing cells."""

    @cache
    def fitted(rows: int) -> Donors:
        return _fitted(model, train.take(evenly_spaced(train.weights, rows)), seed)

    fewest = defaults.FEWEST_MAPPED_ROWS
    worth = max(fewest, defaults.DONOR_WORK // train.cells.states.shape[1] ** 2)
    most = min(len(train), defaults.DONOR_ROWS, worth)
    return fitted(budget.rows(most, defaults.DONOR_SHARE, fitted, fewest=fewest))


def _fitted(model: TableFlow, rows: TableRows, seed: int) -> Donors:
    """Donors from all of these rows."""
    imputation, random = model.imputation, np.random.default_rng(seed)
    known, context = imputation.observed(rows.cells).mask, model.conditioning.context(rows.context)
    generator = torch.Generator(model.device).manual_seed(seed)
    cells = _completed(imputation, rows.cells, ~known.all(1), context, generator)
    numbers = as_numbers(cells, imputation.columns)
    center = numbers.median(0).values
    numbers = (numbers - center).float()
    features = torch.cat((numbers, context.float()), 1).cpu().numpy()
    forests = []
    for group in groups_of(len(imputation.columns), imputation.pairs):
        targets = [
            _target(features[:, j], cells.states[:, j], imputation.columns[j], random)
            for j in group
        ]
        seen = rows.weights * known[:, group].all(1)
        weights = (seen if seen.any() else rows.weights).cpu().numpy()
        forests.append(_forest(_without(features, group), np.hstack(targets), weights, random))
    sizes = len(cells), len(imputation.columns), cells.values.shape[1]
    donors = Donors(*sizes, [forest.sizes for forest in forests])
    donors.forests = nn.ModuleList(forests)
    donors.center, donors.numbers = center, numbers
    donors.values, donors.states = cells.values, cells.states.int()
    return donors.to(model.device)


def _completed(
    imputation: Imputation,
    cells: Cells,
    holed: Tensor,
    context: Tensor,
    generator: torch.Generator,
) -> Cells:
    """The cells, after the networks have filled the missing ones of the marked rows (rows,)."""
    filled = imputation.complete(cells.take(holed), context[holed], generator)
    values, states = cells.values.clone(), cells.states.clone()
    values[holed], states[holed] = filled.values, filled.states
    return Cells(values, states)


def _target(
    numbers: np.ndarray, states: Tensor, column: Column, random: np.random.Generator
) -> np.ndarray:
    """Targets (rows, width) of the trees of a column: the normal scores of numbers, and a one-hot code
    of levels, or a random code if there are many levels."""
    if column.numeric:
        return ndtri(rankdata(numbers) / (len(numbers) + 1))[:, None]
    codes = np.eye(column.n_states)
    if column.n_states > defaults.DONOR_LEVELS:
        codes = random.normal(size=(column.n_states, defaults.DONOR_LEVELS))
    return codes[states.cpu().numpy()]


def _without(features: np.ndarray, group: list[int]) -> np.ndarray:
    """The features, with some columns set to a constant so that no tree splits on them."""
    features = features.copy()
    features[:, group] = 0.0
    return features


def _forest(
    features: np.ndarray, target: np.ndarray, weights: np.ndarray, random: np.random.Generator
) -> Forest:
    """Trees on bootstrap samples (Breiman 2001), drawn by the weights of the rows; each leaf lists the
    rows of the sample in it."""
    trees = [_tree(features, target, weights, random) for _ in range(defaults.DONOR_TREES)]
    nodes = np.cumsum([0, *(len(tree["feature"]) for tree in trees)])
    members = np.cumsum([0, *(len(tree["members"]) for tree in trees)])
    for tree, node, member in zip(trees, nodes, members):
        leaf = tree["feature"] == LEAF
        tree["branches"] += np.where(leaf, member, node)[:, None]
    forest = Forest(len(trees), nodes[-1], members[-1])
    forest.roots.copy_(torch.from_numpy(nodes[:-1]))
    for name in ("feature", "threshold", "branches", "members"):
        whole = np.concatenate([tree[name] for tree in trees])
        forest.get_buffer(name).copy_(torch.from_numpy(whole))
    return forest


def _tree(
    features: np.ndarray, target: np.ndarray, weights: np.ndarray, random: np.random.Generator
) -> dict[str, Any]:
    """The arrays of one tree; see `Forest`."""
    count = int((weights > 0).sum())
    drawn = np.sort(random.choice(len(weights), count, p=weights / weights.sum()))
    rows, times = np.unique(drawn, return_counts=True)
    regressor = DecisionTreeRegressor(
        min_samples_leaf=defaults.DONOR_LEAF,
        max_features=defaults.DONOR_FEATURES,
        random_state=int(random.integers(2**31)),
    )
    tree = regressor.fit(features[rows], target[rows], sample_weight=times).tree_
    leaf = tree.children_left == LEAF
    where = regressor.apply(features[drawn])
    counts = np.bincount(where, minlength=len(leaf))
    ends = counts.cumsum()
    inner = np.column_stack((tree.children_left, tree.children_right))
    return {
        "feature": np.where(leaf, LEAF, tree.feature),
        "threshold": _rounded_down(np.where(leaf, 0.0, tree.threshold)),
        "branches": np.where(leaf[:, None], np.column_stack((ends - counts, ends)), inner),
        "members": drawn[np.argsort(where, kind="stable")],
    }


def _rounded_down(numbers: np.ndarray) -> np.ndarray:
    """Thresholds in single precision, rounded down so that numbers above them stay above."""
    single = numbers.astype(np.float32)
    return np.where(single > numbers, np.nextafter(single, np.float32(-np.inf)), single)
