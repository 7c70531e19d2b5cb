"""Speed compared with zuko and torchdiffeq
========================================

Speed and error of scoring, gradients and sampling, compared with zuko's CNF and with the FFJORD method
on torchdiffeq.

Run it with::

    python scripts/benchmark_speed.py            # writes figures/benchmark_speed.json and .png
    python scripts/benchmark_speed.py --compile  # effect of torch.compile: writes compiled_speed.json

All measurements run in one process with one thread. All methods use the same trained weights: a network
with two hidden layers of 64 units and tanh. They are timed in turn; the script prints medians, with the
smallest and largest time. Errors are relative to dopri8 at 1e-10 in float64: of log_prob in nats, and of
samples as the distance from the exact images of their base points. Peers run at their defaults, and
zuko also at the loosest tolerance whose error is no larger than ours."""

# sphinx_gallery_thumbnail_path = "../figures/benchmark_speed.png"
from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import zuko
from results import write_json
from same_weights import autograd_adjoint, ffjord_log_prob, fold_linear_time, to_zuko
from torch import Tensor, nn

import cnf
from cnf import plotting
from cnf.flows.scoring import CHUNK
from cnf.ode import Grid

ROWS = 1000
WIDTH = 64
DIMENSIONS = (2, 6, 43)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument("--quick", action="store_true", help="two columns, few rows and repeats")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="two columns, with and without compilation, no peers",
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    rows, repeats, dims = (100, 2, (2,)) if args.quick else (ROWS, args.repeats, DIMENSIONS)
    if args.compile:
        found = compiled(
            *trained(2, 10 * CHUNK, args.seed, steps=60 if args.quick else 1500), repeats
        )
        write_json(args.out / "compiled_speed.json", found)
        return
    flows = {dim: trained(dim, rows, args.seed, steps=60 if args.quick else 1500) for dim in dims}
    results = {}
    for dim, (flow, x) in flows.items():
        results[dim] = benchmark(flow, x, repeats)
        print_table(dim, results[dim])
    flat = cost_by_rows(flows[2][0], quick=args.quick)
    work = work_against_error(*flows[2])
    draw(work, args.out / "benchmark_speed.png")
    numbers = {
        "rows": rows,
        "repeats": repeats,
        "columns": results,
        "cost_by_rows": flat,
        "work": work,
    }
    write_json(args.out / "benchmark_speed.json", numbers)


def trained(dim: int, rows: int, seed: int, steps: int) -> tuple[cnf.CNF, Tensor]:
    """A flow fitted to a mixture of five Gaussians in standardized units, and rows to score."""
    torch.manual_seed(seed)
    centers = 2 * torch.randn(5, dim)
    x = centers[torch.randint(5, (20_000,))] + 0.5 * torch.randn(20_000, dim)
    x = (x - x.mean(0)) / x.std(0)
    # The map and the base that the peer has too.
    maps = {"preprocess": cnf.Affine.identity(dim), "base": cnf.NormalBase(dim)}
    flow = cnf.CNF(dim, field=cnf.MLPField(dim, hidden=(WIDTH, WIDTH)), **maps)
    cnf.fit(flow, x, steps=steps, likelihood_share=0.03, seed=seed)
    return fold_linear_time(flow).calibrate(x), x[:rows]


def benchmark(flow: cnf.CNF, x: Tensor, repeats: int) -> dict[str, dict]:
    """All measurements for one number of columns."""
    truth = exact(flow, x)
    peer = to_zuko(flow).eval()
    log_probs = {"cnf": flow.log_prob, "zuko": lambda x: peer().log_prob(x)}
    ours = error(flow.log_prob, x, truth)["mean"]
    matched = matched_peer(
        flow, lambda peer: error(lambda x: peer().log_prob(x), x, truth)["mean"] <= ours
    )
    log_probs["zuko, equal error"] = lambda x: matched().log_prob(x)
    log_probs["torchdiffeq, FFJORD's way"] = partial(ffjord_log_prob, flow)
    samples, sample_errors = sampling(flow, peer, len(x))
    return {
        "log_prob": in_turns({name: no_grad(run, x) for name, run in log_probs.items()}, repeats),
        "gradient": in_turns(gradients(flow, peer, matched, x), max(repeats // 2, 1)),
        "sample": in_turns(samples, repeats),
        "field": field_times(flow, x, 20 * repeats),
        "error": {name: error(run, x, truth) for name, run in log_probs.items()},
        "sample_error": sample_errors,
        "gradient_difference": gradient_difference(flow, x[:200]),
        "nfe": {"cnf": flow.evaluate(x).nfe.double().mean().item()},
    }


def gradients(
    flow: cnf.CNF, peer: zuko.flows.CNF, matched: zuko.flows.CNF, x: Tensor
) -> dict[str, Callable[[], None]]:
    """The gradient of the mean log-likelihood of rows x, every way."""
    peer, matched = copy.deepcopy(peer).train(), copy.deepcopy(matched).train()
    return {
        "cnf": gradient(flow, flow.log_prob, x),
        "cnf, discrete": gradient(flow, partial(flow.log_prob, gradient="discrete"), x),
        "cnf, adjoint": gradient(flow, partial(flow.log_prob, gradient="adjoint"), x),
        "zuko": gradient(peer, lambda x: peer().log_prob(x), x),
        "zuko, equal error": gradient(matched, lambda x: matched().log_prob(x), x),
        "torchdiffeq, adjoint": gradient(flow, partial(autograd_adjoint, flow), x),
    }


def gradient_difference(flow: cnf.CNF, x: Tensor) -> float:
    """Largest difference of the discrete adjoint to direct backpropagation, relative, in
    float64."""
    flow, found = copy.deepcopy(flow).double(), []
    for kind in ("direct", "discrete"):
        gradient(flow, partial(flow.log_prob, gradient=kind), x.double())()
        found.append(torch.cat([part.grad.flatten() for part in flow.field.parameters()]))
    direct, discrete = found
    return ((discrete - direct).abs().max() / direct.abs().max()).item()


@torch.no_grad()
def sampling(
    flow: cnf.CNF, peer: zuko.flows.CNF, rows: int
) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """Drawing rows on every side, and how far each carries base points from where they belong
    (mean norm)."""
    generator = torch.Generator().manual_seed(0)
    z = flow.sample_base(rows, generator=generator)
    fine = copy.deepcopy(flow).double()
    fine.solver = cnf.Torchdiffeq("dopri8", rtol=1e-10, atol=1e-10)
    truth = fine.trajectory(z.double(), [1.0])[0]

    def off(x: Tensor) -> float:
        return (x.double() - truth).norm(dim=-1).mean().item()

    ours = off(flow.trajectory(z, [1.0])[0])
    matched = matched_peer(flow, lambda peer: off(peer().transform.inv(z)) <= ours)
    sides = {
        "cnf": no_grad(lambda z: flow.sample((len(z),), generator=generator), z),
        "zuko": no_grad(lambda z: peer().sample((len(z),)), z),
        "zuko, equal error": no_grad(lambda z: matched().sample((len(z),)), z),
    }
    errors = {
        "zuko": off(peer().transform.inv(z)),
        "zuko, equal error": off(matched().transform.inv(z)),
    }
    return sides, {"cnf": ours, **errors}


def exact(flow: cnf.CNF, x: Tensor) -> Tensor:
    """log p by dopri8 at 1e-10 in float64."""
    fine = copy.deepcopy(flow).double()
    fine.solver = cnf.Torchdiffeq("dopri8", rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        return fine.log_prob(x.double())


def error(log_prob: Callable[[Tensor], Tensor], x: Tensor, reference: Tensor) -> dict[str, float]:
    """Mean and largest error of log_prob in nats."""
    with torch.no_grad():
        difference = (log_prob(x).double() - reference).abs()
    return {"mean": difference.mean().item(), "max": difference.max().item()}


@torch.no_grad()
def matched_peer(flow: cnf.CNF, good: Callable[[zuko.flows.CNF], bool]) -> zuko.flows.CNF:
    """zuko at the loosest tolerance, a power of √10, that is good enough."""
    tolerance = 1e-2
    while True:
        peer = to_zuko(flow, atol=tolerance / 10, rtol=tolerance).eval()
        if good(peer) or tolerance < 1e-8:
            return peer
        tolerance /= 10**0.5


def no_grad(f: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], object]:
    return torch.no_grad()(partial(f, x))


def gradient(
    module: nn.Module, log_prob: Callable[[Tensor], Tensor], x: Tensor
) -> Callable[[], None]:
    """The gradient of the mean log-likelihood with respect to all parameters."""

    def run() -> None:
        module.zero_grad()
        log_prob(x).mean().backward()

    return run


def in_turns(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    """Seconds of each side, timed in turns after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: spread(seconds) for name, seconds in times.items()}


def spread(seconds: list[float]) -> dict[str, float]:
    return {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}


def field_times(flow: cnf.CNF, x: Tensor, repeats: int) -> dict[str, dict[str, float]]:
    """One evaluation of field and exact divergence, beside a plain forward pass of the same
    network."""
    t = torch.tensor(0.3)
    inputs = torch.cat([x, flow.field.time(t).expand(len(x), -1)], 1)
    first, second, last = flow.field.layers
    plain = nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), last)
    with torch.no_grad():
        (at,) = flow.field.bind().at(t[None])
    sides = {
        "cnf, with divergence": no_grad(at.velocity_and_divergence, x),
        "plain forward pass": no_grad(plain, inputs),
    }
    return in_turns(sides, repeats)


def print_table(dim: int, found: dict[str, dict]) -> None:
    print(f"\n{dim} columns; scoring takes {found['nfe']['cnf']:.0f} evaluations a row")
    for task in ("log_prob", "gradient", "sample", "field"):
        own = next(iter(found[task].values()))["median"]
        for name, seconds in found[task].items():
            median, low, high = (1e3 * seconds[key] for key in ("median", "min", "max"))
            times = f"{median:10.2f} ms ({low:.2f} to {high:.2f})"
            note = note_of(task, name, found)
            print(
                f"  {task:9} {name:27} {times:36} {seconds['median'] / own:7.2f} x{note}",
                flush=True,
            )
    print(
        f"  discrete adjoint and direct gradient differ by {found['gradient_difference']:.1e} (float64)"
    )


def note_of(task: str, name: str, found: dict[str, dict]) -> str:
    """What error goes with a time."""
    if task == "log_prob":
        off = found["error"][name]
        return f"   error mean {off['mean']:.1e}, max {off['max']:.1e}"
    return f"   error mean {found['sample_error'][name]:.1e}" if task == "sample" else ""


@torch.no_grad()
def compiled(flow: cnf.CNF, x: Tensor, repeats: int) -> dict[str, dict | float]:
    """Scoring and drawing whole chunks of rows before and after `compile`, and the seconds that it
    takes."""
    tasks = {"log_prob": partial(flow.log_prob, x), "sample": partial(flow.sample, (len(x),))}
    before = in_turns(tasks, repeats)
    flow.compile_solves()
    start = time.perf_counter()
    for run in tasks.values():
        run()
    seconds = time.perf_counter() - start
    after = in_turns(tasks, repeats)
    print(f"compiled in {seconds:.0f} s")
    for name in tasks:
        old, new = (1e6 * times[name]["median"] / len(x) for times in (before, after))
        print(f"  {name:9} {old:6.1f} µs a row, compiled {new:6.1f}: {old / new:.2f} x")
    return {"seconds": seconds, "before": before, "after": after}


@torch.no_grad()
def cost_by_rows(flow: cnf.CNF, *, quick: bool) -> dict[int, float]:
    """Microseconds a row of scoring more and more rows."""
    found = {}
    for rows in (100, 1_000) if quick else (1_000, 10_000, 100_000, 1_000_000):
        x = flow.sample((rows,))
        start = time.perf_counter()
        flow.evaluate(x)
        found[rows] = 1e6 * (time.perf_counter() - start) / rows
        print(f"{rows:>9} rows: {found[rows]:.1f} µs a row", flush=True)
    return found


def work_against_error(flow: cnf.CNF, x: Tensor) -> dict[str, list[tuple[float, float]]]:
    """(evaluations, mean error in nats) of every solver over its range of accuracies."""
    flow = copy.deepcopy(flow).double()
    x, reference = x.double(), exact(flow, x)
    found: dict[str, list[tuple[float, float]]] = {}
    for method in ("euler", "midpoint", "rk4", "dopri5", "adams"):
        grids = [Grid.uniform(steps, method) for steps in (4, 6, 8, 12, 16, 24, 32, 64)]
        found[f"{method} on a uniform grid"] = [
            measure(flow, grid, x, reference) for grid in grids
        ]
    tolerances = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
    placed = [copy.deepcopy(flow).calibrate(x, tolerance).solver for tolerance in tolerances]
    found["adams on a calibrated grid"] = [measure(flow, grid, x, reference) for grid in placed]
    for method in ("dopri5", "dopri8", "bosh3"):
        tolerances = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
        adaptive = [cnf.Torchdiffeq(method, rtol=tol, atol=tol) for tol in tolerances]
        found[f"torchdiffeq {method}"] = [
            measure(flow, solver, x, reference) for solver in adaptive
        ]
    return found


@torch.no_grad()
def measure(
    flow: cnf.CNF, solver: cnf.Grid | cnf.Torchdiffeq, x: Tensor, reference: Tensor
) -> tuple[float, float]:
    scores = flow.solve_log_prob(x, None, solver)
    return scores.nfe, (scores.log_prob - reference).abs().mean().item()


def draw(work: dict[str, list[tuple[float, float]]], path: Path) -> None:
    """Work against error, every solver one line."""
    figure, axes = plotting.figure(panel=(5.2, 3.6))
    ax = axes.flat[0]
    for name, points in work.items():
        nfe, errors = zip(*points)
        ax.loglog(nfe, errors, "o-", markersize=3, linewidth=1, label=name)
    ax.set_xlabel("velocity evaluations a row")
    ax.set_ylabel("mean error of log p (nats)")
    ax.legend(fontsize=6, frameon=False)
    plotting.save(figure, path)


if __name__ == "__main__":
    main()
