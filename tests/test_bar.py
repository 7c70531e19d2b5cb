"""The progress of what is no fit."""

import numpy as np
import pandas as pd

from cnf.cli.bar import counted


def test_a_long_score_tells_how_many_rows_are_done(capsys):
    table = pd.DataFrame({"x": np.arange(9000.0)})
    seconds = iter(np.arange(0.0, 99.0, 0.7))
    parts = list(counted([table[:5000], table[5000:]], clock=lambda: next(seconds)))
    assert pd.concat(parts).equals(table) and max(map(len, parts)) == 2048
    told = [int(line.split()[1].replace(",", "")) for line in capsys.readouterr().err.splitlines()]
    done = np.cumsum([len(part) for part in parts])
    assert told and set(told) <= set(done) and told == sorted(set(told)) and told[0] > done[0]
    assert len(list(counted([table[:0]]))) == 1 and capsys.readouterr().err == ""
