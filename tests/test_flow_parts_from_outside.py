"""Parts of one's own: each in one class outside the package, used, saved and loaded."""

import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from problems import F64, normal, seeded
from torch import distributions

import cnf
from cnf.flows import Base, DistributionBase
from cnf.ode import METHODS, Method, Solution
from cnf.ode.rungekutta import RungeKuttaMethod
from cnf.ode.tableaux import Tableau
from cnf.registry import rebuild, register
from cnf.transforms import Transform


@register
class Whirl(cnf.VelocityField):
    """Rotation at a speed that is trained, about a centre; no `hidden` anywhere."""

    def __init__(self, dim, centre, *, context_dim=0):
        super().__init__(dim, context_dim)
        self.centre = tuple(centre)
        self.speed = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, t, x, context=None):
        away = x - x.new_tensor(self.centre)
        return self.speed * torch.stack((-away[..., 1], away[..., 0]), -1)


@register
class Box(Base):
    """Uniform on [−width, width] in every column."""

    def __init__(self, dim, width):
        super().__init__(dim)
        self.width = width

    def log_prob(self, z):
        inside = (z.abs() <= self.width).all(-1)
        height = -self.dim * torch.tensor(2 * self.width, dtype=z.dtype).log()
        return torch.where(inside, height, -torch.inf)

    def sample(self, shape, generator=None, *, dtype=None, device=None):
        u = torch.rand((*shape, self.dim), generator=generator, dtype=dtype, device=device)
        return self.width * (2 * u - 1)


@register
class Asinh(Transform):
    """y = asinh(x / scale)."""

    def __init__(self, dim, scale):
        super().__init__(dim)
        self.scale = scale

    def forward(self, x, context=None, mask=None):
        x = x.double() / self.scale
        return x.asinh(), (-0.5 * (1 + x.square()).log() - torch.tensor(self.scale).log()).sum(-1)

    def inverse(self, y, context=None, mask=None):
        return self.scale * y.sinh()

    def pushforward(self, v, y, context=None, mask=None):
        return self.scale * y.cosh() * v


@register
@dataclass(frozen=True)
class Heun(cnf.Solver):
    """Two stages a step, at equal steps over whatever times are asked for."""

    steps: int

    def solve(self, system, x, t, *, gradient="direct", estimate=True):
        shares = torch.arange(self.steps, dtype=t.dtype) / self.steps
        pieces = [torch.lerp(a, b, shares) for a, b in pairwise(t)]
        times = torch.cat([*pieces, t[-1:]])
        q = torch.zeros_like(system.at(t[:1])[0].evaluate(x)[1])
        states, quadratures = [x], [q]
        for k, (a, b) in enumerate(pairwise(times), 1):
            here, there = system.at(torch.stack((a, b)))
            v, r = here.evaluate(x)
            w, s = there.evaluate(x + (b - a) * v)
            x, q = x + (b - a) * (v + w) / 2, q + (b - a) * (r + s) / 2
            if k % self.steps == 0:
                states.append(x)
                quadratures.append(q)
        none = x.new_zeros(0, *x.shape[:-1])
        return Solution(torch.stack(states), torch.stack(quadratures), none, none[..., None], 2)

    def second_opinion(self):
        return Heun(2 * self.steps)


def flow_of_ones_own() -> cnf.CNF:
    return cnf.CNF(
        2, field=Whirl(2, (0.25, 0.0)), base=Box(2, 3.0), preprocess=Asinh(2, 2.0), solver=Heun(30)
    )


def test_parts_from_outside_make_a_flow():
    flow = flow_of_ones_own().double()
    # A rotation keeps areas, so only the base and the transform count.
    x = 0.5 * normal(20, 2)
    ladj = flow.preprocess(x)[1]
    expected = ladj - 2 * torch.tensor(6.0, dtype=F64).log()
    torch.testing.assert_close(flow.log_prob(x), expected, rtol=0, atol=1e-9)
    found = flow.evaluate(x)
    assert found.ok.all() and (found.error < 1e-6).all()
    drawn, log_prob = flow.sample_and_log_prob((50,), generator=seeded())
    torch.testing.assert_close(flow.log_prob(drawn), log_prob, rtol=0, atol=1e-6)
    path = flow.trajectory(x, [0.0, 0.5, 1.0], reverse=True)
    torch.testing.assert_close(path[-1], x, rtol=1e-9, atol=1e-9)
    precise = flow.bind(solver=cnf.Torchdiffeq("dopri8", rtol=1e-10, atol=1e-10))
    torch.testing.assert_close(
        path[0], precise.trajectory(x, [0.0], reverse=True)[0], rtol=0, atol=1e-3
    )
    flow.log_prob(x).sum().backward()
    assert flow.field.speed.grad is not None


def test_registered_parts_are_saved_and_loaded(tmp_path):
    flow, x = flow_of_ones_own(), normal(5, 2).float()
    flow.save(tmp_path / "m")
    loaded = cnf.load(tmp_path / "m")
    assert isinstance(loaded.solver, Heun) and loaded.base.width == 3.0
    assert loaded.field.centre == (0.25, 0.0)
    torch.testing.assert_close(loaded.log_prob(x), flow.log_prob(x), rtol=0, atol=0)


def test_a_reader_that_knows_not_the_class_says_so(tmp_path):
    flow_of_ones_own().save(tmp_path / "m")
    code = f"import cnf\ntry: cnf.load({str(tmp_path / 'm')!r})\nexcept cnf.ModelFileError as e: print(e)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'Whirl' is no registered VelocityField" in done.stdout and done.stdout.count("\n") == 1


@pytest.mark.parametrize(
    "part",
    [
        {"field": type("Still", (Whirl,), {})(2, (0, 0))},
        {"base": type("Bin", (Box,), {})(2, 1.0)},
        {"preprocess": type("Sinh", (Asinh,), {})(2, 1.0)},
        {"solver": type("Hewn", (Heun,), {})(3)},
        {"base": distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))},
    ],
    ids=lambda part: next(iter(part)),
)
def test_unregistered_parts_are_refused_at_save(part, tmp_path):
    with pytest.raises(ValueError, match=r"put @cnf.register above the class") as caught:
        cnf.CNF(2, **part).save(tmp_path / "m")
    assert "\n" not in str(caught.value) and not any(tmp_path.iterdir())


def test_a_part_that_forgets_an_argument_is_refused_at_save(tmp_path):
    @register
    class Forgets(Whirl):
        def __init__(self, dim, speed, *, context_dim=0):
            super().__init__(dim, (0, 0), context_dim=context_dim)
            self.rate = speed
            del self.speed

    with pytest.raises(ValueError, match="keeps no attribute 'speed'"):
        cnf.CNF(2, field=Forgets(2, 1.0)).save(tmp_path / "m")


def test_two_classes_of_one_name_are_refused():
    with pytest.raises(ValueError, match="GatedField is taken by cnf"):
        register(type("GatedField", (Whirl,), {}))


def test_a_part_of_another_kind_is_no_part(tmp_path):

    with pytest.raises(ValueError, match="'NormalBase' is no registered VelocityField"):
        rebuild(cnf.VelocityField, {"class": "NormalBase"}, 2, 0)


def test_a_method_from_outside_by_its_name(monkeypatch, tmp_path):
    """Ralston's third-order method, whose error falls with the third power of the step."""
    ralston = Tableau(3, ((), (0.5,), (0.0, 0.75)), (2 / 9, 1 / 3, 4 / 9), (0.0, 0.5, 0.75))
    assert isinstance(METHODS["rk4"], Method)
    monkeypatch.setitem(METHODS, "ralston3", RungeKuttaMethod(ralston))
    exact = torch.e ** torch.tensor([-1.0], dtype=F64)
    errors = [
        (cnf.ode.solve(lambda t, x: -x, torch.ones(1, dtype=F64), [0.0, 1.0],
                       solver=cnf.Grid.uniform(n, "ralston3")).x[-1] - exact).abs().item()
        for n in (8, 16)
    ]  # fmt: skip
    assert 7 < errors[0] / errors[1] < 9
    cnf.CNF(2, solver=cnf.Grid.uniform(8, "ralston3")).save(tmp_path / "m")
    assert cnf.load(tmp_path / "m").solver.method == "ralston3"


# torch's distributions as bases


def heavy() -> distributions.Distribution:
    return distributions.Independent(
        distributions.StudentT(torch.tensor([3.0, 5.0]), torch.tensor([1.0, -1.0])), 1
    )


def test_a_torch_distribution_is_a_base():
    flow = cnf.CNF(2, base=heavy()).double()
    x = normal(20, 2)
    scipys = distributions.Independent(
        distributions.StudentT(
            torch.tensor([3.0, 5.0], dtype=F64), torch.tensor([1.0, -1.0], dtype=F64)
        ),
        1,
    )
    torch.testing.assert_close(flow.log_prob(x), scipys.log_prob(x), rtol=0, atol=1e-6)
    assert flow.sample((5,), generator=seeded()).dtype == F64
    assert flow.base.describe() == "StudentT"
    state = torch.random.get_rng_state()
    first, second = (flow.sample((4,), generator=seeded(1)) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(state, torch.random.get_rng_state())


def test_a_support_with_an_end_has_density_zero_beyond():
    base = DistributionBase(distributions.Independent(distributions.Exponential(torch.ones(2)), 1))
    found = base.log_prob(torch.tensor([[1.0, 2.0], [-1.0, 2.0]]))
    torch.testing.assert_close(found, torch.tensor([-3.0, -torch.inf]))


@pytest.mark.parametrize(
    "distribution",
    [
        distributions.Normal(0.0, 1.0),
        distributions.Normal(torch.zeros(2), 1.0),
        distributions.Independent(distributions.Normal(torch.zeros(3, 2), 1.0), 1),
    ],
)
def test_distributions_of_other_shapes_are_refused(distribution):
    with pytest.raises(ValueError, match="whose event has one axis"):
        cnf.CNF(2, base=distribution)


# options


def test_options_are_bound_and_the_flow_stays_as_it_is():
    torch.manual_seed(0)
    flow = cnf.CNF(2, hidden=(8, 8)).double()
    torch.nn.init.normal_(flow.field.W3, std=0.5)
    x, before = normal(30, 2), (flow.solver, flow.divergence, flow.error_model)
    coarse, fine = cnf.Grid.uniform(2), cnf.Grid.uniform(200)
    once = flow.bind(solver=coarse, tolerance=torch.inf)
    strict = flow.bind(solver=coarse, tolerance=1e-9)
    truth = flow.bind(solver=fine).log_prob(x)
    assert (once.evaluate(x).nfe == coarse.nfe).all()
    assert (strict.evaluate(x).nfe > coarse.nfe).any()
    assert (strict.log_prob(x) - truth).abs().max() < 1e-8 < (once.log_prob(x) - truth).abs().max()
    by_trace = flow.bind(divergence="exact", solver=fine)
    torch.testing.assert_close(by_trace.log_prob(x), truth, rtol=0, atol=1e-10)
    assert before == (flow.solver, flow.divergence, flow.error_model)


def test_a_bound_flow_follows_the_flow():
    flow, x = cnf.CNF(2, hidden=(8, 8)).double(), normal(5, 2)
    bound = flow.bind(tolerance=1e-2)
    torch.nn.init.normal_(flow.field.W3, std=0.5)
    flow.solver = cnf.Grid.uniform(40)
    torch.testing.assert_close(bound.log_prob(x), flow.log_prob(x), rtol=0, atol=0)


def test_old_names_work_with_a_warning():
    flow, x = cnf.CNF(2, hidden=(8, 8)), torch.zeros(3, 2)
    with pytest.warns(DeprecationWarning, match="CNF.score is now CNF.solve_log_prob"):
        old = flow.score(x, None, flow.solver)
    assert torch.equal(old.log_prob, flow.solve_log_prob(x, None).log_prob)
    with pytest.warns(DeprecationWarning, match="CNF.like is now CNF.dtype"):
        assert (flow.like.dtype, flow.like.device) == (flow.dtype, flow.device)
    with pytest.warns(DeprecationWarning, match="CNF.accuracy is now CNF.error_model"):
        assert flow.accuracy is flow.error_model
    with pytest.warns(DeprecationWarning, match="CNF.accuracy is now CNF.error_model"):
        flow.accuracy = cnf.flows.ErrorModel(tolerance=0.5)
    assert flow.error_model.tolerance == 0.5
    flow.solver = cnf.Grid.uniform(4)
    with pytest.warns(DeprecationWarning, match="CNF.compile is now CNF.compile_solves"):
        assert flow.compile().compiled == flow.solver
