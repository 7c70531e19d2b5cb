"""Tables whose rows were seen at several times, by the library and by the commands."""

import numpy as np
import pandas as pd
import pytest
import torch
from test_cli_tables import outcome, refused
from test_report import nats, unpacked

import cnf
from cnf.cli import main
from cnf.cli.model import load_model
from cnf.cli.plot_context import PlotOptions, plot_context
from cnf.diagnostics import CHECKS, check
from cnf.pictures import KINDS
from cnf.report.animation import motion
from cnf.report.data import report_data
from cnf.tables.held_out import held_out_rows
from cnf.tables.moments import moment_column

TIMES = (0.0, 1.0, 4.0)


def seen(times, names=("a", "b")) -> pd.DataFrame:
    """Columns with mean `time` and 0 at each time."""
    random = np.random.default_rng(0)
    parts = [pd.DataFrame(random.normal(size=(80, 2)), columns=names) for _ in times]
    for number, part in enumerate(parts):
        part[names[0]] += TIMES[number]
    return pd.concat([part.assign(day=time) for time, part in zip(times, parts)])


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    folder = tmp_path_factory.mktemp("snapshots")
    seen(TIMES).to_csv(folder / "seen.csv", index=False)
    seen(("2024-01-05", "2024-01-06", "2024-01-09")).to_csv(folder / "dated.csv", index=False)
    return folder


def fitted(room, name: str):
    words = ["fit", room / f"{name}.csv", "--time", "day", "-o", room / name, "--steps", "30"]
    assert main([*map(str, words), "--width", "16"]) == 0
    return cnf.load(room / name)


@pytest.fixture(scope="module")
def model(room):
    return fitted(room, "seen")


@pytest.fixture(scope="module")
def dated(room):
    return fitted(room, "dated")


@torch.no_grad()
def test_rows_are_scored_at_their_own_times(room, model):
    """As the flow alone scores them."""
    rows = pd.read_csv(room / "seen.csv")
    assert model.time == "day" and [c.name for c in model.schema.context] == ["day"]
    moving = cnf.SnapshotFlow(model.flow)
    x = torch.tensor(rows[["a", "b"]].to_numpy())
    expected = moving.log_prob(x, torch.tensor(rows["day"].to_numpy()))
    torch.testing.assert_close(model.log_prob(rows), expected, rtol=0, atol=1e-5)
    assert moving.span == (0.0, 4.0)


def test_a_row_outside_the_times_costs_no_other(model):
    rows = pd.DataFrame({"a": [0.0, 0.0, 0.0], "b": 0.0, "day": [0.0, 4.5, 4.0]})
    found = model.evaluate(rows)
    assert found.ok.tolist() == [True, False, True]
    assert found.log_prob.isnan().tolist() == [False, True, False]


def test_dates_are_times(room, dated):
    """Days count: the same numbers as the table of numbers has."""
    rows = pd.read_csv(room / "dated.csv")
    assert cnf.SnapshotFlow(dated.flow).span[1] - cnf.SnapshotFlow(dated.flow).span[0] == 4.0
    assert dated.log_prob(rows).isfinite().all()
    between = dated.sample(200, {"day": "2024-01-07"}, generator=torch.Generator().manual_seed(0))
    assert list(between) == ["a", "b"]
    assert 0 < between["a"].mean() < 4


@torch.no_grad()
def test_commands_sample_and_score_at_a_time(room, model, dated, tmp_path, capsys):
    out = tmp_path / "drawn.csv"
    assert outcome(capsys, "sample", room / "seen", "--at", 2.5, "-n", 50, "-o", out)[0] == 0
    generator = torch.Generator().manual_seed(0)
    expected = model.sample(50, {"day": 2.5}, generator=generator)
    np.testing.assert_allclose(pd.read_csv(out), expected, atol=1e-4)
    at = ("--at", "2024-01-08", "-n", 5, "-o", out)
    assert outcome(capsys, "sample", room / "dated", *at)[0] == 0
    assert len(pd.read_csv(out)) == 5
    scores = tmp_path / "scores.csv"
    data = room / "seen.csv"
    assert outcome(capsys, "score", room / "seen", data, "-o", scores)[0] == 0
    found = pd.read_csv(scores)["log_prob"]
    np.testing.assert_allclose(found, model.log_prob(pd.read_csv(data)), atol=1e-4)


def test_a_picture_shows_densities_at_times_and_paths_between(room, dated, monkeypatch):
    """A map for each of five times, titled as the column spells them."""
    monkeypatch.setattr("cnf.pictures.moments.CELLS", 8)
    context = plot_context(load_model(room / "dated"), KINDS["times"], PlotOptions())
    page = KINDS["times"].drawing(context)
    titles = [ax.get_title() for ax in page.axes]
    assert titles == [*(f"2024-01-0{day}" for day in range(5, 10)), "paths"]
    # The path of a particle ends where the flow brings it.
    moving = cnf.SnapshotFlow(dated.flow)
    ends = page.axes[-1].collections[-1].get_offsets()
    starts = page.axes[-1].collections[-2].get_offsets()
    first, last = moving.span
    there = moving.trajectory(torch.tensor(np.asarray(starts)), [last], start=first)[0]
    np.testing.assert_allclose(ends, there.detach(), atol=1e-3)


@torch.no_grad()
@pytest.mark.slow
def test_a_report_moves_through_the_times_of_the_table(room, dated):
    """Particles, heights and maps are those of the flow at the times that the clock tells."""
    rows, _ = held_out_rows(dated, pd.read_csv(room / "dated.csv"))
    shown = report_data(dated.flow, rows, None, ["a", "b"], show_time=dated.schema.spelling("day"))
    found = motion(shown)
    assert [found["clock"][k] for k in (0, 16, 32)] == ["2024-01-05", "2024-01-07", "2024-01-09"]
    assert len(set(found["seen"])) == 3 and max(found["seen"]) == 1
    moving = cnf.SnapshotFlow(shown.flow)
    first, last = moving.span
    particles = unpacked(found["particles"]).transpose(1, 2, 0)
    times = [first, (first + last) / 2, last]
    start = torch.tensor(particles[0, :, :2], dtype=torch.float64)
    path = moving.trajectory(start, times, start=first)
    for k, time, there in zip((0, 16, 32), times, path):
        np.testing.assert_allclose(particles[k, :, :2], there, atol=1e-3)
        height = moving.log_prob(there, time)
        np.testing.assert_allclose(particles[k, :, 2], height, atol=2e-3)
    assert found["exact"]
    (left, right), (bottom, top) = found["limits"][:2]
    maps = nats(found["maps"]["0,1"])
    cells = maps.shape[1]
    x = torch.tensor(
        [left + 30.5 * (right - left) / cells, bottom + 32.5 * (top - bottom) / cells]
    )
    assert maps[16, 32, 30] == pytest.approx(moving.log_prob(x, times[1]).item(), abs=0.03)


def test_what_is_no_table_of_snapshots_is_refused(room, model, tmp_path, capsys):
    fit = ("fit", room / "seen.csv", "-o", tmp_path / "m", "--steps", 4)
    assert "time: expected no source beside it" in refused(
        capsys, *fit, "--time", "day", "--source", room / "seen.csv"
    )
    assert "'day' is categorical" in refused(capsys, *fit, "--time", "a")
    sample = ("sample", room / "seen", "-o", tmp_path / "x.csv")
    said = refused(capsys, *sample, "--at", 7)
    assert "--at '7': " in said and "7 is outside" in said
    assert "omit --given" in refused(capsys, *sample, "--at", 1, "--given", "day=2")
    dated = ("sample", room / "dated", "-o", tmp_path / "x.csv", "--at")
    said = refused(capsys, *dated, "soon, or later")
    assert "--at 'soon, or later'" in said and "such as 2024-01-05; got 'soon" in said
    assert outcome(capsys, *fit, "--ignore", "day", "--width", 8)[0] == 0
    asked = (room / "seen", room / "seen.csv", "-o", tmp_path / "x.csv")
    assert "fit the rows of one time alone" in refused(capsys, "impute", *asked)
    assert "starts from no table" in refused(capsys, "transport", *asked)
    plot = ("plot", tmp_path / "m", "times", "-o", tmp_path / "x.png")
    assert "--time" in refused(capsys, *plot)
    assert "--time" in refused(
        capsys, "sample", tmp_path / "m", "-o", tmp_path / "x.csv", "--at", 1
    )


@pytest.mark.parametrize(
    "change, told",
    [
        ({"day": 1.0}, "at two times at least"),
        ({"day": [None] + [1.0] * 119 + [2.0] * 120}, "missing cell"),
        ({"day": [0.0] * 237 + [2.0] * 3}, "at least 10 rows at every time; found 3 at 2"),
        ({"a": ["x", "y"] * 120}, "needs continuous columns; 'a' is categorical"),
    ],
)
def test_tables_that_cannot_be_fitted_are_refused_in_one_line(change, told):
    table = seen(TIMES).reset_index(drop=True).assign(**change)
    with pytest.raises(ValueError, match=told) as failure:
        cnf.fit_table(table, time="day", steps=4)
    assert "\n" not in str(failure.value)


def test_both_ends_of_the_times_are_inside():
    column = moment_column(pd.Series([0.0, 3.0, 5.0], name="t"))
    values, states = column.encode(pd.Series([0.0, 5.0, 5.1, -0.1]))
    assert states.tolist() == [0, 0, -2, -2] and values.tolist()[:2] == [0.0, 5.0]


def test_it_is_checked_as_any_model(room, model):
    """Gradients by its times too, at the first and the last as well."""
    rows = model.numeric_rows(pd.read_csv(room / "seen.csv").iloc[::6])
    names = ("gradients", "volume", "own samples")
    checks = [one for one in CHECKS if one.name in names]
    claims = check(model.flow, rows.x, context=rows.context, checks=checks)
    assert {claim.name for claim in claims} == {*names}
    assert [claim for claim in claims if not claim.passed] == []
