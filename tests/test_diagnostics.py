"""The check: a sound flow passes, and every line catches the error that it is there for."""

import copy
import math

import pytest
import torch
from problems import F64, LinearField, make_flow, normal, seeded

import cnf
from cnf.diagnostics import check, fitting, numerics, solving
from cnf.diagnostics.case import Case
from cnf.diagnostics.mass import mass
from cnf.diagnostics.two_sample import two_sample
from cnf.fields import VelocityField
from cnf.flows.scoring import Accuracy
from cnf.training.data import Rows


def context_of(flow, rows):
    return normal(rows, flow.context_dim, seed=5) if flow.context_dim else None


def sound(name="gated-tanh", dim=2, context_dim=0, rows=800, **parts):
    """A calibrated flow and rows that are drawn from it."""
    flow = make_flow(name, dim, context_dim, **parts).eval()
    context = context_of(flow, rows)
    shape = () if context_dim else (rows,)
    with torch.no_grad():
        x = flow.sample(shape, context, generator=seeded(1))
        if "solver" not in parts:
            flow.calibrate(x, context=context)
    return flow, Rows(x, context)


FLOWS = {
    "plane": dict(),
    "line": dict(name="mlp", dim=1),
    "space": dict(name="gated-sine", dim=3),
    "given": dict(context_dim=1),
    "automatic": dict(name="mlp-silu"),
}


@pytest.mark.parametrize("name", FLOWS)
def test_a_sound_flow_passes(name):
    flow, rows = sound(**FLOWS[name])
    before = copy.deepcopy(flow.state_dict()), flow.solver, flow.accuracy, torch.random.get_rng_state()
    flow.metadata = {"history": {"train_nll": -flow.log_prob(*rows_of(rows)).mean().item(), "train_se": 0.03}}
    claims = check(flow, rows.x, context=rows.context)
    assert [claim for claim in claims if not claim.passed] == []
    expected = {
        *("round trip", "mass", "volume", "own samples", "solver error", "error bars", "divergence"),
        *("gradients", "alone", "order", "base", "columns", "regions", "two samples", "overfitting"),
        *("answers", "evaluations", "steps"),
    } - ({"divergence"} if name == "automatic" else set())
    assert {claim.name for claim in claims} == expected
    assert all(torch.equal(a, b) for a, b in zip(before[0].values(), flow.state_dict().values()))
    assert before[1:3] == (flow.solver, flow.accuracy)
    assert torch.equal(before[3], torch.random.get_rng_state())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in flow.parameters())


def rows_of(rows):
    return rows.x, rows.context


def test_a_check_is_repeatable_and_strict_is_stricter():
    flow, rows = sound(rows=300)
    usual, again, strict = (check(flow, rows.x, strict=s) for s in (False, False, True))
    assert usual == again
    for a, b in zip(usual, strict):
        assert a.name == b.name and a.value == b.value
        assert a.limit <= b.limit if a.sense == "at least" else b.limit <= a.limit
    assert any(a.limit != b.limit for a, b in zip(usual, strict))
