"""`cnf score --columns`, `cnf sample --given` of modeled columns, and `cnf impute`."""

import json

import numpy as np
import pandas as pd
import pytest
from test_cli_tables import outcome, refused

import cnf
from cnf.cli import main


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    folder = tmp_path_factory.mktemp("asked")
    rng = np.random.default_rng(0)
    region = rng.choice(["north", "south", "west"], 300)
    age = rng.integers(20, 70, 300)
    income = 10 + age * 0.5 + rng.normal(size=300)
    table = pd.DataFrame({"region": region, "age": age, "income": income})
    table.to_csv(folder / "t.csv", index=False)
    table.loc[::9, "income"] = np.nan
    table.to_csv(folder / "holes.csv", index=False)
    fit = ["fit", str(folder / "t.csv"), "-o", str(folder / "m"), "--type", "age=integer"]
    fit.append("--any-subset")
    assert main([*fit, "--steps", "10", "--width", "8"]) == 0
    return folder


def test_columns_are_scored_given_others(room, tmp_path, capsys):
    table = pd.read_csv(room / "t.csv")[["region", "age"]]  # the file lacks the third column
    table.to_csv(tmp_path / "two.csv", index=False)
    out = tmp_path / "s.csv"
    asked = ["--columns", "region", "--given", "age", "--json"]
    code, said, _ = outcome(capsys, "score", room / "m", tmp_path / "two.csv", *asked, "-o", out)
    found = json.loads(said)
    assert code == 0 and found["rows"] == 300 and found["method"] == "amortized"
    density = cnf.load(room / "m").conditional(table[["age"]]).marginal(["region"])
    expected = density.log_prob(table).numpy()
    assert pd.read_csv(out)["log_prob"].to_numpy() == pytest.approx(expected, abs=1e-5)


def test_exact_scores_come_with_their_sample_size(room, tmp_path, capsys):
    pd.read_csv(room / "t.csv")[:5].to_csv(tmp_path / "five.csv", index=False)
    out = tmp_path / "s.csv"
    asked = ["--columns", "region", "--exact"]
    assert outcome(capsys, "score", room / "m", tmp_path / "five.csv", *asked, "-o", out)[0] == 0
    assert list(pd.read_csv(out)) == ["log_prob", "error", "ess"]


def test_samples_lie_in_what_is_given(room, tmp_path, capsys):
    out = tmp_path / "s.csv"
    given = ["--given", "age=30..40", "--given", "region=north|south"]
    assert outcome(capsys, "sample", room / "m", "-n", 50, *given, "-o", out)[0] == 0
    drawn = pd.read_csv(out)
    assert len(drawn) == 50 and list(drawn) == ["region", "age", "income"]
    assert drawn["age"].between(30, 40).all() and set(drawn["region"]) <= {"north", "south"}


@pytest.mark.slow
def test_the_column_that_makes_a_row_odd_is_named(room, tmp_path, capsys):
    table = pd.read_csv(room / "t.csv")[:4]
    table.loc[1, "income"] = 1e4
    table.loc[2, "region"] = "moon"  # costs its own row alone
    table.to_csv(tmp_path / "four.csv", index=False)
    out = tmp_path / "s.csv"
    asked = ["--explain", "--reference", room / "t.csv", "--json"]
    code, said, _ = outcome(capsys, "score", room / "m", tmp_path / "four.csv", *asked, "-o", out)
    report, found = json.loads(said), pd.read_csv(out)
    assert code == 0 and report["rows"] == 4 and report["reference_rows"] == 300
    assert list(found) == ["p_value", "column", "surprise", "rank"]
    assert found["column"][[1, 2]].tolist() == ["income", "region"]
    assert found["p_value"][1] == pytest.approx(1 / 301) and found["rank"][1] == 1
    assert np.isfinite(found["surprise"][[0, 3]]).all() and found["p_value"][[0, 3]].gt(0.01).all()


@pytest.mark.parametrize(
    "options",
    [["--reference", "t.csv"], ["--explain", "--columns", "age"], ["--exact"]],
    ids=lambda options: options[0],
)
def test_options_that_would_do_nothing_are_refused(room, tmp_path, capsys, options):
    out = tmp_path / "s.csv"
    line = refused(capsys, "score", room / "m", room / "t.csv", "-o", out, *options)
    assert line.startswith(f"cnf: {options[0]}: ") and not out.exists()


@pytest.mark.slow
def test_the_report_lists_the_oddest_rows(room, tmp_path, capsys):
    table = pd.read_csv(room / "t.csv")[:60]
    table.loc[7, "income"] = 300.0
    table.to_csv(tmp_path / "sixty.csv", index=False)
    page = tmp_path / "r.html"
    code, _, told = outcome(capsys, "report", room / "m", tmp_path / "sixty.csv", "-o", page)
    assert code == 0 and "cnf: Odd rows\n" in told
    text = page.read_text()
    first = text[text.index("Odd rows</h2>") :].split("<tr>")[2]
    assert "income" in first and "300" in first


def test_a_report_of_few_rows_is_refused_at_once(room, tmp_path, capsys):
    pd.read_csv(room / "t.csv")[:4].to_csv(tmp_path / "four.csv", index=False)
    page = tmp_path / "r.html"
    line = refused(capsys, "report", room / "m", tmp_path / "four.csv", "-o", page)
    assert "four.csv" in line and "at least 10, got 4" in line and not page.exists()


def test_missing_cells_are_filled_so_many_times(room, tmp_path, capsys):
    out = tmp_path / "s.csv"
    assert outcome(capsys, "impute", room / "m", room / "holes.csv", "-n", 2, "-o", out)[0] == 0
    filled, table = pd.read_csv(out), pd.read_csv(room / "holes.csv")
    assert len(filled) == 600 and filled["draw"].tolist() == [1] * 300 + [2] * 300
    assert not filled.isna().any().any()
    known = table["income"].notna()
    first = filled[:300].reset_index(drop=True)
    assert first["income"][known].to_numpy() == pytest.approx(table["income"][known].to_numpy())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("age=high..low", "two numbers"),
        ("age=40..30", "low < high"),
        ("region=north|moon", "expected levels"),
        ("age=30,moon=1", "--given: no column 'moon'; the columns are"),
        ("regoin=north", "--given: no column 'regoin'; did you mean 'region'?"),
        ("region=north, south", "double quotes around a pair with a comma"),
    ],
)
def test_what_cannot_be_given_is_refused(room, tmp_path, capsys, given, message):
    sample = ["sample", room / "m", "--given", given, "-o", tmp_path / "s.csv"]
    assert message in refused(capsys, *sample)
    assert not (tmp_path / "s.csv").exists()


def test_a_column_is_given_once(room, tmp_path, capsys):
    given = ["--given", "age=30", "--given", "age=40"]
    assert "each name once" in refused(capsys, "sample", room / "m", *given, "-o", tmp_path / "s")
