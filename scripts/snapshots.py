"""Snapshots of a known law
========================

One snapshot is left out: how accurate is the flow at its time?

Run it with::

    python scripts/snapshots.py            # 6 fits of 20 s of one core each, and as long for OT-CFM
    python scripts/snapshots.py --quick    # one fit of a few training steps

Two laws have a known density at every time: an Ornstein-Uhlenbeck process in the plane, and one Gaussian
that splits into two. Each snapshot between the first and the last is left out once. figures/snapshots.json
contains the Kullback-Leibler divergence at that time and its standard error, in nats, and the
1-Wasserstein distance between 1,000 rows and as many of the law. The latter is compared with that of fresh
rows of the law, of linear interpolation of optimal transport between the two neighbors, and of OT-CFM
(Tong et al. 2024) in as much time, if torchcfm is installed. figures/snapshots.png shows densities at
several times, each by the flow that was trained without that snapshot.
"""

# sphinx_gallery_thumbnail_path = "../figures/snapshots.png"
from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from results import write_json
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily, MultivariateNormal

import cnf

TIMES = (0.0, 0.5, 1.0, 1.5, 2.0)
ROWS, JUDGED = 1_000, 4_000
Snapshots = dict[float, Tensor]


def ornstein_uhlenbeck(t: float) -> Distribution:
    """dx = A (m − x) dt + noise, from a Gaussian: a Gaussian at every time."""
    drift = torch.tensor([[1.0, -0.6], [0.6, 0.5]], dtype=torch.float64)
    noise = torch.tensor([0.4, 0.1, 0.1, 0.2], dtype=torch.float64)
    mean, start = torch.tensor([[2.0, -1.0], [-2.0, 2.0]], dtype=torch.float64)
    spread = torch.tensor([[1.0, 0.5], [0.5, 0.6]], dtype=torch.float64)
    one = torch.eye(2, dtype=torch.float64)
    whole = torch.kron(drift, one) + torch.kron(one, drift)
    at_rest = torch.linalg.solve(whole, noise).view(2, 2)
    decay = torch.matrix_exp(-drift * t)
    covariance = decay @ (spread - at_rest) @ decay.T + at_rest
    return MultivariateNormal(mean + decay @ (start - mean), covariance)


def splitting(t: float) -> Distribution:
    """A Gaussian of deviation 0.5 that becomes two, whose means move apart ever faster."""
    apart = 0.75 * t**2
    means = torch.tensor([[t, apart], [t, -apart]], dtype=torch.float64)
    parts = MultivariateNormal(means, 0.25 * torch.eye(2, dtype=torch.float64))
    return MixtureSameFamily(Categorical(torch.ones(2, dtype=torch.float64)), parts)


LAWS: dict[str, Callable[[float], Distribution]] = {
    "Ornstein-Uhlenbeck": ornstein_uhlenbeck,
    "splitting": splitting,
}


def wasserstein(x: Tensor, y: Tensor) -> float:
    """The mean distance of rows (rows, dim) under the cheapest assignment."""
    cost = torch.cdist(x.double(), y.double()).numpy()
    return float(cost[linear_sum_assignment(cost)].mean())


def interpolated(snapshots: Snapshots, left: float) -> Tensor:
    """Rows on straight lines between rows of the neighbors that optimal transport pairs."""
    before = max(t for t in snapshots if t < left)
    after = min(t for t in snapshots if t > left)
    x, y = snapshots[before], snapshots[after]
    order = linear_sum_assignment(torch.cdist(x, y).square().numpy())[1]
    return torch.lerp(x, y[torch.from_numpy(order)], (left - before) / (after - before))


class TimeLast(nn.Module):
    """A network of torchcfm as a velocity in t of [0, 1], over the whole span of times."""

    def __init__(self, network: nn.Module, span: float) -> None:
        super().__init__()
        self.network, self.span = network, span

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.span * self.network(torch.cat([x, self.span * t], -1))


def ot_cfm(snapshots: Snapshots, left: float, seconds: float) -> Tensor:
    """Rows that OT-CFM brings to the time `left` from the first snapshot."""
    from torchcfm.conditional_flow_matching import ExactOptimalTransportConditionalFlowMatcher
    from torchcfm.models import MLP

    torch.manual_seed(0)
    matcher, network = (
        ExactOptimalTransportConditionalFlowMatcher(sigma=0.0),
        MLP(2, time_varying=True),
    )
    optimizer, start = torch.optim.Adam(network.parameters(), 1e-3), time.process_time()
    times = list(snapshots)
    while time.process_time() - start < seconds:
        parts = []
        for a, b in pairwise(times):
            x, y = (
                rows[torch.randint(len(rows), (256,))].float()
                for rows in (snapshots[a], snapshots[b])
            )
            t, at, velocity = matcher.sample_location_and_conditional_flow(x, y)
            parts.append((torch.cat([at, (a + (b - a) * t)[:, None]], 1), velocity / (b - a)))
        inputs, wanted = (torch.cat(part) for part in zip(*parts))
        loss = (network(inputs) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    span = times[-1] - times[0]
    flow = cnf.CNF(2, field=TimeLast(network, span), solver=cnf.Grid.uniform(100, "rk4"))
    with torch.no_grad():
        return flow.trajectory(snapshots[times[0]].float(), [(left - times[0]) / span])[0]


def study(
    name: str, left: float, *, peer: bool, **budget: Any
) -> tuple[dict[str, Any], cnf.SnapshotFlow]:
    """The judgment of a flow that has not seen the snapshot at `left`."""
    torch.manual_seed(0)
    law = LAWS[name]
    snapshots = {t: law(t).sample((ROWS,)) for t in TIMES}
    judged, fresh = law(left).sample((JUDGED,)), law(left).sample((ROWS,))
    rows = snapshots.pop(left)
    start = time.process_time()
    moving = cnf.fit_snapshots(cnf.CNF(2), snapshots, clock=time.process_time, **budget)
    seconds = time.process_time() - start
    with torch.no_grad():
        found = moving.evaluate(judged, left)
        drawn = moving.sample(ROWS, left, generator=torch.Generator().manual_seed(0))
    excess = law(left).log_prob(judged) - found.log_prob
    distances = {"law": rows, "cnf": drawn, "linear OT": interpolated(snapshots, left)}
    if peer:
        distances["OT-CFM"] = ot_cfm(snapshots, left, seconds)
    return {
        "law": name,
        "left_out": left,
        "seconds": seconds,
        "kl": excess.mean().item(),
        "kl_se": excess.std().item() / JUDGED**0.5,
        "error_bound": found.error.mean().item(),
        "nfe": found.nfe.double().mean().item(),
        "w1": {key: wasserstein(x, fresh) for key, x in distances.items()},
    }, moving


def draw(flows: dict[str, dict[float, cnf.SnapshotFlow]], picture: Path) -> None:
    """Densities at a row of times, each by the flow that has not seen its snapshot where there is
    one, and paths from the first snapshot."""
    page, axes = cnf.plotting.figure(len(flows), 6, panel=(1.9, 2.1))
    for row, (name, blind) in zip(axes, flows.items()):
        moving = next(iter(blind.values()))
        start = moving.sample(150, TIMES[0], generator=torch.Generator().manual_seed(0))
        times = torch.linspace(TIMES[0], TIMES[-1], 17, dtype=torch.float64)
        path = moving.trajectory(start, times.tolist(), start=TIMES[0])
        limits = cnf.plotting.limits(path.flatten(0, 1), quantiles=(0, 1))
        densities = partial(density_at, blind)
        cnf.plotting.density_history(densities, TIMES, limits, row[:5], resolution=100)
        for left in blind:
            row[TIMES.index(left)].set_title(f"{left:g}, left out", fontsize=8)
        cnf.plotting.trajectories(path, ax=row[5], times=times)
        row[5].set_title(name, fontsize=8)
    cnf.plotting.save(page, picture)


def density_at(blind: dict[float, cnf.SnapshotFlow], t: float) -> Callable[[Tensor], Tensor]:
    """The log-density at a time, by the flow that has not seen it, or any; rows where it cannot be
    seen get one solve."""
    moving = blind.get(t, next(iter(blind.values())))
    timed = moving.flow.bind(torch.tensor([t], dtype=torch.float64), tolerance=math.inf)
    return timed.log_prob


def has_torchcfm() -> bool:
    """Whether the peer is installed."""
    try:
        import torchcfm  # noqa: F401
    except ImportError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument("--seconds", type=float, default=20.0, help="processor seconds per fit")
    parser.add_argument(
        "--left", type=float, nargs="+", default=TIMES[1:-1], help="times left out"
    )
    parser.add_argument("--quick", action="store_true", help="a trial run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    budget = {"steps": 20} if options.quick else {"seconds": options.seconds}
    cases = [(name, left) for left in options.left for name in LAWS]
    options.out.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    flows: dict[str, dict[float, cnf.SnapshotFlow]] = {}
    for name, left in cases[:1] if options.quick else cases:
        peer = has_torchcfm() and not options.quick
        result, moving = study(name, left, peer=peer, **budget)
        print(result, flush=True)
        found.append(result)
        flows.setdefault(name, {})[left] = moving
        write_json(options.out / "snapshots.json", found)
    draw(flows, options.out / "snapshots.png")


if __name__ == "__main__":
    main()
