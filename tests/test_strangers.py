"""Tables as strangers have them: how cells are spelled and stored, what is set aside, and that
samples look like the table."""

import datetime
import json
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cnf
from cnf.cli import main
from cnf.tables import Schema, TableError, TableFlow, read_typed_table
from cnf.tables.column_json import column_as_json, column_from_json
from cnf.tables.dataframes import as_native, as_pandas
from cnf.tables.inference import infer
from cnf.tables.spelling import NumberSpelling, TimeSpelling

ROWS = 200
RANDOM = np.random.default_rng(0)
GAMMA = RANDOM.gamma(3, 4, ROWS)
NORMAL = RANDOM.normal(size=ROWS)
DAYS = [
    datetime.date(2020, 1, 1) + datetime.timedelta(int(k)) for k in RANDOM.integers(0, 900, ROWS)
]
CLOCKS = [datetime.time(int(k), 30) for k in RANDOM.integers(0, 24, ROWS)]
MINUTES = RANDOM.integers(0, 5000, ROWS)


def untrained(table: pd.DataFrame, **options) -> TableFlow:
    """A model of a table that nothing was fitted to."""
    torch.manual_seed(0)
    model = TableFlow(Schema.infer(table, **options), hidden=(4, 4))
    model.flow.solver = cnf.Grid.uniform(2)
    return model


SPELLED = {
    "percent": ([f"{x:.1f}%" for x in GAMMA], "positive, spelled 1234.5%"),
    "currency": ([f"${x:.2f}" for x in GAMMA], "positive, spelled $1234.50"),
    "thousands": ([f"{int(1000 * x):,}" for x in GAMMA], "integer, from 0, spelled 1,234"),
    "decimal comma": ([f"{x:.2f}".replace(".", ",") for x in GAMMA], "positive, spelled 1234,50"),
    "unit": ([f"{x:.3f} kg" for x in GAMMA], "positive, spelled 1234.500 kg"),
    "date": ([f"{day:%d.%m.%Y}" for day in DAYS], "time, in days, spelled 31.12.2020"),
    "padded month": ([f"{day:%m/%d/%Y}" for day in DAYS], "time, in days, spelled 12/31/2020"),
    "month": ([f"{d.month}/{d.day}/{d.year}" for d in DAYS], "time, in days, spelled 12/31/2020"),
    "clock": ([f"{k // 60 % 24:02}:{k % 60:02}" for k in MINUTES], "time, of day in minutes"),
    "moment": ([f"{d}T{c}Z" for d, c in zip(DAYS, CLOCKS)], "spelled 2020-12-31T23:59:00Z"),
    "duration": ([str(pd.Timedelta(minutes=int(k))) for k in MINUTES], "durations in minutes"),
}


@pytest.mark.parametrize("name", SPELLED)
def test_spelled_cells_are_numbers_or_times_and_come_back_as_text(name, tmp_path):
    cells, told = SPELLED[name]
    table = pd.DataFrame({"x": pd.Series(cells, dtype=object), "y": NORMAL})
    column = infer(table.x)
    assert told in column.describe()
    assert column.decode(*column.encode(table.x)).tolist() == cells
    table.to_csv(tmp_path / "t.csv", index=False)
    read = infer(read_typed_table(tmp_path / "t.csv").x)
    assert read.describe() == column.describe()
    assert column_from_json(json.loads(json.dumps(column_as_json(column)))) == column
    drawn = untrained(table).sample(30, generator=torch.Generator().manual_seed(0)).x
    assert NumberSpelling.of(drawn.tolist()) or TimeSpelling.of(drawn.tolist())
    assert np.isfinite(column.numbers(drawn)).all()


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["1.234.567", "8"], [1234567, 8]),
        (["1.234,5", "-7,0"], [1234.5, -7]),
        (["1 234,50", "12,10"], [1234.5, 12.1]),
        (["1'234.5", "2"], [1234.5, 2]),
        (["0,125", "1,250"], [0.125, 1.25]),
        (["-$3.25", "$1,000"], [-3.25, 1000]),
        (["12 €", "1.234 €", "1.234.567 €"], [12, 1234, 1234567]),
        (["1e5", "2.5"], [1e5, 2.5]),
        (["5 th", "10 th"], [5, 10]),
    ],
)
def test_marks_in_numbers(cells, numbers):
    spelling = NumberSpelling.of(cells)
    assert spelling.read(pd.Series(cells)).tolist() == numbers


@pytest.mark.parametrize(
    "cells",
    [["02139", "12345"], ["p1", "p2"], ["id 07", "id 12"], ["2014_01", "2014_02"], ["nan"], [""]],
)
def test_codes_are_no_numbers(cells):
    assert NumberSpelling.of(cells) is None and TimeSpelling.of(cells) is None


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.decimals(-(10**9), 10**9, places=2).map(float), min_size=1, max_size=6),
    st.builds(
        NumberSpelling,
        before=st.sampled_from(["", "$", "€ "]),
        after=st.sampled_from(["", "%", " kg"]),
        thousands=st.sampled_from(["", "'", " ", ","]),
        decimal=st.just("."),
        places=st.sampled_from([2, None]),
    ),
)
def test_what_a_spelling_writes_is_read_and_recognized(values, spelling):
    texts = spelling.write(pd.Series(values))
    assert spelling.read(texts).tolist() == values
    assert NumberSpelling.of(texts.tolist()).read(texts).tolist() == values


WORDS = {
    "question marks": ([f"{x:.2f}" if i % 6 else "?" for i, x in enumerate(GAMMA)], ("?",)),
    "minus": ([f"{x:.2f}" if i % 3 else "-" for i, x in enumerate(GAMMA)], ("-",)),
    "none": ([f"{x:.2f}" if i % 3 else "none" for i, x in enumerate(GAMMA)], ("none",)),
    "any word among many numbers": (
        [f"{x:.2f}" if i % 5 else "refused" for i, x in enumerate(GAMMA)],
        ("refused",),
    ),
    "a slip": ([f"{x:.2f}" if i else "1.2.3" for i, x in enumerate(GAMMA)], ("1.2.3",)),
    "levels": (["none", "mild"] * 100, ()),
    "grades": (["1", "2", "none"] * 66, ("none",)),
    "half of them words": (["1", "2", "low", "high"] * 50, ()),
}


@pytest.mark.parametrize("name", WORDS)
def test_words_among_numbers_are_missing_cells(name, tmp_path):
    cells, words = WORDS[name]
    table = pd.DataFrame({"x": cells, "y": NORMAL[: len(cells)]})
    table.to_csv(tmp_path / "t.csv", index=False)
    column = infer(read_typed_table(tmp_path / "t.csv").x)
    assert (column.missing_words, column.missing) == (words, bool(words))
    if words:
        drawn = column.decode(*column.encode(table.x))
        assert pd.api.types.is_numeric_dtype(drawn)
        assert drawn.isna().tolist() == [cell in words for cell in cells]


def test_a_user_says_which_words_are_missing(tmp_path):
    cells = ["NA", "none", "mild", "-9"] * 30
    pd.DataFrame({"x": cells, "n": [-9, 1, 2, 3] * 30}).to_csv(tmp_path / "t.csv", index=False)
    usual = Schema.infer(read_typed_table(tmp_path / "t.csv"))
    assert usual.column("x").levels == ("-9", "mild", "none") and usual.column("x").missing
    asked = Schema.infer(read_typed_table(tmp_path / "t.csv", missing=["-9"]), missing=["-9"])
    assert asked.column("x").levels == ("NA", "mild", "none")
    assert asked.column("n").levels == (1, 2, 3) and asked.column("n").missing
    encoded = asked.column("n").encode(pd.Series([-9, 2]))[1]
    assert encoded.tolist() == [3, 1]


STORED = {
    "int8": RANDOM.integers(0, 100, ROWS).astype(np.int8),
    "float32": NORMAL.astype(np.float32),
    "Int64": pd.array([None if k % 7 == 0 else k for k in range(1, ROWS + 1)], dtype="Int64"),
    "object of numbers": pd.Series(GAMMA, dtype=object),
    "string": pd.array(list("ab") * 100, dtype="string"),
    "Decimal": [Decimal(f"{x:.2f}") for x in GAMMA],
    "Decimal with holes": [
        None if k % 7 == 0 else Decimal(f"{x:.2f}") for k, x in enumerate(GAMMA)
    ],
    "ordered": pd.Categorical(["lo", "hi"] * 100, categories=["lo", "mid", "hi"], ordered=True),
    "unused levels": pd.Categorical(["lo", "hi"] * 100, categories=["lo", "mid", "hi"]),
    "boolean": pd.array([True, False, None, True] * 50, dtype="boolean"),
    "bool": [True, False] * 100,
    "date": pd.Series(DAYS, dtype=object),
    "time of day": pd.Series(CLOCKS, dtype=object),
    "timedelta": pd.to_timedelta(MINUTES, unit="min"),
    "moments": pd.date_range("2020-01-01", periods=ROWS, freq="7h"),
    "nanoseconds": pd.to_datetime(RANDOM.integers(0, 10**15, ROWS) + 1_700_000_000 * 10**9),
    "days of a zone": pd.date_range("2020-03-01", periods=ROWS, freq="D", tz="Europe/Berlin"),
    "hours of a zone": pd.date_range("2020-03-01", periods=ROWS, freq="h", tz="Europe/Berlin"),
    "years": pd.to_datetime([f"{y}-01-01" for y in RANDOM.integers(1990, 2020, ROWS)]),
    "period": pd.period_range("2000-01", periods=ROWS, freq="M"),
    "arrow": pd.array(RANDOM.integers(0, 90, ROWS), dtype="int64[pyarrow]"),
    "arrow time": pd.array(pd.date_range("2020", periods=ROWS), dtype="timestamp[us][pyarrow]"),
    "cents": np.round(np.exp(2 * NORMAL + 6), 2),
}


@pytest.mark.parametrize("name", STORED)
def test_types_out_are_types_in(name):
    table = pd.DataFrame({"x": pd.Series(STORED[name]), "y": NORMAL})
    column = infer(table.x)
    back = column.decode(*column.encode(table.x))
    pd.testing.assert_series_equal(back, table.x, check_names=False, check_freq=False)
    assert column_from_json(json.loads(json.dumps(column_as_json(column)))) == column
    drawn = untrained(table).sample(20, generator=torch.Generator().manual_seed(0))
    assert drawn.x.dtype == table.x.dtype
    assert np.isfinite(column.numbers(drawn.x)[drawn.x.notna()]).all()


def test_the_same_column_is_one_type_however_it_is_stored():
    tenths, flags = np.round(GAMMA, 1), [True, False, None, True] * 50
    same = [
        tenths, tenths.astype(np.float32), pd.array(tenths, dtype="Float32"),
        [Decimal(f"{x:.1f}") for x in tenths], pd.Series(tenths, dtype=object),
        pl.Series(tenths, dtype=pl.Decimal(10, 1)).to_arrow().to_pandas(),
        [f"{x:.1f}" for x in tenths],
    ]  # fmt: skip
    columns = [infer(pd.Series(cells, name="x")) for cells in same]
    assert {(c.kind, c.step, c.atoms, c.lower, c.upper, c.places) for c in columns} == {
        ("positive", None, columns[0].atoms, 0.0, None, 1)
    }
    holes = [pd.Series(flags, dtype=object), pd.array(flags, dtype="boolean")]
    assert {infer(pd.Series(cells)).levels for cells in holes} == {(False, True)}


def test_an_atom_is_one_in_single_precision():
    cells = np.where(RANDOM.random(ROWS) < 0.4, 0.7, NORMAL)
    column = infer(pd.Series(cells))
    single = column.encode(pd.Series(cells.astype(np.float32)))[1]
    assert column.atoms == (0.7,) and (single == column.encode(pd.Series(cells))[1]).all()


def test_columns_with_as_many_decimals_are_alike():
    length = np.round(5.8 + 0.8 * NORMAL, 1)
    width = np.round(3.0 + 0.3 * NORMAL[::-1], 1)
    table = pd.DataFrame({"length": length[:150], "width": width[:150]})
    assert len(table.length.unique()) > 30 > len(table.width.unique())
    assert [c.step for c in Schema.infer(table).columns] == [0.1, 0.1]
    alone = Schema.infer(table, kinds={"length": "real"})
    assert [c.kind for c in alone.columns] == ["real", "integer"]


def test_sampled_numbers_have_the_decimals_of_the_table():
    table = pd.DataFrame({"cents": np.round(np.exp(NORMAL + 3), 2), "y": NORMAL})
    drawn = untrained(table, kinds={"cents": "positive"}).sample(500).cents
    assert (drawn == drawn.round(2)).all() and (drawn > 0).all()


@pytest.mark.parametrize("cells", [NORMAL, GAMMA, np.round(GAMMA + 1, 2)])
def test_a_sample_that_overflows_is_still_a_number(cells):
    column = infer(pd.Series(cells, name="x"))
    assert column.kind in ("real", "positive")
    ends = np.array([np.inf, -np.inf, 0.0, 9e299])
    drawn = column.decode(ends, np.zeros(4, dtype=np.int64))
    assert np.isfinite(drawn).all() and (column.encode(drawn)[1] == 0).all()


def test_frames_of_polars_come_back_with_their_types():
    frame = pl.DataFrame(
        {
            "flag": pl.Series([True, False, None, True] * 50),
            "count": pl.Series([None, 1, 2, 5, 8, 13, 21, 3] * 25),
            "single": pl.Series(NORMAL, dtype=pl.Float32),
            "enum": pl.Series(["lo", "hi"] * 100, dtype=pl.Enum(["lo", "mid", "hi"])),
            "price": pl.Series([Decimal(f"{x:.2f}") for x in GAMMA]),
            "day": pl.Series(DAYS),
            "clock": pl.Series(CLOCKS),
        }
    )
    table = as_pandas(frame)
    kinds = [column.kind for column in Schema.infer(table).columns]
    assert kinds == [
        "categorical",
        "categorical",
        "real",
        "categorical",
        "positive",
        "time",
        "time",
    ]
    assert as_native(untrained(table).sample(9), frame[:0]).schema == frame.schema


@pytest.mark.slow
def test_a_table_of_everything_is_fitted_at_the_first_try(tmp_path, capsys):
    table = pd.DataFrame(
        {
            "": range(ROWS),
            "name": [f"person {i}" for i in range(ROWS)],
            "site": "Oslo",
            "version": 3,
            "code": [f"0{k}" for k in RANDOM.integers(100, 103, ROWS)],
            "empty": "",
            "promo": ["1" if k % 3 else "" for k in range(ROWS)],
            "price": [f"{1000 * x:,.2f} €" for x in GAMMA],
            "pain": RANDOM.choice(["none", "mild", "severe"], ROWS),
            "twin": "",
            "rooms": ["" if k % 9 == 0 else str(k) for k in RANDOM.integers(1, 30, ROWS)],
        }
    )
    table["twin"] = table.pain.map({"none": "0a", "mild": "1a", "severe": "2a"})
    table.to_csv(tmp_path / "t.csv", sep=";", index=False, encoding="cp1252")
    fit = [
        "fit",
        str(tmp_path / "t.csv"),
        "-o",
        str(tmp_path / "m"),
        "--steps",
        "2",
        "--width",
        "4",
    ]
    assert main(fit) == 0
    said = capsys.readouterr().out
    for line in [
        "separated by semicolons",
        "encoded in Windows-1252",
        "Unnamed: 0  ignored, it is a row counter",
        "name        ignored, an identifier",
        "site        constant, Oslo",
        "version     constant, 3",
        "code        categorical, 3 levels: 0100, 0101, 0102",
        "empty       ignored, every cell is missing",
        "promo       categorical, 1 levels: 1, with missing cells",
        "spelled 1,234.50 €",
        "pain        categorical, 3 levels: mild, none, severe",
        "twin        ignored, the categories of columns 'pain', 'twin' correspond",
        "rooms       integer",
    ]:
        assert line in said, line
    assert said.index("rooms") < said.index("held-out NLL")
    assert main(["sample", str(tmp_path / "m"), "-n", "40", "-o", str(tmp_path / "s.csv")]) == 0
    drawn = pd.read_csv(tmp_path / "s.csv", dtype=str, keep_default_na=False)
    names = ["site", "version", "code", "promo", "price", "pain", "rooms"]
    assert list(drawn) == names
    assert (drawn.site == "Oslo").all() and (drawn.version == "3").all()
    assert set(drawn.code) <= {"0100", "0101", "0102"} and set(drawn.promo) <= {"1", ""}
    assert set(drawn.pain) <= {"none", "mild", "severe"}
    assert all(cell == "" or cell.isdigit() for cell in drawn.rooms)
    assert all(cell.endswith(" €") for cell in drawn.price)
    scores = ["score", str(tmp_path / "m"), str(tmp_path / "t.csv"), "-o", str(tmp_path / "x.csv")]
    assert main(scores) == 0
    assert np.isfinite(pd.read_csv(tmp_path / "x.csv").log_prob).all()
    capsys.readouterr()
    assert main([*fit, "--strict"]) == 2
    assert (
        "'Unnamed: 0': ignored, it is a row counter; leave the column out"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        (list(range(1, 41)), "a row counter"),
        (RANDOM.permutation(40), "integer"),
        ([2**60 + k for k in range(40)], "too large for a density"),
        ([[k] for k in range(40)], "cells of the type list"),
        ([f"said {k % 30} things" for k in range(40)], "free text: 30 different cells in 40 rows"),
        (GAMMA[:40] * 1e-170, "differ by less than 1e-150; give it another unit"),
        (["a", "b"] * 20, "categorical"),
        ([pd.Timestamp("2020-01-01")] * 40, "every cell is 2020-01-01"),
        ([b"x", b"y"] * 20, "cells of the type bytes"),
    ],
)
def test_what_is_set_aside(cells, told):
    table = pd.DataFrame({"it": pd.Series(list(cells)), "y": NORMAL[:40]})
    assert told in Schema.infer(table).column("it").describe()


@pytest.mark.parametrize(
    ("numbers", "kind"),
    [
        (RANDOM.permutation(400), "ignored"),  # shuffled
        (np.sort(RANDOM.permutation(400)[:320]), "ignored"),  # a part
        (RANDOM.permutation(400)[:320] + 1.0, "ignored"),
        (RANDOM.permutation(400)[:320] / 10, "real"),  # a grid of tenths
        (RANDOM.permutation(1000)[:320], "integer"),
        (RANDOM.integers(400, size=320), "integer"),  # some twice
        (RANDOM.permutation(400)[:320] - 200, "integer"),
    ],
)
def test_a_counter_that_was_shuffled_or_split_is_set_aside(numbers, kind):
    table = pd.DataFrame({"it": numbers, "y": np.tile(NORMAL, 9)[: len(numbers)]})
    assert Schema.infer(table).column("it").kind == kind
    assert Schema.infer(table, kinds={"it": "real"}).column("it").kind == "real"


def test_whole_numbers_that_are_named_identifiers_are_set_aside():
    table = pd.DataFrame({"it": RANDOM.permutation(40), "y": NORMAL[:40]})
    for name in ("id", "user_id", "userId", "ID", "Unnamed: 3"):
        kinds = [c.kind for c in Schema.infer(table.rename(columns={"it": name})).columns]
        assert kinds == ["ignored", "real"]
    assert Schema.infer(table.rename(columns={"it": "paid"})).columns[0].kind == "integer"


def test_one_usable_column_is_a_table(tmp_path):
    table = pd.DataFrame({"x": GAMMA, "k": 7})
    model = cnf.fit_table(table, steps=2, hidden=(4, 4))
    assert list(model.sample(3)) == ["x", "k"] and model.log_prob(table).isfinite().all()


def test_an_array_of_several_is_named(tmp_path, capsys):
    np.savez(tmp_path / "t.npz", left=np.zeros((3, 2)), right=np.c_[NORMAL, GAMMA])
    fit = [
        "fit",
        str(tmp_path / "t.npz"),
        "-o",
        str(tmp_path / "m"),
        "--steps",
        "2",
        "--width",
        "4",
    ]
    assert main(fit) == 2
    assert "found 'left', 'right'; choose one with --array" in capsys.readouterr().err
    assert main([*fit, "--array", "right"]) == 0
    assert (
        main(
            ["score", str(tmp_path / "m"), str(tmp_path / "t.npz"), "-o", str(tmp_path / "s.csv")]
        )
        == 0
    )
    assert len(pd.read_csv(tmp_path / "s.csv")) == ROWS


def test_a_context_is_given_in_any_form():
    table = pd.DataFrame({"h": NORMAL, "sex": ["f", "m"] * 100})
    model = untrained(table, context=["sex"])
    forms = [
        {"sex": "f"}, {"sex": ["f"]}, pd.Series({"sex": "f"}), [{"sex": "f"}],
        pd.DataFrame({"sex": ["f"]}), pl.DataFrame({"sex": ["f"]}), {"sex": ["f", "m"]},
    ]  # fmt: skip
    drawn = [model.sample(2, form, generator=torch.Generator().manual_seed(0)) for form in forms]
    assert all(frame.equals(drawn[0]) for frame in drawn[:-1]) and len(drawn[-1]) == 2
    with pytest.raises(TableError, match="'age' is not a context column"):
        model.sample(2, {"sex": "f", "age": 999.0})
    with pytest.raises(TableError, match="found 'f'"):
        model.sample(2, "f")


def test_the_package_is_a_command():
    said = subprocess.run(
        [sys.executable, "-m", "cnf", "--help"], capture_output=True, text=True, check=True
    )
    assert "Usage: cnf" in said.stdout


KINDS_OF_CELLS = [
    st.floats(-1e6, 1e6), st.integers(-1000, 1000), st.booleans(), st.sampled_from("abc"),
    st.decimals(-99, 99, places=2), st.dates(datetime.date(1900, 1, 1), datetime.date(2100, 1, 1)),
    st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2100, 1, 1)),
    st.times(), st.timedeltas(datetime.timedelta(0), datetime.timedelta(999)),
    st.decimals(0, 10**6, places=2).map(lambda x: f"${x:,.2f}"),
    st.dates(datetime.date(1900, 1, 1), datetime.date(2100, 1, 1)).map("{:%d/%m/%Y}".format),
]  # fmt: skip
CELLS = st.one_of(
    [st.lists(kind | st.none(), min_size=14, max_size=14) for kind in KINDS_OF_CELLS]
)


def frame_of(columns: list[list[object]]) -> pd.DataFrame:
    return pd.DataFrame({f"c{i}": pd.Series(cells) for i, cells in enumerate(columns)})


@settings(max_examples=60, deadline=None)
@given(st.lists(CELLS, min_size=1, max_size=4))
def test_frames_of_supported_types_come_back_as_they_were(columns):
    table = frame_of(columns)
    try:
        schema = Schema.infer(table)
    except TableError as error:
        assert "no columns are left" in str(error)
        return
    assert Schema.from_json(json.loads(json.dumps(schema.as_json()))) == schema
    back = schema.rows(schema.encode(table, schema.modeled))
    for name in back:
        pd.testing.assert_series_equal(
            back[name],
            table[name],
            check_freq=False,
            rtol=1e-12,
            check_dtype=table[name].dtype != object,
        )


@pytest.mark.slow
@settings(max_examples=3, deadline=None)
@given(st.lists(CELLS, min_size=2, max_size=3))
def test_frames_of_supported_types_are_fitted_saved_sampled_and_scored(tmp_path_factory, columns):
    table = frame_of([*columns, NORMAL[:14].tolist()])
    model = cnf.fit_table(table, steps=2, hidden=(4, 4), imputer=False)
    path = tmp_path_factory.mktemp("any") / "m"
    model.save(path)
    again = cnf.load(path)
    assert again.schema == model.schema
    assert torch.equal(again.log_prob(table), model.log_prob(table))
    drawn = again.sample(5)
    assert drawn.dtypes.equals(table[list(drawn)].dtypes) or table.isna().any().any()
    assert again.log_prob(drawn).isfinite().all()


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        (
            [datetime.date(2020, 1, 1), None],
            "ignored, every cell that is not missing is 2020-01-01",
        ),
        (["1.0", "1.00"], "categorical, 2 levels: 1.0, 1.00"),
        (["7%", None], "categorical, 1 levels: 7%, with missing cells"),
        ([None, 3.5], "categorical, 1 levels: 3.5, with missing cells"),
        ([Decimal("1.0"), Decimal("1.00")], "constant, 1"),
        ([0.001, 0.0123456], "categorical, 2 levels: 0.001, 0.0123456"),
    ],
)
def test_columns_of_few_values(cells, told):
    table = pd.DataFrame({"it": pd.Series(cells * 20, dtype=object), "y": NORMAL[:40]})
    assert Schema.infer(table).column("it").describe() == told


def test_infinities_among_numbers_are_missing():
    column = infer(pd.Series(np.where(NORMAL > 1.5, np.inf, NORMAL)))
    assert column.missing and column.missing_words == ("inf",)
    assert column.encode(pd.Series([np.inf, 0.1, -np.inf]))[1].tolist() == [1, 0, -2]
    # However text spells it: scoring reads the cells of such a column as text.
    assert column.encode(pd.Series(["Inf", "0.1", "infinity", "-Inf"]))[1].tolist() == [
        1,
        0,
        1,
        -2,
    ]
