"""Engines: a function for each of many tasks, by processes of this machine, by Ray or by Dask.

Each takes a function that can be pickled, its tasks and a number of workers, and yields the results
in any order. If a worker is killed, another worker repeats its task.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

# Times in a row that a worker may be killed before a task is done; the memory may be too small.
MOST_KILLS = 3


def on_this_machine(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int
) -> Iterator[Result]:
    """Processes of this machine, one thread each."""
    left, kills = list(tasks), 0
    while left:
        with ProcessPoolExecutor(
            min(workers, len(left)), multiprocessing.get_context("spawn"), _one_thread
        ) as pool:
            futures = {pool.submit(function, task): task for task in left}
            try:
                for future in as_completed(futures):
                    yield future.result()
                    left.remove(futures[future])
                    kills = 0
            except BrokenProcessPool as error:
                kills += 1
                if kills == MOST_KILLS:
                    raise ValueError(
                        f"workers were killed {kills} times before one finished, perhaps for lack of"
                        f" memory; use fewer than {workers} workers"
                    ) from error
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def on_ray(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int
) -> Iterator[Result]:
    """Tasks of Ray: of the cluster that RAY_ADDRESS names, or else of this machine."""
    ray = _optional("ray", "ray")
    if not ray.is_initialized():
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
        ray.init(**quiet, **({} if "RAY_ADDRESS" in os.environ else {"num_cpus": workers}))

    def work(task: Task) -> Result:  # Ray takes a function, and no partial of one
        return function(task)

    remote = ray.remote(num_cpus=1, max_retries=MOST_KILLS)(work)
    left = [remote.remote(task) for task in tasks]
    while left:
        done, left = ray.wait(left)
        try:
            yield from ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error


def on_dask(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int
) -> Iterator[Result]:
    """Futures of Dask: of the scheduler that DASK_SCHEDULER_ADDRESS names, or else of this
    machine."""
    distributed = _optional("distributed", "dask")
    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    local: dict[str, Any] = {"n_workers": workers, "threads_per_worker": 1}
    local["dashboard_address"] = None
    with distributed.Client(address, **({} if address else local)) as client:
        for future in distributed.as_completed(client.map(function, tasks, pure=False)):
            yield future.result()


ENGINES: dict[str, Callable[..., Iterator[Any]]] = {
    "local": on_this_machine,
    "ray": on_ray,
    "dask": on_dask,
}


def _one_thread() -> None:
    """What a worker process starts with; Ctrl-C ends it without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    import_module("torch").set_num_threads(1)


def _optional(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"--engine {extra}: {module} is not installed; pip install 'cnf[{extra}]'"
        ) from error
