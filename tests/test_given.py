"""What is given of columns: values that they hold, spelled as people spell them, of columns that the
model has."""

from itertools import groupby

import numpy as np
import pandas as pd
import pytest
import torch
from test_cli_tables import refused

import cnf
from cnf.tables import Schema, TableError
from cnf.tables.given import of_mapping
from cnf.tables.spelling import TimeSpelling

ROWS = 80


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    hours = pd.to_datetime("2024-01-01") + pd.to_timedelta(
        np.sort(rng.integers(0, 400, ROWS)), "h"
    )
    return pd.DataFrame(
        {
            "x": rng.normal(size=ROWS),
            "part": rng.integers(0, 40, ROWS),
            "tenth": rng.integers(0, 40, ROWS) / 10,
            "when": hours.strftime("%Y-%m-%d %H:%M"),
            "day": hours.normalize(),
            "group": list("ab") * (ROWS // 2),
            "same": 7,
            "id": [f"no {17 * i}" for i in range(ROWS)],
        }
    )


@pytest.fixture(scope="module")
def schema(table):
    return Schema.infer(table, kinds={"part": "integer", "tenth": "integer:0.1"})


@pytest.fixture(scope="module")
def plain(table, tmp_path_factory):
    """A model of two numbers beside columns that are set aside."""
    rows = table[["x", "same", "id"]].assign(y=np.random.default_rng(1).normal(size=ROWS))
    folder = tmp_path_factory.mktemp("aside")
    rows.to_csv(folder / "t.csv", index=False)
    model = cnf.fit_table(folder / "t.csv", steps=3, hidden=(8, 8))
    model.save(folder / "m")
    return model, rows, folder


def given(schema, **values):
    return of_mapping(schema, values, torch.device("cpu"))


@pytest.mark.parametrize(
    "values",
    [
        {"part": 3.5},
        {"part": "3.5"},
        {"part": np.nan},
        {"tenth": 0.25},
        {"when": "2024-01-05 13:30"},
        {"when": pd.Timestamp("2024-01-05 13:30")},
        {"when": "soon"},
        {"day": "2024-01-05 13:00"},
        {"group": "c"},
        {"x": 0.5, "part": 2.000_01},
    ],
    ids=str,
)
def test_a_value_that_the_column_cannot_hold_is_refused(schema, values):
    name, value = list(values.items())[-1]
    with pytest.raises(TableError, match=rf"^given: .*'?{name}'? .*") as caught:
        given(schema, **values)
    assert "\n" not in str(caught.value) and str(value) in str(caught.value)


def test_a_value_on_the_grid_is_taken_however_it_is_stored(schema):
    for spelled in (3, 3.0, "3", "3.0", np.int8(3)):
        assert given(schema, part=spelled).lower.equal(given(schema, part=3).lower)
    # 3 · 0.1 and 0.3 differ by a bit.
    assert given(schema, tenth=3 * 0.1).lower.equal(given(schema, tenth=0.3).lower)
    given(schema, part=(2.5, 7.5))  # the ends of a range may lie between


def test_a_date_alone_is_its_midnight(schema):
    midnight = given(schema, when="2024-01-05 00:00")
    for spelled in ("2024-01-05", pd.Timestamp("2024-01-05")):
        assert given(schema, when=spelled).lower.equal(midnight.lower)
    whole = given(schema, when=("2024-01-05 00:00", "2024-01-07 00:00"))
    assert given(schema, when=("2024-01-05", "2024-01-07")).lower.equal(whole.lower)


@pytest.mark.parametrize(
    ("spelled", "shorter"),
    [
        ("2024-01-05 13:07:09.250", ("2024-01-05 13:07:09", "2024-01-05 13:07", "2024-01-05")),
        ("2024-01-05T13:07:09Z", ("2024-01-05T13:07Z", "2024-01-05")),
        ("Jan 5, 2024, 1:07 PM", ("Jan 5, 2024",)),
        ("5 January 2024 13:07", ("5 January 2024",)),
        ("13:07:09", ("13:07",)),
    ],
)
def test_times_may_end_early_as_pandas_reads_them(spelled, shorter):
    spelling = TimeSpelling.of([spelled])
    assert spelling is not None
    found = spelling.read(pd.Series([spelled, *shorter, "soon"], dtype=object))
    start = pd.Timestamp("1900-01-01") if spelling.of_day else pd.Timedelta(0)
    for text, moment in zip((spelled, *shorter), found):
        clock = f"1900-01-01 {text}" if spelling.of_day else text
        assert start + moment == pd.Timestamp(clock).tz_localize(None)
    assert pd.isna(found.iloc[-1])


def test_a_column_on_a_grid_takes_no_value_between_as_context(table):
    schema = Schema.infer(
        table[["x", "part", "when"]], kinds={"part": "integer"}, context=["part", "when"]
    )
    model = cnf.TableFlow(schema, hidden=(4, 4))
    assert len(model.sample(2, {"part": 3, "when": "2024-01-05"})) == 2
    with pytest.raises(TableError, match=r"'part' holds .*; got 3.5"):
        model.sample(2, {"part": 3.5, "when": "2024-01-05"})
    with pytest.raises(TableError, match="context column 'when'; found none"):
        model.with_imputer().conditional({"part": 3})


@pytest.mark.parametrize("name", ["same", "id"])
def test_a_column_that_was_set_aside_is_named(plain, tmp_path, capsys, name):
    model, _, folder = plain
    for ask in (model.conditional, lambda values: model.sample(2, values)):
        with pytest.raises(TableError, match=f"^given: '{name}' is not modeled "):
            ask({name: 7})
    sample = ("sample", folder / "m", "-o", tmp_path / "s.csv", "--given")
    assert f"'{name}' is not modeled" in refused(capsys, *sample, f"{name}=7")
    assert f"'{name}' is not modeled" in refused(capsys, *sample, f"x=0,{name}=7")


def test_columns_of_rows_that_were_set_aside_say_nothing(plain):
    model, rows, _ = plain
    some = rows[:5].assign(y=np.nan)
    (filled,) = model.impute(some)
    assert filled["x"].equals(rows["x"][:5]) and filled["y"].notna().all()
    assert (filled["same"] == 7).all()  # as all draws of whole rows have it
    density = model.conditional(some[["x", "same", "id"]])
    assert density.columns == ("y",)


@pytest.mark.slow
@pytest.mark.parametrize("typed", [False, True], ids=["plain", "typed"])
def test_every_stage_of_a_fit_has_a_name_of_its_own(table, typed):
    stages = []
    rows = table[["x", "group"]] if typed else table[["x"]].assign(y=table["x"].to_numpy()[::-1])
    cnf.fit_table(
        rows, steps=4, hidden=(8, 8), any_subset=True,
        callbacks=[lambda trainer: stages.append(trainer.objective.name)],
    )  # fmt: skip
    names = [name for name, _ in groupby(stages)]
    assert names[0] == "flow matching" and names[-1] == "conditional network"
    assert len(set(names)) == len(names)
