"""Events on the globe: test NLL by the protocol of Mathieu & Nickel (2020).

    CNF_SHARED_DATA=... python scripts/earth_events.py    # figures/earth_events.json
    python scripts/earth_events.py --quick                # generated places, a few steps

The file earth_events/data.npz has the arrays volcano, earthquake, flood and fire, with latitude and
longitude in degrees. Each set is split 80 / 10 / 10 at random, five times (seeds 0 to 4). The test NLL is
in nats with respect to the area of the unit sphere: a uniform density has log 4π = 2.531. Held-out rows
make every choice. Results are given for several lower limits of the kernel width, in radians. Places
repeat, volcanoes most of all, so that this limit determines the likelihood of a repeated place.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
from results import write_json

import cnf
import cnf.recipe.defaults as defaults

SETS = ("volcano", "earthquake", "flood", "fire")
SPLITS, FLOORS = 5, (1e-4, 1e-3, 1e-2)
FILE = Path(os.environ.get("CNF_SHARED_DATA", "../shared/data"), "earth_events", "data.npz")


def parts(points: np.ndarray, seed: int) -> list[np.ndarray]:
    """Longitude and latitude of training, validation and test rows."""
    order = np.random.default_rng(seed).permutation(len(points))
    cuts = [int(0.8 * len(points)), int(0.9 * len(points))]
    return [points[rows][:, ::-1].copy() for rows in np.split(order, cuts)]


def one_split(points: np.ndarray, seed: int, floor: float, **budget: float) -> dict:
    """Test NLL of one fit, and what the fit chose."""
    train, valid, test = parts(points, seed)
    flow = cnf.CNF(2, spheres=[(0, 1)])
    start = time.process_time()
    defaults.KERNEL_LEAST_SPREAD = defaults.PERIODIC_LEAST_SPREAD = floor
    history = cnf.fit(flow, train, valid, seed=seed, clock=time.process_time, **budget)
    spent = time.process_time() - start
    with torch.no_grad():
        nll = -flow.log_prob(torch.tensor(test)).mean().item()
    flow_nll = min(r.valid_nll for r in history.records if r.valid_nll is not None)
    return {
        "seed": seed, "floor": floor, "test": nll, "valid": history.valid_nll,
        "valid_of_the_flow": flow_nll, "base": history.choices["base"], "seconds": round(spent, 1),
    }  # fmt: skip


def made() -> np.ndarray:
    """Latitudes and longitudes for a trial run."""
    return np.random.default_rng(0).normal([30.0, 100.0], 20.0, (300, 2)).clip(-80, 179)


def main() -> None:
    """Run the sets and floors, and write what was found after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument("--seconds", type=float, default=40.0, help="processor seconds per fit")
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--floors", nargs="+", type=float, default=FLOORS)
    parser.add_argument("--quick", action="store_true", help="a trial run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = options.out / "earth_events.json"
    if options.quick:
        write_json(path, {"made": [one_split(made(), 0, FLOORS[0], steps=4)]})
        return
    events = np.load(FILE)
    found: dict[str, list[dict]] = {}
    for floor in options.floors:
        for name in options.sets:
            for seed in range(SPLITS):
                run = one_split(events[name], seed, floor, seconds=options.seconds)
                found.setdefault(name, []).append(run)
                print(name, run, flush=True)
                write_json(path, found)


if __name__ == "__main__":
    main()
