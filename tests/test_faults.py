"""Faults of the machine and of training: what is lost is nothing, and what happened is said."""

import errno
import json
import math
import os
import signal
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from problems import normal, seeded

import cnf
from cnf.cli import main
from cnf.datasets import toy
from cnf.ode import Grid, SolverError
from cnf.rows import Rows
from cnf.training import (
    FlowMatching,
    Interrupted,
    MaximumLikelihood,
    Phase,
    Settings,
    Trainer,
    TrainingError,
)
from cnf.training import checkpoint as checkpoints
from cnf.training import maximum_likelihood as likelihoods
from cnf.training.checkpoint import (
    CheckpointWarning,
    CheckpointWriter,
    generations,
    resume,
    write_checkpoint,
)
from cnf.training.solver_control import MOST_TRAINING_STEPS

STEPS = 24


def small_flow():
    torch.manual_seed(0)
    return cnf.CNF(2, hidden=(8, 8))


ROWS = toy("moons").sample(120, seeded())


def fitted(**options):
    flow = small_flow()
    history = cnf.fit(flow, ROWS, steps=STEPS, **options)
    return flow, history


@pytest.fixture(scope="module")
def whole():
    """The weights of a fit that nothing disturbed."""
    return fitted()[0].state_dict()


def same(flow, state):
    assert all(torch.equal(a, b) for a, b in zip(flow.state_dict().values(), state.values()))


def stopped(path, at=9):
    """The checkpoints of a fit that died after update `at`, one for each update."""

    def die(trainer):
        CheckpointWriter(path, seconds=0.0)(trainer)
        if trainer.step == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(callbacks=(die,))
    return generations(path)


# checkpoints


def test_two_generations_are_kept_and_the_newest_is_taken_up(tmp_path, whole):
    newest, previous = stopped(tmp_path / "c")
    assert sorted(tmp_path.iterdir()) == [newest, previous]
    seen = []
    flow, _ = fitted(checkpoint=newest, callbacks=(seen.append,))
    assert len(seen) == STEPS - 9
    same(flow, whole)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "gone"])
def test_the_last_good_checkpoint_is_used_and_the_damage_told(tmp_path, whole, damage):
    newest, _ = stopped(tmp_path / "c")
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 4
    ruins = {"truncated": content[:700], "flipped": content, "empty": b""}
    if damage == "gone":
        newest.unlink()
        flow, _ = fitted(checkpoint=newest)
    else:
        newest.write_bytes(ruins[damage])
        with pytest.warns(CheckpointWarning, match="resuming from the previous checkpoint"):
            flow, _ = fitted(checkpoint=newest)
    same(flow, whole)


def test_at_every_moment_there_is_a_newest_checkpoint(tmp_path, monkeypatch):
    """Whichever rename a fit is killed at: from the first checkpoint on there is one to go on
    from."""
    newest, there, replace = tmp_path / "c", [], Path.replace

    def watched(path, target):
        replace(path, target)
        there.append(newest.exists())

    monkeypatch.setattr(Path, "replace", watched)
    stopped(newest)
    assert len(there) > 10 and there == sorted(there), "once there, always there"


def test_where_no_checkpoint_is_sound_the_file_is_named(tmp_path):
    newest, previous = stopped(tmp_path / "c")
    for path in (newest, previous):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(CheckpointWarning), pytest.raises(cnf.ModelFileError, match=r"c\.previous"):
        fitted(checkpoint=newest)


@pytest.mark.slow
def test_a_full_disk_does_not_stop_the_fit(tmp_path, whole, monkeypatch):
    write, full = checkpoints.write_model, []

    def sometimes_full(path, *parts):
        if full:
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, *parts)

    def fill(trainer):
        if trainer.step == 5:
            full.append(True)

    monkeypatch.setattr(checkpoints, "write_model", sometimes_full)
    monkeypatch.setattr(CheckpointWriter.__init__, "__defaults__", (0.0,))
    with pytest.warns(CheckpointWarning, match=r"could not be saved \(.*No space left") as told:
        flow, _ = fitted(checkpoint=tmp_path / "c", callbacks=(fill,))
    assert len(told) == STEPS - 4
    assert "training step 5 " in str(told[0].message) and "\n" not in str(told[0].message)
    same(flow, whole)
    assert len(list(tmp_path.iterdir())) == 2
    full.clear()
    seen = []
    same(fitted(checkpoint=tmp_path / "c", callbacks=(seen.append,))[0], whole)
    assert len(seen) == STEPS - 4


def test_a_folder_that_is_closed_does_not_stop_the_fit(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(CheckpointWriter.__init__, "__defaults__", (0.0,))
    with pytest.warns(CheckpointWarning, match="could not be saved"):
        flow, _ = fitted(checkpoint=tmp_path / "no" / "folder")
    same(flow, whole)


# Ctrl-C


def test_an_interrupted_fit_leaves_a_flow_that_can_be_used():
    def interrupt(trainer):
        if trainer.step == 15:
            raise KeyboardInterrupt

    flow = small_flow()
    with pytest.raises(Interrupted) as stop:
        cnf.fit(flow, ROWS, steps=STEPS, callbacks=(interrupt,))
    assert isinstance(stop.value, KeyboardInterrupt) and not flow.training
    history = stop.value.history
    assert history.valid_nll == pytest.approx(
        min(r.valid_nll for r in history.records if r.valid_nll), abs=0.02
    )
    assert (
        flow.evaluate(ROWS).ok.all() and flow.error_model != small_flow().error_model
    )  # calibrated


@pytest.mark.slow
def test_ctrl_c_leaves_a_model_and_resume_goes_on_to_the_same_end(tmp_path, capsys, monkeypatch):
    table = tmp_path / "t.csv"
    pd.DataFrame(ROWS.numpy(), columns=["a", "b"]).to_csv(table, index=False)
    fit = ["fit", str(table), "--steps", "30", "--width", "8", "-o"]
    assert main([*fit, str(tmp_path / "whole")]) == 0

    def press(trainer):
        if trainer.step == 11:
            signal.raise_signal(signal.SIGINT)

    @contextmanager
    def pressing():
        yield (press,)

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("cnf.cli.fitting.progress", pressing)
    capsys.readouterr()
    assert main([*fit, str(tmp_path / "m")]) == 130
    told = capsys.readouterr()
    assert (
        "held-out NLL" not in told.out
        and "has the best model so far" in told.err
        and told.err.count("\n") == 1
    )
    assert signal.getsignal(signal.SIGINT) is handler
    assert main(["info", str(tmp_path / "m"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["interrupted"]
    monkeypatch.undo()
    assert main([*fit, str(tmp_path / "m"), "--resume"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "t.csv", "whole"]
    same(cnf.load(tmp_path / "m"), cnf.load(tmp_path / "whole").state_dict())


@pytest.mark.slow
def test_ctrl_c_while_an_imputer_is_fitted_leaves_the_state_of_the_flow_alone(
    tmp_path, capsys, monkeypatch
):
    table = tmp_path / "t.csv"
    frame = pd.DataFrame(ROWS.numpy().copy(), columns=["a", "b"])
    frame.loc[::5, "b"] = math.nan
    frame.to_csv(table, index=False)
    fit = ["fit", str(table), "--steps", "6", "--width", "8", "-o"]
    assert main([*fit, str(tmp_path / "whole")]) == 0
    monkeypatch.setattr(CheckpointWriter.__init__, "__defaults__", (0.0,))
    phases = []

    def press(trainer):
        phases.append(trainer.flow)
        if trainer.flow is not phases[0] and trainer.step == 3:
            signal.raise_signal(signal.SIGINT)

    @contextmanager
    def pressing():
        yield (press,)

    monkeypatch.setattr("cnf.cli.fitting.progress", pressing)
    assert main([*fit, str(tmp_path / "m")]) == 130
    assert phases[-1] is not phases[0]
    monkeypatch.undo()
    assert main([*fit, str(tmp_path / "m"), "--resume"]) == 0
    same(cnf.load(tmp_path / "m"), cnf.load(tmp_path / "whole").state_dict())


def test_an_interrupted_model_without_a_state_is_fitted_anew(tmp_path, capsys):
    table = tmp_path / "t.csv"
    pd.DataFrame(ROWS.numpy(), columns=["a", "b"]).to_csv(table, index=False)
    fit = ["fit", str(table), "--steps", "10", "--width", "4", "-o", str(tmp_path / "m")]
    assert main(fit) == 0
    flow = cnf.load(tmp_path / "m")
    flow.metadata = replace(flow.metadata, interrupted=True)
    flow.save(tmp_path / "m")
    capsys.readouterr()
    assert main([*fit, "--resume"]) == 0
    assert "already finished" not in capsys.readouterr().out
    assert not cnf.load(tmp_path / "m").metadata.interrupted


# divergence


OBJECTIVES = {objective.name: objective for objective in (FlowMatching, MaximumLikelihood)}


def trainer(phase="flow matching", steps=30):
    flow = small_flow()
    flow.preprocess = cnf.Affine.whiten(ROWS)
    settings = Settings((Phase(OBJECTIVES[phase](), steps, None, 64, 2e-3, 0.99, 3),))
    return Trainer(flow, *Rows(ROWS).split(0.1, seeded()), settings, seed=0)


def once(step, act):
    return lambda trainer: act(trainer) if trainer.step == step else None


def poison(trainer):
    with torch.no_grad():
        trainer.flow.field.W2.fill_(math.nan)


def poison_average(trainer):
    poison(trainer)
    with torch.no_grad():
        trainer.validator.average.module.W2.fill_(math.nan)


@pytest.mark.parametrize("act", [poison, poison_average])
def test_a_loss_that_is_not_finite_goes_back_and_says_so(act):
    fit = trainer()
    fit.callbacks = (once(12, act),)
    history = fit.run()
    assert history.rollbacks == ["flow matching, update 13: the loss was not finite"]
    assert fit.state.phase.rate_scale == 0.5 and fit.step == 30
    assert all(tensor.isfinite().all() for tensor in fit.flow.field.state_dict().values())
    assert math.isfinite(fit.state.best_nll)


@pytest.mark.slow
def test_a_field_that_the_solver_cannot_follow_goes_back():
    """The most steps and nats apart: what exploding evaluations look like from inside."""

    def explode(trainer):
        with torch.no_grad():
            trainer.flow.field.W3.mul_(3e3)
        trainer.objective.control.grid = Grid.uniform(MOST_TRAINING_STEPS - 1, "adams")

    fit = trainer("likelihood", 28)
    with torch.no_grad():
        for parameter in fit.flow.field.parameters():
            parameter.add_(0.1 * normal(*parameter.shape))
    fit.callbacks = (once(25, explode),)
    history = fit.run()
    assert any("the solve failed" in line for line in history.rollbacks)
    assert fit.state.phase.rate_scale <= 0.5 and math.isfinite(fit.state.best_nll)
    assert fit.flow.evaluate(ROWS).log_prob.isfinite().all()


@pytest.mark.parametrize(
    ("phase", "reason"),
    [("flow matching", "the loss exploded"), ("likelihood", "the loss was not finite")],
)
@pytest.mark.slow
def test_weights_that_jump_together_with_their_average_go_back_to_the_best(phase, reason):
    """Finite and senseless, both of them: what is left is what validation saw."""

    def jump(trainer):
        for field in (trainer.flow.field, trainer.validator.average.module):
            with torch.no_grad():
                field.W3.add_(30.0)

    fit = trainer(phase, 150)
    fit.callbacks = (once(85, jump),)
    history = fit.run()
    assert any(reason in line for line in history.rollbacks)
    assert fit.state.phase.rate_scale <= 0.5 and fit.step == 150
    assert fit.state.best_nll < 4 and fit.flow.evaluate(ROWS).ok.all()


def test_training_whose_loss_explodes_again_and_again_ends_with_an_error():
    def jump(trainer):
        with torch.no_grad():
            trainer.flow.field.W3.add_(30.0 * (trainer.step > 40))

    fit = trainer(steps=600)
    fit.callbacks = (jump,)
    with pytest.raises(TrainingError, match="diverged in flow matching"):
        fit.run()
    assert len(fit.history.rollbacks) == 10
    assert all(line.endswith(": the loss exploded") for line in fit.history.rollbacks)


def test_a_solver_that_wants_too_many_evaluations_goes_back(monkeypatch):
    """Exploding evaluations of the adaptive solver of the continuous adjoint."""
    real, calls = likelihoods.likelihood_loss, []

    def sometimes(*arguments, **options):
        calls.append(1)
        if len(calls) == 7:
            raise SolverError("the solve needs more than max_evaluations=10000")
        return real(*arguments, **options)

    monkeypatch.setattr(likelihoods, "likelihood_loss", sometimes)
    fit = trainer("likelihood", 12)
    history = fit.run()
    assert history.rollbacks == [
        "likelihood, update 7: the solve needs more than max_evaluations=10000"
    ]
    assert fit.step == 12 and fit.state.phase.rate_scale == 0.5


def test_rows_with_outliers_do_not_look_like_an_explosion():
    """Objectives with one row in ten thousand far out: in few batches, or in most of them."""
    chance = seeded(1)
    for share in (0.05, 0.5, 0.95):
        baseline = math.inf
        for _ in range(200):
            window = 1 + 500 * (torch.rand(20, generator=chance) < share)
            assert not FlowMatching().diverged(window.tolist(), baseline)
            baseline = min(baseline, window.max().item())


def test_rollbacks_are_kept_in_checkpoint_and_summary(tmp_path, capsys):
    fit, again = trainer(), trainer()
    fit.callbacks = (once(12, poison), once(20, lambda t: write_checkpoint(tmp_path / "c", t)))
    fit.run()
    assert resume(tmp_path / "c", again) and not resume(tmp_path / "nothing", trainer())
    assert again.history.rollbacks == fit.history.rollbacks != []
    known = {"history": fit.history.as_dict(), "gaussian": {"nll": 1.0, "standard_error": 0.1}}
    fit.flow.metadata = {**known, "rows": 1, "valid_rows": 1, "seed": 0, "version": "0"}
    fit.flow.save(tmp_path / "m")
    assert main(["info", str(tmp_path / "m")]) == 0
    assert "rolled back   1 times, last in flow matching, update 13" in capsys.readouterr().out
