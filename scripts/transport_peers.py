"""From one toy to another
=======================

Transport compared with torchcfm, with the same network and processor time.

Run it with::

    python scripts/transport_peers.py            # 6 fits of 12 s of one core, and 18 of torchcfm
    python scripts/transport_peers.py --quick    # one fit of a few training steps

The tasks are eight Gaussians to two moons, the reverse, and a Gaussian to two spirals, in the sizes of
torchcfm's toys, with 10,000 rows each. CFM, OT-CFM and SB-CFM (Tong et al. 2024) are those of torchcfm at
its defaults. They train a new copy of our network in our coordinates, for the processor seconds of our
whole fit, including the density of the source. figures/transport_peers.json contains results for held-out
rows: the 2-Wasserstein distance between transported rows and as many of the target, compared with that of
fresh rows; the relative excess length of paths, ∫ |v|² dt / W₂² − 1; and the Kullback-Leibler divergence
of our density from that of the target. figures/transport_peers.png shows paths.
"""

# sphinx_gallery_thumbnail_path = "../figures/transport_peers.png"
from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from palette import shrink
from results import write_json
from torch import Tensor

import cnf
from cnf.datasets import toy
from cnf.recipe.architecture import default_field

PAIRS = (("8gaussians", "moons"), ("moons", "8gaussians"), ("gaussian", "2spirals"))
SCALES = {"8gaussians": 5 * 1.414 / 4, "moons": 1.5, "2spirals": 1.0}
ROWS, JUDGED, SCORED, SEEDS, QUICK_ROWS = 10_000, 3_000, 10_000, 2, 300
MOMENTS, DRAWN_PATHS = 64, 200
BATCH, RATE = 256, 1e-3  # of torchcfm's examples
PEERS = ("CFM", "OT-CFM", "SB-CFM")


class Ends(NamedTuple):
    """Rows of the source and of the target, each (rows, 2)."""

    source: Tensor
    target: Tensor


def draws(pair: tuple[str, str], rows: int, seed: int) -> Ends:
    """Rows of both laws of a pair."""
    generator = torch.Generator().manual_seed(seed)

    def of(name: str) -> Tensor:
        if name == "gaussian":
            return torch.randn(rows, 2, generator=generator)
        return SCALES[name] * toy(name).sample(rows, generator)

    return Ends(*map(of, pair))


def squared_w2(x: Tensor, y: Tensor) -> float:
    """W₂² of two sets of as many rows."""
    import ot

    cost = torch.cdist(x.double(), y.double()).square().numpy()
    return float(ot.emd2(ot.unif(len(x)), ot.unif(len(y)), cost, numItermax=10_000_000))


def shortest(ends: Ends, again: Ends) -> float:
    """W₂² of two laws, less what it finds between rows of one and the same law (Chizat et al.
    2020)."""
    same = sum(squared_w2(*pair) for pair in zip(ends, again))
    return squared_w2(*ends) - same / 2


def matcher_of(peer: str, scale: float) -> Any:
    """The objective of torchcfm, for rows in units of `scale`."""
    import torchcfm

    if peer == "CFM":
        return torchcfm.ConditionalFlowMatcher()
    if peer == "OT-CFM":
        return torchcfm.ExactOptimalTransportConditionalFlowMatcher()
    return torchcfm.SchrodingerBridgeConditionalFlowMatcher(sigma=1 / scale)


def peer_flow(peer: str, rows: Ends, seconds: float, seed: int) -> cnf.CNF:
    """A flow whose field torchcfm trains for so many seconds."""
    torch.manual_seed(seed)
    pooled = torch.cat(rows)
    mean = pooled.mean(0)
    scale = (pooled - mean).square().mean().sqrt()
    ends = [(end - mean) / scale for end in rows]
    matcher, field = matcher_of(peer, scale.item()), default_field(ROWS, 2, seed=seed)
    optimizer, start = torch.optim.Adam(field.parameters(), RATE), time.process_time()
    while time.process_time() - start < seconds:
        pair = (end[torch.randint(len(end), (BATCH,))] for end in ends)
        t, x, velocity = matcher.sample_location_and_conditional_flow(*pair)
        loss = (field(t, x) - velocity).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    affine = cnf.Affine(mean, scale * torch.eye(2))
    solver = cnf.Grid.uniform(50, "rk4")
    return cnf.CNF(2, field=field, preprocess=affine, base=cnf.NormalBase(2), solver=solver)


def our_flow(rows: Ends, seed: int, **budget: float) -> tuple[cnf.CNF, float]:
    """The flow of `cnf.fit`, and the processor seconds that it took."""
    flow, start = cnf.CNF(2), time.process_time()
    cnf.fit(flow, rows.target, source=rows.source, seed=seed, clock=time.process_time, **budget)
    return flow, time.process_time() - start


@torch.no_grad()
def judged(flow: cnf.CNF, held: Ends, optimal: float) -> dict[str, float]:
    """What is measured of every map."""
    path = flow.trajectory(held.source, torch.linspace(0, 1, MOMENTS + 1)).double()
    energy = MOMENTS * path.diff(dim=0).square().sum(-1).mean(1).sum().item()
    distance = squared_w2(path[-1], held.target) ** 0.5
    return {"w2": distance, "energy": energy, "longer": energy / optimal - 1}


@torch.no_grad()
def divergence(flow: cnf.CNF, name: str, seed: int) -> float:
    """The Kullback-Leibler divergence of the flow from the target, in nats."""
    law, scale = toy(name), SCALES[name]
    x = law.sample(SCORED, torch.Generator().manual_seed(seed))
    known = law.log_prob(x) - 2 * math.log(scale)
    return (known - flow.log_prob(scale * x).double()).mean().item()


def study(
    pair: tuple[str, str], seed: int, **budget: float
) -> tuple[dict[str, Any], dict[str, cnf.CNF]]:
    """Our fit and those of the peers, judged by the same rows."""
    rows, held, again = (
        draws(pair, count, 10 * seed + part) for part, count in enumerate((ROWS, JUDGED, JUDGED))
    )
    flow, seconds = our_flow(rows, seed, **budget)
    flows = {"cnf": flow} | {peer: peer_flow(peer, rows, seconds, seed) for peer in PEERS}
    optimal = shortest(held, again)
    return {
        "pair": pair,
        "seed": seed,
        "seconds": seconds,
        "shortest": optimal,
        "w2_of_the_law": squared_w2(again.target, held.target) ** 0.5,
        "kl": divergence(flow, pair[1], seed),
        "maps": {name: judged(each, held, optimal) for name, each in flows.items()},
    }, flows


def draw(flows: dict[tuple[str, str], dict[str, cnf.CNF]], picture: Path) -> None:
    """Paths of rows of the source, a row of panels for each pair."""
    page, axes = cnf.plotting.figure(len(flows), 1 + len(PEERS), panel=(2.1, 2.1))
    for row, (pair, maps) in zip(axes, flows.items()):
        start = draws(pair, DRAWN_PATHS, 99).source
        times = torch.linspace(0, 1, 33)
        for ax, (name, flow) in zip(row, maps.items()):
            with torch.no_grad():
                path = flow.trajectory(start, times)
            cnf.plotting.trajectories(path, ax=ax, times=times)
            ax.set_title(f"{name}: {pair[0]} to {pair[1]}", fontsize=7)
    cnf.plotting.save(page, picture)
    shrink(picture)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument("--seconds", type=float, default=12.0, help="processor seconds per fit")
    parser.add_argument("--quick", action="store_true", help="a trial run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.quick:
        flow, seconds = our_flow(draws(PAIRS[0], QUICK_ROWS, 0), 0, steps=20)
        kl = divergence(flow, PAIRS[0][1], 0)
        write_json(options.out / "transport_peers.json", [{"seconds": seconds, "kl": kl}])
        return
    found: list[dict[str, Any]] = []
    shown: dict[tuple[str, str], dict[str, cnf.CNF]] = {}
    for seed in range(SEEDS):
        for pair in PAIRS:
            result, flows = study(pair, seed, seconds=options.seconds)
            print(result, flush=True)
            found.append(result)
            shown.setdefault(pair, flows)
            write_json(options.out / "transport_peers.json", found)
            draw(shown, options.out / "transport_peers.png")


if __name__ == "__main__":
    main()
