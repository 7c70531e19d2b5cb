"""The commands on typed tables: what is shown, what is read and written, what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cnf
from cnf.cli import main
from cnf.tables import read_typed_table

TINY = ["--steps", "3", "--width", "8"]


def people(rows: int, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    z = random.normal(size=(rows, 3))
    return pd.DataFrame(
        {
            "id": [f"p{i}" for i in range(rows)],
            "region": np.where(z[:, 0] > 0, "north", "south, far"),
            "age": random.poisson(np.exp(3 + 0.3 * z[:, 1])),
            "member": z[:, 2] > 0,
            "debt": np.where(z[:, 2] > 0.2, 0.0, np.exp(z[:, 1])),
            "mood": np.where(random.random(rows) < 0.2, np.nan, z[:, 0] + z[:, 1]),
            "w": random.integers(1, 4, rows),
        }
    )


def outcome(capsys, *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refused(capsys, *arguments: object) -> str:
    code, out, err = outcome(capsys, *arguments)
    assert code == 2 and out == "" and err.count("\n") == 1, err
    return err


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Path:
    """A table as csv and parquet, and two models of it: of all columns, and of two given region
    and age."""
    folder = tmp_path_factory.mktemp("typed")
    table = people(300)
    table.to_csv(folder / "t.csv", index=False)
    table.to_parquet(folder / "t.parquet")
    fit = ["fit", str(folder / "t.csv"), "--weights", "w", *TINY]
    assert main([*fit, "--ignore", "id", "-o", str(folder / "all")]) == 0
    given = ["--columns", "member,debt", "--context", "region,age", "--type", "age=integer"]
    assert main([*fit, *given, "-o", str(folder / "given")]) == 0
    return folder


def test_fit_and_info_show_the_schema(room, capsys):
    _, out, _ = outcome(capsys, "info", room / "all")
    for told in [
        "region  categorical, 2 levels: north, south, far",
        "age     integer, from 0",
        "member  categorical, 2 levels: False, True",
        "debt    positive, often exactly 0",
        "mood    real, with missing cells",
        "held-out NLL",
    ]:
        assert told in out
    known = json.loads(outcome(capsys, "info", room / "all", "--json")[1])
    assert [column["name"] for column in known["schema"]] == [
        "region",
        "age",
        "member",
        "debt",
        "mood",
    ]
    assert known["columns"] == ["region", "age", "member", "debt", "mood"]


def test_types_named_by_the_user_are_kept(room, tmp_path, capsys):
    fit = ["fit", room / "t.csv", "--columns", "age,mood", "-o", tmp_path / "m", *TINY]
    _, out, _ = outcome(capsys, *fit, "--type", "age=positive,mood=ignored")
    assert "age   positive" in out and "mood  ignored" in out


@pytest.mark.parametrize("ending", ["csv", "parquet", "csv.gz"])
def test_samples_read_back_with_the_types_of_the_table(room, tmp_path, capsys, ending):
    output = tmp_path / f"s.{ending}"
    assert outcome(capsys, "sample", room / "all", "-n", 200, "-o", output)[0] == 0
    drawn, table = read_typed_table(output), read_typed_table(room / "t.csv", ignore=["id", "w"])
    assert list(drawn) == list(table)
    assert drawn.dtypes.astype(str).to_dict() == table.dtypes.astype(str).to_dict()
    assert set(drawn.region) == {"north", "south, far"}
    assert drawn.mood.isna().any() and (drawn.debt == 0).any() and (drawn.age >= 0).all()


@pytest.mark.parametrize("data", ["t.csv", "t.parquet"])
def test_scores_are_those_of_the_model(room, tmp_path, capsys, data, monkeypatch):
    monkeypatch.setattr("cnf.tables.reading.CHUNK_ROWS", 70)
    assert (
        outcome(capsys, "score", room / "all", room / data, "-o", tmp_path / "s.parquet")[0] == 0
    )
    scores = pd.read_parquet(tmp_path / "s.parquet")
    direct = cnf.load(room / "all").evaluate(people(300))
    np.testing.assert_allclose(scores.log_prob, direct.log_prob, atol=1e-4)
    assert (scores.error < 0.2).all()


def test_samples_are_given_their_context(room, tmp_path, capsys):
    given = '"region=south, far",age=30'
    code, _, err = outcome(
        capsys, "sample", room / "given", "-n", 9, "--given", given, "-o", tmp_path / "s.csv"
    )
    assert code == 0, err
    assert list(pd.read_csv(tmp_path / "s.csv")) == ["member", "debt"]
    line = refused(capsys, "sample", room / "given", "-o", tmp_path / "s.csv")
    assert '--given "region=north,age=0"' in line
    line = refused(
        capsys, "sample", room / "given", "--given", "region=west,age=3", "-o", tmp_path / "s.csv"
    )
    assert "unseen category 'west'; expected one of 'north'" in line


def test_a_missing_cell_where_none_was_keeps_its_place(room, tmp_path, capsys):
    table = people(4)
    table.loc[1, "region"] = None
    table.to_csv(tmp_path / "t.csv", index=False)
    _, out, _ = outcome(
        capsys, "score", room / "all", tmp_path / "t.csv", "-o", tmp_path / "s.csv", "--json"
    )
    assert json.loads(out)["not_ok"] == 1
    assert pd.read_csv(tmp_path / "s.csv").log_prob.isna().tolist() == [False, True, False, False]


def test_numbers_outside_the_support_have_density_zero(room, tmp_path, capsys):
    rows = "north,31,True,-2.0,0.5,1\nnorth,31,True,0.0,inf,1\nnorth,31,True,0.0,0.5,1\n"
    (tmp_path / "t.csv").write_text("region,age,member,debt,mood,w\n" + rows)
    command = "score", room / "all", tmp_path / "t.csv", "-o", tmp_path / "s.csv", "--json"
    told = json.loads(outcome(capsys, *command)[1])
    assert (told["rows"], told["outside"], told["not_ok"]) == (3, 1, 1)
    scores = pd.read_csv(tmp_path / "s.csv").log_prob
    assert scores[0] == -np.inf and np.isnan(scores[1]) and np.isfinite(scores[2])


def test_an_unseen_category_costs_its_own_row(room, tmp_path, capsys):
    rows = "west,31,True,0.0,0.5,1\nnorth,31,True,-2.0,0.5,1\nnorth,31,True,0.0,0.5,1\n"
    (tmp_path / "t.csv").write_text("region,age,member,debt,mood,w\n" + rows)
    command = ("score", room / "all", tmp_path / "t.csv", "-o", tmp_path / "s.csv", "--reason")
    code, out, _ = outcome(capsys, *command)
    assert code == 0 and "1 have a category that was not in training" in out
    scores = pd.read_csv(tmp_path / "s.csv", keep_default_na=False)
    assert "unseen category 'west'" in scores.reason[0] and "-2 is outside" in scores.reason[1]
    assert scores.reason[2] == "" and np.isfinite(float(scores.log_prob[0]))
    told = json.loads(outcome(capsys, *command, "--unseen", "impossible", "--json")[1])
    assert (told["rows"], told["outside"], told["unseen"]) == (3, 2, 0)


LINES = "north,31,True,0.0,0.5,1\n"


def test_a_ragged_row_is_named(room, tmp_path, capsys):
    rows = 2 * LINES + "north,31\n" + LINES
    (tmp_path / "t.csv").write_text("region,age,member,debt,mood,w\n" + rows)
    line = refused(capsys, "score", room / "all", tmp_path / "t.csv", "-o", tmp_path / "s.csv")
    assert all(part in line for part in ["t.csv", "line 4", "expected 6 cells"]), line
    assert not (tmp_path / "s.csv").exists()


BAD_TABLES = {
    "repeated name": ("a,a\n" + "1,2\n" * 20, ["'a' twice"]),
    "nothing to learn": (
        "a,b\n" + "".join(f"7,name {i}\n" for i in range(1200)),
        ["no columns are left", "a: constant, 7", "b: ignored, an identifier"],
    ),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_table_that_cannot_be_modeled_is_refused(tmp_path, capsys, name):
    content, told = BAD_TABLES[name]
    write = (tmp_path / "t.csv").write_bytes
    write(content if isinstance(content, bytes) else content.encode())
    line = refused(capsys, "fit", tmp_path / "t.csv", "-o", tmp_path / "m", *TINY)
    assert all(part in line for part in ["t.csv", *told]), line
    assert not (tmp_path / "m").exists()


@pytest.mark.slow
def test_dependent_columns_are_set_aside(tmp_path, capsys):
    z = np.random.default_rng(0).normal(size=60)
    pd.DataFrame({"a": z, "b": z**2, "c": 2 * z, "g": list("xy") * 30}).to_csv(
        tmp_path / "t.csv", index=False
    )
    fit = ["fit", tmp_path / "t.csv", "-o", tmp_path / "m", *TINY]
    assert "'a', 'c' are dependent" in refused(capsys, *fit, "--strict")
    for options in ([], ["--drop-dependent"]):
        code, out, _ = outcome(capsys, *fit, *options)
        assert code == 0 and "c  ignored, columns 'a', 'c' are dependent" in out


@pytest.mark.parametrize("kind", ["marginals", "pairs", "samples", "history"])
def test_typed_tables_have_pictures(room, tmp_path, capsys, kind):
    picture = tmp_path / "p.png"
    data = [] if kind == "history" else ["--data", room / "t.csv"]
    assert outcome(capsys, "plot", room / "all", kind, "-o", picture, *data)[0] == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_pictures_need_their_columns_and_options(room, tmp_path, capsys):
    output = "-o", tmp_path / "s.png"
    line = refused(capsys, "plot", room / "all", "density", *output)
    assert "drawn for 2 columns, the model has 3" in line
    line = refused(capsys, "plot", room / "all", "samples", *output, "--axes", "age,region")
    assert "expected two numeric columns of age, debt, mood" in line
    marginals = "plot", room / "all", "marginals", *output
    assert "--sweep" in refused(capsys, *marginals, "--sweep", "age=0:1")
    assert "--colour" in refused(capsys, *marginals, "--colour", "log-density")


@pytest.mark.parametrize("kind", ["conditional", "trajectories", "field", "slices", "calibration"])
@pytest.mark.slow
def test_the_numbers_of_a_typed_table_have_every_picture(room, tmp_path, capsys, kind):
    picture = tmp_path / "p.png"
    command = "plot", room / "all", kind, "-o", picture, "--data", room / "t.csv"
    code, _, err = outcome(capsys, *command)
    assert code == 0, err
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_bad_types_are_refused(room, tmp_path, capsys):
    fit = ["fit", room / "t.csv", "-o", tmp_path / "m", *TINY]
    assert "no column 'agee'; did you mean 'age'" in refused(
        capsys, *fit, "--type", "agee=integer"
    )
    assert "name=value" in refused(capsys, *fit, "--type", "age")
    assert "expected real, positive" in refused(capsys, *fit, "--type", "age=ordinal")


def test_a_model_that_tells_half_of_its_rows_is_refused(room, tmp_path, capsys):
    model = cnf.load(room / "all")
    model.metadata = replace(model.metadata, valid_rows=None)
    model.save(tmp_path / "m")
    assert "lacks valid_rows, which rows needs" in refused(capsys, "info", tmp_path / "m")
