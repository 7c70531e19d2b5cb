"""The commands: what they write and print, agreement with the library, one line for what is
wrong."""

from __future__ import annotations

import errno
import functools
import json
import math
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.collections import PathCollection
from PIL import Image

import cnf
from cnf import plotting
from cnf.cli import main
from cnf.cli.data import declarations, names_in, toy_table
from cnf.cli.model import load_model
from cnf.cli.output import require_writable
from cnf.cli.plot_context import PlotOptions, plot_context
from cnf.datasets import toy
from cnf.pictures import KINDS
from cnf.recipe.tables import plain
from cnf.rows import RunningMean
from cnf.scale import ScoreSummary

TINY = ["--steps", "20", "--width", "8"]
COMMAND = [sys.executable, "-c", "import sys; from cnf.cli import main; sys.exit(main())"]


def normal_table(rows: int, seed: int = 0) -> pd.DataFrame:
    """Columns a and b, Gaussian with correlation, and c, which shifts them."""
    z = torch.randn(
        rows, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).numpy()
    c = 2 * z[:, 2]
    return pd.DataFrame({"a": 100 + z[:, 0] + c, "b": 5 * (0.6 * z[:, 0] + 0.8 * z[:, 1]), "c": c})


def write(folder: Path, table: pd.DataFrame, name: str = "table.csv") -> Path:
    table.to_csv(folder / name, index=False)
    return folder / name


def ran(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Path:
    """A table, a model of its columns a and b, one of a and b given c, and one of all three."""
    folder = tmp_path_factory.mktemp("cli")
    table = write(folder, normal_table(400).assign(w=np.arange(400) % 3))
    ran("fit", table, "-o", folder / "plane.safetensors", "--columns", "a,b", *TINY)
    ran("fit", table, "-o", folder / "given.safetensors", "--context", "c", "--ignore", "w", *TINY)
    ran("fit", table, "-o", folder / "space.safetensors", "--ignore", "w", *TINY)
    return folder


def outcome(capsys, *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refused(capsys, folder: Path, *arguments: object) -> str:
    """The one line of a command that fails with code 2 and leaves the folder as it was."""
    before = sorted(folder.rglob("*"))
    code, out, err = outcome(capsys, *arguments)
    assert code == 2
    assert only_a_schema(out)
    *stages, last = err.splitlines()
    assert last.startswith("cnf: ") and all(
        "begins" in stage or "done" in stage for stage in stages
    )
    assert "Traceback" not in err
    assert sorted(folder.rglob("*")) == before
    return last


def only_a_schema(out: str) -> bool:
    """Whether nothing was printed but the columns of a table, which a fit tells before it begins."""
    return all(line.startswith("  ") for line in out.splitlines())


# fit


def test_fit_says_what_was_chosen_and_how_good_it_is(room, tmp_path, capsys):
    code, out, err = outcome(
        capsys, "fit", room / "table.csv", "-o", tmp_path / "m", "--columns", "b,a", *TINY
    )
    assert code == 0 and err.splitlines()[0] == "cnf: flow matching begins"
    assert (
        "  b  real\n  a  real\n" in out and "width 8 × 8" in out and "360 rows, 20 updates" in out
    )
    assert "held-out NLL" in out and "one Gaussian" in out and out.count("±") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_fit_prints_one_json_object_that_info_repeats(room, tmp_path, capsys):
    model = tmp_path / "m.safetensors"
    code, out, _ = outcome(
        capsys, "fit", room / "table.csv", "-o", model, "--ignore", "c,w", *TINY, "--json"
    )
    told = json.loads(out)
    assert code == 0
    assert told["columns"] == ["a", "b"] and told["rows"] == 360 and told["valid_rows"] == 40
    assert (
        told["choices"]["steps"] == 20
        and told["choices"]["hidden"] == [8, 8]
        and told["updates"] == 20
    )
    assert json.loads(outcome(capsys, "info", model, "--json")[1]) == told


def test_the_nll_is_that_of_the_rows_held_out_in_the_units_of_the_file(room, capsys):
    """The Gaussian of the table is known: its entropy, in the units of the file, bounds both
    numbers."""
    model = room / "plane.safetensors"
    told = json.loads(outcome(capsys, "info", model, "--json")[1])
    covariance = np.array([[5.0, 3.0], [3.0, 25.0]])
    entropy = math.log(2 * math.pi * math.e) + 0.5 * math.log(np.linalg.det(covariance))
    assert told["gaussian"]["nll"] == pytest.approx(
        entropy, abs=4 * told["gaussian"]["standard_error"]
    )
    assert told["nll"] == pytest.approx(entropy, abs=0.5)
    held_out = cnf.load(model).metadata.valid_rows
    assert told["gaussian"]["standard_error"] == pytest.approx(1 / math.sqrt(held_out), rel=0.4)


def test_flow_and_gaussian_are_judged_on_the_same_rows(room, tmp_path, monkeypatch):
    judged = []
    gaussian_nll = plain.gaussian_nll
    monkeypatch.setattr(
        "cnf.recipe.tables.model_fit.gaussian_nll",
        lambda *rows: judged.extend(rows) or gaussian_nll(*rows),
    )
    ran("fit", room / "table.csv", "-o", tmp_path / "m", "--weights", "w", *TINY)
    flow, (train, valid) = cnf.load(tmp_path / "m").flow, judged
    with torch.no_grad():
        nll = -(valid.weights * flow.log_prob(valid.x)).sum() / valid.weights.sum()
    assert flow.metadata["history"]["valid_nll"] == pytest.approx(nll.item(), abs=1e-9)
    weights = train.weights / train.weights.sum()
    assert flow.preprocess.shift.numpy() == pytest.approx((weights @ train.x).numpy())


def test_the_gaussian_of_a_conditional_model_knows_the_context(room, capsys):
    told = json.loads(outcome(capsys, "info", room / "given.safetensors", "--json")[1])
    entropy = math.log(2 * math.pi * math.e) + 0.5 * math.log(25 * 0.64)
    assert told["gaussian"]["nll"] == pytest.approx(
        entropy, abs=4 * told["gaussian"]["standard_error"]
    )


def test_fit_is_reproducible_under_its_seed(room, tmp_path):
    for name, seed in (("one", 7), ("two", 7), ("other", 8)):
        ran(
            "fit",
            room / "table.csv",
            "-o",
            tmp_path / name,
            "--columns",
            "a,b",
            *TINY,
            "--seed",
            seed,
        )
    one, two, other = (cnf.load(tmp_path / name).state_dict() for name in ("one", "two", "other"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_fitting_leaves_the_generator_of_torch_alone(room, tmp_path):
    before = torch.get_rng_state()
    ran("fit", room / "table.csv", "-o", tmp_path / "m", *TINY)
    assert torch.equal(before, torch.get_rng_state())


def test_the_model_keeps_what_later_commands_need(room):
    known = cnf.load(room / "plane.safetensors").metadata.as_json()
    assert (
        known["columns"] == ["a", "b"]
        and known["context"] == []
        and known["version"] == cnf.__version__
    )
    assert known["choices"]["data"].endswith("table.csv")
    assert [record["phase"] for record in known["history"]["records"]][-1] == "likelihood"
    levels, quantiles = known["quantiles"]["levels"], known["quantiles"]["columns"]
    table = normal_table(400)
    for name in ("a", "b"):
        below = [(table[name] <= value).mean() for value in quantiles[name]]
        assert below == pytest.approx(levels, abs=0.03)


def test_weights_count_as_rows_would(tmp_path, capsys):
    """Half of the rows, far away, weigh nothing: model and Gaussian know nothing of them."""
    table = normal_table(400)[["a", "b"]].assign(w=np.arange(400) % 2)
    table.loc[table.w == 0, ["a", "b"]] += 30.0
    _, out, _ = outcome(
        capsys,
        "fit",
        write(tmp_path, table),
        "-o",
        tmp_path / "m",
        "--weights",
        "w",
        *TINY,
        "--json",
    )
    told = json.loads(out)
    entropy = math.log(2 * math.pi * math.e) + 0.5 * math.log(5 * 25 - 9)
    assert told["columns"] == ["a", "b"]
    assert told["nll"] == pytest.approx(entropy, abs=0.8)
    assert told["gaussian"]["nll"] == pytest.approx(entropy, abs=0.8)
    flow = cnf.load(tmp_path / "m").flow
    assert flow.preprocess.shift[0].item() == pytest.approx(100, abs=1)


@pytest.mark.slow
def test_validation_rows_of_their_own(room, tmp_path, capsys):
    valid = write(tmp_path, normal_table(57, seed=3)[["c", "b", "a"]], "valid.csv")
    _, out, _ = outcome(
        capsys,
        *("fit", room / "table.csv", "-o", tmp_path / "m", "--ignore", "w", "--context", "c"),
        *("--valid", valid, *TINY, "--json"),
    )
    told = json.loads(out)
    assert (told["rows"], told["valid_rows"]) == (400, 57)
    table = normal_table(57, seed=3)
    x, context = torch.tensor(table[["a", "b"]].to_numpy()), torch.tensor(table[["c"]].to_numpy())
    with torch.no_grad():
        assert told["nll"] == pytest.approx(
            -cnf.load(tmp_path / "m").flow.log_prob(x, context).mean().item()
        )


def test_a_toy_is_a_table_of_its_own():
    table = toy_table("toy:rings", seed=5)
    assert list(table) == ["x0", "x1"] and len(table) == 100_000
    assert table.equals(toy_table("toy:rings", seed=5)) and not table.equals(
        toy_table("toy:rings", seed=6)
    )
    mean = toy("rings").log_prob(torch.tensor(table.to_numpy()[:5000])).mean().item()
    assert -mean == pytest.approx(toy("rings").entropy, abs=0.05)


def test_a_toy_can_be_fitted_and_scored(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("cnf.cli.data.TOY_ROWS", 300)
    ran("fit", "toy:8gaussians", "-o", tmp_path / "m", "--columns", "x1", *TINY)
    capsys.readouterr()
    code, out, _ = outcome(
        capsys, "score", tmp_path / "m", "toy:8gaussians", "-o", tmp_path / "s.npy", "--json"
    )
    assert code == 0 and json.loads(out)["rows"] == 300


@pytest.mark.slow
def test_resume_stops_at_a_finished_model_and_starts_afresh_without_one(room, tmp_path, capsys):
    fit = ["fit", room / "table.csv", "-o", tmp_path / "m", "--ignore", "w", *TINY, "--resume"]
    assert outcome(capsys, *fit)[0] == 0
    written = (tmp_path / "m").read_bytes()
    code, out, _ = outcome(capsys, *fit)
    assert code == 0 and "already finished" in out
    assert (tmp_path / "m").read_bytes() == written
    assert json.loads(outcome(capsys, *fit, "--json")[1])["updates"] == 20
    (tmp_path / "m").write_text("half a model")
    assert "already finished" not in outcome(capsys, *fit)[1]
    assert cnf.load(tmp_path / "m").flow.dim == 3


# score


def test_scores_are_those_of_the_flow(room, tmp_path, capsys):
    output = tmp_path / "scores.csv"
    _, out, err = outcome(
        capsys, "score", room / "plane.safetensors", room / "table.csv", "-o", output, "--json"
    )
    told, scores = json.loads(out), pd.read_csv(output)
    x = torch.tensor(normal_table(400)[["a", "b"]].to_numpy())
    with torch.no_grad():
        expected = cnf.load(room / "plane.safetensors").flow.log_prob(x)
    assert err == ""
    assert list(scores) == ["log_prob", "error"] and len(scores) == told["rows"] == 400
    assert scores.log_prob.to_numpy() == pytest.approx(expected.numpy(), abs=1e-12)
    assert told["mean_log_prob"] == pytest.approx(expected.mean().item(), abs=1e-12)
    assert told["standard_error"] == pytest.approx(expected.std(correction=0).item() / 20)
    assert told["not_ok"] == 0 and (scores.error > 0).all() and (scores.error < 1e-2).all()


def test_columns_are_found_by_name_and_others_may_hold_anything(room, tmp_path):
    table = normal_table(50, seed=2)
    odd = table.assign(name="Ada")[["name", "c", "b", "a"]]
    ran(
        "score",
        room / "given.safetensors",
        write(tmp_path, table),
        "-o",
        tmp_path / "straight.parquet",
    )
    ran(
        "score",
        room / "given.safetensors",
        write(tmp_path, odd, "odd.csv"),
        "-o",
        tmp_path / "odd.parquet",
    )
    straight, odd = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("straight", "odd"))
    assert straight.equals(odd)
    assert straight.log_prob.nunique() == 50


def test_rows_without_an_answer_keep_their_place(room, tmp_path, capsys):
    table = normal_table(6)
    table.loc[1, "a"], table.loc[3, "b"] = np.nan, np.inf
    _, out, _ = outcome(
        capsys,
        "score",
        room / "plane.safetensors",
        write(tmp_path, table),
        "-o",
        tmp_path / "s.csv",
    )
    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert lines[2] == lines[4] == "," and len(lines) == 7
    assert "6 rows" in out and "2 have no log-density" in out
    full = pd.read_csv(tmp_path / "s.csv").log_prob
    ran(
        "score",
        room / "plane.safetensors",
        write(tmp_path, normal_table(6)),
        "-o",
        tmp_path / "f.csv",
    )
    alone = pd.read_csv(tmp_path / "f.csv").log_prob
    np.testing.assert_allclose(full.drop([1, 3]), alone.drop([1, 3]), rtol=1e-6)


def test_a_mean_that_does_not_exist_is_null(room, tmp_path, capsys):
    table = write(tmp_path, normal_table(2).assign(a=np.nan))
    _, out, _ = outcome(
        capsys, "score", room / "plane.safetensors", table, "-o", tmp_path / "s.csv", "--json"
    )
    told = json.loads(out)
    assert told["mean_log_prob"] is None and told["not_ok"] == told["rows"] == 2


def test_a_table_without_rows_is_not_scored(room, tmp_path, capsys):
    table, output = write(tmp_path, normal_table(0)), tmp_path / "s.csv"
    line = refused(capsys, tmp_path, "score", room / "plane.safetensors", table, "-o", output)
    assert "at least one row" in line


def test_samples_of_a_column_far_from_zero_keep_their_spread(room, tmp_path):
    table = normal_table(200).assign(a=lambda t: 1.7e9 + t.a)[["a", "b"]]
    ran("fit", write(tmp_path, table), "-o", tmp_path / "far", *TINY)
    ran("sample", tmp_path / "far", "-n", 100, "-o", tmp_path / "s.csv")
    assert pd.read_csv(tmp_path / "s.csv").a.nunique() == 100


def read_in_chunks(rows: int, monkeypatch) -> None:
    monkeypatch.setattr("cnf.tables.reading.CHUNK_ROWS", rows)


def test_chunks_change_nothing(room, tmp_path, monkeypatch, capsys):
    table = write(tmp_path, normal_table(100))
    ran("score", room / "plane.safetensors", table, "-o", tmp_path / "whole.csv")
    read_in_chunks(7, monkeypatch)
    ran("score", room / "plane.safetensors", table, "-o", tmp_path / "parts.csv")
    whole, parts = (pd.read_csv(tmp_path / name) for name in ("whole.csv", "parts.csv"))
    assert parts.log_prob.to_numpy() == pytest.approx(whole.log_prob.to_numpy(), abs=1e-5)
    first, second = (line.split(": ")[1] for line in capsys.readouterr().out.splitlines())
    assert first == second and first.startswith("100 rows")


def test_a_tally_in_parts_is_that_of_the_whole():
    values = 1e6 + torch.randn(
        1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    tally = RunningMean()
    for part in values.split([0, 1, 400, 0, 599]):
        tally.add(part)
    assert tally.mean == pytest.approx(values.mean().item(), abs=1e-9)
    assert tally.standard_error == pytest.approx(
        values.std(correction=0).item() / math.sqrt(1000), rel=1e-9
    )


# sample


def test_samples_have_the_columns_and_moments_of_the_table(room, tmp_path):
    ran("sample", room / "plane.safetensors", "-n", 3000, "-o", tmp_path / "s.parquet")
    drawn = pd.read_parquet(tmp_path / "s.parquet")
    assert list(drawn) == ["a", "b"] and len(drawn) == 3000
    assert drawn.a.mean() == pytest.approx(100, abs=0.5) and drawn.b.std() == pytest.approx(
        5, rel=0.2
    )


def test_samples_follow_from_the_seed(room, tmp_path):
    for name, seed in (("one", 4), ("two", 4), ("other", 5)):
        ran(
            "sample",
            room / "plane.safetensors",
            "-n",
            20,
            "-o",
            tmp_path / f"{name}.csv",
            "--seed",
            seed,
        )
    one, two, other = ((tmp_path / f"{name}.csv").read_text() for name in ("one", "two", "other"))
    assert one == two != other


def test_samples_come_in_chunks(room, tmp_path, monkeypatch):
    monkeypatch.setattr("cnf.cli.sampling.ROWS_AT_ONCE", 8)
    ran("sample", room / "plane.safetensors", "-n", 20, "-o", tmp_path / "s.npz")
    with np.load(tmp_path / "s.npz") as saved:
        assert saved["X"].shape == (20, 2) and len(np.unique(saved["X"][:, 0])) == 20
        assert saved["columns"].tolist() == ["a", "b"]


def test_lists_may_be_given_in_parts(monkeypatch, tmp_path):
    """As one list, and the last part does not take the place of the others."""
    told = []
    monkeypatch.setattr("cnf.cli.fitting.fit_model", lambda options, **_: told.append(options))
    types = ("--type", "a=integer", "--type", "b=angle:360", "--type", "lon,lat=sphere")
    names = ("--ignore", "c", "--ignore", "d,e", "--columns", "a", "--columns", "b")
    assert main(["fit", "t.csv", "-o", str(tmp_path / "m"), *types, *names]) == 0
    assert declarations(told[0].kinds) == {
        "a": "integer", "b": "angle:360", "lon,lat": "sphere"
    }  # fmt: skip
    assert (told[0].ignore, told[0].columns) == (("c", "d", "e"), ("a", "b"))


def test_given_sets_the_context(room, tmp_path):
    for value in (-2.0, 2.0):
        ran(
            "sample",
            room / "given.safetensors",
            "-n",
            50,
            "-o",
            tmp_path / "s.npy",
            "--given",
            f"c={value}",
        )
        context, generator = torch.tensor([value]), torch.Generator().manual_seed(0)
        with torch.no_grad():
            flow = cnf.load(room / "given.safetensors").flow
            expected = flow.sample((50,), context, generator=generator, dtype=torch.float64)
        assert np.load(tmp_path / "s.npy") == pytest.approx(expected.numpy())


# plot


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        kind.name
        for kind in KINDS
        if kind.context not in ("swept", "time")
        and not kind.data
        and kind.axes not in ("sphere", "angles")
    ],
)
def test_every_kind_draws(kind, room, tmp_path, coarse):
    ran("plot", room / "plane.safetensors", kind, "-o", tmp_path / "plain.png")
    ran(
        "plot",
        room / "plane.safetensors",
        kind,
        "-o",
        tmp_path / "d.png",
        "--data",
        room / "table.csv",
    )
    plain, data = (
        np.asarray(Image.open(tmp_path / name).convert("L")) for name in ("plain.png", "d.png")
    )
    assert plain.std() > 5 and min(plain.shape) > 200
    without = kind in ("history", "evolution", "conditional", "steps")
    assert without or plain.shape != data.shape or (plain != data).any()


@pytest.fixture
def coarse(monkeypatch):
    """Maps of a few cells: what they show is tested elsewhere."""
    monkeypatch.setattr(plotting, "density", functools.partial(plotting.density, resolution=20))
    monkeypatch.setattr(
        plotting, "conditional", functools.partial(plotting.conditional, resolution=20)
    )
    monkeypatch.setattr("cnf.pictures.planar.EVOLUTION", 20)


def test_calibration_is_of_rows_and_their_own_context(room, tmp_path, capsys):
    for name, columns in (("plane", 2), ("given", 2)):
        model, table = room / f"{name}.safetensors", room / "table.csv"
        ran("plot", model, "calibration", "-o", tmp_path / "c.svg", "--data", table)
        assert (tmp_path / "c.svg").read_text().count("<!-- rank of") == columns
    message = refused(capsys, tmp_path, "plot", model, "calibration", "-o", tmp_path / "x.png")
    assert "--data" in message


@pytest.mark.slow
def test_what_if_sweeps_a_context(room, tmp_path, capsys):
    model = room / "given.safetensors"
    ran("plot", model, "what-if", "-o", tmp_path / "w.svg", "--sweep", "c=-3:3")
    assert (tmp_path / "w.svg").read_text().count("<!-- c -->") == 2
    for sweep in ([], ["--sweep", "c=3:1"], ["--sweep", "z=0:1"], ["--sweep", "c"]):
        message = refused(
            capsys, tmp_path, "plot", model, "what-if", "-o", tmp_path / "x.png", *sweep
        )
        assert '--sweep "c=LOW:HIGH"' in message
    plane = "plot", room / "plane.safetensors"
    assert "none" in refused(
        capsys, tmp_path, *plane, "what-if", "-o", tmp_path / "x.png", "--sweep", "c=0:1"
    )
    assert "--given" in refused(
        capsys, tmp_path, *plane, "samples", "-o", tmp_path / "x.png", "--sweep", "c=0:1"
    )


def test_colors_of_trajectories_are_for_their_pictures_alone(room, tmp_path, capsys):
    for kind, ending in (("samples", "png"), ("trajectories", "gif")):
        output = "-o", tmp_path / f"x.{ending}"
        line = refused(
            capsys,
            tmp_path,
            "plot",
            room / "plane.safetensors",
            kind,
            *output,
            "--colour",
            "log-density",
        )
        assert "--colour: applies to pictures of trajectories" in line


@pytest.mark.parametrize("kind", ["contours", "density"])
def test_rows_lie_on_the_axes_that_were_asked_for(room, kind):
    model, table = load_model(room / "plane.safetensors"), str(room / "table.csv")
    context = plot_context(model, KINDS[kind], PlotOptions(table, axes=("b", "a")))
    ax = KINDS[kind].drawing(context).axes[0]
    (points,) = (part for part in ax.collections if isinstance(part, PathCollection))
    read = pd.read_csv(room / "table.csv")[["b", "a"]].to_numpy()
    shown = np.asarray(points.get_offsets())
    nearest = np.abs(shown[:, None] - read[None]).max(-1).min(1)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("b", "a") and nearest.max() < 1e-6


def test_trajectories_can_tell_the_log_density_in_the_principal_plane(room, tmp_path):
    options = "--colour", "log-density", "--axes", "principal"
    ran("plot", room / "space.safetensors", "trajectories", "-o", tmp_path / "t.svg", *options)
    text = (tmp_path / "t.svg").read_text()
    assert "principal axis 1" in text and "<!-- log-density (nats) -->" in text


@pytest.mark.parametrize("ending", ["svg", "pdf"])
def test_contours_are_vectors(room, tmp_path, coarse, ending):
    ran("plot", room / "plane.safetensors", "contours", "-o", tmp_path / f"c.{ending}")
    assert b"<image" not in (tmp_path / f"c.{ending}").read_bytes()
    assert b"/Subtype /Image" not in (tmp_path / f"c.{ending}").read_bytes()


def test_help_lists_every_kind_of_picture_and_each_has_a_drawing(capsys):
    code, told, _ = outcome(capsys, "plot", "--help")
    assert code == 0 and all(
        f"  {kind.name} " in told and callable(kind.drawing) for kind in KINDS
    )


@pytest.mark.parametrize(
    "kind", ["samples", "trajectories", "field", "streamlines", "conditional", "marginals"]
)
@pytest.mark.slow
def test_flows_of_more_columns_show_two_of_them(kind, room, tmp_path, coarse):
    ran("plot", room / "space.safetensors", kind, "-o", tmp_path / "p.svg", "--axes", "c,a")
    text = (tmp_path / "p.svg").read_text()
    assert "<!-- c -->" in text and "<!-- a -->" in text
    assert ("<!-- b -->" in text) is (kind == "marginals")


def test_a_conditional_flow_is_drawn_for_its_context(room, tmp_path, monkeypatch):
    coarse = functools.partial(plotting.density, resolution=20)
    monkeypatch.setattr(plotting, "density", coarse)
    for value in (-3, 3):
        output = tmp_path / f"{value}.png"
        ran("plot", room / "given.safetensors", "density", "-o", output, "--given", f"c={value}")
    assert (tmp_path / "-3.png").read_bytes() != (tmp_path / "3.png").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["density", "trajectories", "field"])
def test_films_have_frames(kind, room, tmp_path, monkeypatch):
    monkeypatch.setattr("cnf.pictures.animations.CELLS", 10)
    options = "--frames", 24, "--frame-rate", 10, "--inches", 2
    ran("plot", room / "plane.safetensors", kind, "-o", tmp_path / "d.gif", *options)
    with Image.open(tmp_path / "d.gif") as film:
        assert (film.n_frames, film.size, film.info["duration"]) == (24, (200, 200), 100)


def test_a_flow_saved_from_python_can_be_used(tmp_path, capsys):
    cnf.CNF(dim=2, hidden=(8, 8)).save(tmp_path / "m")
    told = outcome(capsys, "info", tmp_path / "m")[1]
    assert "  x0  real\n  x1  real\n" in told and "base          normal\n" in told
    told = outcome(capsys, "sample", tmp_path / "m", "-n", 5, "-o", tmp_path / "s.csv")[1]
    assert told == f"{tmp_path / 's.csv'}: 5 rows\n"
    ran("plot", tmp_path / "m", "samples", "-o", tmp_path / "s.png")
    assert "no history" in refused(
        capsys, tmp_path, "plot", tmp_path / "m", "history", "-o", tmp_path / "h.png"
    )


# what is wrong

BAD_TABLES = {
    "ragged": ("a,b\n" + "1,2\n" * 20 + "3\n", ["line 22", "expected 2 cells"]),
    "constant": (
        "a,b\n" + "".join(f"{i},7\n" for i in range(20)),
        ["b: constant", "no columns are left"],
    ),
    "equal": ("a,b\n" + "".join(f"{i},{i}\n" for i in range(20)), ["no columns are left"]),
    "one row": ("a,b\n1,2\n", ["found 1"]),
    "no rows": ("a,b\n", ["found 0"]),
    "empty": ("", ["empty"]),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_table_that_cannot_be_fitted(name, tmp_path, capsys):
    content, told = BAD_TABLES[name]
    (tmp_path / "t.csv").write_text(content)
    line = refused(capsys, tmp_path, "fit", tmp_path / "t.csv", "-o", tmp_path / "m", *TINY)
    assert "t.csv" in line and all(part in line for part in told), line


BAD_FITS = {
    "missing file": (["nowhere.csv", "-o", "m"], ["nowhere.csv", "no such file"]),
    "unknown ending": (["table.foo", "-o", "m"], ["table.foo", ".parquet"]),
    "unknown toy": (["toy:nope", "-o", "m"], ["'nope'", "moons"]),
    "no steps": (["toy:moons", "-o", "m", "--steps", "0"], ["--steps"]),
    "negative seconds": (["toy:moons", "-o", "m", "--seconds", "-1"], ["--seconds", "above 0"]),
    "endless": (["toy:moons", "-o", "m", "--seconds", "inf"], ["--seconds", "finite"]),
    "not a number": (["toy:moons", "-o", "m", "--seconds", "nan"], ["--seconds", "finite"]),
    "two budgets": (["toy:moons", "-o", "m", "--steps", "5", "--seconds", "5"], ["not both"]),
    "text for steps": (["toy:moons", "-o", "m", "--steps", "many"], ["--steps"]),
    "no width": (["toy:moons", "-o", "m", "--width", "0"], ["--width"]),
    "unknown option": (["toy:moons", "-o", "m", "--stps", "5"], ["--stps", "cnf fit --help"]),
    "no output": (["toy:moons"], ["--output"]),
    "no device": (["toy:moons", "-o", "m", "--device", "abacus"], ["--device abacus", "cpu"]),
    "missing folder": (["toy:moons", "-o", "no/such/m"], ["no/such/m", "folder"]),
    "file for folder": (["toy:moons", "-o", "table.csv/m"], ["table.csv/m", "cannot be written"]),
    "folder for file": (["toy:moons", "-o", "."], ["folder"]),
    "output is input": (["table.csv", "-o", "./table.csv"], ["table.csv", "input"]),
    "missing column": (["table.csv", "-o", "m", "--columns", "a,bb"], ["'bb'", "'b'"]),
    "missing context": (["table.csv", "-o", "m", "--context", "cc"], ["'cc'", "'c'"]),
    "missing weights": (["table.csv", "-o", "m", "--weights", "w"], ["'w'"]),
    "bad weights": (["table.csv", "-o", "m", "--weights", "b"], ["table.csv", "weights", ">= 0"]),
    "nothing left": (["table.csv", "-o", "m", "--ignore", "a,b,c"], ["no columns"]),
    "repeated column": (["table.csv", "-o", "m", "--context", "a,a"], ["a,a"]),
    "no names": (["table.csv", "-o", "m", "--columns", ""], ["distinct column names"]),
    "valid without column": (
        ["table.csv", "-o", "m", "--valid", "short.csv"],
        ["short.csv", "'c'"],
    ),
}


@pytest.mark.parametrize("name", BAD_FITS)
def test_a_fit_that_cannot_be(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "cnf.recipe.tables.plain.fit", lambda *_, **__: pytest.fail("training began")
    )
    write(tmp_path, normal_table(30))
    write(tmp_path, normal_table(30)[["a", "b"]], "short.csv")
    arguments, told = BAD_FITS[name]
    line = refused(capsys, tmp_path, "fit", *arguments)
    assert all(part in line for part in told), line
    assert name != "valid without column" or "table.csv" not in line


BAD_USES = {
    "no command": ([], ["command"]),
    "unknown command": (["scroe"], ["scroe"]),
    "missing model": (["info", "nowhere"], ["nowhere"]),
    "not a model": (
        ["score", "table.csv", "table.csv", "-o", "s.csv"],
        ["table.csv", "expected a model, found a table"],
    ),
    "damaged model": (["sample", "damaged", "-o", "s.csv"], ["damaged"]),
    "missing table": (["score", "plane", "nowhere.csv", "-o", "s.csv"], ["nowhere.csv"]),
    "missing column": (["score", "plane", "other.csv", "-o", "s.csv"], ["'a'", "other.csv", "aa"]),
    "late damage": (["score", "plane", "late.csv", "-o", "s.csv"], ["late.csv", "line 32"]),
    "output of no kind": (["score", "plane", "table.csv", "-o", "s.foo"], ["s.foo", ".csv"]),
    "output in no folder": (["sample", "plane", "-o", "no/s.csv"], ["no/s.csv"]),
    "output is the model": (["sample", "plane", "-o", "plane"], ["plane", "input"]),
    "no rows": (["sample", "plane", "-n", "0", "-o", "s.csv"], ["-n"]),
    "no context": (["sample", "given", "-o", "s.csv"], ["--given", "c="]),
    "other context": (
        ["sample", "given", "-o", "s.csv", "--given", "d=1"],
        ["--given", "no column 'd'", "'c'"],
    ),
    "context of text": (["sample", "given", "-o", "s.csv", "--given", "c=north"], ["c=north"]),
    "context without value": (["sample", "given", "-o", "s.csv", "--given", "c"], ["name=value"]),
    "context not wanted": (
        ["sample", "plane", "-o", "s.csv", "--given", "c=1"],
        ["--given", "no column 'c'"],
    ),
    "unknown kind": (["plot", "plane", "portrait", "-o", "p.png"], ["portrait", "marginals"]),
    "picture of no kind": (["plot", "plane", "samples", "-o", "p.foo"], ["p.foo", ".png"]),
    "film of no film": (["plot", "plane", "samples", "-o", "p.gif"], ["p.gif", "no animation"]),
    "density of three": (["plot", "space", "density", "-o", "p.png"], ["2 columns", "3"]),
    "unknown axes": (
        ["plot", "space", "samples", "-o", "p.png", "--axes", "a,z"],
        ["--axes", "z"],
    ),
    "one axis": (["plot", "space", "samples", "-o", "p.png", "--axes", "a"], ["--axes", "two"]),
    "data without column": (
        ["plot", "plane", "samples", "-o", "p.png", "--data", "other.csv"],
        ["other.csv", "'a'"],
    ),
}


@pytest.mark.parametrize("name", BAD_USES)
def test_a_use_that_cannot_be(name, room, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for model in ("plane", "given", "space"):
        (tmp_path / model).write_bytes((room / f"{model}.safetensors").read_bytes())
    (tmp_path / "damaged").write_bytes((room / "plane.safetensors").read_bytes()[:-100])
    write(tmp_path, normal_table(30))
    write(tmp_path, normal_table(30).rename(columns={"a": "aa"}), "other.csv")
    (tmp_path / "late.csv").write_text("a,b\n" + "100,2\n" * 30 + "1\n")
    read_in_chunks(10, monkeypatch)
    arguments, told = BAD_USES[name]
    line = refused(capsys, tmp_path, *arguments)
    assert all(part in line for part in told), line


def test_a_table_of_one_column_has_marginals_only(room, tmp_path, capsys):
    ran("fit", room / "table.csv", "-o", tmp_path / "m", "--columns", "a", *TINY)
    capsys.readouterr()
    assert "marginals" in refused(
        capsys, tmp_path, "plot", tmp_path / "m", "samples", "-o", tmp_path / "p.png"
    )
    ran("plot", tmp_path / "m", "marginals", "-o", tmp_path / "p.png")


def test_a_training_that_diverges_is_told(room, tmp_path, capsys, monkeypatch):
    def diverge(*_, **__):
        raise cnf.TrainingError("training diverged")

    monkeypatch.setattr("cnf.recipe.tables.plain.fit", diverge)
    line = refused(
        capsys, tmp_path, "fit", room / "table.csv", "-o", tmp_path / "m", "--ignore", "w", *TINY
    )
    assert "table.csv" in line and "diverged" in line


def test_a_failure_leaves_an_old_output_as_it_was(room, tmp_path, capsys, monkeypatch):
    read_in_chunks(10, monkeypatch)
    (tmp_path / "s.csv").write_text("old")
    (tmp_path / "text.csv").write_text("a,b\n" + "1,2\n" * 30 + "1\n")
    refused(
        capsys,
        tmp_path,
        "score",
        room / "plane.safetensors",
        tmp_path / "text.csv",
        "-o",
        tmp_path / "s.csv",
    )
    assert (tmp_path / "s.csv").read_text() == "old"


def test_an_interrupted_command_says_so_and_leaves_nothing(room, tmp_path, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("cnf.recipe.tables.plain.fit", interrupt)
    code, out, err = outcome(
        capsys, "fit", room / "table.csv", "-o", tmp_path / "m", "--ignore", "w", *TINY
    )
    assert code == 130 and only_a_schema(out)
    assert err == "cnf: interrupted; no output was written, and --resume continues a fit\n"
    assert not list(tmp_path.iterdir())


def test_only_a_fit_is_resumed(room, tmp_path, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    def one_file(*_, **__):
        yield ScoreSummary()
        raise KeyboardInterrupt

    monkeypatch.setattr("cnf.cli.scoring.write_scores", interrupt)
    monkeypatch.setattr("cnf.cli.scoring.ScoredFolder.run", one_file)
    score = "score", room / "plane.safetensors", room / "table.csv", "-o", tmp_path / "s.csv"
    code, _, err = outcome(capsys, *score)
    assert (code, err) == (130, "cnf: interrupted; no output was written\n")
    assert not (tmp_path / "s.csv").exists()
    (tmp_path / "in").mkdir()
    folders = tmp_path / "in", "-o", tmp_path / "out"
    code, _, err = outcome(capsys, "score", room / "plane.safetensors", *folders)
    assert code == 130
    assert err.endswith(
        "out keeps the scores of finished files, and the same command scores the rest\n"
    )


def test_a_line_plays_no_tricks(tmp_path, capsys):
    line = refused(capsys, tmp_path, "info", "no\nsuch\x1b[31mmodel")
    assert "no such\\x1b[31mmodel" in line


def test_a_writable_output_is_left_alone(tmp_path):
    (tmp_path / "old").write_text("old")
    require_writable(tmp_path / "old", tmp_path / "input", None)
    require_writable(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old").read_text() == "old"


def test_names_may_hold_commas_in_quotes():
    assert names_in('a, "b, in cm",c=d') == ("a", "b, in cm", "c=d")
    assert names_in(None) == ()


# A process of its own: where pytest writes to a file, the limit would hold for that file too.
TINY_DISK = """
import resource, sys
from cnf.cli import main
from cnf.cli.data import declarations
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
sys.exit(main(sys.argv[1:]))
"""


def on_a_tiny_disk(folder: Path, *arguments: object) -> str:
    """The one line of a command that may write no file of more than 2000 bytes."""
    before = sorted(folder.rglob("*"))
    words = [sys.executable, "-c", TINY_DISK, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and only_a_schema(done.stdout)
    *stages, last = done.stderr.splitlines()
    assert all("begins" in stage or "done" in stage for stage in stages)
    assert sorted(folder.rglob("*")) == before
    return last


@pytest.mark.slow
@pytest.mark.parametrize(
    "ending", ["csv", *(pytest.param(word, marks=pytest.mark.slow) for word in ("parquet", "npy"))]
)
def test_a_disk_that_is_full_is_told(ending, room, tmp_path):
    output = tmp_path / f"s.{ending}"
    line = on_a_tiny_disk(tmp_path, "sample", room / "plane.safetensors", "-n", 3000, "-o", output)
    assert f"s.{ending}: cannot be written" in line and "space" in line


@pytest.mark.slow
def test_a_model_that_finds_no_room_is_told(room, tmp_path):
    line = on_a_tiny_disk(tmp_path, "fit", room / "table.csv", "-o", tmp_path / "m", *TINY)
    assert "m: cannot be written" in line


@pytest.mark.slow
def test_a_picture_that_finds_no_room_is_told(room, tmp_path):
    output = tmp_path / "p.png"
    assert "p.png" in on_a_tiny_disk(
        tmp_path, "plot", room / "plane.safetensors", "samples", "-o", output
    )


def test_progress_goes_to_a_terminal(room, tmp_path, capsys, monkeypatch):
    terminal, end = pty.openpty()
    with os.fdopen(end, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        ran("fit", room / "table.csv", "-o", tmp_path / "m", "--ignore", "w", *TINY, "--json")
    shown = os.read(terminal, 1 << 20).decode(errors="ignore")  # a read may end inside a sign
    os.close(terminal)
    assert json.loads(capsys.readouterr().out)["updates"] == 20
    assert "likelihood" in shown and "100%" in shown and "left" in shown


# processes of their own


def test_help_is_quick():
    start = time.perf_counter()
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True)
    assert time.perf_counter() - start < 1.5
    assert done.stderr == "" and all(
        name in done.stdout for name in ("fit", "score", "sample", "plot", "report", "info")
    )


def test_the_commands_load_nothing_heavy_until_they_run():
    heavy = "torch", "numpy", "pandas", "matplotlib", "rich"
    code = f"import sys, cnf.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.slow
def test_a_standard_output_that_is_full_is_told(room):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "info", str(room / "plane.safetensors")],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (
        done.returncode == 2
        and done.stderr.count("\n") == 1
        and os.strerror(errno.ENOSPC) in done.stderr
    )


KILLED_HALFWAY = """
import os, signal, sys
from cnf.cli import main
from cnf.cli.data import declarations
from cnf.training.checkpoint import CheckpointWriter

def write_and_die(writer, trainer, write=CheckpointWriter.write):
    write(writer, trainer)
    if trainer.step == 30:
        os.kill(os.getpid(), signal.SIGKILL)

CheckpointWriter.write = write_and_die
CheckpointWriter.__init__.__defaults__ = (0.0,)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_killed_fit_goes_on_to_the_same_model(room, tmp_path, capsys):
    """kill -9 in the middle; --resume ends with the file that an uninterrupted fit writes."""
    fit = [room / "table.csv", "--steps", 60, "--width", 8, "--seed", 3]
    ran("fit", *fit, "-o", tmp_path / "whole")
    words = [str(word) for word in ("fit", *fit, "-o", tmp_path / "model")]
    done = subprocess.run([sys.executable, "-c", KILLED_HALFWAY, *words], check=False)
    checkpoint = tmp_path / "model.checkpoint"
    assert done.returncode == -signal.SIGKILL
    assert checkpoint.exists() and not (tmp_path / "model").exists()
    ran(*words, "--resume")
    assert not checkpoint.exists()
    whole, resumed = (cnf.load(tmp_path / name) for name in ("whole", "model"))
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), resumed.state_dict().values())
    )


def test_a_command_that_fails_says_one_line_whatever_was_odd_on_the_way(tmp_path, capsys):
    """The density of a flow that no row can be solved for has no peak to draw."""
    flow = cnf.CNF(2, hidden=(4, 4), solver=cnf.Grid.uniform(4, "euler"))
    torch.nn.init.constant_(flow.field.W3, 1e30)
    flow.save(tmp_path / "m")
    assert main(["plot", str(tmp_path / "m"), "density", "-o", str(tmp_path / "x.png")]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and said.err.startswith("cnf: ")
    assert not (tmp_path / "x.png").exists()
