"""Questions about angles and places: conditionals, missing cells, and why a row is odd."""

import numpy as np
import pandas as pd
import pytest
import torch
from problems import seeded
from scipy.stats import kstest, vonmises

import cnf
from cnf.cli import main
from cnf.rows import Cells
from cnf.tables import TableError, load_table_flow
from cnf.tables.answers import TableAnswers

KINDS = {"wind": "angle:360", "hour": "angle:24", "lon,lat": "sphere"}
HOLES = 0.2


@pytest.fixture(scope="module")
def weather():
    """A wind that follows a group, a speed and a place that follow the wind, and an hour."""
    rng = np.random.default_rng(0)
    group = rng.choice(list("ab"), 600)
    wind = np.degrees(rng.vonmises(np.where(group == "a", 0.2, 2.5), 4)) % 360
    speed = rng.normal(3 * np.cos(np.radians(wind)), 0.5)
    place = np.stack([speed / 3, np.sin(np.radians(wind)), np.full(600, 0.5)], 1)
    place += 0.2 * rng.normal(size=(600, 3))
    place /= np.linalg.norm(place, axis=1, keepdims=True)
    return pd.DataFrame(
        {
            "wind": wind,
            "speed": speed,
            "group": group,
            "hour": rng.integers(0, 24, 600),
            "lon": np.degrees(np.arctan2(place[:, 1], place[:, 0])),
            "lat": np.degrees(np.arcsin(place[:, 2])),
        }
    )


@pytest.fixture(scope="module")
def holed(weather):
    """The same with a fifth of the winds, speeds and places missing."""
    rng, table = np.random.default_rng(1), weather.copy()
    for names in (["wind"], ["speed"], ["lon", "lat"]):
        table.loc[rng.random(600) < HOLES, names] = np.nan
    return table


@pytest.fixture(scope="module")
def model(holed):
    return cnf.fit_table(holed, kinds=KINDS, steps=60, hidden=(8, 8), seed=0)


@pytest.fixture(scope="module")
def trained(holed):
    return cnf.fit_table(holed, kinds=KINDS, steps=200, hidden=(8, 8), seed=0)


def densities(density, **columns):
    return np.exp(density.log_prob(pd.DataFrame(columns)).numpy())


@pytest.mark.parametrize(
    ("given", "width"), [({"group": "a"}, 3), ({"speed": 2.0, "lon": 20.0, "lat": 30.0}, 1)]
)
def test_the_mass_of_a_wind_and_of_its_absence_is_one(model, given, width):
    wind = model.conditional(given).marginal(["wind"])
    there = width * densities(wind, wind=np.arange(width / 2, 360, width)).sum()
    assert there + densities(wind, wind=[np.nan])[0] == pytest.approx(1, abs=2e-3)
    ends = densities(wind, wind=[0.0, 360.0, -360.0])
    assert ends == pytest.approx(ends[[0, 0, 0]], rel=1e-5)


def test_the_mass_of_a_place_and_of_its_absence_is_one(model):
    place = model.conditional({"group": "b", "wind": 120.0}).marginal(["lon", "lat"])
    lon, lat = (
        part.ravel() for part in np.meshgrid(np.arange(-177, 180, 6), np.arange(-87, 90, 6))
    )
    there = (densities(place, lon=lon, lat=lat) * np.cos(np.radians(lat))).sum() * np.radians(
        6
    ) ** 2
    gone = densities(place, lon=[np.nan], lat=[np.nan])[0]
    assert there + gone == pytest.approx(1, abs=5e-3)


def test_whole_hours_given_others_have_probabilities(model):
    hours = model.conditional({"group": "a"}).marginal(["hour"])
    assert hours.exact(64).evaluate(pd.DataFrame({"hour": [3]})).log_prob.isfinite().all()


@pytest.mark.parametrize("column", ["wind", "speed"])
def test_a_cell_is_missing_as_often_as_it_is(model, column):
    """It was asked more often where it was missing, and seemed to be so a third of the time."""
    gone = densities(model.marginal([column]), **{column: [np.nan]})[0]
    assert gone == pytest.approx(HOLES, abs=0.06)


@torch.no_grad()
def test_two_ways_to_the_density_of_what_is_drawn_agree(model, weather):
    """Along the path of a draw, and by a solve from the drawn cells."""
    cells, context = model.encode(weather.iloc[:40])
    given = torch.rand(cells.states.shape, generator=seeded(0)) < 0.5
    given[:, 5] = given[:, 4]  # longitude and latitude
    answers = TableAnswers(model.double(), model.imputation)
    noise = cnf.flows.questions.noise.Noise.random(
        40, len(answers.numeric), answers.columns, cells.states.device, seeded(1)
    )
    drawn, log_prob = answers.complete(cells, ~given, given, context, noise)
    again = answers.amortized(drawn, ~given, given, context)
    model.float()
    assert again.log_prob.numpy() == pytest.approx(log_prob.numpy(), abs=0.1)
    assert (again.log_prob - log_prob).abs().median() < 5e-3


def test_missing_cells_are_drawn_from_what_is_left(model, weather, holed):
    drawn, again = model.impute(holed, 2, generator=seeded(0))
    assert not drawn.isna().any().any()
    hidden = holed["wind"].isna()
    apart = (drawn["wind"] - weather["wind"] + 180) % 360 - 180
    assert apart[~hidden].abs().max() < 1e-9
    assert apart[hidden].abs().median() < 45  # of two winds by chance it is 74
    assert drawn["wind"].between(0, 360).all() and drawn["lat"].between(-90, 90).all()
    assert (drawn["wind"] != again["wind"])[hidden].mean() > 0.8  # a donor may come twice


@pytest.mark.slow
def test_a_fitted_model_knows_the_wind_of_a_group(trained):
    drawn = trained.sample(2000, given={"group": "a"}, generator=seeded(0))["wind"].dropna()
    assert (
        kstest(np.radians(drawn) - 2 * np.pi * (drawn > 180), vonmises(4, 0.2).cdf).statistic
        < 0.15
    )


def test_a_range_of_winds_may_pass_north(model):
    drawn = model.sample(200, given={"wind": (330, 390)}, generator=seeded(0))["wind"]
    assert ((drawn - 330) % 360 <= 60.001).all()


def test_longitude_and_latitude_go_together(model):
    with pytest.raises(TableError, match="request lon and lat"):
        model.marginal(["lon"])
    with pytest.raises(TableError, match="request lon and lat"):
        model.conditional({"lat": 3.0})


@pytest.mark.slow
def test_a_place_is_odd_as_a_whole(model, weather):
    strange = weather.iloc[:10].copy()
    strange.loc[0, ["lon", "lat"]] = [strange.loc[0, "lon"] + 180, -80.0]
    found = model.explain(strange, weather.iloc[30:90])
    assert (found.surprise["lon"] == found.surprise["lat"]).all()
    assert found.column[0] == "lon" and found.surprise["lon"].idxmax() == 0


def test_the_imputer_survives_its_file(model, holed, tmp_path):
    model.save(tmp_path / "m.safetensors")
    again = load_table_flow(tmp_path / "m.safetensors")
    first, second = (one.impute(holed, generator=seeded(3))[0] for one in (model, again))
    pd.testing.assert_frame_equal(first, second)


@pytest.mark.slow
def test_angles_alone_are_asked_too(tmp_path):
    rng = np.random.default_rng(2)
    table = pd.DataFrame({"a": rng.uniform(0, 360, 300)})
    table["b"] = (table["a"] + rng.normal(0, 30, 300)) % 360
    table.to_csv(tmp_path / "t.csv", index=False)
    model = tmp_path / "m.safetensors"
    words = ["--type", "a=angle:360,b=angle:360", "--steps", "30", "--any-subset"]
    assert main(["fit", str(tmp_path / "t.csv"), "-o", str(model), *words]) == 0
    b = cnf.load(model).conditional({"a": 90.0}).marginal(["b"])
    assert densities(b, b=np.arange(0.5, 360)).sum() == pytest.approx(1, abs=2e-3)


def test_base_points_are_even_on_circles_and_spheres(model):
    maps = model.imputation.maps
    normal = torch.special.ndtri((torch.arange(4001) + 0.5) / 4001).double()[:, None].repeat(1, 5)
    points = maps.base_points(normal).numpy()  # wind, speed, hour, lon, lat
    assert kstest(points[:, 0] / 360, "uniform").statistic < 1e-3
    assert kstest(np.sin(np.radians(points[:, 4])) / 2 + 0.5, "uniform").statistic < 1e-3
    assert np.array_equal(points[:, 1], normal[:, 1].numpy())


def test_maps_lead_back_to_the_numbers(model, weather):
    imputation, (cells, context) = model.imputation, model.encode(weather.iloc[:50])
    observed = imputation.known(cells, torch.rand(50, 6, generator=seeded(4)) < 0.0)
    y = imputation.gaussianize(cells.values)
    free, features, _ = imputation.conditions(cells.states, context, observed)
    z, _, _ = imputation.coordinates(y, cells.states, context, observed)
    back = imputation.maps.unwhiten(z, observed.y, free, features, observed.given)
    values = Cells(imputation.maps.inverse(back), cells.states).values
    assert values.numpy() == pytest.approx(cells.values.numpy(), abs=1e-6)


def test_a_longitude_is_given_with_its_latitude(model):
    with pytest.raises(TableError, match="a longitude and its latitude belong together"):
        model.conditional({"lon": 20.0})


def test_drawn_longitudes_are_those_of_the_table_whatever_turn_is_given(model):
    drawn = model.sample(40, {"lon": (170.0, 190.0), "lat": (0.0, 10.0)})
    assert drawn["lon"].between(-180, 180).all() and (drawn["lon"].abs() >= 169.9).all()
    assert model.sample(3, {"lon": 185.0, "lat": 5.0})["lon"].tolist() == [-175.0] * 3
