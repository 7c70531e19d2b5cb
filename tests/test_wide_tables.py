"""Tables with hardly more rows than columns: what they start from is as good as shrunken
Gaussians."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import Ridge

import cnf
from cnf.transforms.covariances import SHRINKAGES, shrinkage
from cnf.transforms.linear_mean import PULLS, RIDGE, fit_mean

F64 = torch.float64


def factors(rows: int, columns: int, seed: int) -> np.ndarray:
    """Columns from four hidden factors and noise."""
    loadings = np.random.default_rng(0).normal(size=(4, columns))
    random = np.random.default_rng(seed)
    return random.normal(size=(rows, 4)) @ loadings + random.normal(size=(rows, columns))


@pytest.mark.parametrize("rows, columns", [(12, 8), (40, 8), (15, 20)])
def test_the_shrinkage_is_that_of_leaving_rows_out_one_by_one(rows, columns):
    z = torch.from_numpy(factors(rows, columns, 1))
    z = z / z.square().mean(0).sqrt()
    # Without shrinkage, fewer rows than columns have no density.
    tried, scores = SHRINKAGES[rows <= columns :], []
    for share in tried:
        total = 0.0
        for i in range(rows):
            others = z[torch.arange(rows) != i]
            left = (1 - share) * others.T @ others / (rows - 1) + share * torch.eye(columns)
            total -= multivariate_normal.logpdf(z[i], cov=left)
        scores.append(total)
    found = shrinkage(*torch.linalg.eigh(z.T @ z / rows), z)
    assert found == tried[int(np.argmin(scores))]


def test_rows_are_as_far_as_from_a_mean_that_was_fitted_without_them():
    random = np.random.default_rng(0)
    features, y = random.normal(size=(20, 15)), random.normal(size=(20, 3))
    y[:, 0] += features[:, 0]
    present = random.random((20, 3)) < 0.8
    tensors = (torch.from_numpy(each) for each in (features, y, present))
    slopes, rest = fit_mean(*tensors, torch.ones(20, dtype=F64))
    errors = {pull: np.zeros((20, 3)) for pull in PULLS}
    for pull, error in errors.items():
        for i, j in np.argwhere(present):
            others = present[:, j] & (np.arange(20) != i)
            model = Ridge(RIDGE * pull).fit(features[others], y[others, j])
            error[i, j] = y[i, j] - model.predict(features[[i]])[0]
    best = min(errors, key=lambda pull: np.square(errors[pull]).sum())
    np.testing.assert_allclose(rest, errors[best], rtol=1e-6, atol=1e-9)
    whole = Ridge(RIDGE * best).fit(features[present[:, 1]], y[present[:, 1], 1])
    np.testing.assert_allclose(slopes[1], [whole.intercept_, *whole.coef_], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("rows, columns", [(60, 30), (100, 95)])
@pytest.mark.slow
def test_a_plain_table_is_as_good_as_a_shrunken_gaussian(rows, columns):
    names = [f"x{j}" for j in range(columns)]
    train, fresh = (
        pd.DataFrame(factors(n, columns, k), columns=names) for n, k in ((rows, 1), (300, 2))
    )
    model = cnf.fit_table(train, steps=2, hidden=(8, 8))
    peer = LedoitWolf().fit(train.to_numpy())
    best = multivariate_normal.logpdf(fresh, peer.location_, peer.covariance_)
    assert model.log_prob(fresh).mean() > best.mean() - 2


@pytest.mark.slow
def test_a_typed_table_is_better_than_independent_columns():
    """Categories are features of the mean, one for each level: more of them than rows."""
    tables = []
    for rows, seed in ((60, 1), (300, 2)):
        drawn = factors(rows, 45, seed)
        table = pd.DataFrame(drawn[:, :15], columns=[f"x{j}" for j in range(15)])
        for j in range(15, 45):
            table[f"g{j}"] = np.array(list("abc"))[np.digitize(drawn[:, j], (-1, 1))]
        tables.append(table)
    train, fresh = tables
    model = cnf.fit_table(train, steps=2, hidden=(8, 8))
    apart = np.zeros(len(fresh))
    for name in train:
        if name.startswith("x"):
            z = (fresh[name] - train[name].mean()) / train[name].std()
            apart -= z**2 / 2 + np.log(train[name].std() * np.sqrt(2 * np.pi))
        else:
            counts = train[name].value_counts().reindex(list("abc"), fill_value=0) + 1
            apart += np.log(fresh[name].map(counts / counts.sum()))
    assert np.median(model.log_prob(fresh)) > np.median(apart) + 3
