"""A `state_dict` holds all that scores depend on."""

import copy
import io

import pandas as pd
import pytest
import torch
from problems import LinearField, make_flow, normal
from torch.distributions import Independent, Laplace
from torch.multiprocessing import get_context

import cnf
from cnf.flows.state import EXTRA
from cnf.tables import TableFlow


@pytest.fixture(scope="module")
def rows() -> torch.Tensor:
    """Rows with outliers, for which `fit` takes a base with heavy tails."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 2, generator=generator) * torch.tensor([1.0, 4.0]) + 3
    x[:4] *= 30
    return x


@pytest.fixture(scope="module")
def fitted(rows) -> cnf.CNF:
    torch.manual_seed(0)
    flow = cnf.CNF(2)
    cnf.fit(flow, rows, steps=5)
    return flow


def same(flow, other, x, context=None) -> bool:
    a, b = flow.evaluate(x, context), other.evaluate(x, context)
    return all(torch.equal(p, q) for p, q in zip(vars(a).values(), vars(b).values()))


def test_a_fitted_flow_loads_into_a_new_one(fitted, rows):
    fresh = cnf.CNF(2)
    assert not same(fitted, fresh, rows)
    fresh.load_state_dict(fitted.state_dict())
    assert same(fitted, fresh, rows)
    assert fresh.automatic == fitted.automatic and fresh.solver == fitted.solver
    again = cnf.CNF(2)
    again.load_state_dict(fresh.state_dict(), assign=True)
    assert same(fitted, again, rows)


def test_a_flow_returns_to_the_state_before_a_fit(fitted, rows):
    flow = copy.deepcopy(fitted)
    before = cnf.CNF(2)
    flow.load_state_dict(before.state_dict())
    assert same(flow, before, rows) and flow.automatic == before.automatic


MIXTURE = cnf.MixtureBase(torch.ones(3), 3 * normal(3, 2).float(), torch.eye(2).expand(3, 2, 2))
PARTS = {
    "degrees of freedom": {"base": cnf.StudentTBase(2, df=3.0)},
    "share of tails": {"base": cnf.ContaminatedBase(cnf.NormalBase(2), share=0.3, df=4)},
    "mixture": {"base": MIXTURE},
    "tails of a mixture": {"base": cnf.ContaminatedBase(MIXTURE)},
    "ranges": {"preprocess": cnf.BoundedToReal([(-9.0, None), (None, None)])},
    "chain": {
        "preprocess": cnf.Chain(
            cnf.Gaussianize.fit(normal(50, 2)), cnf.Affine.whiten(normal(50, 2))
        )
    },
    "solver": {"solver": cnf.Grid.uniform(3, "rk4")},
    "torchdiffeq": {"solver": cnf.Torchdiffeq("rk4", step_size=0.25)},
    "estimate": {"divergence": cnf.Hutchinson(3, "gaussian")},
    "width": {"hidden": (9, 5)},
    "first layer": {"field": cnf.GatedField(2, (8, 8), first="tanh", frequency=0.5)},
}


@pytest.mark.parametrize("name", PARTS)
def test_every_setting_travels(name):
    flow, x = cnf.CNF(2, **{"hidden": (8, 8), **PARTS[name]}), normal(20, 2).float()
    torch.nn.init.normal_(flow.field.W3)
    fresh = cnf.CNF(2, hidden=(8, 8))
    fresh.load_state_dict(flow.state_dict())
    fresh.divergence = flow.divergence = "auto" if name != "estimate" else flow.divergence
    torch.manual_seed(1)
    expected = flow.log_prob(x)
    torch.manual_seed(1)
    assert torch.equal(fresh.log_prob(x), expected)
    assert fresh.settings() == flow.settings()


def test_an_optimizer_keeps_its_parameters():
    """A training loop that is resumed makes the optimizer first."""
    flow, fresh = cnf.CNF(2, hidden=(9, 5)), cnf.CNF(2)
    optimizer = torch.optim.SGD(fresh.parameters(), lr=0.1)
    fresh.load_state_dict(flow.state_dict())
    fresh.log_prob(normal(5, 2).float()).sum().backward()
    optimizer.step()
    assert not torch.equal(fresh.field.W3, flow.field.W3) and fresh.field.W3.shape == (2, 5)


REFUSED = {
    "another class of field": (
        lambda: cnf.CNF(2, field=cnf.MLPField(2, (8, 8))),
        r"field=MLPField\(.*construct it so, then load",
    ),
    "a field that no file may hold": (lambda: cnf.CNF(2, field=LinearField()), "LinearField"),
    "another number of columns": (lambda: cnf.CNF(3), "construct the flow with dim=3"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_rebuilt_says_how(name):
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        cnf.CNF(2).load_state_dict(make().state_dict())


def test_unregistered_parts_of_the_same_class_load():
    flow, fresh = cnf.CNF(2, field=LinearField()), cnf.CNF(2, field=LinearField())
    with torch.no_grad():
        flow.field.A.add_(0.3)
    flow.solver = cnf.Grid.uniform(7)
    fresh.load_state_dict(flow.state_dict())
    assert same(flow, fresh, normal(5, 2))


def test_the_tensors_of_a_distribution_are_part_of_the_state():
    def flow(scale):
        return cnf.CNF(2, base=Independent(Laplace(torch.zeros(2), scale * torch.ones(2)), 1))

    wide, narrow, x = flow(3.0), flow(1.0), normal(5, 2).float()
    narrow.load_state_dict(wide.state_dict())
    expected = Laplace(0.0, 3.0).log_prob(x).sum(-1)
    torch.testing.assert_close(narrow.base.log_prob(x), expected)
    assert narrow.double().base.log_prob(x.double()).dtype == torch.float64


def test_digits_are_not_lost():
    flow, fresh = make_flow("gated-sine"), cnf.CNF(2)
    fresh.load_state_dict(flow.state_dict())
    assert same(flow, fresh, normal(5, 2))


def test_a_state_of_the_first_release_says_what_to_do(fitted):
    flow = cnf.CNF(2)
    old = {name: part for name, part in flow.state_dict().items() if name != EXTRA}
    with pytest.raises(RuntimeError, match="strict=False if they are"):
        flow.load_state_dict(old)
    flow.load_state_dict(old, strict=False)


def test_tensors_without_an_entry_need_not_be_there(fitted, rows):
    """accelerate keeps one of them, which it takes for the same tensor."""
    whole, fresh = (torch.nn.ModuleDict({"flow": flow}) for flow in (fitted, cnf.CNF(2)))
    state = {name: part for name, part in whole.state_dict().items() if part.numel()}
    assert len(state) < len(whole.state_dict())
    fresh.load_state_dict(state)
    assert same(fitted, fresh["flow"], rows)
    del state["flow.preprocess.matrix"]
    with pytest.raises(RuntimeError, match=r"Missing key.*flow\.preprocess\.matrix"):
        fresh.load_state_dict(state)


def test_within_another_module(fitted, rows):
    whole, fresh = (torch.nn.ModuleDict({"flow": flow}) for flow in (fitted, cnf.CNF(2)))
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert same(fitted, fresh["flow"], rows)


def test_copies_and_pickles(fitted, rows):
    file = io.BytesIO()
    torch.save(fitted, file)
    file.seek(0)
    for other in (copy.deepcopy(fitted), torch.load(file, weights_only=False)):
        assert same(fitted, other, rows)


def test_the_meta_device(fitted, rows):
    with torch.device("meta"):
        flow, assigned = cnf.CNF(2), cnf.CNF(2)
    flow = flow.to_empty(device="cpu")
    flow.load_state_dict(fitted.state_dict())
    assigned.load_state_dict(fitted.state_dict(), assign=True)
    assert same(fitted, flow, rows) and same(fitted, assigned, rows)


def scores(flow: cnf.CNF, x: torch.Tensor, queue) -> None:
    queue.put(flow.log_prob(x).tolist())


@pytest.mark.slow
def test_a_spawned_process(fitted, rows):
    context = get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=scores, args=(fitted.requires_grad_(False), rows, queue))
    process.start()
    found = queue.get(timeout=120)
    process.join()
    assert found == fitted.log_prob(rows).tolist()


def test_a_table_with_its_imputer():
    table = pd.DataFrame({"a": normal(60).tolist(), "b": list("xyz") * 20})
    model = cnf.fit_table(table, steps=3)
    fresh = TableFlow(model.schema)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.log_prob(table), model.log_prob(table))
    assert (fresh.imputer is None) == (model.imputer is None)
    other = TableFlow(cnf.Schema.infer(table.rename(columns={"a": "c"})))
    with pytest.raises(cnf.TableError, match="expected the schema that it was taken with"):
        other.load_state_dict(model.state_dict())
