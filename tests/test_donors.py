"""Missing cells from donors: the forests against scikit-learn's trees, the draws against known laws."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.tree import DecisionTreeRegressor

import cnf
from cnf.flows.model_file import ModelFileError
from cnf.recipe.tables.donors import _forest, _rounded_down
from cnf.tables.donors import LEAF, Forest

ROWS = 500


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stump() -> Forest:
    """A tree that asks whether column 1 is above ½, and one that is a leaf."""
    forest = Forest(2, 4, 5)
    forest.roots.copy_(torch.tensor([0, 3]))
    forest.feature.copy_(torch.tensor([1, LEAF, LEAF, LEAF]))
    forest.threshold[0] = 0.5
    forest.branches.copy_(torch.tensor([[1, 2], [0, 1], [1, 3], [3, 5]]))
    forest.members.copy_(torch.tensor([0, 1, 1, 0, 2]))
    return forest


@pytest.mark.parametrize(("number", "law"), [(0.5, [0.75, 0.0, 0.25]), (0.6, [0.25, 0.5, 0.25])])
def test_a_draw_is_from_the_mean_law_of_the_leaves(number, law):
    drawn = stump().draw(torch.tensor([[9.0, number]]).expand(4000, 2), seeded())
    counts = torch.bincount(drawn, minlength=3).numpy()
    possible = np.array(law) > 0
    assert counts[~possible].sum() == 0
    assert stats.chisquare(counts[possible], 4000 * np.array(law)[possible]).pvalue > 1e-3


def test_rows_stand_in_the_leaves_that_the_trees_of_scikit_learn_send_them_to():
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 3)).astype("float32")
    y = (x[:, :1] * x[:, 1:2]).astype(float)
    weights = np.where(x[:, 2] > 1, 0.0, 1.0)
    forest = _forest(x, y, weights, np.random.default_rng(1))
    assert set(forest.members.tolist()) <= set(np.flatnonzero(weights).tolist())
    numbers = torch.from_numpy(x)
    for tree in range(len(forest.roots)):
        trees = torch.full((400,), tree)
        leaves = forest.leaves(numbers, trees)
        for leaf in leaves.unique():
            first, end = forest.branches[leaf].tolist()
            members = forest.members[first:end].long()
            assert len(members.unique()) >= 5
            assert (leaves[members] == leaf).all()


def test_the_leaves_are_those_of_the_fitted_tree():
    random = np.random.default_rng(2)
    x = random.normal(size=(300, 2)).astype("float32")
    tree = DecisionTreeRegressor(min_samples_leaf=5, random_state=0).fit(x, x[:, 0] ** 2)
    nodes = tree.tree_
    forest = Forest(1, nodes.node_count, 1)
    leaf = nodes.children_left == LEAF
    forest.feature.copy_(torch.from_numpy(np.where(leaf, LEAF, nodes.feature)))
    forest.threshold.copy_(torch.from_numpy(_rounded_down(nodes.threshold)))
    forest.branches.copy_(
        torch.from_numpy(np.stack((nodes.children_left, nodes.children_right), 1))
    )
    found = forest.leaves(torch.from_numpy(x), torch.zeros(300, dtype=torch.long))
    assert found.tolist() == tree.apply(x).tolist()


@given(st.floats(-1e30, 1e30).filter(lambda t: not 0 < abs(t) < 1e-30))
def test_a_threshold_in_single_precision_divides_the_same_numbers(threshold):
    rounded = _rounded_down(np.array([threshold]))[0]
    assert rounded.dtype == np.float32
    near = np.float32(threshold)
    for number in (near, np.nextafter(near, np.float32(1)), np.nextafter(near, np.float32(-1))):
        assert (number <= rounded) == (float(number) <= threshold)


def steps(rows: int, seed: int = 0) -> pd.DataFrame:
    """A level that jumps with a number, which no few training steps learn, and a category."""
    random = np.random.default_rng(seed)
    a = random.uniform(0, 6, rows)
    level = 10.0 * (a.astype(int) % 2) + random.normal(size=rows)
    return pd.DataFrame({"a": a, "level": level, "kind": random.choice(list("xy"), rows)})


@pytest.fixture(scope="module")
def jumping() -> cnf.TableFlow:
    return cnf.fit_table(steps(ROWS), imputer=True, steps=20, hidden=(8, 8))


@pytest.mark.slow
def test_what_the_networks_have_not_learned_the_donors_know(jumping):
    truth = steps(200, seed=1)
    drawn = jumping.impute(truth.assign(level=np.nan), 19, generator=seeded())
    center = 10.0 * (truth.a.to_numpy().astype(int) % 2)
    distance = np.stack([table.level.to_numpy() for table in drawn]) - center
    assert np.median(np.abs(distance)) < 1.0  # of a normal law: 0.67


@pytest.mark.slow
def test_intervals_of_draws_cover_as_often_as_they_say(jumping):
    truth = steps(400, seed=2)
    draws = jumping.impute(truth.assign(level=np.nan), 19, generator=seeded())
    draws = np.stack([table.level for table in draws])
    inside = (draws.min(0) < truth.level) & (truth.level < draws.max(0))
    assert inside.mean() == pytest.approx(0.9, abs=0.05)


def test_cells_come_from_training_rows_and_others_stay(jumping):
    holes = steps(100, seed=3)
    holes.loc[::2, "level"] = np.nan
    (drawn,) = jumping.impute(holes, generator=seeded())
    learned = steps(ROWS)
    assert set(drawn.level[::2]) <= set(learned.level)
    assert drawn.loc[1::2, "level"].tolist() == holes.loc[1::2, "level"].tolist()
    assert drawn[["a", "kind"]].equals(holes[["a", "kind"]])


@pytest.mark.slow
def test_longitude_and_latitude_come_from_one_row():
    random = np.random.default_rng(0)
    table = pd.DataFrame({
        "lon": random.uniform(-180, 180, 300), "lat": random.uniform(-80, 80, 300),
        "c": list("xyz") * 100,
    })  # fmt: skip
    model = cnf.fit_table(table, kinds={"lon,lat": "sphere"}, imputer=True, steps=3, hidden=(4, 4))
    holes = table[:40].assign(lon=np.nan, lat=np.nan)
    (drawn,) = model.impute(holes, generator=seeded())
    pairs = set(zip(table.lon.round(6), table.lat.round(6)))
    assert set(zip(drawn.lon.round(6), drawn.lat.round(6))) <= pairs


def test_the_donors_are_part_of_file_and_state(jumping, tmp_path):
    holes = steps(30).assign(level=np.nan)
    jumping.save(tmp_path / "m")
    fresh = cnf.TableFlow(jumping.schema, hidden=(8, 8))
    fresh.load_state_dict(jumping.state_dict())
    first = jumping.impute(holes, generator=seeded())[0]
    for again in (cnf.load(tmp_path / "m"), fresh):
        pd.testing.assert_frame_equal(again.impute(holes, generator=seeded())[0], first)


def test_without_donors_as_in_earlier_files_the_networks_draw(jumping, tmp_path):
    jumping.save(tmp_path / "m")
    former = cnf.load(tmp_path / "m")
    former.imputer.donors = None
    former.save(tmp_path / "former")
    (drawn,) = cnf.load(tmp_path / "former").impute(steps(50).assign(level=np.nan))
    assert not set(drawn.level) <= set(steps(ROWS).level)


DAMAGES = {
    "a way that leads back": lambda donors: donors.forests[0].branches[0].fill_(0),
    "no node": lambda donors: donors.forests[0].branches[0].fill_(10**6),
    "no root": lambda donors: donors.forests[0].roots.fill_(-1),
    "no column": lambda donors: donors.forests[0].feature[:1].fill_(99),
    "no row": lambda donors: donors.forests[0].members.fill_(10**6),
    "empty leaves": lambda donors: donors.forests[0].branches.masked_fill_(
        (donors.forests[0].feature == LEAF)[:, None], 0
    ),
    "no state": lambda donors: donors.states.fill_(9),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_refused_before_it_draws(jumping, tmp_path, damage):
    broken = copy.deepcopy(jumping)
    damage(broken.imputer.donors)
    broken.save(tmp_path / "m")
    with pytest.raises(ModelFileError, match="donors: expected"):
        cnf.load(tmp_path / "m")
