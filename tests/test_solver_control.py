"""What keeps likelihood training honest, by itself."""

import math

import pytest
import torch
from problems import make_flow, normal

from cnf.training.solver_control import (
    MOST_ERROR_WEIGHT,
    MOST_TRAINING_STEPS,
    StepController,
)


def step_control(
    steps: int = 12, scale: float = 1.0, error_weight: float = 10.0
) -> StepController:
    """Of a field that is `scale` times as fast as one that a few steps follow."""
    flow = make_flow("gated-sine")
    with torch.no_grad():
        flow.field.W3.mul_(scale)
    y, generator = normal(100, 2), torch.Generator().manual_seed(0)
    return StepController.of_flow(
        flow, y, None, steps=steps, error_weight=error_weight, generator=generator
    )


@pytest.mark.slow
def test_where_the_grid_is_honest_the_error_weighs_less_and_less_but_never_nothing():
    calm, weights = step_control(scale=0.05), []
    for _ in range(60):
        assert calm.update(0.5)
        weights.append(calm.error_weight)
    # A step that was moved to be long may still be off now and then.
    assert min(weights) == 1.0 and weights[-1] < 3


@pytest.mark.parametrize(("done", "off"), [(0.0, 0.012), (1.0, 0.002)])
@pytest.mark.slow
def test_the_grid_has_as_many_steps_as_it_takes_whatever_it_starts_with(done, off):
    """As told by a grid that is finer still, and more of them towards the end."""
    few, many = step_control(steps=6, scale=6.0), step_control(steps=60, scale=6.0)
    for field in (few, many):
        for _ in range(40):
            field.update(done)
        fine = field.grid.refined().refined()
        with torch.no_grad():
            moved = torch.stack([field.log_prob(field.training_grid()) for _ in range(20)])
            truth = field.log_prob(fine)
        assert 0.1 * off < (moved - truth).abs().mean() < 1.5 * off
    assert 6 < few.grid.steps < 1.4 * many.grid.steps < 1.4**2 * few.grid.steps


@pytest.mark.slow
def test_where_it_is_not_the_error_weighs_more_and_steps_are_added():
    fast = step_control(steps=4, scale=20.0)
    fast.update(0.0)
    assert fast.error_weight == 20.0 and fast.grid.steps == 7
    for _ in range(60):
        fast.update(0.0)
    assert fast.error_weight <= MOST_ERROR_WEIGHT and fast.grid.steps <= MOST_TRAINING_STEPS


@pytest.mark.parametrize("scale", [1e6, math.nan])
def test_a_field_beyond_the_largest_grid_is_lost(scale):
    lost = step_control(steps=MOST_TRAINING_STEPS, scale=scale)
    assert lost.update(0.0) is False


def test_nodes_move_to_where_the_field_is_steep():
    steady = step_control()
    steady.update(0.0)
    lengths = torch.tensor(steady.grid.nodes).diff()
    assert lengths.max() > 1.1 * lengths.min()


def test_a_state_brings_grid_and_weight_back():
    moved, fresh = step_control(), step_control(error_weight=3.0)
    moved.update(0.0)
    fresh.load_state_dict(moved.state_dict())
    assert fresh.grid == moved.grid and fresh.error_weight == moved.error_weight != 3.0
