"""The latent ODE: paths against closed forms, recognition against a loop, bounds, masks,
forecasts."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import F64, normal, seeded
from torch import nn

from cnf.datasets import spirals
from cnf.neural_ode import LatentODE, Series, agreement, fit_latent_ode, lower_bound
from cnf.neural_ode.latent_path import Path
from cnf.neural_ode.latent_recognition import Recognition
from cnf.ode import Torchdiffeq, solve
from cnf.training import TrainingError

NAN = math.nan


def make_series(batch=4, length=6, channels=2, *, start=0.0, seed=0) -> Series:
    """Random times after the start, a third of the values missing, rows of unequal length."""
    times = start + torch.rand(batch, length, generator=seeded(seed), dtype=F64).sort(1).values
    values = normal(batch, length, channels, seed=seed + 1)
    mask = torch.rand(batch, length, channels, generator=seeded(seed + 2)) > 0.3
    mask[torch.arange(batch) % 2 == 1, length - 2 :] = False
    return Series(times, values * mask, mask)


def make_model(**parts) -> LatentODE:
    torch.manual_seed(1)
    return LatentODE(2, **{"latent": 3, "hidden": 8, "units": 10, **parts}).double()


# --- series
# -----------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5) | st.just(NAN)), min_size=1),
        min_size=1,
    )
)
def test_series_keep_every_value_and_no_other(rows):
    pairs = [
        (torch.tensor([t for t, _ in row]), torch.tensor([[v] for _, v in row])) for row in rows
    ]
    series = Series.of(pairs)
    assert len(series) == len(rows)
    for k, (times, values) in enumerate(pairs):
        seen = ~values[:, 0].isnan()
        assert torch.equal(series.times[k][series.seen[k]], times[seen])
        assert torch.equal(series.values[k][series.mask[k]], values[seen][:, 0])
    assert series.values.isfinite().all()


def test_series_say_what_is_wrong():
    with pytest.raises(ValueError, match=r"got \(2, 3\), \(2, 4, 1\), \(2, 4, 1\)"):
        Series(torch.zeros(2, 3), torch.zeros(2, 4, 1), torch.ones(2, 4, 1, dtype=torch.bool))
    times = torch.tensor([[0.0, NAN]])
    with pytest.raises(
        ValueError, match="series 0, place 1: an observed value or its time is not finite"
    ):
        Series(times, torch.zeros(1, 2, 1), torch.ones(1, 2, 1, dtype=torch.bool))


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (
            (torch.zeros(2), torch.zeros(2, 1)),
            r"series 1: expected .* \(length, 2\); got \(2,\), \(2, 1\)",
        ),
        (
            (torch.zeros(2), torch.zeros(3, 2)),
            r"series 1: expected .* \(length, 2\); got \(2,\), \(3, 2\)",
        ),
        (
            (torch.zeros(2, 1), torch.zeros(2, 2)),
            r"series 1: expected times \(length,\).* got \(2, 1\)",
        ),
    ],
)
def test_pairs_that_do_not_fit_are_refused(second, words):
    """Padding would spread one channel over two, and hide a length that is wrong."""
    with pytest.raises(ValueError, match=words):
        Series.of([(torch.zeros(4), torch.zeros(4, 2)), second])
    with pytest.raises(ValueError, match="at least one pair"):
        Series.of([])


def test_a_model_says_how_many_channels_it_has():
    with pytest.raises(ValueError, match="expected the 2 channels of the model; got 1"):
        make_model().recognize(Series.of([(torch.zeros(4), torch.zeros(4, 1))]))


def test_hidden_values_are_gone():
    series = make_series()
    hidden = torch.rand(series.mask.shape, generator=seeded(5)) < 0.5
    rest = series.hide(hidden)
    assert torch.equal(rest.mask, series.mask & ~hidden)
    assert (rest.values[~rest.mask] == 0).all()
    assert torch.equal(rest.take(slice(1, 3)).times, series.times[1:3])


# --- path
# -------------------------------------------------------------------------------------------------


def test_path_is_exact_for_cubics_and_of_fourth_order_else():
    times = torch.rand(3, 40, generator=seeded(), dtype=F64) * 2
    errors = []
    for count in (10, 20):
        nodes = torch.linspace(0, 2, count + 1, dtype=F64)
        here = nodes[:, None, None].expand(-1, 3, 1)
        cubic = Path(nodes, here**3 - here, 3 * here**2 - 1).at(times)[..., 0]
        torch.testing.assert_close(cubic, times**3 - times)
        wave = Path(nodes, (3 * here).sin(), 3 * (3 * here).cos()).at(times)[..., 0]
        errors.append((wave - (3 * times).sin()).abs().max().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.5)


def test_states_are_those_of_an_adaptive_solver_at_every_series_times():
    model = make_model(start=2.0, horizon=3.0)
    z, times = normal(4, 3), 2.0 + 6.0 * torch.rand(4, 7, generator=seeded(), dtype=F64)
    found = model.states(z, times)
    for k in range(4):
        clock = torch.cat([torch.zeros(1, dtype=F64), (times[k].sort().values - 2.0) / 3.0])
        tight = Torchdiffeq("dopri5", rtol=1e-10, atol=1e-10)
        exact = solve(model.field, z[k], clock, solver=tight).x[1:]
        torch.testing.assert_close(found[k][times[k].argsort()], exact, atol=1e-6, rtol=1e-6)


def test_states_at_the_start_are_the_start():
    z = normal(2, 3)
    torch.testing.assert_close(make_model().states(z, torch.zeros(2, 1, dtype=F64))[:, 0], z)
    with pytest.raises(ValueError, match=r"finite times from the start, 0\.0, on"):
        make_model().states(z, torch.tensor([[-0.1], [1.0]], dtype=F64))


# --- recognition
# ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0.0, 1.5])
def test_recognition_reads_towards_the_start(start):
    """Against a loop over single cells, for observations after the start and before it."""
    torch.manual_seed(0)
    series, net = make_series(), Recognition(2, 3, 5).double()
    cell = nn.GRUCell(5, 5).double()
    cell.load_state_dict(
        {name.removesuffix("_l0"): w for name, w in net.reader.state_dict().items()}
    )
    found = net(series, start)
    for k in range(len(series)):
        places = series.seen[k].nonzero()[:, 0].tolist()
        places.sort(key=lambda i: -abs(series.times[k, i].item() - start))
        state = torch.zeros(1, 5, dtype=F64)
        for place, following in zip(places, [*places[1:], None]):
            to = start if following is None else series.times[k, following]
            gap = (to - series.times[k, place]).abs().reshape(1)
            values, mask = series.values[k, place], series.mask[k, place].double()
            state = cell(torch.cat([values, mask, gap])[None], state)
        mean, log_scale = net.head(state[0]).chunk(2)
        torch.testing.assert_close(found.mean[k], mean)
        torch.testing.assert_close(found.stddev[k], log_scale.exp())


def test_padding_and_order_say_nothing():
    model, series = make_model(), make_series()
    order = torch.randperm(6, generator=seeded(3))
    padded = Series(*(torch.cat([t[:, order], torch.zeros_like(t[:, :2])], 1) for t in
                      (series.times, series.values, series.mask)))  # fmt: skip
    torch.testing.assert_close(model.recognize(padded).mean, model.recognize(series).mean)
    lonely = model.recognize(series.take(slice(2, 3)))
    torch.testing.assert_close(lonely.mean[0], model.recognize(series).mean[2])


def test_a_series_without_observations_is_read():
    series = make_series()
    empty = series.hide(torch.ones_like(series.mask))
    assert make_model().recognize(empty).mean.isfinite().all()


def test_context_matters_to_recognition_and_motion():
    model, series = make_model(context_dim=1), make_series()
    low, high = torch.zeros(4, 1, dtype=F64), torch.ones(4, 1, dtype=F64)
    assert not torch.allclose(
        model.recognize(series, low).mean, model.recognize(series, high).mean
    )
    z = normal(4, 3)
    assert not torch.allclose(
        model.states(z, series.times, low), model.states(z, series.times, high)
    )


# --- objective
# --------------------------------------------------------------------------------------------


def test_bound_is_what_it_says():
    model, series = make_model(noise=0.5), make_series()
    bound = lower_bound(model, series, series, generator=seeded(4))
    posterior = model.recognize(series)
    mean, deviation = posterior.mean, posterior.stddev
    z = mean + deviation * torch.randn(mean.shape, generator=seeded(4), dtype=F64)
    residual = (model.decoder(model.states(z, series.times)) - series.values) / 0.5
    each = -0.5 * residual.square() - math.log(0.5 * math.sqrt(2 * math.pi))
    torch.testing.assert_close(bound.log_likelihood, (each * series.mask).sum((1, 2)))
    divergence = 0.5 * (mean.square() + deviation.square() - 1 - 2 * deviation.log()).sum(-1)
    torch.testing.assert_close(bound.divergence, divergence)
    torch.testing.assert_close(bound.value(0.3), bound.log_likelihood - 0.3 * bound.divergence)


def test_bound_is_below_the_evidence():
    """The evidence by brute force: a mean over many draws from the prior of z(start)."""
    model, series = make_model(noise=1.0), make_series(batch=2)
    z = normal(10_000, 3, seed=8)
    for k in range(2):
        row = series.take(slice(k, k + 1))
        law = model(z, row.times.expand(len(z), -1))
        log_likelihood = law.log_prob(row.values).masked_fill(~row.mask, 0.0).sum((1, 2))
        evidence = (log_likelihood.logsumexp(0) - math.log(len(z))).item()
        draws = [
            lower_bound(model, row, row, generator=seeded(s)).value().item() for s in range(50)
        ]
        assert sum(draws) / 50 < evidence + 0.1


def test_what_is_hidden_has_no_weight_and_no_gradient():
    model, series = make_model(), make_series()
    bound = lower_bound(model, series, series, generator=seeded()).value().sum()
    other = Series(
        torch.where(series.seen, series.times, torch.tensor(NAN)),
        torch.where(series.mask, series.values, torch.tensor(1e3)),
        series.mask,
    )
    again = lower_bound(model, other, other, generator=seeded()).value().sum()
    torch.testing.assert_close(bound, again)
    again.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_gradient_of_the_bound_against_differences():
    model, series = make_model(), make_series()

    def bound(weight):
        with torch.no_grad():
            model.field.net.inner.weight[0, 0] = weight
        return lower_bound(model, series, series, generator=seeded()).value().sum()

    weight = model.field.net.inner.weight[0, 0].item()
    bound(weight).backward()
    difference = (bound(weight + 1e-5) - bound(weight - 1e-5)).item() / 2e-5
    assert model.field.net.inner.weight.grad[0, 0].item() == pytest.approx(difference, rel=1e-6)


def test_agreement_reads_the_rest_of_the_path():
    """Against a reading of the observations after the time itself; its times are the only thing
    drawn."""
    model = make_model(start=2.0, horizon=3.0)
    times = 2.0 + 3.0 * torch.rand(3, 8, generator=seeded(), dtype=F64)
    whole = Series(times, normal(3, 8, 2), torch.ones(3, 8, 2, dtype=torch.bool))
    z, share = normal(3, 3, seed=6), torch.rand(3, 1, generator=seeded(7), dtype=F64)
    found = agreement(model, z, whole, generator=seeded(7))
    for k in range(3):
        c = 2.0 + 0.7 * share[k, 0].item() * (times[k].max().item() - 2.0)
        after = times[k] >= c
        rest = Series.of([(times[k][after] - c + 2.0, whole.values[k][after])])
        reached = model.states(z[k : k + 1], torch.tensor([[c]], dtype=F64))[:, 0]
        expected = model.recognize(rest).log_prob(reached).sum()
        torch.testing.assert_close(found[k], expected)


def test_agreement_does_not_depend_on_padding_and_has_a_finite_gradient():
    model, series = make_model(), make_series()
    padded = Series(
        torch.where(series.seen, series.times, torch.tensor(NAN)),
        torch.where(series.mask, series.values, torch.tensor(1e3)),
        series.mask,
    )
    z = normal(len(series), 3)
    found = agreement(model, z, padded, generator=seeded())
    torch.testing.assert_close(found, agreement(model, z, series, generator=seeded()))
    found.sum().backward()
    assert all(
        p.grad.isfinite().all()
        for p in [*model.recognition.parameters(), *model.field.parameters()]
    )


# --- training and prediction
# ------------------------------------------------------------------------------


def waves(count, seed):
    """Sines of random phase, at times of their own, noise 0.05; some in one channel only."""
    times = 2 * torch.rand(count, 15, generator=seeded(seed)).sort(1).values
    phase = 6 * torch.rand(count, 1, generator=seeded(seed + 1))
    clean = torch.stack([(3 * times + phase).sin(), (3 * times + phase).cos()], -1)
    noisy = clean + 0.05 * torch.randn(clean.shape, generator=seeded(seed + 2))
    mask = torch.rand(clean.shape, generator=seeded(seed + 3)) > 0.3
    return Series(times, noisy * mask, mask), phase


@pytest.fixture(scope="module")
def fitted():
    torch.manual_seed(0)
    model = LatentODE(2, latent=3, horizon=2.0, steps=8)
    history = fit_latent_ode(model, waves(300, 10)[0], steps=250, batch=64, learning_rate=0.02)
    return model, history


@pytest.mark.slow
def test_training_lowers_the_loss(fitted):
    records = fitted[1].records
    assert records[-1].step == 250
    assert sum(record.objective for record in records[-8:]) / 8 < 0.1 * records[0].objective


@pytest.mark.slow
def test_predictions_follow_the_curve_between_and_beyond(fitted):
    model, _ = fitted
    series, phase = waves(50, 90)
    grid = torch.linspace(0, 2.6, 40)
    clean = torch.stack([(3 * grid + phase).sin(), (3 * grid + phase).cos()], -1)
    found = model.predict(series, grid, generator=seeded())
    error = (found.mean - clean).square().mean((0, 2)).sqrt()
    # A constant has an error of 0.71.
    assert error[grid < 2].mean() < 0.4 and error[grid > 2].mean() < 0.6
    assert found.draws.shape == (50, 50, 40, 2)
    # The stated deviation is of the size of the errors, noise included.
    noisy = clean + 0.05 * torch.randn(clean.shape, generator=seeded(1))
    inside = ((noisy - found.mean).abs() < 2 * found.deviation)[:, grid < 2]
    assert 0.75 < inside.float().mean() <= 1


@pytest.mark.slow
def test_training_for_agreement_gives_it():
    """Of two trainings that differ in it alone, and on series that neither has seen."""
    (seen, _), (series, _), gaps = waves(300, 10), waves(50, 90), []
    for agree in (0.0, 1.0):
        torch.manual_seed(0)
        model = LatentODE(2, latent=3, horizon=2.0, steps=4)
        fit_latent_ode(model, seen, steps=60, batch=64, learning_rate=0.02, agree=agree)
        z = model.recognize(series).mean
        gaps.append(agreement(model, z, series, generator=seeded()).mean().item())
    assert gaps[1] > gaps[0] + 1


def test_fewer_observations_leave_more_doubt(fitted):
    model, _ = fitted
    series, _ = waves(50, 90)
    early = series.hide((series.times > 0.2)[..., None].expand_as(series.mask))
    grid = torch.linspace(0, 2, 10)
    few, many = (
        model.predict(s, grid, generator=seeded()).deviation.mean() for s in (early, series)
    )
    assert few > many


def test_training_is_seeded_and_says_what_is_wrong():
    series, ends = waves(20, 3)[0], []
    for _ in range(2):
        torch.manual_seed(5)
        model = LatentODE(2, steps=2)
        fit_latent_ode(model, series, steps=2, batch=8, seed=1)
        ends.append(model.log_noise.detach())
    assert torch.equal(*ends)
    with pytest.raises(ValueError, match="at least one step"):
        fit_latent_ode(model, series, steps=0)
    with pytest.raises(
        ValueError, match=r"beta and agree from 0 on; got 2, 100, 20; 0\.5; 1\.0, -1\.0"
    ):
        fit_latent_ode(model, series, steps=2, agree=-1.0)
    with pytest.raises(ValueError, match="horizon, noise > 0"):
        LatentODE(2, horizon=0.0)
    with pytest.raises(
        TrainingError, match=r"latent ODE: .* not finite at update 1; lower the learning"
    ):
        fit_latent_ode(model, Series(series.times, series.values * 1e30, series.mask), steps=1)


# --- spirals
# ----------------------------------------------------------------------------------------------


def test_spirals_lie_on_their_curve():
    times, curves = spirals(10, 100, seeded(), dtype=F64)
    radius = curves.norm(dim=-1)
    angle = (radius - 0.2) / 0.1
    turn = torch.tensor([1.0, -1.0], dtype=F64).repeat(5)[:, None]
    expected = radius[..., None] * torch.stack([angle.cos(), turn * angle.sin()], -1)
    torch.testing.assert_close(curves, expected)
    torch.testing.assert_close(
        angle.diff(dim=1), torch.full((10, 99), 6 * math.pi / 499, dtype=F64)
    )
    assert angle.min() >= -1e-9 and angle.max() <= 6 * math.pi + 1e-9
    torch.testing.assert_close(times, torch.arange(100, dtype=F64) / 100)


def test_spirals_start_anywhere_and_are_seeded():
    _, curves = spirals(2000, 400, seeded())
    first = ((curves[:, 0].norm(dim=-1) - 0.2) / 0.1 * 499 / (6 * math.pi)).round()
    assert first.min() == 0 and first.max() == 100
    assert torch.equal(curves, spirals(2000, 400, seeded())[1])
    with pytest.raises(ValueError, match="2 to 500; got 501"):
        spirals(1, 501)
