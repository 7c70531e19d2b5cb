"""Solvers: orders, error estimates, grids, torchdiffeq's methods, and every kind of gradient."""

import math
import time
from itertools import pairwise

import pytest
import torch
import torchdiffeq
from hypothesis import given
from hypothesis import strategies as st
from problems import F64, logistic, logistic_solution, normal
from torch.autograd import gradcheck
from torchdiffeq._impl.odeint import SOLVERS
from torchdiffeq._impl.solvers import FixedGridODESolver

from cnf.ode import Grid, SolverError, System, Torchdiffeq, place, solve
from cnf.ode.grid import METHODS
from cnf.ode.tableaux import TABLEAUX
from cnf.ode.torchdiffeq import FIXED_STEP, TORCHDIFFEQ_METHODS

ORDERS = {"euler": 1, "midpoint": 2, "rk4": 4, "dopri5": 5}
START = torch.tensor([0.3], dtype=F64)
UNEVEN = (0.0, 0.1, 0.35, 0.5, 0.9, 1.0)


def error_at(end: float, solver, start: float = 0.0) -> float:
    x0 = torch.tensor([logistic_solution(start, 0.3)], dtype=F64)
    times = torch.tensor([start, end], dtype=F64)
    return abs(
        solve(logistic, x0, times, solver=solver).x[-1].item() - logistic_solution(end, 0.3)
    )


def slope(steps, errors) -> float:
    """Minus the regression coefficient of log error on log steps."""
    a = torch.tensor(steps, dtype=F64).log()
    b = torch.tensor(errors, dtype=F64).log()
    return -(((a - a.mean()) * b).sum() / (a - a.mean()).square().sum()).item()


@pytest.mark.parametrize(("start", "end"), [(0.0, 2.0), (2.0, 0.0)], ids=["forwards", "backwards"])
@pytest.mark.parametrize("method", ORDERS)
def test_observed_order_on_a_time_dependent_problem(method, start, end):
    steps = [8, 12, 16, 24, 32, 48]
    errors = [error_at(end, Grid.uniform(n, method), start) for n in steps]
    assert slope(steps, errors) == pytest.approx(ORDERS[method], abs=0.35)


@pytest.mark.parametrize("method", ORDERS)
def test_order_of_a_quadrature(method):
    """q = ∫ x² cos 2t dt with x = e^t has the order of the method."""
    system = System.of(lambda t, x: x, lambda t, x: (x, x**2 * torch.cos(2 * t)))
    exact = (math.exp(2) * (math.cos(2) + math.sin(2)) - 1) / 4
    steps, errors = [8, 12, 16, 24, 32], []
    for n in steps:
        solution = Grid.uniform(n, method).solve(
            system, torch.ones(1, dtype=F64), torch.tensor([0.0, 1.0], dtype=F64)
        )
        errors.append(abs(solution.q[-1].item() - exact))
    assert slope(steps, errors) == pytest.approx(ORDERS[method], abs=0.35)


def test_embedded_estimate_has_order_five_per_step_and_bounds_the_error():
    steps, estimates = [8, 12, 16, 24, 32], []
    for n in steps:
        solution = solve(logistic, START, [0.0, 2.0], solver=Grid.uniform(n))
        estimates.append(solution.x_error[0].item())
        assert solution.x_error.sum() > error_at(2.0, Grid.uniform(n))
    assert slope(steps, estimates) == pytest.approx(5, abs=0.4)


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
def test_a_method_without_partner_gives_no_estimate(method):
    solution = solve(logistic, START, [0.0, 1.0], solver=Grid.uniform(4, method))
    assert solution.x_error.shape == (0,) and solution.q_error.shape == (0, 0)


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "unrecorded"])
@pytest.mark.parametrize(
    "rates", [None, lambda t, x: (x.sin(), t * x[..., :1])], ids=["alone", "quadrature"]
)
@pytest.mark.parametrize("gradient", ["direct", "discrete"])
@pytest.mark.parametrize("method", METHODS)
def test_a_solve_that_leaves_its_errors_out_is_otherwise_the_same(
    method, gradient, rates, recorded
):
    system = System.of(lambda t, x: x.sin(), rates)
    x, t = normal(5, 2).requires_grad_(), torch.tensor([0.0, 0.4, 1.0], dtype=F64)
    with torch.set_grad_enabled(recorded):
        full, lean = (
            Grid(UNEVEN, method).solve(system, x, t, gradient=gradient, estimate=estimate)
            for estimate in (True, False)
        )
        assert torch.equal(full.x, lean.x) and torch.equal(full.q, lean.q)
        assert len(lean.x_error) == len(lean.q_error) == 0
        if recorded:
            to_x = [
                torch.autograd.grad(found.x.square().sum() + found.q.sum(), x)[0]
                for found in (full, lean)
            ]
            assert torch.equal(*to_x) and to_x[0].all()


@pytest.mark.parametrize("method", TABLEAUX)
def test_tableau_is_consistent(method):
    tableau = TABLEAUX[method]
    assert sum(tableau.b) == pytest.approx(1)
    assert sum(tableau.b_error) == pytest.approx(0)
    for c, row in zip(tableau.c, tableau.a):
        assert sum(row) == pytest.approx(c)
    if tableau.first_same_as_last:
        assert tableau.a[-1] == pytest.approx(tableau.b[:-1]) and tableau.c[-1] == 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("nodes", [(0.0, 1.0), UNEVEN])
def test_nfe_is_what_was_evaluated(method, nodes):
    calls = []

    def counted(t, x):
        calls.append(t)
        return -x

    grid = Grid(nodes, method)
    solution = solve(counted, START, [0.0, 1.0], solver=grid)
    assert solution.nfe == grid.nfe == len(calls)


def test_rates_are_only_evaluated_where_they_have_weight():
    calls = []

    def with_rates(t, x):
        calls.append(t)
        return -x, x

    Grid.uniform(5).solve(
        System.of(lambda t, x: -x, with_rates),
        START,
        torch.tensor([0.0, 1.0], dtype=F64),
        gradient="direct",
    )
    assert len(calls) == 1 + 5 * 5


TIMES = [[0.0, 0.31, 0.5, 1.4, 2.0], [2.0, 1.0, 0.3, 0.0], [0.5, 0.9], [-1.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    "solver",
    [
        Grid.uniform(40),
        Grid.uniform(80, "rk4"),
        Grid.uniform(80, "adams"),
        Torchdiffeq("dopri5", 1e-9, 1e-9),
    ],
)
@pytest.mark.parametrize("times", TIMES)
def test_states_at_all_requested_times(solver, times):
    x0 = torch.tensor([logistic_solution(times[0], 0.3)], dtype=F64)
    states = solve(logistic, x0, times, solver=solver).x
    expected = torch.tensor([[logistic_solution(t, 0.3)] for t in times], dtype=F64)
    assert states.shape == (len(times), 1)
    assert torch.equal(states[0], x0)
    torch.testing.assert_close(states, expected, rtol=0, atol=2e-7)


def test_quadratures_start_at_zero_and_accumulate_at_all_times():
    system = System.of(lambda t, x: x, lambda t, x: (x, torch.cat([x, 1 + 0 * x], -1)))
    times = torch.tensor([0.0, 0.25, 0.6, 1.0], dtype=F64)
    for solver in (Grid(UNEVEN).refined(), Torchdiffeq("dopri5", 1e-10, 1e-10)):
        q = solver.solve(system, torch.ones(1, dtype=F64), times, gradient="direct").q
        torch.testing.assert_close(q, torch.stack([times.exp() - 1, times], -1), rtol=0, atol=1e-7)


@pytest.mark.parametrize("times", [[0.0], [0.0, 0.0], [0.0, 1.0, 0.5], [0.0, math.nan], []])
def test_times_that_are_not_monotone_are_refused(times):
    with pytest.raises(ValueError, match="monotone"):
        solve(logistic, START, times, solver=Grid.uniform(2))


@pytest.mark.parametrize("method", ["dopri8", "dopri5", "bosh3"])
def test_trap_dense_output_of_lower_order_than_the_steps(method):
    """The last time is reached by a step, not by torchdiffeq's fourth-order interpolation of a
    long one."""
    solver = Torchdiffeq(method, 1e-8, 1e-8)
    for end in (0.5, 1.0, 2.0):
        assert error_at(end, solver) < 1e-6


NODES = st.sets(st.integers(1, 999), max_size=12).map(
    lambda inner: (0.0, *(k / 1000 for k in sorted(inner)), 1.0)
)


@given(nodes=NODES)
def test_refined_halves_every_step(nodes):
    grid = Grid(nodes, "rk4")
    finer = grid.refined()
    assert finer.steps == 2 * grid.steps and finer.method == "rk4"
    assert finer.nodes[::2] == grid.nodes
    for (a, b), middle in zip(pairwise(nodes), finer.nodes[1::2]):
        assert middle == pytest.approx((a + b) / 2)


@given(nodes=NODES, steps=st.integers(1, 60))
def test_stretched_spreads_its_nodes_as_the_grid_does(nodes, steps):
    """The density of nodes stays: a grid stretched to k times its steps has k nodes for each of
    its own."""
    grid = Grid(nodes, "rk4")
    assert grid.with_steps(steps).steps == steps and grid.with_steps(steps).method == "rk4"
    assert grid.with_steps(grid.steps).nodes == pytest.approx(nodes)
    assert grid.with_steps(2 * grid.steps).nodes == pytest.approx(grid.refined().nodes)


@given(nodes=NODES, start=st.floats(0, 1), end=st.floats(0, 1))
def test_between_steps_on_the_nodes_that_it_passes(nodes, start, end):
    if abs(start - end) < 1e-3:
        return
    part = Grid(nodes).between(start, end)
    places = [start + (end - start) * f for f in part.nodes]
    assert (places[0], places[-1]) == (pytest.approx(start), pytest.approx(end))
    passed = [n for n in nodes if min(start, end) < n < max(start, end)]
    # A node that all but coincides with an end makes no step of its own.
    assert len(passed) - 2 <= part.steps - 1 <= len(passed)
    assert all(min(abs(place - n) for n in passed) < 1e-9 for place in places[1:-1])


def test_between_an_end_and_a_node_one_ulp_apart():
    node = 0.3 + 2**-54
    assert Grid((0.0, node, 1.0)).between(1.0, 0.3).nodes == (0.0, 1.0)


def test_between_both_ends_is_the_grid_and_its_mirror():
    assert Grid(UNEVEN).between(0.0, 1.0) == Grid(UNEVEN)
    assert Grid(UNEVEN).between(1.0, 0.0).nodes == pytest.approx([1 - n for n in reversed(UNEVEN)])


def test_a_solve_in_two_parts_is_the_whole_solve():
    whole = solve(logistic, START, [0.0, 1.0], solver=Grid(UNEVEN)).x[-1]
    half = solve(logistic, START, [0.0, 0.5], solver=Grid(UNEVEN).between(0.0, 0.5)).x[-1]
    rest = solve(logistic, half, [0.5, 1.0], solver=Grid(UNEVEN).between(0.5, 1.0)).x[-1]
    torch.testing.assert_close(rest, whole, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "nodes",
    [
        (),
        (0.0,),
        (0.0, 0.5),
        (0.5, 1.0),
        (0.0, 0.6, 0.4, 1.0),
        (0.0, 0.5, 0.5, 1.0),
        (0.0, math.nan, 1.0),
    ],
)
def test_bad_nodes_are_refused(nodes):
    with pytest.raises(ValueError, match="nodes of a grid"):
        Grid(nodes)


def test_bad_grids_and_solvers_are_refused():
    with pytest.raises(ValueError, match="method of a grid"):
        Grid((0.0, 1.0), "dopri8")
    with pytest.raises(ValueError, match="at least 1"):
        Grid.uniform(0)
    with pytest.raises(ValueError, match="expected one of"):
        Torchdiffeq("scipy_solver")
    with pytest.raises(ValueError, match="needs step_size"):
        Torchdiffeq("rk4")
    with pytest.raises(ValueError, match="takes no step_size"):
        Torchdiffeq("dopri5", step_size=0.1)


def stepwise_errors(grid: Grid) -> torch.Tensor:
    """Errors of the steps on an equation that is fast around t = 0.7 and slow elsewhere."""

    def burst(t, x):
        return x * 20 * torch.exp(-((t - 0.7) ** 2) / 0.002)

    return solve(burst, START, [0.0, 1.0], solver=grid).x_error


def test_place_spreads_the_error_and_lowers_it():
    placed = Grid.uniform(32)
    before = stepwise_errors(placed)
    for _ in range(4):
        errors = stepwise_errors(placed).clamp(min=1e-15)
        placed = Grid(place(errors, placed.nodes, 32, order=5))
    after = stepwise_errors(placed)
    assert after.max() < before.max() / 20 and after.sum() < before.sum() / 20
    assert sum(0.6 < node < 0.8 for node in placed.nodes) > 2 * 32 * 0.2


@given(
    errors=st.lists(st.floats(1e-12, 1e3), min_size=1, max_size=20),
    steps=st.integers(1, 40),
)
def test_place_always_gives_a_grid(errors, steps):
    nodes = place(torch.tensor(errors), Grid.uniform(len(errors)).nodes, steps, order=5)
    assert Grid(nodes).steps == steps
    # A share is uniform: no step is longer than 1.3/0.3 uniform ones.
    assert max(b - a for a, b in pairwise(nodes)) <= 1.3 / 0.3 / steps + 1e-9


def test_place_leaves_even_errors_alone_and_follows_the_law_of_powers():
    assert place(torch.ones(4), Grid.uniform(4).nodes, 4, order=5) == pytest.approx(
        Grid.uniform(4).nodes
    )
    nodes = place(torch.tensor([1.0, 32.0]), (0.0, 0.5, 1.0), 30, order=5)
    first = sum(b <= 0.5 for b in nodes[1:])
    assert first == pytest.approx(30 * (1 / 3 + 0.15) / 1.3, abs=1)


def test_the_methods_are_those_of_torchdiffeq():
    known = {name for name in SOLVERS if name != "scipy_solver"}
    assert set(TORCHDIFFEQ_METHODS) == known
    fixed = {name for name in known if issubclass(SOLVERS[name], FixedGridODESolver)}
    assert set(FIXED_STEP) == fixed


@pytest.mark.parametrize("method", TORCHDIFFEQ_METHODS)
def test_every_method_of_torchdiffeq(method):
    step_size = 0.01 if method in FIXED_STEP else None
    solver = Torchdiffeq(method, 1e-6, 1e-6, step_size=step_size)
    assert error_at(1.0, solver) < (5e-3 if method == "euler" else 2e-4)
    assert error_at(0.0, solver, start=1.0) < (5e-3 if method == "euler" else 2e-4)


@pytest.mark.parametrize("gradient", ["direct", "adjoint"])
def test_more_evaluations_than_allowed_raise(gradient):
    solver = Torchdiffeq("dopri5", 1e-10, 1e-10, max_evaluations=20)
    with pytest.raises(SolverError, match="max_evaluations=20"):
        solve(logistic, START, [0.0, 2.0], solver=solver, gradient=gradient)


def test_the_cap_holds_in_the_adjoint_too():
    x = START.clone().requires_grad_()
    nfe = solve(logistic, START, [0.0, 2.0], solver=Torchdiffeq()).nfe
    end = solve(
        logistic, x, [0.0, 2.0], solver=Torchdiffeq(max_evaluations=nfe + 3), gradient="adjoint"
    ).x[-1]
    with pytest.raises(SolverError):
        end.sum().backward()


def test_a_solution_that_blows_up_raises_and_does_not_hang():
    with pytest.raises(SolverError):
        solve(lambda t, x: x**2, torch.ones(1, dtype=F64), [0.0, 2.0], solver=Torchdiffeq())


def test_a_stiff_problem_raises_and_does_not_hang():
    with pytest.raises(SolverError):
        solve(
            lambda t, x: -1e6 * (x - torch.cos(t)),
            START,
            [0.0, 10.0],
            solver=Torchdiffeq(max_evaluations=3000),
        )


def test_trap_one_nan_row_hangs_the_solve():
    with pytest.raises(SolverError):
        solve(logistic, torch.tensor([[0.3], [math.nan]]), [0.0, 1.0], solver=Torchdiffeq())


def test_the_worst_row_sets_the_step_however_many_rows_are_easy():
    """A norm averaged over the batch would let a thousand resting rows hide the moving one."""
    moving = torch.tensor([[1.0, 0.0]], dtype=F64)

    def spin(t, x):
        return 25 * torch.stack([-x[..., 1], x[..., 0]], -1)

    crowd = torch.cat([moving, torch.zeros(2000, 2, dtype=F64)])
    alone = solve(spin, moving, [0.0, 1.0]).x[-1, 0]
    among = solve(spin, crowd, [0.0, 1.0]).x[-1, 0]
    torch.testing.assert_close(among, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "unrecorded"])
@pytest.mark.parametrize("method", METHODS)
def test_no_rows_have_as_many_quadratures_as_some(method, recorded):
    system = System.of(lambda t, x: x, lambda t, x: (x, torch.cat([x, x], -1)))
    with torch.set_grad_enabled(recorded):
        found = Grid.uniform(3, method).solve(system, torch.ones(0, 2), torch.tensor([0.0, 1.0]))
    assert found.x.shape == (2, 0, 2) and found.q.shape == (2, 0, 4)


@pytest.mark.parametrize("solver", [Grid.uniform(3), Torchdiffeq()])
def test_no_rows_is_not_an_error(solver):
    assert solve(logistic, torch.zeros(0, 2), [0.0, 1.0], solver=solver).x.shape == (2, 0, 2)


@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_the_counterpart_of_a_grid_takes_as_many_steps_over_any_span(method):
    grid = Grid.uniform(10, method)
    for times in ([0.0, 5.0], [0.4, 0.0]):
        solution = solve(logistic, START, times, solver=grid, gradient="adjoint")
        # torchdiffeq may add a step of rounding length; the extra evaluation finds the shape of
        # the rates.
        assert grid.nfe <= solution.nfe <= grid.nfe + 2 * TABLEAUX[method].stages


@pytest.mark.parametrize("solver", [Grid.uniform(3), Torchdiffeq()])
def test_an_unknown_gradient_is_refused(solver):
    with pytest.raises(ValueError, match="gradient: expected"):
        solve(logistic, START, [0.0, 1.0], solver=solver, gradient="ajoint")


def test_discrete_gradient_needs_a_grid():
    with pytest.raises(ValueError, match="needs a Grid"):
        solve(logistic, START, [0.0, 1.0], solver=Torchdiffeq(), gradient="discrete")


def pendulum(weight):
    """A velocity and a rate that are nonlinear in time, state and parameter."""

    def rates(t, x):
        v = torch.tanh(x @ weight + torch.cos(3 * t)) - t * x
        return v, (torch.sin(weight[0, 0] * x[..., :1]) + t * x[..., 1:] ** 2)

    return lambda t, x: rates(t, x)[0], rates


def everything(solver, gradient):
    """All that a solve returns, as a function of state, times and parameter."""

    def run(x, t, weight):
        velocity, rates = pendulum(weight)
        solution = solver.solve(System.of(velocity, rates, (weight,)), x, t, gradient=gradient)
        return solution.x, solution.q, solution.x_error, solution.q_error

    return run


def inputs(times=(0.1, 0.4, 0.75, 1.2)):
    tensors = normal(2, 2, seed=1), torch.tensor(times, dtype=F64), normal(2, 2, seed=2)
    return tuple(tensor.requires_grad_() for tensor in tensors)


@pytest.mark.parametrize("times", [(0.1, 1.2), (0.1, 0.43, 0.75, 1.2), (1.2, 0.5, 0.1)], ids=len)
@pytest.mark.parametrize("gradient", ["direct", "discrete"])
@pytest.mark.parametrize("method", METHODS)
def test_gradcheck_on_grids_in_state_times_and_parameters(method, gradient, times):
    run = everything(Grid((0.0, 0.3, 1.0), method), gradient)
    assert gradcheck(run, inputs(times), eps=1e-6, atol=1e-6, rtol=1e-4, fast_mode=True)


@pytest.mark.parametrize("times", [(0.1, 0.4, 1.2), (1.2, 0.1)], ids=len)
@pytest.mark.parametrize("gradient", ["direct", "adjoint"])
@pytest.mark.parametrize(
    "solver",
    [
        Torchdiffeq("dopri5", 1e-7, 1e-7),
        pytest.param(Torchdiffeq("dopri8", 1e-7, 1e-7), marks=pytest.mark.slow),
    ],
)
def test_gradcheck_with_torchdiffeq_in_state_times_and_parameters(solver, gradient, times):
    def run(x, t, weight):
        return everything(solver, gradient)(x, t, weight)[:2]

    assert gradcheck(run, inputs(times), eps=1e-4, atol=1e-4, rtol=1e-3, fast_mode=True)


@pytest.mark.parametrize(
    "solver",
    [Torchdiffeq("rk4", step_size=0.05), Grid.uniform(20, "rk4")],
    ids=lambda s: type(s).__name__,
)
def test_gradcheck_of_the_adjoint_with_fixed_steps(solver):
    def run(x, t, weight):
        return everything(solver, "adjoint")(x, t, weight)[:2]

    assert gradcheck(run, inputs((0.1, 1.1)), eps=1e-5, atol=1e-5, rtol=1e-4, fast_mode=True)


@pytest.mark.parametrize("nodes", [(0.0, 1.0), UNEVEN])
@pytest.mark.parametrize("times", [(0.1, 1.2), (0.1, 0.43, 0.75, 1.2), (1.2, 0.5, 0.1)], ids=len)
@pytest.mark.parametrize("method", METHODS)
def test_discrete_is_direct_to_rounding(method, times, nodes):
    """Cotangents of everything a solve returns: states, quadratures, and both error estimates."""
    found = []
    for gradient in ("direct", "discrete"):
        leaves = inputs(times)
        outputs = everything(Grid(nodes, method), gradient)(*leaves)
        loss = sum((normal(*out.shape, seed=k) * out).sum() for k, out in enumerate(outputs))
        found.append((*(out.detach() for out in outputs), *torch.autograd.grad(loss, leaves)))
    for direct, discrete in zip(*found):
        torch.testing.assert_close(discrete, direct, rtol=1e-10, atol=1e-13)


def test_trap_learnable_end_time_detached():
    """d x(T)/dT is the velocity at T, whatever solves and whatever makes the gradient."""
    expected = logistic(torch.tensor(1.3), torch.tensor(logistic_solution(1.3, 0.3))).item()
    kinds = [
        (Grid.uniform(20), "direct"), (Grid.uniform(20), "discrete"), (Grid.uniform(20), "adjoint"),
        (Torchdiffeq("dopri5", 1e-9, 1e-9), "direct"), (Torchdiffeq("dopri5", 1e-9, 1e-9), "adjoint"),
    ]  # fmt: skip
    for solver, gradient in kinds:
        end = torch.tensor(1.3, dtype=F64, requires_grad=True)
        times = torch.stack([torch.zeros((), dtype=F64), end])
        solve(logistic, START, times, solver=solver, gradient=gradient).x[-1].sum().backward()
        assert end.grad.item() == pytest.approx(expected, rel=1e-5), (solver, gradient)


@pytest.mark.parametrize("gradient", ["direct", "discrete"])
def test_the_norm_of_a_vanishing_error_has_a_finite_gradient(gradient):
    x = torch.zeros(3, 2, dtype=F64, requires_grad=True)
    solution = solve(lambda t, x: 0 * x, x, [0.0, 1.0], solver=Grid.uniform(3), gradient=gradient)
    solution.x_error.sum().backward()
    assert x.grad.isfinite().all()


def saved_bytes(solver, gradient) -> int:
    """Bytes that autograd keeps between a solve and its gradient."""
    weight = normal(4, 4).requires_grad_()
    system = System.of(lambda t, x: torch.tanh(x @ weight), tensors=(weight,))
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        solution = solver.solve(
            system, normal(64, 4), torch.tensor([0.0, 1.0], dtype=F64), gradient=gradient
        )
    assert solution.x.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())


def test_memory_of_the_adjoint_does_not_grow_with_the_steps():
    few, many = (saved_bytes(Torchdiffeq("rk4", step_size=1 / n), "adjoint") for n in (40, 400))
    assert many == few


def test_memory_of_the_discrete_adjoint_is_its_states():
    """Each step adds one state (dopri5: its last velocity too), its plan, and nothing of the
    stages."""
    state = 64 * 4 * 8
    for method, kept in (("rk4", 1), ("dopri5", 2), ("adams", 1)):
        few, many = (saved_bytes(Grid.uniform(n, method), "discrete") for n in (40, 400))
        assert 360 * state <= many - few <= 361 * (kept * state + 192)


def test_memory_of_direct_grows_linearly():
    sizes = [saved_bytes(Grid.uniform(n, "rk4"), "direct") for n in (10, 20, 40)]
    assert sizes[2] - sizes[1] == pytest.approx(2 * (sizes[1] - sizes[0]), rel=0.01)
    assert sizes[1] - sizes[0] > 10 * 4 * 64 * 4 * 8


def test_a_grid_costs_a_quarter_of_an_adaptive_solver_beside_the_field():
    """Everything but the field, which is for nothing here: of dopri5 for each evaluation, and of
    adams, which makes a whole step of an evaluation and takes half as many, for the solve."""
    x, times = torch.randn(1000, 7), torch.tensor([0.0, 1.0])
    v, rates, calls = torch.randn(1000, 7), torch.randn(1000, 1), []
    system = System.of(lambda t, x: v, lambda t, x: (v, rates))

    def derivative(t, state):
        calls.append(t)
        return v, rates

    def ours(grid: Grid) -> float:
        start = time.process_time()
        for _ in range(3):
            grid.solve(system, x, times)
        return (time.process_time() - start) / 3

    def theirs() -> float:
        calls.clear()
        start = time.process_time()
        options = {"first_step": 1 / 10, "ifactor": 1.0}
        torchdiffeq.odeint(derivative, (x, rates), times, method="dopri5", options=options)
        return time.process_time() - start

    dopri5, adams = Grid.uniform(10), Grid.uniform(26, "adams")
    with torch.no_grad():
        turns = [(ours(dopri5), ours(adams), theirs()) for _ in range(20)]
    of_dopri5, of_adams, of_peer = (min(seconds) for seconds in zip(*turns))
    assert adams.nfe <= 0.5 * dopri5.nfe <= 0.5 * len(calls)
    assert of_dopri5 / dopri5.nfe <= 0.25 * of_peer / len(calls)
    assert of_adams <= 0.25 * of_peer
