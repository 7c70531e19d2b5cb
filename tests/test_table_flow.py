"""The density of typed tables: normalized for every pattern, exact where truth is known, told as
it is."""

import copy
import itertools
import math
from unittest.mock import Mock, patch

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import cnf
from cnf.flows.model_file import read_model, write_model
from cnf.recipe import fit_table_flow
from cnf.recipe.architecture import default_table_flow
from cnf.tables import Column, Schema, TableError
from cnf.tables.discrete import DiscreteModel
from cnf.tables.quadrature import cell_rule
from cnf.transforms.marginals import MarginalTransform
from cnf.transforms.whitening import Whitening

REGION = Column("region", "categorical", levels=("north", "south"), dtype="str")
LEVEL = Column("level", "real", missing=True)
COUNT = Column("count", "integer", lower=-0.5, upper=4.5, step=1.0, dtype="int64")
RAIN = Column("rain", "positive", lower=0.0, atoms=(0.0,))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stirred(*columns: Column, seed: int = 0) -> cnf.TableFlow:
    """A model whose every part does something, in float64."""
    torch.manual_seed(seed)
    model = cnf.TableFlow(Schema(columns), hidden=(16, 16)).double()
    parts = [model.flow.field.W3]
    if model.discrete is not None:
        parts.insert(0, model.discrete.network[-1].weight)
    for part in parts:
        torch.nn.init.normal_(part, std=0.3)
    whitening = model.flow.preprocess.maps[1]
    dim = model.flow.dim
    mixing = torch.randn(dim, dim).double()
    whitening.covariance = mixing @ mixing.T + torch.eye(dim)
    whitening.slopes.normal_(std=0.3)
    return model


def people(rows: int, seed: int = 0) -> pd.DataFrame:
    """A table with everything in it."""
    random = np.random.default_rng(seed)
    z = random.normal(size=(rows, 3))
    rain = np.where(z[:, 0] > 0, np.exp(z[:, 1]), 0.0)
    return pd.DataFrame(
        {
            "region": np.where(z[:, 2] > 0.3, "north", "south"),
            "level": np.where(random.random(rows) < 0.2, np.nan, z[:, 0] + z[:, 1]),
            "count": random.poisson(np.exp(0.5 * z[:, 1] + 1)),
            "rain": rain,
            "share": random.beta(2, 2 + (z[:, 2] > 0.3), rows),
        }
    )


@pytest.fixture(scope="module")
def fitted() -> cnf.TableFlow:
    table = people(600)
    model = default_table_flow(
        Schema.infer(table, kinds={"share": "bounded:0:1"}), 600, hidden=(16, 16), seed=0
    )
    fit_table_flow(model, table, steps=30, imputer=False)
    return model


# exactness


def test_mass_over_categories_missing_cells_and_integers_is_one():
    model = stirred(REGION, LEVEL, COUNT)
    level = np.linspace(-14, 14, 113)
    cases = itertools.product(REGION.levels, [*level, np.nan], range(5))
    table = pd.DataFrame(cases, columns=["region", "level", "count"])
    found = model.evaluate(table)
    mass = found.log_prob.exp().numpy() * np.where(table.level.isna(), 1.0, level[1] - level[0])
    assert mass.sum() == pytest.approx(1, abs=1e-3)
    assert (mass * found.error.numpy()).sum() < 0.06
    assert found.ok.all()


def test_mass_beside_an_atom_is_what_the_atom_leaves():
    model = stirred(REGION, RAIN)
    logs = np.linspace(-14, 14, 561)
    rain = np.exp(logs)
    for region in REGION.levels:
        dense = model.log_prob(pd.DataFrame({"region": region, "rain": rain})).exp().numpy()
        atom = model.log_prob(pd.DataFrame({"region": [region], "rain": [0.0]})).exp().item()
        both = model.discrete.log_prob(
            torch.tensor([[REGION.levels.index(region), i] for i in (0, 1)]),
            torch.zeros(2, 0).double(),
        )
        assert (dense * rain).sum() * (logs[1] - logs[0]) == pytest.approx(
            both[0].exp().item(), abs=1e-3
        )
        assert atom == pytest.approx(both[1].exp().item())


def test_more_integers_than_two_are_summed_within_the_bar():
    columns = [Column(name, "integer", lower=-0.5, upper=2.5, step=1.0) for name in "abc"]
    model = stirred(*columns)
    found = model.evaluate(
        pd.DataFrame(itertools.product(range(3), repeat=3), columns=list("abc"))
    )
    mass = found.log_prob.exp()
    assert abs(mass.sum().item() - 1) < (mass * found.error).sum() + 1e-3


def test_a_gaussian_with_holes_has_the_density_of_its_marginals():
    covariance = np.array([[2.0, 1.2, 0.3], [1.2, 1.0, 0.1], [0.3, 0.1, 0.5]])
    columns = [Column(name, "real", missing=True) for name in "abc"]
    model = cnf.TableFlow(Schema(columns), hidden=(8, 8)).double()
    model.flow.preprocess.maps[1].covariance = torch.tensor(covariance)
    x = np.random.default_rng(0).multivariate_normal(np.zeros(3), covariance, 40)
    hidden = np.random.default_rng(1).random((40, 3)) < 0.4
    found = model.log_prob(pd.DataFrame(np.where(hidden, np.nan, x), columns=list("abc"))).numpy()
    for row in range(40):
        seen = ~hidden[row]
        truth = 3 * math.log(0.5)
        if seen.any():
            truth += stats.multivariate_normal.logpdf(
                x[row, seen], None, covariance[seen][:, seen]
            )
        assert found[row] == pytest.approx(truth, abs=1e-6)


def test_symbols_are_normalized_whatever_is_known():
    torch.manual_seed(0)
    model = DiscreteModel([2, 1, 3, 4], extra=2).double()
    torch.nn.init.normal_(model.network[-1].weight)
    every = torch.cartesian_prod(*(torch.arange(size) for size in model.sizes))
    extra = torch.randn(2).double().expand(len(every), 2)
    assert model.log_prob(every, extra).logsumexp(0).item() == pytest.approx(0, abs=1e-12)
    known = torch.tensor([False, False, True, False]).expand(len(every), 4)
    given_one = model.log_prob(every, extra, known)
    for level in range(3):
        assert given_one[every[:, 2] == level].logsumexp(0).item() == pytest.approx(0, abs=1e-12)


def test_drawn_symbols_have_their_probabilities():
    torch.manual_seed(0)
    model = DiscreteModel([2, 3]).double()
    torch.nn.init.normal_(model.network[-1].weight)
    nothing = torch.zeros(20_000, 2, dtype=torch.long)
    drawn = model.sample(
        nothing, torch.zeros(20_000, 0).double(), nothing.bool(), generator=generator()
    )
    every = torch.cartesian_prod(torch.arange(2), torch.arange(3))
    expected = model.log_prob(every, torch.zeros(6, 0).double()).exp().detach().numpy()
    counts = np.bincount((3 * drawn[:, 0] + drawn[:, 1]).numpy(), minlength=6)
    assert stats.chisquare(counts, 20_000 * expected).pvalue > 1e-4


@pytest.mark.parametrize(("integers", "degree"), [(1, 20), (2, 14)])
def test_rules_for_few_integers_are_exact_for_polynomials(integers, degree):
    rule = cell_rule(torch.full((integers,), 2.0))
    powers = rule.offsets.pow(degree).prod(1)
    assert (rule.weights @ powers).item() == pytest.approx(
        (1 / (degree + 1)) ** integers, rel=1e-9
    )


def test_whitening_given_columns_is_the_conditional_gaussian():
    covariance = torch.tensor([[2.0, 1.2, 0.3], [1.2, 1.0, 0.1], [0.3, 0.1, 0.5]]).double()
    whitening = Whitening(3, 0)
    whitening.covariance = covariance
    y = torch.tensor([[0.5, -1.0, 2.0]]).double()
    free, known = torch.tensor([[True, False, True]]), torch.tensor([[False, True, False]])
    z, log_det = whitening.whiten(y, free, y[:, :0], known)
    found = -0.5 * z.square().sum() - math.log(2 * math.pi) + log_det
    joint = stats.multivariate_normal.logpdf(y[0].numpy(), None, covariance.numpy())
    assert found.item() == pytest.approx(joint - stats.norm.logpdf(-1.0), abs=1e-9)
    back = whitening.unwhiten(z, y.where(known, 0.0), free, y[:, :0], known)
    torch.testing.assert_close(back, y)


# maps of columns


@pytest.fixture(scope="module")
def marginals() -> MarginalTransform:
    random = np.random.default_rng(0)
    x = np.stack(
        [random.standard_t(2, 800), np.exp(random.normal(size=800)), random.random(800)], 1
    )
    share = Column("c", "bounded", lower=0.0, upper=1.0)
    found = MarginalTransform([(None, None), (0.0, None), share.support])
    found.fit(torch.tensor(x), torch.ones(800, 3, dtype=torch.bool), torch.ones(800).double())
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.floats(-1e5, 1e5), st.floats(1e-5, 1e5), st.floats(1e-6, 1 - 1e-6)),
    st.floats(1e-6, 1e-2),
)
def test_maps_increase_invert_and_know_their_slope(marginals, x, step):
    x = torch.tensor([x]).double()
    y, log_slope = marginals.by_cell(x)
    h = 1e-6 * torch.stack([x[0, 0].abs() + 1, x[0, 1], (1 - x[0, 2]) * x[0, 2]])
    slope = (marginals(x + h)[0] - marginals(x - h)[0]) / (2 * h)
    torch.testing.assert_close(log_slope.exp(), slope, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(marginals.inverse(y), x, rtol=1e-6, atol=1e-9)
    further = x + step * torch.stack([x[0, 0].abs() + 1, x[0, 1], (1 - x[0, 2]) * x[0, 2]])
    assert (marginals(further)[0] > y).all()


def test_a_cell_is_inverted_as_if_it_were_alone(marginals):
    """To the last bit, in the tails too, and in a few evaluations of the map."""
    y = torch.linspace(-40, 40, 400, dtype=torch.float64)[:, None].expand(-1, marginals.dim)
    together = marginals.inverse(y)
    for row in (0, 17, 200, 399):
        assert marginals.inverse(y[row : row + 1]).equal(together[row : row + 1])
    counted = Mock(wraps=marginals._normalize)
    with patch.object(marginals, "_normalize", counted):
        marginals.inverse(y[190:210])
    assert counted.call_count <= 8


def test_maps_make_columns_nearly_gaussian(marginals):
    x = torch.distributions.StudentT(2.0).sample((2000, 1)).double().expand(2000, 3)
    y = marginals(x)[0][:, 0]
    assert stats.kstest(y.numpy(), "norm").statistic < 0.06


def test_a_gaussian_column_stays_linear():
    x = 5 + 3 * torch.randn(2000, 1, generator=generator()).double()
    found = MarginalTransform([(None, None)])
    found.fit(x, torch.ones(2000, 1, dtype=torch.bool), torch.ones(2000).double())
    y, _ = found(x)
    torch.testing.assert_close(y, (x - x.mean()) / x.std(unbiased=False))


# what a fitted model keeps


def test_scores_do_not_depend_on_the_order_of_columns_or_rows(fitted):
    table, exact = people(60, seed=1), copy.deepcopy(fitted).double()
    scores = exact.log_prob(table)
    turned = table.iloc[::-1, ::-1]
    torch.testing.assert_close(exact.log_prob(turned).flip(0), scores, rtol=0, atol=1e-10)


@pytest.mark.slow
def test_fits_do_not_depend_on_order_nor_on_whether_weights_or_repetition_count_a_row():
    table = people(80)
    counts = np.random.default_rng(0).integers(0, 4, 80)
    shuffled = np.random.default_rng(1).permutation(80)
    schema = Schema.infer(table, kinds={"share": "bounded:0:1"})
    scores = []
    for rows, weights in [
        (table, counts),
        (table.iloc[shuffled], counts[shuffled]),
        (table.loc[table.index.repeat(counts)], None),
    ]:
        model = default_table_flow(schema, 80, hidden=(8, 8), seed=0)
        fit_table_flow(model, rows, weights=weights, steps=5, imputer=False)
        scores.append(model.log_prob(table))
    torch.testing.assert_close(scores[1], scores[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(scores[2], scores[0], rtol=0, atol=1e-12)


@pytest.mark.slow
def test_other_units_change_scores_by_the_known_constant():
    factor, table = 2.54, people(100)
    model_scores = []
    for scale in (1.0, factor):
        rows = table.assign(level=table.level * scale, rain=table.rain * scale)
        model = default_table_flow(Schema.infer(rows), 100, hidden=(8, 8), seed=0).double()
        fit_table_flow(model, rows, steps=10, imputer=False)
        model_scores.append(model.log_prob(rows))
    held = table.level.notna().to_numpy().astype(int) + (table.rain > 0).to_numpy()
    expected = model_scores[0] - torch.tensor(held * math.log(factor))
    torch.testing.assert_close(model_scores[1], expected, rtol=0, atol=1e-6)


def test_samples_are_typed_and_in_range(fitted):
    table, drawn = people(600), fitted.sample(2000, generator=generator())
    assert drawn.dtypes.to_dict() == table.dtypes.to_dict()
    assert list(drawn.columns) == list(table.columns)
    assert set(drawn.region) == {"north", "south"}
    assert (drawn["count"] >= 0).all()
    assert drawn.rain.min() == 0 and drawn.share.between(0, 1, inclusive="neither").all()
    for name, value in [("rain", 0.0), ("region", "north")]:
        ours, theirs = (drawn[name] == value).mean(), (table[name] == value).mean()
        assert abs(ours - theirs) < 4 * math.sqrt(0.25 / 600)
    assert drawn.level.isna().mean() == pytest.approx(0.2, abs=0.06)


def test_a_file_keeps_the_model(fitted, tmp_path):
    fitted.save(tmp_path / "people.safetensors")
    again = cnf.load(tmp_path / "people.safetensors")
    assert again.schema == fitted.schema
    table = people(40, seed=2)
    assert torch.equal(again.log_prob(table), fitted.log_prob(table))
    pd.testing.assert_frame_equal(
        again.sample(9, generator=generator()), fitted.sample(9, generator=generator())
    )


SPOILT = {
    "no schema": lambda config: config.pop("schema"),
    "schema of another make": lambda config: config.update(schema={"a": "real"}),
    "no modeled column": lambda config: config.update(schema=[{"name": "a", "kind": "ignored"}]),
    "unknown kind": lambda config: config["schema"][0].update(kind="ordinal"),
    "another level": lambda config: config["schema"][0]["levels"].append("east"),
    "another width": lambda config: config["flow"]["field"].update(hidden=[8, 8]),
    "no width": lambda config: config["flow"]["field"].update(hidden=None),
    "a flow of more columns": lambda config: config["flow"].update(dim=99),
    "metadata that no fit writes": lambda config: config["metadata"].update(rows="many"),
    "an imputer that is not there": lambda config: config.update(imputer=not config["imputer"]),
    "unknown solver": lambda config: config["flow"]["solver"].update({"class": "Euler"}),
    "unknown dtype": lambda config: config.update(dtype="int3"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_file_that_makes_no_sense_is_refused(fitted, tmp_path, name):
    fitted.save(tmp_path / "m")
    config, tensors = read_model(tmp_path / "m")
    SPOILT[name](config)
    write_model(tmp_path / "m", config, tensors)
    with pytest.raises(cnf.ModelFileError, match="does not fit"):
        cnf.load(tmp_path / "m")


def test_a_missing_cell_where_none_ever_was_has_no_score(fitted):
    table = people(5)
    table.loc[2, "rain"] = np.nan
    found = fitted.evaluate(table)
    assert found.log_prob.isnan().tolist() == [False, False, True, False, False]
    assert found.ok.tolist() == [True, True, False, True, True]


def test_categories_alone_need_no_flow(tmp_path):
    table = pd.DataFrame({"a": list("xyxx") * 30, "b": list("ttff") * 30})
    model = default_table_flow(Schema.infer(table), len(table), seed=0)
    fit_table_flow(model, table, steps=5)
    model.save(tmp_path / "m")
    every = pd.DataFrame(itertools.product("xy", "tf"), columns=["a", "b"])
    assert cnf.load(tmp_path / "m").log_prob(every).exp().sum().item() == pytest.approx(
        1, abs=1e-5
    )
    assert set(model.sample(50).a) == {"x", "y"}


def test_context_must_be_given():
    table = people(100)
    schema = Schema.infer(table, context=["region", "level"])
    model = default_table_flow(schema, 100, hidden=(8, 8), seed=0)
    fit_table_flow(model, table, steps=5)
    given = table[["region", "level"]]
    assert "region" not in model.sample(3, given.iloc[:1])
    assert len(model.sample(3, given.iloc[:3])) == 3
    with pytest.raises(TableError, match="context column 'region'"):
        model.sample(3)
    with pytest.raises(TableError, match="1 or 3 rows"):
        model.sample(3, given.iloc[:2])
    with pytest.raises(ValueError, match="any_subset=True"):
        model.sample(3, table.iloc[:3])
    assert model.log_prob(table).isfinite().all()


def test_too_few_rows_are_refused():
    table = people(40)
    model = default_table_flow(Schema.infer(table), 40, seed=0)
    with pytest.raises(ValueError, match="at least 10 different rows; got 3"):
        fit_table_flow(model, pd.concat([table[:3]] * 9))


# imputation


@pytest.fixture(scope="module")
def imputing() -> cnf.TableFlow:
    """Fitted to Gaussian columns a, b, c, with a category g that follows a."""
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        random.multivariate_normal(np.zeros(3), COVARIANCE, 2000), columns=list("abc")
    )
    table["g"] = np.where(table.a + 0.5 * random.normal(size=2000) > 0, "p", "q")
    model = default_table_flow(Schema.infer(table), 2000, hidden=(16, 16), seed=0)
    # After 150 updates, the spread drawn still depends on the validation that was the best.
    fit_table_flow(model, table, steps=300, imputer=True, likelihood_share=0.0)
    return model


COVARIANCE = np.array([[1.0, 0.8, 0.3], [0.8, 1.0, 0.5], [0.3, 0.5, 1.0]])


def test_the_networks_draw_missing_numbers_from_the_conditional_gaussian(imputing):
    networks = copy.deepcopy(imputing)
    networks.imputer.donors = None
    rows = pd.DataFrame({"a": np.nan, "b": 1.0, "c": np.nan, "g": [None] * 4000})
    (drawn,) = networks.impute(rows, generator=generator())
    gain = COVARIANCE[[0, 2], 1]
    conditional = COVARIANCE[np.ix_([0, 2], [0, 2])] - np.outer(gain, gain)
    assert (drawn.b == 1.0).all()
    np.testing.assert_allclose(drawn[["a", "c"]].mean(), gain, atol=0.08)
    np.testing.assert_allclose(drawn[["a", "c"]].cov(), conditional, atol=0.1)
    truth = stats.norm.cdf(gain[0] / math.sqrt(conditional[0, 0] + 0.25))
    assert (drawn.g == "p").mean() == pytest.approx(truth, abs=0.1)


def test_donors_follow_the_conditional_gaussian(imputing):
    given = np.random.default_rng(1).normal(size=2000)
    rows = pd.DataFrame({"a": np.nan, "b": given, "c": np.nan, "g": [None] * 2000})
    (drawn,) = imputing.impute(rows, generator=generator())
    gain = COVARIANCE[[0, 2], 1]
    numbers = drawn[["a", "c"]].to_numpy()
    slope = given @ numbers / (given @ given)
    np.testing.assert_allclose(slope, gain, atol=0.08)
    conditional = COVARIANCE[np.ix_([0, 2], [0, 2])] - np.outer(gain, gain)
    np.testing.assert_allclose(np.cov((numbers - given[:, None] * slope).T), conditional, atol=0.1)


def test_cells_that_are_there_stay_and_holes_are_filled(imputing):
    rows = imputing.sample(50, generator=generator())
    holes = rows.mask(np.random.default_rng(0).random(rows.shape) < 0.4)
    one, two = imputing.impute(holes, 2, generator=generator())
    for drawn in (one, two):
        assert drawn.notna().all(axis=None)
        assert drawn.where(holes.notna()).equals(holes)
    assert not one.equals(two)


def test_an_imputer_is_kept_in_the_file(imputing, tmp_path):
    imputing.save(tmp_path / "m")
    rows = pd.DataFrame({"a": np.nan, "b": [0.5], "c": np.nan, "g": None})
    drawn = [
        m.impute(rows, generator=generator())[0] for m in (imputing, cnf.load(tmp_path / "m"))
    ]
    pd.testing.assert_frame_equal(*drawn)


def test_imputing_needs_an_imputer():
    with pytest.raises(ValueError, match="imputer=True"):
        stirred(REGION, LEVEL).impute(pd.DataFrame({"region": ["north"], "level": [np.nan]}))
