"""The check of conditionals: it passes where they are those of the joint, and fails elsewhere."""

import ast
import re

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm

import cnf
from cnf.diagnostics import check_table
from cnf.diagnostics.subsets import consistent
from cnf.tables import TableError


@pytest.fixture(scope="module")
def table():
    x = np.random.default_rng(0).normal(size=(400, 2))
    return pd.DataFrame({"a": x[:, 0], "b": x[:, 0] + 0.5 * x[:, 1]})


@pytest.fixture(scope="module")
def model(table):
    return cnf.fit_table(table, steps=20, hidden=(8, 8), any_subset=True)


@pytest.mark.slow
def test_conditionals_of_a_fit_are_those_of_its_joint(model, table):
    (claim,) = [one for one in check_table(model, table) if one.name == "conditionals"]
    assert claim.kind == "fit" and 0 < claim.value < 0.3 and claim.unit == "nats"


def test_a_network_that_goes_astray_fails(model, table, tmp_path):
    model.save(tmp_path / "m")
    spoiled = cnf.load(tmp_path / "m")
    with torch.no_grad():
        spoiled.flow.subsets.mixture.means.add_(1.0)
    found = next(consistent(spoiled, table, 0, strict=False))
    assert found.value > 0.5 and not found.passed
    # The first columns that it names are those of the largest difference.
    first = re.search(r"marginal\(\['(\w)'\]\)", found.detail)[1]
    rows = table.iloc[:100]
    rest = spoiled.conditional(rows[[first]]).log_prob(rows)
    apart = spoiled.marginal([first]).log_prob(rows) + rest - spoiled.log_prob(rows)
    assert apart.abs().mean().item() == pytest.approx(found.value, abs=1e-6)


def test_a_score_of_some_columns_leads_to_their_marginal(model, table):
    with pytest.raises(TableError, match="no column 'b'; to score these columns alone") as caught:
        model.log_prob({"a": [0.1]})
    advised = re.search(r"model\.marginal\((.*)\)", str(caught.value))[1]
    found = model.marginal(ast.literal_eval(advised)).log_prob(pd.DataFrame({"a": [0.1]}))
    sigma = table.a.std()
    assert found.item() == pytest.approx(norm.logpdf(0.1, table.a.mean(), sigma), abs=0.3)


@pytest.mark.parametrize("columns", [["a", "bb"], ["c"]])
def test_another_column_is_a_wrong_name_and_no_marginal(model, columns):
    with pytest.raises(TableError, match=r"no column 'a'|is it 'bb'"):
        model.log_prob(pd.DataFrame(0.0, index=[0], columns=columns))


def test_a_model_without_a_network_claims_nothing(table):
    plain = cnf.TableFlow(cnf.Schema.infer(table), cnf.CNF(2, hidden=(4, 4)))
    assert not plain.amortized and list(consistent(plain, table, 0, strict=False)) == []
