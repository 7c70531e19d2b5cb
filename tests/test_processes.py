"""Several processes train as one."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as multiprocessing
from torch import distributed

import cnf
from cnf.flows import NormalBase
from cnf.rows import Rows
from cnf.training import (
    FlowMatching,
    Interrupted,
    MaximumLikelihood,
    Phase,
    RowStream,
    Settings,
    Trainer,
    TrainingError,
)

TWO = 2


def pair(objective, steps=6, batch=128, dtype=torch.float32):
    """A trainer of a field that moves, with the steps of one objective."""
    torch.manual_seed(0)
    flow = cnf.CNF(2, hidden=(8, 8)).to(dtype)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(1)).to(dtype)
    phase = Phase(objective, steps, None, batch, 2e-3, ema=0.9, validations=2)
    return Trainer(flow, Rows(x[:250]), Rows(x[250:]), Settings((phase,)), seed=0)


def first_gradient(objective):
    """The gradient of the first training step, whole."""
    trainer = pair(objective, dtype=torch.float64).start()
    loss = trainer.objective.loss(1, 0.0)
    loss.value.backward()
    value, reported = trainer.processes.mean(trainer.flow.field, *loss)
    gradient = torch.cat([p.grad.flatten() for p in trainer.flow.field.parameters()])
    return torch.cat([gradient, value.detach()[None], torch.tensor([reported])])


def in_a_group(rank, work, folder):
    torch.set_num_threads(1)
    address = f"file://{folder}/meeting"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=TWO)
    torch.save(work(rank), Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


def of_two(work, folder):
    """What `work` gives in each of two processes."""
    multiprocessing.start_processes(
        in_a_group, (work, str(folder)), nprocs=TWO, start_method="fork"
    )
    return [torch.load(folder / f"{rank}.pt") for rank in range(TWO)]


def work(rank):
    """Gradients, weights after some steps, and the record of a rank."""
    found = [first_gradient(objective) for objective in (FlowMatching(), MaximumLikelihood())]
    trainer = pair(MaximumLikelihood())
    trainer.run()
    weights = torch.cat([p.flatten() for p in trainer.flow.parameters()]).detach()
    records = [(r.objective, r.valid_nll or 0.0, r.seconds) for r in trainer.history.records]
    return {"gradients": found, "weights": weights, "records": records}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return of_two(work, tmp_path_factory.mktemp("two"))


def test_the_gradient_of_two_ranks_is_that_of_one_at_equal_global_batch(two):
    alone = [first_gradient(objective) for objective in (FlowMatching(), MaximumLikelihood())]
    for rank in two:
        for found, wanted in zip(rank["gradients"], alone):
            assert wanted[:-2].norm() > 1e-2
            assert (found - wanted).norm() <= 1e-6 * max(wanted.norm(), 1.0)


def test_weights_records_and_clocks_are_equal_on_all_ranks(two):
    first, second = two
    assert torch.equal(first["weights"], second["weights"])
    assert first["records"] == second["records"]
    trainer = pair(MaximumLikelihood())
    trainer.run()
    alone = torch.cat([p.flatten() for p in trainer.flow.parameters()]).detach()
    torch.testing.assert_close(first["weights"], alone, rtol=0, atol=1e-4)


def lost(rank):
    """A fit whose second process ends in the middle."""
    trainer = pair(MaximumLikelihood(), steps=400)
    if rank == 1:
        trainer.callbacks = (lambda loop: loop.step == 3 and os.kill(os.getpid(), signal.SIGKILL),)
    try:
        trainer.run()
    except TrainingError as error:
        return str(error)
    return "it ended well"


def test_a_killed_rank_ends_the_others_with_one_line(tmp_path):
    with pytest.raises(Exception, match="SIGKILL"):
        multiprocessing.start_processes(
            alone_after, (str(tmp_path),), nprocs=TWO, start_method="fork"
        )
    said = torch.load(tmp_path / "0.pt")
    assert "another process of the fit ended" in said and "\n" not in said


def alone_after(rank, folder):
    """The first process gets itself adopted, so that the end of the second does not end it too."""
    if rank == 0:
        os.setpgrp()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    in_a_group(rank, lost, folder)


def test_a_batch_that_cannot_be_divided_is_refused(monkeypatch):
    monkeypatch.setattr(cnf.training.processes.Processes, "count", 3)
    with pytest.raises(ValueError, match="192; got 128 rows"):
        pair(FlowMatching()).start()


def numbers(k):
    """Rows of part k, and which part it is."""
    yield Rows(torch.randn(1_200, 2, generator=torch.Generator().manual_seed(k)).double())


def fit_of(stream, read, checkpoint=None, callbacks=()):
    """Weights and records of a fit, of rows in memory or of a stream."""

    def load(k):
        read.append(k)
        return numbers(k)

    x = torch.cat([rows.x for k in range(2) for rows in numbers(k)])
    torch.manual_seed(0)
    flow = cnf.CNF(2, hidden=(8, 8), base=NormalBase(2))
    history = cnf.fit(
        flow, x, x[:50], steps=20, likelihood_share=0.3, checkpoint=checkpoint,
        callbacks=callbacks, stream=RowStream(load, 20, 24_000, 3) if stream else None,
    )  # fmt: skip
    return torch.cat([p.flatten() for p in flow.parameters()]).detach(), history.records[-1]


def resumed(stream, folder, rank):
    """A fit as it is, and one that was interrupted."""
    checkpoint, read = Path(folder, "state"), []
    whole, record = fit_of(stream, read)

    def stop(trainer):
        if trainer.step == 17:
            trainer.stop()

    with pytest.raises(Interrupted):
        fit_of(stream, [], checkpoint, (stop,))
    again, last = fit_of(stream, [], checkpoint)
    return {"whole": whole, "again": again, "steps": (record.step, last.step), "read": read}


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_an_interrupted_fit_of_two_ranks_goes_on_bit_by_bit(tmp_path, stream):
    first, second = of_two(partial(resumed, stream, str(tmp_path)), tmp_path)
    for rank in (first, second):
        assert rank["steps"] == (20, 20)
        assert torch.equal(rank["whole"], rank["again"])
    assert torch.equal(first["whole"], second["whole"])
    if stream:  # in a pass, each reads parts of its own
        assert len(first["read"]) == len(second["read"]) > 3
        assert not set(first["read"]) & set(second["read"])


def trained(rank):
    """Weights after 500 updates, and the held-out likelihood with its standard error."""
    trainer = pair(FlowMatching(), steps=500)
    history = trainer.run()
    weights = torch.cat([p.flatten() for p in trainer.flow.parameters()]).detach()
    return {
        "weights": weights,
        "nll": history.records[-1].valid_nll,
        "se": history.records[-1].valid_se,
    }


@pytest.mark.slow
def test_weights_are_equal_after_500_updates_and_as_good_as_those_of_one(tmp_path):
    first, second = of_two(trained, tmp_path)
    alone = trained(0)
    assert torch.equal(first["weights"], second["weights"])
    assert abs(first["nll"] - alone["nll"]) < 2 * alone["se"]


@pytest.mark.slow
def test_torchrun_fits_a_table_and_writes_one_model(tmp_path):
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    fit = ["-m", "cnf", "fit", "toy:moons", "-o", "m.safetensors", "--steps", "40"]
    done = subprocess.run(
        [*torchrun, *fit],
        cwd=tmp_path,
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(cnf.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("m.safetensors") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]
    assert cnf.load(tmp_path / "m.safetensors").metadata.history is not None
