"""Events on the globe: test NLL by the protocol of Mathieu & Nickel (2020).

    python scripts/earth_events.py --data events.npz --out figures/earth_events.json

The file has arrays volcano, earthquake, flood and fire: latitude and longitude in degrees. Each set
is split 80 / 10 / 10 at random, five times (seeds 0 to 4). Test NLL is in nats with respect to the
area of the unit sphere: a uniform density has log 4π = 2.531. Held-out rows choose everything. For
each floor, no kernel is narrower than that, in radians: places repeat, volcanoes most of all, so
that the floor decides what a repeated place is worth.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

import cnf
import cnf.recipe.defaults as defaults

SETS = ("volcano", "earthquake", "flood", "fire")
FLOORS = (1e-4, 1e-3, 1e-2)


def parts(points: np.ndarray, seed: int) -> list[np.ndarray]:
    """Longitude and latitude of training, validation and test rows."""
    order = np.random.default_rng(seed).permutation(len(points))
    cuts = [int(0.8 * len(points)), int(0.9 * len(points))]
    return [points[rows][:, ::-1].copy() for rows in np.split(order, cuts)]


def one_split(points: np.ndarray, seed: int, seconds: float, floor: float) -> dict:
    """Test NLL of one fit, and what the fit chose."""
    train, valid, test = parts(points, seed)
    flow = cnf.CNF(2, spheres=[(0, 1)])
    start = time.process_time()
    defaults.KERNEL_LEAST_SPREAD = defaults.PERIODIC_LEAST_SPREAD = floor
    history = cnf.fit(flow, train, valid, seconds=seconds, seed=seed, clock=time.process_time)
    spent = time.process_time() - start
    with torch.no_grad():
        nll = -flow.log_prob(torch.tensor(test)).mean().item()
    flow_nll = min(r.valid_nll for r in history.records if r.valid_nll is not None)
    return {
        "seed": seed, "floor": floor, "test": nll, "valid": history.valid_nll,
        "valid_of_the_flow": flow_nll, "base": history.choices["base"], "seconds": round(spent, 1),
    }  # fmt: skip


def main() -> None:
    """Run the sets and floors, and write what was found after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--floors", nargs="+", type=float, default=FLOORS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    events = np.load(args.data)
    found: dict[str, list[dict]] = {}
    for floor in args.floors:
        for name in args.sets:
            for seed in range(args.splits):
                run = one_split(events[name], seed, args.seconds, floor)
                found.setdefault(name, []).append(run)
                print(name, run, flush=True)
                args.out.write_text(json.dumps(found, indent=1) + "\n")
            nlls = [run["test"] for run in found[name] if run["floor"] == floor]
            print(f"{name}, floor {floor:g}: {np.mean(nlls):.3f} ± {np.std(nlls):.3f}", flush=True)


if __name__ == "__main__":
    main()
