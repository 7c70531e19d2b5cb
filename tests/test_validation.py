"""Which rows count, and for how much: weights of zero, rows that are lost, rows that validator."""

import math

import pytest
import torch

import cnf
from cnf.datasets import toy
from cnf.flows.calibration import expected_evaluations
from cnf.recipe.tables.discrete import DiscreteRows, held_out_nll
from cnf.rows import Rows, evenly_spaced
from cnf.training import FlowMatching, Interrupted, Phase, Settings
from cnf.training.checkpoint import CheckpointWriter
from cnf.training.trainer import Trainer
from cnf.training.validation import EMAValidator

STEPS = 30


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moons(rows: int, seed: int = 0) -> torch.Tensor:
    return toy("moons").sample(rows, seeded(seed)).double()


def small_flow(**options) -> cnf.CNF:
    torch.manual_seed(0)
    return cnf.CNF(2, hidden=(8, 8), **options)


def weights_of(flow: cnf.CNF) -> torch.Tensor:
    return torch.cat([tensor.flatten().double() for tensor in flow.state_dict().values()])


def test_rows_of_weight_zero_are_as_if_they_were_not_there():
    """However far they lie: they move neither maps nor guard nor grid."""
    x, weights = moons(200), 1 + torch.rand(200, generator=seeded(1))
    far = torch.cat([x, torch.full((60, 2), 1e25).double()])
    without, beside = small_flow(), small_flow()
    told = cnf.fit(without, x, weights=weights, steps=STEPS)
    again = cnf.fit(beside, far, weights=torch.cat([weights, torch.zeros(60)]), steps=STEPS)
    assert torch.equal(weights_of(without), weights_of(beside)) and without.solver == beside.solver
    assert math.isfinite(told.valid_nll) and told.valid_nll == again.valid_nll
    with pytest.raises(ValueError, match="at least 10 rows; got 5"):
        cnf.fit(small_flow(), x, weights=torch.cat([torch.ones(5), torch.zeros(195)]), steps=STEPS)


@pytest.mark.slow
def test_one_row_that_is_lost_counts_as_the_worst_of_the_others():
    x, far = moons(200), torch.full((1, 2), 1e25).double()
    flow = small_flow(preprocess=cnf.Affine.whiten(x), base=cnf.NormalBase(2))
    log_prob = flow.log_prob(x).double()
    nll = EMAValidator(flow, 0.9, Rows(torch.cat([x, far])), Rows(x)).validate().nll
    assert nll == pytest.approx(-(log_prob.sum() + log_prob.min()).item() / 201, abs=1e-4)
    nowhere = EMAValidator(flow, 0.9, Rows(far), Rows(x)).validate().nll
    assert math.isnan(nowhere)


@pytest.mark.parametrize("update", [36, 41, 43, 60])
def test_one_bad_update_costs_the_updates_of_the_average_and_no_others(update):
    """Wherever it falls between the looks for explosions."""
    rows = Rows(moons(200))
    settings = Settings((Phase(FlowMatching(), 80, None, 64, 2e-3, 0.9, 1),))
    trainer = Trainer(
        small_flow(preprocess=cnf.Affine.whiten(rows.x)), rows, rows, settings, seed=0
    )
    kept = {}

    def poison(trainer):
        if trainer.step == update - 1:
            kept["average"] = trainer.validator.average.module.W2.detach().clone()
            with torch.no_grad():
                trainer.flow.field.W2.fill_(math.nan)
        if trainer.step == update:
            kept["after"] = trainer.flow.field.W2.detach().clone()

    trainer.callbacks = (poison,)
    trainer.run()
    assert torch.equal(kept["after"], kept["average"])


@pytest.mark.slow
def test_a_fit_that_was_stopped_goes_on_with_the_same_flow(tmp_path):
    """What was free when it began may still give way to a mixture at its end."""
    x = 0.2 * torch.randn(60, 2, generator=seeded()).double()
    x[::2] += 2.0
    path, whole, stopped = tmp_path / "c", small_flow(), small_flow()

    def stop(trainer):
        if trainer.step == 80:
            CheckpointWriter(path).write(trainer)
            raise KeyboardInterrupt

    told = cnf.fit(whole, x, steps=200)
    assert told.choices["base"].startswith("mixture")
    with pytest.raises(Interrupted):
        cnf.fit(stopped, x, steps=200, checkpoint=path, callbacks=(stop,))
    again = cnf.fit(stopped, x, steps=200, checkpoint=path)
    assert again.choices == told.choices and again.valid_nll == told.valid_nll
    assert torch.equal(weights_of(whole), weights_of(stopped))


def test_a_fit_within_ranges_goes_on_from_its_checkpoint(tmp_path):
    x, path, ranges = moons(100).exp(), tmp_path / "c", [(0.0, None), (0.0, None)]

    def stop(trainer):
        CheckpointWriter(path, seconds=0.0)(trainer)
        if trainer.step == 7:
            raise KeyboardInterrupt

    whole, resumed = small_flow(), small_flow()
    cnf.fit(whole, x, steps=10, ranges=ranges)
    with pytest.raises(Interrupted):
        cnf.fit(small_flow(), x, steps=10, ranges=ranges, checkpoint=path, callbacks=(stop,))
    cnf.fit(resumed, x, steps=10, ranges=ranges, checkpoint=path)
    assert torch.equal(weights_of(whole), weights_of(resumed))


def test_another_context_or_other_weights_are_another_fit(tmp_path):
    x, context = moons(100), torch.randn(100, 1, generator=seeded(1)).double()
    fits = [
        {"context": context},
        {"context": -3 * context},
        {"context": context, "weights": 1 + torch.rand(100, generator=seeded(2))},
    ]

    for k, options in enumerate(fits):
        path = tmp_path / str(k)
        cnf.fit(
            small_flow(context_dim=1),
            x,
            steps=3,
            checkpoint=path,
            callbacks=(CheckpointWriter(path, seconds=0.0),),
            **options,
        )
        for other in fits:
            if other is not options:
                with pytest.raises(cnf.ModelFileError, match="belongs to a fit with other rows"):
                    cnf.fit(small_flow(context_dim=1), x, steps=3, checkpoint=path, **other)


def test_rows_that_judge_symbols_are_spread_over_a_sorted_table():
    class Place(torch.nn.Module):
        def log_prob(self, symbols, extra, given):
            return -symbols[:, 0].double()

    places = torch.arange(50_001)[:, None]
    blank = torch.zeros(50_001, 0)
    rows = DiscreteRows(places, blank, torch.zeros_like(places).bool(), torch.ones(50_001))
    assert held_out_nll(Place(), rows) == pytest.approx(25_000, rel=1e-3)


def test_rows_to_calibrate_on_stay_within_the_largest_tables():
    places = evenly_spaced(torch.empty(1).expand(20_000_004), 256)
    assert places[0] == 0 and places[-1] == 20_000_003 and len(places.unique()) == 256


def test_a_second_look_costs_a_solve_however_few_its_rows():
    """One more step for all is cheaper than another solve for one row in a thousand."""
    within = torch.full((1000,), 0.5)
    one = within.clone()
    one[0] = 1.2
    assert (
        expected_evaluations(21, within)
        < expected_evaluations(20, one)
        < expected_evaluations(30, within)
    )
