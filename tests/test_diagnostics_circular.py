"""Checks and baselines of flows with angles and spheres: sound flows pass, and errors are caught."""

import math

import numpy as np
import pytest
import torch
from problems import normal, seeded

import cnf
from cnf.diagnostics import check
from cnf.diagnostics.context import CheckContext
from cnf.diagnostics.local import DataSpace, LocalCoordinates, center, spread, tangents
from cnf.diagnostics.mass import mass
from cnf.diagnostics.numerics import round_trip, volume
from cnf.diagnostics.proposals import Kernels
from cnf.fields import Geometry
from cnf.report.baselines import baseline_scores
from cnf.report.data import report_data
from cnf.rows import Rows
from cnf.transforms import Charts

FLOWS = {
    "circle": {"dim": 1, "periods": {0: 24.0}},
    "circle and line": {"dim": 2, "periods": {0: 360.0}},
    "torus": {"dim": 2, "periods": {0: 360.0, 1: 2 * math.pi}},
    "sphere": {"dim": 2, "spheres": [(0, 1)]},
    "all": {"dim": 4, "periods": {3: 360.0}, "spheres": [(2, 0)]},
}


def moving(name: str) -> tuple[cnf.CNF, Rows]:
    """A calibrated flow that moves, and rows that are drawn from it."""
    torch.manual_seed(0)
    flow = cnf.CNF(**FLOWS[name], hidden=(8, 8)).eval()
    with torch.no_grad():
        for parameter in flow.field.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=seeded(1)))
        x = flow.sample((400,), generator=seeded(2))
        flow.calibrate(x)
    return flow, Rows(x)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "all")) for name in FLOWS]
)
@pytest.mark.slow
def test_a_sound_flow_passes(name):
    flow, rows = moving(name)
    claims = check(flow, rows.x)
    assert [claim for claim in claims if not claim.passed] == []


class Louder(cnf.flows.bases.Base):
    """A base whose density is a tenth too high."""

    def __init__(self, base):
        super().__init__(base.dim)
        self.base = base

    def log_prob(self, z):
        return self.base.log_prob(z) + 0.1

    def sample(self, *args, **options):
        return self.base.sample(*args, **options)


@pytest.mark.parametrize("name", ["circle and line", "sphere"])
def test_a_density_without_unit_mass_is_caught(name):
    flow, rows = moving(name)
    flow.base = Louder(flow.base)
    (found,) = mass(CheckContext(flow, rows, seed=0, strict=False))
    assert found.passed is False and found.value == pytest.approx(math.e**0.1 - 1, abs=0.02)


def test_a_density_of_another_map_is_caught(monkeypatch):
    flow, rows = moving("all")
    (found,) = volume(CheckContext(flow, rows, seed=0, strict=False))
    assert found.passed
    slopes = Charts._log_slopes
    monkeypatch.setattr(Charts, "_log_slopes", lambda self, mask: slopes(self, mask) + 0.2)
    (found,) = volume(CheckContext(flow, rows, seed=0, strict=False))
    assert not found.passed and found.value == pytest.approx(0.2, abs=0.02)


def test_a_round_trip_across_the_seam_is_short():
    flow, _ = moving("circle")
    rows = Rows(torch.tensor([[23.999], [0.001], [12.0]]))
    (found,) = round_trip(CheckContext(flow, rows, seed=0, strict=False))
    assert found.value < 1e-2


def test_coordinates_are_those_of_the_point():
    geometry = Geometry(1, 1, 2)
    angles, vectors = 9 * normal(7, 2), torch.nn.functional.normalize(normal(7, 2, 3), dim=-1)
    at = torch.cat([angles, vectors.flatten(1)], 1).double()
    local = LocalCoordinates(geometry, at)
    u = 1e-4 * normal(5, 7, 6).double()
    assert local.of(local.point(u)) == pytest.approx(u, abs=1e-10)


def test_a_tangent_basis_is_orthonormal():
    vectors = torch.nn.functional.normalize(normal(50, 3).double(), dim=-1)
    frame = torch.cat([tangents(vectors), vectors[..., None]], -1)
    assert frame.mT @ frame == pytest.approx(torch.eye(3).double().expand(50, 3, 3), abs=1e-12)


def test_the_center_of_angles_around_north_is_north():
    geometry = Geometry(0, 1)
    angles = torch.tensor([[3.0], [-3.0], [2.9], [-2.9]]).double()
    assert center(geometry, angles).item() == pytest.approx(math.pi)
    assert spread(geometry, angles).item() == pytest.approx(
        np.sqrt((0.1416**2 + 0.2416**2) / 2), abs=1e-4
    )


def test_the_volume_of_the_data_is_that_of_its_units():
    space = DataSpace(Charts(4, periods={1: 24.0}, spheres=[(3, 2)], starts={1: 6.0}))
    assert space.log_volume == pytest.approx(math.log(24 / (2 * math.pi)))
    x = torch.tensor([[5.0, 12.0, 90.0, 77.0]]).double()
    assert space.points(x)[0] == pytest.approx(
        torch.tensor([5.0, math.pi / 2, 0, 0, 1]).double(), abs=1e-6
    )


@pytest.mark.slow
def test_kernels_are_a_density_and_their_draws_follow_it():
    geometry = Geometry(0, 1, 1)
    turn = 0.5 * normal(600, 1).double()
    vectors = torch.nn.functional.normalize(
        normal(600, 3, seed=3) + torch.tensor([1.0, 0, 0]), dim=-1
    )
    kernels = Kernels(geometry, torch.cat([turn, vectors.double()], 1))
    random = seeded(5)
    angles = 2 * math.pi * torch.rand(40_000, 1, generator=random).double()
    even = torch.nn.functional.normalize(torch.randn(40_000, 3, generator=random).double(), dim=-1)
    volume = 8 * math.pi**2
    density = kernels.log_prob(torch.cat([angles, even], 1)).exp() * volume
    assert density.mean().item() == pytest.approx(1, abs=4 * density.std().item() / 200)
    drawn = kernels.draw(40_000, random)
    # E_q[1/q] is the volume of the space, whatever q.
    inverse = (-kernels.log_prob(drawn)).exp() / volume
    assert inverse.mean().item() == pytest.approx(1, abs=4 * inverse.std().item() / 200)


def test_the_area_of_a_square_degree_is_that_of_the_sphere():
    charts = Charts(3, spheres=[(2, 0)])
    x = torch.tensor([50.0, 1.0, 20.0], dtype=torch.float64)

    def vector(x):
        return charts(x)[0][1:]

    slopes = torch.autograd.functional.jacobian(vector, x)
    area = torch.linalg.cross(slopes[:, 2], slopes[:, 0]).norm().log()
    assert charts.log_area(x).item() == pytest.approx(area.item(), abs=1e-12)


def test_baselines_of_a_sphere_have_its_measure():
    """A Gaussian of degrees far from the poles has unit mass per unit area too."""
    flow, _ = moving("sphere")
    generator = seeded(4)
    train = Rows(torch.randn(2000, 2, generator=generator).double() * 5 + 20)
    places = torch.cartesian_prod(torch.arange(-20, 60), torch.arange(-20, 60)).double()
    gaussian, mixture, _ = baseline_scores(report_data(flow, Rows(places), train, None))
    areas = np.radians(1) ** 2 * torch.cos(torch.deg2rad(places[:, 1]))
    for log_prob in (gaussian, mixture):
        assert (log_prob.exp() * areas).sum().item() == pytest.approx(1, abs=0.01)
