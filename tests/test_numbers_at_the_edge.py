"""Tables with unusual numbers, types or roles: what is fitted, scored and drawn is what the file
holds."""

import numpy as np
import pandas as pd
import pytest
import torch

import cnf
from cnf.cli import main
from cnf.plotting.arrays import on_grid
from cnf.tables import Schema, TableError, TableFlow
from cnf.tables.inference import infer

TINY = ["--steps", "3", "--width", "8"]
RANDOM = np.random.default_rng(0)
NORMAL = RANDOM.normal(size=300)


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def fitted(folder, table: pd.DataFrame, *options: str):
    """The path of a table written to the folder, and that of a model of it."""
    data, model = folder / "t.csv", folder / "m.safetensors"
    table.to_csv(data, index=False)
    assert run("fit", data, "-o", model, *TINY, *options) == 0
    return data, model


def scores(folder, model, data) -> pd.DataFrame:
    assert run("score", model, data, "-o", folder / "s.csv") == 0
    return pd.read_csv(folder / "s.csv")


@pytest.mark.parametrize(
    ("cells", "options"),
    [
        ([f"{k}.0" for k in RANDOM.integers(1, 4, 300)], []),
        ([f"0213{k}" for k in RANDOM.integers(1, 4, 300)], ["--type", "code=categorical"]),
        ([["true", "False", "TRUE"][k] for k in RANDOM.integers(0, 3, 300)], []),
    ],
)
@pytest.mark.slow
def test_a_model_scores_the_table_it_was_fitted_to_and_its_samples(tmp_path, cells, options):
    data, model = fitted(tmp_path, pd.DataFrame({"x": NORMAL, "code": cells}), *options)
    assert scores(tmp_path, model, data).log_prob.notna().all()
    assert run("sample", model, "-n", 50, "-o", tmp_path / "drawn.csv") == 0
    assert scores(tmp_path, model, tmp_path / "drawn.csv").log_prob.notna().all()


@pytest.mark.slow
def test_declared_categories_keep_their_zeros(tmp_path):
    cells = [f"0213{k}" for k in RANDOM.integers(1, 4, 300)]
    _, model = fitted(
        tmp_path, pd.DataFrame({"x": NORMAL, "zip": cells}), "--type", "zip=categorical"
    )
    assert run("sample", model, "-n", 50, "-o", tmp_path / "drawn.csv") == 0
    drawn = pd.read_csv(tmp_path / "drawn.csv", dtype=str)
    assert set(drawn.zip) == set(cells)


@pytest.mark.slow
def test_columns_that_are_ignored_are_not_modeled(tmp_path):
    table = pd.DataFrame({"id": range(300), "x": NORMAL, "y": NORMAL**2 + RANDOM.normal(size=300)})
    data, model = fitted(tmp_path, table)
    assert cnf.load(model).metadata.columns == ["x", "y"]
    assert scores(tmp_path, model, data).log_prob.notna().all()
    density = cnf.CNFDensity(steps=20, hidden=(8, 8), random_state=0).fit(table)
    assert density.flow_.dim == 2 and density.score_samples(table).shape == (300,)
    assert list(density.sample(4).columns) == ["x", "y"]
    dependent = table.drop(columns="id").assign(z=table.x + table.y)
    dependent.to_csv(data, index=False)
    assert run("fit", data, "-o", model, "--drop-dependent", *TINY) == 0
    assert cnf.load(model).metadata.columns == ["x", "y"]


def test_small_units_are_no_zeros():
    charges = pd.Series(np.exp(NORMAL) * 1.6e-19, name="charge")
    assert infer(charges).kind == "positive"
    zeros = RANDOM.random(300) < 0.2
    inflated = pd.Series(np.where(zeros, 0.0, np.exp(NORMAL) * 1e-13), name="concentration")
    column = infer(inflated)
    assert column.atoms == (0.0,) and (column.encode(inflated)[1] == 1).sum() == zeros.sum()
    # What rounding leaves of a zero among ordinary tenths is one.
    tenths = pd.Series(np.tile([0.1 + 0.2 - 0.3, 0.1, 0.2, 0.3, 0.4, 0.7], 50), name="tenths")
    assert infer(tenths).step == 0.1


def test_large_integers_keep_their_neighbors():
    base, late = 1_700_000_000_000, RANDOM.random(300) < 0.6
    column = infer(
        stamps := pd.Series(np.where(late, base + RANDOM.integers(1, 1000, 300), base), name="ms")
    )
    assert (
        base in column.atoms
        and (column.encode(stamps)[1] == column.atoms.index(base) + 1).sum() == (~late).sum()
    )
    nanoseconds = pd.Series(base * 10**6 + RANDOM.integers(0, 10**15, 300), name="ns")
    column = infer(nanoseconds)
    assert column.kind != "integer"
    drawn = column.decode(*column.encode(nanoseconds))
    np.testing.assert_allclose(drawn, nanoseconds.astype(float), rtol=1e-12)
    with pytest.raises(TableError, match="at most 2"):
        infer(nanoseconds, "integer")


@pytest.mark.parametrize("kind", ["positive", "real", "bounded:0:1000"])
def test_whole_numbers_that_are_declared_continuous_are_drawn_as_such(kind):
    incomes = pd.Series(np.maximum(1, np.round(np.exp(2 * NORMAL))).astype(int), name="income")
    column = infer(incomes, kind)
    halves = column.decode(np.full(3, 0.5), np.zeros(3, dtype=int))
    assert column.dtype == "float64" and halves.tolist() == [0.5] * 3
    holes = pd.Series([1, 2, 3, None] * 5, dtype="Int64", name="holes")
    column = infer(holes, "real")
    assert column.decode(*column.encode(holes)).isna().sum() == 5


def test_a_missing_cell_of_the_context_is_not_answered(tmp_path):
    table = pd.DataFrame({"t": NORMAL, "y": 3 * NORMAL + RANDOM.normal(size=300)})
    schema = Schema.infer(table, kinds={"y": "real"}, context=["t"])
    model = TableFlow(schema, hidden=(8, 8))
    asked = pd.DataFrame({"t": [2.0, None], "y": [6.0, 6.0]})
    found = model.evaluate(asked)
    assert found.ok.tolist() == [True, False] and found.log_prob.isnan().tolist() == [False, True]
    with pytest.raises(TableError, match="context of row 1"):
        model.sample(2, asked[["t"]])
    with pytest.raises(ValueError, match=r"no conditional network .*, or cnf fit --any-subset"):
        TableFlow(Schema.infer(table), hidden=(8, 8)).sample(1, asked[["t"]])


def test_a_context_may_count_rows_and_may_not_tell_all():
    table = pd.DataFrame({"time": range(60), "y": NORMAL[:60]})
    assert Schema.infer(table, context=["time"]).column("time").kind == "integer"
    follows = Schema.infer(table.assign(y=2.0 * table.time, z=NORMAL[:60]), context=["time"])
    assert "'y' follow from the context 'time'" in follows.column("y").describe()
    doubled = table.assign(again=2 * table.time)
    assert len(Schema.infer(doubled, context=["time", "again"]).modeled) == 1


def test_errors_of_the_rows_to_judge_by_name_their_file(tmp_path, capsys):
    train, valid = tmp_path / "train.csv", tmp_path / "valid.csv"
    pd.DataFrame({"x": NORMAL, "g": list("abc") * 100}).to_csv(train, index=False)
    pd.DataFrame({"x": NORMAL[:9], "g": list("abq") * 3}).to_csv(valid, index=False)
    assert run("fit", train, "--valid", valid, "-o", tmp_path / "m", *TINY) == 2
    told = capsys.readouterr().err
    assert f"{valid}: line 4" in told and str(train) not in told
    pd.DataFrame({"x": NORMAL, "price": np.exp(NORMAL[::-1])}).to_csv(train, index=False)
    pd.DataFrame({"x": NORMAL[:9], "price": NORMAL[:9]}).to_csv(valid, index=False)
    assert run("fit", train, "--valid", valid, "-o", tmp_path / "m", *TINY) == 2
    told = capsys.readouterr().err
    assert f"{valid}: line" in told and "outside the range of the column" in told
    assert str(train) not in told


def test_errors_of_the_rows_to_check_by_name_their_file(tmp_path, capsys):
    _, model = fitted(tmp_path, pd.DataFrame({"x": NORMAL, "g": list("abc") * 100}))
    other = tmp_path / "other.csv"
    pd.DataFrame({"x": [*NORMAL[:-1], "much"], "g": list("abc") * 100}).to_csv(other, index=False)
    capsys.readouterr()
    assert run("check", model, other) == 2
    assert f"{other}: line 301" in capsys.readouterr().err


def test_surplus_parameters_of_a_type_are_refused():
    numbers = pd.Series(np.exp(NORMAL), name="a")
    for kind in ("positive:20", "real:1", "integer:1:2", "integer:0", "bounded:0"):
        with pytest.raises(TableError, match="type of 'a'"):
            infer(numbers, kind)


def test_cells_that_are_lists_are_refused_by_name():
    with pytest.raises(TableError, match=r"row 0, column 'a'.*found list"):
        infer(pd.Series([[1, 2], [3]] * 20, name="a"))


def test_pictures_of_columns_far_from_zero_tell_their_points_apart():
    seen = []
    on_grid(
        lambda x: seen.append(x) or x[:, 0], 1.7e9 + np.arange(50.0), np.arange(2.0), "p", width=()
    )
    assert len(torch.cat(seen)[:, 0].unique()) == 50


def test_draws_that_no_density_can_make_are_refused():
    density = cnf.CNFDensity(steps=20, hidden=(8, 8), random_state=0).fit(NORMAL.reshape(-1, 2))
    with pytest.raises(ValueError, match="n_samples"):
        density.sample(-1)
    with pytest.raises(ValueError, match="without context"):
        density.sample(2, given=pd.DataFrame({"z": [1.0]}))


def test_options_that_say_something_twice_or_to_no_purpose_are_refused(tmp_path, capsys):
    data, _ = fitted(tmp_path, pd.DataFrame({"x": NORMAL, "y": NORMAL**2}))
    capsys.readouterr()
    assert run("fit", data, "-o", tmp_path / "n", "--type", "x=real,x=positive", *TINY) == 2
    assert "each name once" in capsys.readouterr().err
    assert run("fit", "toy:moons", "-o", tmp_path / "n", "--type", "x0=real", *TINY) == 2
    assert "omit --type" in capsys.readouterr().err


@pytest.mark.slow
def test_draws_of_a_plain_table_keep_to_the_ranges_of_its_columns(tmp_path, capsys):
    share = 1 / (1 + np.exp(-2 * RANDOM.normal(size=300)))
    table = pd.DataFrame({"price": np.exp(NORMAL), "share": share, "x": NORMAL[::-1]})
    _, model = fitted(tmp_path, table)
    told = capsys.readouterr().out
    assert "price  positive\n" in told and "share  bounded, between 0 and 1\n" in told
    assert run("sample", model, "-n", 2000, "-o", tmp_path / "drawn.csv") == 0
    drawn = pd.read_csv(tmp_path / "drawn.csv")
    assert (drawn.price > 0).all() and drawn.share.between(0, 1, inclusive="neither").all()
    assert np.isfinite(scores(tmp_path, model, tmp_path / "drawn.csv").log_prob).all()
    beside = pd.DataFrame({"price": [-1.0, 1.0], "share": [0.5, 0.5], "x": [0.0, 0.0]})
    beside.to_csv(tmp_path / "beside.csv", index=False)
    capsys.readouterr()
    assert np.isfinite(scores(tmp_path, model, tmp_path / "beside.csv").log_prob).tolist() == [
        False,
        True,
    ]
    told = capsys.readouterr()
    assert (
        "; 1 outside the ranges of their columns, where the density is zero; mean"
        in told.out + told.err
    )
    beside[:1].to_csv(tmp_path / "out.csv", index=False)
    assert not np.isfinite(scores(tmp_path, model, tmp_path / "out.csv").log_prob).any()
    told = "".join(capsys.readouterr())
    assert told.endswith("1 outside the ranges of their columns, where the density is zero\n")
    pd.concat([table[:30], beside]).to_csv(tmp_path / "beside.csv", index=False)
    assert run("check", model, tmp_path / "beside.csv") == 2
    assert "beside.csv: row 30 lies outside the ranges" in capsys.readouterr().err
    density = cnf.CNFDensity(steps=20, hidden=(8, 8), random_state=0).fit(table)
    drawn = density.sample(2000)
    assert (drawn.price > 0).all() and density.score_samples(beside)[0] == -np.inf


def test_rows_outside_their_ranges_are_refused_by_a_fit():
    x = torch.rand(100, 2).double()
    ranges = [(0.0, 1.0), (None, None)]
    history = cnf.fit(cnf.CNF(2, hidden=(4, 4)), x, steps=10, ranges=ranges)
    assert np.isfinite(history.valid_nll)
    x[3, 0] = 1.0
    with pytest.raises(ValueError, match=r"1 in column 0 .* outside its range"):
        cnf.fit(cnf.CNF(2, hidden=(4, 4)), x, steps=10, ranges=ranges)
    with pytest.raises(ValueError, match="one for each of 2 columns"):
        cnf.fit(cnf.CNF(2, hidden=(4, 4)), x, steps=10, ranges=ranges[:1])


def test_a_cell_far_narrower_than_its_column_has_the_density_times_its_width():
    """Its ends are told apart by their last digits, or not at all; in another unit they are not."""
    wide = (1e4 * np.random.default_rng(0).normal(size=60)).round().astype(int)
    rows = pd.DataFrame({"n": [0, 10_000, -70_000, 400_000], "g": list("abab")})
    found = []
    for unit in (1, 10**11):
        table = pd.DataFrame({"n": wide * unit, "g": list("ab") * 30})
        model = cnf.fit_table(table, kinds={"n": "integer"}, steps=2, hidden=(4, 4))
        found.append(model.log_prob(rows.assign(n=rows.n * unit)) + np.log(unit))
    assert found[1].isfinite().all()
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-3)
