"""Rows told apart, against torch's own."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from cnf.rows import distinct_rows


@given(st.integers(0, 40), st.integers(1, 90), st.integers(1, 4), st.integers(0, 5))
def test_distinct_rows_are_those_of_torch(rows, columns, values, seed):
    """Truths and whole numbers, also where a row has more digits than one number holds."""
    source = torch.Generator().manual_seed(seed)
    some = torch.randint(-2, values - 2, (3, columns), generator=source)
    table = some[torch.randint(3, (rows,), generator=source)]
    for x in (table, table > -2):
        distinct, group = distinct_rows(x)
        expected, where = torch.unique(x, dim=0, return_inverse=True)
        assert torch.equal(distinct, expected) and torch.equal(group, where)
