"""Few rows of typed tables: what takes the place of a flow that does not lead it."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import cnf
from cnf.recipe.affordable import Deadline
from cnf.recipe.tables.few_rows import Candidate, Numbers, fallback_if_better
from cnf.tables.model import TableFlow
from cnf.tables.schema import Schema
from cnf.transforms.grouped_whitening import GroupedWhitening

COVARIANCES = np.array([[[1.0, 0.9], [0.9, 1.0]], [[4.0, -1.8], [-1.8, 1.0]]])
MEANS = np.array([[0.0, 0.0], [3.0, 1.0]])


def rows(count, seed):
    """Two groups of Gaussian numbers, and their log-density given the group."""
    random = np.random.default_rng(seed)
    group = random.integers(0, 2, count)
    x = np.stack([random.multivariate_normal(MEANS[g], COVARIANCES[g]) for g in group])
    truth = [
        stats.multivariate_normal.logpdf(a, MEANS[g], COVARIANCES[g]) for a, g in zip(x, group)
    ]
    features = torch.nn.functional.one_hot(torch.tensor(group), 2).double()
    x = torch.tensor(x)
    return Numbers(
        x, torch.ones_like(x, dtype=torch.bool), features, torch.ones(count).double()
    ), truth


@pytest.fixture(scope="module")
def flow():
    places = np.arange(60)
    table = pd.DataFrame(
        {"a": 0.1 * places**1.5, "b": (7 * places % 60) ** 0.7, "g": list("xy") * 30}
    )
    return TableFlow(Schema.infer(table), hidden=(4, 4)).flow


def whitening():
    some, _ = rows(400, 0)
    found = GroupedWhitening(2, 2, first=0, groups=2, prior=2.0)
    found.fit(some.x, some.present, some.features, some.weights)
    return found


def test_each_group_has_its_conditional_gaussian():
    found, (some, truth) = whitening(), rows(200, 1)
    z, ladj = found(some.x, some.context, some.present)
    log_prob = -0.5 * z.square().sum(1) - np.log(2 * np.pi) + ladj
    assert np.mean(truth - log_prob.numpy()) < 0.05
    assert torch.allclose(found.inverse(z, some.context, some.present), some.x)


def test_the_jacobian_is_that_of_the_map():
    found, (some, _) = whitening(), rows(3, 2)

    def jacobian(part):
        return torch.autograd.functional.jacobian(
            lambda x: found(x[None], part.context, part.present)[0][0], part.x[0]
        )

    for row in range(3):
        part = some.take(slice(row, row + 1))
        ladj = found(part.x, part.context, part.present)[1]
        assert ladj.item() == pytest.approx(jacobian(part).det().abs().log().item())


def test_a_row_of_no_group_has_the_shared_covariance():
    found, (some, _) = whitening(), rows(2, 3)
    nothing = torch.cat((torch.ones(2, 2), torch.zeros(2, 2)), 1).double()
    assert found(some.x, nothing)[0].isfinite().all()


@pytest.fixture
def quick(monkeypatch):
    """One mixture beside the Gaussian."""
    monkeypatch.setattr("cnf.recipe.defaults.FEW_ROWS_COMPONENTS", (2,))
    monkeypatch.setattr("cnf.recipe.defaults.STACKING_SHAPES", ("diag",))


def test_groups_of_other_shapes_get_covariances_of_their_own(flow, quick):
    (train, _), (valid, _), (new, truth) = rows(150, 4), rows(15, 5), rows(400, 6)
    fallback = fallback_if_better(flow, [(0, 2)], train, valid, 0)
    assert fallback is not None and fallback.candidate.group == (0, 2)
    there = fallback.installed(flow, train)
    lost = torch.tensor(truth) - there.log_prob(new.x, new.context)
    assert lost.mean() < 0.15
    assert there.log_prob(new.x + 2.0, new.context).min() > -60  # no steep map beyond the rows


def test_a_flow_that_leads_stays(flow, quick):
    (train, _), (valid, _) = rows(150, 4), rows(60, 5)
    fitted = Candidate(False, (0, 2), 1.0).fit(train, [(None, None)] * 2)
    leading = cnf.CNF(2, context_dim=4, field=flow.field, base=flow.base, preprocess=fitted)
    wrong = Numbers(train.x.flip(0), train.present, train.features, train.weights)
    assert fallback_if_better(leading, [(0, 2)], wrong, valid, 0) is None


def test_what_there_is_no_time_for_is_not_tried(flow, quick):
    (train, _), (valid, _) = rows(500, 2), rows(400, 3)
    gone = Deadline(0.0, iter(np.arange(0.0, 99.0)).__next__)
    fallback = fallback_if_better(flow, [(0, 2)], train, valid, 0, gone)
    assert fallback.candidate == Candidate(mixtures=False) and fallback.shares == {None: 1.0}
