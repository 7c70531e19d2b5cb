"""Angles and spheres as columns of tables."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import cnf
from cnf.cli.data import declarations
from cnf.cli.summary import summarize_flow
from cnf.recipe.tables.model_fit import fit_table_flow
from cnf.tables import Schema, TableError, TableFlow, load_table_flow
from cnf.tables.column_types.circular import possible_angle, with_pairs


@pytest.fixture(scope="session")
def weather():
    """Wind in degrees with gaps, speed, hours 0 to 23, months 1 to 12 and a season."""
    rng = np.random.default_rng(0)
    rows = 400
    wind = np.degrees(rng.vonmises(0.2, 2, rows)) % 360
    frame = pd.DataFrame(
        {
            "wind": wind,
            "speed": rng.gamma(2, 1 + np.cos(np.radians(wind)) ** 2),
            "hour": np.round(rng.vonmises(3.1, 1, rows) * 12 / np.pi).astype(int) % 24,
            "month": rng.integers(1, 13, rows),
            "season": rng.choice(list("ab"), rows),
        }
    )
    frame.loc[rng.random(rows) < 0.1, "wind"] = np.nan
    return frame


KINDS = {"wind": "angle:360", "hour": "angle:24", "month": "angle:12"}


@pytest.fixture(scope="session")
def weather_model(weather):
    kinds = {"wind": "angle:360", "hour": "angle:24"}
    return cnf.fit_table(weather, ignore=["month"], kinds=kinds, steps=10, hidden=(8, 8))


@pytest.fixture(scope="session")
def places():
    """Points around the north pole with a magnitude and a group."""
    rng = np.random.default_rng(1)
    u = rng.normal(size=(300, 3)) + np.array([0, 0, 1.5])
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    return pd.DataFrame(
        {
            "dec": np.degrees(np.arcsin(u[:, 2])),
            "ra": np.degrees(np.arctan2(u[:, 1], u[:, 0])) % 360,
            "size": rng.gamma(2, 1, 300),
            "group": rng.choice(list("ab"), 300),
        }
    )


def test_the_schema_says_what_goes_around(weather):
    wind, _, hour, month, _ = Schema.infer(weather, kinds=KINDS).columns
    assert wind.describe() == "angle, period 360 from 0, with missing cells"
    assert (hour.step, month.parameters[1]) == (1.0, 1.0)
    schema = Schema.infer(weather, kinds=KINDS)
    assert Schema.from_json(schema.as_json()) == schema
    assert schema.charts.geometry.angles == 3


def test_a_turn_changes_no_score(weather, weather_model):
    turned = weather.assign(wind=weather["wind"] - 720, hour=weather["hour"] + 24)
    found = [weather_model.log_prob(table) for table in (weather, turned)]
    torch.testing.assert_close(*found, atol=1e-9, rtol=0)


@pytest.mark.slow
def test_probabilities_of_whole_angles_sum_to_one():
    rng = np.random.default_rng(2)
    hours = pd.DataFrame({"hour": rng.integers(20, 28, 300) % 24})
    model = cnf.fit_table(hours, kinds={"hour": "angle:24"}, steps=30, hidden=(8, 8))
    chances = model.log_prob(pd.DataFrame({"hour": range(24)})).exp()
    assert chances.sum().item() == pytest.approx(1, abs=1e-4)
    assert chances[12] < chances[0]
    assert set(model.sample(200)["hour"]) <= set(range(24))


def test_samples_lie_in_one_turn(weather_model):
    drawn = weather_model.sample(300)
    assert drawn["wind"].dropna().between(0, 360, inclusive="left").all()
    assert drawn["hour"].between(0, 23).all()
    assert drawn["wind"].isna().any()
    assert drawn["hour"].dtype == "int64"


def test_a_model_of_angles_survives_its_file(weather, weather_model, tmp_path):
    weather_model.save(tmp_path / "weather.safetensors")
    again = load_table_flow(tmp_path / "weather.safetensors")
    assert torch.equal(again.log_prob(weather), weather_model.log_prob(weather))
    assert summarize_flow(again.flow)["base"]["class"] == "ProductBase"


def test_mass_of_an_angle_beside_missing_cells_is_one():
    rng = np.random.default_rng(3)
    table = pd.DataFrame({"a": rng.uniform(0, 360, 200), "group": rng.choice(list("xy"), 200)})
    table.loc[:40, "a"] = np.nan
    schema = Schema.infer(table, kinds={"a": "angle:360"})
    torch.manual_seed(0)
    model = TableFlow(schema, hidden=(8, 8), frequency=1.0)
    fit_table_flow(model, table, steps=10)
    torch.nn.init.normal_(model.flow.field.W3, std=0.1)
    degrees = np.arange(0.5, 360, 1.0)
    grid = pd.concat(
        [pd.DataFrame({"a": [*degrees, np.nan], "group": group}) for group in "xy"],
        ignore_index=True,
    )
    assert model.log_prob(grid).exp().sum().item() == pytest.approx(1, abs=1e-3)


def test_a_plain_table_of_angles_keeps_the_recipe(weather):
    table = weather[["wind", "speed"]].dropna()
    model = cnf.fit_table(table, kinds={"wind": "angle:360"}, steps=20, hidden=(8, 8))
    assert model.plain and model.flow.geometry.angles == 1
    assert model.metadata.gaussian is None
    turned = table.assign(wind=table["wind"] + 360)
    torch.testing.assert_close(model.log_prob(turned), model.log_prob(table), atol=1e-9, rtol=0)


def test_points_on_a_sphere_are_two_columns_in_any_order(places):
    kinds = with_pairs({("dec", "ra"): "sphere"})
    assert kinds == {"ra": "sphere:longitude:dec", "dec": "sphere:latitude:ra"}
    model = cnf.fit_table(
        places.drop(columns="group"), kinds={"dec,ra": "sphere"}, steps=20, hidden=(8, 8)
    )
    drawn = model.sample(200)
    assert drawn["ra"].between(0, 360).all() and drawn["dec"].abs().max() <= 90
    assert (drawn["dec"] > 0).mean() > 0.6


@pytest.mark.slow
def test_mass_on_a_sphere_in_a_typed_table_is_one(places):
    places = places.drop(columns="size")
    missing = places.copy()
    missing.loc[:30, ["dec", "ra"]] = np.nan
    model = cnf.fit_table(missing, kinds={"ra,dec": "sphere"}, steps=20, hidden=(8, 8))
    nodes, weights = np.polynomial.legendre.leggauss(24)
    grid = pd.DataFrame(
        [
            (np.degrees(np.arcsin(z)), lon, group)
            for z in nodes
            for lon in range(0, 360, 10)
            for group in "ab"
        ],
        columns=["dec", "ra", "group"],
    )
    density = model.log_prob(grid).exp().view(24, -1).sum(1) * 2 * math.pi / 36
    absent = pd.DataFrame({"dec": np.nan, "ra": np.nan, "group": ["a", "b"]})
    mass = (torch.tensor(weights) @ density + model.log_prob(absent).exp().sum()).item()
    assert mass == pytest.approx(1, abs=0.02)
    drawn = model.sample(300)
    assert (drawn["dec"].isna() == drawn["ra"].isna()).all() and drawn["ra"].isna().any()


def test_half_a_point_costs_its_row_alone(places):
    model = TableFlow(Schema.infer(places, kinds={"ra,dec": "sphere"}), hidden=(8, 8))
    holed = places.head(3).copy()
    holed.loc[1, "ra"] = np.nan
    assert model.log_prob(holed).isnan().tolist() == [False, True, False]
    with pytest.raises(TableError, match="row 1: expected longitude and latitude or neither"):
        table = pd.concat([holed, places])
        model = TableFlow(Schema.infer(table, kinds={"ra,dec": "sphere"}), hidden=(8, 8))
        fit_table_flow(model, table, steps=2)


@pytest.mark.slow
def test_angles_and_places_may_be_context(places, weather):
    model = cnf.fit_table(
        places[["ra", "dec", "size"]], kinds={"ra,dec": "sphere"}, context=["ra", "dec"],
        steps=10, hidden=(8, 8),
    )  # fmt: skip
    there = pd.DataFrame({"ra": [10.0, 370.0], "dec": [20.0, 20.0], "size": [1.0, 1.0]})
    first, second = model.log_prob(there).tolist()
    assert first == pytest.approx(second, abs=1e-6)
    table = weather[["speed", "hour"]]
    model = cnf.fit_table(table, kinds={"hour": "angle:24"}, context=["hour"], steps=10)
    first, second = model.log_prob(pd.DataFrame({"speed": 1.0, "hour": [1, 25]})).tolist()
    assert first == pytest.approx(second, abs=1e-6)


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ({"ra": "sphere"}, "a sphere is two columns"),
        ({"ra,dec,size": "sphere"}, "a sphere is two columns"),
        ({"ra": "angle:0"}, "a period above zero, got 0"),
        ({"ra": "angle:nan"}, "a period above zero, got nan"),
        ({"ra": "angle"}, "angle:PERIOD"),
        ({"ra": "angle:north"}, "expected a number"),
    ],
)
def test_what_is_no_angle_is_refused_in_one_line(places, kinds, words):
    with pytest.raises(TableError, match=words) as caught:
        Schema.infer(places, kinds=kinds)
    assert "\n" not in str(caught.value)


def test_a_latitude_of_95_and_a_lone_longitude_are_refused(places):
    with pytest.raises(TableError, match="found 95"):
        bad = places.assign(dec=places["dec"].where(places.index > 0, 95.0))
        Schema.infer(bad, kinds={"ra,dec": "sphere"})
    swapped = places.rename(columns={"dec": "a", "ra": "b"})
    with pytest.raises(TableError, match="is the other column the latitude"):
        Schema.infer(swapped, kinds={"a,b": "sphere"})
    with pytest.raises(TableError, match="expected 'dec' beside it"):
        Schema.infer(places[["ra", "size"]], kinds={"ra": "sphere:longitude:dec"})
    model = TableFlow(Schema.infer(places, kinds={"ra,dec": "sphere"}), hidden=(8, 8))
    assert model.log_prob(places.head(1).assign(dec=95.0)).tolist() == [-math.inf]


def test_cells_beyond_a_turn_are_wrapped_and_counted(weather):
    table = weather.assign(wind=weather["wind"].where(weather.index != 3, 400.0))
    column = Schema.infer(table, kinds={"wind": "angle:360"}).column("wind")
    assert "1 cells wrapped" in column.describe()
    assert column.encode(table["wind"])[0][3] == pytest.approx(40)
    with pytest.raises(TableError, match="expected angles from 0 to 360, found 1 beyond"):
        Schema.infer(table, kinds={"wind": "angle:360"}, strict=True)


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=20, unique=True),
    st.sampled_from(["360", "2pi", "24", "0.5"]),
)
@example(values=[0.0, 7.0, 1.5], period="2pi")
@settings(max_examples=40, deadline=None)
def test_cells_come_back_up_to_whole_turns(values, period):
    series = pd.Series([*values, np.nan], name="x")
    column = Schema.infer(pd.DataFrame({"x": series}), kinds={"x": f"angle:{period}"}).column("x")
    numbers, states = column.encode(series)
    circle = column.type.circle(column)
    inside = (numbers >= circle.start) & (numbers < circle.start + circle.period)
    assert (inside | (states != 0)).all()
    back = column.decode(numbers, states).to_numpy(float)
    turns = (back[:-1] - np.array(values)) / circle.period
    assert np.abs(turns - np.round(turns)).max() < 1e-6
    assert np.isnan(back[-1])


def test_names_and_ranges_suggest_angles_and_nothing_takes_them(weather):
    schema = Schema.infer(weather)
    assert not {"angle", "sphere"} & {column.kind for column in schema.columns}
    hour = schema.column("hour")
    assert possible_angle(hour, weather["hour"].to_numpy()) == "angle:24"
    assert possible_angle(schema.column("speed"), weather["speed"].to_numpy()) is None


def test_months_run_from_one_to_twelve(weather):
    month = Schema.infer(weather, kinds=KINDS).column("month")
    numbers, states = month.encode(pd.Series([12, 13, 0, 1]))
    assert numbers.tolist() == [12, 1, 12, 1]
    assert month.decode(np.array([12.4, 12.6, 0.6]), states[:3]).tolist() == [12, 1, 1]


def test_declarations_take_pairs_of_columns():
    assert declarations("a=integer,lon,lat=sphere,h=angle:24") == {
        "a": "integer", "lon,lat": "sphere", "h": "angle:24",
    }  # fmt: skip
    with pytest.raises(ValueError, match="expected name=value"):
        declarations("a=integer,lon")


def test_pictures_show_one_turn():
    """Beyond it a density is repeated, and would be seen twice."""
    charts = cnf.CNF(3, hidden=(4, 4), periods={0: 24.0}, spheres=[(1, 2)]).preprocess
    assert charts.turns == {0: (0.0, 24.0), 1: (-180.0, 180.0), 2: (-90.0, 90.0)}
