"""Rows told apart, against torch's own, and products of rows that do not depend on the others."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cnf.rows import distinct_rows, row_products


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_product_of_a_row_is_the_same_wherever_it_stands(dtype):
    for inputs, outputs, rows in product((1, 5, 8, 9, 13, 33), (1, 3, 5, 9), (64, 320)):
        row, matrix = (
            torch.randn(1, inputs, dtype=dtype),
            torch.randn(outputs, inputs, dtype=dtype),
        )
        found = row_products(row.repeat(rows, 1), matrix)
        assert (found == found[0]).all(), (inputs, outputs, rows)
        assert (row_products(row.repeat(rows, 1), matrix.T.contiguous().T) == found).all()
        tolerance = 1e-5 if dtype == torch.float32 else 1e-12
        np.testing.assert_allclose(found[0], matrix.numpy() @ row[0].numpy(), atol=tolerance)
