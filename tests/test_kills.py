"""kill -9 at any moment of a fit: it goes on to the same model, and nothing is left lying
about."""

import os
import random
import signal
import time
from collections import Counter
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from problems import normal

from cnf.cli import fitting, main
from cnf.flows.model_file import read_model
from cnf.training.checkpoint import CheckpointWriter

STEPS = 30

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),  # Python's, of forks
]


@contextmanager
def reporting(pipe: int):
    """In place of the progress bar: one byte to a pipe after every update."""
    yield (lambda trainer: os.write(pipe, b"."),)


def started(words: list[str], pipe: int | None = None) -> int:
    """A process that runs a command and checkpoints after every update."""
    child = os.fork()
    if child:
        return child
    try:
        torch.set_num_threads(1)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        CheckpointWriter.__init__.__defaults__ = (0.0,)
        if pipe is not None:
            fitting.progress = partial(reporting, pipe)
        os._exit(main(words))
    finally:
        os._exit(70)


def killed(words: list[str], update: int, wait: float) -> int:
    """The exit code of a fit that is killed so many seconds after an update began; updates count
    from 0."""
    ours, theirs = os.pipe()
    child = started(words, theirs)
    os.close(theirs)
    while update and os.read(ours, 1):
        update -= 1
    time.sleep(wait)
    os.kill(child, signal.SIGKILL)
    os.close(ours)
    return ended(child)


def ended(child: int) -> int:
    """The exit code of a process; minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def told(path: Path) -> tuple:
    """Everything in a model file but what the clock and its own name put there."""

    def timeless(value):
        if isinstance(value, dict):
            return {k: timeless(v) for k, v in value.items() if k not in ("seconds", "output")}
        return [timeless(part) for part in value] if isinstance(value, list) else value

    configuration, tensors = read_model(path)
    return timeless(configuration), {name: tensor.tolist() for name, tensor in tensors.items()}


def fits(folder: Path) -> list[tuple[list[str], tuple, float]]:
    """Short fits of a plain and of a typed table: their words, the undisturbed model, and the
    seconds that an update takes."""
    plain = pd.DataFrame(normal(60, 2).numpy(), columns=["a", "b"])
    found = []
    for name, table in {"plain": plain, "typed": plain.assign(c=[*"xyz"] * 20)}.items():
        table.to_csv(folder / f"{name}.csv", index=False)
        words = ["fit", str(folder / f"{name}.csv"), "--steps", str(STEPS), "--width", "4", "-o"]
        # The first one loads what the processes after it inherit.
        assert main([*words, str(folder / f"{name}.model")]) == 0
        start = time.perf_counter()
        assert ended(started([*words, str(folder / f"{name}.again")])) == 0
        length = time.perf_counter() - start
        whole = told(folder / f"{name}.model")
        assert told(folder / f"{name}.again") == whole
        (folder / f"{name}.again").unlink()
        found.append((words, whole, length / STEPS))
    return found


def survive(folder: Path, kills: int, seed: int) -> Counter:
    """Kill fits at random moments, each resumed to its end; where they were when they died."""
    sound, chance, found = fits(folder), random.Random(seed), Counter()
    before = sorted(path.name for path in folder.iterdir())
    for k in range(kills):
        words, whole, step = sound[k % len(sound)]
        model = folder / f"m{k}"
        code = killed(
            [*words, str(model)], chance.randrange(STEPS + 1), chance.uniform(0, 2 * step)
        )
        under_way = model.with_name(f"{model.name}.checkpoint").exists()
        found["updates" if under_way else "the end" if model.exists() else "the start"] += 1
        assert code in (0, -signal.SIGKILL)
        assert ended(started([*words, str(model), "--resume"])) == 0
        assert told(model) == whole
        model.unlink()
        assert sorted(path.name for path in folder.iterdir()) == before
    return found


@pytest.mark.slow
def test_a_few_kills(tmp_path):
    found = survive(tmp_path, kills=2, seed=0)
    assert found["updates"] >= 1


@pytest.mark.slow
def test_forty_kills(tmp_path):
    found = survive(tmp_path, kills=40, seed=1)
    print(f"killed during: {dict(found)}")
    assert found["updates"] >= 25
