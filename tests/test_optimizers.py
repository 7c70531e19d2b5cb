"""What moves the weights."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from cnf.fields import GatedField
from cnf.recipe.settings import default_weight_decay
from cnf.training import MaximumLikelihood, Phase
from cnf.training.optimizers import Adam, Muon, Optimizer, optimizers

MODULES = {
    "field": lambda: GatedField(3, hidden=(8, 8)),
    "matrices alone": lambda: nn.Linear(3, 4, bias=False),
    "vectors alone": lambda: nn.LayerNorm(5),
}


@pytest.mark.parametrize("name", ["adam", "muon"])
@pytest.mark.parametrize("build", MODULES.values(), ids=MODULES)
def test_every_parameter_has_one_optimizer(build, name):
    module = build()
    shared_out = [
        parameter
        for optimizer in optimizers(module, name, weight_decay=0.0)
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    assert sorted(map(id, shared_out)) == sorted(map(id, module.parameters()))


def test_a_step_of_muon_turns_a_matrix_evenly_in_all_directions():
    """However lopsided the gradient, the singular values of the step are much alike."""
    module = nn.Linear(6, 4, bias=False)
    before = module.weight.detach().clone()
    (muon,) = optimizers(module, "muon", weight_decay=0.0)
    left, right = (torch.linalg.qr(torch.randn(n, n))[0] for n in (4, 6))
    module.weight.grad = left @ torch.diag(torch.tensor([1.0, 0.5, 0.2, 0.1])) @ right[:4]
    muon.param_groups[0]["lr"] = 0.01
    muon.step()
    size = torch.linalg.svdvals((module.weight - before).detach()) / (0.01 * 0.2 * 6**0.5)
    assert size.min() > 0.6 and size.max() < 1.3


def twins() -> tuple[nn.Module, nn.Module]:
    """Two copies of a field, one parameter of which has no gradient."""
    copies = []
    for _ in range(2):
        torch.manual_seed(1)
        copies.append(GatedField(3, hidden=(8, 8)))
        copies[-1].W3.requires_grad_(False)
    return copies[0], copies[1]


def train(module: nn.Module, optimizer: Optimizer | torch.optim.Optimizer, steps: int) -> None:
    """Steps with gradients that depend on the weights, and rates that change."""
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.01 / (1 + step)
        optimizer.zero_grad()
        sum(part.square().sum() + part.sin().sum() for part in module.parameters()).backward()
        optimizer.step()


def distance(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters())
    return max((a - b).abs().max().item() for a, b in pairs)


def test_adam_is_that_of_torch():
    ours, torchs = twins()
    train(ours, Adam(ours.parameters(), lr=0.0, weight_decay=0.1), 7)
    train(torchs, torch.optim.AdamW(torchs.parameters(), lr=0.0, weight_decay=0.1), 7)
    assert distance(ours, torchs) < 1e-7


def test_muon_is_that_of_torch_but_for_the_rounding_of_bfloat16():
    ours, torchs = (nn.Linear(5, 9, bias=False) for _ in range(2))
    torchs.load_state_dict(ours.state_dict())
    start = ours.weight.detach().clone()
    settings = {"lr": 0.0, "weight_decay": 0.1}
    train(ours, Muon(ours.parameters(), **settings), 7)
    matched = torch.optim.Muon(torchs.parameters(), adjust_lr_fn="match_rms_adamw", **settings)
    train(torchs, matched, 7)
    moved = (torchs.weight - start).abs().max().item()
    assert distance(ours, torchs) < 0.02 * moved


@pytest.mark.parametrize("before", [Adam, torch.optim.AdamW])
@pytest.mark.parametrize("after", [Adam, torch.optim.AdamW])
def test_adam_goes_on_from_a_state_of_its_own_and_of_torch(before, after):
    stopped, whole = twins()
    first = before(stopped.parameters(), lr=0.01, weight_decay=0.1)
    train(stopped, first, 5)
    second = after(stopped.parameters(), lr=0.5, weight_decay=0.0)
    if after is Adam:
        second.load_state_dict(first.state_dict())
    else:  # which wants the settings that ours has no use for as well
        state, settings = first.state_dict(), second.state_dict()["param_groups"][0]
        second.load_state_dict(
            {"state": state["state"], "param_groups": [settings | state["param_groups"][0]]}
        )
    train(stopped, second, 4)
    steady = torch.optim.AdamW(whole.parameters(), lr=0.01, weight_decay=0.1)
    train(whole, steady, 5)
    train(whole, steady, 4)
    assert distance(stopped, whole) < 1e-7


def test_a_state_of_other_parameters_is_refused():
    saved = Adam(nn.Linear(2, 3).parameters(), lr=0.1, weight_decay=0.0).state_dict()
    with pytest.raises(ValueError, match="state of 1 parameters; got 2"):
        Adam(nn.Linear(2, 3, bias=False).parameters(), lr=0.1, weight_decay=0.0).load_state_dict(
            saved
        )


@pytest.mark.slow
def test_a_fit_does_not_load_the_compiler():
    code = """
import sys, torch, cnf
cnf.fit(cnf.CNF(1, hidden=(8, 8)), torch.randn(100, 1), steps=4)
print("torch._dynamo" in sys.modules)
"""
    told = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120
    )
    assert told.stdout.strip() == "False"


def test_an_unknown_optimizer_is_named():
    with pytest.raises(ValueError, match="adam, muon; got 'sgd'"):
        Phase(MaximumLikelihood(), 10, None, 64, 1e-3, 0.99, 1, optimizer="sgd")


def test_few_rows_decay_more():
    decays = [default_weight_decay(rows) for rows in (100, 10_000, 1_000_000)]
    assert decays == sorted(decays, reverse=True) and decays[0] <= 0.3
