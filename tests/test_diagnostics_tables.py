"""The check of typed tables: a sound model passes on its own rows; other rows and a broken flow
are told."""

import copy
import json

import pandas as pd
import pytest
import torch
from problems import normal

from cnf.cli import main
from cnf.diagnostics import check_table
from cnf.recipe import fit_table_flow
from cnf.tables import Schema, TableFlow


@pytest.fixture(scope="module")
def sound():
    """A briefly fitted model of numbers, counts, categories and holes, and rows of its own."""
    z = normal(400, 3)
    table = pd.DataFrame({"x": z[:, 0].numpy(), "n": (2 * z[:, 1].abs()).round().int().numpy()})
    table["group"] = ["a" if value > 0 else "b" for value in z[:, 2].tolist()]
    table.loc[::9, "x"] = None
    model = TableFlow(Schema.infer(table, kinds={"n": "integer"}), hidden=(8, 8))
    history = fit_table_flow(model, table, steps=20)
    assert model.metadata.history == history.as_dict()
    return model, model.sample(300, generator=torch.Generator().manual_seed(1))


def failed(model, table):
    return {claim.name for claim in check_table(model, table) if not claim.passed}


@pytest.mark.slow
def test_a_sound_model_passes_and_stays_as_it_is(sound):
    model, rows = sound
    before = copy.deepcopy(model.state_dict())
    claims = check_table(model, rows)
    assert [claim for claim in claims if not claim.passed] == []
    assert {
        "solver error",
        "divergence",
        "columns",
        "regions",
        "two samples",
        "overfitting",
        "answers",
    } <= {claim.name for claim in claims}
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values()))
    strict = check_table(model, rows, strict=True)
    assert [c.value for c in claims] == [s.value for s in strict]
    assert sum(c.limit != s.limit for c, s in zip(claims, strict)) > 5


def test_the_worst_column_is_named_in_plain_tables_too():
    table = pd.DataFrame(normal(60, 2).numpy(), columns=["height", "weight"])
    model = TableFlow(Schema.infer(table), hidden=(4, 4))
    found = {c.name: c.detail for c in check_table(model, table.assign(weight=table.weight + 9))}
    assert found["columns"] == "worst is 'weight'; 60 rows"


@pytest.mark.slow
def test_rows_of_another_table_are_told(sound):
    model, rows = sound
    assert {"columns", "two samples"} <= failed(model, rows.assign(x=rows.x + 1.5))
    assert "columns" in failed(model, rows.assign(group="a"))
    assert {"columns", "overfitting"} <= failed(model, rows.assign(n=0, x=3 * rows.x))


@pytest.mark.slow
def test_a_broken_flow_inside_is_told(sound):
    model, rows = copy.deepcopy(sound[0]), sound[1]
    with torch.no_grad():
        for parameter in model.flow.field.parameters():
            parameter.add_(
                0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
            )
    model.flow.solver = type(model.flow.solver).uniform(1, "euler")
    assert {"solver error", "own samples", "round trip"} & failed(model, rows)


def test_no_rows_at_all(sound):
    flow = sound[0].flow
    found = flow.solve_log_prob(
        torch.empty(0, flow.dim), torch.empty(0, flow.context_dim), flow.solver
    )
    assert found.log_prob.shape == (0,)


def test_a_model_of_symbols_alone(sound):
    table = sound[1][["group"]]
    model = TableFlow(Schema.infer(table), hidden=(4, 4))
    fit_table_flow(model, table, steps=5)
    assert {"columns", "regions", "two samples"} <= {
        claim.name for claim in check_table(model, table)
    }


@pytest.mark.slow
def test_cnf_check_takes_a_typed_model(sound, tmp_path, capsys):
    model, rows = sound
    model.save(tmp_path / "m")
    rows.to_csv(tmp_path / "t.csv", index=False)
    assert main(["check", str(tmp_path / "m"), str(tmp_path / "t.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"]
    rows[:5].to_csv(tmp_path / "few.csv", index=False)
    assert main(["check", str(tmp_path / "m"), str(tmp_path / "few.csv")]) == 2
    assert "at least 10 rows" in capsys.readouterr().err
