"""The processes that torchrun started, as one fit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed

from cnf.training.processes import Processes, processes


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """This process among those of torchrun, where it was started by that: by gloo on processors,
    and by nccl, a GPU each, on "cuda"."""
    if distributed.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield processes()
        return
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield processes()
    finally:
        distributed.destroy_process_group()
