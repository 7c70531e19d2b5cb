"""What a fit chooses by itself: maps, bases, rivals, settings."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from problems import F64, normal
from scipy.optimize import minimize
from sklearn.mixture import GaussianMixture

import cnf
from cnf.datasets import TOYS
from cnf.recipe.architecture import default_flow
from cnf.recipe.bases import choose_base
from cnf.recipe.defaults import LARGE_COMPONENTS
from cnf.recipe.mixture_baseline import MixtureBaseline
from cnf.recipe.pilot_fits import affords_pilot_fits, best_transform
from cnf.recipe.preparation import at_rest
from cnf.recipe.settings import FitSettings, default_settings
from cnf.recipe.stacking import Stack, WeightedRows, stacking_shares
from cnf.recipe.transforms import candidate_transforms_of_reals
from cnf.rows import Rows
from cnf.training import MaximumLikelihood, Phase, Settings
from cnf.training.trainer import Trainer
from cnf.training.validation import EMAValidator, ValidationResult
from cnf.transforms import Affine


def split(x):
    return Rows(x[: len(x) * 4 // 5]), Rows(x[len(x) * 4 // 5 :])


GAUSSIANIZED = "Gaussianized columns, whitened"


@pytest.mark.slow
def test_skewed_columns_may_be_gaussianized_and_normal_ones_are_not():
    plain = normal(5000, 3) @ normal(3, 3, seed=1)
    assert list(candidate_transforms_of_reals(*split(plain), 0)) == ["whitened"]
    maps = candidate_transforms_of_reals(*split((2 * plain).exp()), 0)
    assert list(maps) == ["whitened", GAUSSIANIZED] and isinstance(maps[GAUSSIANIZED], cnf.Chain)


def test_a_small_table_is_whitened_only():
    assert list(candidate_transforms_of_reals(*split(normal(500, 2).exp()), 0)) == ["whitened"]


@pytest.mark.slow
def test_a_trial_likes_the_map_that_a_flow_gets_further_with():
    """Of two maps, the one that undoes what made the rows; and it leaves the flow as it was."""
    train, valid = split((2 * normal(1000, 2)).exp())
    flow = default_flow(len(train), 2, hidden=(4, 4), seed=0)
    before = {name: tensor.clone() for name, tensor in flow.state_dict().items()}
    maps = [cnf.Affine.whiten(train.x), cnf.Gaussianize.fit(train.x)]
    settings = default_settings(rows=3000, dim=2, steps=9000, seconds=None, likelihood_share=None)
    assert affords_pilot_fits(settings)
    assert best_transform(flow, maps, train, valid, settings, seed=0) == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in flow.state_dict().items())


def test_a_small_budget_bears_no_trials():
    for budget in ({"steps": 1000, "seconds": None}, {"steps": None, "seconds": 30.0}):
        assert not affords_pilot_fits(
            default_settings(rows=3000, dim=2, likelihood_share=None, **budget)
        )


def test_likelihood_has_more_of_the_seconds_where_rows_are_many():
    def shares(rows, **budget):
        settings = default_settings(rows=rows, dim=4, likelihood_share=None, **budget)
        first, second = (phase.seconds or phase.steps for phase in settings.phases)
        return second / (first + second)

    few, many = (shares(rows, steps=None, seconds=100.0) for rows in (10_000, 100_000))
    assert 0.5 < few < many < 0.95
    assert (
        shares(10_000, steps=1000, seconds=None)
        == shares(100_000, steps=1000, seconds=None)
        == 0.1
    )


def test_outliers_bring_heavy_tails():
    y = normal(4000, 3)
    valid = Rows(normal(1000, 3, seed=1))
    assert isinstance(choose_base(Rows(y), valid, 0), cnf.NormalBase)
    y[:4] *= 20
    assert isinstance(choose_base(Rows(y), valid, 0), cnf.ContaminatedBase)
    # Rows of weight zero are not seen.
    weights = (torch.arange(4000) >= 4).double()
    assert isinstance(choose_base(Rows(y, None, weights), valid, 0), cnf.NormalBase)


def test_heavy_columns_bring_a_student_base():
    y = torch.distributions.StudentT(2.5).sample((5000, 4)).double()
    base = choose_base(*split(y / y.std(0)), 0)
    assert isinstance(base, cnf.StudentTBase)


def whitened(x):
    return split((x - x.mean(0)) / x.std(0))


@pytest.mark.parametrize("name", ["checkerboard", "2spirals", "8gaussians"])
def test_a_mixture_of_wide_gaussians_is_the_base_of_two_columns_far_from_normal(name):
    """It is nearer to held-out rows than a normal base, and no density of them falls into a gap of
    it."""
    train, valid = whitened(TOYS[name].sample(20_000, torch.Generator().manual_seed(0)).double())
    base = choose_base(train, valid, 0)
    assert isinstance(base, cnf.MixtureBase) and base.describe() == "mixture of 32 Gaussians"
    found, plain = base.log_prob(valid.x), cnf.NormalBase(2).log_prob(valid.x)
    assert found.mean() - plain.mean() > 0.05
    assert found.min() > -9
    # The same of the same rows, and its draws spread further than they do.
    assert torch.equal(choose_base(train, valid, 0).factors, base.factors)
    drawn = base.sample((20_000,), torch.Generator().manual_seed(1), dtype=train.x.dtype)
    assert (drawn.var(0) > train.x.var(0)).all()


def test_few_rows_more_columns_and_a_context_keep_the_plain_base():
    x = TOYS["8gaussians"].sample(6000, torch.Generator().manual_seed(0)).double()
    train, valid = whitened(x)
    wider = [Rows(torch.cat([rows.x, rows.x.flip(0)], 1)) for rows in (train, valid)]
    given = [Rows(rows.x, rows.x[:, :1]) for rows in (train, valid)]
    for rows in ([train.take(torch.arange(1000)), valid], wider, given):
        assert isinstance(choose_base(*rows, 0), cnf.NormalBase)


@pytest.mark.parametrize("far", [1e9, 1e160])
def test_rows_too_far_out_for_a_mixture_keep_a_plain_base(far):
    """As a map that is given may leave them."""
    train, valid = whitened(
        TOYS["8gaussians"].sample(6000, torch.Generator().manual_seed(0)).double()
    )
    for rows in (train, valid):
        rows.x[::100] *= far
    assert not isinstance(choose_base(train, valid, 0), cnf.MixtureBase)


def test_outliers_of_a_mixture_bring_heavy_tails():
    train, valid = whitened(
        TOYS["8gaussians"].sample(20_000, torch.Generator().manual_seed(0)).double()
    )
    for seed, rows in enumerate(
        (train, valid)
    ):  # no Gaussian of its own for those that are held out
        rows.x[:2] = 12 * normal(2, 2, seed=seed)
    base = choose_base(train, valid, 0)
    assert isinstance(base, cnf.ContaminatedBase) and isinstance(base.base, cnf.MixtureBase)
    assert base.describe() == "mixture of 32 Gaussians with heavy tails"


def rings(rows: int) -> torch.Tensor:
    """A ring: the likelihood of mixtures rises with every component."""
    angle = 2 * math.pi * torch.rand(rows, generator=torch.Generator().manual_seed(0), dtype=F64)
    return torch.stack([angle.cos(), angle.sin()], 1) + 0.01 * normal(rows, 2)


@pytest.mark.slow
def test_a_fit_outlives_outliers_that_mixtures_do_not(monkeypatch):
    """In float32, the covariance of rows so far out may not be positive definite."""
    x = normal(2400, 8)
    x[:3] *= 1e4

    def refuse(self, rows, y=None):
        raise ValueError("Fitting the mixture model failed: ill-defined empirical covariance")

    monkeypatch.setattr(GaussianMixture, "fit", refuse)
    flow = cnf.CNF(8, hidden=(4, 4))
    history = cnf.fit(flow, x, steps=10)
    assert math.isfinite(history.valid_nll) and flow.evaluate(x[3:50]).ok.all()


def rival(rows: int = 3000, **options) -> MixtureBaseline:
    x = rings(rows)
    settings = {"seed": 0, "most": LARGE_COMPONENTS, **options}
    return MixtureBaseline(*split(x), torch.tensor(0.0), **settings).fit()


def test_a_mixture_grows_as_its_likelihood_promises():
    found = rival()
    small = found.best
    assert small.components == 40 and found.extrapolated_nll < small.nll
    found.fit_largest()
    assert found.found[-1].components == min(LARGE_COMPONENTS, 2400 // 25)
    assert found.best.nll == min(candidate.nll for candidate in found.found)


def test_rows_and_budget_bound_the_components():
    assert rival(rows=60).best is None
    assert rival(most=9).best.components == 5


def two_clusters(rows: int) -> torch.Tensor:
    x = 0.2 * normal(rows, 2)
    x[::2] += 2.0
    return x[torch.randperm(rows, generator=torch.Generator().manual_seed(1))]


def stacked(x, weights=None, **options) -> Stack:
    """A stack of four fifths of the rows, judged by the others."""
    rows = Rows(x, weights=weights)
    places = torch.arange(len(x)).split(len(x) * 4 // 5)
    parts = [rows.take(some) for some in (places[0], torch.cat(places[1:]))]
    return Stack(Affine.identity(x.shape[1]), *parts, **{"seed": 0, "seconds": None, **options})


@pytest.mark.slow
def test_few_rows_fall_back_on_the_mixture_that_leads():
    x = two_clusters(200)
    stack = stacked(x)
    found = stack.of_all_rows()
    assert not stack.is_led_by(cnf.CNF(2).double())  # at rest: one Gaussian of unit variance
    low = found.means.sum(1) < 2
    torch.testing.assert_close(found.weights[low].sum(), x.new_tensor(0.5), atol=0.05, rtol=0)
    for cluster, center in ((low, 0.0), (~low, 2.0)):
        shares = found.weights[cluster] / found.weights[cluster].sum()
        torch.testing.assert_close(
            shares @ found.means[cluster], x.new_tensor([center] * 2), atol=0.1, rtol=0
        )


@pytest.mark.slow
def test_stacked_mixtures_are_better_than_the_best_of_them():
    """On rows that none has seen, which is more than the best of them could know."""
    x, fresh = (
        TOYS["pinwheel"].sample(rows, torch.Generator().manual_seed(seed)).double()
        for rows, seed in ((250, 0), (5_000, 1))
    )
    found = stacked(x).of_all_rows()
    nll = [
        -GaussianMixture(components, covariance_type=shape, n_init=2, random_state=0)
        .fit(x)
        .score(fresh)
        for components in (1, 2, 3, 5, 8, 12)
        for shape in ("full", "diag")
    ]
    assert -found.log_prob(fresh).mean() < min(nll) - 0.1


def test_shares_of_a_stack_are_where_no_other_has_a_higher_likelihood():
    log_prob = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)).double().numpy()
    weights = np.linspace(0.1, 3.0, 60)
    shares = stacking_shares(log_prob, weights)

    def likelihood(shares):
        return weights @ np.log(np.exp(log_prob) @ shares)

    found = minimize(
        lambda w: -likelihood(np.abs(w) / np.abs(w).sum()), np.full(3, 1 / 3), method="Nelder-Mead"
    )
    assert shares.sum() == pytest.approx(1.0)
    assert likelihood(shares) == pytest.approx(-found.fun, abs=1e-4)


def test_rows_that_judged_a_stack_do_not_say_how_good_it_is():
    """What is told is what the mixtures of the training rows made of them; a refit learns them
    only then."""
    x = 3 * normal(100, 6) @ normal(6, 6, seed=1)
    fresh = 3 * normal(20_000, 6, seed=2) @ normal(6, 6, seed=1)
    stack = stacked(x)
    told, error = stack.nll
    refit = stack.of_all_rows()
    assert -stack.mixture.log_prob(x[80:]).mean().item() == pytest.approx(told)
    assert -refit.log_prob(x[80:]).mean() < told - 0.2
    assert -refit.log_prob(fresh).mean() == pytest.approx(told, abs=4 * error)


def test_weights_of_one_change_nothing_and_whole_ones_are_repetitions():
    x = two_clusters(60)
    plain, ones = (
        stacked(x, weights).of_all_rows() for weights in (None, torch.ones(60, dtype=F64))
    )
    assert torch.equal(plain.means, ones.means) and torch.equal(plain.weights, ones.weights)
    counts = torch.arange(60) % 3 + 1
    weighted = WeightedRows.of(x, counts / counts.double().mean())
    assert np.array_equal(weighted.repeated(), x.repeat_interleave(counts, 0).numpy())


def many_on_a_ring() -> cnf.MixtureBase:
    """More Gaussians than few rows may choose."""
    angle = torch.linspace(0, 2 * math.pi, 201)[:-1]
    many = torch.stack([angle.cos(), angle.sin()], 1)
    return cnf.MixtureBase(torch.ones(200), many, 0.02 * torch.eye(2).expand(200, 2, 2))


def test_few_rows_keep_a_flow_that_leads():
    assert stacked(rings(400)).is_led_by(cnf.CNF(2, base=many_on_a_ring()).double())


def test_a_row_that_is_lost_does_not_decide_against_the_flow(monkeypatch):
    """It counts as the worst of the others."""
    solve = cnf.CNF.log_prob

    def lose_one(flow, x):
        log_prob = solve(flow, x)
        log_prob[-1] = math.nan
        return log_prob

    monkeypatch.setattr(cnf.CNF, "log_prob", lose_one)
    assert stacked(rings(400)).is_led_by(cnf.CNF(2, base=many_on_a_ring()).double())


def test_no_time_chooses_little():
    assert len(stacked(two_clusters(200), seconds=0.0).mixture.weights) <= 2


@pytest.mark.slow
def test_a_flow_that_learns_few_rows_by_heart_ends_early(tmp_path, monkeypatch):
    """It is behind the stack and falls back; a fit that was interrupted on the way ends alike."""
    steps = 240
    monkeypatch.setattr("cnf.recipe.mixture_fallback.STACKING_STEPS", steps)
    x = two_clusters(50)

    def fitted(**options):
        flow = cnf.CNF(2, hidden=(16, 16))
        return flow, cnf.fit(flow, x, **options)

    flow, history = fitted()
    assert history.records[-1].step == steps and at_rest(flow)
    checkpoint = tmp_path / "c"

    def stop_at(loop):
        if loop.step == 140:
            loop.stop()

    with pytest.raises(KeyboardInterrupt):
        fitted(checkpoint=checkpoint, callbacks=[stop_at])
    resumed, again = fitted(checkpoint=checkpoint)
    assert again.valid_nll == history.valid_nll
    assert torch.equal(resumed.base.means, flow.base.means)


@pytest.mark.slow
def test_a_flow_that_gains_on_few_rows_goes_on():
    history = cnf.fit(cnf.CNF(2), rings(400), steps=600)
    assert history.records[-1].step == 600


@pytest.mark.slow
def test_a_fit_of_few_rows_falls_back(monkeypatch):
    """A field of single units cannot part two clusters, and forty rows have no rival of their
    own."""
    monkeypatch.setattr("cnf.recipe.mixture_fallback.STACKING_STEPS", 100)
    x = two_clusters(50)
    flow = default_flow(40, 2, hidden=(1, 1), seed=0)
    history = cnf.fit(flow, x[:40], steps=100)
    assert history.choices["preprocess"] == "standardized"
    assert history.choices["base"].startswith("mixture of") and at_rest(flow)
    one = torch.distributions.MultivariateNormal(x[:40].mean(0), x[:40].T.cov())
    assert flow.log_prob(x[40:]).mean() > one.log_prob(x[40:]).mean() + 0.1


def test_settings_follow_the_columns_and_the_user():
    def settings(dim: int, **chosen) -> FitSettings:
        return default_settings(
            rows=1000, dim=dim, steps=100, seconds=None, likelihood_share=None, **chosen
        )

    assert settings(2).coupling_block == 64 and settings(10).coupling_block is None
    assert settings(2, coupling_block=None, weight_decay=0.5).weight_decay == 0.5
    with pytest.raises(
        TypeError, match="unknown keyword 'wieght_decay'; did you mean weight_decay"
    ):
        settings(2, wieght_decay=0.5)
    with pytest.raises(ValueError, match="expected no steps"):
        settings(2, phases=(Phase(MaximumLikelihood(), 1, None, 64, 1e-3, 0.99, 1),))


def test_there_is_a_phase():
    with pytest.raises(ValueError, match="at least one"):
        Settings(())


def test_phases_by_name_work_with_a_warning():
    def settings(*names):
        phases = tuple(Phase(name, 3, None, 64, 1e-3, 0.99, 1) for name in names)
        return default_settings(
            rows=100, dim=2, steps=None, seconds=None, likelihood_share=None,
            phases=phases, coupling_block=8,
        )  # fmt: skip

    with pytest.warns(DeprecationWarning, match="Phase takes an objective"):
        first, second = (
            phase.objective for phase in settings("flow matching", "likelihood").phases
        )
    assert first.coupling.block == 8 and isinstance(second, MaximumLikelihood)
    with (
        pytest.warns(DeprecationWarning),
        pytest.raises(ValueError, match="phase: expected flow matching, likelihood; got 'flow'"),
    ):
        settings("flow")


def test_what_would_be_ignored_is_refused():
    x, flow = normal(40, 2), cnf.CNF(2, hidden=(4, 4), preprocess=cnf.Affine.identity(2))
    with pytest.raises(ValueError, match="ranges: expected none"):
        cnf.fit(flow, x, steps=2, ranges=((None, None), (-9.0, None)))
    with pytest.raises(ValueError, match="x_valid beside it"):
        cnf.fit(
            cnf.CNF(2, context_dim=1, hidden=(4, 4)),
            x,
            context=x[:, :1],
            context_valid=x[:, :1],
            steps=2,
        )


@pytest.mark.slow
def test_a_phase_that_starts_behind_the_one_before_goes_on_while_it_gets_better(monkeypatch):
    """And what is kept is the best of all phases."""
    nll = iter([0.5, *[2.0 - 0.1 * k for k in range(10)], *[1.5] * 10])
    monkeypatch.setattr(EMAValidator, "validate", lambda _: ValidationResult(next(nll), 0.1, 10))
    phases = [
        Phase(MaximumLikelihood(), 60, None, 20, 1e-3, 0.9, validations=10) for _ in range(2)
    ]
    flow = cnf.CNF(2, hidden=(4, 4))
    trainer = Trainer(flow, *split(normal(100, 2)), Settings(tuple(phases), patience=2), seed=0)
    history = trainer.run()
    first, second = [], []
    for record in history.records:
        if record.valid_nll:
            (first if record.step <= 60 else second).append(record.step)
    assert len(first) == 10 and len(second) == 3
    assert trainer.state.best_nll == 0.5
    # Closer and closer: the learning rate falls.
    assert max(b - a for a, b in pairwise(first[5:])) < first[0] < 60 == first[-1]


def test_seconds_that_a_phase_leaves_go_to_the_next():
    x = normal(300, 2)
    flow = cnf.CNF(2, hidden=(8, 8), base=cnf.NormalBase(2))
    spent: dict[str, float] = {}

    def callback(trainer):
        spent[trainer.objective.name] = trainer.state.phase.seconds
        if trainer.objective.name == "flow matching":
            trainer.state.phase.stale = (
                trainer.settings.patience
            )  # the phase gives up after its first update

    cnf.fit(flow, x, seconds=1.0, callbacks=(callback,), patience=100)
    assert spent["flow matching"] < 0.4 < 0.6 < spent["likelihood"]


@pytest.mark.parametrize("seconds", [2.0, 20.0])
@pytest.mark.slow
def test_a_short_fit_is_no_worse_than_a_mixture(seconds):
    x = two_clusters(3000).double()
    x = torch.cat([x, 0.5 * x + 0.1 * normal(3000, 2, seed=7)], 1)
    x, x_valid, x_test = x.split((2200, 400, 400))
    calls = iter(range(10**9))
    flow, step = cnf.CNF(4), seconds / 200
    history = cnf.fit(flow, x, x_valid, seconds=seconds, clock=lambda: step * next(calls))
    assert bool(history.records) == (seconds > 10)
    assert history.records or ("mixture of" in history.choices["base"] and at_rest(flow))
    rival = GaussianMixture(10, random_state=0).fit(flow.preprocess(x)[0])
    y, ladj = flow.preprocess(x_test)
    assert flow.log_prob(x_test).mean().item() > rival.score(y) + ladj.item() - 0.1


@pytest.mark.slow
@pytest.mark.parametrize("any_subset", [False, True])
def test_a_constant_context_column_is_allowed(any_subset):
    """It is zero to the flow, in whatever unit, with weights too."""
    x, constant = (
        torch.randn(60, 2, generator=torch.Generator().manual_seed(0)),
        torch.full((60, 1), 1.7e9),
    )
    flow = cnf.CNF(2, hidden=(4, 4), context_dim=2)
    context = torch.cat([x[:, :1], constant], 1)
    with pytest.warns(UserWarning, match="context: column 1 .* is constant"):
        cnf.fit(flow, x, context=context, weights=torch.arange(60), steps=2, any_subset=any_subset)
    assert flow.condition(context)[:, 1].abs().max() < 1e-6
    assert flow.log_prob(x, context).isfinite().all()
    if any_subset:
        assert flow.marginal([0], context).log_prob(x[:, :1]).isfinite().all()
