"""Flows in other people's programs, each with training on something whose answer is known."""

import math
import sys
from pathlib import Path

import pytest
import torch
from problems import F64, normal, seeded, stirred
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence
from torch.multiprocessing import get_context

import cnf
from cnf.flows.distribution import FlowDistribution, kl_estimate
from cnf.flows.support import WithinRanges

# Of other people's programs.
pytestmark = pytest.mark.filterwarnings("ignore")
FAST = cnf.Grid.uniform(8, "adams")
# z ~ N(0, 1), y | z ~ N(z, NOISE²): z | y is normal too.
NOISE = 0.5
GAIN, SPREAD = 1 / (1 + NOISE**2), NOISE / math.sqrt(1 + NOISE**2)


def within_reach(flow: cnf.CNF) -> None:
    """The posterior that a conditional flow has learned is within 0.03 nats of the true one."""
    y = torch.linspace(-2, 2, 5)[:, None]
    value, error = kl_estimate(Independent(Normal(GAIN * y, SPREAD), 1), flow(y))
    assert (value < 0.03 + 3 * error).all() and value.mean() < 0.03, (value, error)


def half_line(**parts) -> cnf.CNF:
    """A flow over positive numbers."""
    torch.manual_seed(0)
    ranges = cnf.BoundedToReal([(0.0, None), (None, None)])
    return stirred(cnf.CNF(2, hidden=(8, 8), preprocess=ranges, solver=FAST, **parts)).double()


# torch.distributions


def test_the_support_knows_ranges_and_values_are_validated():
    flow = half_line()
    p, outside = flow(), torch.tensor([[-1.0, 0.0]], dtype=F64)
    assert isinstance(p.support, WithinRanges)
    assert p.support.check(torch.cat([outside, -outside])).tolist() == [False, True]
    with pytest.raises(ValueError, match=r"within the support \(WithinRanges\(\)\)"):
        p.log_prob(outside)
    loose = FlowDistribution(flow, validate_args=False)
    assert loose.log_prob(outside).tolist() == [-math.inf]
    assert p.support.check(p.sample(100)).all()
    assert cnf.CNF(2)().support is torch.distributions.constraints.real_vector


def test_samplers_move_in_model_coordinates():
    p = half_line()()
    to_data = torch.distributions.biject_to(p.support)
    y = normal(6, 2).requires_grad_()
    x = to_data(y)
    torch.testing.assert_close(to_data.inv(x.detach()), y.detach())
    assert (x[:, 0] > 0).all()
    rows = [torch.autograd.functional.jacobian(to_data, row) for row in y.detach()]
    volumes = torch.linalg.slogdet(torch.stack(rows)).logabsdet
    torch.testing.assert_close(to_data.log_abs_det_jacobian(y, x).detach(), volumes)


def gaussian_flow() -> tuple[cnf.CNF, MultivariateNormal]:
    """A flow that is a Gaussian: at rest, seen through an affine map."""
    matrix = torch.tensor([[2.0, 0.0], [1.0, 0.5]], dtype=F64)
    shift = torch.tensor([3.0, -1.0], dtype=F64)
    flow = cnf.CNF(2, hidden=(4, 4), preprocess=cnf.Affine(shift, matrix), solver=FAST).double()
    return flow, MultivariateNormal(shift, matrix @ matrix.T)


@torch.no_grad()
def test_moments_and_entropy_with_their_errors():
    flow, exact = gaussian_flow()
    p, state = flow(), torch.random.get_rng_state()
    found = p.estimates()
    for name in ("mean", "variance", "entropy"):
        truth = exact.entropy() if name == "entropy" else getattr(exact, name)
        value, error = getattr(found, name), getattr(found, f"{name}_error")
        assert ((value - truth).abs() < 4 * error).all() and (error > 0).all(), name
    assert torch.equal(p.mean, found.mean) and torch.equal(p.entropy(), found.entropy)
    assert torch.equal(p.stddev, found.variance.sqrt())
    assert torch.equal(state, torch.random.get_rng_state())


@torch.no_grad()
def test_kl_divergence_between_flows_and_anything():
    flow, exact = gaussian_flow()
    other = MultivariateNormal(torch.zeros(2, dtype=F64), 4 * torch.eye(2, dtype=F64))
    for p, q, truth in (
        (flow(), other, kl_divergence(exact, other)),
        (other, flow(), kl_divergence(other, exact)),
        (flow(), flow(), torch.zeros((), dtype=F64)),
    ):
        value, error = kl_estimate(p, q)
        assert abs(value - truth) <= 4 * error + 1e-6
        assert torch.equal(kl_divergence(p, q), value)


def test_draws_come_with_their_density_and_gradients():
    flow = half_line(context_dim=1)
    context = normal(3, 1).requires_grad_()
    x, log_prob = flow(context).rsample_and_log_prob((4,))
    assert x.shape == (4, 3, 2) and log_prob.shape == (4, 3)
    precise = flow.bind(context, tolerance=1e-6).log_prob(x)
    torch.testing.assert_close(log_prob, precise, rtol=0, atol=0.1)
    (slope,) = torch.autograd.grad((x.sum() + log_prob.sum()), context)
    assert slope.abs().min() > 0


# pyro


@pytest.fixture
def pyro():
    module = pytest.importorskip("pyro")
    module.clear_param_store()
    yield module
    module.clear_param_store()


SEEN = torch.tensor(1.5, dtype=F64)


def lognormal_prior(pyro):
    """The model of a lognormal prior (a flow at rest, seen through an exponential) and an
    observation."""
    flow = cnf.CNF(1, hidden=(4, 4), preprocess=cnf.BoundedToReal([(0.0, None)]), solver=FAST)
    flow = flow.double().requires_grad_(False)

    def model():
        x = pyro.sample("x", flow())
        pyro.sample("y", pyro.distributions.Normal(x[0], 0.5), obs=SEEN)

    return model


def test_a_sampler_sees_the_posterior_in_model_coordinates(pyro):
    from pyro.infer.mcmc.util import initialize_model

    _, potential, _, _ = initialize_model(lognormal_prior(pyro))
    for start in (-1.0, 0.0, 0.5):
        y = torch.tensor([start], dtype=F64, requires_grad=True)
        exact = -(Normal(0.0, 1.0).log_prob(y) + Normal(y.exp(), 0.5).log_prob(SEEN)).sum()
        found = potential({"x": y})
        torch.testing.assert_close(found, exact)
        torch.testing.assert_close(*(torch.autograd.grad(u, y)[0] for u in (found, exact)))


@pytest.mark.slow
def test_nuts_stays_within_the_ranges_of_a_flow(pyro):
    kernel = pyro.infer.NUTS(lognormal_prior(pyro), max_tree_depth=4)
    chain = pyro.infer.MCMC(kernel, num_samples=300, warmup_steps=100, disable_progbar=True)
    pyro.set_rng_seed(0)
    chain.run()
    found = chain.get_samples()["x"]
    x = torch.linspace(1e-4, 12, 20_000, dtype=F64)
    posterior = torch.distributions.LogNormal(0.0, 1.0).log_prob(x) + Normal(x, 0.5).log_prob(SEEN)
    expected = (posterior.softmax(0) * x).sum()
    assert (found > 0).all() and abs(found.mean() - expected) < 0.25


def amortized(pyro, steps: int) -> cnf.CNF:
    """A flow as the guide of z given y, trained by SVI."""
    torch.manual_seed(0)
    smooth = cnf.GatedField(1, (16, 16), context_dim=1, frequency=0.5)
    flow = cnf.CNF(1, context_dim=1, field=smooth, solver=cnf.Grid.uniform(16, "adams"))

    def model(y):
        with pyro.plate("rows", len(y)):
            z = pyro.sample("z", pyro.distributions.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("y", pyro.distributions.Normal(z, NOISE).to_event(1), obs=y)

    def guide(y):
        pyro.module("flow", flow)
        with pyro.plate("rows", len(y)):
            pyro.sample("z", flow(y))

    optimizer = pyro.optim.ClippedAdam({"lr": 5e-3, "lrd": 0.01 ** (1 / steps)})
    svi = pyro.infer.SVI(model, guide, optimizer, pyro.infer.Trace_ELBO())
    draws = seeded()
    for _ in range(steps):
        svi.step(math.sqrt(1 + NOISE**2) * torch.randn(128, 1, generator=draws))
    return flow


def test_a_guide_learns_in_a_few_steps(pyro):
    flow, y = amortized(pyro, 40), torch.ones(1, 1)
    assert abs(flow.sample(500, y).mean() - GAIN) < 0.4


@pytest.mark.slow
def test_a_guide_learns_the_posterior(pyro):
    within_reach(amortized(pyro, 200))


def test_what_else_pyro_asks_of_a_distribution(pyro):
    p, x = cnf.CNF(2, context_dim=1, hidden=(4, 4))(torch.zeros(3, 1)), torch.zeros(3, 2)
    whole = p.to_event(1)
    assert (whole.batch_shape, whole.event_shape) == ((), (3, 2))
    torch.testing.assert_close(whole.log_prob(x), p.log_prob(x).sum())
    assert p.expand_by((5,)).batch_shape == (5, 3) and p.shape((2,)) == (2, 3, 2)
    assert not p.mask(torch.zeros(3, dtype=torch.bool)).log_prob(x).any()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        p.nothing  # noqa: B018


# sbi


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where sbi leaves its logs."""
    monkeypatch.chdir(tmp_path)


def simulated(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    theta = torch.randn(rows, 1, generator=seeded(1))
    return theta, theta + NOISE * torch.randn(rows, 1, generator=seeded(2))


def estimator(rows: int, epochs: int, **options):
    """What sbi's NPE trains with the builder of three lines."""
    inference = pytest.importorskip("sbi.inference")
    flow_builder = pytest.importorskip("cnf.integrations.sbi").flow_builder
    torch.manual_seed(0)
    prior = MultivariateNormal(torch.zeros(1), torch.eye(1))
    npe = inference.NPE(
        prior, density_estimator=flow_builder(hidden=(16, 16)), show_progress_bars=False
    )
    npe.append_simulations(*simulated(rows))
    return npe, npe.train(max_num_epochs=epochs, **options)


def test_sbi_trains_samples_and_scores_a_flow(folder):
    npe, trained = estimator(200, 1, training_batch_size=100)
    posterior = npe.build_posterior(trained)
    seen = torch.ones(1, 1)
    x = posterior.sample((50,), x=seen, show_progress_bars=False)
    assert x.shape == (50, 1) and posterior.log_prob(x, x=seen).isfinite().all()
    x, log_prob = trained.sample_and_log_prob(torch.Size([5]), seen)
    torch.testing.assert_close(trained.log_prob(x, seen), log_prob, rtol=0, atol=1e-3)
    torch.testing.assert_close(trained.loss(x[0], seen), -log_prob[0], rtol=0, atol=1e-2)


def test_sbi_may_observe_a_constant(folder):
    """A column without information is zero beside the other, standardized."""
    flow_builder = pytest.importorskip("cnf.integrations.sbi").flow_builder
    theta, x = simulated(200)
    seen = torch.cat([x, torch.full_like(x, 0.1)], 1)
    built = flow_builder(hidden=(8, 8))(theta, seen)
    context = built.net.condition(seen)
    expected = (x - x.mean()) / x.std(correction=0)
    torch.testing.assert_close(context, torch.cat([expected, torch.zeros_like(x)], 1))
    assert built.loss(theta, seen).isfinite().all()


def test_sbi_is_told_how_the_builder_is_called():
    flow_builder = pytest.importorskip("cnf.integrations.sbi").flow_builder
    theta, x = simulated(20)
    with pytest.raises(TypeError, match=r"call it, as in NPE\(density_estimator=flow_builder"):
        flow_builder(theta, x)
    for shapes in ((theta[:, 0], x), (theta, x[:, 0]), (theta, x[:5])):
        with pytest.raises(ValueError, match="a single column is theta"):
            flow_builder()(*shapes)
    with pytest.raises(ValueError, match=r"embedding_net: expected features .* \(20, 1, 1\)"):
        flow_builder(torch.nn.Unflatten(1, (1, 1)))(theta, x)


@pytest.mark.slow
def test_sbi_learns_the_posterior(folder):
    _, trained = estimator(4000, 40, training_batch_size=200, learning_rate=2e-3)
    within_reach(trained.net)


# Lightning, accelerate, the hub, DDP


@pytest.fixture
def lightning():
    return pytest.importorskip("pytorch_lightning")


def test_lightning_trains_and_restores_a_flow(lightning, tmp_path):
    class Density(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.flow = cnf.CNF(1, hidden=(8, 8), solver=FAST)

        def training_step(self, batch):
            return -self.flow.log_prob(batch[0]).mean()

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-2)

    torch.manual_seed(0)
    x = 2 + 0.5 * torch.randn(256, 1, generator=seeded())
    model = Density()
    cnf.fit(model.flow, x, steps=5)  # replaces base, transform and field of the flow
    rows = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=128)
    trainer = lightning.Trainer(
        max_epochs=1, default_root_dir=tmp_path, logger=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(model, rows)
    (path,) = Path(tmp_path).rglob("*.ckpt")
    restored = Density.load_from_checkpoint(path, weights_only=True).eval()
    model.eval()
    assert torch.equal(restored.flow.log_prob(x), model.flow.log_prob(x))
    entropy = Normal(2.0, 0.5).entropy()
    assert abs(-model.flow.log_prob(x).mean() - entropy) < 0.1


@pytest.fixture
def accelerator():
    """Of bf16-mixed precision, whatever the process had before."""
    module = pytest.importorskip("accelerate")
    module.state.AcceleratorState._reset_state(reset_partial_state=True)
    yield module.Accelerator(cpu=True, mixed_precision="bf16")
    module.state.AcceleratorState._reset_state(reset_partial_state=True)


def test_accelerate_trains_and_restores_a_flow(accelerator, tmp_path):
    x = 2 + 0.5 * torch.randn(256, 1, generator=seeded())
    torch.manual_seed(0)
    smooth = cnf.GatedField(1, (8, 8), frequency=0.5)
    loss = NLL(cnf.CNF(1, field=smooth, solver=cnf.Grid.uniform(12, "adams")))
    rows = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=128)
    optimizer = torch.optim.Adam(loss.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-2, total_steps=40)
    whole, optimizer, rows, schedule = accelerator.prepare(loss, optimizer, rows, schedule)
    for _ in range(20):
        for (batch,) in rows:
            optimizer.zero_grad()
            accelerator.backward(whole(batch))
            optimizer.step()
            schedule.step()
    found = accelerator.unwrap_model(whole).flow.eval()
    assert abs(-found.log_prob(x).mean() - Normal(x.mean(), x.std()).entropy()) < 0.05
    accelerator.save_state(tmp_path)
    before = found.log_prob(x)
    with torch.no_grad():
        found.field.W1.zero_()
    accelerator.load_state(tmp_path)
    assert torch.equal(found.log_prob(x), before)


def test_the_hub_mixin_restores_a_fitted_flow(tmp_path):
    hub = pytest.importorskip("huggingface_hub")

    class Shared(cnf.CNF, hub.PyTorchModelHubMixin):
        pass

    x = torch.randn(80, 2, generator=seeded()) * 3 + 1
    flow = Shared(dim=2)
    cnf.fit(flow, x, steps=3)
    flow.save_pretrained(tmp_path)
    assert torch.equal(Shared.from_pretrained(tmp_path).log_prob(x), flow.log_prob(x))


class NLL(nn.Module):
    """The loss as a module, which is what DistributedDataParallel and accelerate wrap."""

    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def forward(self, x):
        return -self.flow.log_prob(x).mean()


def small_loss() -> NLL:
    torch.manual_seed(0)
    return NLL(stirred(cnf.CNF(2, hidden=(6, 6), solver=FAST)).double())


def trained(loss: nn.Module, x: torch.Tensor) -> list[list[float]]:
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()
    return [p.detach().flatten().tolist() for p in loss.parameters()]


def ddp_worker(rank: int, file: str, queue) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{file}", rank=rank, world_size=2
    )
    whole = nn.parallel.DistributedDataParallel(small_loss())
    queue.put((rank, trained(whole, normal(40, 2)[rank::2])))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gloo over a file")
def test_two_processes_train_as_one(tmp_path):
    context = get_context("spawn")
    queue = context.Queue()
    workers = [
        context.Process(target=ddp_worker, args=(rank, str(tmp_path / "meet"), queue))
        for rank in range(2)
    ]
    for worker in workers:
        worker.start()
    found = dict(queue.get(timeout=200) for _ in workers)
    for worker in workers:
        worker.join()
    assert found[0] == found[1]
    for a, b in zip(found[0], trained(small_loss(), normal(40, 2))):
        torch.testing.assert_close(torch.tensor(a), torch.tensor(b), rtol=1e-5, atol=1e-6)


# names


def test_rooms_of_the_package_are_there_when_they_are_asked_for():
    assert "training" in dir(cnf) and "CNF" in dir(cnf)
    assert cnf.training.Trainer and cnf.integrations
