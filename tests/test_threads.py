"""Threads and processes: one model in many hands gives the answers of one hand, and leaves no
trace."""

import multiprocessing
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from problems import make_flow, normal, seeded

import cnf
from cnf.cli import main

ROWS = 600


def flow_of(name):
    flow = make_flow(name).eval()
    return flow.calibrate(normal(200, 2))


def answers(flow, seed):
    """What a thread asks: scores, bars, draws and a path, of rows of its own."""
    x = normal(ROWS, 2, seed=seed)
    with torch.no_grad():
        found = flow.evaluate(x)
        drawn = flow.sample((50,), generator=seeded(seed))
        path = flow.trajectory(x[:5], [0.0, 0.5, 1.0], reverse=True)
    return [found.log_prob, found.error, found.nfe, drawn, path]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gated-sine", "mlp-silu"])
def test_eight_threads_get_the_answers_of_one(name):
    flow = flow_of(name)
    alone = [answers(flow, seed) for seed in range(8)]
    start = threading.Barrier(8)

    def ask(seed):
        start.wait()
        return [answers(flow, seed) for _ in range(3)]

    with ThreadPoolExecutor(8) as pool:
        for seed, rounds in enumerate(pool.map(ask, range(8))):
            for found in rounds:
                assert all(torch.equal(a, b) for a, b in zip(found, alone[seed]))


def test_gradients_in_threads_are_those_of_one():
    """A thread that scores without gradients does not take those of another away."""
    flow = flow_of("gated-tanh").requires_grad_(requires_grad=False)

    def slope(seed):
        x = normal(20, 2, seed=seed).requires_grad_()
        (found,) = torch.autograd.grad(flow.log_prob(x).sum(), x)
        return found

    alone = [slope(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        quiet = [pool.submit(answers, flow, seed) for seed in range(8)]
        loud = list(pool.map(slope, range(8)))
    assert all(task.exception() is None for task in quiet)
    assert all(torch.equal(a, b) for a, b in zip(loud, alone))


def scored_by(path, queue):
    torch.set_num_threads(1)
    with torch.no_grad():
        queue.put(cnf.load(path).log_prob(normal(50, 2)).numpy())


@pytest.mark.parametrize("how", ["spawn", "fork"])
@pytest.mark.filterwarnings(
    "ignore:This process:DeprecationWarning"
)  # Python's own, where threads have run
@pytest.mark.slow
def test_other_processes_get_the_same(how, tmp_path):
    flow = flow_of("gated-sine")
    flow.save(tmp_path / "m")
    context = multiprocessing.get_context(how)
    queue = context.SimpleQueue()
    process = context.Process(target=scored_by, args=(str(tmp_path / "m"), queue))
    process.start()
    found = queue.get()
    process.join(120)
    with torch.no_grad():
        assert process.exitcode == 0 and np.array_equal(
            found, flow.log_prob(normal(50, 2)).numpy()
        )


def settings():
    return (
        torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), torch.initial_seed(),
        torch.get_rng_state().tolist(), torch.are_deterministic_algorithms_enabled(),
        torch.is_anomaly_enabled(), torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision(),
        torch.distributions.Distribution._validate_args, np.geterr(), np.random.get_state()[1].tolist(),
        list(warnings.filters), warnings.showwarning,
    )  # fmt: skip


def test_use_changes_nothing_that_others_share(tmp_path, capsys):
    # torch loads parts of itself at first use, and one of them sets filters of warnings.
    cnf.fit(cnf.CNF(2, hidden=(4, 4)), normal(20, 2), steps=2)
    before = settings()
    flow = cnf.CNF(2, hidden=(8, 8), divergence="hutchinson")
    torch.set_rng_state(
        torch.tensor(before[4], dtype=torch.uint8)
    )  # a new flow draws its first weights
    cnf.fit(flow, normal(60, 2), steps=6)
    flow.save(tmp_path / "m")
    cnf.load(tmp_path / "m").sample((3,), generator=seeded())
    cnf.CNFDensity(steps=2, hidden=(4, 4), random_state=0).fit(normal(30, 2).numpy())
    assert main(["info", str(tmp_path / "m")]) == 0
    for now, then in zip(settings(), before):
        assert now == then


def test_seeded_runs_repeat_to_the_last_bit():
    found = []
    for _ in range(2):
        flow = make_flow("gated-sine")
        history = cnf.fit(flow, normal(80, 2), steps=10, seed=5)
        drawn = flow.sample((20,), generator=seeded(3))
        found.append([*flow.state_dict().values(), drawn, torch.tensor(history.valid_nll)])
    assert all(torch.equal(a, b) for a, b in zip(*found))
