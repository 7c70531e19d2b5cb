"""Exported models beside the models: the largest difference on unseen rows, and the speed.

    CNF_SHARED_DATA=... python scripts/export_parity.py     # writes figures/export_parity.json
    python scripts/export_parity.py --quick                 # one small model, few rows

Fits tables of 2 to 43 columns from the folder CNF_SHARED_DATA and one with ranges that is made here,
exports each, and scores held-out rows and fresh draws of the model with onnxruntime, in blocks of
1,024. Differences count where the model needed no second look; other rows must be flagged. The limit
is 1e-4 nats or 1e-5 of the value. A model whose field moves no row proves nothing and is refused.
Speeds are rows a second of processor time on one thread, medians of interleaved runs, the second
looks of torch left out. Below 1e-4 of the rows, a bar that lies on the tolerance may be judged
differently."""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import torch
from results import write_json

import cnf
from cnf.export import ScoreProgram, write_program

TABLES = ("us_zipcodes", "galaxy_photometry", "magic_gamma", "miniboone_partial")
BLOCK, TIMED, REPEATS = 1024, 20_480, 3
NATS, RELATIVE, MOVED, SAME_VERDICT = 1e-4, 1e-5, 1.0, 1 - 1e-4


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=400)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows, steps = (2_000, 40) if args.quick else (args.rows, args.steps)
    numbers: dict[str, Any] = {"rows": rows, "steps": steps}
    for name, table in tables(quick=args.quick):
        held_out = table[: len(table) // 5]
        kinds = None if name == "ranges" else dict.fromkeys(table, "real")
        model = cnf.fit_table(table[len(held_out) :], steps=steps, kinds=kinds)
        numbers[name] = beside(model, held_out, rows)
        print(name, numbers[name], flush=True)
    write_json(args.out / "export_parity.json", numbers)


def tables(*, quick: bool) -> Iterator[tuple[str, pd.DataFrame]]:
    """Names and rows, in random order."""
    random = np.random.default_rng(0)
    z = random.normal(size=(6_000, 3))
    made = {
        "a": np.exp(z[:, 0]),
        "b": 1 / (1 + np.exp(-z[:, 0] - z[:, 1])),
        "c": z[:, 2] * z[:, 0],
    }
    yield "ranges", pd.DataFrame(made)
    if quick or "CNF_SHARED_DATA" not in os.environ:
        return
    for name in TABLES:
        path = Path(os.environ["CNF_SHARED_DATA"], name, "data.npz")
        with np.load(path, allow_pickle=False) as data:
            x = data["signal_subset" if "signal_subset" in data else "X"].astype(np.float64)
        order = random.permutation(len(x))[:30_000]
        yield name, pd.DataFrame(x[order], columns=[f"x{j}" for j in range(x.shape[1])])


@torch.no_grad()
def beside(model: cnf.TableFlow, held_out: pd.DataFrame, rows: int) -> dict[str, Any]:
    """What the exported model differs by from the model, and how fast both are."""
    flow, program = model.flow, ScoreProgram(model)
    assert flow is not None
    draws = flow.sample((rows,), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.cat([torch.tensor(held_out.to_numpy()), draws])[:rows]
    require_moving(flow, x)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        write_program(program, f"{folder}/model.onnx")
        exported, size = time.process_time() - start, Path(folder, "model.onnx").stat().st_size
        session = runtime(f"{folder}/model.onnx")
    found = scored(session, x.numpy())
    wanted = model_scores(flow, x)
    once = wanted["nfe"] == flow.solver.nfe
    apart = np.abs(found["log_prob"] - wanted["log_prob"])[once]
    allowed = np.maximum(NATS, RELATIVE * np.abs(wanted["log_prob"]))[once]
    verdicts = float((found["ok"] == once).mean())
    assert (apart <= allowed).all() and verdicts >= SAME_VERDICT, (apart.max(), verdicts)
    few, infinite = x[:TIMED], float("inf")
    ours, theirs = interleaved(
        lambda: flow.bind(tolerance=infinite).evaluate(few), lambda: scored(session, few.numpy())
    )
    return {
        "columns": len(program.columns), "evaluations": flow.solver.nfe, "base": flow.base.describe(),
        "largest_difference": apart.max(), "flagged": 1 - float(found["ok"].mean()),
        "verdicts_equal": verdicts, "export_seconds": exported, "bytes": size,
        "torch_rows_a_second": len(few) / ours, "onnx_rows_a_second": len(few) / theirs,
        "speed_beside_torch": ours / theirs,
    }  # fmt: skip


def require_moving(flow: cnf.CNF, x: torch.Tensor) -> None:
    """Refuse a model whose field leaves every row where it is."""
    some = x[:500]
    y, ladj = flow.preprocess(some)
    still = flow.base.log_prob(y.to(flow.dtype)) + ladj
    if not (flow.log_prob(some) - still).abs().max() > MOVED:
        raise SystemExit("the field moves no row: the comparison would prove nothing")


def runtime(path: str) -> onnxruntime.InferenceSession:
    """A session on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options)


def scored(session: onnxruntime.InferenceSession, x: np.ndarray) -> dict[str, np.ndarray]:
    """The file's scores, by blocks."""
    blocks = [session.run(None, {"x": x[k : k + BLOCK]}) for k in range(0, len(x), BLOCK)]
    return dict(zip(ScoreProgram.outputs, map(np.concatenate, zip(*blocks))))


def model_scores(flow: cnf.CNF, x: torch.Tensor) -> dict[str, np.ndarray]:
    """The model's scores."""
    return {name: part.numpy() for name, part in vars(flow.evaluate(x)).items()}


def interleaved(*runs: Callable[[], object]) -> list[float]:
    """Medians of processor time."""
    spent: list[list[float]] = [[] for _ in runs]
    for _ in range(REPEATS):
        for times, run in zip(spent, runs):
            start = time.process_time()
            run()
            times.append(time.process_time() - start)
    return [statistics.median(times) for times in spent]


if __name__ == "__main__":
    main()
