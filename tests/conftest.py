"""What every test starts from: one thread, a fixed seed, and hypothesis without a clock."""

import os

import matplotlib
import pytest
import torch
from hypothesis import settings

matplotlib.use("Agg")
torch.set_num_threads(1)
settings.register_profile(
    "cnf", deadline=None, max_examples=int(os.environ.get("CNF_EXAMPLES", "30"))
)
settings.load_profile("cnf")


@pytest.fixture(autouse=True)
def seed() -> None:
    """The same random numbers for a test alone and among the others."""
    torch.manual_seed(0)
