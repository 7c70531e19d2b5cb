"""A million rows in, a million rows out, in the memory of a few chunks."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import cnf
from cnf.datasets import toy

MOST_BYTES, ROWS, COLUMNS = 700 * 2**20, 1_000_000, 6
COMMAND = "import sys; from cnf.cli import main; sys.exit(main())"


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def watched(*words: object) -> list[int]:
    """Run a command to its end; the memory that it held, ten times a second."""
    process = subprocess.Popen([sys.executable, "-c", COMMAND, *map(str, words)])
    seen = []
    while process.poll() is None:
        seen.append(resident(process.pid))
        time.sleep(0.1)
    assert process.returncode == 0
    return seen


def require_flat(seen: list[int]) -> None:
    """Under the limit, and no higher at the end than in the middle but for a few chunks."""
    middle, end = seen[2 * len(seen) // 5 : len(seen) // 2], seen[4 * len(seen) // 5 :]
    print(
        f"at most {max(seen) / 2**20:.0f} MB; {np.median(middle) / 2**20:.0f} MB in the middle,",
        end=" ",
    )
    print(f"{np.median(end) / 2**20:.0f} MB at the end, {len(seen) / 10:.0f} s")
    assert max(seen) < MOST_BYTES
    assert np.median(end) < np.median(middle) + 100 * 2**20


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="reads the memory of a process from /proc"
)
def test_a_million_rows_in_and_out(tmp_path):
    x = toy("moons").sample(3000, torch.Generator().manual_seed(0))
    flow = cnf.CNF(2, hidden=(32, 32))
    cnf.fit(flow, x, steps=100)
    flow.metadata = {"columns": ["x0", "x1"]}
    flow.save(tmp_path / "m")
    require_flat(watched("sample", tmp_path / "m", "-n", ROWS, "-o", tmp_path / "x.csv"))
    require_flat(watched("score", tmp_path / "m", tmp_path / "x.csv", "-o", tmp_path / "s.csv"))
    with (tmp_path / "s.csv").open() as file:
        assert sum(1 for _ in file) == ROWS + 1


FIT = f"""
import resource, sys, torch, cnf
rows = int(sys.argv[1])
x = torch.randn(rows, {COLUMNS}, generator=torch.Generator().manual_seed(0), dtype=torch.float64).sinh()
cnf.fit(cnf.CNF({COLUMNS}, hidden=(32, 32)), x, steps=600)
print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory as Linux has it")
def test_memory_of_training_grows_with_the_table_alone():
    """Copies of the table while maps are fitted to it and it is mapped, and nothing else that
    grows."""
    few, many = ROWS // 10, ROWS
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-c", FIT, str(rows)], capture_output=True, check=True
            ).stdout
        )
        for rows in (few, many)
    ]
    copies = (peaks[1] - peaks[0]) / (8 * COLUMNS * (many - few))
    print(
        f"{peaks[0] / 2**20:.0f} and {peaks[1] / 2**20:.0f} MB: {copies:.1f} copies of the table"
    )
    assert copies < 8
