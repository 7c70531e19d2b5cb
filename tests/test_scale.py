"""Scores do not depend on how a table is split, nor on who scores the parts."""

import os
import pickle
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

import cnf
from cnf.cli import main
from cnf.flows import ErrorModel
from cnf.rows import RunningMean
from cnf.scale import ScoredFolder, ScoreSummary
from cnf.scale.engines import ENGINES, on_this_machine
from cnf.tables import FitMetadata, Schema, TableError, TableFlow


def rows(count: int) -> pd.DataFrame:
    random = np.random.default_rng(0)
    x = random.normal(size=count)
    return pd.DataFrame(
        {
            "x": x,
            "y": np.where(random.random(count) < 0.2, np.nan, random.normal(size=count) + x),
            "n": random.poisson(3, count),
            "kind": random.choice(["a", "b"], count),
        }
    )


def stirred(model):
    """The model with weights that move rows far, and second looks for some of them."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scale")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        typed = stirred(TableFlow(Schema.infer(rows(300)), hidden=(64, 64)).with_imputer())
        plain = stirred(TableFlow(Schema.infer(rows(300)[["x"]]), cnf.CNF(1, hidden=(64, 64))))
    for model in (typed, plain):
        model.metadata = FitMetadata(rows=300, valid_rows=0)
        model.flow.solver = cnf.Grid.uniform(6, "adams")
        model.flow.error_model = ErrorModel(tolerance=1e-4)
    typed.save(folder / "typed.safetensors")
    plain.save(folder / "plain.safetensors")
    (folder / "in").mkdir()
    for k, start in enumerate((0, 37, 60)):
        part = rows(100)[start : (37, 60, 100)[k]]
        part.to_parquet(folder / "in" / f"part{k}.parquet")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["typed", "plain"])
def test_scores_are_bit_equal_however_a_table_is_split(room, name):
    score, table = cnf.Scorer(room / f"{name}.safetensors"), rows(150)
    whole = score(table)
    nfe = score.model.evaluate(table).nfe
    assert nfe.max() > nfe.min(), "no row was looked at twice"
    for size, end in ((1, 3), (20, 40), (70, 150)):
        parts = [score(table[i : i + size]) for i in range(0, end, size)]
        joined = pd.concat(parts)
        pd.testing.assert_frame_equal(joined, whole[: len(joined)], check_exact=True)


@pytest.mark.slow
def test_scores_of_a_fitted_typed_table_are_bit_equal_in_any_order(tmp_path):
    table, random = rows(600), np.random.default_rng(1)
    table["m"], table["z"] = random.poisson(100, 600), random.normal(size=600)
    table["kinds"] = random.choice(list("cdef"), 600)
    cnf.fit_table(table, steps=3).save(tmp_path / "m.safetensors")
    score = cnf.Scorer(tmp_path / "m.safetensors")
    for order in (np.arange(600)[::-1], random.permutation(600)):
        again = score(table.iloc[order]).sort_index()
        pd.testing.assert_frame_equal(again, score(table), check_exact=True)


@pytest.mark.slow
def test_a_batch_comes_back_as_its_kind(room):
    score, table = cnf.Scorer(room / "typed.safetensors"), rows(40).set_index(np.arange(40)[::-1])
    expected = score(table)
    assert list(expected) == [*table, "log_prob", "error"] and expected.index.equals(table.index)
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    batch = score(arrow.to_batches()[0])
    assert isinstance(batch, pa.RecordBatch) and batch.num_columns == 6
    found = [
        score({name: cells.to_numpy() for name, cells in table.items()})["log_prob"],
        score(pl.from_arrow(arrow))["log_prob"].to_numpy(),
        score(arrow)["log_prob"].to_numpy(),
        batch["log_prob"].to_numpy(),
    ]
    for log_prob in found:
        np.testing.assert_array_equal(log_prob, expected.log_prob)


def test_a_scorer_travels_and_knows_no_state(room):
    score = cnf.Scorer(room / "typed.safetensors")
    score(rows(3))
    assert len(pickle.dumps(score)) < 500
    again = pickle.loads(pickle.dumps(score))
    assert again == score and again.model is score.model
    with pytest.raises(TableError, match="'error' already"):
        score(rows(3).assign(error=1.0))
    with pytest.raises(TableError, match="got list"):
        score([1.0, 2.0])


def test_draws_are_those_of_seed_and_batch(room):
    scorer, table = cnf.Scorer(room / "typed.safetensors"), rows(60)
    first, again, other = scorer.impute(table), scorer.impute(table), scorer.impute(table, seed=1)
    pd.testing.assert_frame_equal(first, again)
    assert first.y.notna().all() and not first.y.equals(other.y)
    known = table.y.notna()
    np.testing.assert_allclose(first.y[known], table.y[known])
    ids = {"id": np.arange(50)}
    drawn = scorer.sample(ids)
    assert list(drawn) == ["id", "x", "y", "n", "kind"] and len(drawn["x"]) == 50
    assert not np.array_equal(drawn["x"], scorer.sample({"id": np.arange(50, 100)})["x"])


def run(room, data, output, **options):
    summary = ScoreSummary()
    for part in ScoredFolder(room / "typed.safetensors", str(data), output).run(**options):
        summary.merge(part)
    return summary


def joined(folder: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))])


@pytest.mark.slow
def test_a_folder_is_scored_file_by_file_and_goes_on_where_it_stopped(
    room, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(ENGINES, "local", lambda function, tasks, _: map(function, tasks))
    output = tmp_path / "out"
    command = "score", room / "typed.safetensors", room / "in" / "*.parquet", "-o", output
    assert main([*map(str, command), "--json"]) == 0
    whole = cnf.Scorer(room / "typed.safetensors")(rows(100))
    np.testing.assert_array_equal(joined(output).log_prob, whole.log_prob)
    times = {path: path.stat().st_mtime_ns for path in output.glob("*.parquet")}
    (output / "part1.parquet").unlink()
    summary = run(room, room / "in", output)
    after = {path: path.stat().st_mtime_ns for path in output.glob("*.parquet")}
    assert [path.name for path in times if times[path] != after[path]] == ["part1.parquet"]
    assert summary.rows == 100 and summary.answers.mean == pytest.approx(whole.log_prob.mean())
    other = ScoredFolder(room / "plain.safetensors", str(room / "in"), output)
    with pytest.raises(ValueError, match="scores of another model"):
        other.run()
    with pytest.raises(TableError, match="found none"):
        run(room, tmp_path / "*.csv", output)


def kill_once(marker: Path, task: int) -> int:
    """The square of a task; the first worker that comes to task 1 is killed."""
    if task == 1 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return task**2


def kill_always(task: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_worker_costs_its_task_alone(tmp_path):
    function = partial(kill_once, tmp_path / "killed")
    assert sorted(on_this_machine(function, range(4), 2)) == [0, 1, 4, 9]
    assert (tmp_path / "killed").exists()


@pytest.mark.slow
def test_workers_that_are_always_killed_are_given_up():
    with pytest.raises(ValueError, match="killed 3 times"):
        list(on_this_machine(kill_always, [0], 1))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("engine", ["local", "ray", "dask"])
def test_all_engines_give_the_same_scores(room, tmp_path, engine):
    pytest.importorskip({"ray": "ray", "dask": "distributed"}.get(engine, "cnf"))
    run(room, room / "in", tmp_path / "out", engine=engine, workers=2)
    whole = cnf.Scorer(room / "typed.safetensors")(rows(100))
    np.testing.assert_array_equal(joined(tmp_path / "out").log_prob, whole.log_prob)


@pytest.fixture(scope="module")
def in_spark(room):
    """The rows of the folder in Spark, for two workers; a task may fail three times."""
    sql = pytest.importorskip("pyspark.sql")
    if shutil.which("java") is None:
        pytest.skip("no Java here: apt-get install default-jre-headless")
    options = {"spark.ui.enabled": False, "spark.sql.execution.arrow.maxRecordsPerBatch": 10}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        builder = sql.SparkSession.builder.master("local[2,4]").config(map=options)
        session = builder.getOrCreate()
        yield session.read.parquet(str(room / "in"))
        session.stop()


def scored_schema(table):
    return table.selectExpr("*", "double(NULL) AS log_prob", "double(NULL) AS error").schema


def assert_scored(table, room):
    """All rows are there, in any order, with their scores."""
    whole = cnf.Scorer(room / "typed.safetensors")(rows(100)).sort_values("x")
    found = table.toPandas().sort_values("x")
    for name in ("x", "log_prob", "error"):
        np.testing.assert_array_equal(found[name], whole[name])


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("method", ["mapInPandas", "mapInArrow"])
def test_spark_gives_the_same_scores_however_it_splits_a_table(room, in_spark, method):
    score, schema = cnf.Scorer(room / "typed.safetensors"), scored_schema(in_spark)
    for parts in (1, 3, 7):
        scored = getattr(in_spark.repartition(parts), method)(
            lambda some: map(score, some), schema
        )
        assert_scored(scored, room)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_row_without_an_answer_is_null_in_spark(room, in_spark):
    score, schema = cnf.Scorer(room / "typed.safetensors"), scored_schema(in_spark)
    unknown = in_spark.selectExpr("IF(x > 0, x, NULL) AS x", "y", "n", "kind")
    scored = unknown.mapInPandas(lambda some: map(score, some), schema)
    assert scored.filter("log_prob IS NULL").count() == (rows(100).x <= 0).sum()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_spark_imputes_missing_cells(room, in_spark):
    impute = cnf.Scorer(room / "typed.safetensors").impute
    imputed = in_spark.mapInPandas(lambda some: map(impute, some), in_spark.schema)
    assert in_spark.filter("y IS NULL").count() > imputed.filter("y IS NULL").count() == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_spark_repeats_the_task_of_a_killed_worker(room, in_spark, tmp_path):
    score, killed = cnf.Scorer(room / "typed.safetensors"), tmp_path / "killed"

    def kill_once(batches):
        for batch in batches:
            yield score(batch)
            if not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)

    scored = in_spark.repartition(3).mapInPandas(kill_once, scored_schema(in_spark))
    assert_scored(scored, room)
    assert killed.exists()


def test_means_of_parts_are_those_of_the_whole():
    values, parts = torch.randn(50, generator=torch.Generator().manual_seed(0)), RunningMean()
    for part in values.double().split(7):
        other = RunningMean()
        other.add(part)
        parts.merge(other)
    assert parts.mean == pytest.approx(values.double().mean().item())
    assert parts.deviations == pytest.approx(values.double().var(correction=0).item() * 50)
