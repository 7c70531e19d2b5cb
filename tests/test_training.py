"""Training: objectives with known minimizers, the guard on the solver, budgets, seeds,
resuming."""

import copy
import math
import sys

import numpy
import pandas
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

import cnf
from cnf.datasets import toy
from cnf.inputs import as_rows
from cnf.ode import Grid
from cnf.recipe.mixture_baseline import MixtureBaseline
from cnf.recipe.settings import default_settings
from cnf.rows import Rows, weighted_nll
from cnf.training import (
    MaximumLikelihood,
    Phase,
    Settings,
    Trainer,
)
from cnf.training.batches import Batches
from cnf.training.checkpoint import CheckpointWriter, resume, write_checkpoint
from cnf.training.couplings import couple
from cnf.training.flow_matching import flow_matching_loss
from cnf.training.maximum_likelihood import likelihood_loss
from cnf.training.progress import LAYOUT
from cnf.training.validation import EMAValidator, ValidationResult, snapshot


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def small_flow(dim=2, seed=0, **options):
    torch.manual_seed(seed)
    return cnf.CNF(dim, hidden=(16, 16), **options)


class Shear(cnf.VelocityField):
    """dx/dt = rate (a one-parameter field whose flow moves everything by `rate`)."""

    def __init__(self, rate):
        super().__init__(1)
        self.rate = torch.nn.Parameter(torch.tensor([rate]))

    def forward(self, t, x, context=None):
        return self.rate + 0 * x


def test_flow_matching_recovers_a_translation():
    flow = cnf.CNF(1, field=Shear(0.0))
    y = torch.randn(64_000, 1, generator=generator()) + 3.0
    z = torch.randn(64_000, 1, generator=generator(2))
    loss = flow_matching_loss(flow, z, y, None, generator(1))
    (gradient,) = torch.autograd.grad(loss, flow.field.rate)
    # The loss is quadratic in the rate with curvature 2, so one Newton step lands on the
    # minimizer.
    assert (-gradient / 2).item() == pytest.approx(3.0, abs=0.03)


def test_likelihood_is_that_of_the_translated_normal():
    flow = cnf.CNF(1, field=Shear(3.0))
    y = torch.randn(50, 1, generator=generator()) + 3.0
    found = likelihood_loss(
        flow, y, None, generator(), solver=Grid.uniform(3), gradient="discrete"
    )
    truth = -torch.distributions.Normal(3.0, 1.0).log_prob(y).mean()
    assert found.nll.item() == pytest.approx(truth.item(), abs=1e-5)


@pytest.mark.parametrize("rows, block", [(64, 64), (64, 16), (8, 2)])
def test_coupling_is_the_cheapest_permutation_of_each_block(rows, block):
    z = torch.randn(rows, 3, generator=generator())
    y = torch.randn(rows, 3, generator=generator(1))
    coupled = couple(z, y, block)
    assert torch.equal(coupled.sort(0).values, y.sort(0).values)
    for k in range(0, rows, block):
        cost = torch.cdist(z[k : k + block], y[k : k + block]).square().numpy()
        i, j = linear_sum_assignment(cost)
        found = (z[k : k + block] - coupled[k : k + block]).square().sum().item()
        assert found == pytest.approx(cost[i, j].sum(), rel=1e-5)


def honesty(flow, y, grid):
    """NLL as the grid of training sees it, and as a fine solve does."""
    with torch.no_grad():
        seen = -flow.solve_log_prob(y, None, grid).log_prob.mean().item()
        true = -flow.solve_log_prob(y, None, Grid.uniform(96)).log_prob.mean().item()
    return seen, true


def likelihood_only(flow, x, steps=12):
    objective = MaximumLikelihood(solver_steps=steps)
    phase = Phase(objective, 250, None, 128, 5e-3, 0.99, 1)
    rows = Rows(x)
    return Trainer(flow, rows, rows.take(torch.arange(64)), Settings((phase,)), seed=0)


def cheated(x, entropy, seed):
    """A flow trained unguarded on two steps, stopped as soon as its objective lies below the
    entropy."""
    flow = small_flow(seed=seed, preprocess=cnf.Affine.whiten(x))
    (y, ladj), coarse = flow.preprocess(x), Grid.uniform(2)
    y = y.float()
    optimizer = torch.optim.Adam(flow.parameters(), lr=5e-3)
    batches, source = Batches(y, None, None), generator()
    for step in range(400):
        optimizer.zero_grad()
        batch, _ = batches.draw(128, source)
        likelihood_loss(flow, batch, None, source, solver=coarse, gradient="direct").nll.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()
        if step % 25 == 24:
            seen, true = (nll - ladj.item() for nll in honesty(flow, y[:1000], coarse))
            if seen < entropy - 0.5:
                return seen, true
    return seen, true


@pytest.mark.slow
def test_a_coarse_grid_is_cheated_and_the_guard_holds_it():
    """On two steps likelihood training drives its objective below the entropy, while the truth
    gets worse."""
    x = toy("checkerboard").sample(2000, generator())
    entropy = 3.46574
    # Rounding differs between machines, and such training is chaotic: one of a few seeds must show
    # it.
    found = next(
        pair
        for pair in (cheated(x, entropy, seed) for seed in range(4))
        if pair[0] < entropy - 0.5
    )
    assert found[1] - found[0] > 1.0 and found[1] > entropy

    coarse, guarded = Grid.uniform(2), small_flow(preprocess=cnf.Affine.whiten(x))
    y, jacobian = guarded.preprocess(x)
    y, jacobian = y.float()[:1000], jacobian.item()
    trainer = likelihood_only(guarded, x, steps=coarse.steps)
    trainer.run()
    seen, true = honesty(guarded, y, trainer.objective.control.grid)
    assert abs(true - seen) < 0.05
    assert true - jacobian > entropy - 0.05


@pytest.mark.parametrize(
    ("cost", "so_far", "times"),
    [
        (0.01, 0.0, [1.5, 2.9, 4.2, 5.4, 6.5, 7.5, 8.4, 9.1, 9.7, 10.0]),  # all marks
        (0.2, 0.0, [4.1, 6.4, 9.0, 9.8]),  # up to 0.8 seconds in all, spread over the marks
        (1.0, -math.inf, [1.4, 2.6, 3.8, 4.9, 5.9, 6.8, 7.6, 9.0]),  # up to a half of what is left
    ],
)
def test_validations_leave_most_of_the_seconds_to_updates(cost, so_far, times):
    """And the last of them is within the ten seconds."""
    phase = Phase(MaximumLikelihood(), None, 10.0, 16, 1e-3, 0.9, 10)
    rows = Rows(torch.randn(64, 2, generator=generator()))
    trainer = Trainer(small_flow(), rows, rows, Settings((phase,)), seed=0)
    state, due = trainer.state, []
    state.last_validation, state.phase.validation_seconds = cost, so_far
    for tick in range(1, 101):
        before, state.phase.seconds = trainer.phase_done, tick / 10
        if before >= 1:
            break
        done = trainer.phase_done
        if state.validation_is_due(before, done, phase.validations, trainer.seconds_left):
            state.phase.validation_seconds += cost
            due.append(state.phase.seconds)
    assert due == times


@pytest.mark.parametrize(
    ("verdicts", "kept"),
    [
        ([(2.0, 0.0), (1.0, 0.3), (1.2, 0.0)], 1.2),  # (NLL, what too many evaluations count for)
        ([(1.0, 0.3), (1.2, 0.2)], 1.0),
        ([(2.0, 0.0), (math.nan, 0.0), (1.5, 0.0)], 1.5),
    ],
)
def test_too_many_evaluations_count_against_weights(monkeypatch, verdicts, kept):
    phase = Phase(MaximumLikelihood(nfe_budget=10), 100, None, 16, 1e-3, 0.9, 1)
    rows = Rows(torch.randn(64, 2, generator=generator()))
    trainer = Trainer(small_flow(), rows, rows, Settings((phase,)), seed=0).start()
    trainer.objective.step = 50
    for nll, excess in verdicts:
        monkeypatch.setattr(
            trainer.validator, "validate", lambda nll=nll: ValidationResult(nll, 0.1, 10)
        )
        monkeypatch.setattr(
            trainer.objective.penalties, "update", lambda flow, excess=excess: excess
        )
        trainer._validate()
    assert trainer.state.best_nll == kept


@pytest.mark.slow
def test_fit_learns_a_gaussian_in_its_own_units():
    truth = torch.distributions.MultivariateNormal(
        torch.tensor([1000.0, -5.0]), torch.tensor([[400.0, 3.0], [3.0, 0.04]])
    )
    torch.manual_seed(0)
    x, test = truth.sample((3000,)), truth.sample((2000,))
    flow = small_flow()
    history = cnf.fit(flow, x, steps=200)
    gap = (truth.log_prob(test) - flow.log_prob(test)).mean().item()
    assert 0 <= gap + 0.01 < 0.05
    assert abs(history.valid_nll - truth.entropy().item()) < 5 * history.valid_se + 0.05


@pytest.mark.slow
def test_the_flow_keeps_the_best_weights_that_validation_saw():
    x = toy("moons").sample(1000, generator())
    flow = small_flow(base=cnf.NormalBase(2))
    history = cnf.fit(flow, x, steps=120)
    seen = [record.valid_nll for record in history.records if record.valid_nll is not None]
    assert history.valid_nll == pytest.approx(min(seen), abs=0.02)


def test_a_seeded_fit_is_bitwise_repeatable_and_leaves_the_global_state_alone():
    x = toy("moons").sample(400, generator())
    first, second = small_flow(), small_flow()
    before = torch.random.get_rng_state()
    cnf.fit(first, x, steps=40, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    cnf.fit(second, x, steps=40, seed=3)
    for a, b in zip(first.state_dict().values(), second.state_dict().values()):
        assert torch.equal(a, b)


def test_what_the_user_gave_is_kept():
    mine, base, solver = cnf.Affine.identity(2), cnf.StudentTBase(2), cnf.Torchdiffeq("dopri5")
    flow = small_flow(preprocess=mine, base=base, solver=solver)
    field = flow.field
    cnf.fit(flow, toy("moons").sample(300, generator()), steps=20)
    assert (
        flow.preprocess is mine
        and flow.base is base
        and flow.field is field
        and flow.solver is solver
    )


@pytest.mark.slow
def test_a_second_fit_keeps_the_map_and_places_the_grid_anew():
    x = toy("moons").sample(300, generator())
    flow = small_flow()
    cnf.fit(flow, x, steps=20)
    preprocess, grid = flow.preprocess, flow.solver
    cnf.fit(flow, 2 * x, steps=20)
    assert flow.preprocess is preprocess and flow.solver != grid


@pytest.mark.parametrize("gradient", ["discrete", "direct", "adjoint"])
@pytest.mark.slow
def test_every_gradient_trains(gradient):
    x = toy("moons").sample(500, generator())
    flow = small_flow()
    history = cnf.fit(flow, x, steps=12, likelihood_share=1.0, gradient=gradient)
    assert {record.phase for record in history.records} == {"likelihood"}
    assert history.records[-1].objective < history.records[0].objective


def test_weights_count_like_repeated_rows():
    low, high = torch.full((200, 1), -1.0), torch.full((200, 1), 1.0)
    y = torch.cat([low, high])
    weights = torch.cat([torch.ones(200), 3 * torch.ones(200)])
    drawn, _ = Batches(y, None, weights / weights.mean()).draw(20_000, generator())
    share = (drawn > 0).float().mean().item()
    assert abs(share - 0.75) < 5 * math.sqrt(0.75 * 0.25 / 20_000)
    nll, se = weighted_nll(torch.tensor([-1.0, -3.0]), torch.tensor([1.0, 3.0]))
    assert nll == pytest.approx(2.5) and se > 0


@pytest.mark.slow
def test_a_conditional_fit_follows_its_context():
    source = generator()
    context = torch.randint(0, 2, (3000, 1), generator=source).float()
    x = 0.3 * torch.randn(3000, 1, generator=source) + 4 * context - 2
    flow = small_flow(1, context_dim=1)
    cnf.fit(flow, x, context=context, steps=200, likelihood_share=0.05)
    means = [
        flow.sample((500,), torch.tensor([c]), generator=source).mean().item() for c in (0.0, 1.0)
    ]
    assert means == pytest.approx([-2.0, 2.0], abs=0.15)


def test_the_moving_average_forgets_the_start():
    flow = small_flow()
    validator = EMAValidator(flow, 0.999, Rows(torch.randn(20, 2)), Rows(torch.randn(20, 2)))
    with torch.no_grad():
        for parameter in flow.field.parameters():
            parameter.fill_(1.0)
    for _ in range(200):
        validator.update(flow)
    assert all((p - 1).abs().max() < 1e-2 for p in validator.average.module.parameters())


def trainer_for(steps=60, seed=0):
    x = toy("moons").sample(300, generator())
    flow = small_flow(preprocess=cnf.Affine.whiten(x))
    settings = default_settings(
        rows=len(x), dim=2, steps=steps, seconds=None, likelihood_share=0.5
    )
    return Trainer(flow, *Rows(x).split(0.1, generator()), settings.training(), seed=seed)


@pytest.fixture(scope="module")
def uninterrupted() -> Trainer:
    trainer = trainer_for()
    trainer.run()
    return trainer


@pytest.mark.parametrize("stop_at", [7, 30, 45])
def test_a_resumed_fit_ends_bitwise_as_an_uninterrupted_one(tmp_path, uninterrupted, stop_at):
    class Stop(Exception):
        pass

    def interrupt(trainer):
        if trainer.step == stop_at:
            write_checkpoint(tmp_path / "c", trainer)
            raise Stop

    whole, broken, resumed = uninterrupted, trainer_for(), trainer_for()
    broken.callbacks = (interrupt,)
    with pytest.raises(Stop):
        broken.run()
    resume(tmp_path / "c", resumed)
    resumed.run()
    for a, b in zip(whole.flow.state_dict().values(), resumed.flow.state_dict().values()):
        assert torch.equal(a, b)
    assert [r.objective for r in whole.history.records] == [
        r.objective for r in resumed.history.records
    ]


def test_a_resumed_fit_has_the_base_it_began_with(tmp_path):
    """A mixture that was fitted on another machine may differ in its last digits, and is taken
    up."""

    def of(shift):
        means = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]) + shift
        trainer = trainer_for()
        trainer.flow.base = cnf.MixtureBase(torch.ones(2), means, torch.eye(2).repeat(2, 1, 1))
        return trainer

    begun, resumed = of(0.0), of(1e-6)
    write_checkpoint(tmp_path / "c", begun.start())
    resume(tmp_path / "c", resumed)
    assert torch.equal(resumed.flow.base.means, begun.flow.base.means)
    with pytest.raises(cnf.ModelFileError, match="damaged"):
        resume(tmp_path / "c", trainer_for())


def test_a_checkpoint_of_another_fit_is_refused(tmp_path):
    write_checkpoint(tmp_path / "c", trainer_for(seed=1).start())
    with pytest.raises(cnf.ModelFileError, match="other rows, settings, seed or width"):
        resume(tmp_path / "c", trainer_for(seed=2))
    (tmp_path / "c").write_bytes((tmp_path / "c").read_bytes()[:500])
    with pytest.raises(cnf.ModelFileError, match="c: "):
        resume(tmp_path / "c", trainer_for(seed=1))


def test_fit_goes_on_from_its_checkpoint(tmp_path):
    path, x = tmp_path / "model.checkpoint", toy("moons").sample(100, generator())

    def stop(trainer):
        CheckpointWriter(path, seconds=0.0)(trainer)
        if trainer.step == 7:
            raise KeyboardInterrupt

    whole, resumed, seen = small_flow(), small_flow(), []
    cnf.fit(whole, x, steps=10)
    with pytest.raises(KeyboardInterrupt):
        cnf.fit(small_flow(), x, steps=10, checkpoint=path, callbacks=(stop,))
    cnf.fit(resumed, x, steps=10, checkpoint=path, callbacks=(seen.append,))
    assert len(seen) == 3
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), resumed.state_dict().values())
    )


def test_one_bad_update_rolls_back_to_the_average_with_a_smaller_rate():
    trainer = trainer_for(steps=40).start()
    average = snapshot(trainer.validator.average.module)
    with torch.no_grad():
        trainer.flow.field.W2.fill_(torch.nan)
    seen = []
    trainer.callbacks = (
        lambda t: seen.append((t.state.phase.rate_scale, snapshot(t.flow.field))),
    )
    history = trainer.run()
    rate_scale, weights = seen[0]
    assert rate_scale == 0.5 and all(torch.equal(weights[name], average[name]) for name in average)
    assert history.rollbacks == ["flow matching, update 1: the loss was not finite"]
    assert math.isfinite(trainer.state.best_nll)


def test_divergence_that_lasts_is_an_error():
    trainer = trainer_for(steps=40).start()
    with torch.no_grad():
        for parameter in (
            *trainer.flow.field.parameters(),
            *trainer.validator.average.module.parameters(),
        ):
            parameter.fill_(torch.nan)
        for tensor in trainer.best.values():
            tensor.fill_(torch.nan)
    with pytest.raises(cnf.TrainingError, match="diverged in flow matching"):
        trainer.run()


def test_validation_judges_weighted_rows_and_splits_do_not_overlap():
    rows = Rows(torch.arange(50.0)[:, None])
    train, held_out = rows.split(0.1, generator())
    together = torch.cat([train.x, held_out.x]).flatten().sort().values
    assert len(held_out) == 5 and torch.equal(together, torch.arange(50.0))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"x": torch.zeros(5, 2)}, "at least 10 rows"),
        ({"x": torch.zeros(50)}, r"\(rows, columns\)"),
        ({"x": torch.zeros(50, 3)}, "dim=2"),
        ({"x": torch.full((50, 2), torch.nan)}, "row 0, column 0"),
        ({"x": torch.ones(50, 2)}, "constant"),
        ({"x": torch.randn(50, 1).expand(50, 2)}, "linearly dependent"),
        ({"steps": 0}, "expected a budget above 0"),
        ({"steps": 5, "seconds": 1.0}, "not both"),
        ({"likelihood_share": 2.0}, r"\[0, 1\]"),
        ({"weights": -torch.ones(50)}, "weights"),
        ({"weights": torch.ones(49)}, r"\(50,\)"),
        ({"weights": torch.ones(50, 1)}, r"\(50,\)"),
        ({"gradient": "bogus"}, "direct, discrete, adjoint"),
        ({"tolerance": -1.0}, "positive number of nats"),
        ({"x_valid": torch.zeros(0, 2)}, "x_valid: expected at least one row"),
        ({"context": torch.zeros(50, 1)}, "columns and 1 of context"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(options, message):
    given = {
        "x": torch.randn(50, 2, generator=generator()),
        "steps": None if "seconds" in options else 5,
    }
    given |= options
    with pytest.raises(ValueError, match=message) as caught:
        cnf.fit(small_flow(), given.pop("x"), **given)
    assert "\n" not in str(caught.value)


def test_arrays_of_any_number_type_are_taken():
    values = numpy.arange(6).reshape(3, 2)
    for given in (
        values,
        values[:, ::-1],
        values.tolist(),
        pandas.DataFrame(values, columns=["a", "b"]),
    ):
        rows = as_rows("x", given, None, None, torch.device("cpu"))
        assert rows.x.dtype == torch.float64
        assert torch.equal(rows.x, torch.tensor(numpy.asarray(given).copy()).double())


@pytest.mark.slow
def test_a_held_out_likelihood_that_is_not_finite_does_not_stop_the_checkpoints(tmp_path):
    x = toy("moons").sample(100, generator())
    far = torch.cat([x[:5], torch.full((1, 2), 1e25)])
    writer = CheckpointWriter(tmp_path / "c", seconds=0.0)
    cnf.fit(small_flow(), x, far, steps=2, callbacks=(writer,))
    assert (tmp_path / "c").exists()


def test_a_stochastic_divergence_leaves_calibration_and_held_out_likelihood_exact():
    x = toy("moons").sample(300, generator())
    found = []
    for seed in (5, 6):
        flow = small_flow(divergence="hutchinson")
        torch.manual_seed(seed)
        history = cnf.fit(flow, x, steps=10, likelihood_share=0.0)
        found.append((history.valid_nll, flow.solver, flow.error_model))
    assert found[0] == found[1]


def gap_after(flow, name, **options):
    """Mean of log p_true − log p_model over 20,000 held-out points, confirmed by dopri8 in
    float64."""
    task = toy(name)
    x, test = task.sample(50_000, generator(1)), task.sample(20_000, generator(2))
    cnf.fit(flow, x, **options)
    flow.divergence = "auto"
    exact = copy.deepcopy(flow).double()
    exact.solver = cnf.Torchdiffeq("dopri8", rtol=1e-8, atol=1e-8)
    with torch.no_grad():
        log_prob = flow.log_prob(test)
        check = exact.log_prob(test[:1000].double())
    assert (check - log_prob[:1000]).mean().abs() < 1e-3
    return (task.log_prob(test) - log_prob.double()).mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("name, limit", [("checkerboard", 0.05), ("8gaussians", 0.008)])
def test_the_default_recipe_comes_near_the_entropy_in_two_minutes(name, limit):
    torch.manual_seed(0)
    assert gap_after(cnf.CNF(2), name, seconds=120) < limit


@pytest.mark.slow
@pytest.mark.parametrize("divergence, steps", [("auto", 350), ("hutchinson", 450)])
def test_likelihood_through_the_adjoint_alone_comes_near_the_entropy(divergence, steps):
    torch.manual_seed(0)
    field = cnf.GatedField(2, hidden=(32, 32), frequency=2.0)
    flow = cnf.CNF(2, field=field, divergence=divergence)
    assert gap_after(flow, "moons", steps=steps, likelihood_share=1.0, gradient="adjoint") < 0.1


def clusters(rows: int = 600) -> torch.Tensor:
    """Three tight clusters: easy for a mixture, hopeless for a flow in a hundred updates."""
    centers = torch.tensor([[-4.0, 0.0], [4.0, 1.0], [0.0, 5.0]], dtype=torch.float64)
    noise = torch.randn(rows, 2, generator=generator(), dtype=torch.float64)
    return centers[torch.arange(rows) % 3] + 0.05 * noise


def test_a_fit_falls_back_on_the_mixture_that_beats_it(tmp_path):
    x = clusters()
    flow = small_flow()
    history = cnf.fit(flow, x, steps=100)
    assert history.choices["base"].startswith("mixture of")
    # Entropy of the mixture: log 3 for the cluster, and that of a Gaussian of deviation 0.05 in
    # two columns.
    entropy = math.log(3) + math.log(2 * math.pi * math.e * 0.05**2)
    assert history.valid_nll == pytest.approx(entropy, abs=0.35)
    flow.save(tmp_path / "m.safetensors")
    with torch.no_grad():
        assert torch.equal(cnf.load(tmp_path / "m.safetensors").log_prob(x), flow.log_prob(x))


def test_a_base_that_was_given_stays():
    flow = cnf.CNF(2, hidden=(8, 8), base=cnf.NormalBase(2))
    assert cnf.fit(flow, clusters(), steps=100).choices["base"] == "given"


@pytest.mark.slow
def test_a_resumed_fit_ends_on_the_same_mixture(tmp_path):
    path, x = tmp_path / "model.checkpoint", clusters()

    def stop(trainer):
        CheckpointWriter(path, seconds=0.0)(trainer)
        if trainer.step == 95:
            raise KeyboardInterrupt

    whole, resumed = small_flow(), small_flow()
    cnf.fit(whole, x, steps=100)
    with pytest.raises(KeyboardInterrupt):
        cnf.fit(small_flow(), x, steps=100, checkpoint=path, callbacks=(stop,))
    history = cnf.fit(resumed, x, steps=100, checkpoint=path)
    assert history.choices["base"].startswith("mixture of")
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), resumed.state_dict().values())
    )


def test_weights_reach_the_mixture():
    """Rows of weight zero are not seen: the mixture has no component where they lie."""
    x = clusters()
    weights = (torch.arange(len(x)) % 3 != 0).double()
    nothing = torch.tensor(0.0)
    rows = Rows(x, weights=weights), Rows(x[weights > 0])
    rival = MixtureBaseline(*rows, nothing, seed=0, most=5).fit()
    assert rival.best.components in (2, 5)
    base = rival.best.base
    for found in (getattr(base, "base", base),):
        assert (found.means - torch.tensor([-4.0, 0.0])).norm(dim=-1).min() > 2


def test_a_bar_goes_to_a_terminal_and_lines_to_a_log(capsys, monkeypatch):
    for terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        cnf.fit(cnf.CNF(1), torch.randn(100, 1), steps=20, callbacks=[cnf.training.ProgressBar()])
        shown = capsys.readouterr().err
        if terminal:
            assert "100%|" in shown and "likelihood  NLL" in shown and "\n" not in shown
        else:
            begun, done = "flow matching begins", "likelihood is done, 20 steps"
            assert begun in shown and done in shown and len(shown.splitlines()) == 4


def test_a_notebook_draws_its_own_bar_in_place_of_ours():
    layout = LAYOUT.replace("{bar}", "<bar/>")  # as `tqdm.notebook` does
    shown = tqdm.format_meter(0.5, 1.0, 1.0, prefix="likelihood", bar_format=layout)
    assert shown == " 50%|<bar/>| likelihood"
