"""Tables of more rows than memory are fitted as those in memory are."""

import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

import cnf
import cnf.recipe.defaults as defaults
from cnf.cli import main
from cnf.flows import NormalBase
from cnf.recipe.tables.rows import held_rows
from cnf.recipe.tables.streaming import bytes_of
from cnf.rows import Rows
from cnf.tables import Schema, TableError, TableFlow
from cnf.tables.digest import judges_of
from cnf.tables.row_groups import RowGroups
from cnf.training import Interrupted, RowStream
from cnf.training.checkpoint import CheckpointWriter
from cnf.training.processes import Processes
from cnf.training.streams import PooledBatches

TINY = "1.9MB"
HIDDEN = {"hidden": (16, 16)}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Count few bytes a cell, so that small tables do not fit into little memory."""
    monkeypatch.setattr(defaults, "TYPED_CELL_BYTES", 90)
    monkeypatch.setattr(defaults, "STREAM_FEWEST_ROWS", 1_000)
    monkeypatch.setattr(defaults, "STREAM_CHUNK_ROWS", 1_000)


def plain(rows, seed):
    """Rows of two columns, and their log-density."""
    random = np.random.default_rng(seed)
    z = random.normal(size=(rows, 2))
    table = pd.DataFrame({"x": z[:, 0], "y": np.sin(2 * z[:, 0]) + 0.5 * z[:, 1]})
    return table, -0.5 * (z**2).sum(1) - np.log(2 * np.pi * 0.5)


def typed(rows, seed):
    """Rows with a number, a whole number, a category and missing cells."""
    random = np.random.default_rng(seed)
    x, kind = random.normal(size=rows), random.choice(["red", "green", "blue"], rows)
    x = x + 3 * (kind == "red")
    table = pd.DataFrame({"x": x, "n": random.poisson(20 + 3 * np.abs(x)), "kind": kind})
    table["y"] = np.where(random.random(rows) < 0.1, np.nan, x + random.normal(size=rows))
    return table


def folder_of(folder, frames, group_rows=500):
    folder.mkdir(exist_ok=True)
    for k, frame in enumerate(frames):
        table = pa.Table.from_pandas(frame, preserve_index=False)
        parquet.write_table(table, folder / f"part{k}.parquet", row_group_size=group_rows)
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """12,000 plain rows, sorted, in ten files of six row groups each."""
    table = plain(12_000, 0)[0].sort_values("x")
    frames = [table[k : k + 1_200] for k in range(0, 12_000, 1_200)]
    return folder_of(tmp_path_factory.mktemp("many") / "plain", frames, 200)


class Ranks(Processes):
    def __init__(self, rank, count):
        self.rank, self.count = rank, count


def numbered(parts=12, rows=50, held=4):
    """A stream of rows that are their own numbers, in two chunks a part."""

    def load(k):
        numbers = torch.arange(k * rows, (k + 1) * rows)
        return numbers.double()[:, None].split(rows // 2)

    return RowStream(load, parts, parts * rows, held)


def pool(stream, rank=0, count=1):
    return PooledBatches(stream, lambda x: (x, 10 * x), 0, Ranks(rank, count))


def drawn(batches, count, size=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([batches.draw(size, generator)[0] for _ in range(count)]).flatten()


def test_every_row_comes_up_once_a_pass_from_a_pool_of_all_its_parts():
    stream = numbered()
    batches, generator = pool(stream), torch.Generator().manual_seed(0)
    y, context = batches.draw(60, generator)
    assert torch.equal(context, 10 * y) and (y.diff(dim=0) < 0).any()
    assert (y // 50).int().flatten().bincount().unique().tolist() == [0, 15]
    counts = drawn(pool(stream), 200).long().bincount(minlength=600)
    assert counts.float().std() < 6 and counts.sum() == 12_000
    of_parts = counts.reshape(12, 50).sum(1)
    assert of_parts.min() > 900 and of_parts.max() < 1_100


def test_a_pool_goes_on_from_its_state_bit_by_bit():
    whole, first, second = pool(numbered()), pool(numbered()), pool(numbered())
    expected = drawn(whole, 40)
    begun = drawn(first, 25)
    second.load_state_dict(first.state_dict())
    generator = torch.Generator().manual_seed(0)
    for _ in range(25):
        torch.randperm(60, generator=generator)
        torch.rand(60, generator=generator, dtype=torch.float64)
    rest = torch.cat([second.draw(60, generator)[0] for _ in range(15)]).flatten()
    assert torch.equal(torch.cat([begun, rest]), expected)


def test_two_ranks_read_different_parts_and_together_all():
    parts = [(drawn(pool(numbered(), rank, 2), 40) // 50).unique() for rank in range(2)]
    at_first = [(drawn(pool(numbered(), rank, 2), 1) // 50).unique() for rank in range(2)]
    assert not set(at_first[0].tolist()) & set(at_first[1].tolist())
    assert torch.cat(parts).unique().tolist() == list(range(12))


@pytest.mark.slow
def test_a_plain_table_beyond_memory_is_fitted_as_one_in_memory(many):
    told = []
    model = cnf.fit_table(
        f"{many}/*.parquet",
        memory=TINY,
        steps=10,
        announce=lambda *lines: told.extend(lines),
        **HIDDEN,
    )
    assert "12,000 rows in 60 row groups" in told[0] and "drawn from 60 row groups" in told[0]
    whole = cnf.fit_table(many, steps=10, **HIDDEN)
    fresh, exact = plain(4_000, 1)
    with torch.no_grad():
        apart = (model.log_prob(fresh) - whole.log_prob(fresh)).numpy()
    assert model.metadata.rows == pytest.approx(10_800, rel=0.01)
    assert abs(apart.mean()) < 0.06 and exact.mean() - model.log_prob(fresh).mean() < 0.1
    judged = judges_of(model, pd.read_parquet(many / "part3.parquet"))
    assert judged.words and len(judges_of(model, fresh).places) == 4_000


@pytest.mark.slow
def test_what_fits_into_memory_is_fitted_bit_by_bit_as_without_a_limit(many):
    path = many / "part0.parquet"
    fits = [cnf.fit_table(path, steps=10, hidden=(8, 8), memory=m) for m in (None, "50MB")]
    assert fits[0].metadata.digest == fits[1].metadata.digest
    for one, other in zip(*(model.state_dict().values() for model in fits)):
        assert torch.equal(one, other)


def streamed_fit(held=4, callbacks=(), checkpoint=None):
    """A flow fitted to a stream of rows, and its history."""
    x = torch.tensor(plain(6_000, 0)[0].to_numpy())
    stream = RowStream(lambda k: (Rows(part) for part in x[k::20].split(100)), 20, 6_000, held)
    torch.manual_seed(0)
    flow = cnf.CNF(2, hidden=(8, 8), base=NormalBase(2))
    options = {"steps": 40, "likelihood_share": 0.2, "stream": stream, "checkpoint": checkpoint}
    return flow, cnf.fit(flow, x[:500], x[-100:], callbacks=callbacks, **options)


@pytest.mark.slow
def test_an_interrupted_fit_of_a_stream_goes_on_bit_by_bit(tmp_path):
    checkpoint = tmp_path / "state"

    def stop(trainer):
        if trainer.step == 25:
            trainer.stop()

    with pytest.raises(Interrupted):
        streamed_fit(callbacks=(stop, CheckpointWriter(checkpoint)), checkpoint=checkpoint)
    (whole, history), (again, resumed) = streamed_fit(), streamed_fit(checkpoint=checkpoint)
    assert len(resumed.records) == len(history.records) and resumed.records[-1].step == 40
    for one, other in zip(whole.state_dict().values(), again.state_dict().values()):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="belongs to a fit with other rows"):
        streamed_fit(held=5, checkpoint=checkpoint)


@pytest.fixture(scope="module")
def typed_fit():
    """Parts of a typed table, how it is fitted, and the fit in memory."""
    frames = [typed(600, k) for k in range(10)]
    options = {"steps": 40, "hidden": (16, 16), "imputer": False}
    return frames, options, cnf.fit_table(pd.concat(frames, ignore_index=True), **options)


@pytest.mark.parametrize("kind", ["parquet", pytest.param("csv", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_typed_table_beyond_memory_is_fitted_as_one_in_memory(typed_fit, tmp_path, kind):
    frames, options, whole = typed_fit
    if kind == "parquet":
        folder_of(tmp_path, frames, 200)
    else:
        for k, frame in enumerate(frames):
            frame.to_csv(tmp_path / f"{k}.csv", index=False)
    model = cnf.fit_table(tmp_path, memory="2.1MB", **options)
    assert model.schema.lines() == whole.schema.lines()
    assert model.metadata.rows == pytest.approx(5_400, rel=0.02)
    fresh = typed(400, 99)
    with torch.no_grad():
        apart = (model.log_prob(fresh) - whole.log_prob(fresh)).numpy()
    assert abs(apart.mean()) < 0.1


def test_rows_unlike_the_sample_are_left_out_and_told_of():
    schema = Schema.infer(typed(500, 0))
    model, table = TableFlow(schema, hidden=(4, 4)), typed(5, 1)
    table.loc[1, "kind"] = "black"
    table.loc[3, "x"] = np.inf
    with pytest.warns(UserWarning, match="rows with a cell unlike"):
        assert len(held_rows(model, table)) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(held_rows(model, table.iloc[[0, 2]])) == 2


def test_row_groups_give_back_the_rows_of_their_files(tmp_path):
    frames = [typed(300, k) for k in range(2)]
    groups = RowGroups(folder_of(tmp_path / "in", frames, 100), None, ())
    assert [group.rows for group in groups.groups] == [100] * 6 and groups.rows == 600
    read = pd.concat(groups.groups[4].frames(groups.columns, 30))
    pd.testing.assert_frame_equal(
        read.reset_index(drop=True), frames[1][100:200].reset_index(drop=True), check_dtype=False
    )
    assert read.index[0] == 100 and read.index.name == "row"


def test_rows_of_csv_are_the_same_as_of_parquet(tmp_path):
    frame = typed(300, 0)
    schema = Schema.infer(frame)
    frame.to_csv(tmp_path / "a.csv", index=False)
    groups = RowGroups(tmp_path / "a.csv", None, ())
    read = pd.concat(groups.groups[0].frames(groups.columns, 100))
    for one, other in zip(
        *(vars(schema.encode(table, schema.modeled)).values() for table in (read, frame))
    ):
        assert torch.equal(one, other)
    assert Schema.infer(groups.typed(read, ())).lines() == schema.lines()


@pytest.mark.parametrize(
    ("memory", "expected"),
    [("1GB", 10**9), ("1.5 MB", 1_500_000), ("2GiB", 2**31), (7, 7), ("3k", 3_000)],
)
def test_sizes_are_read(memory, expected):
    assert bytes_of(memory) == expected


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"x": [1.0]}, r"part1.parquet: no column 'y', which .*part0.parquet has"),
        ({"x": [1.0], "y": [1.0], "z": [1.0]}, r"part0.parquet: no column 'z', which .*part1"),
        ({"x": ["a"], "y": [1.0]}, r"part1.parquet: column 'x': expected numbers, as in .*part0"),
    ],
)
def test_files_whose_columns_differ_are_named(tmp_path, second, message):
    folder = folder_of(tmp_path / "in", [plain(40, 0)[0], pd.DataFrame(second)])
    with pytest.raises(TableError, match=message):
        cnf.fit_table(folder, memory="1GB", steps=5)
    if "expected numbers" not in message:
        with pytest.raises(TableError, match=message):
            cnf.fit_table(folder, steps=5)


def test_what_cannot_be_streamed_is_refused_in_one_line(many, tmp_path, capsys):
    for memory, message in (
        ("1MBB", "expected a size such as 1GB"),
        ("500kB", r"at least 1MB for 2 columns; got 1MB"),
    ):
        with pytest.raises(ValueError, match=message):
            cnf.fit_table(many, memory=memory, steps=5)
    with pytest.raises(ValueError, match=r"row group of .*one.parquet"):
        big = folder_of(tmp_path / "one", [plain(40_000, 0)[0]], 40_000)
        (big / "part0.parquet").rename(big / "one.parquet")
        cnf.fit_table(big, memory="4MB", steps=5)
    with pytest.raises(ValueError, match="got a data frame"):
        cnf.fit_table(plain(100, 0)[0], memory="1GB")
    with pytest.raises(ValueError, match="no weights"):
        cnf.fit_table(many, memory="1GB", weights="x")
    (tmp_path / "mixed").mkdir()
    plain(40, 0)[0].to_csv(tmp_path / "mixed" / "a.csv")
    plain(40, 0)[0].to_parquet(tmp_path / "mixed" / "b.parquet")
    with pytest.raises(TableError, match=r"b.parquet: expected files of one format, as .*a.csv"):
        cnf.fit_table(tmp_path / "mixed")
    assert main(["fit", f"{tmp_path}/*.nothing", "-o", str(tmp_path / "m.safetensors")]) == 2
    said = capsys.readouterr().err
    assert "found none" in said and said.count("\n") == 1
