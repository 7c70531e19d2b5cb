"""Damaged models, tables and command lines: an answer or one line, bounded time and memory, no
debris.

A little runs by default; `make slow` runs 100,000 models, 20,000 tables and command lines in
process, and 200 as real commands."""

import gzip
import io
import os
import random
import resource
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mutations import (
    extreme_csv,
    fill_model,
    mutate_bytes,
    mutate_csv,
    mutate_file,
    mutate_model,
    mutate_words,
    parts_of,
    retell_model,
)
from problems import normal, stirred

import cnf
from cnf.cli import main
from cnf.cli.model import load_model
from cnf.cli.summary import lines_of, summarize
from cnf.report.model_card import model_card
from cnf.training.checkpoint import CheckpointWriter, generations

# Of processor time, so that a busy machine hangs nobody; waiting for nothing shows in the time on
# the wall.
SLOWEST_SECONDS, LONGEST_WAIT, MOST_BYTES = 20.0, 400.0, 2 * 2**30
# A density is drawn from 25,600 rows. Of a model that makes no sense, every one may go through all
# grids.
SLOWEST_PICTURE = 150.0
MODELS = ("plane", "given", "typed", "mixture", "adaptive")
COMMAND = [sys.executable, "-c", "import sys; from cnf.cli import main; sys.exit(main())"]


@dataclass(frozen=True)
class Outcome:
    """What a command came to."""

    code: int
    out: str
    err: str
    seconds: float
    waited: float

    def require_sound(self, words: list[str]) -> None:
        """An answer or one line, soon enough, and nothing that looks like a crash."""
        told = (words, self)
        assert self.code in (0, 1, 2), told
        assert "Traceback" not in self.err, told
        slowest = SLOWEST_PICTURE if words[:1] in (["plot"], ["report"]) else SLOWEST_SECONDS
        assert self.seconds < slowest and self.waited < LONGEST_WAIT, told
        if self.code == 2:
            # What a fit found the table to be, and the sections that a report has begun, stand
            # before the line that says why it failed.
            lines = self.err.splitlines()
            alone = words[:1] in (["fit"], ["report"]) or (self.out == "" and len(lines) == 1)
            assert alone and lines[-1].startswith("cnf: "), told


def in_process(words: list[str]) -> Outcome:
    out, err, start, began = io.StringIO(), io.StringIO(), time.process_time(), time.perf_counter()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(words)
    spent = time.process_time() - start, time.perf_counter() - began
    return Outcome(code, out.getvalue(), err.getvalue(), *spent)


def of_children() -> float:
    """Seconds of processor time that finished processes took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def as_command(words: list[str]) -> Outcome:
    start, began, settings = (
        of_children(),
        time.perf_counter(),
        {"text": True, "errors": "replace"},
    )
    done = subprocess.run(
        [*COMMAND, *words], capture_output=True, timeout=LONGEST_WAIT, **settings
    )
    spent = of_children() - start - loading(), time.perf_counter() - began
    return Outcome(done.returncode, done.stdout, done.stderr, *spent)


@cache
def loading() -> float:
    """Seconds that the libraries take before a command can begin: not its doing."""
    start = of_children()
    subprocess.run([sys.executable, "-c", "import torch, pandas, cnf.diagnostics"], check=True)
    return of_children() - start


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Path:
    """Sound models of every kind with a table for each."""
    folder = tmp_path_factory.mktemp("fuzz")
    table = pd.DataFrame(normal(40, 3).numpy(), columns=["a", "b", "c"])
    table.to_csv(folder / "table.csv", index=False)
    table[:6].to_csv(folder / "few.csv", index=False)
    pd.DataFrame(normal(40, 3, seed=1).numpy(), columns=[*"abc"]).to_csv(
        folder / "fresh.csv", index=False
    )
    table[:6].assign(d=[*"xyxyxy"]).to_csv(folder / "typed.csv", index=False)
    table.assign(d=[*"xy"] * 20, e=range(40)).to_csv(folder / "fit.csv", index=False)
    short = ["--steps", "2", "--width", "4", "-o"]
    for name, words in {
        "plane": ["table.csv", "--columns", "a,b"],
        "given": ["table.csv", "--context", "c"],
        "typed": ["fit.csv"],
    }.items():
        assert (
            in_process(
                ["fit", str(folder / words[0]), *words[1:], *short, str(folder / name)]
            ).code
            == 0
        )
    base = cnf.MixtureBase(torch.ones(2), torch.randn(2, 2), torch.eye(2).expand(2, 2, 2) * 0.8)
    for name, parts in {
        "mixture": {"base": cnf.ContaminatedBase(base)},
        "adaptive": {"solver": cnf.Torchdiffeq("dopri5", max_evaluations=80)},
    }.items():
        flow = stirred(cnf.CNF(2, hidden=(4, 4), **parts))
        flow.metadata = {"columns": ["a", "b"]}
        flow.save(folder / name)
    return folder


def attack_models(room: Path, folder: Path, seed: int, count: int, run=None) -> Counter:
    """Damage models and use what can still be opened; how many were opened, and refused."""
    chance, path, found = random.Random(seed), folder / "m", Counter()
    whole = {name: ((room / name).read_bytes(), parts_of(room / name)) for name in MODELS}
    paths = {name: room / ("typed.csv" if name == "typed" else "few.csv") for name in MODELS}
    tables = {name: pd.read_csv(path) for name, path in paths.items()}
    for k in range(count):
        name = chance.choice(MODELS)
        mutate_model(path, *whole[name], chance)
        start = time.process_time()
        if run is None and k % 25:
            opened = used(path, tables[name])
            assert time.process_time() - start < SLOWEST_SECONDS, path.read_bytes()[:3000]
        else:
            opened = commanded(path, paths[name], folder, run or in_process, given=name == "given")
        found["opened" if opened else "refused"] += 1
    return found


def used(path: Path, table: pd.DataFrame) -> bool:
    """Open a model, score and draw with it and tell of it, by the functions that the commands
    call."""
    try:
        model = load_model(path)
    except cnf.ModelFileError as refusal:
        assert "\n" not in str(refusal) and str(path) in str(refusal) and len(str(refusal)) < 600
        return False
    # Columns or a context that are missing.
    with suppress(ValueError, KeyError), torch.no_grad():
        model.table_flow.evaluate(table)
        given = model.given("c=1" if model.context else None)
        model.table_flow.sample(3, given, generator=torch.Generator())
    with suppress(ValueError):
        lines_of(summarize(model))
        if model.table_flow.flow is not None:
            model_card(model.table_flow.flow, model.columns)
    return True


def commanded(path: Path, table: Path, folder: Path, run, *, given: bool) -> bool:
    """The same by commands."""
    info = run(words := ["info", str(path)])
    info.require_sound(words)
    if info.code == 0:
        for words in (
            ["score", str(path), str(table), "-o", str(folder / "s.csv")],
            [
                "sample",
                str(path),
                "-n",
                "3",
                "-o",
                str(folder / "x.csv"),
                *(["--given", "c=1"] if given else []),
            ],
            ["plot", str(path), "history", "-o", str(folder / "h.png")],
        ):
            run(words).require_sound(words)
    require_clean(folder, {"m", "s.csv", "x.csv", "h.png"} if info.code == 0 else {"m"})
    return info.code == 0


def require_clean(folder: Path, allowed: set[str]) -> None:
    """Nothing is left that was not asked for, and what was asked for is gone before the next."""
    names = {path.name for path in folder.iterdir()}
    assert names <= allowed, names
    for name in names - {"m"}:
        (folder / name).unlink()


def damaged_table(room: Path, folder: Path, chance: random.Random) -> Path:
    """A table of some format, gone wrong."""
    text = (room / chance.choice(("table.csv", "typed.csv", "fit.csv"))).read_text()
    kind = chance.choice((".csv", ".csv", ".csv.gz", ".parquet", ".npy", ".npz"))
    path = folder / f"t{kind}"
    if kind.startswith(".csv"):
        data = mutate_csv(text, chance).encode("utf-8", "replace")
        data = gzip.compress(data, mtime=0) if kind == ".csv.gz" else data
    else:
        table = pd.read_csv(io.StringIO(text))[["a", "b", "c"]]
        {
            ".parquet": lambda: table.to_parquet(path),
            ".npy": lambda: np.save(path, table.to_numpy()),
            ".npz": lambda: np.savez(
                path, X=table.to_numpy(), columns=np.array(list(table), dtype=str)
            ),
        }[kind]()
        data = path.read_bytes()
    path.write_bytes(
        mutate_bytes(data, chance) if kind != ".csv" or chance.random() < 0.3 else data
    )
    return path


def attack_tables(room: Path, folder: Path, seed: int, count: int, run=in_process) -> Counter:
    """Score, and now and then fit, damaged tables."""
    chance, found = random.Random(seed), Counter()
    for k in range(count):
        table, name = (
            damaged_table(room, folder, chance),
            chance.choice(("plane", "given", "typed")),
        )
        words = ["score", str(room / name), str(table), "-o", str(folder / "s.csv")]
        if k % 50 == 0:
            words = ["fit", str(table), "-o", str(folder / "f"), "--steps", "1", "--width", "4"]
        outcome = run(words)
        outcome.require_sound(words)
        require_clean(
            folder,
            {table.name} | ({Path(words[-1]).name, "f", "s.csv"} if outcome.code == 0 else set()),
        )
        found[f"{words[0]} {outcome.code}"] += 1
    return found


LINES = [
    ["score", "plane", "table.csv", "-o", "x.csv"],
    ["score", "typed", "fit.csv", "-o", "x.csv", "--json"],
    ["sample", "given", "-n", "5", "-o", "x.csv", "--given", "c=1", "--seed", "3"],
    ["sample", "typed", "-n", "5", "-o", "x.parquet"],
    ["info", "plane", "--json"],
    ["check", "plane", "few.csv"],
    ["plot", "plane", "history", "-o", "x.png"],
    ["fit", "few.csv", "-o", "x"],
]


def attack_lines(room: Path, folder: Path, seed: int, count: int, run=in_process) -> Counter:
    """Misspell command lines; what they may write stays in the folder."""
    chance, found = random.Random(seed), Counter()
    kept = {path.name: path.read_bytes() for path in room.iterdir()}
    for _ in range(count):
        for name, content in kept.items():
            if not (folder / name).is_file() or (folder / name).stat().st_size != len(content):
                (folder / name).write_bytes(content)
        words = mutate_words(chance.choice(LINES), chance)
        # Whatever was typed before, a fit is short: its last word counts.
        words = [*words, "--steps", "1", "--width", "4"] if "fit" in words else words
        before = {path.name for path in folder.iterdir()}
        outcome = run(words)
        outcome.require_sound(words)
        made = {path.name for path in folder.iterdir()} - before
        assert outcome.code == 0 or not made, (words, outcome, made)
        for name in made:
            (folder / name).unlink()
        found[outcome.code] += 1
    return found


@pytest.fixture
def bounded(monkeypatch):
    """Toys are small; afterwards, no more memory was ever held than is allowed."""
    monkeypatch.setattr("cnf.cli.data.TOY_ROWS", 50)
    yield
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        assert resource.getrusage(who).ru_maxrss * 1024 < MOST_BYTES


WORKS = [
    ["check", "{model}", "{table}"],
    ["plot", "{model}", "density", "-o", "x.png"],
    ["plot", "{model}", "marginals", "-o", "x.png", "--data", "{table}"],
    ["report", "{model}", "{table}", "-o", "x.html"],
    ["report", "{retold}", "{mixed}", "-o", "x.html"],
    ["plot", "{retold}", "pairs", "-o", "x.png", "--data", "{mixed}"],
    ["check", "{retold}", "{mixed}"],
    ["fit", "{damaged}", "-o", "x", "--steps", "3", "--width", "4"],
    ["fit", "{damaged}", "-o", "x", "--steps", "3", "--width", "4"],
    ["fit", "{damaged}", "-o", "x", "--steps", "3", "--width", "4", "--context", "c"],
]


def attack_works(room: Path, folder: Path, seed: int, count: int, run=in_process) -> Counter:
    """Long commands on models that make no sense or say wrong things of their fit, and on tables
    gone wrong."""
    chance, found = random.Random(seed), Counter()
    model, parts = folder / "m", parts_of(room / "plane")
    retold, typed = folder / "r", parts_of(room / "typed")
    for k in range(count):
        damaged = folder / "t.csv"
        damaged.write_text(extreme_csv((room / "table.csv").read_text(), chance))
        fill_model(model, parts, chance)
        retell_model(retold, typed, chance)
        places = {
            **{"model": model, "table": room / "fresh.csv", "damaged": damaged},
            **{"retold": retold, "mixed": room / "fit.csv"},
        }
        words = [word.format(**places) for word in WORKS[k % len(WORKS)]]
        words = [str(folder / word) if word.startswith("x") else word for word in words]
        outcome = run(words)
        outcome.require_sound(words)
        made = {path.name for path in folder.iterdir()} - {"m", "r", damaged.name}
        assert all(name.startswith("x") for name in made) and (outcome.code == 0 or not made), (
            words,
            made,
        )
        for path in folder.iterdir():
            path.unlink()
        found[f"{words[0]} {outcome.code}"] += 1
    return found


def attack_checkpoints(room: Path, folder: Path, seed: int, count: int) -> Counter:
    """Damage the state of a fit, newest or both generations, and resume: from a whole generation
    to the same end as a fit that nothing happened to."""
    chance, found = random.Random(seed), Counter()
    model, newest = folder / "f", folder / "f.checkpoint"
    words = ["fit", str(room / "table.csv"), "--steps", "6", "--width", "4", "-o", str(model)]
    assert in_process(words).code == 0
    undisturbed, contents = weights_of(model), states_of(words, newest)
    for _ in range(count):
        for path, content, share in zip(generations(newest), contents, (1.0, 0.3)):
            path.write_bytes(mutate_file(content, chance) if chance.random() < share else content)
        whole = any(
            path.read_bytes() == content for path, content in zip(generations(newest), contents)
        )
        model.unlink(missing_ok=True)
        outcome = in_process([*words, "--resume"])
        assert "Traceback" not in outcome.err and outcome.seconds < SLOWEST_SECONDS, outcome
        assert outcome.code in ((0,) if whole else (0, 2)), outcome
        assert model.exists() == (outcome.code == 0), outcome
        assert outcome.code or torch.equal(weights_of(model), undisturbed), outcome
        require_clean(
            folder, {"f"} if outcome.code == 0 else {newest.name, f"{newest.name}.previous"}
        )
        found[outcome.code] += 1
    return found


def weights_of(model: Path) -> torch.Tensor:
    return torch.cat(
        [tensor.double().flatten() for tensor in cnf.load(model).state_dict().values()]
    )


def states_of(words: list[str], checkpoint: Path) -> list[bytes]:
    """The two generations that a fit leaves when it is interrupted after its fourth update."""

    @contextmanager
    def stopping():
        def stop(trainer):
            CheckpointWriter(checkpoint).write(trainer)
            if trainer.step == 4:
                raise KeyboardInterrupt

        yield (stop,)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cnf.cli.fitting.progress", stopping)
        assert in_process(words).code == 130
    return [path.read_bytes() for path in generations(checkpoint)]


def test_some_damaged_models(room, tmp_path, bounded):
    found = attack_models(room, tmp_path, seed=0, count=120)
    assert found["opened"] > 2 and found["refused"] > 60


def test_some_damaged_tables(room, tmp_path, bounded):
    found = attack_tables(room, tmp_path, seed=0, count=50)
    assert found["score 0"] > 2 and found["score 2"] > 25


def test_some_misspelt_lines(room, tmp_path, bounded, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = attack_lines(room, tmp_path, seed=0, count=30)
    assert found[2] > 15


@pytest.mark.filterwarnings("ignore::cnf.flows.scoring.UnsolvedWarning")
def test_some_work_on_damage(room, tmp_path, bounded):
    attack_works(room, tmp_path, seed=0, count=1)


@pytest.mark.slow  # the density of a damaged model may take minutes
@pytest.mark.filterwarnings("ignore::cnf.flows.scoring.UnsolvedWarning")
def test_more_work_on_damage(room, tmp_path, bounded):
    print(attack_works(room, tmp_path, seed=0, count=20))


@pytest.mark.filterwarnings("default::cnf.training.checkpoint.CheckpointWarning")
def test_some_damaged_checkpoints(room, tmp_path, bounded):
    found = attack_checkpoints(room, tmp_path, seed=0, count=6)
    assert found[0] > 2


@pytest.mark.slow
@pytest.mark.filterwarnings("default::cnf.training.checkpoint.CheckpointWarning")
def test_many_damaged_checkpoints(room, tmp_path, bounded):
    print(attack_checkpoints(room, tmp_path, seed=1, count=500))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_many_damaged_models(room, tmp_path, bounded, seed):
    print(attack_models(room, tmp_path, seed, count=10_000))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_many_damaged_tables_and_lines(room, tmp_path, bounded, monkeypatch, seed):
    print(attack_tables(room, tmp_path, seed, count=3500))
    monkeypatch.chdir(tmp_path)
    print(attack_lines(room, tmp_path, seed, count=1500))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_damage_met_by_real_commands(room, tmp_path, bounded, monkeypatch, seed):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(Path(cnf.__file__).parent.parent),)))
    commands = []

    def counted(words):
        commands.append(words)
        return as_command(words)

    attacks = ((attack_models, 8), (attack_tables, 18), (attack_lines, 10), (attack_works, 14))
    for attack, count in attacks:
        folder = tmp_path / attack.__name__
        folder.mkdir()
        monkeypatch.chdir(folder)
        print(attack(room, folder, 100 + seed, count, run=counted))
    assert len(commands) >= 50
    print(f"{len(commands)} commands")
