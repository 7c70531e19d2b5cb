"""Likelihood training steps on one process and on two, which divide each batch.

    python scripts/processes.py            # writes figures/processes.json
    python scripts/processes.py --quick    # few training steps

Each process has one thread. For each run, the script measures the elapsed seconds per training step, and
the processor seconds of the first process. The gain in elapsed time is what users see, but it suffers on a
busy machine. The gain in processor time excludes all waiting; it may exceed two, since a smaller part of
a batch fits the cache."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from results import read_json, write_json
from torch import distributed, multiprocessing

import cnf
from cnf.rows import Rows
from cnf.training import MaximumLikelihood, Phase, Settings, Trainer

DIM, ROWS, BATCH, HIDDEN, WARM = 8, 20_000, 4_096, (128, 128), 2


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--updates", type=int, default=40)
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    updates = 3 if args.quick else args.updates
    numbers: dict[str, Any] = {"batch": BATCH, "updates": updates}
    for count in (1, 2):
        numbers[f"{count} processes"] = measured(count, updates)
    for name in ("clock", "processor"):
        one, two = (numbers[f"{count} processes"][name] for count in (1, 2))
        numbers[f"gain by the {name}"] = one / two
    print(numbers)
    write_json(args.out / "processes.json", numbers)


def measured(count: int, updates: int) -> dict[str, float]:
    """Seconds an update in a group of so many processes."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.start_processes(
            run, (count, updates, folder), nprocs=count, start_method="spawn"
        )
        return read_json(Path(folder, "found.json"))


def run(rank: int, count: int, updates: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=count
    )
    torch.manual_seed(0)
    x = torch.randn(ROWS, DIM)
    phase = Phase(MaximumLikelihood(), updates + WARM, None, BATCH, 1e-3, ema=0.9, validations=1)
    stamps: list[tuple[float, float]] = []
    trainer = Trainer(
        cnf.CNF(DIM, hidden=HIDDEN), Rows(x[1000:]), Rows(x[:1000]), Settings((phase,)), seed=0,
        callbacks=(lambda _: stamps.append((time.perf_counter(), time.process_time())),),
    )  # fmt: skip
    trainer.run()
    if rank == 0:
        # The last update ends with a validation.
        spans = [b - a for a, b in zip(stamps[WARM], stamps[-2])]
        each = [span / (len(stamps) - WARM - 2) for span in spans]
        write_json(Path(folder, "found.json"), dict(zip(("clock", "processor"), each)))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
