"""Models of tables in which hardly any row holds a number in every numeric column."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm

import cnf
from cnf.cli import main
from cnf.diagnostics import check_table
from cnf.fields import Geometry
from cnf.fields.masked import MaskedField
from cnf.flows.present_columns import flow_of_present
from cnf.flows.product_base import plain_base
from cnf.tables.numeric_view import most_numbers
from cnf.transforms import Charts, Whitening

ROWS = 240


def seldom(seed):
    """Two numbers that are always there, and two that are zero in nearly all rows, never both there."""
    random = np.random.default_rng(seed)
    rain, snow = np.zeros(ROWS), np.zeros(ROWS)
    rain[::12] = random.gamma(2.0, 1.0, ROWS // 12)
    snow[6::12] = random.gamma(2.0, 1.0, ROWS // 12)
    a = random.normal(size=ROWS)
    return pd.DataFrame(
        {
            "rain": rain,
            "a": a,
            "snow": snow,
            "b": a + random.normal(size=ROWS),
            "g": list("uvv") * 80,
        }
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("seldom")
    seldom(0).to_csv(path / "t.csv", index=False)
    seldom(1).to_csv(path / "new.csv", index=False)
    cnf.fit_table(path / "t.csv", steps=3, hidden=(4, 4), seed=0).save(path / "m")
    return path


def run(*words):
    assert main([str(word) for word in words]) == 0


@pytest.mark.slow
def test_a_report_judges_the_numbers_that_rows_hold_together(model):
    run("report", model / "m", model / "new.csv", "-o", model / "r.html")
    text = " ".join((model / "r.html").read_text().split())
    new = seldom(1)
    dry = int(((new.rain == 0) & (new.snow == 0)).sum())
    assert f"over 2 columns, judged on {dry} rows of new.csv" in text
    assert (
        "none in &#39;rain&#39;, &#39;snow&#39;, which are missing or at a repeated value" in text
    )
    assert all(f"Histograms of {name}:" in text for name in new)
    headings = "Held-out likelihood", "The flow, from base to data", "Calibration", "Checks"
    assert all(heading in text for heading in headings)


@pytest.mark.parametrize("kind", ["conditional", "trajectories", "slices", "calibration"])
def test_pictures_of_such_a_model_show_the_numbers_that_rows_hold(model, kind):
    run("plot", model / "m", kind, "--data", model / "new.csv", "-o", model / f"{kind}.svg")
    text = (model / f"{kind}.svg").read_text()
    assert re.search(r"<!--.*\ba\b.*-->", text) and "<!-- rain -->" not in text


@pytest.mark.slow
def test_axes_that_are_asked_for_are_drawn(model):
    asked = ("--data", model / "new.csv", "--axes", "rain,b")
    run("plot", model / "m", "conditional", *asked, "-o", model / "axes.svg")
    text = (model / "axes.svg").read_text()
    assert "<!-- rain" in text and "snow = 0 (drawn)" in text


def test_its_flow_is_checked_for_correctness(model):
    found = {claim.name: claim for claim in check_table(cnf.load(model / "m").double(), seldom(1))}
    names = "round trip", "volume", "own samples", "solver error", "divergence", "alone"
    assert all(found[name].passed for name in names)


# ---- the flow over the columns that rows have


def moving(dim, space, features, preprocess):
    """A flow with absent columns whose field moves."""
    field = MaskedField(
        space.dim,
        (8, 8),
        context_dim=space.dim + features,
        angles=space.angles,
        spheres=space.spheres,
    )
    torch.manual_seed(0)
    for parameter in field.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    base = plain_base(space)
    context = space.dim + features
    flow = cnf.CNF(dim, context_dim=context, field=field, base=base, preprocess=preprocess)
    return flow.double().eval()


@pytest.mark.slow
def test_the_density_is_normalized_over_the_present_columns():
    flow = moving(3, Geometry(3), 1, Whitening(3, features=1))
    context = torch.tensor([[0.0, 1.0, 0.0, 0.7]], dtype=torch.float64)
    x = torch.linspace(-12, 12, 801, dtype=torch.float64)[:, None]
    part = flow_of_present(flow, context)
    density = part.log_prob(x, context.expand(len(x), -1)).exp()
    assert torch.trapezoid(density, x[:, 0]).item() == pytest.approx(1, abs=1e-3)
    assert (density - torch.from_numpy(norm.pdf(x[:, 0]))).abs().max() > 0.01  # the field moved it


@pytest.mark.slow
def test_scores_and_samples_are_those_of_the_whole_flow():
    space = Geometry(2, angles=1, spheres=1)
    charts = Charts(5, {1: 24.0}, [(2, 3)], rest=Whitening(2, features=0))
    flow = moving(5, space, 0, charts)
    rows = torch.tensor([[0.3, 5.0, 10.0, 50.0, -1.0], [1.3, 15.0, -70.0, -20.0, 2.0]]).double()
    for lacking in ([0], [1], [2, 3], [4, 1]):
        held = [k for k in range(5) if k not in lacking]
        coordinates = torch.tensor([k not in lacking for k in (0, 4, 1, 2, 2, 2)])
        context = coordinates.double().expand(2, -1)
        part = flow_of_present(flow, context)
        whole = flow.log_prob(rows, context)
        torch.testing.assert_close(part.log_prob(rows[:, held], context), whole, atol=1e-9, rtol=0)
        z = part.sample((), context, generator=torch.Generator().manual_seed(0))
        assert z.shape == (2, len(held)) and z.isfinite().all()
        paths = [
            f.trajectory(x, [0.0, 0.5], context, reverse=True)
            for f, x in ((part, rows[:, held]), (flow, rows))
        ]
        torch.testing.assert_close(paths[0], paths[1][..., held], atol=1e-9, rtol=0)


def test_a_flow_of_all_columns_is_itself():
    flow = moving(2, Geometry(2), 0, "auto")
    assert flow_of_present(flow, torch.ones(3, 2)) is flow
    assert flow_of_present(cnf.CNF(2), None) is not None


def test_the_pattern_with_the_most_numbers():
    wide = torch.tensor([[True, True, True]] * 2 + [[True, True, False]] * 50)
    assert most_numbers(wide).tolist() == [True, True, False]
    assert most_numbers(wide, wanted=[2]).tolist() == [True, True, True]
    assert most_numbers(wide[:0]).tolist() == [True, True, True]
    assert most_numbers(torch.zeros(40, 2, dtype=torch.bool)).tolist() == [True, True]
