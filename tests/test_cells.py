"""Probabilities of integer cells, and rows that a model cannot hold."""

import copy
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch

import cnf
from cnf.tables.cell_integrals import PLANES_SCALE, TOLERANCE
from cnf.tables.gaussian_cells import _log_mass
from cnf.tables.loading import _cell_error
from cnf.tables.quadrature import cell_rule, cell_rules, end_rule, sparse_rule
from cnf.transforms.marginals import MarginalTransform


@pytest.fixture(scope="module")
def table():
    random = np.random.default_rng(0)
    age = random.normal(40, 12, 600)
    return pd.DataFrame(
        {
            "age": age.round(),
            "pay": (25 * age + random.normal(0, 150, 600)).round(),
            "mood": random.normal(size=600),
            "group": random.choice(list("aab"), 600),
        }
    )


@pytest.fixture(scope="module")
def model(table):
    return cnf.fit_table(table, steps=60, hidden=(16, 16))


def dense_log_prob(model, table, nodes=8):
    """The probability of each row by Gauss-Legendre over both integers, with dopri8 in float64."""
    exact = copy.deepcopy(model).double()
    solver = cnf.Torchdiffeq("dopri8", 1e-9, 1e-9)
    cells, context = exact.encode(table)
    rule = cell_rule(exact.integrals.steps, nodes)
    conditions = exact.conditions(cells.states, context)
    states = exact.discrete.log_prob(cells.states, context.double())
    x = (cells.values + rule.offsets[:, None]).flatten(0, 1)
    bound = exact.flow.bind(
        conditions.repeat(len(rule.offsets), 1), solver=solver, tolerance=torch.inf
    )
    logs = bound.log_prob(x).unflatten(0, (-1, len(table)))
    return states + (logs + rule.weights.log()[:, None]).logsumexp(0)


@torch.no_grad()
def test_most_cells_need_one_point_and_bars_hold(model, table):
    found = model.evaluate(table.head(200))
    nfe = model.flow.solver.nfe
    assert (found.nfe <= 2 * nfe).double().mean() > 0.7
    found = model.evaluate(table.head(12))
    off = (found.log_prob - dense_log_prob(model, table.head(12), nodes=5)).abs()
    assert (off <= found.error).all()
    assert (found.error < 2 * TOLERANCE).all()


@torch.no_grad()
@pytest.mark.slow
def test_cells_far_from_all_that_the_fit_saw_have_the_mass_of_the_density(table):
    """The Gaussian that a flow starts from is no guide there: its tails are far lighter."""
    kinds = {"age": "integer", "pay": "real", "mood": "real"}
    known = table[["age", "mood"]].assign(pay=table["pay"] + 0.25)
    exact = cnf.fit_table(known, steps=10, hidden=(8, 8), kinds=kinds).double()
    far = pd.DataFrame({"age": [30.0, 41.0, 200.0] * 3, "mood": 0.0})
    far["pay"] = np.repeat([2e3, 4e3, 1e4], 3)
    cells, context = exact.encode(far)
    within = (torch.arange(101).double() + 0.5) / 101 - 0.5
    x = cells.values[:, None].repeat(1, len(within), 1)
    x[..., 0] += within
    given = exact.conditions(cells.states, context).repeat_interleave(len(within), 0)
    inside = exact.flow.bind(given).log_prob(x.flatten(0, 1)).unflatten(0, (len(far), -1))
    found = exact.evaluate(far)
    off = found.log_prob - inside.logsumexp(1) + np.log(len(within))
    assert exact.discrete is None
    assert (off.abs() <= found.error + TOLERANCE).all()


def test_the_estimate_of_a_single_point_is_kept(model, table, tmp_path):
    model.save(tmp_path / "m.safetensors")
    again = cnf.load(tmp_path / "m.safetensors")
    assert again.integrals.measured == model.integrals.measured
    torch.testing.assert_close(again.log_prob(table.head(9)), model.log_prob(table.head(9)))


def test_scores_do_not_depend_on_the_rows_beside(model, table):
    whole = model.log_prob(table.head(30))
    parts = torch.cat([model.log_prob(table.iloc[i : i + 1]) for i in range(30)])
    torch.testing.assert_close(whole, parts, atol=2e-5, rtol=0)


def test_the_rule_along_axes_is_exact_to_third_order():
    rule = sparse_rule(torch.tensor([2.0, 0.0, 4.0]), together=1)
    x, _, z = rule.offsets.T
    for values, mean in ((x**2, 1 / 3), (z**2, 4 / 3), (x**3 + x * z, 0.0), (x**4, 1 / 5)):
        assert (rule.weights @ values).item() == pytest.approx(mean)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_rule_in_planes_is_exact_to_fifth_order_and_along_axes_to_eleventh(count):
    """Means of monomials over (-1, 1) are products of 1 / (degree + 1) for even degrees."""
    rule = sparse_rule(torch.full((count,), 2.0), together=2)
    x = rule.offsets
    assert (rule.weights @ x[:, 0] ** 10).item() == pytest.approx(1 / 11)
    for degrees in product(range(6), repeat=count):
        if sum(degrees) <= 5:
            mean = np.prod([(1 - degree % 2) / (degree + 1) for degree in degrees])
            found = rule.weights @ (x ** torch.tensor(degrees)).prod(1)
            assert found.item() == pytest.approx(mean, abs=1e-12)


def test_early_files_that_measured_cells_have_other_numbers():
    assert [_cell_error(found)[0] for found in (0.25, [0.25], [0.25, 3.0], [0.25] * 6)] == [
        0.25
    ] * 4
    for wrong in ([1.0, -1.0], [], "1", [1.0, float("nan")], True):
        with pytest.raises(ValueError, match="cell_error"):
            _cell_error(wrong)


@pytest.mark.parametrize("power", [-0.3, 0.5])
def test_a_density_that_goes_like_a_power_at_an_end_takes_few_nodes(power):
    """The mean of uᵖ is 1 / (1 + p); the checks bound what the rule errs by."""
    rule = end_rule(torch.tensor([0.0, 2.0]), 8)
    share = rule.offsets[:, 1] / 2 + 0.5
    log_density = power * share.log()[:, None]
    log_mean = rule.log_mean(log_density)
    check, _ = rule.errors(log_density - log_mean, torch.ones(1, 2))
    assert abs(log_mean.item() + np.log(1 + power)) < min(2e-3, check.item())


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 5])
def test_errors_are_seen_where_columns_depend_on_each_other(dim):
    """Cells of two deviations of a Gaussian, against 9 nodes in each column. The widths are those of the
    conditional Gaussians, in which the columns depend less on each other than here."""
    steps = torch.full((dim,), 2.0)
    precision = (torch.eye(dim) + 0.6 * (1 - torch.eye(dim))).double().inverse()
    widths = (steps * precision.diagonal().sqrt())[None]

    def log_density(x):
        return -0.5 * ((x - 1) @ precision * (x - 1)).sum(1)

    exact = end_rule(steps, 9)
    mean = exact.log_mean(log_density(exact.offsets)[:, None])
    for rule in cell_rules(steps):
        at_points = log_density(rule.offsets)[:, None]
        found = rule.log_mean(at_points)
        check, indicator = rule.errors(at_points - found, widths)
        error = (found - mean).abs().item()
        assert error <= check.item() + PLANES_SCALE * indicator.item() + 1e-4
    assert error < 0.05


def test_values_that_repeat_are_mapped_once():
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(1, 9, (300, 3), generator=generator).double()
    marginals = MarginalTransform([(0.0, None), (None, None), (0.0, 10.0)])
    marginals.fit(x, torch.ones_like(x, dtype=torch.bool), torch.ones(300).double())
    for found, known in zip(marginals.by_value(x), marginals.by_cell(x)):
        torch.testing.assert_close(found, known)
    some = marginals.of_columns(torch.tensor([2, 0])).by_cell(x[:, [2, 0]])
    for found, known in zip(some, marginals.by_cell(x)):
        torch.testing.assert_close(found, known[:, [2, 0]])


@pytest.mark.slow
def test_cells_of_many_wide_integers_are_measured_and_scored():
    random = np.random.default_rng(0)
    for count in (4, 6):
        frame = pd.DataFrame(np.round(0.7 * random.normal(size=(24, count)))).add_prefix("n")
        frame["x"] = random.normal(size=24)
        kinds = dict.fromkeys(frame.columns[:count], "integer")
        model = cnf.fit_table(frame, steps=2, hidden=(4, 4), kinds=kinds)
        assert model.evaluate(frame.head(3)).error.isfinite().all()


@torch.no_grad()
@pytest.mark.slow
def test_bars_hold_where_five_integer_columns_are_wide():
    """Points of a Sobol sequence err by more than their check; they had the scale of products."""
    random = np.random.default_rng(0)
    z = 0.15 * random.normal(size=(120, 5)) + 2 * random.normal(size=(120, 1))
    frame = pd.DataFrame(np.round(z) + 50, columns=list("abcde"))
    model = cnf.fit_table(frame, steps=20, hidden=(8, 8), kinds=dict.fromkeys("abcde", "integer"))
    some = frame[(frame - 50).abs().max(axis=1) <= 2].head(12)
    cells, context = model.encode(some)
    rule = cell_rule(model.integrals.steps, 4096)
    x = (cells.values[:, None] + rule.offsets).flatten(0, 1)
    given = model.conditions(cells.states, context).repeat_interleave(len(rule.weights), 0)
    logs = model.flow.log_prob(x, given).double().unflatten(0, (len(some), -1))
    exact = (logs + rule.weights.log()).logsumexp(1)
    found = model.evaluate(some)
    assert ((found.log_prob - exact).abs() <= found.error).all()
    assert found.error.max() < 1


@pytest.mark.slow
@torch.no_grad()
def test_bars_hold_where_three_integer_columns_are_wide():
    random = np.random.default_rng(0)
    z = random.normal(size=(90, 3)) @ [[1.0, 0.5, 0.3], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]]
    frame = pd.DataFrame(np.round(1.2 * z) + 50, columns=list("abc")).assign(
        d=random.normal(size=90)
    )
    kinds = dict.fromkeys("abc", "integer")
    model = cnf.fit_table(frame, steps=40, hidden=(8, 8), kinds=kinds)
    # At the ends of the table the density in the units of the table takes far more nodes.
    inside = (frame[list("abc")] - 50).abs().max(axis=1) <= 1
    some = frame[inside].head(6)
    cells, context = model.encode(some)
    rule = end_rule(model.integrals.steps, 18)
    x = (cells.values[:, None] + rule.offsets).flatten(0, 1)
    given = model.conditions(cells.states, context).repeat_interleave(len(rule.weights), 0)
    logs = model.flow.log_prob(x, given).double().unflatten(0, (6, -1))
    exact = (logs + rule.weights.log()).logsumexp(1)
    found = model.evaluate(some)
    assert model.discrete is None
    assert ((found.log_prob - exact).abs() <= found.error).all()
    assert (found.error < 2 * TOLERANCE).all()


@pytest.mark.parametrize("shift", [0.0, 30.0, -30.0])
def test_the_mass_of_a_narrow_cell_keeps_its_digits_in_the_tails(shift):
    a, b = torch.tensor([shift]).double(), torch.tensor([shift + 1e-3]).double()
    middle = -0.5 * ((a + b) / 2).square() - 0.5 * np.log(2 * np.pi) + np.log(1e-3)
    torch.testing.assert_close(_log_mass(a, b), middle, atol=1e-3, rtol=0)


def test_each_row_is_judged_alone(model, table):
    rows = table.head(4).copy()
    rows.loc[1, "group"], rows.loc[2, "mood"] = "new", np.inf
    found = model.log_prob(rows)
    torch.testing.assert_close(found[[0, 3]], model.log_prob(table.head(4))[[0, 3]])
    assert found[1].isfinite() and found[2].isnan()
    assert model.log_prob(rows, unseen="impossible")[1] == -torch.inf


def test_an_unseen_category_is_as_rare_as_the_next_new_one(model, table):
    row = table.head(1).assign(group="new")
    known = [model.log_prob(row.assign(group=level)) for level in "ab"]
    rare = model.log_prob(row) + np.log(model.metadata.rows + 2)
    assert min(known) - 2 < rare < torch.stack(known).logsumexp(0) + 2
