"""The report's numbers against closed forms, and the page as a file."""

import base64
import gzip
import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from markupsafe import escape
from problems import F64, make_flow, normal, stirred
from scipy.integrate import trapezoid
from scipy.stats import multivariate_normal, norm

import cnf
from cnf.cli import main
from cnf.diagnostics import check_table
from cnf.diagnostics.calibration import calibration_ranks
from cnf.flows.gaussian import LinearGaussian
from cnf.report import SECTIONS, write_report
from cnf.report.animation import DEPTH, TIMES, motion, packed
from cnf.report.baselines import ConditionalMixture, chosen_mixture, compare
from cnf.report.data import report_data
from cnf.report.scene import as_json
from cnf.rows import Rows

CORRELATED = torch.tensor([[1.0, 0.8], [0.8, 2.0]], dtype=F64)


def subject(flow, x, context=None, train=None, names=None):
    return report_data(flow, Rows(x, context), train, names)


def still(dim=2, context_dim=0):
    """A flow that moves nothing: its density is the base's at all times."""
    flow = cnf.CNF(dim, hidden=(8, 8), context_dim=context_dim)
    for parameter in flow.field.parameters():
        torch.nn.init.zeros_(parameter)
    return flow


# ---- baselines


def test_one_gaussian_is_the_closed_form():
    train = normal(4000, 2).double() @ torch.linalg.cholesky(CORRELATED).T + 100
    exact = multivariate_normal(train.mean(0), np.cov(train.T.numpy(), bias=True)).logpdf(
        train[:50].numpy()
    )
    for found in (
        LinearGaussian.fit(Rows(train)).log_prob(Rows(train[:50])),
        ConditionalMixture.fit(train.numpy(), 1).log_prob(train.numpy()[:50], 2),
    ):
        np.testing.assert_allclose(found, exact, atol=1e-4)


def test_a_gaussian_given_its_context_is_linear_regression():
    c = normal(5000, 1).double()
    x = 3 * c + 0.5 * normal(5000, 1, seed=1).double()
    slope, intercept = np.polyfit(c[:, 0].numpy(), x[:, 0].numpy(), 1)
    rest = x[:, 0].numpy() - slope * c[:, 0].numpy() - intercept
    exact = -0.5 * (rest / rest.std()) ** 2 - np.log(rest.std() * np.sqrt(2 * np.pi))
    rows, joint = Rows(x, c), torch.cat([x, c], 1).numpy()
    np.testing.assert_allclose(LinearGaussian.fit(rows).log_prob(rows), exact, atol=1e-4)
    mixture = ConditionalMixture.fit(joint, 1).log_prob(joint, 1)
    np.testing.assert_allclose(mixture, exact, atol=1e-3)


def test_weights_of_one_gaussian_count_rows():
    x, c = normal(60, 2).double(), normal(60, 1, seed=1).double()
    weights = torch.arange(60) % 3
    repeated = torch.arange(60).repeat_interleave(weights)
    weighted = LinearGaussian.fit(Rows(x, c, weights.double()))
    counted = LinearGaussian.fit(Rows(x[repeated], c[repeated]))
    rows = Rows(x, c)
    torch.testing.assert_close(weighted.log_prob(rows), counted.log_prob(rows))


def test_a_mixture_integrates_to_one_under_every_context():
    c = normal(3000, 1).double().sign()
    rows = torch.cat([c * 2 + 0.3 * normal(3000, 1, seed=1).double(), c], 1).numpy()
    mixture = chosen_mixture(rows)
    x = np.linspace(-6, 6, 2001)
    for context in (-1.0, 1.0):
        grid = np.column_stack([x, np.full_like(x, context)])
        assert trapezoid(np.exp(mixture.log_prob(grid, 1)), x) == pytest.approx(1, abs=1e-3)


def test_baselines_have_not_seen_the_rows_they_are_judged_by():
    x = normal(60, 5).double()
    mixed = compare(subject(still(5), x))
    alone = compare(subject(still(5), x, train=Rows(normal(5000, 5, seed=1).double())))
    assert all(score.behind > 0.05 for score in mixed[1:])  # few rows: the truth is well ahead
    assert alone[-1].nll == pytest.approx(alone[0].nll, abs=0.1)
    # A mixture is listed only where it is more than the Gaussian, as it is not for Gaussian rows.
    assert [score.name for score in alone] == ["the flow", "one Gaussian"]


def test_a_mixture_is_listed_where_rows_have_several_centers():
    x = 6 * normal(600, 1).double().sign() + normal(600, 1, seed=1).double()
    _, mixture, gaussian = compare(subject(still(1), x[:300], train=Rows(x[300:])))
    assert mixture.name == "Gaussian mixture, 2 components"
    peaks = norm.logpdf(x[:300].numpy()[..., None], [-6, 6], 1)
    exact = -np.log(np.exp(peaks).mean(-1)).mean()
    assert mixture.nll == pytest.approx(exact, abs=0.05) and gaussian.nll > mixture.nll + 0.3


def test_few_rows_have_one_gaussian_and_no_mixture_of_one():
    x = normal(24, 2).double()
    names = [score.name for score in compare(subject(still(), x))]
    assert names == ["the flow", "one Gaussian"]


def test_rows_without_a_score_are_left_out_of_every_mean():
    x = normal(50, 2).double()
    whole = compare(subject(still(), x, train=Rows(normal(500, 2, seed=1).double())))
    holed = compare(
        subject(
            still(),
            torch.cat([x, torch.full((1, 2), torch.nan)]),
            train=Rows(normal(500, 2, seed=1)),
        )
    )
    assert [score.nll for score in holed] == pytest.approx(
        [score.nll for score in whole], abs=1e-4
    )


# ---- calibration


@pytest.mark.parametrize("context_dim", [0, 1])
def test_ranks_of_the_flows_own_draws_are_uniform(context_dim):
    flow = stirred(cnf.CNF(2, hidden=(8, 8), context_dim=context_dim)).double()
    context = normal(200, 1).double() if context_dim else None
    x = flow.sample(
        () if context_dim else (200,), context, generator=torch.Generator().manual_seed(5)
    )
    found = calibration_ranks(flow, Rows(x, context))
    for shares in (*found.columns.T, found.density):
        place = torch.linspace(0, 1, len(shares), dtype=F64)
        assert (shares.double().sort().values - place).abs().max() < 2 / len(shares) ** 0.5


def test_rows_in_the_core_have_low_and_rows_outside_high_regions():
    rows = torch.tensor([[0.0, 0.0], [9.0, 9.0], [0.0, -1.1774]], dtype=F64)
    found = calibration_ranks(still().double(), Rows(rows))
    assert found.density.tolist() == pytest.approx([0, 1, 0.5], abs=0.05)
    assert found.columns[:, 1].tolist() == pytest.approx([0.5, 1, 0.12], abs=0.03)


# ---- motion


def unpacked(packed):
    numbers = np.frombuffer(base64.b64decode(packed["numbers"]), "<f4")
    return numbers.reshape(packed["shape"])


def nats(packed):
    """The maps of a pair, NaN where they are too low to tell."""
    levels = np.frombuffer(base64.b64decode(packed["levels"]), np.uint8).astype(float)
    levels = levels.reshape(-1, packed["cells"], packed["cells"])
    found = np.array(packed["peaks"])[:, None, None] + DEPTH * ((levels - 1) / 254 - 1)
    return np.where(levels == 0, np.nan, found)


def test_particles_are_those_of_trajectory_and_their_heights_those_of_log_prob():
    flow = make_flow("gated-tanh", solver=cnf.Grid.uniform(8)).double()
    shown = subject(flow, normal(300, 2).double())
    found = motion(shown)
    particles = unpacked(found["particles"]).transpose(1, 2, 0)
    path = shown.flow.trajectory(shown.base_points(400), found["times"])
    assert found["times"] == pytest.approx([k / (TIMES - 1) for k in range(TIMES)])
    np.testing.assert_allclose(particles[..., :2], path.detach(), rtol=1e-5, atol=1e-5)
    for k in (0, 10, TIMES - 1):
        height = shown.flow.log_prob(path[k], t=found["times"][k]).detach()
        np.testing.assert_allclose(particles[k, :, 2], height, atol=2e-3)


def test_the_exact_map_is_the_density_of_each_time():
    flow = make_flow("gated-tanh", solver=cnf.Grid.uniform(8)).double()
    found = motion(subject(flow, normal(300, 2).double()))
    assert found["exact"]
    (left, right), (bottom, top) = found["limits"][:2]
    maps = nats(found["maps"]["0,1"])
    cells = maps.shape[1]
    for k, row, column in ((0, 30, 40), (16, 32, 20), (TIMES - 1, 40, 32)):
        x = left + (column + 0.5) * (right - left) / cells
        y = bottom + (row + 0.5) * (top - bottom) / cells
        exact = flow.log_prob(torch.tensor([x, y], dtype=F64), t=found["times"][k]).item()
        assert maps[k, row, column] == pytest.approx(exact, abs=0.03)


def test_counted_maps_are_the_marginals_of_two_columns():
    found = motion(subject(still(3), normal(300, 3).double()))
    assert not found["exact"] and set(found["maps"]) == {"0,1", "0,2", "1,2"}
    (left, right), (bottom, top) = (found["limits"][i] for i in (0, 2))
    maps = nats(found["maps"]["0,2"])
    cells = maps.shape[1]
    area = (right - left) * (top - bottom) / cells**2
    assert np.nansum(np.exp(maps), (1, 2)) * area == pytest.approx(np.ones(TIMES), abs=0.05)
    assert found["maps"]["0,2"]["peaks"] == pytest.approx([-np.log(2 * np.pi)] * TIMES, abs=0.25)


def test_one_column_moves_against_its_log_density():
    found = motion(subject(still(1), normal(50, 1).double()))
    assert found["names"] == ["x₁", "log-density"] and not found["maps"]


# ---- the page


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table with a name that no page should take for markup, and a model of it."""
    room = tmp_path_factory.mktemp("report")
    x = normal(400, 3).numpy() @ np.array([[1, 0.5, 0], [0, 1, 0], [0, 0, 3]]) + 10
    pd.DataFrame(x, columns=["a<b>&", "size (cm)", "c"]).to_csv(room / "t.csv", index=False)
    command = [
        "fit",
        room / "t.csv",
        "-o",
        room / "m.safetensors",
        "--steps",
        "30",
        "--width",
        "8",
    ]
    assert main([str(part) for part in command]) == 0
    assert (
        main(
            [
                "report",
                str(room / "m.safetensors"),
                str(room / "t.csv"),
                "-o",
                str(room / "r.html"),
            ]
        )
        == 0
    )
    return room


def test_the_page_is_one_small_file_that_asks_for_nothing(table):
    text = (table / "r.html").read_text()
    assert len(text) < 6e6
    unpacked = re.sub(r'(<script type="application/octet-stream"[^>]*>)[^<]*', r"\1", text)
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', unpacked)
    assert (
        "default-src 'none'" in unpacked
        and "url(http" not in unpacked
        and "@import" not in unpacked
    )


def test_names_are_text_on_the_page(table):
    text = (table / "r.html").read_text()
    assert "a&lt;b&gt;&amp;" in text and "a<b>" not in text and "size (cm)" in text


def test_marks_inside_pictures_are_the_pictures_own(table):
    marks = re.findall(r'\bid="([^"]+)"', (table / "r.html").read_text())
    assert len(marks) == len(set(marks)) > 100


def test_the_tables_own_fit_is_judged_by_the_rows_it_set_apart(table, capsys):
    known = cnf.load(table / "m.safetensors").metadata.as_json()
    text = (table / "r.html").read_text()
    assert "judged on\n40 rows of t.csv" in text
    found = [float(number.replace("−", "-")) for number in re.findall(r'"number">(\S+) ±', text)]
    assert found[0] == pytest.approx(known["history"]["valid_nll"], abs=2e-3)
    assert found[-2] == pytest.approx(known["gaussian"]["nll"], abs=2e-3)


@pytest.mark.slow
def test_other_rows_are_all_taken_to_be_new(table):
    rows = pd.read_csv(table / "t.csv").iloc[:60] * 1.001
    rows.to_csv(table / "new.csv", index=False)
    command = ["report", table / "m.safetensors", table / "new.csv", "-o", table / "new.html"]
    assert main([str(part) for part in command]) == 0
    assert (
        "60 rows of new.csv. These rows are assumed to be new" in (table / "new.html").read_text()
    )


@pytest.mark.slow
def test_the_same_model_and_rows_give_the_same_page(table):
    command = ["report", table / "m.safetensors", table / "t.csv", "-o", table / "again.html"]
    assert main([str(part) for part in command]) == 0
    assert (table / "again.html").read_bytes() == (table / "r.html").read_bytes()


@pytest.mark.slow
def test_a_conditional_flow_of_one_column_without_metadata(tmp_path):
    flow = stirred(cnf.CNF(1, hidden=(8, 8), context_dim=1))
    told = []
    rows = Rows(normal(40, 1).double(), normal(40, 1, seed=1).double())
    write_report(flow, rows, tmp_path / "r.html", names=["x"], title="one", callback=told.append)
    text = (tmp_path / "r.html").read_text()
    assert told == [section.title for section in SECTIONS]
    assert "Columns in pairs" not in text and "Training</h2>" not in text
    assert flow.dtype == torch.float32


def test_units_stand_beside_the_names():
    flow = still()
    flow.metadata = {"columns": ["length", "n"], "units": {"length": "m"}}
    assert subject(flow, normal(20, 2)).names == ["length (m)", "n"]


def test_a_table_that_does_not_fit_leaves_the_old_page(table, tmp_path, capsys):
    (tmp_path / "r.html").write_text("old")
    pd.DataFrame({"other": [1.0] * 20}).to_csv(tmp_path / "o.csv", index=False)
    command = ["report", table / "m.safetensors", tmp_path / "o.csv", "-o", tmp_path / "r.html"]
    assert main([str(part) for part in command]) == 2
    assert (tmp_path / "r.html").read_text() == "old"
    with pytest.raises(ValueError, match=r"rows: expected shape \(rows, 2\)"):
        write_report(still(), Rows(normal(20, 3)), tmp_path / "r.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.csv", "r.html"]


def test_what_is_packed_is_the_library_and_the_scene(table):
    text = (table / "r.html").read_text()
    packed = dict(re.findall(r'octet-stream" id="(\w+)">([^<]*)', text))
    library, scene = (
        gzip.decompress(base64.b64decode(packed[name])).decode() for name in ("library", "scene")
    )
    assert "plotly.js" in library[:200]
    assert json.loads(scene)["names"] == ["a<b>&", "size (cm)", "c", "log-density"]


@pytest.mark.slow
def test_a_typed_table_is_reported_by_its_numbers_and_checked_whole(tmp_path):
    n = 90
    ages = torch.randint(18, 80, (n,), generator=torch.Generator().manual_seed(0)).tolist()
    frame = pd.DataFrame(
        {
            "height": (10 * normal(n, 1)[:, 0] + 170).tolist(),
            "age": ages,
            "day": pd.date_range("2024-01-01", periods=n).astype(str),
            "group": ["a", "a", "b"] * (n // 3),
        }
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    fit = ["fit", tmp_path / "t.csv", "-o", tmp_path / "m", "--steps", "2", "--width", "8"]
    for command in (
        fit,
        ["report", tmp_path / "m", tmp_path / "t.csv", "-o", tmp_path / "r.html"],
    ):
        assert main([str(part) for part in command]) == 0
    text = (tmp_path / "r.html").read_text()
    assert "height" in text and "age" in text and "group" in text and "(scaled)" not in text
    assert "90 rows of t.csv that hold every number" in text.replace("\n", " ")
    assert "trained on about 90% of these rows" in text and "for whole rows" in text
    assert "2024-0" in text and "day (0 is 1970-01-01, 1 is 1970-01-02)" in text
    model = cnf.load(tmp_path / "m")
    claims = check_table(model, frame)
    assert {"two samples", "answers"} < {claim.name for claim in claims}
    assert all(str(escape(claim.claim)) in text for claim in claims)
    kept = [claim.passed for claim in claims].count(True)
    assert f"{kept} of {len(claims)} claims hold" in text


def test_what_no_browser_can_draw_is_refused():
    with pytest.raises(ValueError, match=r"out of range.*cnf check"):
        as_json({"limits": [(0.0, float("inf"))]})
    assert packed(np.array([1e300]))["shape"] == (1,)
