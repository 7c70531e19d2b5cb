"""What a damaged file says of its fit is refused in one line, or stops no reader."""

import copy
from pathlib import Path

import pytest
import torch

import cnf
from cnf.cli.model import Model
from cnf.cli.summary import lines_of, summarize
from cnf.report.model_card import model_card
from cnf.tables.loading import wrapped
from cnf.tables.metadata import LEVELS, FitMetadata

RECORD = {
    "phase": "likelihood", "step": 3, "seconds": 1.5, "objective": 2.0, "learning_rate": 0.1,
    "valid_nll": 2.5, "valid_se": 0.1, "nfe": 20,
}  # fmt: skip
WHOLE = {
    "columns": ["a", "b"],
    "context": [],
    "rows": 90,
    "valid_rows": 10,
    "seed": 0,
    "version": "0.2.0",
    "interrupted": False,
    "choices": {"steps": 3, "hidden": [4, 4]},
    "units": {"a": "m"},
    "gaussian": {"nll": 2.7, "standard_error": 0.1},
    "history": {
        "records": [RECORD, {**RECORD, "step": 6, "valid_nll": None, "valid_se": None}],
        "valid_nll": 2.5, "valid_se": 0.1, "train_nll": 2.4, "train_se": 0.1, "rollbacks": ["likelihood"],
    },
    "quantiles": {"levels": list(LEVELS), "columns": {"a": [float(k) for k in range(7)]}},
}  # fmt: skip


def deep(levels):
    nested = []
    for _ in range(levels):
        nested = [nested]
    return nested


DAMAGE = [None, -1, 10**400, 1e300, True, "", "\x1b[2J", [], {}, [None], {"a": None}, deep(900)]


def places(data, path=()):
    """Paths to all parts of JSON data."""
    entries = data.items() if isinstance(data, dict) else enumerate(data)
    for key, part in entries:
        yield (*path, key)
        if isinstance(part, dict | list):
            yield from places(part, (*path, key))


def damaged(path, value):
    data = copy.deepcopy(WHOLE)
    held = data
    for key in path[:-1]:
        held = held[key]
    held[path[-1]] = value
    return data


def read(metadata):
    """What info and the model card say of a flow with such metadata."""
    flow = cnf.CNF(2, hidden=(4, 4))
    flow.metadata = metadata
    model = wrapped(flow)
    model.metadata.require_complete()
    lines = lines_of(summarize(Model(Path("m.safetensors"), model)))
    return lines, model_card(model.flow, ["a", "b"])


def test_sound_metadata_is_told():
    lines, card = read(WHOLE)
    assert any("90 rows" in line for line in lines) and "90 rows" in card["training"]


@pytest.mark.parametrize("value", DAMAGE, ids=range(len(DAMAGE)))
def test_no_reader_meets_a_part_that_it_cannot_read(value):
    for path in places(WHOLE):
        try:
            read(damaged(path, value))
        except ValueError as refused:
            assert "\n" not in str(refused), path


@pytest.mark.parametrize("name", WHOLE)
def test_null_stands_for_what_is_not_known(name):
    known = FitMetadata.from_json({**WHOLE, name: None})
    assert getattr(known, name) is None and name not in known.as_json()


def test_damage_of_a_file_is_one_line(tmp_path):
    flow = cnf.CNF(2, hidden=(4, 4))
    flow.metadata = damaged(("choices",), deep(40))
    flow.save(tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="is damaged"):
        cnf.tables.load_table_flow(tmp_path / "m.safetensors")
    assert torch.isfinite(flow.log_prob(torch.zeros(1, 2)))
