"""The ten kinds of parts from outside the package: each is the file of its page in docs/contributing.

A part is loaded as a plugin, compared with an answer that is known without it, trained, saved, loaded,
drawn, and named in the help of the commands; afterwards the package forgets it.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pages import blocks
from problems import F64, normal, seeded
from scipy import stats
from torch import distributions, nn

import cnf
from cnf import plugins
from cnf.cli import main
from cnf.diagnostics import CHECKS
from cnf.diagnostics.context import CheckContext
from cnf.flows import DistributionBase
from cnf.ode import METHODS, Method
from cnf.ode.rungekutta import RungeKuttaMethod
from cnf.ode.tableaux import Tableau
from cnf.pictures import KINDS
from cnf.registry import REGISTERED
from cnf.report import SECTIONS
from cnf.rows import Rows
from cnf.tables.columns import TYPES
from cnf.training import FlowMatching, Phase

PAGES = Path(__file__).parent.parent / "docs" / "contributing"
MOST_LINES = 40


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A function that loads the file of a page as a plugin, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    registries = (TYPES, KINDS, SECTIONS, CHECKS)
    known, names_before = dict(REGISTERED), [each.names for each in registries]
    modules = set(sys.modules)

    def load(page):
        (block,) = [each for each in blocks((PAGES / f"{page}.md").read_text()) if each.file]
        assert block.text.count("\n") <= MOST_LINES
        Path(block.file).write_text(block.text)
        monkeypatch.setenv("CNF_PLUGINS", block.file)
        plugins.load()
        return sys.modules[str(Path(block.file).resolve())]

    yield load
    for name in set(sys.modules) - modules:
        if name.startswith(str(tmp_path.resolve())):
            del sys.modules[name]
    REGISTERED.clear()
    REGISTERED.update(known)
    for each, names in zip(registries, names_before):
        for name in set(each.names) - set(names):
            each.remove(name)


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model `m` and a table `t.csv` of its two columns."""
    monkeypatch.chdir(tmp_path)
    flow = cnf.CNF(2, hidden=(8, 8))
    flow.metadata = {"columns": ["a & b", "c"], "context": []}
    flow.save("m")
    pd.DataFrame(normal(60, 2).numpy(), columns=["a & b", "c"]).to_csv("t.csv", index=False)


def trained_and_kept(flow, steps=4):
    """Fit a flow and return what its file gives back, which scores and draws as it does."""
    x = normal(120, 2).float()
    assert cnf.fit(flow, x, steps=steps).records
    flow.save("flow")
    loaded = cnf.load("flow")
    assert torch.equal(loaded.log_prob(x), flow.log_prob(x))
    first, second = (each.sample((50,), generator=seeded()) for each in (flow, loaded))
    assert torch.equal(first, second) and first.isfinite().all()
    return loaded


def phase(objective, steps, rate=5e-3):
    return Phase(objective, steps, None, 256, rate, 0.9, 2)


def told(capsys, *words):
    """The exit code of a command and what it printed, on one line."""
    code = main(list(words))
    return code, " ".join(capsys.readouterr().out.split())


def test_velocity_field(outside, monkeypatch):
    """Its network starts at zero, so that it turns a Gaussian into a Gaussian."""
    swirl = outside("velocity-field").Swirl
    field = swirl(2)
    field.speed.data.fill_(0.7)
    mean, spread = torch.tensor([1.0, 0.5], dtype=F64), torch.tensor([1.0, 0.25], dtype=F64)
    flow = cnf.CNF(2, field=field, base=distributions.MultivariateNormal(mean, spread.diag()))
    precise = flow.double().bind(solver=cnf.Torchdiffeq("dopri8", rtol=1e-10, atol=1e-10))
    angle = field.speed.item()
    c, s = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[c, -s], [s, c]], dtype=F64)
    turned = distributions.MultivariateNormal(turn @ mean, turn @ spread.diag() @ turn.T)
    x = normal(40, 2)
    torch.testing.assert_close(precise.log_prob(x), turned.log_prob(x), rtol=0, atol=1e-8)

    assert trained_and_kept(cnf.CNF(2, field=swirl(2, width=8))).field.width == 8
    monkeypatch.delitem(REGISTERED, "Swirl")
    with pytest.raises(cnf.ModelFileError, match="'Swirl' is not a registered VelocityField"):
        cnf.load("flow")


def test_base_density(outside):
    base = outside("base-density").LaplaceBase(2, scale=1.5)
    laplace = distributions.Laplace(torch.zeros(2, dtype=F64), 1.5)
    z = normal(40, 2)
    torch.testing.assert_close(base.log_prob(z), laplace.log_prob(z).sum(-1))
    drawn = base.sample((4000,), seeded())
    assert stats.kstest(drawn.flatten().numpy(), stats.laplace(scale=1.5).cdf).pvalue > 0.01
    assert trained_and_kept(cnf.CNF(2, base=base)).base.scale == 1.5


@pytest.mark.slow
def test_solver(outside):
    """Of order two, beside dopri5."""
    heun = outside("solver").Heun
    flow = cnf.CNF(2, hidden=(8, 8)).double()
    nn.init.normal_(flow.field.W3, std=0.5, generator=seeded())
    x = normal(15, 2)
    truth = flow.bind(solver=cnf.Torchdiffeq("dopri5", rtol=1e-9, atol=1e-9)).log_prob(x)
    found = [flow.bind(solver=heun(steps)).evaluate(x) for steps in (10, 20)]
    errors = [(each.log_prob - truth).abs() for each in found]
    assert 3.5 < errors[0].max() / errors[1].max() < 4.5
    # The difference to twice as many steps is three quarters of the error.
    assert 0.5 < found[0].error.max() / errors[0].max() < 1.5
    states = flow.bind(solver=heun(40)).trajectory(x, [0.0, 0.3, 1.0], reverse=True)
    torch.testing.assert_close(states[-1], x)
    assert trained_and_kept(cnf.CNF(2, hidden=(8, 8), solver=heun(6))).solver == heun(6)


def test_solver_method(monkeypatch, tmp_path):
    """Ralston's third-order method by its name: the error falls with the third power of the step."""
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


def test_transform(outside):
    """Beside automatic differentiation, and a density known without it: that of sinh(z)."""
    asinh = outside("transform").Asinh(2)
    x = 3 * normal(40, 2)
    y, ladj = asinh(x)
    torch.testing.assert_close(asinh.inverse(y), x)
    jacobian = [torch.autograd.functional.jacobian(lambda row: asinh(row)[0], row) for row in x]
    torch.testing.assert_close(ladj, torch.linalg.slogdet(torch.stack(jacobian)).logabsdet)
    velocity = normal(40, 2, seed=1)
    pushed = torch.autograd.functional.jvp(asinh.inverse, y, velocity)[1]
    torch.testing.assert_close(asinh.pushforward(velocity, y), pushed)
    still = cnf.CNF(2, hidden=(8, 8), preprocess=asinh).double()
    johnson = stats.johnsonsu(0, 1).logpdf(x.numpy()).sum(1)
    np.testing.assert_allclose(still.log_prob(x).detach(), johnson, atol=1e-6)
    assert type(trained_and_kept(cnf.CNF(2, preprocess=asinh)).preprocess) is type(asinh)


def test_column_type(outside, capsys):
    outside("column-type")
    minutes = np.random.default_rng(0).integers(0, 1440, 150)
    spelled = pd.Series([f"{m // 60:02}:{m % 60:02}" for m in minutes], name="at", dtype=object)
    spelled.to_frame().to_csv("t.csv", index=False)
    assert "clock" in told(capsys, "fit", "--help")[1]
    fit = told(capsys, "fit", "t.csv", "-o", "m", "--type", "at=clock", "--steps", "4")
    assert fit[0] == 0 and "at clock" in fit[1]
    assert told(capsys, "sample", "m", "-n", "30", "-o", "s.csv")[0] == 0
    assert pd.read_csv("s.csv")["at"].str.fullmatch(r"([01]\d|2[0-3]):[0-5]\d").all()
    model = cnf.load("m")
    assert list(model.schema.columns[0].decode(*model.schema.columns[0].encode(spelled))) == [
        *spelled
    ]
    day = pd.DataFrame({"at": [f"{m // 60:02}:{m % 60:02}" for m in range(1440)]})
    # A density per minute.
    assert model.log_prob(day).exp().sum().item() == pytest.approx(1, abs=0.02)


class Stretch(cnf.VelocityField):
    """v = a x, which carries N(0, 1) to N(0, exp(2a))."""

    def __init__(self, dim, context_dim=0):
        super().__init__(dim, context_dim)
        self.a = nn.Parameter(torch.tensor(0.1))

    def forward(self, t, x, context=None):
        return self.a * x


@pytest.mark.slow
def test_objective(outside):
    """With variance s², a + s² exp(−2a) / 2 + penalty · s² a² has its minimum where its derivative
    vanishes."""
    objective = outside("objective").TemperedLikelihood(penalty=0.2)
    x = 2 * normal(400, 1).float()
    flow = cnf.CNF(1, field=Stretch(1), base=cnf.NormalBase(1), preprocess=cnf.Affine.identity(1))
    history = cnf.fit(flow, x, phases=(phase(objective, 60, 3e-2),))
    assert {record.phase for record in history.records} == {"tempered likelihood"}
    a, variance = flow.field.a.item(), x.square().mean().item()
    slope = 1 - variance * math.exp(-2 * a) + 2 * objective.penalty * variance * a
    curvature = 2 * variance * math.exp(-2 * a) + 2 * objective.penalty * variance
    assert abs(slope / curvature) < 0.05 < abs(0.5 * math.log(variance) - a)


def test_probability_path(outside):
    path = outside("probability-path").TrigonometricPath()
    z, y = normal(1, 20, 3), normal(1, 20, 3, seed=1)
    t, h = torch.linspace(0.1, 0.9, 5, dtype=F64)[:, None, None], 1e-5
    difference = (path(z, y, t + h)[0] - path(z, y, t - h)[0]) / (2 * h)
    torch.testing.assert_close(path(z, y, t)[1], difference, rtol=0, atol=1e-8)
    torch.testing.assert_close(path(z, y, 0 * t[:1])[0], z)
    torch.testing.assert_close(path(z, y, 0 * t[:1] + 1)[0], y)

    x = normal(2000, 2).float() + 2
    flow = cnf.CNF(2, hidden=(16, 16), base=cnf.NormalBase(2))
    cnf.fit(flow, x, phases=(phase(FlowMatching(path=path), 250),))
    drawn = flow.sample((2000,), generator=seeded(1))
    assert (drawn.mean(0) - 2).abs().max() < 0.2 and (drawn.std(0) - 1).abs().max() < 0.2


def test_plot_kind(outside, model, capsys):
    outside("plot-kind")
    assert "first-column a histogram of the first column" in told(capsys, "plot", "--help")[1]
    assert main(["plot", "m", "first-column", "-o", "p.svg"]) == 0
    assert "<!-- a &amp; b: 1,000 samples -->" in Path("p.svg").read_text()
    assert main(["plot", "m", "first-column", "-o", "p.gif"]) == 2
    assert "first-column has no animation" in capsys.readouterr().err


@pytest.mark.slow
def test_report_section(outside, model):
    """It stands in its place, and what it is given is escaped."""
    outside("report-section")
    assert main(["report", "m", "t.csv", "-o", "r.html"]) == 0
    text = Path("r.html").read_text()
    assert "<p>Columns: a &amp; b, c.</p>" in text
    places = [text.index(f'<h2 id="{name}">') for name in ("about", "names", "held-out")]
    assert places == sorted(places)


def test_check(outside, model, capsys):
    """It is made, and it decides: a flow of eleven columns fails it."""
    narrow = outside("check").narrow
    out = json.loads(told(capsys, "check", "m", "t.csv", "--json")[1])
    (found,) = [claim for claim in out["claims"] if claim["name"] == "width"]
    assert (found["passed"], found["value"], found["kind"]) == (True, 2, "cost")
    wide = CheckContext(cnf.CNF(11), Rows(normal(20, 11).float()), seed=0, strict=False)
    assert [result.passed for result in narrow(wide)] == [False]


# torch's distributions as bases


def heavy(dtype):
    freedom, centre = torch.tensor([[3.0, 5.0], [1.0, -1.0]], dtype=dtype)
    return distributions.Independent(distributions.StudentT(freedom, centre), 1)


def test_a_torch_distribution_is_a_base():
    flow = cnf.CNF(2, base=heavy(torch.float32)).double()
    x = normal(20, 2)
    torch.testing.assert_close(flow.log_prob(x), heavy(F64).log_prob(x), rtol=0, atol=1e-6)
    assert flow.sample((5,), generator=seeded()).dtype == F64
    assert flow.base.describe() == "StudentT"
    state = torch.random.get_rng_state()
    first, second = (flow.sample((4,), generator=seeded(1)) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(state, torch.random.get_rng_state())


def test_a_flow_from_a_torch_distribution_is_trained():
    flow = cnf.CNF(2, base=heavy(torch.float32))
    x = normal(120, 2).float()
    cnf.fit(flow, x, steps=4)
    assert flow.base.describe() == "StudentT" and flow.log_prob(x).isfinite().all()


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
