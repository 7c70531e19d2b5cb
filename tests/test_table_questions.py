"""Marginals, conditionals and ranges of tables, against sums and integrals of the joint density."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given as drawn_from
from hypothesis import settings
from hypothesis import strategies as st
from problems import seeded
from scipy.integrate import trapezoid
from scipy.stats import multivariate_normal

import cnf
from cnf.tables import Schema, TableError
from cnf.tables.explaining import PresenceEffects, Reference, rests
from cnf.tables.given import of_mapping

X = np.linspace(-9, 13, 221)
N = np.arange(0, 25)


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    group = rng.choice(["north", "south", "west"], 600, p=[0.5, 0.3, 0.2])
    count = rng.poisson(3 + 2 * (group == "south"))
    x = rng.normal(count - 2.0, 1.5)
    return pd.DataFrame({"group": group, "n": count, "x": x})


@pytest.fixture(scope="module")
def model(table):
    kinds = {"n": "integer", "x": "real"}
    return cnf.fit_table(table, kinds=kinds, steps=20, hidden=(8, 8), any_subset=True)


@pytest.fixture(scope="module")
def joint(model):
    """p(group, n, x) on a grid (groups, counts, points), by the joint density alone."""
    levels = model.schema.column("group").levels
    frame = pd.MultiIndex.from_product([levels, N, X], names=["group", "n", "x"]).to_frame(
        index=False
    )
    held = model.evaluate(frame).log_prob.exp().nan_to_num(nan=0.0)
    return held.reshape(len(levels), len(N), len(X)).numpy()


def test_exact_marginals_are_sums_of_the_joint(model, joint):
    levels = model.schema.column("group").levels
    groups = model.marginal(["group"]).exact(2048).evaluate(pd.DataFrame({"group": levels}))
    expected = trapezoid(joint.sum(1), X, axis=1)
    assert groups.log_prob.exp().numpy() == pytest.approx(expected, rel=0.08)
    counts = model.marginal(["n"]).exact(1024).evaluate(pd.DataFrame({"n": N[1:8]}))
    expected = trapezoid(joint.sum(0), X, axis=1)[1:8]
    assert (np.abs(counts.log_prob.numpy() - np.log(expected)) < counts.error.numpy() + 0.03).all()


def test_an_exact_conditional_is_a_ratio_of_the_joint(model, joint):
    density = model.conditional({"n": 4}).marginal(["x"]).exact(1024)
    at = [90, 110, 130]
    found = density.evaluate(pd.DataFrame({"x": X[at]}))
    column = joint.sum(0)[4]
    expected = np.log(column[at] / trapezoid(column, X))
    assert (np.abs(found.log_prob.numpy() - expected) < found.error.numpy() + 0.03).all()


def test_ranges_and_levels(model, joint):
    given = {"n": (3, 5), "group": ["north", "west"]}
    density = model.conditional(given).exact(2048)
    levels = list(model.schema.column("group").levels)
    kept = [levels.index("north"), levels.index("west")]
    column = joint[kept][:, 3:6].sum((0, 1))
    found = density.evaluate(pd.DataFrame({"x": X[[90, 115]]}))
    expected = np.log(column[[90, 115]] / trapezoid(column, X))
    assert (np.abs(found.log_prob.numpy() - expected) < found.error.numpy() + 0.03).all()
    drawn = model.sample(100, given, generator=seeded(1))
    assert list(drawn.columns) == ["group", "n", "x"]
    assert drawn["n"].between(3, 5).all() and drawn["group"].isin(["north", "west"]).all()


def test_amortized_probabilities_sum_to_one(model):
    levels = model.schema.column("group").levels
    density = model.conditional({"n": 4}).marginal(["group"])
    assert density.method == "amortized"
    found = density.log_prob(pd.DataFrame({"group": levels})).exp().sum()
    assert found.item() == pytest.approx(1, abs=1e-5)
    curve = model.conditional({"group": "south"}).marginal(["x"])
    found = curve.log_prob(pd.DataFrame({"x": X})).exp().numpy()
    assert trapezoid(found, X) == pytest.approx(1, abs=5e-3)


def test_a_frame_conditions_row_by_row(model, table):
    rows = table.iloc[:6].reset_index(drop=True)
    rows.loc[2, "group"] = None  # nothing is known of it
    given = rows[["group", "n"]]
    density = model.conditional(given)
    many = density.log_prob(rows[["x"]])
    one = model.conditional({"n": int(rows.loc[2, "n"])}).marginal(["x"])
    assert many[2].item() == pytest.approx(one.log_prob(rows.loc[[2], ["x"]]).item(), abs=1e-4)
    assert len(density.sample(3, generator=seeded(2))) == 18


def test_a_posterior_integrates_to_one_on_its_grid(model):
    curve = model.conditional({"group": "north"}).posterior("x", X)
    assert trapezoid(curve, X, axis=1) == pytest.approx(1)


def test_a_plain_table_without_a_network_answers_exactly(table):
    plain = table[["x"]].assign(y=table["x"] * 0.5 + np.random.default_rng(1).normal(size=600))
    model = cnf.fit_table(plain, steps=10, hidden=(4, 4))
    density = model.marginal(["y"])
    assert density.method == "exact"
    grid = np.linspace(-8, 10, 61)
    found = density.log_prob(pd.DataFrame({"y": grid})).exp().numpy()
    assert trapezoid(found, grid) == pytest.approx(1, abs=0.02)
    drawn = model.sample(500, {"x": (2.0, None)}, generator=seeded(3))
    assert (drawn["x"] >= 2).all() and drawn["y"].mean() > 0.5


def test_draws_satisfy_a_condition_or_say_that_hardly_any_does(model):
    drawn = model.sample(50, where=lambda f: f["x"] > f["n"], generator=seeded(4))
    assert len(drawn) == 50 and (drawn["x"] > drawn["n"]).all()
    many = model.sample(4000, generator=seeded(5))
    share = (many["x"] > many["n"]).mean()
    assert drawn.attrs["acceptance"] == pytest.approx(share, abs=0.12)
    with pytest.raises(ValueError, match=r"where: expected 1 rows; got 0 in .* draws"):
        model.sample(1, where=lambda f: f["x"] > 1e9)


def test_what_cannot_be_asked_is_said_in_one_line(model, table):
    for given, message in (
        ({"z": 1}, "no column 'z'; the columns are"),
        ({"gruop": "north"}, "no column 'gruop'; did you mean 'group'"),
        ({"n": (5, 3)}, "low < high"),
        ({"group": ["north", "moon"]}, "expected levels"),
        ({"x": [1.0, 2.0]}, "a value or a range"),
        ({"group": "moon"}, "expected a value that"),
    ):
        with pytest.raises(TableError, match=message) as caught:
            model.conditional(given)
        assert "\n" not in str(caught.value)
    bare = cnf.fit_table(table, steps=5, hidden=(4, 4))
    with pytest.raises(ValueError, match="any_subset=True"):
        bare.marginal(["x"])


@pytest.mark.slow
def test_a_corrupted_cell_is_named_and_false_alarms_keep_their_level():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 700))
    rows = pd.DataFrame({"a": a, "b": b, "c": a + b + 0.3 * rng.normal(size=700)})
    model = cnf.fit_table(rows[:300], steps=3, hidden=(4, 4), any_subset=True)
    fresh, reference = rows[600:].reset_index(drop=True), rows[300:600]
    honest = model.explain(fresh, reference)
    # c = a + b + 0.3 e: what is left of a row without a column is a Gaussian of two.
    covariance = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 2.09]])
    for j, name in enumerate("abc"):
        others = [i for i in range(3) if i != j]
        law = multivariate_normal(cov=covariance[np.ix_(others, others)])
        off = rests(model, fresh)[name] - law.logpdf(fresh.iloc[:, others])
        assert off.abs().mean() < 0.3  # a fit to 300 rows
    share = (honest.p_value <= 0.1).mean()
    assert abs(share - 0.1) < 3 * (0.1 * 0.9 * (1 / 100 + 1 / 300)) ** 0.5
    broken, names = fresh.copy(), [("a", "b", "c")[i % 3] for i in range(len(fresh))]
    for i, name in enumerate(names):
        broken.loc[i, name] += 8 * (-1) ** i
    found = model.explain(broken, reference)
    assert (found.column.to_numpy() == np.array(names)).mean() >= 0.9
    assert (found.p_value < 0.01).mean() > 0.95
    assert list(found.odd(3)) == ["p_value", "column", "surprise", "rank"]


@settings(max_examples=20, deadline=None)
@drawn_from(shifts=st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3), seed=st.integers(0, 99))
def test_other_units_of_cells_that_may_be_absent_leave_no_effect(shifts, seed):
    """Other units add log(unit) to the log-density of every row that holds the number."""
    random = np.random.default_rng(seed)
    present = (random.uniform(size=(40, 3)) < [0.5, 0.8, 1.0]).astype(float)
    values = random.normal(size=(40, 2))
    moved = values + (present @ shifts)[:, None]
    plain, shifted = (
        PresenceEffects.fit(present, part).removed(present, part) for part in (values, moved)
    )
    differences = (shifted - plain) - (shifted - plain)[:1]  # a constant is no matter
    assert np.abs(differences).max() < 1e-9


@pytest.mark.parametrize("unit", [0.001, 1000.0])
def test_rows_with_a_number_where_others_have_an_atom_are_not_odd_for_that(unit):
    random = np.random.default_rng(3)
    rain = np.where(random.uniform(size=600) < 0.6, 0.0, random.gamma(2, 4, 600) * unit)
    table = pd.DataFrame({"rain": rain, "x": random.normal(size=600)})
    kinds = {"rain": "positive"}
    model = cnf.fit_table(table[:300], steps=3, hidden=(4, 4), any_subset=True, kinds=kinds)
    p_values = Reference.of(model, table[:300]).p_values(model, table[300:])
    odd = p_values.nsmallest(60).index
    assert 0.3 < (rain[odd] > 0).mean() < 0.8  # 0.4 of all rows; all or none by density alone


@pytest.mark.slow
def test_a_posterior_widens_by_the_errors_of_what_is_given():
    """Of a Gaussian y = a x + noise, the mean posterior over x ± e has variance s² + a² e²."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=800)
    frame = pd.DataFrame({"x": x, "y": 2 * x + 0.3 * rng.normal(size=800)})
    model = cnf.fit_table(frame, steps=20, hidden=(8, 8), any_subset=True)
    grid = np.linspace(-4, 6, 101)
    row = pd.DataFrame({"x": [0.5], "x_err": [0.4]})
    sharp = model.posterior(row, "y", grid)[0]
    wide = model.posterior(row, "y", grid, errors={"x": "x_err"}, draws=64)[0]
    for density, variance in ((sharp, 0.3**2), (wide, 0.3**2 + (2 * 0.4) ** 2)):
        mean = trapezoid(grid * density, grid)
        assert trapezoid(density, grid) == pytest.approx(1, abs=1e-6)
        assert mean == pytest.approx(1, abs=0.12)
        found = trapezoid((grid - mean) ** 2 * density, grid)
        assert found == pytest.approx(variance, rel=0.25)


def test_a_range_of_times_has_ends_as_the_table_spells_them():
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(60.0) % 50, "D")
    x = np.random.default_rng(0).normal(size=60)
    schema = Schema.infer(pd.DataFrame({"day": days.strftime("%d.%m.%Y"), "x": x}))
    day = schema.column("day")
    for low, high in (("10.01.2024", "20.01.2024"), (days[9], days[19])):
        found = of_mapping(schema, {"day": (low, high)}, torch.device("cpu"))
        ends = day.numbers(pd.Series(["10.01.2024", "20.01.2024"]))
        assert [found.lower[0, 0], found.upper[0, 0]] == [ends[0] - 0.5, ends[1] + 0.5]
    for name in ("day", "x"):
        with pytest.raises(
            TableError, match=f"the ends of a range as '{name}' has them.*got 'no'"
        ):
            of_mapping(schema, {name: ("no", None)}, torch.device("cpu"))


@pytest.fixture(scope="module")
def bounded():
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "g": random.choice(list("ab"), 60),
            "x": random.normal(size=60),
            "share": random.uniform(size=60),
        }
    )
    kinds = {"share": "bounded:0:1"}
    return table, cnf.fit_table(table, steps=2, hidden=(4, 4), any_subset=True, kinds=kinds)


def test_an_impossible_value_costs_its_row_alone(bounded):
    found = bounded[1].marginal(["share"]).evaluate(pd.DataFrame({"share": [0.5, 2.0]}))
    assert found.log_prob[1] == -torch.inf and found.log_prob[0].isfinite()


def test_an_invalid_given_value_costs_its_own_row(bounded):
    table, model = bounded
    new = table[:4].assign(share=[0.5, 2.0, 0.5, 0.5])
    density = model.conditional(new[["share"]]).marginal(["x"])
    found, alone = density.evaluate(new[["x"]]), model.conditional(new[:1][["share"]])
    assert found.log_prob.isnan().tolist() == found.ok.logical_not().tolist() == [0, 1, 0, 0]
    expected = alone.marginal(["x"]).log_prob(new[["x"]][:1])
    torch.testing.assert_close(found.log_prob[:1], expected)
    assert np.isnan(density.posterior("x", [-1.0, 0.0, 1.0])).any(1).tolist() == [0, 1, 0, 0]
    with pytest.raises(TableError, match=r"row 1 .* cannot hold"):
        density.sample()


def test_an_unseen_category_is_rare_and_says_nothing_of_the_others(bounded):
    table, model = bounded
    new = table[:4].assign(g=["a", "west", "west", "b"])
    log_rare = -np.log(model.metadata.rows + 2)
    shares = model.marginal(["g"]).evaluate(new)
    levels = model.marginal(["g"]).log_prob(pd.DataFrame({"g": ["a", "b"]})).tolist()
    assert shares.log_prob.tolist() == pytest.approx([levels[0], log_rare, log_rare, levels[1]])
    assert shares.ok.all()
    pair = model.marginal(["g", "x"]).log_prob(new)
    alone = model.marginal(["x"]).log_prob(new)
    torch.testing.assert_close(pair[1:3], alone[1:3] + log_rare)
    given = model.conditional(new[["g"]]).marginal(["x"]).log_prob(new)
    torch.testing.assert_close(given[1:3], alone[1:3])
    assert len(model.conditional(new[["g"]]).sample()) == 4


def test_imputing_keeps_an_unseen_category_and_explaining_names_it(bounded):
    table, model = bounded
    new = table[:3].assign(g=["a", "west", "b"], x=[0.0, np.nan, np.nan])
    (done,) = model.impute(new, generator=torch.Generator().manual_seed(0))
    assert done["g"].tolist() == ["a", "west", "b"] and done["x"].notna().all()
    with pytest.raises(TableError, match=r"row 1.*outside"):
        model.impute(new.assign(share=[0.5, 2.0, 0.5]))
    found = model.explain(table[:2].assign(g=["west", "a"]), reference=table[2:])
    assert found.p_value.iloc[0] == 1 / 59 and found.column.iloc[0] == "g"


def test_the_progress_of_an_explanation_rises_and_parts_change_no_number(bounded, monkeypatch):
    table, model = bounded
    shares: list[float] = []
    whole = model.explain(table[:3], table[3:40], callback=shares.append)
    assert shares == sorted(shares) and shares[0] == 0 and 0.8 < shares[-1] <= 1
    monkeypatch.setattr("cnf.tables.explaining.SCORED_TOGETHER", 5)
    parts = model.explain(table[:3], table[3:40])
    pd.testing.assert_frame_equal(whole.rows, parts.rows)


def test_numbers_of_the_network_are_scored_within_their_bars(model, table):
    imputer = model.imputer.flow
    rows = torch.randn(64, imputer.dim, generator=torch.Generator().manual_seed(0))
    context = torch.zeros(64, imputer.context_dim)
    context[:, : imputer.dim] = 1.0
    found = imputer.evaluate(rows, context)
    exact = copy.deepcopy(imputer).double()
    solver = cnf.ode.Torchdiffeq("dopri8", rtol=1e-8, atol=1e-8)
    truth = exact.bind(context.double(), solver=solver).evaluate(rows.double()).log_prob
    error = (found.log_prob - truth).abs()
    assert (error <= found.error).all() and error.max() < 0.01
    assert found.nfe.double().mean() < 30  # where 12 steps of dopri5 take 73
