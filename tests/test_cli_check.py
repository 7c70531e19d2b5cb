"""`cnf check`: exit codes, the table, one JSON object, and what cannot be checked."""

import json
import time

import pandas as pd
import pytest
import torch
from problems import normal

import cnf
from cnf.cli import main
from cnf.diagnostics import CheckResult


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A flow that is the standard normal, rows of it, and rows of something else."""
    flow = cnf.CNF(2, hidden=(8, 8))
    flow.metadata = {"columns": ["a", "b"], "context": []}
    flow.save(tmp_path / "m")
    for name, x in (("own", normal(400, 2)), ("other", 2 * normal(400, 2)), ("few", normal(9, 2))):
        pd.DataFrame(x.numpy(), columns=["a", "b"]).to_csv(tmp_path / f"{name}.csv", index=False)
    (tmp_path / "hole.csv").write_text("a,b\n" + "1,2\n" * 20 + ",3\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def outcome(capsys, *words):
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_sound_model_passes(room, capsys):
    before = sorted(room.iterdir())
    code, out, err = outcome(capsys, "check", "m", "own.csv")
    lines = out.splitlines()
    assert (code, err) == (0, "cnf: checking\n") and lines[
        -1
    ] == "m on own.csv: 17 of 17 claims hold"
    assert len(lines) == 18 and all(line.startswith("  ok ") for line in lines[:-1])
    assert sorted(room.iterdir()) == before


@pytest.mark.slow
def test_a_model_of_something_else_fails(room, capsys):
    code, out, _ = outcome(capsys, "check", "m", "other.csv", "--json")
    told = json.loads(out)
    failed = {claim["name"] for claim in told["claims"] if not claim["passed"]}
    assert (code, told["passed"], told["strict"]) == (1, False, False)
    assert failed == {"base", "columns", "regions", "two samples"}
    assert all(
        claim["claim"] and claim["sense"] in ("at most", "at least") for claim in told["claims"]
    )
    code, out, _ = outcome(capsys, "check", "m", "other.csv", "--strict")
    assert code == 1 and out.count("  FAIL  ") >= 4


def lost(path, **parts):
    """A model whose particles no solver can follow."""
    flow = cnf.CNF(2, hidden=(8, 8), **parts)
    with torch.no_grad():
        flow.field.W3.fill_(1e30)
    flow.metadata = {"columns": ["a", "b"], "context": []}
    flow.save(path)


@pytest.mark.parametrize("solver", ["auto", cnf.Torchdiffeq(max_evaluations=500)])
@pytest.mark.slow
def test_a_model_that_cannot_be_solved_fails_line_by_line_and_soon(room, capsys, solver):
    lost(room / "lost", solver=solver)
    start = time.process_time()
    code, out, err = outcome(capsys, "check", "lost", "own.csv")
    assert code == 1 and "Traceback" not in err and out.count("  FAIL  ") > 10
    assert time.process_time() - start < 20


def test_what_cannot_be_drawn_is_one_line(room, capsys):
    lost(room / "lost", solver=cnf.Torchdiffeq(max_evaluations=500))
    before = sorted(room.iterdir())
    code, out, err = outcome(capsys, "sample", "lost", "-n", "5", "-o", "x.csv")
    assert (code, out) == (2, "") and "dopri5 could not finish" in err and err.count("\n") == 1
    assert sorted(room.iterdir()) == before


def test_numbers_that_are_not_finite_are_null(room, capsys, monkeypatch):
    broken = CheckResult.at_most("mass", "it integrates to one", float("inf"), 0.01)
    monkeypatch.setattr("cnf.cli.checking.check_table", lambda *_, **__: (broken,))
    code, out, _ = outcome(capsys, "check", "m", "own.csv", "--json")
    (claim,) = json.loads(out)["claims"]
    assert code == 1 and claim["value"] is None and not claim["passed"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere", "own.csv"], "nowhere"),
        (["own.csv", "own.csv"], "MODEL comes before DATA"),
        (["m", "nowhere.csv"], "nowhere.csv"),
        (["m", "hole.csv"], "line 22"),
        (["m", "few.csv"], "got 9"),
        (["m", "toy:moons"], "'a'"),
        (["m"], "DATA"),
        (["m", "own.csv", "--seed", "-1"], "--seed"),
        (["m", "own.csv", "--device", "abacus"], "abacus"),
    ],
)
def test_what_cannot_be_checked_is_one_line(room, capsys, words, told):
    code, out, err = outcome(capsys, "check", *words)
    assert (code, out) == (2, "") and err.count("\n") == 1 and told in err
