"""What columns are found to be, and cells as numbers and states and back."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cnf.plugins import Registry
from cnf.rows import Cells
from cnf.tables import (
    Column,
    NumericType,
    Schema,
    TableError,
    columns,
    declarations,
    register_column_type,
)
from cnf.tables.column_json import column_from_json

ROWS = 400
RANDOM = np.random.default_rng(0)
NORMAL = RANDOM.normal(size=ROWS)
KINDS = {
    "real": (NORMAL, "real"),
    "far from zero": (1e9 + NORMAL, "real"),
    "positive": (np.exp(2 * NORMAL), "positive"),
    "bounded": (RANDOM.beta(0.5, 0.5, ROWS), "bounded, between 0 and 1"),
    "counts": (RANDOM.poisson(9, ROWS), "integer, from 0"),
    "ends": (RANDOM.integers(1, 25, ROWS), "integer, from 1, to 24"),
    "negative": (np.round(30 * NORMAL), "integer"),
    "hundredths": (RANDOM.integers(120, 180, ROWS) / 100, "integer, multiples of 0.01"),
    "stray cell": (np.r_[np.tile(RANDOM.integers(990, 1040, 999), 2), 1003.3333], "integer"),
    "rating": (RANDOM.integers(1, 6, ROWS), "categorical, 5 levels: 1, 2, 3, 4, 5"),
    "text": (np.array(list("ab") * (ROWS // 2)), "categorical, 2 levels: a, b"),
    "flag": (NORMAL > 0, "categorical, 2 levels: False, True"),
    "holes": (np.where(NORMAL > 1, np.nan, NORMAL), "real, with missing cells"),
    "zeros": (np.where(NORMAL > 1, 0.0, np.exp(NORMAL)), "positive, often exactly 0"),
    "rare events": (np.where(NORMAL > 1.5, RANDOM.integers(1, 40, ROWS), 0), "often exactly 0"),
    "counter": (np.arange(1, ROWS + 1), "ignored"),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_a_column_is_found_to_be(name):
    values, expected = KINDS[name]
    table = pd.DataFrame({"it": values, "other": np.linspace(0, 1, len(values)) ** 2 * np.pi})
    schema = Schema.infer(table)
    assert expected in schema.column("it").describe()
    assert Schema.from_json(schema.as_json()) == schema


@pytest.mark.parametrize("name", sorted(set(KINDS) - {"stray cell", "counter"}))
def test_cells_come_back_as_they_were(name):
    table = pd.DataFrame({"it": KINDS[name][0]})
    schema = Schema.infer(table)
    back = schema.decode(schema.encode(table, schema.modeled), schema.modeled)
    pd.testing.assert_frame_equal(back, table)


def test_a_user_says_what_columns_are():
    table = pd.DataFrame(
        {"a": [1, 2, 3, 4] * 10, "b": np.linspace(0.1, 0.9, 40), "c": list("xyzw") * 10}
    )
    table["d"] = table.b**2
    schema = Schema.infer(
        table, kinds={"a": "integer", "b": "bounded:0:1"}, context=["c"], ignore=["d"]
    )
    assert [column.kind for column in schema.columns] == [
        "integer",
        "bounded",
        "categorical",
        "ignored",
    ]
    assert [column.name for column in schema.context] == ["c"]


BAD = {
    "constant": ({"a": [3.0] * 30, "b": NORMAL[:30]}, {"strict": True}, "'a': constant, 3"),
    "declared constant": (
        {"a": [3.0] * 30, "b": NORMAL[:30]},
        {"kinds": {"a": "real"}},
        "constant 'a'",
    ),
    "empty column": (
        {"a": [np.nan] * 30, "b": NORMAL[:30]},
        {"strict": True},
        "'a': ignored, every cell is missing",
    ),
    "too large": ({"a": np.r_[NORMAL[:9], 1e200]}, {}, "row 9, column 'a': .* within"),
    "sum": (
        {"a": NORMAL, "b": NORMAL**2, "c": NORMAL**2 - 3 * NORMAL},
        {"strict": True},
        "'a', 'b', 'c' are dependent",
    ),
    "equal": ({"a": NORMAL, "b": NORMAL}, {"strict": True}, "'a' and 'b' are equal"),
    "twins": (
        {"a": list("xy") * 20, "b": list("no") * 20},
        {"strict": True},
        "'a', 'b' correspond one to one",
    ),
    "a category for every row": (
        {"a": [f"id {i}" for i in range(10**5)]},
        {},
        "no columns are left to model; a: ignored, an identifier",
    ),
    "ten thousand columns": ({f"c{i}": NORMAL[:12] for i in range(10_000)}, {}, "10,000 columns"),
    "complex numbers": ({"a": [1j, 2j, None] * 9}, {}, "a: ignored, .* type complex"),
    "no rows": ({"a": []}, {}, "no rows"),
    "unknown column": (
        {"a": NORMAL},
        {"kinds": {"aa": "real"}},
        "no column 'aa'; did you mean 'a'",
    ),
    "unknown kind": ({"a": NORMAL}, {"kinds": {"a": "ordinal"}}, "expected real, positive"),
    "outside": (
        {"a": NORMAL},
        {"kinds": {"a": "bounded:0:1"}},
        "'a': expected numbers from 0 to 1",
    ),
    "no integers": ({"a": NORMAL}, {"kinds": {"a": "integer"}}, "'a': expected multiples of 1"),
    "text as numbers": (
        {"a": ["1", "2", "x"] * 9},
        {"kinds": {"a": "real"}},
        "row 2, column 'a': .* 'x'",
    ),
    "nothing left": ({"a": NORMAL}, {"ignore": ["a"]}, "no columns are left"),
    "names that are no text": ({0: NORMAL}, {}, "names of columns, found 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_table_that_has_no_schema(name):
    columns, options, message = BAD[name]
    with pytest.raises(TableError, match=message):
        Schema.infer(pd.DataFrame(columns), **options)


def test_repeated_names_are_refused():
    with pytest.raises(TableError, match="'a' twice"):
        Schema.infer(pd.DataFrame(np.ones((3, 2)), columns=["a", "a"]))


def test_a_dependent_column_is_set_aside():
    table = pd.DataFrame({"a": NORMAL, "b": NORMAL**2, "c": NORMAL**2 - 3 * NORMAL})
    schema = Schema.infer(table)
    assert [column.kind for column in schema.columns] == ["real", "positive", "ignored"]
    assert "'a', 'b', 'c' are dependent" in schema.column("c").describe()
    with pytest.warns(DeprecationWarning, match="drop_dependent"):
        assert Schema.infer(table, drop_dependent=True) == schema


@pytest.mark.parametrize(
    "function",
    [np.exp, np.arctan, lambda x: -(x**3), np.round],
    ids=["exp", "arctan", "cube", "round"],
)
def test_a_function_that_rises_or_falls_is_set_aside(function):
    """Its joint density with the other is no density: it is infinite on a curve."""
    table = pd.DataFrame({"a": NORMAL, "b": NORMAL[::-1], "c": function(NORMAL)})
    table.loc[3, ["a", "c"]] = np.nan
    schema = Schema.infer(table)
    told = schema.column("c").describe()
    if function is np.round:  # does not tell numbers apart
        assert schema.column("c").type.modeled
    else:
        assert told == "ignored, columns 'a', 'c' rise and fall together, one to one"
        assert Schema.infer(table, context=["c"]).set_aside.keys() == {"a"}
    assert schema.column("a").type.modeled and schema.column("b").type.modeled


def test_a_column_that_is_missing_in_other_rows_is_no_function():
    table = pd.DataFrame({"a": NORMAL, "c": np.exp(NORMAL)})
    table.loc[3, "a"] = np.nan
    assert Schema.infer(table).set_aside == {}


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        (
            {"g": ["z"], "x": [0.5]},
            "row 0, column 'g': unseen category 'z'; expected one of 'a', 'b'",
        ),
        ({"g": ["a"], "x": [1.5]}, "row 0, column 'x': 1.5 is outside"),
        ({"g": ["a"], "x": ["?"]}, "row 0, column 'x': expected a number, found '\\?'"),
        ({"g": ["a"]}, "no column 'x'"),
    ],
)
def test_cells_that_a_column_cannot_hold(spoilt, message):
    schema = Schema(
        (
            Column("g", "categorical", levels=("a", "b")),
            Column("x", "bounded", lower=0.0, upper=1.0),
        )
    )
    with pytest.raises(TableError, match=message):
        schema.encode(pd.DataFrame(spoilt), schema.modeled)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"name": "a", "kind": "ordinal"},
        {"name": "a", "kind": "integer"},
        {"name": "a", "kind": "bounded", "lower": 1.0, "upper": 0.0},
        {"name": "a", "kind": "categorical", "levels": ["x", "x"]},
        {"name": "a", "kind": "real", "atoms": [float("nan")]},
        {"name": "a", "kind": "real", "color": "red"},
        "a",
    ],
)
def test_columns_that_make_no_sense_are_refused(spoilt):
    with pytest.raises(ValueError, match="column"):
        Schema.from_json([spoilt])


def test_numbers_on_the_end_of_the_support_come_back_inside():
    columns = (
        Column("a", "integer", lower=0.5, upper=5.5, step=1.0),
        Column("b", "integer", lower=0.445, upper=0.555, step=0.01),
        Column("c", "bounded", lower=0.0, upper=1.0, atoms=(1.0,)),
    )
    ends = [[c.lower for c in columns], [c.upper for c in columns], [0.0, 0.0, 0.0]]
    states = torch.tensor([[0, 0, 0], [0, 0, 0], [0, 0, 1]])
    frame = Schema(columns).decode(Cells(torch.tensor(ends).double(), states), columns)
    assert frame.a.tolist() == [1.0, 5.0, 1.0]
    assert frame.b.tolist() == [0.45, 0.55, 0.45]
    assert 0 < frame.c[0] < frame.c[1] < 1 == frame.c[2]


numbers = st.one_of(
    st.floats(-1e6, 1e6),
    st.integers(-1000, 1000),
    st.integers(0, 3),
    st.decimals(-9, 9, places=2).map(float),
)
texts = st.one_of(st.text(max_size=3), st.none())
cells = st.one_of(
    st.lists(st.one_of(numbers, st.just(float("nan"))), min_size=12, max_size=12),
    st.lists(texts, min_size=12, max_size=12),
    st.lists(st.booleans(), min_size=12, max_size=12),
)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.lists(cells, min_size=1, max_size=4))
def test_any_table_has_a_schema_that_keeps_its_cells_or_is_refused(columns):
    table = pd.DataFrame({f"c{i}": pd.Series(column) for i, column in enumerate(columns)})
    try:
        schema = Schema.infer(table)
    except TableError as error:
        assert "\n" not in str(error)
        return
    assert Schema.from_json(schema.as_json()) == schema
    back = schema.decode(schema.encode(table, schema.modeled), schema.modeled)
    for name in back:
        assert (back[name].isna() == table[name].isna()).all()
        if schema.column(name).numeric:
            np.testing.assert_allclose(
                back[name].astype(float), table[name].astype(float), rtol=1e-12, atol=1e-9
            )
        else:
            assert back[name].dropna().tolist() == table[name].dropna().tolist()


@pytest.mark.parametrize(
    "odd",
    [
        {"name": 3},
        {"name": True},
        {"levels": "ab"},
        {"levels": [["a"]]},
        {"missing": 1},
        {"dtype": 7},
        {"atoms": ["x"]},
        {"atoms": [True]},
        {"lower": None},
        {"spelling": "dots"},
        {"places": 1.5},
        {"width": 1},
    ],
)
def test_a_column_from_a_file_is_of_its_types(odd):
    sound = {"name": "x", "kind": "categorical" if "levels" in odd else "real"}
    with pytest.raises(ValueError, match="column"):
        column_from_json({**sound, **odd})


def test_a_type_from_outside_is_one_class(monkeypatch):
    types = Registry("type of column", columns.TYPES)
    for module in (columns, declarations):
        monkeypatch.setattr(module, "TYPES", types)

    @register_column_type
    class Clock(NumericType):
        """Minutes of the day, spelled HH:MM."""

        name, usage, reads_text = "clock", ("clock", "clock:STEP"), True

        def declare(self, series, parameters, role):
            return Column(
                str(series.name), self.name, role, lower=-1e-9, upper=1440.0, missing=True
            )

        def read(self, series):
            parts = series.astype(object).str.split(":", expand=True).astype(float)
            return (60 * parts[0] + parts[1]).to_numpy()

        def write(self, values, column):
            spelled = [
                None if np.isnan(v) else f"{int(v) // 60:02}:{int(v) % 60:02}" for v in values
            ]
            return pd.Series(spelled, dtype=object)

    table = pd.DataFrame({"at": ["07:30", None, "23:59"] * 20, "y": NORMAL[:60]})
    schema = Schema.infer(table, kinds={"at": "clock"})
    assert Schema.from_json(schema.as_json()) == schema
    cells = schema.encode(table, schema.modeled)
    assert cells.values[:3, 0].tolist() == [450.0, 0.0, 1439.0]
    back = schema.decode(cells, schema.modeled)
    assert back["at"].fillna("").tolist()[:3] == ["07:30", "", "23:59"]
    assert "clock or clock:STEP" in columns.type_usage()
    with pytest.raises(TableError, match=r"clock:STEP.* got 'clocks'"):
        Schema.infer(table, kinds={"at": "clocks"})


@pytest.mark.parametrize("spelled", [(98108, "98108"), (2139, "02139"), (2.5, "2.50"), (7, "7")])
def test_names_are_themselves_where_a_table_holds_them_as_numbers(spelled):
    """A few rows of a column of names may all look like numbers."""
    number, name = spelled
    levels = ["98108", "98108-2920", "02139", "2.50", "7", "07", "north"]
    schema = Schema.infer(pd.DataFrame({"zip": levels * 20, "x": NORMAL[:140]}))
    column = schema.modeled[:1]
    found, wanted = (
        schema.encode(pd.DataFrame({"zip": [cell]}), column).states for cell in (number, name)
    )
    assert torch.equal(found, wanted) and (found >= 0).all()
    strange = schema.encode(pd.DataFrame({"zip": [8]}), column, strict=False).states
    assert (strange < 0).all()
