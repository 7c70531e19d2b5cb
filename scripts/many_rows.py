"""A table larger than memory, fitted and partly scored with the `cnf` commands.

    python scripts/many_rows.py            # writes figures/many_rows.json
    python scripts/many_rows.py --quick    # few rows

The script writes generated rows of ten columns to Parquet files in a temporary folder, about a gigabyte,
and runs `cnf fit --memory` and `cnf score`. For the fit, it measures the seconds until the first training
step, and the peak memory including the program itself. For reading, it measures the milliseconds to open a
file, and the rows per second of one process. For the scores of a tenth of the files, it measures the
rows per second of elapsed time, in total and for the slowest and the fastest file, the rows per second of
processor time, including the start of the program, and the peak memory of a process."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from results import write_json

import cnf
from cnf.tables.row_groups import RowGroups

COLUMNS, FILES = 10, 100


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args(argv)
    rows, steps, memory = args.rows, args.steps, "1GB"
    if args.quick:
        rows, steps, memory = 100_000, 10, "95MB"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "in", rows)
        numbers = {
            "rows": rows, "files": FILES, "columns": COLUMNS, "memory": memory, "steps": steps,
            "read": read(folder / "in"), "fit": fitted(folder, memory, steps),
            "score": scored(folder, rows // FILES),
        }  # fmt: skip
    print(numbers)
    write_json(args.out / "many_rows.json", numbers)


def write_rows(folder: Path, rows: int) -> None:
    """Rows of columns that bend around each other."""
    folder.mkdir()
    for k in range(FILES):
        z = np.random.default_rng(k).normal(size=(rows // FILES, COLUMNS))
        z[:, 1:] = 0.6 * z[:, 1:] + np.sin(2 * z[:, :-1])
        frame = pd.DataFrame(z, columns=[f"x{j}" for j in range(COLUMNS)])
        frame.to_parquet(folder / f"part{k:03}.parquet")


def read(folder: Path) -> dict[str, float]:
    """How fast files are opened, and rows of every tenth read."""
    times = [time.perf_counter()]
    groups = RowGroups(folder, None, ())
    times.append(time.perf_counter())
    few = groups.groups[::10]
    rows = sum(len(frame) for group in few for frame in group.frames(groups.columns, 65_536))
    times.append(time.perf_counter())
    opening, reading = (after - before for before, after in pairwise(times))
    return {"milliseconds_a_file": 1e3 * opening / FILES, "rows_a_second": rows / reading}


def fitted(folder: Path, memory: str, steps: int) -> dict[str, Any]:
    """Seconds and peak memory of the fit."""
    start = time.perf_counter()
    options = ["--memory", memory, "--steps", str(steps)]
    process = command("fit", f"{folder}/in", "-o", f"{folder}/model.safetensors", *options)
    assert process.stderr is not None
    begun = next(time.perf_counter() - start for line in process.stderr if b" begins" in line)
    process.stderr.read()
    peak, _ = ended(process)
    return {
        "seconds_to_first_update": begun,
        "seconds": time.perf_counter() - start,
        "peak_megabytes": peak,
    }


def scored(folder: Path, rows: int) -> dict[str, float]:
    """Rates and peak memory of the scores of a tenth of the files, of so many rows each."""
    pattern, target = f"{folder}/in/part*0.parquet", folder / "scores"
    process = command("score", f"{folder}/model.safetensors", pattern, "-o", str(target))
    assert process.stderr is not None
    process.stderr.read()
    peak, spent = ended(process)
    times = sorted(path.stat().st_mtime for path in target.glob("*.parquet"))
    each = [rows / (after - before) for before, after in pairwise(times)]
    return {
        "evaluations": cnf.load(folder / "model.safetensors").flow.solver.nfe,
        "rows_a_second": rows * len(each) / (times[-1] - times[0]),
        "rows_a_processor_second": rows * len(times) / spent,
        "slowest_file": min(each),
        "fastest_file": max(each),
        "peak_megabytes": peak,
    }


def command(*words: str) -> subprocess.Popen[bytes]:
    """A command of cnf with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "cnf", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
    )


def ended(process: subprocess.Popen[bytes]) -> tuple[float, float]:
    """Wait for the end of a process; the peak memory of it or a worker in megabytes, and the seconds of
    processors."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(process.args[2:])}: failed")  # type: ignore[arg-type]
    return used.ru_maxrss / 1000, used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
