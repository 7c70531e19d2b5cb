"""Roses and maps: what is drawn is what was counted."""

import math

import numpy as np
import pytest
import torch

import cnf
from cnf.pictures.circles import draw_maps, draw_roses, periods_of
from cnf.pictures.context import PlotContext
from cnf.plotting import rose, sphere_map
from cnf.plotting.circles import SECTORS, broken_at_seams
from cnf.tables.numeric_view import NumericView


def context_of(flow, names):
    return PlotContext("model", names, NumericView(flow, names, None, ""))


def test_the_area_of_a_sector_is_its_share_of_the_rows():
    hours = torch.tensor([0.1, 0.2, 23.9, 12.1, math.nan])
    bars = rose(hours, period=24.0).patches
    assert len(bars) == SECTORS
    areas = np.array([bar.get_height() ** 2 for bar in bars])
    assert areas.sum() == pytest.approx(1)
    assert areas[0] == pytest.approx(0.5) and areas[-1] == areas[18] == pytest.approx(0.25)


def test_a_map_shows_the_density_where_it_is():
    ax = sphere_map(log_prob=lambda places: (places[:, 0] > 90).double().log())
    shades = ax.collections[0].get_array().reshape(72, 144)
    assert (shades[:, 108:] == 1).all() and (shades[:, :107] == 0).all()


def test_paths_have_a_gap_at_the_seam_and_nowhere_else():
    path = torch.tensor([350.0, 355.0, 1.0, 5.0])[:, None, None].repeat(1, 2, 2)
    broken = broken_at_seams(path, {0: 360.0})
    assert broken[:, 0, 0].isnan().tolist() == [False, False, True, False]
    assert not broken[..., 1].isnan().any() and not path.isnan().any()


def test_every_angle_and_every_sphere_is_drawn():
    flow = cnf.CNF(5, periods={0: 360.0, 3: 24.0}, spheres=[(1, 2)], hidden=(4, 4))
    context = context_of(flow, ["wind", "lon", "lat", "hour", "speed"])
    assert periods_of(flow) == {0: 360.0, 3: 24.0, 1: 360.0}
    assert [ax.get_title() for ax in draw_roses(context).axes] == ["wind", "hour"]
    assert [ax.get_title() for ax in draw_maps(context).axes] == ["lon and lat"]


def test_a_model_without_angles_has_no_rose_and_no_map():
    context = context_of(cnf.CNF(2), ["a", "b"])
    for draw in (draw_roses, draw_maps):
        with pytest.raises(ValueError, match="expected"):
            draw(context)
