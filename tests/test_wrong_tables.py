"""Wrong tables and wrong cells at every entry of a table's model: an answer that is right, one line
that says what was expected and found, or, of a cell, the loss of its row alone."""

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from test_wrong_inputs import refusal

import cnf
from cnf.cli import main
from cnf.tables import Schema, TableFlow

ROWS = 40
RANDOM = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {
        "share": [f"{x:.1f} %" for x in RANDOM.gamma(3, 4, ROWS)],
        "height": RANDOM.normal(size=ROWS),
        "group": list("ab") * (ROWS // 2),
    }
)
NUMBERS = pd.DataFrame(RANDOM.normal(size=(ROWS, 2)), columns=["u", "height"])


def untrained(table: pd.DataFrame, **options) -> TableFlow:
    torch.manual_seed(0)
    model = TableFlow(Schema.infer(table, **options), hidden=(4, 4))
    model.flow.solver = cnf.Grid.uniform(2)
    return model.eval()


def plain() -> TableFlow:
    schema, flow = Schema.infer(NUMBERS), cnf.CNF(2, hidden=(4, 4), solver=cnf.Grid.uniform(2))
    return TableFlow(schema, flow)


TYPED, PLAIN = untrained(TABLE), plain()
MARGINAL = PLAIN.marginal(["height"])
NO_TABLES = {
    "path": ("table.csv", "found 'table.csv': read a file"),
    "Path": (Path("table.csv"), "found PosixPath"),
    "none": (None, "found NoneType"),
    "strings": (["a", "b"], "found list"),
    "array": (np.zeros((3, 3)), "found ndarray"),
    "tensor": (torch.zeros(3, 3), "found Tensor"),
    "number": (3, "found int"),
    "lazy frame": (pl.from_pandas(TABLE).lazy(), "found LazyFrame"),
}
WRONG_COLUMNS = {
    "misspelt": (TABLE.rename(columns={"height": "heigth"}), "'heigth'?"),
    "missing": (TABLE[["group"]], "the columns are 'group'"),
    "numbered": (TABLE.set_axis([0, 1, 2], axis=1), "the columns are '0', '1', '2'"),
    "none": (pd.DataFrame(), "the table has no columns"),
    "repeated": (pd.concat([TABLE, TABLE[["group"]]], axis=1), "names column 'group' twice"),
}
SCORES = {
    "log_prob": TYPED.log_prob,
    "evaluate": TYPED.evaluate,
    "reasons": TYPED.reasons,
    "numeric_rows": TYPED.numeric_rows,
    "plain log_prob": PLAIN.log_prob,
    "marginal": MARGINAL.log_prob,
}
OTHERS = {
    "infer": Schema.infer,
    "fit": lambda table: cnf.fit_table(table, steps=1, hidden=(4, 4)),
    "validation": lambda table: cnf.fit_table(TABLE, valid=table, steps=1, hidden=(4, 4)),
    "impute": PLAIN.impute,
    "in_order": PLAIN.in_order,
    "explain": lambda table: PLAIN.explain(table, NUMBERS),
    "reference": lambda table: PLAIN.explain(NUMBERS, table),
    "posterior": lambda table: PLAIN.posterior(table, "height", [0.0, 1.0]),
    "conditional": PLAIN.conditional,
}
TAKES_PATHS = {("fit", "path"), ("fit", "Path"), ("validation", "path"), ("validation", "Path")}


@pytest.mark.parametrize("name", NO_TABLES)
@pytest.mark.parametrize("entry", SCORES | OTHERS)
def test_what_is_no_table_is_refused(entry, name):
    table, told = NO_TABLES[name]
    if (entry, name) in TAKES_PATHS:
        told = "no such file"
    elif (entry, name) == ("validation", "none"):
        return  # a tenth of the table validates
    message = refusal(lambda: (SCORES | OTHERS)[entry](table))
    assert told in message and ("expected" in message or "no such file" in message)


@pytest.mark.parametrize("name", WRONG_COLUMNS)
@pytest.mark.parametrize("entry", SCORES)
def test_wrong_columns_are_refused(entry, name):
    table, told = WRONG_COLUMNS[name]
    if name == "misspelt" and entry.startswith(("plain", "marginal")):
        table = table.assign(u=0.0)
    elif entry == "plain log_prob":
        return
    message = refusal(lambda: SCORES[entry](table))
    assert told in message, message


FORMS = {
    "dict": lambda table: table.to_dict("list"),
    "records": lambda table: table.to_dict("records"),
    "polars": pl.from_pandas,
    "pyarrow": pa.Table.from_pandas,
}


@pytest.mark.parametrize("form", FORMS)
def test_tables_of_other_forms_are_scored(form):
    for model, table in ((TYPED, TABLE), (PLAIN, NUMBERS)):
        assert torch.equal(model.log_prob(FORMS[form](table)), model.log_prob(table))


def test_a_table_of_another_form_is_fitted():
    model = cnf.fit_table(NUMBERS.to_dict("list"), steps=1, hidden=(4, 4))
    assert [column.name for column in model.schema.columns] == ["u", "height"]
    assert model.metadata.rows == 36  # a tenth validates


def test_one_text_is_one_name():
    assert PLAIN.marginal("height").columns == ("height",)
    schema = Schema.infer(TABLE, context="group", ignore="share")
    assert [column.name for column in schema.context] == ["group"] and "share" in schema.set_aside


def test_no_rows_have_no_scores():
    for score in (TYPED.log_prob, MARGINAL.log_prob):
        assert score(TABLE[:0]).shape == (0,)


BAD_CELLS = {
    "text": ("height", "tall", "expected a number, found 'tall'"),
    "underscore": ("height", "1_000", None),
    "list": ("height", [1.0], "expected a number, found '[1.0]'"),
    "complex": ("height", 1j, "expected a number, found '1j'"),
    "date": ("height", pd.Timestamp("2020-01-01"), "expected a number, found '2020-01-01"),
    "infinity": ("height", np.inf, "expected a finite number, found an infinity"),
    "share without its sign": ("share", "12.0", "spelled 1234.5 %), found '12.0'"),
    "share in words": ("share", "a tenth", "found 'a tenth'"),
}


def spoilt(column: str, cell: object) -> pd.DataFrame:
    """Three rows, the second with a bad cell."""
    table = TABLE[:3].astype(object)
    table.at[1, column] = cell
    return table


@pytest.mark.parametrize("name", [name for name, case in BAD_CELLS.items() if case[2]])
def test_a_bad_cell_costs_its_row(name):
    column, cell, told = BAD_CELLS[name]
    found, whole = TYPED.log_prob(spoilt(column, cell)), TYPED.log_prob(TABLE[:3])
    assert found[1].isnan() and torch.equal(found[[0, 2]], whole[[0, 2]])
    first, why, last = TYPED.reasons(spoilt(column, cell))
    assert (first, last) == ("", "") and why.startswith(f"column {column!r}") and told in why


def test_a_share_is_read_with_its_sign_and_space_or_not():
    scores = TYPED.log_prob(spoilt("share", "12.0 %")), TYPED.log_prob(spoilt("share", "12.0%"))
    assert scores[0].isfinite().all() and torch.equal(*scores)
    number = TYPED.log_prob(TABLE[:1].assign(share=[12.0]))  # a number is in the column's unit
    assert torch.equal(number, TYPED.log_prob(TABLE[:1].assign(share=["12.0 %"])))


def test_a_marginal_loses_the_row_too():
    rows = NUMBERS[:3].astype(object)
    rows.at[1, "height"] = "tall"
    found = MARGINAL.evaluate(rows)
    assert found.log_prob[1].isnan() and found.ok.tolist() == [True, False, True]


def test_a_fit_still_refuses_it():
    column = Schema.infer(TABLE).column("height")
    with pytest.raises(
        cnf.TableError, match="row 1, column 'height': expected a number, found 'ta"
    ):
        TYPED.schema.encode(spoilt("height", "tall"), (column,))


@pytest.mark.parametrize("suffix", ["csv", "xlsx"])
def test_files_lose_one_row(suffix, tmp_path, capsys):
    TYPED.save(tmp_path / "m.safetensors")
    data, output = tmp_path / f"t.{suffix}", tmp_path / "s.csv"
    table = spoilt("height", "tall")
    table.to_csv(data, index=False) if suffix == "csv" else table.to_excel(data, index=False)
    paths = [str(path) for path in (tmp_path / "m.safetensors", data, "-o", output)]
    assert main(["score", *paths, "--reason"]) == 0
    assert "1 have no log-density, the first for this reason: column" in capsys.readouterr().out
    scores = pd.read_csv(output)
    expected = TYPED.log_prob(TABLE[:3]).numpy()
    np.testing.assert_allclose(scores["log_prob"][[0, 2]], expected[[0, 2]], rtol=0, atol=1e-12)
    assert np.isnan(scores["log_prob"][1])
    assert scores["reason"][1] == "column 'height': expected a number, found 'tall'"


@pytest.mark.parametrize("rows", ["a", None, 2.5, -1, TABLE], ids=range(5))
def test_a_number_of_rows_to_draw_is_one(rows):
    assert refusal(lambda: TYPED.sample(rows)).startswith("rows: expected")


def test_an_estimator_takes_no_path():
    assert "got 'table.csv': read a file" in refusal(lambda: cnf.CNFDensity().fit("table.csv"))
