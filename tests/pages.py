"""Runs the code of Markdown pages as a reader would: `python pages.py PAGE ...` in an empty folder.

Blocks of Python run in their order and share one namespace for each page. A block after
`<!-- file: NAME -->` is written to that file instead. Lines of shell blocks that call `cnf` run in the same
process, with the variables before them; those that call `torchrun` run in processes of their own. Other
lines do not run: `UNRUN` has the reasons. A block after `<!-- needs: NAMES -->` is skipped where one of
these packages or programs is not installed. Budgets in seconds become CNF_STEPS training steps, unless
CNF_FULL_BUDGETS is set, and any number of workers becomes two.

A tutorial starts from nothing, and a how-to from what the index of its folder makes. Every other page finds
`table.csv`, `new.csv`, `visits.csv`, `numbers.csv`, `weather.csv`, `quakes.csv`, `model.safetensors`, the
folders `data` and `in` of Parquet files, and the names `x`, `c`, `frame` and `model`.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import traceback
import warnings
from contextlib import redirect_stdout
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import NamedTuple

ENGINES = r"(ray|dask|distributed|pyspark)\b"  # modules that warn about themselves
FENCE = re.compile(
    r"(?:<!-- (?:file: (?P<file>[\w./-]+)|needs: (?P<needs>[\w ]+)) -->\n)?"
    r"```(?P<language>\w+)\n(?P<text>.*?)```\n",
    re.DOTALL,
)
STEPS = int(os.environ.get("CNF_STEPS", "20"))
RUN = ("cnf", "torchrun")  # the programs whose lines in shell blocks run
# How the lines of other programs begin, and why they do not run.
UNRUN = {
    "pip install": "the package is installed already",
    ".venv/bin/pip install": "the package is installed already",
    "make": "a target runs for minutes; continuous integration has steps for these",
    "python scripts/": "a measurement takes minutes to hours; tests/test_scripts.py runs short ones",
}


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str
    file: str | None
    needs: str | None

    @property
    def missing(self) -> list[str]:
        """The packages and programs that the block needs and that are not installed."""
        names = (self.needs or "").split()
        return [name for name in names if find_spec(name) is None and which(name) is None]


def blocks(text: str) -> list[Block]:
    return [as_block(found) for found in FENCE.finditer(text)]


def as_block(found: re.Match[str]) -> Block:
    return Block(*found.group("language", "text", "file", "needs"))


def commands(block: Block) -> list[list[str]]:
    """The words of each line of a shell block, comments left out."""
    return [
        words for line in block.text.splitlines() if (words := shlex.split(line, comments=True))
    ]


def shortened(text: str) -> str:
    if os.environ.get("CNF_FULL_BUDGETS"):
        return text
    text = re.sub(r"--seconds [\d.]+", "", text)
    text = re.sub(r"\bcnf fit ", f"cnf fit --steps {STEPS} ", text)
    text = re.sub(r"--workers \d+", "--workers 2", text)
    return re.sub(r"\bseconds=[\d.]+", f"steps={STEPS}", text)


def program(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """The variables before a command, and the command."""
    count = next((n for n, word in enumerate(words) if not re.match(r"\w+=", word)), len(words))
    return dict(word.split("=", 1) for word in words[:count]), words[count:]


def run_command(words: list[str]) -> None:
    """Run a line that calls `cnf` or `torchrun`, with its standard output in the file after `>`."""
    variables, words = program(words)
    os.environ.update(variables)
    if words[:1] == ["torchrun"]:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        subprocess.run([*torchrun, *words[1:]], check=True)
    elif words[:1] == ["cnf"]:
        words, output = (words[:-2], words[-1]) if ">" in words else (words, os.devnull)
        run_cnf(words[1:], Path(output))


def run_cnf(arguments: list[str], output: Path) -> None:
    from cnf.cli import main

    # Of a model that is hardly fitted, a check may fail.
    allowed = (0, 1) if arguments[0] == "check" else (0,)
    with output.open("w", encoding="utf-8") as file, redirect_stdout(file):
        code = main(arguments)
    if code not in allowed:
        raise SystemExit(shlex.join(arguments))


@cache
def start(folder: Path) -> dict[str, object]:
    """The names that the pages of a folder start from; files too are made here."""
    if folder.name == "tutorials":
        return {}
    if folder.name == "how-to":
        names: dict[str, object] = {}
        run_page(folder / "index.md", names)
        return names
    return prepare()


def prepare() -> dict[str, object]:
    """The files and names that guides start from."""
    import numpy as np
    import pandas as pd
    import torch

    import cnf

    random = np.random.default_rng(0)
    rows = 300
    frame = pd.DataFrame(
        {
            "price": random.lognormal(size=rows).round(3),
            "share": random.beta(2, 3, size=rows).round(5),
            "age": random.integers(18, 80, size=rows),
            "region": random.choice(["north", "south"], size=rows),
            "wind": (360 * random.random(rows)).round(3),
        }
    )
    frame.to_csv("table.csv", index=False)
    frame[:50].to_csv("new.csv", index=False)
    minutes = random.integers(0, 1440, size=rows)
    visits = frame[["price"]].assign(at=[f"{m // 60:02}:{m % 60:02}" for m in minutes])
    visits.to_csv("visits.csv", index=False)
    numbers = random.normal(size=(rows, 3))
    pd.DataFrame(numbers, columns=["a", "b", "c"]).to_csv("numbers.csv", index=False)
    hours, months = random.integers(24, size=rows), random.integers(1, 13, size=rows)
    frame[["wind"]].assign(hour=hours, month=months).to_csv("weather.csv", index=False)
    places = {"lon": 20 * numbers[:, 0], "lat": 10 * numbers[:, 1], "year": 2000 + months}
    pd.DataFrame(places).to_csv("quakes.csv", index=False)
    for folder in map(Path, ("data", "in")):
        folder.mkdir()
        for part in range(3):
            frame[part::3].to_parquet(folder / f"{part}.parquet")
    run_command(shlex.split(f"cnf fit table.csv -o model.safetensors --steps {STEPS}"))
    x = torch.from_numpy(random.normal(size=(rows, 2))).float()
    names = {"x": x, "c": x[:, :1].abs(), "frame": frame, "torch": torch, "cnf": cnf}
    return {**names, "model": cnf.load("model.safetensors")}


def run_page(page: Path, names: dict[str, object]) -> None:
    for number, block in enumerate(blocks(page.read_text(encoding="utf-8")), 1):
        if block.missing:
            continue
        if block.file is not None:
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            code = compile(shortened(block.text), f"{page.name}, block {number}", "exec")
            exec(code, names)
        elif block.language == "sh":
            for words in commands(block._replace(text=shortened(block.text))):
                run_command(words)


def main(pages: list[Path]) -> None:
    sys.path.insert(0, str(Path.cwd()))
    warnings.filterwarnings("ignore", module=ENGINES)
    os.environ["PYSPARK_PYTHON"] = sys.executable
    failed = []
    environment = dict(os.environ)
    for page in pages:
        try:
            run_page(page, dict(start(page.parent)))
            print(f"{page.name}: runs", flush=True)
        except (Exception, SystemExit):
            failed.append(page.name)
            print(f"{page.name}: {traceback.format_exc()}", flush=True)
        os.environ.clear()
        os.environ.update(environment)
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main([Path(word).resolve() for word in sys.argv[1:]])
