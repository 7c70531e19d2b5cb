"""What keeps likelihood training honest, by itself."""

import math

import pytest
import torch
from problems import make_flow, normal

from cnf.training.guard import MORE_STEPS, MOST_STEPS, MOST_WEIGHT, Guard


def guard(steps: int = 12, scale: float = 1.0, error_weight: float = 10.0) -> Guard:
    """Of a field that is `scale` times as fast as one that a few steps follow."""
    flow = make_flow("gated-sine")
    with torch.no_grad():
        flow.field.W3.mul_(scale)
    return Guard(flow, normal(100, 2), None, steps=steps, error_weight=error_weight)


def test_where_the_grid_is_honest_the_error_weighs_less_and_less_but_never_nothing():
    calm = guard()
    for _ in range(60):
        assert calm.look()
    assert calm.error_weight == 1.0 and calm.grid.steps == 12


def test_where_it_is_not_the_error_weighs_more_and_steps_are_added():
    fast = guard(steps=4, scale=20.0)
    fast.look()
    assert fast.error_weight == 20.0 and fast.grid.steps == 4 + MORE_STEPS
    for _ in range(60):
        fast.look()
    assert fast.error_weight <= MOST_WEIGHT and fast.grid.steps <= MOST_STEPS


@pytest.mark.parametrize("scale", [1e6, math.nan])
def test_a_field_beyond_the_largest_grid_is_lost(scale):
    lost = guard(steps=MOST_STEPS, scale=scale)
    assert lost.look() is False


def test_nodes_move_to_where_the_field_is_steep():
    steady = guard()
    steady.look()
    lengths = torch.tensor(steady.grid.nodes).diff()
    assert lengths.max() > 1.1 * lengths.min()
