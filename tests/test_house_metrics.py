"""The script that measures the source, on a source small enough to count by hand."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"

SOURCE = '''"""A module."""

import math  # trailing

LIMIT = 7


class Shape:
    """Public, with one documented method and one without."""

    def area(self, width: float, *sides: float, **options: float) -> float:
        """Documented."""
        if width and sides or options:
            return math.pi * 0.5
        # A comment of its own.
        return sum(side for side in sides if side > 2)

    def name(self, prefix):
        def inner():
            assert prefix != 12.5, -1
            return prefix

        return inner() if prefix else ""


def _private(a: int, b: int, c: int, d: int, e: int, f: int, g: int, h: int) -> int:
    return a
'''


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("house_metrics")


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "small"
    (folder / "inner").mkdir(parents=True)
    (folder / "shape.py").write_text(SOURCE)
    (folder / "inner" / "empty.py").write_text("")
    return folder


def test_a_small_package_is_counted_as_by_hand(script, package):
    found = script.measure(package)
    assert (found.files, found.lines, found.code_lines) == (2, 27, 14)
    assert (found.file_length.median, found.file_length.maximum) == (13.5, 27)
    # area 6 lines, name 6, inner 3, _private 2.
    assert (found.functions, found.function_length.median) == (4, 4.5)
    assert (found.function_length.maximum, found.long_functions) == (6, 0)
    # area: if, `and`, `or`, comprehension and its condition; name: one `if`; inner: one assertion.
    assert (found.cyclomatic.maximum, found.cyclomatic.median) == (6, 2)
    assert found.branching_functions == 0
    assert (found.functions_over_7_parameters, found.most_parameters) == (1, 8)
    assert found.functions_over_9_parameters == 0
    # width and the eight of _private, of ten without stars; returns of area and _private.
    assert (found.typed_arguments, found.typed_returns) == (90, 50)
    # Shape and area, but not name.
    assert found.documented == pytest.approx(66.7)
    assert found.docstring_share == pytest.approx(100 * 3 / 27, abs=0.05)
    assert found.comment_share == pytest.approx(100 * 2 / 27, abs=0.05)
    assert (found.public_names, found.classes) == (1, 1)
    # 7 and 12.5.
    assert found.odd_numbers_per_1000_lines == pytest.approx(1000 * 2 / 14, abs=0.05)


def test_the_table_is_printed_and_nothing_is_written_for_other_packages(package, tmp_path):
    command = [sys.executable, SCRIPTS / "house_metrics.py", package, "--out", tmp_path / "out"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "| lines / code lines | 27 / 14 |" in done.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_same_tree_gives_the_same_file(tmp_path):
    for name in ("one", "two"):
        command = [sys.executable, SCRIPTS / "house_metrics.py", "--out", tmp_path / name]
        subprocess.run(command, check=True, capture_output=True)
    one, two = ((tmp_path / name / "house_metrics.json").read_bytes() for name in ("one", "two"))
    assert one == two and json.loads(one)["cnf"]["files"] > 100
