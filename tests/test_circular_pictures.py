"""Roses, maps of the sphere and films of the globe: what they show, read back."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

import cnf
from cnf import plotting
from cnf.cli import main
from cnf.plotting.circles import broken_at_seams, sector_edges, sector_radii
from cnf.plotting.spheres import seen_from, sphere_map, sphere_points, unit_vectors


@given(
    st.lists(st.floats(-1000, 1000), min_size=1, max_size=50),
    st.sampled_from([(0.0, 360.0), (-math.pi, math.pi), (0.0, 24.0), (1.0, 13.0)]),
)
def test_the_area_of_a_rose_is_one(angles, turn):
    edges = sector_edges(np.array(angles), turn)
    widths = 2 * np.pi * np.diff(edges) / (turn[1] - turn[0])
    radii = sector_radii(np.array(angles), edges)
    assert (radii**2 * widths / 2).sum() == pytest.approx(1)


def test_whole_hours_lie_in_the_middle_of_their_sectors():
    hours = np.array([0.0, 23, 23, 24, np.nan])
    edges = sector_edges(hours, (0.0, 24.0))
    shares = sector_radii(hours, edges) ** 2 * np.pi / 24
    assert shares[[0, 23]] == pytest.approx([0.5, 0.5])  # 24 o'clock is 0 o'clock
    assert edges[:2].mean() == 0


def test_a_rose_runs_clockwise_from_the_top():
    data = torch.full((30, 1), 95.0)
    (ax,) = plotting.rose(data, data + 90, turns=[(0.0, 360.0)], names=["$wind$"])
    polygon, (line,) = ax.patches[0].get_xy(), ax.lines
    assert np.degrees(polygon[polygon[:, 1] > 0, 0]) == pytest.approx(95, abs=5.01)
    directions, radii = line.get_data()
    assert np.degrees(directions[radii > 0]) == pytest.approx(185, abs=5.01)
    assert (ax.get_theta_direction(), ax.get_theta_offset()) == (-1, math.pi / 2)
    assert [label.get_text() for label in ax.get_xticklabels()][2] == "90"


def test_the_density_of_a_map_integrates_to_one_and_peaks_where_it_should():
    center = torch.from_numpy(unit_vectors(np.array([100.0, 30.0])))

    def log_prob(places):  # von Mises-Fisher, without its constant
        return 20 * torch.from_numpy(unit_vectors(places.numpy())).float() @ center.float()

    ax = sphere_map(log_prob, normalize=True)
    values = ax.collections[0].get_array().reshape(90, 180)
    assert values.max() == pytest.approx(
        20 / (2 * math.pi * (1 - math.exp(-40))), rel=7e-3
    )  # a cell is wide
    row, column = np.unravel_index(values.argmax(), values.shape)
    assert (-180 + 2 * column + 1, -90 + 2 * row + 1) == pytest.approx((100, 30), abs=1)


def test_places_lie_between_the_antimeridians():
    ax = sphere_points(np.array([[350.0, 10.0], [-10.0, 10.0]]))
    shown = np.degrees(np.asarray(ax.collections[0].get_offsets()))
    assert shown == pytest.approx(np.array([[-10.0, 10.0], [-10.0, 10.0]]))


@given(st.floats(-360, 360))
def test_the_view_is_a_rotation_with_the_north_above(longitude):
    turned = seen_from(np.eye(3), longitude)
    assert turned @ turned.T == pytest.approx(np.eye(3), abs=1e-12)
    assert np.linalg.det(turned) == pytest.approx(1)
    north = seen_from(np.array([[0.0, 0.0, 1.0]]), longitude)[0]
    assert north[0] == pytest.approx(0) and north[1] > 0.9
    spun = Rotation.from_euler("z", longitude, degrees=True).apply(np.eye(3))
    assert seen_from(spun, longitude) == pytest.approx(seen_from(np.eye(3), 0.0), abs=1e-12)


def test_paths_have_a_gap_at_the_seam_and_nowhere_else():
    path = np.tile(np.array([350.0, 355, 1, 5])[:, None, None], (1, 2, 2))
    broken = broken_at_seams(path, {0: (0.0, 360.0)})
    assert np.isnan(broken[:, 0, 0]).tolist() == [False, False, True, False]
    assert not np.isnan(path).any()
    only_the_other = broken_at_seams(path, {1: (0.0, 1000.0)})
    assert np.array_equal(only_the_other, path)


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    """A model of places, a wind, a size and a group, and its table."""
    room = tmp_path_factory.mktemp("events")
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "lon": rng.normal(20, 10, 60),
            "lat": rng.normal(40, 5, 60),
            "wind": rng.uniform(0, 360, 60),
            "size": rng.gamma(2, 1, 60),
            "group": rng.choice(list("ab"), 60),
        }
    )
    table.to_csv(room / "events.csv", index=False)
    kinds = {"lon,lat": "sphere", "wind": "angle:360"}
    model = cnf.fit_table(table, kinds=kinds, steps=3, hidden=(4, 4))
    model.save(room / "events.safetensors")
    return room


@pytest.mark.parametrize("data", [[], ["--data", "events.csv"]])
@pytest.mark.parametrize("kind", ["rose", "map"])
def test_a_table_of_places_and_winds_is_drawn(events, kind, data, tmp_path, monkeypatch):
    monkeypatch.chdir(events)
    monkeypatch.setattr("cnf.plotting.spheres.LONGITUDES", 12)
    monkeypatch.setattr("cnf.plotting.spheres.LATITUDES", 6)
    output = tmp_path / "p.svg"
    assert main(["plot", "events.safetensors", kind, "-o", str(output), *data]) == 0
    drawn = output.read_text()
    assert "<!-- wind -->" in drawn if kind == "rose" else "at the median: wind" in drawn


@pytest.mark.parametrize("name", ["t.png", "t.gif"])
@pytest.mark.slow
def test_paths_of_particles_across_a_seam_are_drawn(events, name, tmp_path):
    words = ["plot", str(events / "events.safetensors"), "trajectories", "--axes", "wind,size"]
    assert main([*words, "-o", str(tmp_path / name)]) == 0


def test_a_globe_turns_with_its_particles(events, tmp_path):
    film = tmp_path / "g.gif"
    command = ["plot", str(events / "events.safetensors"), "map", "-o", str(film)]
    assert main([*command, "--frames", "20", "--inches", "1"]) == 0
    with Image.open(film) as frames:
        assert frames.n_frames == 20


def test_models_without_places_or_angles_say_so(tmp_path: Path, capsys):
    model = tmp_path / "m.safetensors"
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 2)), columns=["a", "b"])
    cnf.fit_table(rows, steps=2, hidden=(4, 4)).save(model)
    for kind, option in (("rose", "NAME=angle:360"), ("map", "LON,LAT=sphere")):
        assert main(["plot", str(model), kind, "-o", str(tmp_path / "x.png")]) != 0
        assert option in capsys.readouterr().err


def test_other_axes_than_a_sphere_are_refused(events, tmp_path, capsys):
    words = ["plot", str(events / "events.safetensors"), "map", "-o", str(tmp_path / "x.png")]
    assert main([*words, "--axes", "lon,size"]) != 0
    assert "expected lon,lat" in capsys.readouterr().err
