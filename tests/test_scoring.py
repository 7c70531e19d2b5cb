"""Scoring row by row: bad rows, hard rows, and whether the error bar tells the truth."""

import copy
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from problems import F64, make_flow, normal, seeded, stirred

import cnf
from cnf.fields import VelocityField
from cnf.flows.calibration import (
    FLOORS,
    POWERS,
    QUADRATURE_WEIGHTS,
    _cheapest,
    _difficulty,
    _judged,
    _placed,
    expected_evaluations,
)
from cnf.flows.error_model import ErrorModel, SolveResult
from cnf.flows.scoring import CHUNK, MOST_EVALUATIONS, RISE, UnsolvedWarning

REFERENCE = cnf.Torchdiffeq("dopri8", 1e-10, 1e-10)


class Rough(VelocityField):
    """Rows far to the right turn fast, the others rest: some rows are hard and most are easy."""

    def forward(self, t, x, context=None):
        speed = 30 * torch.sigmoid(4 * (x[..., :1].square() + x[..., 1:].square() - 9))
        return speed * torch.cat([-x[..., 1:], x[..., :1]], -1)


class Explosive(VelocityField):
    """Backwards in time, columns grow without bound where x > 0 is not small."""

    def forward(self, t, x, context=None):
        return -(x.clamp(min=0) ** 3) * 100


def same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def rows_of(evaluation, rows):
    return [
        part[rows]
        for part in (evaluation.log_prob, evaluation.error, evaluation.nfe, evaluation.ok)
    ]


SOLVERS = {
    "grid": cnf.Grid.uniform(16),
    "adams": cnf.Grid.uniform(30, "adams"),
    "rk4": cnf.Grid.uniform(20, "rk4"),
    "dopri5": cnf.Torchdiffeq("dopri5", 1e-6, 1e-6, max_evaluations=500),
}


@pytest.fixture
def low_cap(monkeypatch):
    """Rows that no grid can solve are given up soon."""
    monkeypatch.setattr("cnf.flows.scoring.MOST_EVALUATIONS", 1_000)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("solver", SOLVERS)
def test_trap_one_nan_row_leaves_garbage_marked_as_success(solver, bad):
    flow = make_flow("mlp", solver=SOLVERS[solver])
    x = normal(9, 2)
    x[3, 1] = x[7, 0] = bad
    found = flow.evaluate(x)
    fine = [0, 1, 2, 4, 5, 6, 8]
    assert found.log_prob[[3, 7]].isnan().all() and not found.ok[[3, 7]].any()
    assert (
        found.ok[fine].all()
        and found.log_prob[fine].isfinite().all()
        and found.error[fine].isfinite().all()
    )
    without = flow.evaluate(x[fine])
    for a, b in zip(rows_of(found, fine), rows_of(without, slice(None))):
        same(a, b)


def test_a_nan_row_does_not_spoil_the_gradients_of_the_others():
    found = []
    for x in (normal(5, 2), torch.cat([normal(5, 2), torch.full((1, 2), math.nan, dtype=F64)])):
        flow = make_flow()
        flow.log_prob(x)[:5].sum().backward()
        found.append([parameter.grad for parameter in flow.parameters()])
    for without, among in zip(*found):
        torch.testing.assert_close(among, without, rtol=1e-12, atol=1e-13)


def test_a_context_that_is_not_finite_is_a_bad_row():
    context = normal(4, 1)
    context[2] = math.nan
    found = make_flow(context_dim=1).evaluate(normal(4, 2), context)
    assert found.ok.tolist() == [True, True, False, True] and found.log_prob[2].isnan()
    assert found.nfe[2] == 0


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 4)])
def test_no_rows_is_an_empty_answer(solver, shape):
    found = make_flow(solver=SOLVERS[solver]).evaluate(torch.zeros(*shape, 2))
    assert found.log_prob.shape == found.error.shape == found.nfe.shape == found.ok.shape == shape


def test_only_bad_rows_is_an_answer_too():
    found = make_flow().evaluate(torch.full((2, 2), math.nan))
    assert found.log_prob.isnan().all() and not found.ok.any()


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("solver", SOLVERS)
def test_extreme_numbers_raise_nothing_and_promise_nothing(solver, dtype, low_cap):
    flow = stirred(cnf.CNF(2, hidden=(16, 16), solver=SOLVERS[solver])).to(dtype)
    tiny = torch.finfo(dtype).tiny
    huge = torch.finfo(dtype).max / 10
    x = torch.tensor([[1e30, 0], [huge, -huge], [tiny / 8, -tiny / 8], [0, 0]], dtype=dtype)
    found = flow.evaluate(x)
    assert found.ok[2:].all()
    # Where nothing overflows, at least the bar says that all digits are lost to rounding.
    assert (~found.ok[:2] | (found.error[:2] > 1)).all()
    torch.testing.assert_close(found.log_prob[2], found.log_prob[3], rtol=0, atol=1e-5)


def hard_and_easy() -> tuple[cnf.CNF, torch.Tensor]:
    flow = cnf.CNF(2, field=Rough(2), solver=cnf.Grid.uniform(8))
    radius = torch.tensor([0.1, 0.5, 3.2, 1.0, 3.5, 0.2])
    angle = torch.arange(6.0)
    return flow, radius[:, None] * torch.stack([angle.cos(), angle.sin()], -1)


def test_rows_above_the_tolerance_go_again_on_finer_grids():
    flow, x = hard_and_easy()
    found = flow.evaluate(x)
    hard = torch.tensor([2, 4])
    easy = torch.tensor([0, 1, 3, 5])
    assert (found.nfe[easy] == flow.solver.nfe).all()
    assert (found.nfe[hard] > flow.solver.nfe).all()
    assert found.ok.all() and (found.error <= flow.error_model.tolerance + 1e-5).all()
    # A rotation keeps volume and radius: the exact density is the base's.
    torch.testing.assert_close(found.log_prob, flow.base.log_prob(x), rtol=0, atol=2e-3)


class CountedRough(Rough):
    """Counts the rows of every evaluation."""

    rows = 0

    def forward(self, t, x, context=None):
        self.rows += x.shape[:-1].numel()
        return super().forward(t, x, context)


@pytest.mark.slow
def test_nfe_is_all_that_the_field_was_asked_for():
    flow, x = hard_and_easy()
    flow.field = CountedRough(2)
    # Alone, a row has no neighbors in a product; an exact trace by automatic differentiation asks
    # once.
    for row in x:
        before = flow.field.rows
        assert flow.evaluate(row[None]).nfe.item() == flow.field.rows - before


@pytest.mark.slow
@pytest.mark.parametrize(
    "solver",
    [cnf.Grid.uniform(12, "adams"), SOLVERS["rk4"], cnf.Torchdiffeq("dopri5", 1e-3, 1e-3)],
)
def test_a_score_in_training_is_one_solve(solver):
    """Second looks, and second solves where there is no estimate, are for scores without a graph,
    and for eval mode."""
    flow = cnf.CNF(2, field=CountedRough(2), solver=solver)
    x = hard_and_easy()[1][:4]

    def asked(score):
        flow.field.rows = 0
        score()
        return flow.field.rows / len(x)

    once = asked(lambda: flow.solve_log_prob(x, None))
    in_training = asked(lambda: flow.log_prob(x))
    with torch.no_grad():
        looked_again = asked(lambda: flow.log_prob(x))
    assert in_training == once < looked_again


def test_a_new_flow_costs_a_training_loop_no_more_than_the_objective():
    """At most half as much again as the first grid of a likelihood phase."""
    assert cnf.CNF(2).solver.nfe <= 1.5 * cnf.Grid.uniform(12, "adams").nfe


@pytest.mark.slow
def test_a_row_far_beyond_the_tolerance_skips_grids_that_cannot_do():
    """Level by level until a row is within the tolerance takes more evaluations."""
    flow, x = hard_and_easy()
    found = flow.evaluate(x)
    for row in (4,):
        grid, spent, bar = flow.solver, 0, math.inf
        while bar > flow.error_model.tolerance:
            bar = flow.error_model.estimate(
                flow.solve_log_prob(x[row : row + 1], None, grid)
            ).item()
            grid, spent = grid.with_steps(math.ceil(RISE * grid.steps)), spent + grid.nfe
        assert found.nfe[row] < 0.8 * spent


@pytest.mark.slow
def test_each_row_alone_gives_the_same():
    flow, x = hard_and_easy()
    together = flow.double().evaluate(x.double())
    for k in (0, 2, 4):
        row = x[k].double()
        alone = flow.evaluate(row)
        assert alone.nfe == together.nfe[k] and alone.ok == together.ok[k]
        torch.testing.assert_close(alone.log_prob, together.log_prob[k], rtol=0, atol=1e-12)
        torch.testing.assert_close(alone.error, together.error[k], rtol=1e-6, atol=1e-12)


@pytest.mark.slow
def test_a_row_that_never_gets_there_is_reported():
    flow, x = hard_and_easy()
    flow.error_model = ErrorModel(tolerance=1e-15)
    found = flow.double().evaluate(x.double()[[0, 4]])
    assert not found.ok[1] and found.log_prob[1].isfinite() and found.error[1] > 0
    assert found.nfe[1] > 32 * cnf.Grid.uniform(8).nfe


def test_order_is_kept_across_chunks():
    flow = stirred(cnf.CNF(2, hidden=(4, 4), solver=cnf.Grid.uniform(2)))
    flow.error_model = ErrorModel(tolerance=1e3)
    x = torch.randn(2 * CHUNK + 7, 2)
    x[CHUNK + 1] = math.nan
    with torch.no_grad():
        whole = flow.log_prob(x)
        picked = torch.tensor([0, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 6])
        torch.testing.assert_close(
            whole[picked], flow.log_prob(x[picked]), rtol=0, atol=1e-5, equal_nan=True
        )


def test_a_row_that_an_adaptive_solver_cannot_finish_does_not_take_the_others_along():
    flow = cnf.CNF(2, field=Explosive(2), solver=cnf.Torchdiffeq(max_evaluations=100)).double()
    x = torch.tensor([[-1.0, -2.0], [0.5, 0.0], [-0.5, -0.1], [-3.0, -0.2], [2.0, 2.0]], dtype=F64)
    found = flow.evaluate(x)
    assert found.ok.tolist() == [True, False, True, True, False]
    torch.testing.assert_close(found.log_prob[[0, 2, 3]], flow.base.log_prob(x[[0, 2, 3]]))
    assert found.log_prob[[1, 4]].isnan().all() and found.error[[1, 4]].isnan().all()


@pytest.mark.parametrize(
    "solver",
    [
        cnf.Grid.uniform(12, "rk4"),
        cnf.Torchdiffeq("dopri5", 1e-4, 1e-4),
        cnf.Torchdiffeq("rk4", step_size=0.08),
    ],
)
def test_a_second_solve_gives_the_bar_where_there_is_no_estimate(solver):
    flow, x = make_flow("mlp", solver=solver), normal(60, 2)
    with torch.no_grad():
        found = flow.evaluate(x)
        true = (found.log_prob - make_flow("mlp", solver=REFERENCE).log_prob(x)).abs()
    assert (true <= 3 * found.error + 1e-9).double().mean() > 0.9
    assert found.error.median() < 1e-2


@torch.no_grad()
@pytest.mark.slow
def test_an_adjoint_solve_is_judged_by_itself_and_not_by_the_grid():
    flow, x = make_flow(), normal(40, 2)
    found = flow.evaluate(x, gradient="adjoint")
    true = (found.log_prob - make_flow(solver=REFERENCE).log_prob(x)).abs()
    assert (true <= 3 * found.error).double().mean() > 0.9
    explosive = cnf.CNF(2, field=Explosive(2)).evaluate(
        torch.tensor([[-1.0, -1.0], [5.0, 5.0]]), gradient="adjoint"
    )
    assert explosive.ok.tolist() == [True, False]


@pytest.fixture(scope="module", params=["gated-sine", "gated-tanh", "mlp"])
def calibrated(request):
    """A calibrated flow and held-out draws from it, with their log-density to ten digits."""
    flow = make_flow(request.param)
    with torch.no_grad():
        flow.calibrate(flow.sample((300,), generator=seeded(1)), tolerance=1e-3)
        x = flow.sample((200,), generator=seeded(2))
        precise = copy.deepcopy(flow)
        precise.solver = REFERENCE
        return flow, x, precise.log_prob(x)


@torch.no_grad()
def test_the_bar_covers_the_true_error(calibrated):
    flow, x, truth = calibrated
    found = flow.evaluate(x)
    true = (found.log_prob - truth).abs()
    assert found.ok.all()
    assert (true <= found.error).double().mean() >= 0.97
    assert (true <= flow.error_model.tolerance).all()
    assert true.max() > 1e-9


def away(rows, times, count=60):
    """Rows uniform in a box so many times as wide as that of some rows."""
    low, high = rows.amin(0), rows.amax(0)
    share = 2 * torch.rand(count, rows.shape[1], generator=seeded(3), dtype=rows.dtype) - 1
    return (low + high) / 2 + times * share * (high - low) / 2


@torch.no_grad()
@pytest.mark.parametrize(
    "times, dtype",
    [
        (3, torch.float32),
        (10, F64),
        *(pytest.param(*both, marks=pytest.mark.slow) for both in ((3, F64), (10, torch.float32))),
    ],
)
@pytest.mark.slow
def test_the_bar_covers_the_true_error_far_from_the_data(calibrated, times, dtype):
    """Out there an error in the state moves the log-density many times more than on the rows that
    the bars were measured on."""
    flow, rows, _ = calibrated
    x = away(rows, times).to(dtype)
    truth = flow.solve_log_prob(x.double(), None, cnf.Torchdiffeq("dopri8", 1e-8, 1e-8)).log_prob
    found = copy.deepcopy(flow).to(dtype).evaluate(x)
    true = (found.log_prob.double() - truth).abs()
    outside = (true > found.error + 1e-6) & found.ok
    assert found.ok.double().mean() > 0.9 and outside.double().mean() <= 0.02
    assert (true <= 2 * found.error + 1e-6)[found.ok].all()


@torch.no_grad()
def test_rows_like_those_of_the_calibration_are_judged_as_they_were(calibrated):
    """Their bars and their evaluations are what they would be without a measured steepness."""
    flow, rows, _ = calibrated
    plain = ErrorModel()
    unmeasured = replace(
        flow.error_model,
        usual_steepness=plain.usual_steepness,
        largest_steepness=plain.largest_steepness,
    )
    found, before = flow.evaluate(rows), flow.bind(error_model=unmeasured).evaluate(rows)
    inside = flow.solve_log_prob(rows, None).steepness() <= flow.error_model.largest_steepness
    assert inside.double().mean() > 0.98
    same(found.error[inside], before.error[inside])
    same(found.nfe[inside], before.nfe[inside])


@torch.no_grad()
@pytest.mark.slow
def test_bars_hold_for_contexts_far_from_those_of_the_calibration():
    flow = make_flow("gated-sine", context_dim=1)
    known, x = normal(400, 1, seed=5), normal(300, 2)
    flow.calibrate(flow.sample((), known, generator=seeded(1)), context=known)
    far = 20 * normal(300, 1, seed=6)
    truth = flow.bind(far, solver=REFERENCE).solve_log_prob(x, far).log_prob
    found = flow.evaluate(x, far)
    assert found.ok.all()
    assert ((found.log_prob - truth).abs() <= found.error).double().mean() >= 0.99
    # And near them, nine rows of ten have the bars that they had.
    measured = replace(flow.error_model, largest_context=ErrorModel().largest_context)
    before = flow.bind(known[:300], error_model=measured).evaluate(x).error
    assert (flow.evaluate(x, known[:300]).error == before).double().mean() > 0.9


@pytest.mark.parametrize(
    "base",
    [
        cnf.NormalBase(2),
        cnf.StudentTBase(2, df=4.0),
        cnf.MixtureBase(
            torch.ones(2), torch.tensor([[0.0, 1], [2, 1]]), torch.eye(2).repeat(2, 1, 1)
        ),
    ],
)
def test_the_steepness_of_a_base_is_the_norm_of_its_gradient(base):
    base, z = base.double(), normal(20, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(base.log_prob(z).sum(), z)
    torch.testing.assert_close(base.steepness(z.detach()), gradient.norm(dim=-1))


@torch.no_grad()
def test_most_rows_need_only_the_placed_grid(calibrated):
    flow, x, _ = calibrated
    assert (flow.evaluate(x).nfe == flow.solver.nfe).double().mean() > 0.7


@torch.no_grad()
def test_the_bar_holds_in_single_precision(calibrated):
    flow, x, truth = calibrated
    single = copy.deepcopy(flow).float()
    single.calibrate(x.float(), tolerance=1e-3)
    found = single.evaluate(x.float())
    assert (
        (found.log_prob.double() - truth).abs() <= found.error.double()
    ).double().mean() >= 0.97


@torch.no_grad()
@pytest.mark.slow
def test_a_tolerance_below_rounding_neither_narrows_bars_nor_costs_evaluations_without_end():
    steep = make_flow("gated-tanh").double()
    steep.field.W3.mul_(6)
    steep.solver = REFERENCE
    known, x = (steep.sample((300,), generator=seeded(seed)) for seed in (1, 2))
    truth, single = steep.log_prob(x), copy.deepcopy(steep).float()
    found = single.calibrate(known.float(), 1e-7).evaluate(x.float())
    assert (
        (found.log_prob.double() - truth).abs() <= found.error.double()
    ).double().mean() >= 0.97
    assert found.error.max() < 1e-3 and found.nfe.double().mean() < 300


class Stormy(VelocityField):
    """Fast and winding beyond a radius, so that a coarse solve of such rows ends at any
    log-density."""

    def forward(self, t, x, context=None):
        speed = 30 * torch.sigmoid(4 * (x.square().sum(-1, keepdim=True) - 7))
        return speed * torch.cat([-x[..., 1:], x[..., :1]], -1) + 0.5 * torch.tanh(3 * x + t)


@pytest.mark.slow
@torch.no_grad()
def test_what_rounding_may_add_to_a_row_far_off_does_not_hide_what_a_finer_grid_would_mend():
    known, x = (torch.randn(rows, 2, generator=seeded(1)) for rows in (300, 40))
    flow = cnf.CNF(2, field=Stormy(2)).calibrate(known, 1e-4)
    found, exact = flow.evaluate(x), flow.solve_log_prob(x.double(), None, REFERENCE).log_prob
    assert flow.error_model.rounding > 100
    assert (found.log_prob.double() - exact).abs().max() < 5e-3


@torch.no_grad()
def test_bars_cover_what_is_lost_on_the_chosen_grid_too():
    """Few steps are enough here, and lose other digits than many."""

    class Mild(VelocityField):
        def forward(self, t, x, context=None):
            return 1e-3 * x.flip(-1) + 1

    flow = cnf.CNF(2, field=Mild(2))
    known, x = (1 + torch.randn(300, 2, generator=seeded(seed)) for seed in (1, 2))
    found, exact = (
        flow.calibrate(known).evaluate(x),
        flow.solve_log_prob(x.double(), None, REFERENCE).log_prob,
    )
    true = (found.log_prob.double() - exact).abs()
    assert (true <= found.error.double()).double().mean() >= 0.97


@torch.no_grad()
def test_calibrated_scoring_takes_less_than_half_of_the_evaluations_of_an_adaptive_solver(
    calibrated,
):
    flow, x, truth = calibrated
    found = flow.evaluate(x)
    error = (found.log_prob - truth).abs().mean()
    for tolerance in (10 ** (-k / 4) for k in range(8, 40)):
        peer = flow.solve_log_prob(x, None, cnf.Torchdiffeq("dopri5", tolerance, tolerance))
        if (peer.log_prob - truth).abs().mean() <= error:
            break
    assert found.nfe.double().mean() <= 0.55 * peer.nfe


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("kind", ["gated-sine", "mlp"])
def test_no_power_of_the_difficulty_spreads_steps_better_than_the_chosen_one_by_much(kind):
    flow = make_flow(kind)
    x = flow.sample((400,), generator=seeded(1))
    flow.calibrate(x)
    truth = flow.solve_log_prob(x, None, REFERENCE).log_prob

    def error(grid: cnf.Grid) -> float:
        return (flow.solve_log_prob(x, None, grid).log_prob - truth).abs().mean().item()

    difficulty = _difficulty(partial(flow.solve_log_prob, x, None))
    others = [error(_placed(difficulty, flow.solver.steps, power)) for power in POWERS]
    assert error(flow.solver) < 1.5 * min(others) < max(others)


@torch.no_grad()
def test_a_calibrated_grid_makes_rows_cheap_in_all():
    """No grid near it takes fewer evaluations a row, second looks included."""
    flow = make_flow("gated-sine")
    x = flow.sample((500,), generator=seeded(1))
    flow.calibrate(x)
    chosen, spent = flow.solver, {}
    for factor in (0.7, 0.85, 1.0, 1.25, 1.5):
        flow.solver = chosen.with_steps(round(factor * chosen.steps))
        flow.error_model = flow.error_model.for_refined_grid(flow.solver.steps / chosen.steps)
        spent[factor] = flow.evaluate(x).nfe.double().mean().item()
        flow.error_model = flow.error_model.for_refined_grid(chosen.steps / flow.solver.steps)
    assert spent[1.0] <= 1.03 * min(spent.values())


def test_a_floor_shrinks_with_the_steps():
    """A row that the floor alone puts above the tolerance gets below it on a finer grid."""
    flow = cnf.CNF(2, hidden=(8, 8), solver=cnf.Grid.uniform(8, "adams"))
    flow.error_model = ErrorModel(tolerance=1e-3, floor=2e-3)
    found = flow.evaluate(normal(5, 2))
    assert found.ok.all() and (found.nfe > flow.solver.nfe).all() and (found.error > 0).all()
    assert (found.nfe < 4 * flow.solver.nfe).all()


def judged(estimates, errors):
    """Bars (rows,) for errors of rows that a solve of one step estimated so."""
    nothing = torch.zeros(1, len(estimates), dtype=F64)
    scores = SolveResult(
        errors,
        estimates[None],
        nothing,
        2,
        torch.zeros(len(estimates), 0),
        errors,
        torch.zeros_like(errors),
        torch.ones_like,
    )
    return _judged(scores, torch.zeros_like(errors), tolerance=1e-3)


def test_bars_follow_an_estimate_that_tells_rows_apart():
    """Where the error is a part of the estimate, a high floor would make most bars wide for
    nothing."""
    estimates = 1e-2 * 10 ** (4 * torch.linspace(0, 1, 1000, dtype=F64)[torch.randperm(1000)] - 4)
    accuracy, bars = judged(estimates, 0.5 * estimates)
    assert accuracy.floor == pytest.approx(min(FLOORS) * estimates.median().item())
    assert (bars >= 0.5 * estimates).all() and (bars / (0.5 * estimates)).median() < 3


@pytest.mark.parametrize("times", [20, 50, 70])
def test_bars_cover_rows_that_an_estimate_overlooks(times):
    """Two per cent of the rows show next to nothing and err by many times what the median row
    does."""
    estimates = torch.full((1000,), 1e-5, dtype=F64)
    errors = 0.5 * estimates
    estimates[::50], errors[::50] = 1e-9, times * 1e-5
    assert (judged(estimates, errors)[1] >= errors).all()


def test_a_row_at_rest_has_a_bar_from_its_divergence():
    """The state stays where it is and shows no error: the integral of the divergence alone
    does."""
    steps, rows = 3, 2
    scores = SolveResult(
        torch.zeros(rows),
        torch.zeros(steps, rows),
        torch.full((steps, rows), 1e-2),
        4,
        torch.zeros(rows, 0),
        torch.zeros(rows),
        torch.zeros(rows),
        torch.ones_like,
    )
    assert (ErrorModel(quadrature_weight=min(QUADRATURE_WEIGHTS)).estimate(scores) > 0).all()


@torch.no_grad()
def test_a_tighter_tolerance_takes_more_steps():
    flow = make_flow("mlp")
    x = flow.sample((200,), generator=seeded())
    steps = [
        flow.calibrate(x, tolerance=tolerance).solver.steps for tolerance in (1e-1, 1e-3, 1e-6)
    ]
    assert steps == sorted(set(steps))
    assert flow.error_model.tolerance == 1e-6


def test_calibrate_returns_the_flow_and_uses_no_randomness():
    flow, x = make_flow("mlp"), normal(700, 2)
    state = torch.random.get_rng_state()
    assert flow.calibrate(x) is flow
    first = flow.solver, flow.error_model
    assert (flow.calibrate(x).solver, flow.error_model) == first
    assert torch.equal(state, torch.random.get_rng_state())


def test_calibrate_takes_one_row_and_rows_that_are_not_finite():
    flow = make_flow("mlp")
    flow.calibrate(normal(1, 2))
    x = normal(100, 2)
    finite = torch.arange(100) % 4 != 0
    x[~finite] = math.nan
    flow.calibrate(x)
    found = flow.solver, flow.error_model
    assert flow.evaluate(normal(50, 2)).ok.all()
    assert found == (flow.calibrate(x[finite]).solver, flow.error_model)
    with pytest.raises(ValueError, match="finite"):
        flow.calibrate(x[~finite])


@pytest.mark.parametrize("lost", [0.05, 0.3, 1.0])
def test_rows_that_cannot_be_solved_ask_for_more_steps_and_never_for_fewer(lost):
    """Few of them leave the choice to the others; many of them take all the steps there are."""
    excess = torch.full((1000,), 0.5)
    excess[: int(1000 * lost)] = math.inf
    steps = _cheapest(40, excess)
    assert steps == 80 if lost > 0.1 else 30 < steps < 40
    assert math.isinf(expected_evaluations(40, excess)) == (lost > 0.1)


class Bump(VelocityField):
    """A rotation that is fast around one time only."""

    def __init__(self, when: float) -> None:
        super().__init__(2)
        self.when = when

    def forward(self, t, x, context=None):
        speed = 1 + 20 * torch.exp(-(((t - self.when) / 0.05) ** 2))
        return speed * torch.stack((-x[..., 1], x[..., 0] ** 3 / 10), -1)


@pytest.mark.parametrize("when", [0.2, 0.8])
def test_nodes_stand_where_the_field_is_hard(when):
    """Scoring runs from the data to the base: the nodes must not be mirrored."""
    flow = cnf.CNF(2, field=Bump(when)).double().calibrate(normal(100, 2))
    near = sum(abs(node - when) < 0.15 for node in flow.solver.nodes)
    assert near > 0.5 * flow.solver.steps


@pytest.mark.parametrize("tolerance", [0.0, -1.0, math.nan])
def test_a_tolerance_that_is_none_is_refused(tolerance):
    with pytest.raises(ValueError, match="tolerance"):
        make_flow().calibrate(normal(10, 2), tolerance)


def test_calibrate_uses_the_context():
    flow = make_flow("mlp", context_dim=1)
    with pytest.raises(ValueError, match="context"):
        flow.calibrate(normal(10, 2))
    flow.calibrate(normal(50, 2), context=normal(50, 1))
    assert flow.evaluate(normal(50, 2), normal(50, 1)).ok.double().mean() > 0.9


@pytest.mark.slow
def test_many_rows_that_cannot_be_solved_are_given_up_in_bounded_time():
    """Every row but eight explodes; the eight have their answers, and few solves were spent on the
    rest."""
    flow = cnf.CNF(2, field=Explosive(2), solver=cnf.Torchdiffeq(max_evaluations=100)).double()
    x = normal(300, 2).abs() + 1
    x[::40] *= -1
    calls = []
    flow.field.register_forward_hook(lambda *_: calls.append(1))
    found = flow.evaluate(x)
    assert found.ok[::40].all() and found.ok.sum() == 8 and found.log_prob[~found.ok].isnan().all()
    torch.testing.assert_close(
        found.log_prob[::40], flow.base.log_prob(x[::40]), rtol=0, atol=1e-4
    )
    assert len(calls) < 60 * 100


@pytest.mark.slow
def test_second_looks_end_at_the_cap_and_without_a_tolerance():
    """However long the grid of a file, no finer one takes more evaluations than the cap."""
    long = make_flow(solver=cnf.Grid.uniform(1200))
    long.error_model = ErrorModel(tolerance=1e-300)
    found = long.evaluate(normal(2, 2))
    assert not found.ok.any() and (found.nfe < 2 * MOST_EVALUATIONS + 1200 * 6).all()
    lost = make_flow(solver=cnf.Grid.uniform(4))
    lost.error_model = ErrorModel(tolerance=math.inf)
    with torch.no_grad():
        lost.field.W3.fill_(1e300)
    assert (lost.evaluate(normal(2, 2)).nfe == lost.solver.nfe).all()


def test_steps_too_short_for_the_cap_are_refused_before_they_fill_the_memory():
    flow = make_flow(solver=cnf.Torchdiffeq("rk4", step_size=1e-12))
    found = flow.evaluate(normal(3, 2))
    assert not found.ok.any() and found.log_prob.isnan().all()
    with pytest.raises(cnf.ode.SolverError, match="max_evaluations"):
        flow.sample((3,))


def test_rows_that_cannot_be_solved_are_counted_in_one_warning():
    """The others are what they are without them, to the last bit; rows that are not finite are no
    news."""
    flow = cnf.CNF(2, field=Explosive(2), solver=cnf.Grid.uniform(8)).double()
    flow.error_model = ErrorModel(tolerance=1e3)
    x = normal(7, 2).clamp(max=-0.1)
    x[2], x[5], x[6] = 1e30, 1e200, math.nan
    with pytest.warns(UnsolvedWarning, match="2 of 7 rows") as told:
        found = flow.log_prob(x)
    assert len(told) == 1 and found.isnan().tolist() == [
        False,
        False,
        True,
        False,
        False,
        True,
        True,
    ]
    kept = [0, 1, 3, 4]
    same(found[kept], flow.log_prob(x[kept]))


@pytest.mark.parametrize("value", [1e30, -1e30, 1e-310, 5e-324, 1e300])
@pytest.mark.parametrize("solver", SOLVERS)
def test_extreme_rows_and_contexts_leave_the_others_alone(solver, value, low_cap):
    """Denormal, huge: an answer or none, and every other row as without it."""
    flow = make_flow("mlp", context_dim=1, solver=SOLVERS[solver]).eval()
    x, context = normal(6, 2), normal(6, 1)
    x[1], context[4] = value, value
    with torch.no_grad():
        found = flow.evaluate(x, context)
    fine = [0, 2, 3, 5]
    assert found.ok[fine].all() and found.log_prob[fine].isfinite().all()
    assert (found.log_prob.isfinite() | ~found.ok).all()
    if solver != "dopri5":  # its steps are chosen for all rows together
        with torch.no_grad():
            same(found.log_prob[fine], flow.evaluate(x[fine], context[fine]).log_prob)


def test_the_second_opinion_of_fixed_steps_may_take_twice_as_many():
    solver = cnf.Torchdiffeq("euler", step_size=0.05, max_evaluations=30)
    flow = make_flow("mlp", solver=solver)
    assert flow.evaluate(normal(5, 2)).log_prob.isfinite().all()


def test_rows_of_a_context_that_is_not_finite_are_no_failures_of_the_solver(recwarn):
    flow = make_flow("mlp", context_dim=1)
    found = flow.log_prob(normal(2, 2), torch.tensor([[0.0], [math.nan]]).double())
    assert found.isnan().tolist() == [False, True] and not recwarn
