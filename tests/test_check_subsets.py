"""The check of conditionals: it passes where they are those of the joint, and fails elsewhere."""

import numpy as np
import pandas as pd
import pytest
import torch

import cnf
from cnf.diagnostics import check_table
from cnf.diagnostics.subsets import consistent


@pytest.fixture(scope="module")
def table():
    x = np.random.default_rng(0).normal(size=(400, 2))
    return pd.DataFrame({"a": x[:, 0], "b": x[:, 0] + 0.5 * x[:, 1]})


@pytest.fixture(scope="module")
def model(table):
    return cnf.fit_table(table, steps=20, hidden=(8, 8), any_subset=True)


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


def test_a_model_without_a_network_claims_nothing(table):
    plain = cnf.TableFlow(cnf.Schema.infer(table), cnf.CNF(2, hidden=(4, 4)))
    assert not plain.amortized and list(consistent(plain, table, 0, strict=False)) == []
