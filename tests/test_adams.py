"""The predictor-corrector method: its weights, its start, its estimate, and states between its
nodes."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import F64, logistic, logistic_solution, normal

from cnf.ode import Grid, System, solve
from cnf.ode.adams import ENTRY, Adams, interpolate, last_visits, with_startup_steps

LIKE = torch.empty(0, dtype=F64)
EVEN = tuple(k / 10 for k in range(11))
# Hairer, Nørsett & Wanner, "Solving Ordinary Differential Equations I", III.1: oldest first.
BASHFORTH = torch.tensor([251, -1274, 2616, -2774, 1901], dtype=F64) / 720
MOULTON = torch.tensor([-19, 106, -264, 646, 251], dtype=F64) / 720
# Neighboring steps that differ by at most a factor of three, as those of placed grids do.
NODES = st.lists(st.floats(1, 3), min_size=2, max_size=12).map(
    lambda lengths: (0.0, *(sum(lengths[:k]) / sum(lengths) for k in range(1, len(lengths))), 1.0)
)


def weights_of(nodes, step):
    """Of predictor and corrector at a step, with the times that each looks back on."""
    row = Adams(nodes, LIKE).weights[step]
    behind = min(step + 1, 5)
    predictor, corrector = row[:5], (row[:6] + row[6:])[1:]
    past = nodes[step + 1 - behind : step + 1]
    return (predictor[-behind:], past), (
        corrector[-min(step + 2, 5) :],
        (*past, nodes[step + 1])[-5:],
    )


def test_even_times_give_the_classical_weights():
    (predictor, _), (corrector, _) = weights_of(EVEN, 7)
    torch.testing.assert_close(predictor, 0.1 * BASHFORTH, rtol=1e-12, atol=0)
    torch.testing.assert_close(corrector, 0.1 * MOULTON, rtol=1e-12, atol=0)


@given(nodes=NODES)
def test_weights_integrate_polynomials_exactly_on_any_times(nodes):
    for step, (start, end) in enumerate(pairwise(nodes)):
        for weights, times in weights_of(nodes, step):
            for power in range(len(times)):
                found = sum(w * t**power for w, t in zip(weights.tolist(), times))
                exact = (end ** (power + 1) - start ** (power + 1)) / (power + 1)
                assert found == pytest.approx(exact, abs=1e-11)


@given(nodes=NODES)
def test_a_solve_enters_its_first_step_in_pieces(nodes):
    start, near, again, far, first, *rest = with_startup_steps(nodes)
    assert start == 0 and near == again and (0.0, first, *rest)[-1] == 1
    assert near == pytest.approx(far / ENTRY) and far == pytest.approx(first / ENTRY)
    assert {first, *rest} <= set(nodes) and near < far < first
    assert Grid(nodes, "adams").nfe == len(with_startup_steps(nodes))


def test_what_stands_twice_is_looked_back_on_once():
    nodes = with_startup_steps(EVEN)
    weights = Adams(nodes, LIKE).weights.view(-1, 2, 6)
    assert not weights[1].any()  # the step without length
    assert nodes[1] == nodes[2] and weights[2, 0, 3] == 0 != weights[2, 0, 4]
    assert last_visits(nodes) == [0, *range(2, len(nodes))]


def test_a_first_step_that_is_far_shorter_than_the_second_gives_way():
    """A solve that starts just before a node would otherwise look ahead from points that all but
    coincide."""
    nodes = Grid(EVEN, "adams").between(0.2999, 1.0)
    assert with_startup_steps(nodes.nodes)[4] == pytest.approx((0.4 - 0.2999) / 0.7001)
    x0 = torch.tensor([logistic_solution(0.2999, 0.3)], dtype=F64)
    end = solve(logistic, x0, [0.2999, 1.0], solver=nodes).x[-1].item()
    assert end == pytest.approx(logistic_solution(1.0, 0.3), abs=1e-6)


@pytest.mark.parametrize(("start", "end"), [(0.0, 2.0), (2.0, 0.0)], ids=["forwards", "backwards"])
def test_errors_fall_as_those_of_order_five(start, end):
    def error(steps):
        x0 = torch.tensor([logistic_solution(start, 0.3)], dtype=F64)
        found = solve(logistic, x0, [start, end], solver=Grid.uniform(steps, "adams")).x[-1].item()
        return abs(found - logistic_solution(end, 0.3))

    few, many, lots = error(10), error(30), error(90)
    assert many < few / 3**4.5 and many < 5e-8
    # The start, which is of a lower order, does not outweigh the rest.
    assert lots < many / 3**3.5


def test_the_estimate_is_the_error_where_the_velocity_is_a_polynomial():
    """f = t⁵ has a constant sixth derivative of x: Milne's device is exact on even times, start
    apart."""
    solution = solve(
        lambda t, x: t**5 + 0 * x,
        torch.zeros(1, dtype=F64),
        [0.0, 1.0],
        solver=Grid(EVEN, "adams"),
    )
    steps = len(with_startup_steps(EVEN)) - 1
    assert solution.x_error.shape == (steps,)
    system = System.of(lambda t, x: t**5 + 0 * x)
    times = torch.tensor([0.0, 0.9, 1.0], dtype=F64)
    states = Grid(EVEN, "adams").solve(system, torch.zeros(1, dtype=F64), times).x
    last = (states[2] - states[1]).item() - (1 - 0.9**6) / 6
    assert solution.x_error[-1].item() == pytest.approx(abs(last), rel=1e-8)


def test_states_between_nodes_are_exact_for_polynomials_of_degree_five():
    nodes = (0.0, 0.05, 0.2, 0.45, 0.5, 0.8, 0.9, 1.0)
    at = torch.tensor(nodes, dtype=F64)
    t = torch.tensor([0.01, 0.2, 0.33, 0.97], dtype=F64)

    def states(t):
        return torch.stack([t**5 - 2 * t**2, 1 - t**4], -1)

    torch.testing.assert_close(interpolate(states(at), nodes, t), states(t), rtol=0, atol=1e-13)
    assert torch.equal(interpolate(states(at), nodes, at[3:4]), states(at)[3:4])


def test_times_asked_for_cost_no_evaluation_and_change_nothing():
    grid, times = Grid.uniform(20, "adams"), torch.linspace(0, 2, 41, dtype=F64)
    x0 = normal(3, 1).sigmoid()
    many, two = (
        solve(logistic, x0, times, solver=grid),
        solve(logistic, x0, [0.0, 2.0], solver=grid),
    )
    assert many.nfe == two.nfe == grid.nfe
    assert torch.equal(many.x[[0, -1]], two.x)


def test_a_stiff_equation_shows_in_the_estimate():
    """Few steps blow up where the velocity is steep: the estimate must say so."""
    solution = solve(
        lambda t, x: -80 * x,
        torch.ones(1, dtype=F64),
        [0.0, 1.0],
        solver=Grid.uniform(15, "adams"),
    )
    error = abs(solution.x[-1].item() - math.exp(-80))
    assert error > 1e-3 and solution.x_error.sum().item() > error / 100


@pytest.mark.parametrize("times", [[0.0, 1.0], [2.0, 0.7, 0.0]], ids=["forwards", "backwards"])
def test_steps_that_nothing_records_are_those_that_a_gradient_sees(times):
    """The ring of the one turns many times round; the other hands its past on."""
    system = System.of(lambda t, x: (t * x).sin(), lambda t, x: ((t * x).sin(), (t + x).cos()))
    times, grid = torch.tensor(times, dtype=F64), Grid.uniform(17, "adams")
    recorded = grid.solve(system, normal(4, 2).requires_grad_(), times, gradient="direct")
    with torch.no_grad():
        quiet = grid.solve(system, normal(4, 2), times)
    assert recorded.x.requires_grad and not quiet.x.requires_grad
    for part in ("x", "q", "x_error", "q_error"):
        torch.testing.assert_close(
            getattr(quiet, part), getattr(recorded, part), rtol=1e-12, atol=1e-15
        )
