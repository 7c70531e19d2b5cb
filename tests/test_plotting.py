"""What the pictures show: read back from the artists, the files and the pixels."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as array_strategy
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image, ImageSequence
from scipy.stats import multivariate_normal

from cnf.plotting import (
    animate,
    calibration,
    conditional,
    density,
    density_grid,
    density_history,
    field,
    figure,
    flow_animation,
    history,
    limits,
    marginals,
    pairs,
    pit,
    principal_axes,
    samples,
    save,
    slices,
    steps,
    trajectories,
    what_if,
)
from cnf.plotting.columns import name_levels
from cnf.plotting.style import DENSITY, TIME

BOX = ((-4.0, 4.0), (-4.0, 4.0))
NORMAL = multivariate_normal([0.0, 0.0])


def normal(x: torch.Tensor) -> np.ndarray:
    return NORMAL.logpdf(x.numpy())


def rotation(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([-x[:, 1], x[:, 0]], dim=-1)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def nothing_global_changes() -> Iterator[None]:
    settings, backend = dict(matplotlib.rcParams), matplotlib.rcParams._get_backend_or_none()
    yield
    assert dict(matplotlib.rcParams) == settings
    assert matplotlib.rcParams._get_backend_or_none() == backend
    assert plt.get_fignums() == []


def lightness(color: tuple[float, ...]) -> float:
    """CIELAB L* of an sRGB color."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    luminance = float(np.dot([0.2126, 0.7152, 0.0722], linear))
    return 116 * np.cbrt(luminance) - 16 if luminance > 0.008856 else 903.3 * luminance


def test_region_outlines_of_a_gaussian_are_circles_of_the_right_radius():
    ax = density(normal, BOX, regions=(0.5, 0.9), resolution=160)
    outlines = [np.concatenate(path.to_polygons()) for path in ax.collections[0].get_paths()]
    radii = sorted(float(np.linalg.norm(points, axis=1).mean()) for points in outlines)
    assert radii == pytest.approx([np.sqrt(2 * np.log(2)), np.sqrt(2 * np.log(10))], rel=0.01)
    for points in outlines:
        assert np.linalg.norm(points, axis=1).std() < 0.01


def test_the_map_fills_the_limits_and_peaks_at_the_centre():
    ax = density(normal, ((-4, 4), (-3, 5)), resolution=101)
    image = ax.images[0]
    values = image.get_array()
    assert tuple(image.get_extent()) == (-4, 4, -3, 5)
    assert values[37, 50] == pytest.approx(NORMAL.pdf([0, -3 + 8 * 37.5 / 101]))
    assert image.origin == "lower"
    assert image.get_clim() == pytest.approx((0, values.max()))
    assert ax.get_aspect() == 1.0


def test_the_logarithmic_map_shows_log_p_down_to_ten_nats_below_the_peak():
    values = density(normal, ((-6, 6), (-6, 6)), resolution=61, log=True).images[0].get_array()
    assert values[30, 30] == pytest.approx(-np.log(2 * np.pi))
    assert values[30, 40] == pytest.approx(-np.log(2 * np.pi) - (12 * 10 / 61) ** 2 / 2)
    assert values.min() == pytest.approx(-np.log(2 * np.pi) - 10)


def test_a_density_grid_integrates_to_one():
    cell = (8 / 50) ** 2
    assert density_grid(normal, BOX, resolution=50).sum() * cell == pytest.approx(1, abs=2e-4)


def test_impossible_and_undefined_points_are_drawn():
    def half(x: torch.Tensor) -> torch.Tensor:
        return torch.where(
            x[:, 0] > 0, x[:, 1] * 0, torch.where(x[:, 1] > 0, torch.nan, -torch.inf)
        )

    values = (
        density(half, ((-1, 1), (-1, 1)), resolution=4, regions=(0.5,), log=True)
        .images[0]
        .get_array()
    )
    assert np.ma.getmaskarray(np.ma.masked_invalid(values)).sum() == 4


def test_panels_share_a_scale_when_told():
    assert density(normal, BOX, resolution=20, maximum=0.5).images[0].get_clim() == (0, 0.5)


def test_densities_are_asked_without_a_graph():
    weight = torch.ones((), requires_grad=True)
    asked = []

    def log_prob(x: torch.Tensor) -> torch.Tensor:
        asked.append((weight * x).sum(-1))
        return asked[-1]

    density(log_prob, BOX, resolution=100)
    assert len(asked) > 1
    assert not any(out.requires_grad for out in asked)


def test_density_history_draws_each_time_in_its_panel():
    times = [0, 0.25, 1]
    axes = density_history(
        lambda t: lambda x: multivariate_normal([t, 0], 0.2).logpdf(x.numpy()),
        times,
        BOX,
        resolution=81,
    )
    peaks = [np.unravel_index(ax.images[0].get_array().argmax(), (81, 81)) for ax in axes]
    assert [-4 + 8 * (column + 0.5) / 81 for _, column in peaks] == pytest.approx(times, abs=0.05)
    assert [ax.get_title() for ax in axes] == ["t = 0", "t = 0.25", "t = 1"]


def test_samples_lie_over_the_data(tmp_path: Path):
    data, drawn = random(50, 2), random(30, 2, seed=1)
    ax = samples(drawn, over=data, names=["height", r"$\nonsense{$"])
    below, above = ax.collections
    assert np.allclose(below.get_offsets(), data)
    assert np.allclose(above.get_offsets(), drawn)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["data", "samples"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("height", r"$\nonsense{$")
    save(ax.figure, tmp_path / "names.png")


def test_columns_of_very_different_ranges_are_not_drawn_to_one_scale():
    assert samples(random(50, 2) * torch.tensor([1.0, 100.0])).get_aspect() == "auto"


def test_marginals_integrate_to_one_and_strays_are_missing():
    data = torch.rand(4000, 2, generator=torch.Generator().manual_seed(0))
    stray = torch.cat([data[:3000], data[3000:] + 50])
    for ax in marginals(data, stray, names=["a", "b"]):
        areas = [(p.get_data().values * np.diff(p.get_data().edges)).sum() for p in ax.patches]
        assert areas == pytest.approx([1, 0.75])
        edges = ax.patches[0].get_data().edges
        assert ax.get_xlim() == (edges[0], edges[-1])


def test_marginal_heights_are_the_density():
    (ax,) = marginals(random(200_000, 1), names=["z"])
    values, edges, _ = ax.patches[0].get_data()
    middles = (edges[:-1] + edges[1:]) / 2
    assert np.abs(values - np.exp(-(middles**2) / 2) / np.sqrt(2 * np.pi)).max() < 0.01


def test_integers_get_bins_centered_on_them():
    dice = torch.randint(1, 7, (6000, 1), generator=torch.Generator().manual_seed(0))
    (ax,) = marginals(dice)
    values, edges, _ = ax.patches[0].get_data()
    assert edges.tolist() == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5]
    assert values == pytest.approx(np.bincount(dice.ravel(), minlength=7)[1:] / 6000)


def test_missing_cells_are_left_out_of_marginals():
    column = torch.linspace(0, 1, 100)
    column[::2] = torch.nan
    (ax,) = marginals(column[:, None])
    values, edges, _ = ax.patches[0].get_data()
    assert (values * np.diff(edges)).sum() == pytest.approx(1)


def test_pairs_put_data_below_and_samples_above():
    names = ["a", "b", "c"]
    data, drawn = random(30, 3), random(20, 3, seed=1)
    axes = pairs(data, drawn, names=names)

    def shown(i: int, j: int) -> set[tuple[float, ...]]:
        return {
            tuple(point) for point in np.round(axes[i, j].collections[0].get_offsets(), 5).tolist()
        }

    assert shown(2, 0) == {
        tuple(p) for p in np.round(data[:, [0, 2]].double().numpy(), 5).tolist()
    }
    assert shown(0, 2) == {
        tuple(p) for p in np.round(drawn[:, [2, 0]].double().numpy(), 5).tolist()
    }
    assert [ax.get_xlabel() for ax in axes[-1]] == names
    assert [ax.get_ylabel() for ax in axes[:, 0]] == names
    assert axes[2, 0].get_xlim() == axes[0, 0].get_xlim()
    assert axes[2, 0].get_ylim() == axes[2, 2].get_xlim()


def test_pairs_without_samples_leave_the_upper_triangle_empty():
    axes = pairs(random(5000, 3))
    assert not axes[0, 1].axison
    assert len(axes[1, 0].collections[0].get_offsets()) == 2000


def spiral() -> tuple[torch.Tensor, torch.Tensor]:
    t = torch.linspace(0, 2, 9)
    phase = torch.tensor([0.0, 1.0, 2.0])
    x = torch.stack(
        [(t[:, None] + phase).cos(), (t[:, None] + phase).sin(), t[:, None] + 0 * phase], dim=-1
    )
    return x, t


def test_trajectories_follow_the_path_in_the_colors_of_time():
    path, t = spiral()
    ax = trajectories(path, times=t, columns=(0, 2), names=["x", "y", "height"], bar="t")
    lines, starts, ends = ax.collections
    segments = np.array(lines.get_segments()).reshape(8, 3, 2, 2)
    assert np.allclose(segments[:, :, 0], path[:-1][..., [0, 2]])
    assert np.allclose(segments[:, :, 1], path[1:][..., [0, 2]])
    assert np.allclose(lines.get_array().reshape(8, 3).T, np.arange(8) / 4 + 0.125)
    assert lines.get_clim() == (0, 2)
    assert np.allclose(starts.get_offsets(), path[0][:, [0, 2]])
    assert np.allclose(ends.get_offsets(), path[-1][:, [0, 2]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "height")
    assert ax.child_axes[0].get_ylabel() == "t"


def test_trajectories_take_one_color_per_particle():
    path, _ = spiral()
    lines = trajectories(path, color=torch.tensor([3.0, 1.0, 2.0])).collections[0]
    assert len(lines.get_segments()) == 3
    assert np.allclose(lines.get_segments()[1], path[:, 1, :2])
    assert lines.get_array().tolist() == [3, 1, 2]


def test_arrows_point_along_the_velocity():
    arrows = field(rotation, ((-1, 1), (-1, 1)), resolution=12).collections[0]
    along = np.stack([arrows.U, arrows.V], axis=-1)
    true = rotation(torch.as_tensor(arrows.XY)).numpy()
    lengths, speeds = np.linalg.norm(along, axis=-1), np.linalg.norm(true, axis=-1)
    assert len(along) == 144
    assert np.allclose((along * true).sum(-1), lengths * speeds)
    assert lengths.max() == pytest.approx(2 / 12)
    slow = speeds < np.quantile(speeds, 0.9)
    assert np.ptp(lengths[slow] / speeds[slow]) < 1e-6
    assert np.allclose(arrows.get_array(), speeds)


def test_streamlines_of_a_rotation_are_circles():
    lines = field(rotation, ((-1, 1), (-1, 1)), kind="streamlines", resolution=40).collections[0]
    ends = np.array(lines.get_segments())
    radius = np.linalg.norm(ends, axis=-1)
    assert np.abs(radius[:, 0] - radius[:, 1]).max() < 0.01


def test_a_velocity_at_rest_is_drawn():
    arrows = field(torch.zeros_like, BOX, resolution=5).collections[0]
    assert not arrows.U.any()


def record(phase: str, step: int, **values: float | None) -> dict[str, object]:
    rest = {
        "objective": 1.0,
        "valid_nll": None,
        "valid_se": None,
        "nfe": None,
        "learning_rate": 0.1,
    }
    return {"phase": phase, "step": step, "seconds": 0.1 * step, **rest, **values}


def test_history_draws_what_was_recorded():
    records = [record("flow matching", i, objective=float(i)) for i in range(10)]
    records += [record("likelihood", i, nfe=40 + i, learning_rate=0.01) for i in range(10)]
    records[4] |= {"valid_nll": 3.0, "valid_se": 0.5}
    records[15] |= {"valid_nll": 2.5, "valid_se": 0.25}
    objective, held_out, nfe, rate = history(records)
    assert held_out.lines[0].get_xydata().tolist() == [[4, 3.0], [14, 2.5]]
    band = held_out.collections[0].get_paths()[0].vertices
    assert {tuple(point) for point in band.tolist()} >= {
        (4, 2.5),
        (4, 3.5),
        (14, 2.25),
        (14, 2.75),
    }
    assert held_out.collections[1].get_offsets().tolist() == [[14, 2.5]]
    assert nfe.lines[0].get_ydata().tolist() == list(range(40, 50))
    assert set(rate.lines[0].get_ydata()) == {0.1, 0.01}
    assert [set(ax.lines[-1].get_xdata()) for ax in (objective, held_out, nfe, rate)] == [{9}] * 4
    assert objective.get_title(loc="left") == "flow matching | likelihood"


def test_the_objective_is_smoothed_inside_its_phase_alone():
    records = [record("flow matching", i, objective=(-1.0) ** i) for i in range(400)]
    records += [record("likelihood", 400 + i, objective=100.0) for i in range(400)]
    raw, smooth, _, later, *_ = history(records)[0].lines
    assert len(raw.get_xdata()) == 400
    assert np.abs(smooth.get_ydata()).max() < 1e-9
    assert set(np.round(later.get_ydata(), 6)) == {100}


def test_a_short_history_without_validation_is_drawn(tmp_path: Path):
    save(history([record("likelihood", 0)])[0].figure, tmp_path / "one.png")


def test_bars_of_ranks_are_their_density_and_the_band_holds_uniform_ones():
    ranks = torch.rand(4000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ranks[:, 1] = 0.3 + 0.1 * ranks[:, 1]
    even, narrow = pit(ranks, names=["a", "b"])
    heights, edges, _ = even.patches[1].get_data()
    assert np.allclose(edges, np.linspace(0, 1, 21))
    assert (heights * np.diff(edges)).sum() == pytest.approx(1)
    low, high = even.patches[0].get_bbox().extents[[1, 3]]
    # One bar holds 200 rows, give or take the square root of 190; 99 of 100 are within 2.58 of
    # these.
    assert (low, high) == pytest.approx(
        (1 - 2.58 * 190**0.5 / 200, 1 + 2.58 * 190**0.5 / 200), abs=0.01
    )
    assert ((heights > low) & (heights < high)).all()
    bars = narrow.patches[1].get_data().values
    assert np.flatnonzero(bars).tolist() == [6, 7] and narrow.get_ylim()[1] > bars.max()


def test_the_curve_of_calibration_is_the_share_of_rows_inside():
    ax = calibration(np.linspace(0, 1, 4001) ** 2)
    diagonal, curve = ax.lines
    x, y = curve.get_data()
    assert np.interp(0.25, x, y) == pytest.approx(0.5, abs=1e-3)
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(-1.3581 / 4001**0.5)
    assert ax.get_aspect() == 1.0


def test_contours_are_the_regions_that_hold_their_shares():
    ax = density(normal, BOX, kind="contours", resolution=160)
    outer = np.concatenate(ax.collections[0].get_paths()[0].to_polygons())
    radii = np.linalg.norm(outer, axis=1)
    assert radii.max() == pytest.approx(np.sqrt(2 * np.log(100)), rel=0.02)
    assert radii.min() == pytest.approx(np.sqrt(2 * np.log(10)), rel=0.02)
    assert len(ax.collections[0].get_paths()) == 10


def test_slices_run_along_one_column_through_the_point(tmp_path: Path):
    center = torch.tensor([1.0, -2.0, 0.5])
    points = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]])
    axes = slices(
        lambda x: -(x - center).square().sum(-1) / 2, points, [(-4, 4)] * 3, names=["a", "b", "c"]
    )
    for i, ax in enumerate(axes):
        for k, line in enumerate(ax.lines[::2]):
            x, y = line.get_data()
            rest = sum((points[k, j] - center[j]) ** 2 for j in range(3) if j != i)
            assert np.allclose(y, -((x - center[i].item()) ** 2 + float(rest)) / 2, atol=1e-5)
        dots = np.concatenate([line.get_xydata() for line in ax.lines[1::2]])
        assert np.allclose(dots[:, 0], points[:, i])
    assert [ax.get_xlabel() for ax in axes] == ["a", "b", "c"]


def test_a_conditional_slice_is_where_the_rest_puts_it():
    def follows(x: torch.Tensor) -> torch.Tensor:
        return -50 * (x[:, 0] - x[:, 2]).square() - 50 * (x[:, 3] + x[:, 1]).square()

    ax = conditional(
        follows, [9.0, 2.0, 1.0, 9.0], BOX, columns=(0, 3), names=list("abcd"), resolution=81
    )
    (left, right, bottom, top), values = ax.images[0].get_extent(), ax.images[0].get_array()
    row, column = np.unravel_index(values.argmax(), values.shape)
    peak = left + (column + 0.5) / 81 * (right - left), bottom + (row + 0.5) / 81 * (top - bottom)
    assert peak == pytest.approx((1.0, -2.0), abs=0.02)
    assert right - left < 2 and left < 1 < right and bottom < -2 < top
    assert ax.get_title() == "given b = 2, c = 1"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("a", "d")


def test_particles_of_many_columns_are_shown_in_the_plane_of_their_ends():
    z = random(300, 3).double()
    ends = torch.stack([5 * z[:, 0], 5 * z[:, 0] + z[:, 1], z[:, 2]], 1)
    path = torch.stack([z, ends])
    plane, names = principal_axes(path, names=["a", "b", "c"])
    variances = np.linalg.eigvalsh(np.corrcoef(ends.T.numpy()))[::-1]
    assert plane[-1].var(0) == pytest.approx(variances[:2])
    assert np.allclose(plane[-1].mean(0), 0, atol=1e-9)
    assert names[0].startswith(f"principal axis 1 ({100 * variances[0] / 3:.0f} %)\n+0.7")
    ax = trajectories(path, columns="principal", names=["a", "b", "c"])
    assert ax.get_xlabel() == names[0]
    assert np.allclose(ax.collections[2].get_offsets(), plane[-1])


def test_trajectories_take_one_color_per_state():
    path, _ = spiral()
    heights = torch.arange(27.0).reshape(9, 3)
    lines = trajectories(path, color=heights, bar="log-density").collections[0]
    assert np.allclose(lines.get_array().reshape(8, 3), (heights[:-1] + heights[1:]) / 2)
    assert lines.get_clim() == (0, 26)


def test_steps_show_their_lengths_and_the_errors_of_rows():
    nodes = [0.0, 0.1, 0.5, 1.0]
    errors = np.tile(np.linspace(1, 3, 101), (3, 1)) * np.array([[1e-4], [1e-5], [1e-3]])
    lengths, made = steps(nodes, errors)
    values, edges, _ = lengths.patches[0].get_data()
    assert values == pytest.approx([0.1, 0.4, 0.5]) and edges.tolist() == nodes
    high, _, low = made.patches[0].get_data()
    assert low == pytest.approx([1.1e-4, 1.1e-5, 1.1e-3]) and high == pytest.approx(
        [2.9e-4, 2.9e-5, 2.9e-3]
    )
    assert made.patches[1].get_data().values == pytest.approx([2e-4, 2e-5, 2e-3])
    assert made.get_yscale() == "log"


def test_what_if_shows_the_quantiles_under_each_context():
    values = np.linspace(0, 2, 5)
    drawn = values[:, None, None] * 10 + np.linspace(-1, 1, 201)[None, :, None] * [1.0, 4.0]
    axes = what_if(values, drawn, context="income", names=["a", "b"])
    for ax, width in zip(axes, (1, 4)):
        assert ax.lines[0].get_xydata() == pytest.approx(np.column_stack([values, 10 * values]))
        wide, narrow = (part.get_paths()[0].vertices for part in ax.collections)
        assert wide[:, 1].max() == pytest.approx(20 + 0.9 * width)
        assert narrow[:, 1].min() == pytest.approx(-0.5 * width)
    assert (axes[1].get_xlabel(), axes[1].get_ylabel()) == ("income", "b")


@pytest.mark.slow
def test_a_film_turns_the_arrows_of_the_field(tmp_path: Path):
    winds = np.zeros((5, 8, 8, 2))
    winds[:, ..., 0] = np.linspace(1, 0, 5)[:, None, None]
    winds[:, ..., 1] = np.linspace(0, 1, 5)[:, None, None]
    away = np.full((5, 1, 2), 100.0)
    flow_animation(
        away, np.linspace(0, 1, 5), tmp_path / "w.gif", limits=BOX, field_frames=winds, frames=20
    )
    with Image.open(tmp_path / "w.gif") as film:
        first = np.asarray(film.convert("L"))[60:340, 60:380] < 150
        film.seek(10)
        middle = np.asarray(film.convert("L"))[60:340, 60:380] < 150
    # Arrows along a row make long runs across, arrows along a column long runs up.
    across, up = (
        (lambda ink: (ink[:, 1:] & ink[:, :-1]).sum()),
        (lambda ink: (ink[1:] & ink[:-1]).sum()),
    )
    assert across(first) > 1.3 * up(first) and up(middle) > 1.3 * across(middle)


def moving(n: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    z = random(n, 2)
    t = torch.linspace(0, 1, 5)
    return z * (1 - 0.8 * t[:, None, None]) + torch.tensor([2.0, 0.0]) * t[:, None, None], t


def centroid(still: np.ndarray) -> float:
    """The mean column of the colored pixels: those of the particles."""
    return float(np.nonzero(np.ptp(still.astype(int), axis=-1) > 60)[1].mean())


def test_a_film_goes_to_the_data_and_back_for_ever(tmp_path: Path):
    told = []
    flow_animation(
        *moving(),
        tmp_path / "flow.gif",
        frames=20,
        size=(2.0, 2.5),
        limits=((-3, 4), (-3, 3)),
        callback=lambda done, all_: told.append((done, all_)),
    )
    with Image.open(tmp_path / "flow.gif") as film:
        assert film.n_frames == 20
        assert film.size == (200, 250)
        assert (film.info["loop"], film.info["duration"]) == (0, 50)
        stills = [np.asarray(still.convert("RGB")) for still in ImageSequence.Iterator(film)]
    places = [centroid(still) for still in stills]
    assert places[10] == max(places)
    assert places[10] > places[0] + 30
    assert places[:11] == sorted(places[:11])
    assert np.allclose(places[1:], places[:0:-1], atol=0.5)
    assert told == [(k, 20) for k in range(1, 21)]
    assert (stills[0][0, 0] == 255).all()


@pytest.mark.slow
def test_the_first_frame_is_the_base_and_the_middle_one_the_data(tmp_path: Path):
    path, times = moving(400)
    flow_animation(path, times, tmp_path / "f.gif", frames=20, limits=((-4, 4), (-4, 4)))
    with Image.open(tmp_path / "f.gif") as film:
        stills = []
        for frame in (0, 10):
            film.seek(frame)
            stills.append(
                np.nonzero(np.ptp(np.asarray(film.convert("RGB")).astype(int), axis=-1) > 60)
            )
    (up_0, across_0), (up_1, across_1) = stills
    scale = (
        across_1.mean() - across_0.mean()
    ) / 2  # pixels a unit: the data are two units to the right
    assert up_1.mean() == pytest.approx(up_0.mean(), abs=0.1 * scale)
    for pixels, spread in ((across_0, 1.0), (up_0, 1.0), (across_1, 0.2), (up_1, 0.2)):
        assert pixels.std() / scale == pytest.approx(spread, abs=0.15)


@pytest.mark.slow
def test_a_film_shows_the_density_of_every_time(tmp_path: Path):
    images = np.zeros((5, 10, 10))
    images[0, :, :3] = 1
    images[-1, :, -3:] = 1
    images[1:4] = 1
    path = np.full((5, 1, 2), 100.0)
    flow_animation(
        path,
        np.linspace(0, 1, 5),
        tmp_path / "d.gif",
        limits=((0, 1), (0, 1)),
        density_frames=images,
    )
    with Image.open(tmp_path / "d.gif") as film:
        first = np.asarray(film.convert("L")).astype(int)
        film.seek(24)
        middle = np.asarray(film.convert("L")).astype(int)
    row = first.shape[0] // 2
    assert first[row, 100] < 60 < 200 < first[row, 350]
    assert middle[row, 350] < 60 < 200 < middle[row, 100]


@pytest.mark.slow
def test_the_paper_of_a_film_is_white_beside_the_palest_density(tmp_path: Path):
    images = density_grid(normal, BOX, resolution=60)[None].repeat(5, axis=0)
    flow_animation(*moving(), tmp_path / "d.gif", limits=BOX, density_frames=images, frames=20)
    with Image.open(tmp_path / "d.gif") as film:
        for still in ImageSequence.Iterator(film):
            assert still.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.slow
def test_a_film_of_the_default_size_is_quick(tmp_path: Path):
    start = time.perf_counter()
    flow_animation(*moving(500), tmp_path / "flow.gif")
    assert time.perf_counter() - start < 20
    with Image.open(tmp_path / "flow.gif") as film:
        assert 40 <= film.n_frames <= 60


FAKE_FFMPEG = """#!{python}
import pathlib, sys
pathlib.Path(sys.argv[-1]).write_bytes(sys.stdin.buffer.read())
"""


@pytest.mark.slow
def test_an_mp4_is_every_frame_through_ffmpeg(tmp_path: Path):
    fake = tmp_path / "ffmpeg"
    fake.write_text(FAKE_FFMPEG.format(python=sys.executable))
    fake.chmod(0o755)
    with matplotlib.rc_context({"animation.ffmpeg_path": str(fake)}):
        flow_animation(*moving(), tmp_path / "flow.mp4", frames=24, size=(2.0, 2.0))
    stills = np.frombuffer((tmp_path / "flow.mp4").read_bytes(), np.uint8).reshape(-1, 200, 200, 4)
    assert len(stills) == 24
    assert centroid(stills[12, ..., :3]) > centroid(stills[0, ..., :3]) + 30


def test_without_ffmpeg_an_mp4_is_refused_in_one_line(tmp_path: Path):
    with (
        matplotlib.rc_context({"animation.ffmpeg_path": str(tmp_path / "none")}),
        pytest.raises(ValueError, match=r"flow\.mp4: ffmpeg is not installed.*\.gif"),
    ):
        flow_animation(*moving(), tmp_path / "flow.mp4")
    assert not list(tmp_path.iterdir())


def test_a_film_that_fails_leaves_the_old_file(tmp_path: Path):
    file = tmp_path / "film.gif"
    file.write_bytes(b"old")

    def draw(page: object) -> object:
        def update(k: int) -> None:
            if k == 3:
                raise RuntimeError("broken")

        return update

    with pytest.raises(RuntimeError, match="broken"):
        animate(draw, 5, file)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("colors, least", [(DENSITY, 80), (TIME, 45)])
def test_lightness_runs_evenly_one_way(colors, least):
    values = np.array([lightness(colors(s)) for s in np.linspace(0, 1, 65)])
    steps = np.diff(values) * np.sign(values[-1] - values[0])
    assert abs(values[-1] - values[0]) > least
    assert (steps > 0).all()
    assert steps.max() < 2 * steps.mean()


def test_an_empty_density_has_the_color_of_the_paper():
    assert DENSITY(0.0)[:3] == to_rgb("white")


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_drawing_twice_writes_the_same_bytes(tmp_path: Path, kind: str):
    for name in "ab":
        save(
            density(normal, BOX, resolution=20, regions=(0.5,)).figure, tmp_path / f"{name}.{kind}"
        )
    assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_drawing_on_given_axes_makes_no_other():
    page, axes = figure(1, 3)
    assert density(normal, BOX, ax=axes[0, 0], resolution=10) is axes[0, 0]
    assert samples(random(5, 2), ax=axes[0, 1]) is axes[0, 1]
    assert field(rotation, BOX, ax=axes[0, 2]) is axes[0, 2]
    assert page.axes == list(axes[0])


@given(
    array_strategy(float, st.tuples(st.integers(3, 30), st.just(2)), elements=st.floats(-1e6, 1e6))
)
def test_limits_hold_the_bulk_of_every_column(x):
    for column, (low, high) in zip(x.T, limits(x, quantiles=(0, 1))):
        assert low < high
        assert low <= column.min()
        assert column.max() <= high


def test_limits_ignore_outliers_and_missing_cells():
    x = torch.linspace(0, 1, 1001)[:, None].repeat(1, 2)
    x[0], x[-1], x[500] = -1e9, torch.inf, torch.nan
    for low, high in limits(x):
        assert (low, high) == pytest.approx((-0.15, 1.15), abs=0.02)


ERRORS = {
    "log_prob": (
        lambda: density(lambda x: x, BOX),
        r"log_prob: expected shape \(8192,\).*got \(8192, 2\)",
    ),
    "velocity": (lambda: field(lambda x: x[:, 0], BOX), r"velocity: expected shape \(324, 2\)"),
    "limits": (lambda: density(normal, ((1, 0), (0, 1))), "limits: expected"),
    "regions": (
        lambda: density(normal, BOX, regions=(50,)),
        r"regions: expected probabilities.*\[50\]",
    ),
    "no density": (
        lambda: density(lambda x: x[:, 0] - 1e4, BOX),
        "log_prob: expected a positive.*got 0.0",
    ),
    "infinite": (
        lambda: density(lambda x: x[:, 0] + 1e4, BOX),
        "log_prob: expected a positive.*got inf",
    ),
    "resolution": (lambda: density(normal, BOX, resolution=1), "resolution: expected"),
    "samples": (lambda: samples(random(5, 3)), r"samples: expected shape \(n, 2\).*\(5, 3\)"),
    "over": (lambda: samples(random(5, 2), over=random(5)), r"over: expected shape"),
    "names": (
        lambda: samples(random(5, 2), names=["a"]),
        r"names: expected one for each of 2.*\['a'\]",
    ),
    "marginals": (
        lambda: marginals(random(5, 2), random(5, 3)),
        r"samples: expected shape \(n, 2\)",
    ),
    "no value": (
        lambda: marginals(torch.full((5, 1), torch.nan)),
        "column 0: expected at least one finite",
    ),
    "no rows": (lambda: marginals(random(0, 2)), r"data: expected shape"),
    "axes": (lambda: marginals(random(5, 2), axes=[]), "axes: expected one for each of 2"),
    "pairs": (lambda: pairs(random(50, 11)), "data: expected at most 10 columns.*got 11"),
    "pair axes": (
        lambda: pairs(random(50, 2), axes=np.empty(3)),
        r"axes: expected shape \(2, 2\)",
    ),
    "ranks": (lambda: pit(2 * random(50, 2)), "ranks: expected numbers from 0 to 1"),
    "rank axes": (lambda: pit(np.zeros((5, 2)), axes=[None]), "axes: expected one for each of 2"),
    "shares": (lambda: calibration(random(5, 2)), r"shares: expected numbers.*\(5, 2\)"),
    "density kind": (
        lambda: density(normal, BOX, kind="dots"),
        "kind: expected 'map' or 'contours'",
    ),
    "slices": (
        lambda: slices(normal, random(1, 2), [(0, 1)]),
        "expected one for each of 2 columns",
    ),
    "nodes": (lambda: steps([0, 0], np.ones((1, 3))), "nodes: expected at least two rising times"),
    "errors": (
        lambda: steps([0, 1], np.ones((2, 3))),
        r"errors: expected shape \(1, rows\), got \(2, 3\)",
    ),
    "swept": (lambda: what_if([1, 0], random(2, 5, 1)), "values: expected at least two rising"),
    "drawn": (lambda: what_if([0, 1], random(3, 5, 1)), r"drawn: expected shape \(2, n, dim\)"),
    "principal": (lambda: principal_axes(random(2, 5, 1)), "path: expected shape.*dim ≥ 2"),
    "winds": (
        lambda: flow_animation(*moving(), "f.gif", limits=BOX, field_frames=random(5, 4, 3, 2)),
        r"field_frames: expected shape \(5, cells, cells, 2\)",
    ),
    "panels": (
        lambda: density_history(lambda t: normal, [0, 1], BOX, [None]),
        "axes: expected one for",
    ),
    "path": (
        lambda: trajectories(random(5, 2)),
        r"path: expected shape \(time, n, dim\).*\(5, 2\)",
    ),
    "columns": (
        lambda: trajectories(random(5, 2, 2), columns=(0, 2)),
        "columns: expected two from 0 to 1",
    ),
    "color": (
        lambda: trajectories(random(5, 2, 2), color=random(3)),
        r"color: expected shape \(2,\)",
    ),
    "color name": (
        lambda: trajectories(random(5, 2, 2), color="red"),
        "color: expected 'time'.*'red'",
    ),
    "times": (
        lambda: trajectories(random(5, 2, 2), times=[0, 1]),
        r"times: expected shape \(5,\)",
    ),
    "kind": (
        lambda: field(rotation, BOX, kind="lines"),
        "kind: expected 'arrows' or 'streamlines'",
    ),
    "records": (lambda: history([]), "records: expected at least one"),
    "record": (lambda: history([{"phase": "likelihood"}]), "record 0: expected the keys"),
    "history axes": (
        lambda: history([record("a", 0)], axes=[None]),
        "axes: expected one for each of 4 panels, got 1",
    ),
    "ending": (
        lambda: save(figure()[0], "picture.jpgg"),
        "picture.jpgg: expected a file name that ends in",
    ),
    "film ending": (
        lambda: flow_animation(*moving(), "film.avi"),
        "film.avi: expected a file name that ends in",
    ),
    "frames": (
        lambda: flow_animation(*moving(), "film.gif", frames=19),
        "frames: expected at least 20, got 19",
    ),
    "film path": (
        lambda: flow_animation(random(5, 2, 3), range(5), "f.gif"),
        r"path: expected.*\(5, 2, 3\)",
    ),
    "film times": (
        lambda: flow_animation(random(2, 2, 2), [1, 0], "f.gif"),
        "times: expected 2 rising times",
    ),
    "images": (
        lambda: flow_animation(*moving(), "f.gif", density_frames=random(4, 9, 9)),
        r"density_frames: expected shape \(5, rows, columns\)",
    ),
    "image limits": (
        lambda: flow_animation(*moving(), "f.gif", density_frames=random(5, 9, 9)),
        "limits: expected the limits of the grid",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_say_in_one_line_what_was_expected(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    call, message = ERRORS[case]
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_long_names_of_levels_that_differ_at_their_end_are_told_apart():
    axes = Figure().add_subplot()
    names = [f"2024-01-{day:02d}" for day in range(1, 11)]
    name_levels(axes.xaxis, names)
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert len(set(shown)) == len(names) and all(len(text) < len(names[0]) for text in shown)


@pytest.mark.parametrize(
    "scale, ends, shown, hidden",
    [
        ({"value": "log"}, (1e-3, 1), {"10⁻³", "10⁻²", "10⁰"}, set()),
        ({"value": "log"}, (2.1, 4.8), {"3×10⁰", "4×10⁰"}, set()),
        ({"value": "log", "base": 2}, (3, 300), {"2²", "2⁸"}, {"10¹"}),
        ({"value": "symlog"}, (-30, 300), {"-10¹", "0", "10²"}, set()),
        ({"value": "linear"}, (0, 1), {"1.0"}, {"10⁰"}),
    ],
)
def test_logarithmic_axes_have_plain_labels_in_a_saved_figure(
    tmp_path, scale, ends, shown, hidden
):
    page, axes = figure()
    ax = axes[0, 0]
    ax.plot([0, 1], ends)
    ax.set_yscale(**scale)
    save(page, tmp_path / "p.svg")
    texts = {label.get_text() for label in ax.yaxis.get_ticklabels(which="both")}
    assert shown <= texts and not hidden & texts and not any("$" in text for text in texts)


def test_ticks_of_dates_are_dates():
    rows = random(30, 2) * 300
    spelled = {1: lambda days: str(np.datetime64("2024-01-01") + int(days))}
    axes = pairs(rows, random(20, 2) * 300, formats=spelled)
    bottom, side = axes[1, 1].xaxis, axes[1, 0].yaxis
    for axis in (bottom, side, marginals(rows, formats=spelled)[1].xaxis):
        low, high = sorted(axis.get_view_interval())
        texts = axis.get_major_formatter().format_ticks(axis.get_majorticklocs())
        days = [
            int((np.datetime64(text) - np.datetime64("2024-01-01")).astype(int)) for text in texts
        ]
        assert days == [int(place) for place in axis.get_majorticklocs()] and low < high
    assert "2024" not in "".join(axes[0, 0].yaxis.get_major_formatter().format_ticks([0.1]))
