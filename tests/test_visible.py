"""What pictures show of a density: the same as scoring gives, without the cost of far rows."""

import torch
from problems import seeded

import cnf
from cnf.pictures.visible import DEPTH, visible_log_prob


def test_rows_that_are_seen_keep_their_digits_and_the_others_stay_unseen():
    flow = cnf.CNF(dim=2, hidden=(16, 16))
    flow.double()
    near = torch.randn(50, 2, generator=seeded(0), dtype=torch.float64)
    rows = torch.cat((near, 300 * near))
    shown = visible_log_prob(flow, rows, None)
    whole = flow.evaluate(rows)
    seen = whole.log_prob > whole.log_prob.max() - DEPTH + 1
    assert 50 <= seen.sum() < 100
    assert torch.equal(shown[seen], whole.log_prob[seen])
    assert (shown[~seen] < shown.max() - DEPTH + 1).all()
