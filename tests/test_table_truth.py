"""Typed tables of known make: held-out likelihood beside the truth. Minutes: run by `make
slow`."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from cnf.recipe import fit_table_flow
from cnf.recipe.architecture import default_table_flow
from cnf.tables import Schema

SHARES, CENTERS, SPREADS = (
    np.array([0.5, 0.3, 0.2]),
    np.array([0.0, 2.0, -2.0]),
    np.array([1.0, 0.5, 1.5]),
)


def everything(rows: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """A category, a Gaussian, a count, a zero-inflated and a bounded column with holes, with their
    truth."""
    random = np.random.default_rng(seed)
    group = random.choice(3, rows, p=SHARES)
    x = random.normal(CENTERS[group], SPREADS[group])
    rate = np.exp(1 + 0.3 * x.clip(-3, 3))
    count = random.poisson(rate)
    dry = random.random(rows) < 0.3 + 0.2 * group
    rain = np.where(dry, 0.0, np.exp(random.normal(0.5 * group, 0.7, rows)))
    a, b = 2.0 + group, 3.0 - 0.5 * group
    share = random.beta(a, b)
    lost = 0.5 / (1 + np.exp(1 - x))
    hidden = random.random(rows) < lost
    truth = np.log(SHARES[group]) + stats.norm.logpdf(x, CENTERS[group], SPREADS[group])
    truth += stats.poisson.logpmf(count, rate)
    wet = stats.lognorm.logpdf(np.where(dry, 1.0, rain), 0.7, scale=np.exp(0.5 * group))
    truth += np.where(dry, np.log(0.3 + 0.2 * group), np.log(0.7 - 0.2 * group) + wet)
    truth += np.where(hidden, np.log(lost), np.log1p(-lost) + stats.beta.logpdf(share, a, b))
    columns = {"group": np.array(list("abc"))[group], "x": x, "count": count, "rain": rain}
    return pd.DataFrame(columns | {"share": np.where(hidden, np.nan, share)}), truth


@pytest.mark.slow
def test_likelihood_is_near_the_truth():
    table, _ = everything(20_000, 0)
    held_out, truth = everything(1000, 1)
    schema = Schema.infer(table, kinds={"share": "bounded:0:1"})
    model = default_table_flow(schema, len(table), hidden=(64, 64), seed=0)
    fit_table_flow(model, table, steps=2000, imputer=False, likelihood_share=0.03)
    found = model.evaluate(held_out)
    gap = torch.tensor(truth) - found.log_prob
    print(
        f"gap {gap.mean():.4f} ± {gap.std() / len(gap) ** 0.5:.4f} nats a row, bar {found.error.mean():.4f}"
    )
    assert found.ok.all()
    assert gap.mean() < 0.03 + 2 * gap.std() / len(gap) ** 0.5
    drawn = model.sample(5000, generator=torch.Generator().manual_seed(0))
    for ours, theirs in [
        (drawn.group.value_counts(), table.group.value_counts()),
        ((drawn.rain == 0).value_counts(), (table.rain == 0).value_counts()),
        (drawn.share.isna().value_counts(), table.share.isna().value_counts()),
        (drawn["count"].clip(upper=8).value_counts(), table["count"].clip(upper=8).value_counts()),
    ]:
        both = pd.concat([ours, theirs], axis=1).fillna(0)
        assert stats.chi2_contingency(both.to_numpy()).pvalue > 1e-4
    for name in ("x", "share"):
        assert stats.ks_2samp(drawn[name].dropna(), table[name].dropna()).pvalue > 1e-4
