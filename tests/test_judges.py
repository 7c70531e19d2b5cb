"""Rows that judge a model: those of its fit are told from new ones."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import cnf
from cnf.fields import AT_REST
from cnf.tables import load_table_flow
from cnf.tables.digest import judges_of
from cnf.tables.held_out import held_out_rows


def table(seed, rows=300):
    random = np.random.default_rng(seed)
    return pd.DataFrame({"x": random.normal(size=rows), "group": random.choice(list("ab"), rows)})


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("judges") / "m.safetensors"
    cnf.fit_table(table(0), steps=3, hidden=(4, 4)).save(path)
    return load_table_flow(path)


def test_the_rows_that_were_set_apart_are_found_in_any_order(model):
    shuffled = table(0).sample(frac=1, random_state=1)
    judges = judges_of(model, shuffled)
    assert judges.apart and len(judges.places) == model.metadata.valid_rows
    again = judges_of(model, table(0))
    assert set(shuffled.index[judges.places]) == set(again.places)


def test_new_rows_judge_altogether(model):
    judges = judges_of(model, table(1))
    assert len(judges.places) == 300 and judges.words == "" and not judges.apart


def test_training_rows_alone_are_told_so(model):
    learned = table(0).drop(index=judges_of(model, table(0)).places)
    judges = judges_of(model, learned)
    assert len(judges.places) == len(learned)
    assert "the model was trained on about 100% of these rows" in judges.words


def test_a_tenth_of_training_rows_among_new_ones_is_noticed(model):
    mixed = pd.concat([table(1), table(0).head(60)])
    assert "trained on about 1" in judges_of(model, mixed).words


def test_baselines_learn_from_the_rows_that_the_flow_learned_from(model):
    rows, train = held_out_rows(model, table(0))
    assert (len(rows), len(train)) == (model.metadata.valid_rows, model.metadata.rows)
    assert held_out_rows(model, table(1))[1] is None


@pytest.mark.parametrize(("highest", "told"), [(10**6, True), (3, False)])
def test_rows_of_integers_are_recognized_unless_new_rows_repeat_them(highest, told):
    random = np.random.default_rng(0)
    rows = pd.DataFrame(random.integers(0, highest, (300, 2)), columns=["a", "b"])
    model = cnf.fit_table(rows, steps=3, hidden=(4, 4), kinds={"a": "integer", "b": "integer"})
    assert judges_of(model, rows).apart == told
    new = pd.DataFrame(random.integers(0, highest, (300, 2)), columns=["a", "b"])
    assert not judges_of(model, new).apart


@pytest.mark.slow
def test_rows_that_a_mixture_was_fitted_to_in_the_end_do_not_judge_it(model):
    """A fit of few rows that ends as a mixture learns the rows that it was judged by."""
    known = model.metadata
    history = {**known.history, "refit": True}
    model.metadata = replace(known, history=history)
    judges = judges_of(model, table(0))
    model.metadata = known
    assert not judges.apart and "trained on about 100%" in judges.words
    random = np.random.default_rng(0)
    flow = cnf.CNF(2)
    found = cnf.fit(flow, random.normal(size=(120, 2)), seconds=3)
    assert found.refit and found.choices["field"] == AT_REST and flow.field.resting
