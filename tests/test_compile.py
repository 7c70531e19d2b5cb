"""Whole solves as one program of torch.compile."""

import shutil

import pytest
import torch
from torch._dynamo.utils import counters

import cnf
from cnf.flows import equation
from cnf.flows.scoring import CHUNK


def flow_on_a_grid():
    torch.manual_seed(0)
    flow = cnf.CNF(2, hidden=(8, 8))
    torch.nn.init.normal_(flow.field.W3, std=0.3)
    flow.solver = cnf.Grid.uniform(6, "adams")
    return flow


@pytest.fixture
def calls(monkeypatch):
    """The numbers of rows of solves that the program was asked for."""
    asked = []

    def program(made, x, *rest, **options):
        asked.append(len(x))
        return equation.solve_equation(made, x, *rest, **options)

    monkeypatch.setattr(equation, "compiled_solve", lambda: program)
    return asked


def test_whole_chunks_go_through_the_program(calls):
    flow = flow_on_a_grid().compile_solves()
    flow.error_model = cnf.flows.ErrorModel(tolerance=float("inf"))  # no second looks
    x = torch.randn(2 * CHUNK + 10, 2)
    with torch.no_grad():
        flow.log_prob(x)
    flow.sample((CHUNK,))
    assert calls == [CHUNK, CHUNK, CHUNK]


def test_nothing_else_goes_through_the_program(calls):
    flow = flow_on_a_grid().compile_solves()
    x = torch.randn(CHUNK, 2)
    flow.log_prob(x).mean().backward()
    with torch.no_grad():
        flow.log_prob(x[: CHUNK // 2])
        flow.log_prob(x, t=0.5)
        flow.log_prob(x, generator=torch.Generator())
        flow.trajectory(x, [0.0, 0.5, 1.0])
        flow.calibrate(x).log_prob(x)
        flow_on_a_grid().log_prob(x)
    assert calls == []


def test_what_cannot_be_compiled_is_refused():
    for flow in (
        cnf.CNF(2, solver=cnf.Torchdiffeq("dopri5")),
        cnf.CNF(2, context_dim=1),
        cnf.CNF(2, divergence="exact"),
        cnf.CNF(2, field=cnf.MLPField(2)),
    ):
        with pytest.raises(ValueError, match="compile: expected"):
            flow.compile_solves()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, about its own parts
def test_a_compiled_solve_is_one_program_and_gives_the_same():
    flow, x = flow_on_a_grid(), torch.randn(CHUNK, 2)
    counters.clear()
    with torch.no_grad():
        before = (
            flow.evaluate(x),
            flow.sample((CHUNK,), generator=torch.Generator().manual_seed(1)),
        )
        flow.compile_solves()
        after = flow.evaluate(x), flow.sample((CHUNK,), generator=torch.Generator().manual_seed(1))
        for parameter in flow.field.parameters():  # are read, and not part of the program
            parameter.mul_(0.5)
        other = flow.log_prob(x)
        flow.compiled = None
        torch.testing.assert_close(other, flow.log_prob(x), rtol=0, atol=2e-5)
    torch.testing.assert_close(after[0].log_prob, before[0].log_prob, rtol=0, atol=2e-5)
    torch.testing.assert_close(after[1], before[1], rtol=0, atol=2e-5)
    assert counters["stats"]["unique_graphs"] == 2 and not counters["graph_break"]
