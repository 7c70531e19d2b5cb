"""Comparison of two tables: the measures are those of sdmetrics, and each tells what it should."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnf.cli import main
from cnf.diagnostics.comparison import TablePair, compare
from cnf.diagnostics.comparison.constraints import constraints
from cnf.diagnostics.comparison.coverage import coverage
from cnf.diagnostics.comparison.detection import boosted_trees, detection, logistic_regression
from cnf.diagnostics.comparison.records import closest_records, nearer_to_training
from cnf.diagnostics.comparison.shape import shapes
from cnf.diagnostics.comparison.trend import trends
from cnf.report.comparison import write_comparison
from cnf.tables import TableError

ROWS = 400


def people(seed: int, rows: int = ROWS) -> pd.DataFrame:
    """A category that goes with a count, a number with holes, and two years in their order."""
    random = np.random.default_rng(seed)
    z, born = random.normal(size=(rows, 2)), 1900 + np.floor(40 * random.random(rows))
    return pd.DataFrame(
        {
            "region": np.where(z[:, 0] > 0.4, "north", "south"),
            "visits": random.poisson(np.exp(1 + 0.5 * z[:, 0])),
            "mood": np.where(random.random(rows) < 0.1, np.nan, z[:, 1] + z[:, 0]),
            "born": born,
            "died": born + np.floor(10 + 30 * random.random(rows)),
        }
    )


def shuffled(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame({name: random.permutation(cells) for name, cells in table.items()})


def copula(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Columns as they are, their ranks joined by a normal law."""
    ranks = table.rank(method="first").to_numpy()
    levels = np.random.default_rng(seed).multivariate_normal(
        np.zeros(ranks.shape[1]), np.corrcoef(ranks, rowvar=False), size=len(table)
    )
    places = levels.argsort(0).argsort(0)
    return pd.DataFrame(
        {name: np.sort(table[name].to_numpy())[place] for name, place in zip(table, places.T)}
    )


NUMBERS = ["visits", "born", "died"]
PAIRS = {
    "another sample": (people(0), people(1)),
    "shuffled": (people(0), shuffled(people(1), 2)),
    "moved": (people(0), people(1).assign(mood=lambda table: 2 * table.mood + 1)),
    "one level": (people(0), people(1).assign(region="north")),
    "numbers": (people(0)[NUMBERS], copula(people(1)[NUMBERS], 3)),
    "categories": (people(0)[["region"]], people(1)[["region"]].iloc[:100]),
}
# Shape, Trend, logistic detection and mean distance to the closest record by sdmetrics 0.32.
KEPT = {
    "another sample": [0.95442799, 0.921248553, 0.986271649, 0.036224065],
    "shuffled": [0.95442799, 0.838633111, 1.0, 0.059115193],
    "moved": [0.910823147, 0.921248553, 0.760189949, 0.051432776],
    "one level": [0.82542799, 0.711748553, 0.136435804, 0.055515247],
    "numbers": [0.9575, 0.986745664, 0.986413402, 0.024606917],
    "categories": [0.9675, math.nan, 1.0, 0.0],
}


def measured(real: pd.DataFrame, fake: pd.DataFrame) -> list[float]:
    pair = TablePair.of(real, fake)
    likeness = trends(pair).to_numpy()[np.triu_indices(len(real.columns), 1)]
    return [
        np.mean([*shapes(pair).values()]),
        np.nanmean(likeness) if len(likeness) else math.nan,
        detection(pair, logistic_regression, 0),
        closest_records(pair.fake, pair.real, pair).mean(),
    ]


@pytest.mark.parametrize("name", PAIRS)
def test_measures_are_those_that_sdmetrics_gave(name):
    assert measured(*PAIRS[name]) == pytest.approx(KEPT[name], abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.filterwarnings("ignore")
def test_measures_are_those_that_sdmetrics_gives(name):
    pytest.importorskip("sdmetrics")
    assert measured(*PAIRS[name]) == pytest.approx(
        by_sdmetrics(*PAIRS[name]), abs=1e-6, nan_ok=True
    )


def by_sdmetrics(real: pd.DataFrame, fake: pd.DataFrame) -> list[float]:
    from sdmetrics.reports.single_table._properties import ColumnPairTrends, ColumnShapes
    from sdmetrics.single_table import LogisticDetection
    from sdmetrics.single_table.privacy.dcr_utils import calculate_dcr

    types = {name: "categorical" if name == "region" else "numerical" for name in real}
    metadata = {"columns": {name: {"sdtype": kind} for name, kind in types.items()}}
    np.random.seed(0)
    return [
        ColumnShapes().get_score(real.copy(), fake.copy(), metadata),
        ColumnPairTrends().get_score(real.copy(), fake.copy(), metadata),
        LogisticDetection.compute(real.copy(), fake.copy()),
        calculate_dcr(fake.copy(), real.copy(), metadata).mean(),
    ]


@pytest.fixture(scope="module")
def found():
    """A comparison with each kind of synthetic rows, by name."""
    real, held_out = people(0, 800), people(1, 800)
    fakes = {
        "sample": people(2, 800),
        "copies": real.sample(frac=1, random_state=0),
        "shuffled": shuffled(real, 3),
        "copula": copula(real[NUMBERS], 4).assign(mood=real.mood, region=real.region),
    }
    return {
        name: compare(real, fake, held_out=held_out, target="region")
        for name, fake in fakes.items()
    }


@pytest.mark.slow
def test_another_sample_is_as_good_as_the_real_rows(found):
    sample = found["sample"]
    assert sample["shape"].value > 0.95
    assert sample["detection by trees"].value > 0.9
    assert sample["α-precision"].value > 0.95
    assert sample["memorization"].value == pytest.approx(0.5, abs=0.1)
    assert sample["closest record"].value == pytest.approx(sample["closest record"].ideal, rel=0.1)
    assert sample["efficacy"].value == pytest.approx(sample["efficacy"].ideal, abs=0.03)
    assert sample["constraints"].value == 0


@pytest.mark.slow
def test_copied_rows_are_told_by_memorization_alone(found):
    copies = found["copies"]
    assert copies["shape"].value == pytest.approx(1) == copies["trend"].value
    assert copies["memorization"].value > 0.95
    assert copies["closest record"].value == 0 and "100.0% are copies" in (
        copies["closest record"].detail
    )


def test_shuffled_columns_are_told_by_pairs_of_them(found):
    shuffled, sample = found["shuffled"], found["sample"]
    assert shuffled["shape"].value == 1
    assert shuffled["trend"].value < sample["trend"].value - 0.02
    assert shuffled["detection by trees"].value < 0.5
    # Logistic regression sees columns one by one.
    assert shuffled["detection by regression"].value > 0.95
    assert shuffled["efficacy"].value < 0.6 < 0.7 < shuffled["efficacy"].ideal


def test_broken_orders_of_columns_are_found(found):
    (order,) = found["shuffled"].constraints
    assert order.text == "born ≤ died" and order.real == 0
    assert order.fake > 0.02
    assert found["copula"]["constraints"].value < order.fake


def test_precision_and_recall_see_what_is_outside_and_what_is_missing():
    real = people(0)
    assert coverage(TablePair.of(real, people(1)), 0)[0] > 0.9
    outside = TablePair.of(real, people(1).assign(born=5000.0))
    assert coverage(outside, 0)[0] < 0.05
    one_row = pd.concat([real.iloc[:1]] * ROWS, ignore_index=True)
    assert coverage(TablePair.of(real, one_row), 0)[1] < 0.1


def test_a_model_that_memorized_is_told_by_its_likelihoods():
    train, held_out = people(0), people(1)

    class Kernels:
        """A narrow kernel on every training row."""

        def log_prob(self, table):
            gaps = (table.born.to_numpy()[:, None] - train.born.to_numpy()) / 0.01
            return np.logaddexp.reduce(-0.5 * gaps**2, 1)

    class Normal:
        def log_prob(self, table):
            return -0.5 * ((table.born.to_numpy() - 1920) / 12) ** 2

    found = compare(
        train, people(2), held_out=held_out.assign(born=held_out.born + 0.5), model=Kernels()
    )
    assert found["likelihood gap"].value > 100
    found = compare(train, people(2), held_out=held_out, model=Normal())
    assert abs(found["likelihood gap"].value) < 0.2


def test_trees_see_a_dependence_that_regression_does_not():
    x = np.random.default_rng(0).normal(size=(800, 1))
    real = pd.DataFrame({"a": x[:, 0], "b": x[:, 0]})
    pair = TablePair.of(real, shuffled(real, 1))
    assert detection(pair, boosted_trees, 0) < 0.1
    assert detection(pair, logistic_regression, 0) > 0.95


def test_orders_that_any_rows_keep_are_not_constraints():
    random = np.random.default_rng(0)
    real = pd.DataFrame({"small": random.random(200), "large": 5 + random.random(200)})
    assert constraints(TablePair.of(real, real), 0) == []


def test_nearness_is_the_distance_of_gower():
    """By hand: half the range apart in x, another level, a missing cell."""
    real = pd.DataFrame({"x": [0.0, 10.0] * 5, "g": ["a"] * 10, "y": [1.0, np.nan] * 5})
    fake = pd.DataFrame({"x": [5.0, 30.0] * 5, "g": ["a", "b"] * 5, "y": [1.0, np.nan] * 5})
    pair = TablePair.of(real, fake)
    assert closest_records(pair.fake[:2], pair.real, pair).tolist() == pytest.approx(
        [0.5 / 3, 2 / 3]
    )


def test_as_many_rows_are_compared_on_either_side():
    """Ten times as many training rows as held-out ones do not look like memory."""
    pair = TablePair.of(people(0, 3000), people(1, 600))
    assert nearer_to_training(pair, pair.beside(people(2, 300)), 0) == pytest.approx(0.5, abs=0.07)


numbers = st.lists(
    st.one_of(st.none(), st.floats(-1e6, 1e6).map(lambda x: round(x, 3))), min_size=10, max_size=30
)


@settings(max_examples=25)
@given(
    numbers, st.lists(st.sampled_from(["a", "b", None]), min_size=30, max_size=30), st.randoms()
)
def test_a_table_is_like_itself_in_any_order(x, g, random):
    table = pd.DataFrame({"x": pd.Series(x, dtype=float), "g": g[: len(x)]})
    order = list(range(len(table)))
    random.shuffle(order)
    pair = TablePair.of(table, table.iloc[order][["g", "x"]])
    for name, likeness in shapes(pair).items():
        assert likeness == 1 or table[name].isna().all()
    assert trends(pair).loc["x", "g"] == pytest.approx(1)
    assert not closest_records(pair.fake, pair.real, pair).any()


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda fake: fake.drop(columns="mood"), "column 'mood': expected it in both tables"),
        (lambda fake: fake.assign(mood="good"), "column 'mood': expected numbers"),
        (lambda fake: fake[:5], "the synthetic table: expected at least 10 rows; got 5"),
    ],
)
def test_tables_that_do_not_agree_are_refused(change, told):
    with pytest.raises(TableError, match=re.escape(told)):
        compare(people(0), change(people(1)))


def test_what_needs_held_out_rows_says_so():
    for given_ in ({"target": "region"}, {"model": object()}):
        with pytest.raises(ValueError, match="expected held-out rows beside it"):
            compare(people(0), people(1), **given_)


def test_times_and_codes_are_compared_as_told():
    real, fake = (
        pd.DataFrame({"at": pd.date_range("2020-01-01", periods=30), "code": [1, 2, 3] * 10}),
        pd.DataFrame({"at": pd.date_range("2020-01-01", periods=30), "code": [1, 2, 3] * 10}),
    )
    assert TablePair.of(real, fake).numeric == ("at", "code")
    pair = TablePair.of(real, fake.assign(code=3), categorical=["code"])
    assert shapes(pair) == pytest.approx({"at": 1.0, "code": 1 / 3})


# the command and the page


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    for seed, name in enumerate(("real", "fake", "held")):
        people(seed).rename(columns={"mood": "<b>mood"}).to_csv(
            folder / f"{name}.csv", index=False
        )
    return folder


@pytest.mark.slow
def test_the_command_prints_the_measures_and_writes_a_page(files, capsys):
    names = [str(files / f"{name}.csv") for name in ("real", "fake", "held")]
    page = files / "page.html"
    options = ["--held-out", names[2], "--target", "region", "-o", str(page)]
    assert main(["compare", *names[:2], *options]) == 0
    printed = capsys.readouterr().out
    for name in (
        "shape",
        "trend",
        "detection by trees",
        "memorization",
        "efficacy",
        "constraints",
    ):
        assert f"\n  {name} " in printed
    text = page.read_text()
    assert "&lt;b&gt;mood" in text and "<b>mood" not in text
    assert "https://" not in text and "<script" not in text


def test_the_command_prints_one_object(files, capsys):
    assert main(["compare", str(files / "real.csv"), str(files / "fake.csv"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    expected = dict(zip(("shape", "trend"), KEPT["another sample"]))
    values = {measure["name"]: measure["value"] for measure in printed["measures"]}
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert len(printed["trends"]) == 10 and set(printed["shapes"]) >= {"region", "born"}


@pytest.mark.parametrize(
    "options, told",
    [
        (["--target", "region"], "expected held-out rows"),
        (["--held-out", "none.csv"], "no such file"),
        (["--categorical", "hight"], "column 'hight': expected it in both tables"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(files, capsys, options, told):
    code = main(["compare", str(files / "real.csv"), str(files / "fake.csv"), *options])
    printed = capsys.readouterr().err
    assert code == 2 and told in printed and printed.strip().count("\n") == 0


def test_a_page_of_one_column_is_whole(tmp_path):
    table = people(0)[["region"]]
    write_comparison(compare(table, table), tmp_path / "page.html")
    assert "Columns in pairs" not in (tmp_path / "page.html").read_text()
