"""The scikit-learn face: its contract, scikit-learn's own checks, the laws of scores, seeds and
weights."""

import copy
import math
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.integrate import trapezoid
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import cnf
from cnf.recipe.architecture import default_hidden

TINY = cnf.CNFDensity(steps=5, hidden=(8, 8), random_state=0)


@parametrize_with_checks([TINY])
def test_scikit_learn_accepts_it(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def rows():
    noise = np.random.default_rng(0).normal(size=(400, 2))
    return noise @ [[1.0, 0.5], [0.0, 2.0]] + [10.0, -3.0]


@pytest.fixture(scope="module")
def fitted(rows):
    return clone(TINY).set_params(steps=60).fit(rows)


def test_density_integrates_to_one(fitted):
    x, y = np.linspace(-2, 22, 241), np.linspace(-18, 12, 301)
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    mass = np.exp(fitted.score_samples(points)).sum() * (x[1] - x[0]) * (y[1] - y[0])
    assert mass == pytest.approx(1, abs=2e-3)


def test_score_is_the_mean_of_float64_scores(fitted, rows):
    scores = fitted.score_samples(rows)
    assert scores.dtype == np.float64
    assert scores.shape == (400,)
    assert fitted.score(rows) == pytest.approx(scores.mean(), rel=1e-15)


def test_scores_of_a_row_do_not_depend_on_its_company(fitted, rows):
    alone = np.concatenate([fitted.score_samples(row[None]) for row in rows[:20]])
    np.testing.assert_allclose(alone, fitted.score_samples(rows)[:20], rtol=0, atol=1e-11)


def test_scores_agree_with_the_flow(fitted, rows):
    bare = fitted.flow_.log_prob(torch.tensor(rows)).detach().numpy()
    np.testing.assert_allclose(fitted.score_samples(rows), bare, atol=1e-4)
    assert fitted.flow_.dtype == torch.float32


def test_history_is_of_this_fit(fitted):
    assert isinstance(fitted.history_, cnf.History)
    assert fitted.history_.records[-1].step == 60
    assert math.isfinite(fitted.history_.valid_nll)


@pytest.mark.parametrize("count", [1, 7])
def test_samples_have_the_shape_asked_for(fitted, count):
    draws = fitted.sample(count)
    assert draws.shape == (count, 2)
    assert draws.dtype == np.float64


def test_samples_lie_where_the_rows_are(fitted, rows):
    draws = fitted.sample(4000, random_state=0)
    error = rows.std(0) / math.sqrt(len(rows))
    assert (np.abs(draws.mean(0) - rows.mean(0)) < 6 * error).all()


def test_samples_follow_their_seed(fitted):
    np.testing.assert_array_equal(
        fitted.sample(5, random_state=3), fitted.sample(5, random_state=3)
    )
    assert not np.array_equal(fitted.sample(5, random_state=3), fitted.sample(5, random_state=4))
    assert not np.array_equal(fitted.sample(5), fitted.sample(5))


def test_fits_follow_their_seed(rows):
    first, again, other = (
        clone(TINY).set_params(random_state=seed).fit(rows).score_samples(rows)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_torch_generator_is_left_alone(rows):
    before = torch.random.get_rng_state()
    clone(TINY).fit(rows).sample(3)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    "carry", [copy.deepcopy, lambda estimator: pickle.loads(pickle.dumps(estimator))]
)
def test_copies_of_a_fitted_estimator_score_alike(fitted, rows, carry):
    np.testing.assert_array_equal(carry(fitted).score_samples(rows), fitted.score_samples(rows))


def test_clone_is_not_fitted(fitted, rows):
    fresh = clone(fitted)
    assert fresh.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        fresh.score_samples(rows)
    with pytest.raises(NotFittedError):
        fresh.sample()


def test_frames_give_their_names(rows):
    frame = pd.DataFrame(rows, columns=["height", "weight"])
    density = clone(TINY).fit(frame)
    assert density.feature_names_in_.tolist() == ["height", "weight"]
    assert density.n_features_in_ == 2
    with pytest.raises(ValueError, match="feature names"):
        density.score_samples(frame[["weight", "height"]])


def test_pipeline_passes_scores_on(rows):
    pipeline = make_pipeline(StandardScaler(), clone(TINY)).fit(rows)
    inner = pipeline[-1].score_samples(pipeline[0].transform(rows))
    np.testing.assert_array_equal(pipeline.score_samples(rows), inner)
    assert pipeline.score(rows) == pytest.approx(inner.mean())


@pytest.mark.slow
def test_grid_search_prefers_the_longer_fit(rows):
    two_parts = rows + 20 * (rows[:, :1] > 10)
    search = GridSearchCV(clone(TINY), {"steps": [1, 120]}, cv=2).fit(two_parts)
    assert search.best_params_ == {"steps": 120}
    assert search.best_estimator_.n_features_in_ == 2


def share_on_the_left(*data):
    """Of samples of a fit to these rows (and their weights)."""
    density = clone(TINY).set_params(steps=200).fit(*data)
    return (density.sample(4000, random_state=0)[:, 0] < 10).mean()


@pytest.mark.slow
def test_integer_weights_stand_for_repeated_rows(rows):
    left = rows[:, 0] < 10
    weights = np.where(left, 4, 1)
    expected = weights[left].sum() / weights.sum()
    plain, weighted = share_on_the_left(rows), share_on_the_left(rows, None, weights)
    assert plain == pytest.approx(left.mean(), abs=0.08)
    # A smooth density blurs the jump that the weights make.
    assert weighted == pytest.approx(expected, abs=0.14)
    assert share_on_the_left(np.repeat(rows, weights, axis=0)) == pytest.approx(weighted, abs=0.03)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda X, w: (X, -w), "weights"),
        (lambda X, w: (X, w[1:]), "inconsistent"),
        (lambda X, w: (X, 0 * w), "all are zero"),
        (lambda X, w: (np.tile(X, (2, 1)), np.concatenate([2 * w, -w])), "weights >= 0; got -1"),
        (lambda X, w: (X * [1, 0], w), "column 1 .* constant"),
        (lambda X, w: (X[:5], w[:5]), "minimum of 10"),
        (lambda X, w: (np.where(X.min() < X, X, np.nan), w), "NaN"),
    ],
)
def test_unfit_input_is_refused(rows, spoil, message):
    X, weights = spoil(rows, np.ones(len(rows)))
    with pytest.raises(ValueError, match=message):
        clone(TINY).fit(X, None, weights)


def test_width_grows_with_the_table(rows):
    shapes = [(50_000, 2), (10**6, 2), (1999, 43), (2000, 3), (20_000, 43), (30_000, 7)]
    found = [default_hidden(*shape) for shape in shapes]
    assert found == [(64, 64), (96, 64), (64, 64), (128, 128), (128, 128), (192, 192)]
    assert clone(TINY).set_params(hidden=None).fit(rows).flow_.field.hidden == (64, 64)


# data frames


def people(rows):
    random = np.random.default_rng(0)
    z = random.normal(size=(rows, 2))
    return pd.DataFrame(
        {
            "size": z[:, 0],
            "visits": random.poisson(np.exp(1 + 0.4 * z[:, 0])),
            "team": pd.Categorical(np.where(z[:, 1] > 0, "red", "blue")),
            "new": z[:, 1] > 1,
            "mood": np.where(random.random(rows) < 0.2, np.nan, z[:, 0] + z[:, 1]),
        }
    )


@pytest.fixture(scope="module")
def typed():
    return clone(TINY).set_params(steps=20).fit(people(200))


def test_a_frame_of_types_comes_back_as_it_was(typed):
    table, drawn = people(200), typed.sample(50, random_state=0)
    assert drawn.dtypes.to_dict() == table.dtypes.to_dict()
    assert typed.feature_names_in_.tolist() == list(table) == list(drawn)
    assert (drawn.visits >= 0).all()
    assert typed.schema_.column("visits").kind == "integer"
    scores = typed.score_samples(table)
    assert scores.dtype == np.float64 and np.isfinite(scores).all()
    assert 0 < typed.log_prob_error_ < 0.1


@pytest.mark.parametrize(
    "carry", [copy.deepcopy, lambda estimator: pickle.loads(pickle.dumps(estimator))]
)
def test_copies_of_a_typed_estimator_score_alike(typed, carry):
    np.testing.assert_array_equal(
        carry(typed).score_samples(people(20)), typed.score_samples(people(20))
    )


def test_holes_are_filled(typed):
    holes = people(30)
    one, two = typed.impute(holes, 2, random_state=0)
    assert one.mood.notna().all() and not one.equals(two)
    pd.testing.assert_frame_equal(
        one.drop(columns="mood"), holes.drop(columns="mood"), check_dtype=False
    )


@pytest.mark.slow
def test_a_frame_of_polars_comes_back_as_one(typed):
    polars = pytest.importorskip("polars")
    table = polars.DataFrame({"size": people(60)["size"].to_list(), "team": ["red", "blue"] * 30})
    density = clone(TINY).fit(table)
    drawn = density.sample(4, random_state=0)
    assert isinstance(drawn, polars.DataFrame)
    assert drawn.schema == table.schema
    assert density.score_samples(table).shape == (60,)
    plain = clone(TINY).fit(table.select("size", polars.col("size").sin().alias("wave")))
    assert plain.sample(2).columns == ["size", "wave"]


@pytest.mark.slow
def test_a_density_given_other_columns(typed):
    table = people(200)
    density = clone(TINY).set_params(context=["team", "size"]).fit(table)
    drawn = density.sample(5, given=table.iloc[:5][["team", "size"]], random_state=0)
    assert list(drawn) == ["visits", "new", "mood"]
    assert np.isfinite(density.score_samples(table)).all()
    with pytest.raises(ValueError, match="context column"):
        density.sample(5)


@pytest.mark.slow
def test_typed_tables_go_through_searches():
    search = GridSearchCV(clone(TINY), {"steps": [1, 10]}, cv=2).fit(people(60))
    assert search.best_estimator_.n_features_in_ == 5


@pytest.mark.parametrize("steps", [5])
def test_a_weight_is_a_repetition(rows, steps):
    weights = np.random.default_rng(0).integers(0, 3, len(rows))
    weighted = clone(TINY).set_params(steps=steps).fit(rows, None, weights)
    repeated = clone(TINY).set_params(steps=steps).fit(np.repeat(rows, weights, axis=0)[::-1])
    np.testing.assert_array_equal(weighted.score_samples(rows), repeated.score_samples(rows))


def test_frames_and_arrays_are_not_mixed_up(typed, rows):
    with pytest.raises(ValueError, match="data frame"):
        typed.score_samples(rows)
    with pytest.raises(ValueError, match="named columns"):
        clone(TINY).set_params(context=["a"]).fit(rows)
    with pytest.raises(ValueError, match="no imputer: fit it to a data frame"):
        clone(TINY).fit(rows).impute(rows)


def test_members_are_averaged_as_densities(rows):
    density = clone(TINY).set_params(members=3).fit(rows)
    assert len(density.members_) == 3
    alone = [copy.deepcopy(density) for _ in range(3)]
    for k, one in enumerate(alone):
        one.members_ = [density.members_[k]]
    scores = np.stack([one.score_samples(rows) for one in alone])
    assert np.ptp(scores, axis=0).min() > 0  # the members differ
    np.testing.assert_allclose(
        np.exp(density.score_samples(rows)), np.exp(scores).mean(0), rtol=1e-10
    )


def test_samples_of_members_come_from_all_of_them(rows):
    """Members shifted far apart are seen in equal shares, in random order."""
    density = clone(TINY).set_params(members=2).fit(rows)
    density.members_[1] = copy.deepcopy(density.members_[1])
    density.members_[1].flow.preprocess.shift += 1000.0
    second = density.sample(400, random_state=0)[:, 0] > 500
    assert 160 < second.sum() < 240 and 60 < second[:200].sum() < 140


def test_members_of_a_typed_table_draw_for_their_own_context():
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        {"x": random.normal(size=120), "side": random.choice(["left", "right"], 120)}
    )
    density = clone(TINY).set_params(members=2, context=["side"]).fit(table)
    given = pd.DataFrame({"side": ["left", "right"] * 5})
    assert (
        len(density.sample(10, given=given)) == 10 == len(density.sample(10, given=given.iloc[:1]))
    )
    assert np.isfinite(density.score_samples(table)).all()
    with pytest.raises(ValueError, match="expected 1 or 20 rows; got 10"):
        density.sample(20, given=given)


def test_members_below_one_are_refused(rows):
    with pytest.raises(ValueError, match="members"):
        clone(TINY).set_params(members=0).fit(rows)


def test_any_columns_given_any_others(rows):
    density = clone(TINY).set_params(any_subset=True).fit(rows)
    given = density.conditional({"x0": float(rows[0, 0])})
    x = np.linspace(rows[:, 1].min() - 20, rows[:, 1].max() + 20, 2001)
    found = given.log_prob(pd.DataFrame({"x1": x})).exp().numpy()
    assert trapezoid(found, x) == pytest.approx(1, abs=1e-3)
    assert list(density.marginal(["x1"]).sample(3)) == ["x1"]
    assert density.explain(rows[:5], rows).odd(2).columns[0] == "p_value"


def test_holes_of_a_plain_frame_are_filled(rows):
    frame = pd.DataFrame(rows, columns=["a", "b"])
    density = clone(TINY).set_params(any_subset=True).fit(frame)
    holes = frame[:6].copy()
    holes.iloc[[0, 2], 0], holes.iloc[[1, 2], 1] = np.nan, np.nan
    first, second = density.impute(holes, 2, random_state=0)
    assert first.notna().all(axis=None) and list(first) == ["a", "b"]
    known = holes.notna()
    assert np.allclose(first.where(known), holes, equal_nan=True)
    assert (first.mask(known) != second.mask(known)).to_numpy().sum() > 4


def test_a_category_that_one_fold_lacks_stops_no_cross_validation():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"size": rng.normal(size=40), "team": ["red", "blue"] * 20})
    table.loc[7, "team"] = "green"
    scores = cross_val_score(cnf.CNFDensity(steps=2, hidden=(4, 4)), table, cv=KFold(2))
    assert np.isfinite(scores).all()
