"""The same on an accelerator: numbers agree with the processor's, and scoring never waits for the
device."""

import contextlib
import copy
import warnings

import pytest
import torch
from problems import F64, make_flow, normal, seeded

import cnf
from cnf.datasets import TOYS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

GRIDS = {"adams": cnf.Grid.uniform(24, "adams"), "dopri5": cnf.Grid.uniform(8)}
KINDS = ["gated-sine", "gated-tanh", "mlp"]


@contextlib.contextmanager
def no_waiting():
    """Whatever makes the host wait for the device is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the mode does not see everything yet
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("kind", KINDS)
def test_scores_and_draws_agree_with_the_processor(kind, grid):
    flow, x = make_flow(kind, solver=GRIDS[grid]), normal(300, 2)
    there = copy.deepcopy(flow).cuda()
    torch.testing.assert_close(
        there.log_prob(x.cuda()).cpu(), flow.log_prob(x), rtol=0, atol=1e-10
    )
    times = [0.0, 0.4, 1.0]
    torch.testing.assert_close(
        there.trajectory(x.cuda(), times).cpu(), flow.trajectory(x, times), rtol=0, atol=1e-10
    )
    draws = there.sample((1000,), generator=torch.Generator("cuda").manual_seed(0))
    assert draws.is_cuda and draws.shape == (1000, 2) and draws.isfinite().all()


@pytest.mark.parametrize("gradient", ["direct", "discrete"])
@pytest.mark.parametrize("grid", GRIDS)
def test_gradients_agree_with_the_processor(grid, gradient):
    found = []
    for device in ("cpu", "cuda"):
        flow = make_flow("gated-sine", solver=GRIDS[grid]).to(device)
        flow.log_prob(normal(64, 2).to(device), gradient=gradient).mean().backward()
        found.append(torch.cat([p.grad.flatten().cpu() for p in flow.field.parameters()]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-11)


@torch.no_grad()
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_solve_never_waits_for_the_device(kind, grid):
    flow = make_flow(kind).cuda()
    y = normal(256, 2).cuda()
    flow.solve_log_prob(y, None, GRIDS[grid])
    with no_waiting():
        found = flow.solve_log_prob(y, None, GRIDS[grid])
    assert found.log_prob.isfinite().all()


def test_no_row_knows_of_the_others():
    flow = make_flow("gated-sine").cuda()
    x = normal(512, 2).cuda()
    flow.calibrate(x)
    together = flow.evaluate(x)
    alone = torch.stack([flow.log_prob(row) for row in x[:20]])
    torch.testing.assert_close(together.log_prob[:20], alone, rtol=0, atol=1e-12)
    assert together.ok.all() and together.error.is_cuda


def test_a_fit_on_the_device_ends_near_one_on_the_processor(tmp_path):
    x = TOYS["8gaussians"].sample(20_000, seeded())
    nll = {}
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        flow = cnf.CNF(2).to(device)
        history = cnf.fit(flow, x.to(device), steps=300, checkpoint=tmp_path / device)
        nll[device] = history.valid_nll
    assert abs(nll["cuda"] - nll["cpu"]) < 0.1
    flow.save(tmp_path / "flow")
    loaded = cnf.load(tmp_path / "flow")
    torch.testing.assert_close(
        loaded.log_prob(x[:100]), flow.log_prob(x[:100].cuda()).cpu(), rtol=0, atol=1e-3
    )


def test_double_precision_stays_on_the_device():
    found = make_flow("mlp").cuda().log_prob(normal(5, 2).cuda())
    assert found.dtype == F64 and found.is_cuda
