"""Rows of one table carried to another, by the library and by the commands."""

import numpy as np
import pandas as pd
import pytest
import torch
from test_cli_tables import outcome, refused

import cnf
from cnf.cli import main


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    folder = tmp_path_factory.mktemp("carried")
    x = np.random.default_rng(0).normal(size=(2, 100, 2))
    for name, rows in (("there", x[0] * [2.0, 1.0] + [5.0, 0.0]), ("here", x[1])):
        pd.DataFrame(rows, columns=["a", "b"]).to_csv(folder / f"{name}.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def model(room):
    """Fitted by the command, as `cnf.fit_table(there, source=here)` does."""
    words = ["fit", room / "there.csv", "--source", room / "here.csv", "-o", room / "m"]
    assert main([*map(str, words), "--steps", "40", "--width", "64"]) == 0
    return cnf.load(room / "m")


def test_rows_are_carried_there_and_back(room, model):
    here, there = (pd.read_csv(room / f"{name}.csv") for name in ("here", "there"))
    carried = model.transport(here)
    assert list(carried) == ["a", "b"] and carried.index.equals(here.index)
    assert (
        abs(carried["a"].mean() - there["a"].mean()) < 2.5 < there["a"].mean() - here["a"].mean()
    )
    back = model.transport(carried, reverse=True)
    np.testing.assert_allclose(back, here, atol=2e-3)


def test_the_ratio_is_that_of_the_two_densities(room, model):
    rows = pd.read_csv(room / "here.csv")[:20]
    ratio, error = model.log_density_ratio(rows)
    x = torch.tensor(rows.to_numpy())
    apart = model.log_prob(rows) - model.flow.log_prob(x, t=0.0)
    assert ((ratio - apart).abs() <= error + 1e-6).all()
    # The laws are known: a is normal about 5 with deviation 2 there, and standard normal here.
    known = -0.5 * ((x[:, 0] - 5) / 2) ** 2 - np.log(2) + 0.5 * x[:, 0] ** 2
    assert torch.corrcoef(torch.stack((ratio, known)))[0, 1] > 0.7


def test_the_command_carries_rows(room, model, tmp_path, capsys):
    out = tmp_path / "moved.csv"
    assert outcome(capsys, "transport", room / "m", room / "here.csv", "-o", out)[0] == 0
    moved = model.transport(pd.read_csv(room / "here.csv"))
    np.testing.assert_allclose(pd.read_csv(out), moved, atol=1e-4)


def test_what_cannot_be_carried_is_refused(room, tmp_path, capsys):
    typed = pd.DataFrame({"a": np.arange(40.0) ** 1.5, "g": list("xy") * 20})
    turned = pd.DataFrame({"a": np.arange(40.0) ** 1.5, "w": np.linspace(0.5, 359.5, 40) ** 0.99})
    for table, kinds in ((typed, {}), (turned, {"w": "angle:360"})):
        with pytest.raises(ValueError, match="source: expected continuous columns"):
            cnf.fit_table(table, source=table, kinds=kinds, steps=4)
    fit = ["fit", room / "there.csv", "-o", tmp_path / "m", "--steps", 4, "--width", 8]
    other = tmp_path / "other.csv"
    pd.DataFrame({"a": [1.0] * 20}).to_csv(other, index=False)
    assert "other.csv" in refused(capsys, *fit, "--source", other)
    assert outcome(capsys, *fit)[0] == 0
    carry = "transport", tmp_path / "m", room / "here.csv", "-o", tmp_path / "x.csv"
    assert "fit it with source=, or cnf fit --source" in refused(capsys, *carry)
