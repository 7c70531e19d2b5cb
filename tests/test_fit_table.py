"""One way from a table to a model, whatever its columns are, and what the model offers."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import cnf
from cnf.recipe import InterruptedFit, default_flow
from cnf.tables import FitMetadata, Schema, TableError, TableFlow, load_table_flow
from cnf.tables.held_out import held_out_rows
from cnf.training.checkpoint import CheckpointWriter

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(300, 2)) @ np.array([[1.0, 0.5], [0.0, 2.0]])
PLAIN = pd.DataFrame({"a": X[:, 0], "b": X[:, 1]})
MIXED = PLAIN.assign(
    group=np.where(X[:, 0] > 0, "u", "v"), n=RANDOM.poisson(np.exp(0.3 * X[:, 0] + 1))
)


@pytest.fixture(scope="module")
def plain() -> TableFlow:
    return cnf.fit_table(PLAIN, steps=20, hidden=(8, 8), seed=3)


@pytest.fixture(scope="module")
def mixed() -> TableFlow:
    return cnf.fit_table(MIXED, steps=20, hidden=(8, 8), imputer=True, seed=3)


def test_a_plain_table_has_the_fit_of_its_tensor(plain):
    flow = default_flow(270, 2, hidden=(8, 8), seed=3)
    history = cnf.fit(flow, torch.tensor(X), steps=20, seed=3)
    assert all(
        torch.equal(a, b)
        for a, b in zip(flow.state_dict().values(), plain.flow.state_dict().values())
    )
    assert plain.history.valid_nll == history.valid_nll
    with torch.no_grad():
        assert torch.equal(plain.log_prob(PLAIN), flow.log_prob(torch.tensor(X)))


@pytest.mark.slow
def test_a_context_of_numbers_is_that_of_the_flow():
    model = cnf.fit_table(PLAIN, context=["a"], steps=20, hidden=(8, 8))
    flow = default_flow(270, 1, context_dim=1, hidden=(8, 8), seed=0)
    cnf.fit(flow, X[:, 1:], context=X[:, :1], steps=20)
    with torch.no_grad():
        expected = flow.log_prob(torch.tensor(X[:, 1:]), torch.tensor(X[:, :1]))
    assert torch.equal(model.log_prob(PLAIN), expected)
    assert list(model.sample(3, {"a": 1.0})) == ["b"]


@pytest.mark.slow
def test_a_file_and_its_frame_give_one_model(tmp_path, mixed):
    MIXED.assign(w=1.0).to_csv(tmp_path / "t.csv", index=False)
    again = cnf.fit_table(
        tmp_path / "t.csv", weights="w", steps=20, hidden=(8, 8), imputer=True, seed=3
    )
    assert again.schema == mixed.schema
    assert torch.equal(again.log_prob(MIXED), mixed.log_prob(MIXED))


def test_a_model_keeps_what_is_known_of_its_fit(tmp_path, mixed):
    known = mixed.metadata
    assert (known.columns, known.rows, known.valid_rows) == (["a", "b", "group", "n"], 270, 30)
    assert known.version == cnf.__version__ and known.history == mixed.history.as_dict()
    below = (MIXED.a.to_numpy()[:, None] <= known.quantiles["columns"]["a"]).mean(0)
    assert below == pytest.approx(known.quantiles["levels"], abs=0.05)
    mixed.save(tmp_path / "m")
    assert cnf.load(tmp_path / "m").metadata == FitMetadata.from_json(known.as_json())


@pytest.mark.slow
def test_the_former_call_works_with_a_warning():
    model = TableFlow(Schema.infer(MIXED), hidden=(4, 4))
    with pytest.warns(DeprecationWarning, match="fit_table_flow"):
        history = cnf.fit_table(model, MIXED, steps=5)
    assert history.valid_nll == model.history.valid_nll


def test_a_flow_alone_is_a_table_of_real_columns(tmp_path, plain):
    plain.flow.metadata = {"columns": ["b", "a"], "note": "mine"}
    plain.flow.save(tmp_path / "m")
    plain.metadata = plain.metadata
    assert isinstance(cnf.load(tmp_path / "m"), cnf.CNF)
    model = load_table_flow(tmp_path / "m")
    assert model.metadata.others == {"note": "mine"}
    renamed = PLAIN.rename(columns={"a": "b", "b": "a"})
    assert torch.equal(model.log_prob(renamed), plain.log_prob(PLAIN))


def test_rows_outside_the_support_have_no_density():
    frame = pd.DataFrame({"p": np.exp(X[:, 0]), "q": X[:, 1]})
    model = TableFlow(Schema.infer(frame, kinds={"p": "positive"}), hidden=(4, 4))
    found = model.evaluate(pd.DataFrame({"p": [1.0, -1.0, np.nan, np.inf], "q": 0.0}))
    assert found.log_prob[1] == -torch.inf and found.ok.tolist() == [True, True, False, False]
    assert found.log_prob[2:].isnan().all()


def test_the_numeric_columns_are_one_flow_given_the_others(mixed):
    exact = mixed.double()
    view = exact.numeric(levels={"group": "v"})
    assert view.columns == ["a", "b", "n"] and view.given == "group = v"
    drawn = exact.numeric(seed=1).given
    assert drawn in ("group = u (drawn)", "group = v (drawn)")
    # The density of whole rows is that of the view times the probability of the states.
    rows = pd.DataFrame({"a": [0.3], "b": [-0.2], "group": ["v"], "n": [2]})
    offsets = (torch.arange(200).double() + 0.5) / 200 - 0.5
    x = torch.tensor([0.3, -0.2, 2.0]).repeat(len(offsets), 1).double()
    x[:, 2] += offsets
    cells, context = exact.encode(rows)
    states = exact.discrete.log_prob(cells.states, context).item()
    inside = view.flow.log_prob(x, view.context).exp().mean().log().item()
    assert exact.log_prob(rows).item() == pytest.approx(states + inside, abs=1e-3)
    found = exact.numeric_rows(MIXED)
    assert len(found) == 300 and torch.equal(
        found.context[MIXED.group.eq("v").argmax()], view.context
    )
    with pytest.raises(TableError, match="no categorical column 'a'"):
        exact.numeric(levels={"a": 1.0})


def test_the_training_table_is_known_again(plain):
    valid, train = held_out_rows(plain, PLAIN)
    assert (len(valid), len(train)) == (30, 270)
    assert plain.history.valid_nll == pytest.approx(
        -plain.flow.log_prob(valid.x).mean().item(), abs=1e-6
    )
    assert held_out_rows(plain, PLAIN + 1e-3)[1] is None


@pytest.mark.slow
def test_scoring_and_sampling_load_no_training(tmp_path, mixed):
    mixed.save(tmp_path / "m")
    MIXED.to_csv(tmp_path / "t.csv", index=False)
    code = """
import sys
from cnf.cli import main
assert main(["score", "m", "t.csv", "-o", "s.csv"]) == 0
assert main(["sample", "m", "-n", "5", "-o", "d.csv"]) == 0
print([name for name in sys.modules if name.startswith(("cnf.training", "cnf.recipe", "sklearn"))])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_a_typed_fit_by_seconds_goes_on_after_it_was_stopped(tmp_path):
    """What its parts take is measured, and differs between two runs; the flow goes on regardless."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"n": random.poisson(20, 300), "g": random.choice(list("ab"), 300)})
    frame["x"] = frame["n"] + random.normal(size=300)
    options = {"seconds": 4.0, "hidden": (8, 8), "checkpoint": tmp_path / "c"}

    def stop(trainer):
        if trainer.step == 3:
            CheckpointWriter(tmp_path / "c").write(trainer)
            raise KeyboardInterrupt

    with pytest.raises(InterruptedFit):
        cnf.fit_table(frame, callbacks=(stop,), **options)
    steps = []
    cnf.fit_table(frame, callbacks=(lambda trainer: steps.append(trainer.step),), **options)
    assert steps[0] == 4


def test_a_misspelt_budget_is_told():
    with pytest.raises(TypeError, match="unexpected argument 'second'; did you mean seconds"):
        cnf.fit_table(MIXED, second=5)
