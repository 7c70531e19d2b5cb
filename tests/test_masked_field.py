"""The field of rows with absent columns: its divergence, its blindness, its solves."""

import math

import pytest
import torch

import cnf
from cnf.flows import NormalBase
from cnf.transforms import Affine

DIM, ROWS = 3, 24


@pytest.fixture
def field():
    torch.manual_seed(0)
    field = cnf.MaskedField(DIM, (16, 16), context_dim=DIM + 2).double()
    torch.nn.init.normal_(field.W3, std=0.3)
    return field


@pytest.fixture
def context():
    generator = torch.Generator().manual_seed(1)
    mask = (torch.rand(ROWS, DIM, generator=generator) > 0.4).double()
    return torch.cat((mask, torch.randn(ROWS, 2, generator=generator).double()), 1)


@pytest.fixture
def x():
    return torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(2)).double()


def flow_of(field):
    return cnf.CNF(
        DIM,
        context_dim=DIM + 2,
        field=field,
        base=NormalBase(DIM),
        preprocess=Affine.identity(DIM),
    )


def test_divergence_is_the_trace_over_present_columns(field, context, x):
    x.requires_grad_()
    (at,) = field.bind(context).at(torch.tensor([0.3]).double())
    v, divergence = at.velocity_and_divergence(x)
    trace = sum(
        torch.autograd.grad(v[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(DIM)
    )
    torch.testing.assert_close(divergence, trace)
    assert not v[context[:, :DIM] == 0].any()


def test_absent_values_never_enter(field, context, x):
    other = x.where(context[:, :DIM] != 0, math.inf)
    t = torch.tensor(0.7).double()
    torch.testing.assert_close(field(t, other, context), field(t, x, context), rtol=0, atol=0)


def test_rows_of_many_patterns_score_as_they_do_alone(field, context, x):
    flow = flow_of(field)
    together = flow.log_prob(x, context)
    alone = torch.cat([flow.log_prob(row[None], given[None]) for row, given in zip(x, context)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)
    assert (together - flow.base.log_prob(x)).abs().max() > 0.1


def test_gradients_agree(field, context, x):
    flow = flow_of(field)
    found = []
    for gradient in ("discrete", "direct"):
        flow.zero_grad()
        flow.log_prob(x, context, gradient=gradient).sum().backward()
        found.append([p.grad.clone() for p in field.parameters()])
    torch.testing.assert_close(*found)


def _rates(field, context, x):
    (at,) = field.bind(context).at(torch.tensor([0.3]).double())
    return at.velocity_and_divergence(x)


def test_rows_of_one_context_share_what_it_makes(field, context):
    """Side by side, rows share their modulation; otherwise each has its own."""
    x = torch.randn(ROWS * 40, DIM, generator=torch.Generator().manual_seed(3)).double()
    several = context.repeat_interleave(40, 0)
    mixed = torch.randperm(len(x), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        shared = _rates(field, several, x)
        apart = _rates(field, several[mixed], x[mixed])
    torch.testing.assert_close([part[mixed] for part in shared], list(apart), rtol=0, atol=0)


def test_many_patterns_in_one_product(x, monkeypatch):
    torch.manual_seed(0)
    field = cnf.MaskedField(8, (16, 16), context_dim=8).double()
    torch.nn.init.normal_(field.W3)
    mask = (torch.rand(300, 8) < 0.7).double()
    mask[:20] = mask[0]  # more than a slot
    x = torch.randn(300, 8).double()
    with torch.no_grad():
        together = _rates(field, mask, x)
        monkeypatch.setattr("cnf.fields.masked.SLOT", 0)
        torch.testing.assert_close(together, _rates(field, mask, x), rtol=0, atol=0)


def test_a_field_at_rest_is_not_evaluated(field, context, x, monkeypatch):
    field.rest()
    expected = _rates(field, context, x)  # with gradients, it is
    monkeypatch.setattr(cnf.MaskedField, "_modulate", None)
    with torch.no_grad():
        torch.testing.assert_close(_rates(field, context, x), expected, rtol=0, atol=0)


def test_the_context_must_hold_the_mask():
    with pytest.raises(ValueError, match="at least 3"):
        cnf.MaskedField(3, context_dim=2)


def test_one_row_alone_needs_no_batch():
    field = cnf.MaskedField(3, (4, 4), context_dim=3).double()
    torch.nn.init.normal_(field.W3)
    x, context = torch.randn(3).double(), torch.tensor([1.0, 0.0, 1.0]).double()
    t = torch.tensor(0.3).double()
    assert torch.allclose(field(t, x, context), field(t, x[None], context[None])[0])
