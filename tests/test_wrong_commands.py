"""Commands that are typed wrong: exit code 2 and one line that says what was meant."""

import pandas as pd
import pytest
from test_wrong_tables import ROWS, TABLE, untrained

from cnf.cli import main


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    folder = tmp_path_factory.mktemp("room")
    untrained(TABLE).save(folder / "m.safetensors")
    untrained(TABLE, context=["group"]).save(folder / "given.safetensors")
    TABLE.to_csv(folder / "t.csv", index=False)
    return folder


MEANT = "did you mean 'group'?"
WRONG = {
    "sample, misspelt": ("sample m.safetensors --given gruop=a", f"no column 'gruop'; {MEANT}"),
    "sample, unknown": ("sample m.safetensors --given moon=a", "'share', 'height', 'group'"),
    "context, misspelt": ("sample given.safetensors --given gruop=a", f"'gruop'; {MEANT}"),
    "context, missing": ("sample given.safetensors", '--given "group=a"; got none'),
    "columns": (
        "score m.safetensors t.csv --columns gruop",
        f"--columns: no column 'gruop'; {MEANT}",
    ),
    "given": ("score m.safetensors t.csv --given gruop", f"--given: no column 'gruop'; {MEANT}"),
    "engine": (
        "score m.safetensors t.csv --engine ray",
        "expected a folder or a pattern of files",
    ),
    "workers": (
        "score m.safetensors t.csv --workers 2",
        "expected a folder or a pattern of files",
    ),
    "score, swapped": ("score t.csv m.safetensors", "t.csv: expected a model, found a table"),
    "impute, swapped": ("impute t.csv m.safetensors", "MODEL comes before DATA"),
    "report, swapped": ("report t.csv m.safetensors", "MODEL comes before DATA"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_commands_are_told(room, monkeypatch, capsys, name):
    command, told = WRONG[name]
    monkeypatch.chdir(room)
    assert main([*command.split(), "-o", "out.csv"]) == 2
    line = capsys.readouterr().err
    assert told in line and line.count("\n") == 1
    assert not (room / "out.csv").exists()


def test_a_sample_says_where_its_rows_are(room, monkeypatch, capsys):
    monkeypatch.chdir(room)
    assert main(["sample", "m.safetensors", "-n", str(ROWS), "-o", "drawn.csv"]) == 0
    assert capsys.readouterr().out == f"drawn.csv: {ROWS} rows\n"
    assert len(pd.read_csv("drawn.csv")) == ROWS
