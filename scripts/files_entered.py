"""The files of the package that two walks of docs/architecture.md enter, in order of entry.

    python scripts/files_entered.py             # writes figures/files_entered.json

One walk is `log_prob` of a fitted `CNF`. The other is `cnf fit` of a table with five column types, up to
the end of its first training step. A file counts if one of its functions is called; code that runs on
import does not count.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import pandas as pd
import torch

import cnf
from cnf.cli import fitting, main
from cnf.training import Trainer

ROOT = Path(__file__).parent.parent
PACKAGE = Path(cnf.__file__).parent
ROWS, STEPS = 300, 20


class FirstStep(Exception):
    """The first training step is done."""


def files_entered(walk: Callable[[], object]) -> list[str]:
    """The files whose functions a walk calls, in the order of the first call."""
    found: dict[str, None] = {}

    def note(frame: FrameType, event: str, argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            found.setdefault(path.relative_to(PACKAGE).as_posix())

    sys.setprofile(note)
    try:
        with contextlib.suppress(FirstStep):
            walk()
    finally:
        sys.setprofile(None)
    return list(found)


def score() -> list[str]:
    """`log_prob` of a flow that is fitted already."""
    torch.manual_seed(0)
    x = torch.randn(ROWS, 2)
    flow = cnf.CNF(dim=2)
    cnf.fit(flow, x, steps=STEPS)
    return files_entered(lambda: flow.log_prob(x))


def fit() -> list[str]:
    """`cnf fit` of a typed table, up to its first training step."""
    with tempfile.TemporaryDirectory() as folder, stopped_after_a_step(), silence():
        table = Path(folder) / "table.csv"
        typed_table().to_csv(table, index=False)
        words = ["fit", str(table), "-o", str(Path(folder) / "model"), "--steps", str(STEPS)]
        return files_entered(lambda: main(words))


def typed_table() -> pd.DataFrame:
    """A positive, a bounded, an integer and a categorical column, and one with missing cells."""
    random = np.random.default_rng(0)
    real = random.normal(size=ROWS)
    real[random.random(ROWS) < 0.1] = np.nan
    return pd.DataFrame(
        {
            "price": random.lognormal(size=ROWS).round(3),
            "share": random.beta(2, 3, size=ROWS).round(5),
            "age": random.integers(18, 80, size=ROWS),
            "region": random.choice(["north", "south"], size=ROWS),
            "change": real.round(4),
        }
    )


@contextlib.contextmanager
def stopped_after_a_step() -> Iterator[None]:
    """Fits of the command line stop after their first training step."""

    def stop(trainer: Trainer) -> None:
        raise FirstStep

    plain = fitting.orderly_interrupts

    @contextlib.contextmanager
    def interrupts() -> Iterator[tuple[Callable[[Trainer], None], ...]]:
        with plain() as callbacks:
            yield (*callbacks, stop)

    fitting.orderly_interrupts = interrupts
    try:
        yield
    finally:
        fitting.orderly_interrupts = plain


@contextlib.contextmanager
def silence() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "figures", help="folder of the JSON file"
    )
    return parser.parse_args()


if __name__ == "__main__":
    out = arguments().out
    walks = {"log_prob": score(), "cnf fit": fit()}
    out.mkdir(parents=True, exist_ok=True)
    (out / "files_entered.json").write_text(json.dumps(walks, indent=1) + "\n")
    print(*(f"{name}: {len(files)} files" for name, files in walks.items()), sep="\n")
