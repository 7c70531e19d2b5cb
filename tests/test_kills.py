"""kill -9 at any moment of a fit: it goes on to the same model, and nothing is left lying about."""

import os
import random
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from problems import normal

from cnf.cli import main
from cnf.flows.model_file import read_model
from cnf.training.checkpoint import CheckpointWriter

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),  # Python's, of forks
]


def started(words: list[str]) -> int:
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
        os._exit(main(words))
    finally:
        os._exit(70)


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


def survive(folder: Path, kills: int, seed: int) -> int:
    """Kill fits at random moments, each resumed to its end; how many died before theirs."""
    table = folder / "t.csv"
    pd.DataFrame(normal(60, 2).numpy(), columns=["a", "b"]).to_csv(table, index=False)
    fit = ["fit", str(table), "--steps", "30", "--width", "4", "-o"]
    start = time.perf_counter()
    assert ended(started([*fit, str(folder / "whole")])) == 0
    length, whole = time.perf_counter() - start, told(folder / "whole")
    chance, died = random.Random(seed), 0
    for k in range(kills):
        model = folder / f"m{k}"
        child = started([*fit, str(model)])
        time.sleep(chance.uniform(0, length))
        os.kill(child, signal.SIGKILL)
        died += ended(child) == -signal.SIGKILL
        assert ended(started([*fit, str(model), "--resume"])) == 0
        assert told(model) == whole
        model.unlink()
        assert sorted(path.name for path in folder.iterdir()) == ["t.csv", "whole"]
    return died


def test_a_few_kills(tmp_path):
    assert survive(tmp_path, kills=1, seed=0) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_forty_kills(tmp_path, seed):
    print(f"{survive(tmp_path, kills=10, seed=seed)} of 10 died before their end")
