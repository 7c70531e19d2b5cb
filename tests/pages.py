"""Runs the code of Markdown pages as a reader would: `python pages.py PAGE ...` in an empty folder.

Blocks of Python run in their order and share one namespace for each page; a block after
`<!-- file: NAME -->` is first written to that file. Lines of shell blocks that call `cnf` run in the
same process, with the variables before them. A block after `<!-- not run -->` is skipped, and one after
`<!-- needs: NAME -->` where that package is not installed. Budgets in
seconds become CNF_STEPS training steps, unless CNF_FULL_BUDGETS is set. A tutorial starts from nothing, and a
how-to from what the index of its folder makes. Every other page finds `table.csv`, `new.csv`, `visits.csv`,
`numbers.csv`, `weather.csv`, `quakes.csv`, `model.safetensors`, and the names `x`, `c`, `frame` and `model`.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import traceback
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

FENCE = re.compile(
    r"(?:<!-- (?P<note>file: (?P<file>[\w./-]+)|needs: (?P<needs>\w+)|not run) -->\n)?"
    r"```(?P<language>\w+)\n(?P<text>.*?)```\n",
    re.DOTALL,
)
STEPS = int(os.environ.get("CNF_STEPS", "20"))


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str
    file: str | None
    skipped: bool


def blocks(text: str) -> list[Block]:
    return [
        Block(found["language"], found["text"], found["file"], skipped(found))
        for found in FENCE.finditer(text)
    ]


def skipped(found: re.Match[str]) -> bool:
    """Whether a block is not to be run, or needs a package that is not there."""
    return found["note"] == "not run" or bool(found["needs"] and find_spec(found["needs"]) is None)


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
    return re.sub(r"\bseconds=[\d.]+", f"steps={STEPS}", text)


def run_command(words: list[str]) -> None:
    """Run a line that calls `cnf`; others are not the package's."""
    from cnf.cli import main

    while words and re.fullmatch(r"\w+=.*", words[0]):
        name, _, value = words.pop(0).partition("=")
        os.environ[name] = value
    # Of a model that is hardly fitted, a check may fail.
    if (
        words
        and words[0] == "cnf"
        and main(words[1:]) not in ((0, 1) if words[1] == "check" else (0,))
    ):
        raise SystemExit(shlex.join(words))


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
    run_command(shlex.split(f"cnf fit table.csv -o model.safetensors --steps {STEPS}"))
    x = torch.from_numpy(random.normal(size=(rows, 2))).float()
    names = {"x": x, "c": x[:, :1].abs(), "frame": frame, "torch": torch, "cnf": cnf}
    return {**names, "model": cnf.load("model.safetensors")}


def run_page(page: Path, names: dict[str, object]) -> None:
    for number, block in enumerate(blocks(page.read_text(encoding="utf-8")), 1):
        if block.skipped:
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
