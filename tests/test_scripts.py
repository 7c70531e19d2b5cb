"""The gallery: every script runs, writes the pictures it promises, and leaves everything else
alone."""

import importlib
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnf.datasets.bundled import bundled_table

ROOT = Path(__file__).parent.parent
FEWEST_PIXELS, FEWEST_COLORS, MOST_BYTES = 200, 20, 3_000_000
# The table of the weather is not in this repository: without it the script says so and goes on.
WEATHER = Path(
    os.environ.get("CNF_SHARED_DATA", ROOT), "ushcn_rhode_island", "data.csv.gz"
).is_file()
WRITTEN = {
    "density_estimation": {"density_estimation.png", "density_estimation.json"},
    "sample_flow": {"sample_flow.png"},
    "flow_trajectories": {"flow_trajectories.png", "flow_trajectories.gif"},
    "euler": {"euler.png", "euler.json"},
    "adjoint": {"adjoint.png", "adjoint.json"},
    "ode_classifier": {"ode_classifier.png", "ode_classifier.json"},
    "augmented": {"augmented.png", "augmented.json"},
    "augmented_density": {"augmented_density.png", "augmented_density.json"},
    "tables": {"tables.json", "tables.png"},
    "variational": {
        *("variational.png", "variational.json"),
        *("variational_posterior.png", "variational_posterior.json"),
    },
    "latent_ode": {
        *("latent_ode.png", "latent_ode.json"),
        *(("latent_ode_weather.png", "latent_ode_weather.json") if WEATHER else ()),
    },
    "small_tables": {"small_tables.json", "small_tables.png"},
    "toy_gallery": {"toy_gallery.png"},
    "point_maps": {"point_maps.png"},
    "seven_columns": {
        "seven_columns_pairs.png",
        "seven_columns_slices.png",
        "seven_columns_flow.png",
    },
    "what_if": {"what_if.png"},
    "image_density": {"image_density.png"},
    "gaussian_transport": {"gaussian_transport.json"},
    "domain_shift": {"domain_shift.json", "domain_shift.png"},
    "transport_peers": {"transport_peers.json"},
    "snapshots": {"snapshots.json", "snapshots.png"},
    "growth": {"growth.json", "growth.png"},
    "synthetic": {"synthetic.json"},
    "anomalies": {"anomalies.json"},
    "imputation": {"imputation.json"},
    "redshift": {"redshift.json"},
    **({"two_moons": {"two_moons.json"}} if find_spec("sbi") else {}),
    "directional": {"directional.json"},
    "earth_events": {"earth_events.json"},
    "real_angles": {"real_angles.json"},
    "circular_speed": {"circular_speed.json"},
    "overheads": {"overheads.json"},
    "demo": {
        "checkerboard.safetensors",
        "checkerboard_density.png",
        "checkerboard_film.gif",
        "checkerboard_samples.png",
        "checkerboard_trajectories.png",
        "breast_cancer_pairs.png",
        "breast_cancer.safetensors",
        "breast_cancer_history.png",
        "breast_cancer_marginals.png",
        "breast_cancer_samples.csv",
        "breast_cancer_scores.csv",
        "breast_cancer_test.csv",
        "breast_cancer_train.csv",
        "breast_cancer_valid.csv",
    },
}


def state_of_repository() -> str:
    """What version control sees of the working tree; empty where there is none."""
    command = ["git", "-C", ROOT, "status", "--porcelain"]
    return subprocess.run(command, capture_output=True, text=True).stdout


@dataclass(frozen=True)
class Run:
    """A script, what it printed, its folder, where it was run, and whether the repository is as it
    was."""

    script: str
    printed: str
    out: Path
    elsewhere: Path
    left_alone: bool


@pytest.fixture(scope="module")
def run(request, tmp_path_factory):
    """A trial run of the script that the parameter names; the tests of one follow on each
    other."""
    out, elsewhere = tmp_path_factory.mktemp(request.param), tmp_path_factory.mktemp("elsewhere")
    script = ROOT / "scripts" / f"{request.param}.py"
    before = state_of_repository()
    done = subprocess.run(
        [sys.executable, "-W", "error", script, "--quick", "--out", out],
        cwd=elsewhere,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return Run(request.param, done.stdout, out, elsewhere, state_of_repository() == before)


def each(scripts):
    """Runs a test for the trial run of each of these scripts, which takes 10 to 50 seconds."""
    marked = [pytest.param(name, marks=pytest.mark.slow) for name in scripts]
    return pytest.mark.parametrize("run", marked, indirect=True)


@each(WRITTEN)
def test_script_writes_what_it_promises_and_nothing_else(run):
    assert {path.name for path in run.out.iterdir()} == WRITTEN[run.script]
    assert not list(run.elsewhere.iterdir())
    assert run.left_alone


@each(WRITTEN)
def test_pictures_show_something(run):
    pictures = [path for path in run.out.iterdir() if path.suffix in (".png", ".gif")]
    for path in pictures:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))[::3, ::3]
        assert min(picture.size) >= FEWEST_PIXELS, path.name
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) >= FEWEST_COLORS, path.name
        assert 0.02 < (pixels < 240).any(-1).mean() < 0.98, path.name
        assert path.stat().st_size < MOST_BYTES, path.name


@each(["flow_trajectories", "demo"])
def test_films_move_and_are_small(run):
    (path,) = run.out.glob("*.gif")
    assert path.stat().st_size < 2_000_000
    with Image.open(path) as frames:
        assert frames.n_frames >= 20
        first = np.asarray(frames.convert("RGB")).astype(int)
        frames.seek(frames.n_frames // 2)
        assert (abs(np.asarray(frames.convert("RGB")) - first) > 50).any(-1).mean() > 0.005


@each(["density_estimation"])
def test_gaps_are_those_of_the_exact_density(run):
    results = json.loads((run.out / "density_estimation.json").read_text())
    assert [result["toy"] for result in results] == ["checkerboard", "8gaussians"]
    for result in results:
        assert result["gap"] > -4 * result["gap_se"]
        # Mean of −log p over held-out points is the entropy but for sampling error.
        assert result["nll"] - result["gap"] == pytest.approx(result["entropy"], abs=0.25)
        assert f"{result['gap']:.4f}" in run.printed


def test_a_picture_of_ones_own_becomes_a_density(tmp_path):
    dark = np.full((40, 60), 255, np.uint8)
    dark[:, :20] = 0
    Image.fromarray(dark).save(tmp_path / "mine.png")
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        script = importlib.import_module("image_density")
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    found = script.darkness(tmp_path / "mine.png")
    x = script.points(found, 500, seed=0)
    assert (
        found.shape == (40, 60)
        and x[:, 0].max() <= 0.5
        and x[:, 1].min() >= 0
        and x[:, 1].max() <= 1
    )
    # Even over a third of a picture of area 1.5.
    assert script.exact_log_prob(found, x).tolist() == pytest.approx([math.log(2)] * 500)


@each(["sample_flow"])
def test_data_are_nearer_to_data_than_samples_of_a_poor_fit(run):
    found = dict(re.findall(r"(samples|data) and data +([+-]\d\.\d+)", run.printed))
    assert abs(float(found["data"])) < 0.02
    assert float(found["samples"]) > float(found["data"])


@each(["benchmark_errors"])
def test_benchmark_of_errors_judges_by_the_truth(run):
    (result,) = json.loads((run.out / "benchmark_errors.json").read_text())
    assert result["flow"] == "moons" and result["covered"] > 0.9
    assert result["error"] <= 1e-3 and result["dopri5_error"] <= result["error"]


@each(["benchmark_accuracy"])
def test_benchmark_of_accuracy_keeps_its_cells_and_goes_on(run):
    found = json.loads((run.out / "benchmark_accuracy.json").read_text())["moons, 0.5 s"]
    for method in ("cnf", "mixture"):
        (path,) = (run.out / "cells").glob(f"moons-5000-{method}-*.json")
        cell = json.loads(path.read_text())
        gap = -sum(cell["log_prob"]) / len(cell["log_prob"])
        assert found["nll"][method] == [pytest.approx(gap)] and gap > 0
        assert f"moons {method} 0: {gap:.3f}" in run.printed
    (notes,) = found["notes"]["cnf"]
    assert abs(notes["mass"] - 1) < 0.01 and abs(notes["off_dopri8"]) < 1e-3
    assert found["best_peer"] == "mixture"


@each(["ablation"])
def test_ablation_compares_row_by_row_and_says_where_each_ingredient_helps(run):
    found = json.loads((run.out / "ablation.json").read_text())
    base, off = found["baseline | moons | 0"], found["stratified batches | moons | 0"]
    # Against the exact density no flow wins; and paired by row or not, the mean is the same.
    assert base["nll"] > 0 and off["nll"] > 0
    assert off["difference"] == pytest.approx(off["nll"] - base["nll"], abs=1e-6)
    assert 0 < off["error"] < 0.01
    (bars,) = [cell for cell in found.values() if "on" in cell]
    assert bars["on"]["covered"] > 0.9 and bars["on"]["nfe"] == pytest.approx(base["nfe"])
    assert f"| stratified batches | {off['difference']:+.3f}" in run.printed.replace("**", "")


@each(["small_tables"])
def test_small_tables_are_compared_row_by_row(run):
    found = json.loads((run.out / "small_tables.json").read_text())["iris"]
    best = min(found["nll"]["Gaussian"], found["nll"]["mixture"])
    assert found["difference"] == pytest.approx(found["nll"]["cnf"] - best)
    assert f"{found['nll']['cnf']:8.3f}" in run.printed


@each(["anomalies"])
def test_anomalies_judge_scores_levels_and_cells(run):
    (found,) = json.loads((run.out / "anomalies.json").read_text()).values()
    # Malignant cells are far from benign ones: any density finds most of them.
    assert 0.8 < found["auc"]["−log p"] <= 1 and set(found["named first"]) == {"moved", "swapped"}
    for level, (share, error) in found["alarms"].items():
        assert abs(share - float(level)) < 4 * error
    assert f"−log p {found['auc']['−log p']:.3f}" in run.printed


@each(["imputation"])
def test_imputations_are_judged_by_the_hidden_cells(run):
    found = json.loads((run.out / "imputation.json").read_text())["generated"]
    for method in ("cnf", "IterativeImputer"):
        assert found[method]["crps"] == pytest.approx(
            np.mean([each["crps"] for each in found[method]["columns"].values()])
        )
        assert 0.6 < found[method]["covered"] <= 1 and 0 < found[method]["crps"] < 1
    # A draw from a column by itself has a CRPS of 0.56 deviations where it is normal.
    assert found["cnf"]["columns"]["visits"]["crps"] < 0.56


@each(["redshift"])
def test_redshifts_are_judged_by_densities_on_a_grid(run):
    found = json.loads((run.out / "redshift.json").read_text())
    assert {"cnf, amortized", "cnf, joint", "spline flow", "quantile forest"} <= found.keys()
    # Made rows: the first column is normal, its mean known, with deviation 0.4.
    floor = 0.5 * math.log(2 * math.pi * math.e * 0.4**2)
    for each in found.values():
        mean, error = each["log_likelihood"]
        assert mean < -floor + 3 * error and 0 < each["crps"][0] < 1 and 0 <= each["pit"] <= 1


@each(["variational"])
def test_divergences_from_energies_are_not_negative(run):
    found = json.loads((run.out / "variational.json").read_text())
    assert [result["energy"] for result in found] == ["U1"] * 4 + ["U2"] * 4
    for result in found:
        assert result["kl"] > -4 * result["kl_se"] and 0 < result["efficiency"] <= 1
        assert f"{result['kl']:.4f}" in run.printed
    distances = json.loads((run.out / "variational_posterior.json").read_text())["distances"]
    assert set(distances) == {"laplace", "flow", "weighted"} and distances["flow"]["mean"] < 2


@each(["latent_ode"])
def test_series_are_forecast_by_both_sides(run):
    found = json.loads((run.out / "latent_ode.json").read_text())
    assert [result["observed"] for result in found] == [30, 50, 100]
    for result in found:
        assert all(0 < result[side] < 3 for side in ("latent_ode", "rnn", "gru"))
        assert 0 <= result["covered"] <= 1
        assert max(result["parameters"].values()) - min(result["parameters"].values()) < 300
    assert ("no weather" not in run.printed) == WEATHER
    if WEATHER:
        forecasts = json.loads((run.out / "latent_ode_weather.json").read_text())["forecasts"]
        errors = {result["method"]: result["mse"] for result in forecasts}
        assert errors["mean by day of year"] < errors["last value"]


@each(["demo"])
def test_demo_files_belong_together(run):
    tables = {
        name: pd.read_csv(run.out / f"breast_cancer_{name}.csv")
        for name in ("test", "scores", "samples")
    }
    assert len(tables["scores"]) == len(tables["test"]) == len(tables["samples"])
    assert list(tables["samples"]) == list(bundled_table("breast_cancer"))
    assert f"{-tables['scores'].log_prob.mean():.4f}" in run.printed
    assert all(path.name in run.printed for path in run.out.iterdir())


@each(["euler"])
def test_solvers_have_their_orders_and_obey_their_tolerance(run):
    found = json.loads((run.out / "euler.json").read_text())
    for method, order in {"euler": 1, "midpoint": 2, "rk4": 4, "dopri5": 5}.items():
        assert found["orders"][method] == pytest.approx(order, abs=0.35)
    assert max(found["tied"].values()) < 1e-14
    for method in ("dopri5", "dopri8"):
        rows = [row for row in found["adaptive"] if row["method"] == method]
        for loose, tight in pairwise(rows):
            assert tight["setting"] < loose["setting"]
            assert tight["error"] < loose["error"] / 5 and tight["nfe"] > loose["nfe"]


@each(["adjoint"])
def test_formulas_of_the_adjoint_agree_with_differentiation(run):
    found = json.loads((run.out / "adjoint.json").read_text())
    assert len(found["checks"]) == 7
    assert max(check["difference"] for check in found["checks"]) < 1e-7
    assert set(found["orders"]) == {"z(t₁)", "a(t₀)", "∂L/∂θ"}
    assert all(order == pytest.approx(1, abs=0.2) for order in found["orders"].values())


@each(["ode_classifier"])
def test_memory_is_flat_for_the_adjoint_and_linear_for_direct(run):
    found = json.loads((run.out / "ode_classifier.json").read_text())
    depths, memory = found["depths"], found["memory"]
    assert max(memory["adjoint"]) < 1.01 * min(memory["adjoint"])
    a_step = [
        (more - less) / (deep - shallow)
        for (shallow, less), (deep, more) in pairwise(zip(depths, memory["direct"]))
    ]
    assert a_step[0] == pytest.approx(a_step[1], rel=0.05)
    # Four evaluations, each of which keeps at least its hidden layer of 96 floats for 256 rows.
    assert min(a_step) > 4 * 96 * 256 * 4
    assert max(np.diff(memory["discrete"]) / np.diff(depths)) < min(a_step) / 5


@each(["ode_classifier"])
def test_classifier_of_continuous_depth_learns_and_counts_both_ways(run):
    (result,) = json.loads((run.out / "ode_classifier.json").read_text())["results"]
    assert result["ode"] > 50 and result["residual"] > 50
    assert all(forwards >= 14 and backwards >= 12 for forwards, backwards in result["nfe"])


@each(["augmented"])
def test_no_plain_flow_beats_the_best_monotone_fit(run):
    found = json.loads((run.out / "augmented.json").read_text())
    plain = [r for r in found["results"] if r["problem"].endswith("1-D") and r["augment"] == 0]
    # Of three parts labeled 1, −1, 1 a monotone fit keeps one and averages the others, ⅔ of the
    # variance.
    assert found["floor"] == pytest.approx(2 / 3, abs=0.02)
    assert plain and all(result["loss"] > found["floor"] for result in plain)


@each(["augmented_density"])
def test_bound_of_the_augmented_flow_stays_below_its_density(run):
    found = json.loads((run.out / "augmented_density.json").read_text())
    assert all(bound["below"] > -3 * bound["error"] for bound in found["bounds"])
    assert found["bounds"][0]["error"] > found["bounds"][-1]["error"]
    assert found["mass_of_one_draw"] < 1.02 and found["mass_of_weights"] == pytest.approx(
        1, abs=0.05
    )


@each(["benchmark_speed"])
def test_benchmark_of_speed_times_every_side_at_equal_error(run):
    pytest.importorskip("zuko")
    found = json.loads((run.out / "benchmark_speed.json").read_text())["columns"]["2"]
    for task in ("log_prob", "gradient", "sample"):
        assert {"cnf", "zuko", "zuko, equal error"} <= found[task].keys()
    assert found["error"]["zuko, equal error"]["mean"] <= found["error"]["cnf"]["mean"]
    assert found["sample_error"]["zuko, equal error"] <= found["sample_error"]["cnf"]
    # The same velocity on every side: peers at their own, finer tolerances come near the truth.
    assert found["error"]["zuko"]["mean"] < 1e-4 and found["sample_error"]["zuko"] < 1e-3
    assert found["gradient_difference"] < 1e-10
    assert "a row" in run.printed and (run.out / "benchmark_speed.png").stat().st_size > 10_000


@each(["overheads"])
def test_overheads_are_those_of_commands_and_of_optimizers(run):
    found = json.loads((run.out / "overheads.json").read_text())
    commands, steps = found["commands"], found["steps"]
    assert 0 < commands["cnf --help"][0] < commands["cnf info m"][0]
    assert {name.split(",")[0] for name in steps} == {
        *("Adam", "torch.optim.AdamW", "Muon", "torch.optim.Muon"),
    }
    assert all(0 < least <= median <= most for median, least, most in steps.values())
