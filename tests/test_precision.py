"""Autocast, half precision and double precision: what is rounded, and whether bars say so."""

import copy

import pytest
import torch
from problems import make_flow, normal

import cnf

AUTOCAST = {"device_type": "cpu", "dtype": torch.bfloat16}


def single(**options) -> cnf.CNF:
    return make_flow(**options).float()


def gradients(flow, x, gradient, *, forward=False, backward=False):
    """Gradients of a loss whose passes are inside autocast or not."""
    flow.zero_grad()
    with torch.autocast(**AUTOCAST, enabled=forward):
        loss = -flow.log_prob(x, gradient=gradient).mean()
    with torch.autocast(**AUTOCAST, enabled=backward):
        loss.backward()
    return [parameter.grad.clone() for parameter in flow.parameters()]


ANSWERS = {
    "log_prob": lambda flow, x, c: flow.log_prob(x, c),
    "error": lambda flow, x, c: flow.evaluate(x, c).error,
    "sample": lambda flow, x, c: flow.sample((), c, generator=torch.Generator().manual_seed(0)),
    "trajectory": lambda flow, x, c: flow.trajectory(x, [0.0, 0.5], c, reverse=True),
    "velocity": lambda flow, x, c: flow.velocity(0.3, x, c),
    "model coordinates": lambda flow, x, c: flow.to_model_coordinates(x, c)[0],
    "calibration": lambda flow, x, c: torch.tensor(
        copy.deepcopy(flow).calibrate(x, context=c).solver.nodes
    ),
}


@torch.no_grad()
@pytest.mark.parametrize("question", ANSWERS)
def test_autocast_changes_no_answer(question):
    flow = single(context_dim=1, preprocess=cnf.Affine(torch.ones(2), torch.eye(2) + 0.1)).eval()
    x, context = normal(20, 2).float(), normal(20, 1).float()
    expected = ANSWERS[question](flow, x, context)
    with torch.autocast(**AUTOCAST):
        found = ANSWERS[question](flow, x, context)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("gradient", ["direct", "discrete"])
@pytest.mark.parametrize("rows", [3, 40])
def test_the_backward_pass_of_mixed_precision_is_that_of_single_precision(gradient, rows):
    flow, x = single(), normal(rows, 2).float()
    for found, expected in zip(
        gradients(flow, x, gradient, forward=True), gradients(flow, x, gradient)
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_backward_pass_inside_autocast_stays_in_single_precision():
    """All of it where the solve is evaluated again."""
    flow, x = single(), normal(40, 2).float()
    inside = gradients(flow, x, "discrete", forward=True, backward=True)
    for found, expected in zip(inside, gradients(flow, x, "discrete")):
        assert (found - expected).norm() < 2e-2 * expected.norm()


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rows_of_half_precision_are_scored_as_the_numbers_that_they_hold(dtype):
    """A score of half precision would lose what its bar tells, and overflow far from the data."""
    flow = single().eval()
    x = (20 * normal(50, 2)).to(dtype)
    found = flow.evaluate(x)
    assert found.log_prob.dtype == torch.float32
    torch.testing.assert_close(found.log_prob, flow.log_prob(x.float()), rtol=0, atol=0)
    assert cnf.CNF(2).log_prob(torch.tensor([300.0, -300.0], dtype=dtype)).isfinite()
