"""Orders between columns: found in a table, recorded, kept in draws."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import cnf
from cnf.cli import main
from cnf.diagnostics.orders import orders_kept
from cnf.tables import Schema, TableError
from cnf.tables.column_types.circular import with_pairs
from cnf.tables.metadata import FitMetadata
from cnf.tables.orders import BROKEN_BY_CHANCE, broken_orders, orders_of
from cnf.tables.rejection import accepted, accepted_by_row


def table(rows: int = 150) -> pd.DataFrame:
    """Dates, whole numbers and numbers with holes, in pairs of which the first is never larger."""
    random = np.random.default_rng(0)
    first = pd.Timestamp("2020-01-01") + pd.to_timedelta(random.integers(0, 300, rows), "D")
    part = random.gamma(2, 1, rows)
    frame = pd.DataFrame(
        {
            "start": first,
            "end": first + pd.to_timedelta(random.integers(0, 90, rows), "D"),
            "built": (built := random.integers(1950, 2000, rows)),
            "remodeled": built + random.integers(0, 30, rows),
            "whole": part + random.gamma(1, 1, rows),
            "part": part,
        }
    )
    frame.loc[::17, "part"] = np.nan
    return frame


ORDERS = [["start", "end"], ["built", "remodeled"], ["part", "whole"]]


@pytest.fixture(scope="module")
def model() -> cnf.TableFlow:
    return cnf.fit_table(table(), steps=10, hidden=(8, 8))


def test_a_fit_records_the_orders_of_its_table(model, tmp_path):
    model.save(tmp_path / "m.safetensors")
    assert cnf.load(tmp_path / "m.safetensors").metadata.orders == ORDERS


def test_draws_keep_the_orders_on_request(model):
    drawn = model.sample(200, keep_orders=True)
    for low, high in ORDERS:
        assert not (drawn[low] > drawn[high]).any()
    free = model.sample(2_000)
    kept = np.mean([~(free[low] > free[high]) for low, high in ORDERS], axis=0) == 1
    assert 0 < kept.mean() < 1
    assert drawn.attrs["acceptance"] == pytest.approx(kept.mean(), abs=0.15)


def test_orders_and_a_condition_hold_together(model):
    drawn = model.sample(50, where=lambda rows: rows["built"] > 1980, keep_orders=True)
    assert (drawn["built"] > 1980).all() and model.in_order(drawn).all() and len(drawn) == 50


def test_the_check_says_how_often_draws_break_an_order(model):
    (found,) = orders_kept(model, table(), 0, strict=False)
    free = model.sample(2_000)
    worst = max((free[low] > free[high]).mean() for low, high in ORDERS)
    assert found.value == pytest.approx(worst, abs=0.05) and found.passed == (found.value <= 0.05)


def test_the_command_line_keeps_orders_and_says_the_share(model, tmp_path, capsys):
    path, drawn = tmp_path / "m.safetensors", tmp_path / "s.csv"
    model.save(path)
    assert main(["sample", str(path), "-o", str(drawn), "-n", "100", "--keep-orders"]) == 0
    rows = pd.read_csv(drawn)
    assert len(rows) == 100 and not any((rows[low] > rows[high]).any() for low, high in ORDERS)
    said = capsys.readouterr().out
    assert "of the draws keep start ≤ end; built ≤ remodeled; part ≤ whole" in said


def test_angles_places_and_times_of_another_kind_have_no_order():
    random = np.random.default_rng(1)
    low = random.uniform(0, 80, 200)
    frame = pd.DataFrame(
        {
            "low": low,
            "wind": low + random.uniform(0, 90, 200),
            "lon": low + random.uniform(0, 90, 200),
            "lat": low + random.uniform(0, 9, 200),
            "when": pd.Timestamp("2020-01-01") + pd.to_timedelta(np.round(low * 7), "D"),
            "lasts": pd.to_timedelta(np.round(low * 9 + random.uniform(0, 7, 200)), "D"),
        }
    )
    kinds = with_pairs({"wind": "angle:360", "lon,lat": "sphere"})
    assert orders_of(Schema.infer(frame, kinds=kinds), frame) == []


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(arrays(float, (40, 3), elements=st.integers(0, 12).map(lambda k: k / 4 + 0.01)))
def test_orders_are_those_of_every_pair(values):
    frame = pd.DataFrame(values, columns=list("abc"))
    if any(frame[name].nunique() < 4 for name in frame):
        return
    schema = Schema.infer(frame)
    found = orders_of(schema, frame)
    modeled = [column.name for column in schema.modeled]
    for low in modeled:
        for high in modeled:
            every = all(x <= y for x, y in zip(frame[low], frame[high]))
            if [low, high] in found:
                assert every and low != high
            elif every and low != high:
                # The share of all pairs of rows out of order, whose mean shuffling has.
                chance = np.mean([[x > y for y in frame[high]] for x in frame[low]])
                assert chance < 0.1, BROKEN_BY_CHANCE
    assert not broken_orders(schema, found, frame).any()


@pytest.mark.parametrize("orders", [[["x"]], [["x", "z"]], [["x", "y", "x"]]])
def test_orders_of_other_columns_are_refused(orders):
    known = FitMetadata(columns=["x", "y"], orders=orders)
    with pytest.raises(ValueError, match="its orders are not of its columns"):
        known.require_complete()


def test_an_order_that_draws_hardly_keep_is_named_in_the_error(
    model, tmp_path, capsys, monkeypatch
):
    never = replace(model.metadata, orders=[*ORDERS, ["built", "whole"]])
    monkeypatch.setattr(model, "metadata", never)
    model.save(tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"^keep_orders: expected 2 rows; got 0 in [\d,]+ draws"):
        model.sample(2, keep_orders=True)
    with pytest.raises(ValueError, match=r"^where and keep_orders: expected 2 rows"):
        model.sample(2, where=lambda rows: rows["whole"] > 0, keep_orders=True)
    command = ["sample", str(tmp_path / "m.safetensors"), "-o", str(tmp_path / "s.csv"), "-n", "2"]
    assert main([*command, "--keep-orders"]) == 2
    assert "cnf: --keep-orders: expected 2 rows; got 0 in" in capsys.readouterr().err
    assert not (tmp_path / "s.csv").exists()


def test_a_table_without_orders_and_a_model_without_a_record_say_so(
    model, tmp_path, capsys, monkeypatch
):
    path, drawn = str(tmp_path / "m.safetensors"), str(tmp_path / "s.csv")
    for orders, code in (([], 0), (None, 2)):
        monkeypatch.setattr(model, "metadata", replace(model.metadata, orders=orders))
        model.save(path)
        assert main(["sample", path, "-o", drawn, "-n", "5", "--keep-orders"]) == code
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        f"{drawn}: 5 rows",
        "--keep-orders: no order of columns holds in the table; nothing to do",
    ]
    assert "cnf: the model has no record of orders between columns; fit it again" in said.err


def test_orders_hold_in_rows_that_each_have_a_context(model):
    frame = table()[["part", "whole", "built"]].dropna()
    given = cnf.fit_table(frame, context=["built"], steps=3, hidden=(8, 8))
    years = pd.DataFrame({"built": [1950, 1960, 1970, 1980] * 10})
    drawn = given.sample(40, years, keep_orders=True, where=lambda rows: rows["whole"] > 1)
    assert given.in_order(drawn).all() and (drawn["whole"] > 1).all() and len(drawn) == 40
    assert 0 < drawn.attrs["acceptance"] < 1


def test_every_place_has_its_own_draw():
    def draw(places):
        return pd.DataFrame({"place": places, "number": random.integers(0, 5, len(places))})

    random = np.random.default_rng(0)
    drawn = accepted_by_row(draw, {"where": lambda rows: rows["number"] == rows["place"] % 5}, 700)
    assert drawn["place"].tolist() == list(range(700))
    assert (drawn["number"] == drawn["place"] % 5).all()
    assert drawn.attrs["acceptance"] == pytest.approx(0.2, abs=0.04)
    with pytest.raises(ValueError, match=r"where: expected 2 rows; got 1 in"):
        accepted_by_row(draw, {"where": lambda rows: rows["place"] == 0}, 2)


@pytest.mark.parametrize(
    "answers", [[True, None, False], pd.array([True, None, False], "boolean"), [1.0, np.nan, 0.0]]
)
def test_a_missing_answer_is_no(answers):
    frame = pd.DataFrame({"x": [1, 2, 3]})
    drawn = accepted(lambda n: frame, {"where": lambda rows: answers}, 2)
    assert drawn["x"].tolist() == [1, 1]


def test_answers_of_another_length_and_rows_without_a_column_are_refused(model):
    with pytest.raises(ValueError, match="where: expected a boolean for each of 256 rows; got 1"):
        model.sample(3, where=lambda rows: [True])
    with pytest.raises(TableError, match="found no 'start'"):
        model.in_order(table().drop(columns="start"))
