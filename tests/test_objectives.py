"""Couplings and validators of one's own, source rows in place of a base, and checkpoints of an
objective of one's own."""

from dataclasses import dataclass, field

import pytest
import torch

import cnf
from cnf.rows import Rows
from cnf.training import (
    EMAValidator,
    FlowMatching,
    IndependentCoupling,
    Loss,
    MinibatchOT,
    Objective,
    Phase,
    Settings,
    Trainer,
    ValidationResult,
)
from cnf.training.batches import Batches
from cnf.training.checkpoint import resume, write_checkpoint
from cnf.training.objectives import Task
from cnf.training.paths import LinearPath


@dataclass
class Pull(Objective):
    """E |v(½, y) − speed|², which counts its steps."""

    speed: float = 1.0
    name = "pull"

    def start(self, task):
        self.task, self.seen = task, 0

    def loss(self, step, progress):
        self.seen += 1
        y, _ = self.task.batches.draw(self.task.batch, self.task.generator)
        off = self.task.flow.field(y.new_tensor(0.5), y, None) - self.speed
        value = off.square().sum(1).mean()
        return Loss(value, value.item())

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


class Latest(EMAValidator):
    """Prefers later weights, whatever their likelihood under the base."""

    def validate(self):
        return ValidationResult(-float(self.average.n_averaged), 0.0, 0)


def trainer(objective, x, steps=150, validator=EMAValidator, **options):
    torch.manual_seed(0)
    flow = cnf.CNF(2, hidden=(16, 16), **options)
    phase = Phase(objective, steps, None, 256, 5e-3, 0.9, 2)
    return Trainer(
        flow, Rows(x[:-50]), Rows(x[-50:]), Settings((phase,), validator=validator), seed=0
    )


def shifted(rows=2000, shift=2.0, seed=0):
    return torch.randn(rows, 2, generator=torch.Generator().manual_seed(seed)) + shift


@pytest.mark.parametrize("coupling", [IndependentCoupling(), MinibatchOT(64)])
@pytest.mark.slow
def test_source_rows_are_carried_to_the_data(coupling):
    """From a narrow cloud at −3, of which the base knows nothing; a validator of one's own judges."""
    source = 0.3 * shifted(500, 0.0, seed=2) - 3
    fit = trainer(FlowMatching(coupling=coupling, source=source), shifted(), 200, Latest)
    fit.run()
    with torch.no_grad():
        end = fit.flow.trajectory(source, [1.0])[0]
    assert (end.mean(0) - 2).abs().max() < 0.25


def test_pairs_made_at_the_start_are_those_that_batches_hold():
    """In one column, optimal transport keeps the order."""
    x, source = torch.rand(256, 1), 5 - 2 * torch.rand(300, 1)
    coupling, path = Seen(), Followed()
    flow = cnf.CNF(1, hidden=(4, 4), base=cnf.NormalBase(1), preprocess=cnf.Affine.identity(1))
    objective = FlowMatching(path=path, coupling=coupling, source=source, pairs=500)
    task = Task(flow, Batches(x, None, None), Rows(x), 256, torch.Generator().manual_seed(0))
    objective.start(task)
    for step in range(1, 4):
        objective.loss(step, 0.0)
    assert [len(z) for z, _ in coupling.seen] == [256, 256]  # two batches, and no more
    for z, y in coupling.seen:
        assert z[y[:, 0].argsort(), 0].diff().min() > -0.05  # to the rounding of costs
    made = {pair for z, y in coupling.seen for pair in zip(z[:, 0].tolist(), y[:, 0].tolist())}
    drawn = [
        pair for z, y in path.seen for pair in zip(z.flatten().tolist(), y.flatten().tolist())
    ]
    assert len(drawn) == 3 * 256 and set(drawn) <= made


@dataclass
class Seen:
    """Optimal transport that keeps what it paired."""

    seen: list = field(default_factory=list)

    def __call__(self, z, y, context):
        self.seen.append(MinibatchOT(len(y))(z, y, context))
        return self.seen[-1]


@dataclass(frozen=True)
class Followed(LinearPath):
    """The linear path, which keeps the ends that it was given."""

    seen: list = field(default_factory=list)

    def __call__(self, z, y, t):
        self.seen.append((z, y))
        return super().__call__(z, y, t)


def test_an_objective_of_ones_own_is_trained_and_goes_on_from_its_checkpoint(tmp_path):
    x = shifted(300)
    whole, broken, resumed = (trainer(Pull(), x, steps=20) for _ in range(3))
    assert {record.phase for record in whole.run().records} == {"pull"}
    broken.callbacks = (lambda loop: loop.stop() if loop.step == 9 else None,)
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    write_checkpoint(tmp_path / "c", broken)
    assert resume(tmp_path / "c", resumed) and resumed.objective.seen == 9
    resumed.run()
    assert resumed.objective.seen == 20
    states = (fit.flow.state_dict().values() for fit in (whole, resumed))
    assert all(torch.equal(a, b) for a, b in zip(*states))
    with pytest.raises(cnf.ModelFileError, match="other rows, settings"):
        resume(tmp_path / "c", trainer(Pull(speed=2.0), x, steps=20))


def test_rows_with_a_context_are_not_paired_by_optimal_transport():
    with pytest.raises(ValueError, match="expected IndependentCoupling"):
        MinibatchOT()(shifted(64), shifted(64), shifted(64))


def test_fit_takes_phases_and_a_clock_and_leaves_what_was_given():
    ticks = iter(range(10_000))
    x = shifted(200)
    phase = Phase(Pull(), None, 30.0, 32, 1e-3, 0.9, 1)
    history = cnf.fit(
        cnf.CNF(2, base=cnf.NormalBase(2)), x, phases=(phase,), clock=lambda: float(next(ticks))
    )
    assert history.records[-1].phase == "pull" and 10 < history.records[-1].step < 30
