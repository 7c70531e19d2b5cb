"""Columns whose values heap, and outliers: found, modeled exactly, drawn as often as they are
there."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import cnf
from cnf.recipe import fit_table_flow
from cnf.recipe.architecture import default_table_flow
from cnf.tables import Column, Schema
from cnf.tables.column_types.heaping import heaped_values
from cnf.tables.features import StateFeatures
from cnf.tables.inference import infer
from cnf.transforms.whitening import Whitening


def weights_of_stones(rows: int, seed: int = 0) -> pd.DataFrame:
    """Hundredths that heap at halves and just above them, and a size that follows from them."""
    random = np.random.default_rng(seed)
    smooth = random.gamma(4.0, 0.3, rows)
    heaped = np.ceil(2 * smooth) / 2 + 0.01 * random.geometric(0.7, rows)
    weight = np.where(random.random(rows) < 0.8, heaped, smooth).round(2)
    size = (6 * np.cbrt(weight + 0.01) * np.exp(0.01 * random.normal(size=rows))).round(3)
    return pd.DataFrame({"weight": weight, "size": size})


# which values are heaps


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(("poisson", "normal", "geometric", "lognormal")),
    st.floats(30, 300),
    st.integers(0, 2**31),
)
def test_smooth_counts_are_not_heaped(shape, scale, seed):
    random = np.random.default_rng(seed)
    drawn = {
        "poisson": lambda: random.poisson(scale, 4000),
        "normal": lambda: random.normal(0, scale, 4000).round(),
        "geometric": lambda: random.geometric(1 / scale, 4000),
        "lognormal": lambda: np.exp(np.log(scale) + random.normal(size=4000)).round(),
    }[shape]()
    assert not heaped_values(*np.unique(drawn, return_counts=True)).any()


def test_heaps_become_atoms_and_the_rest_a_density():
    column = infer(weights_of_stones(4000).weight)
    assert (column.kind, column.step, column.lower) == ("integer", 0.01, -0.005)
    assert {0.51, 1.01, 1.51} <= set(column.atoms)
    assert list(column.atoms) == sorted(column.atoms)
    described = column.describe()
    assert described.startswith(
        "integer, multiples of 0.01, from 0, often exactly 0."
    ) and described.endswith("other values")


def test_context_keeps_its_values_as_numbers():
    assert infer(weights_of_stones(4000).weight, role="context").atoms == ()


# the grid closed up over them


@settings(max_examples=100, deadline=None)
@given(
    st.sets(st.integers(-20, 20), max_size=12), st.sampled_from((1.0, 0.01, 5.0)), st.booleans()
)
def test_every_cell_has_one_code(heaps, step, bounded):
    ends = {"lower": -21.5 * step, "upper": 21.5 * step} if bounded else {}
    column = Column(
        "a", "integer", step=step, atoms=tuple(h * step for h in sorted(heaps)), **ends
    )
    cells = pd.Series(np.arange(-21, 22) * step).round(10)
    values, states = column.encode(cells)
    np.testing.assert_array_equal(column.decode(values, states), cells)
    dense = np.round(values[states == 0] / step).astype(int)
    assert (np.diff(dense) == 1).all()  # no gap, no value twice
    if bounded:
        lower, upper = column.support
        assert lower < values[states == 0].min() and values[states == 0].max() < upper
        assert round((upper - lower) / step) == len(dense)


def test_probabilities_of_a_heaped_column_add_up_to_one():
    torch.manual_seed(0)
    heaped = Column(
        "a", "integer", lower=-0.5, upper=11.5, step=1.0, atoms=(2.0, 3.0, 7.0), dtype="int64"
    )
    model = cnf.TableFlow(
        Schema((heaped, Column("b", "categorical", levels=("x", "y")))), hidden=(16, 16)
    ).double()
    for part in (model.discrete.network[-1].weight, model.flow.field.W3):
        torch.nn.init.normal_(part, std=0.3)
    rows = pd.DataFrame([(a, b) for a in range(12) for b in "xy"], columns=["a", "b"])
    assert model.log_prob(rows).exp().sum().item() == pytest.approx(1, abs=1e-3)


def test_places_of_many_atoms_rise_with_them():
    column = Column("a", "integer", step=1.0, atoms=tuple(map(float, range(20))), missing=True)
    features = StateFeatures([column])
    states = torch.randint(0, 21, (3000, 1), generator=torch.Generator().manual_seed(0))
    features.fit(states, torch.ones(3000).double())
    found = features(torch.arange(-1, 22)[:, None])
    assert not found[0].any()  # not known
    assert found[1].tolist() == [1, 0, 0, 0] and found[-1].tolist() == [0, 1, 0, 0]
    assert (found[2:-1, 2].diff() > 0).all() and not found[2:-1, :2].any()


@pytest.fixture(scope="module")
def fitted() -> cnf.TableFlow:
    table = weights_of_stones(3000)
    model = default_table_flow(Schema.infer(table), len(table), hidden=(32, 32), seed=0)
    fit_table_flow(model, table, steps=100, likelihood_share=0.0, imputer=True)
    return model


@pytest.mark.slow
def test_drawn_heaps_are_as_frequent_as_real_ones(fitted):
    real, drawn = (
        weights_of_stones(3000, seed=1),
        fitted.sample(3000, generator=torch.Generator().manual_seed(0)),
    )
    frequent = real.weight.value_counts()[lambda counts: counts >= 40].index
    both = [
        frame.weight.where(frame.weight.isin(frequent), -1).value_counts()
        for frame in (real, drawn)
    ]
    counts = pd.concat(both, axis=1).fillna(0).to_numpy()
    assert len(counts) > 8
    assert stats.chi2_contingency(counts).pvalue > 1e-4


@pytest.mark.slow
def test_what_follows_from_a_heaped_column_still_does(fitted):
    drawn = fitted.sample(2000, generator=torch.Generator().manual_seed(0))
    off = np.log(drawn["size"] / (6 * np.cbrt(drawn.weight + 0.01)))
    assert off.std() < 0.03  # 0.01 in the table, 0.2 without the weight
    hidden = drawn.assign(size=np.nan)
    filled = fitted.impute(hidden, 1, generator=torch.Generator().manual_seed(1))[0]
    assert np.log(filled["size"] / (6 * np.cbrt(filled.weight + 0.01))).std() < 0.05


# outliers


def correlated(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    covariance = torch.tensor([[1.0, 0.99], [0.99, 1.0]]).double()
    y = torch.distributions.MultivariateNormal(torch.zeros(2).double(), covariance)
    torch.manual_seed(0)
    return y.sample((rows,)), covariance


def test_outliers_do_not_widen_the_gaussian():
    y, covariance = correlated(5000)
    y[:10] += torch.tensor([30.0, -30.0])
    present, ones = torch.ones_like(y, dtype=torch.bool), torch.ones(len(y)).double()
    whitening = Whitening(2, 0)
    whitening.fit(y, present, y[:, :0], ones)
    torch.testing.assert_close(whitening.covariance, covariance, rtol=0, atol=0.05)
    assert (
        whitening.whiten(y, present, y[:, :0])[0].abs().max() < 50
    )  # 400 standard deviations, bent


def test_a_gaussian_has_no_bent_tails():
    y, _ = correlated(5000)
    whitening = Whitening(2, 0)
    whitening.fit(y, torch.ones_like(y, dtype=torch.bool), y[:, :0], torch.ones(len(y)).double())
    assert not whitening.bend.any()


def test_bent_tails_keep_inverse_and_jacobian():
    whitening = Whitening(3, 0)
    whitening.covariance = torch.tensor(
        [[2.0, 1.2, 0.3], [1.2, 1.0, 0.1], [0.3, 0.1, 0.5]]
    ).double()
    whitening.bend = torch.tensor([0.0, 0.5, 1.0]).double()
    y = 10 * torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).double()
    free = torch.ones(5, 3, dtype=torch.bool)
    z, log_det = whitening.whiten(y, free, y[:, :0])
    torch.testing.assert_close(whitening.unwhiten(z, torch.zeros_like(y), free, y[:, :0]), y)
    jacobian = torch.stack(
        [
            torch.autograd.functional.jacobian(
                lambda row: whitening.whiten(row[None], free[:1], y[:1, :0])[0][0], row
            )
            for row in y
        ]
    )
    torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], log_det)
