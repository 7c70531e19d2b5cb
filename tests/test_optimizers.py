"""What moves the weights."""

import pytest
import torch
from torch import nn

from cnf.fields import GatedField
from cnf.recipe.settings import default_weight_decay
from cnf.training import MaximumLikelihood, Phase
from cnf.training.optimizers import optimizers

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


def test_an_unknown_optimizer_is_named():
    with pytest.raises(ValueError, match="adam, muon; got 'sgd'"):
        Phase(MaximumLikelihood(), 10, None, 64, 1e-3, 0.99, 1, optimizer="sgd")


def test_few_rows_decay_more():
    decays = [default_weight_decay(rows) for rows in (100, 10_000, 1_000_000)]
    assert decays == sorted(decays, reverse=True) and decays[0] <= 0.3
