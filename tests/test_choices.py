"""What a fit chooses by itself: maps, bases, rivals, settings."""

import math

import pytest
import torch
from problems import F64, normal

import cnf
from cnf.training import Settings
from cnf.training.choices import choose_base, choose_preprocess
from cnf.training.data import Rows
from cnf.training.mixtures import LARGE, Rival
from cnf.training.settings import default_settings


def split(x):
    return Rows(x[: len(x) * 4 // 5]), Rows(x[len(x) * 4 // 5 :])


def test_skewed_columns_are_gaussianised_and_normal_ones_are_not():
    plain = normal(5000, 3) @ normal(3, 3, seed=1)
    assert isinstance(choose_preprocess(*split(plain), 0)[0], cnf.Affine)
    map, name = choose_preprocess(*split((2 * plain).exp()), 0)
    assert isinstance(map, cnf.Chain) and "Gaussianised" in name


def test_a_small_table_is_whitened_only():
    assert choose_preprocess(*split(normal(500, 2).exp()), 0)[1] == "whitened"


def test_outliers_bring_heavy_tails():
    y = normal(4000, 3)
    assert isinstance(choose_base(y, None)[0], cnf.NormalBase)
    y[:4] *= 20
    assert isinstance(choose_base(y, None)[0], cnf.ContaminatedBase)
    # Rows of weight zero are not seen.
    weights = (torch.arange(4000) >= 4).double()
    assert isinstance(choose_base(y, weights)[0], cnf.NormalBase)


def test_heavy_columns_bring_a_student_base():
    y = torch.distributions.StudentT(2.5).sample((5000, 4)).double()
    base, name = choose_base(y / y.std(0), None)
    assert isinstance(base, cnf.StudentTBase) and "Student" in name


def rings(rows: int) -> torch.Tensor:
    """A ring: the likelihood of mixtures rises with every component."""
    angle = 2 * math.pi * torch.rand(rows, generator=torch.Generator().manual_seed(0), dtype=F64)
    return torch.stack([angle.cos(), angle.sin()], 1) + 0.01 * normal(rows, 2)


def rival(rows: int = 3000, **options) -> Rival:
    x = rings(rows)
    settings = {"seed": 0, "most": LARGE, "seconds": None, **options}
    return Rival(x[: rows * 4 // 5], None, x[rows * 4 // 5 :], torch.tensor(0.0), None, **settings)


def test_a_mixture_grows_as_its_likelihood_promises():
    found = rival()
    small = found.best
    assert small.components == 40 and found.promise < small.nll
    found.grow()
    assert found.found[-1].components == min(LARGE, 2400 // 25)
    assert found.best.nll == min(judged.nll for judged in found.found)


def test_rows_and_budget_bound_the_components():
    assert rival(rows=60).best is None
    assert rival(most=9).best.components == 5
    without_time = rival(seconds=0.0)
    assert [judged.components for judged in without_time.found] == [
        2
    ]  # the first one tells what time it takes
    without_time.grow()
    assert len(without_time.found) == 1


def test_settings_follow_the_columns_and_the_user():
    def settings(dim: int, **chosen) -> Settings:
        return default_settings(rows=1000, dim=dim, steps=100, seconds=None, likelihood_share=None, **chosen)

    assert settings(2).coupling_block == 64 and settings(10).coupling_block is None
    assert settings(2, coupling_block=None, weight_decay=0.5).weight_decay == 0.5
    with pytest.raises(TypeError, match="unexpected keyword"):
        settings(2, wieght_decay=0.5)


def test_seconds_that_a_phase_leaves_go_to_the_next():
    x = normal(300, 2)
    flow = cnf.CNF(2, hidden=(8, 8), base=cnf.NormalBase(2))
    spent: dict[str, float] = {}

    def watch(trainer):
        spent[trainer.phase.name] = trainer.phase_seconds
        if trainer.phase.name == "flow matching":
            trainer.stale = trainer.settings.patience  # the phase gives up after its first update

    cnf.fit(flow, x, seconds=1.0, watchers=(watch,), patience=100)
    assert spent["flow matching"] < 0.4 < 0.6 < spent["likelihood"]
