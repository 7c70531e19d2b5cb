"""Tables: what is written reads back bit for bit, and what is wrong is told in one line with its
place."""

from __future__ import annotations

import csv
import gzip
import io
import os
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pyarrow import parquet

from cnf.files import atomic_path
from cnf.tables import (
    TableError,
    read_chunks,
    read_table,
    table_writer,
    write_table,
)

EXTENSIONS = ["csv", "csv.gz", "parquet", "npy", "npz"]
NAMED = ["csv", "csv.gz", "parquet", "npz"]
SHARED = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
    max_examples=40,
    derandomize=True,
)


def bits(values: np.ndarray) -> list[int]:
    values = np.asarray(values, dtype=np.float64)
    return np.where(np.isnan(values), np.nan, values).ravel().view(np.int64).tolist()


def put(folder: Path, content: str | bytes, name: str = "data.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(path: Path, **options) -> str:
    with pytest.raises(TableError) as caught:
        read_table(path, **options)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.isprintable(), "one line, and fit for any terminal"
    return message.removeprefix(str(path))


# A first character that is a byte order mark, a NUL or half of a surrogate pair has no place in a
# text file.
letters = st.characters(exclude_characters="\x00\ufeff", exclude_categories=["Cs"])
column_names = st.text(letters, min_size=1, max_size=8).filter(
    lambda name: not name.startswith("__index")
)


@st.composite
def tables(draw) -> pd.DataFrame:
    names = draw(st.lists(column_names, min_size=1, max_size=4, unique=True))
    rows = draw(st.integers(0, 6))
    values = draw(hnp.arrays(np.float64, (rows, len(names)), elements=st.floats(width=64)))
    return pd.DataFrame(values, columns=["a", *names[1:]] if all(map(is_float, names)) else names)


def is_float(text: str) -> bool:
    try:
        return float(text) is not None
    except ValueError:
        return False


@pytest.mark.parametrize("extension", EXTENSIONS)
@given(table=tables())
@SHARED
def test_what_is_written_reads_back_bit_for_bit(tmp_path, extension, table):
    path = tmp_path / f"table.{extension}"
    write_table(table, path)
    back = read_table(path, rows_needed=0, nonfinite="keep")
    assert bits(back.to_numpy()) == bits(table.to_numpy())
    assert list(back) == (
        list(table) if extension in NAMED else [f"x{i}" for i in range(table.shape[1])]
    )
    assert list(back.index) == list(range(len(table)))
    assert (back.dtypes == np.float64).all()


@pytest.mark.parametrize("extension", EXTENSIONS)
@given(data=st.data(), rows=st.integers(1, 23), chunk_rows=st.integers(1, 30))
@SHARED
def test_chunks_are_bounded_and_add_up_to_the_whole(tmp_path, extension, data, rows, chunk_rows):
    path = tmp_path / f"table.{extension}"
    table = pd.DataFrame(np.arange(rows * 3.0).reshape(rows, 3), columns=["x0", "x1", "x2"])
    cut = data.draw(st.integers(0, rows))
    with table_writer(path) as writer:
        writer.write(table[:cut])
        writer.write(table[cut:])
    chunks = list(read_chunks(path, chunk_rows=chunk_rows, columns=["x2", "x0"]))
    assert max(map(len, chunks)) <= chunk_rows
    pd.testing.assert_frame_equal(pd.concat(chunks), table[["x2", "x0"]], check_index_type=False)
    pd.testing.assert_frame_equal(read_table(path), table)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_table_without_rows_gives_one_empty_chunk(tmp_path, extension):
    path = tmp_path / f"table.{extension}"
    write_table(pd.DataFrame({"x0": [], "x1": []}, dtype=float), path)
    assert [(chunk.shape, list(chunk)) for chunk in read_chunks(path)] == [((0, 2), ["x0", "x1"])]
    assert "expected 1 or more rows, found 0" in refusal(path)


def test_reading_is_lazy(tmp_path):
    path = put(tmp_path, "a\n1\n2\n3\nfour\n")
    chunks = read_chunks(path, chunk_rows=2)
    assert next(chunks)["a"].tolist() == [1, 2]
    with pytest.raises(TableError, match="line 5"):
        next(chunks)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_integers_and_booleans_become_real(tmp_path, extension):
    path = tmp_path / f"table.{extension}"
    columns = {"x0": np.array([1, -2]), "x1": np.array([True, False])}
    if extension in ("npy", "npz"):
        columns = {name: column.astype(np.int8) for name, column in columns.items()}
    write_table(pd.DataFrame(columns), path)
    assert read_table(path).to_numpy().tolist() == [[1, 1], [-2, 0]]


def test_single_precision_stays_short(tmp_path):
    table = pd.DataFrame({"a": np.array([0.1, 1 / 3], dtype=np.float32)})
    write_table(table, tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text() == "a\n0.1\n0.33333334\n"
    assert (read_table(tmp_path / "table.csv").astype(np.float32) == table).all(axis=None)


def test_equal_tables_make_equal_bytes(tmp_path):
    table = pd.DataFrame({"a": [1.5, 2.5]})
    for extension in EXTENSIONS:
        write_table(table, tmp_path / f"table.{extension}")
        first = (tmp_path / f"table.{extension}").read_bytes()
        write_table(table, tmp_path / f"table.{extension}")
        assert (tmp_path / f"table.{extension}").read_bytes() == first


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfa,b\n1,2\n3,4\n",
        b"a,b\r\n1,2\r\n3,4\r\n",
        b"a,b\r1,2\r3,4",
        b'"a","b"\n"1","2"\n"3","4"\n',
        b"\na,b\n\n1,2\n\n\n3, 4 \n\n",
        b"a,b\n+1,2.\n3e0,0.4E+1\n",
        b"a;b\n1;2\n3;4\n",
        b"a\tb\n1\t2\n3\t4\n",
        b"a|b\r\n1|2\r\n3|4",
        "a,b\n1,2\n3,4\n".encode("utf-16"),
        b"\xfe\xff" + "a;b\n1;2\n3;4\n".encode("utf-16-be"),
    ],
    ids=[
        "byte order mark", "dos", "old mac", "quotes", "blank lines and blanks", "spellings",
        "semicolons", "tabs", "bars", "utf-16", "utf-16, big end first",
    ],
)  # fmt: skip
def test_dialects_of_csv(tmp_path, content):
    table = read_table(put(tmp_path, content))
    assert list(table) == ["a", "b"]
    assert table.to_numpy().tolist() == [[1, 2], [3, 4]]


def test_pandas_reads_what_is_written_and_the_other_way(tmp_path):
    table = pd.DataFrame({'with "quotes", commas': [0.1, np.nan], "two\nlines": [1e300, -0.0]})
    write_table(table, tmp_path / "ours.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "ours.csv"), table)
    table.to_csv(tmp_path / "theirs.csv.gz", index=False)
    pd.testing.assert_frame_equal(read_table(tmp_path / "theirs.csv.gz", nonfinite="keep"), table)


def test_extensions_may_shout(tmp_path):
    write_table(pd.DataFrame({"a": [1.0, 2.0]}), tmp_path / "DATA.CSV.GZ")
    assert gzip.decompress((tmp_path / "DATA.CSV.GZ").read_bytes()) == b"a\n1.0\n2.0\n"
    assert read_table(tmp_path / "DATA.CSV.GZ")["a"].tolist() == [1, 2]


def test_other_columns_may_hold_anything(tmp_path):
    path = put(tmp_path, b"name,a,b\ncaf\xe9,1,\n,2,x\n")
    assert read_table(path, columns=["a"])["a"].tolist() == [1, 2]
    assert read_table(path, ignore=["name", "b"])["a"].tolist() == [1, 2]
    pd.DataFrame({"name": ["x", None], "a": [1, 2]}, index=["p", "q"]).to_parquet(
        tmp_path / "data.parquet"
    )
    assert list(read_table(tmp_path / "data.parquet", ignore=["name"])) == ["a"]


def test_missing_cells_are_kept_on_request(tmp_path):
    path = put(tmp_path, "a,b\n1,\nNA,2\nnan, null \n-inf,N/A\n")
    expected = pd.DataFrame({"a": [1, np.nan, np.nan, -np.inf], "b": [np.nan, 2, np.nan, np.nan]})
    pd.testing.assert_frame_equal(read_table(path, nonfinite="keep"), expected)
    columns = {"a": pa.array([1, None]), "b": pa.array([None, True]), "c": pa.array([None, None])}
    parquet.write_table(pa.table(columns), tmp_path / "data.parquet")
    kept = read_table(tmp_path / "data.parquet", nonfinite="keep")
    assert bits(kept.to_numpy()) == bits([[1, np.nan, np.nan], [np.nan, 1, np.nan]])


@pytest.mark.parametrize(
    ("content", "options", "parts"),
    [
        ("", {}, ["empty", "expected a table"]),
        ("\n\n", {}, ["empty", "expected a header"]),
        ("a,b\n", {}, ["1 or more rows", "found 0"]),
        ("a\n1\n2\n", {"rows_needed": 3}, ["3 or more rows", "found 2"]),
        ("a,b\n1,2\n\n3,4,5\n", {}, ["line 4", "expected 2 cells", "found 3"]),
        ("a,b\n1,2,3\n1,2,3\n", {}, ["line 2", "expected 2 cells", "found 3"]),
        ("a,b\n1,2\n3\n", {}, ["line 3", "expected 2 cells", "found 1"]),
        ("a,b\n1,2\n3\n", {"nonfinite": "keep"}, ["line 3", "expected 2 cells", "found 1"]),
        ("a,b,a\n1,2,3\n", {}, ["'a' twice"]),
        ("a,b\n1,2\n", {"columns": ["b", "b"]}, ["'b' twice"]),
        (
            "length,width\n1,2\n",
            {"columns": ["lenght"]},
            ["no column 'lenght'", "did you mean 'length'?"],
        ),
        (
            "length,width\n1,2\n",
            {"ignore": ["z"]},
            ["no column 'z'", "the columns are 'length', 'width'"],
        ),
        ("a\n1\n", {"ignore": ["a"]}, ["no columns are left"]),
        ("a,b\n1,2\n3,north\n", {}, ["line 3", "column 'b'", "expected a number", "'north'"]),
        ('"a\n\nb",c\n1,2\n3,x\n', {}, ["line 5", "column 'c'", "'x'"]),
        ("a\n" + "z" * 1000 + "\n", {}, ["line 2", "'" + "z" * 37 + "...'"]),
        ("a\n1\n2014_01\n", {}, ["line 3", "'2014_01'"]),
        ("a,b\n1,2\n\n3,\n", {}, ["line 4", "column 'b'", "a missing value"]),
        ("a\n1\nNaN\n", {}, ["line 3", "column 'a'", "a missing value"]),
        ("a\n1\n-inf\n", {}, ["line 3", "column 'a'", "an infinity"]),
        (b"a\n1\ncaf\xe9\n", {}, ["line 3", "column 'a'", "'café'"]),
        (b"\xff\xfea\x00,\x00b\x00\n\x001", {}, ["cannot be read as csv"]),
        ("1.5,2\n3,4\n", {}, ["line 1", "header"]),
        ("1.5,,2\n3,4,5\n", {}, ["line 1", "header"]),
        ('a,b\n1,2\n"3,4\n5,6\n', {}, ["line 3", "quotes"]),
        ('a\n"' + "z" * 200_000 + '"\n', {}, ["line 2", "field larger"]),
    ],
)
def test_what_is_wrong_with_a_csv_is_told_with_its_place(tmp_path, content, options, parts):
    message = refusal(put(tmp_path, content), **options)
    assert [part for part in parts if part not in message] == [], message


def test_a_row_keeps_its_line_in_later_chunks(tmp_path):
    path = put(tmp_path, "a\n" + "1\n" * 10 + "x\n")
    with pytest.raises(TableError, match="line 12, column 'a'"):
        list(read_chunks(path, chunk_rows=3))
    write_table(pd.DataFrame({"a": [1.0] * 10 + [np.nan]}), tmp_path / "data.parquet")
    with pytest.raises(TableError, match="row 10, column 'a'"):
        list(read_chunks(tmp_path / "data.parquet", chunk_rows=3))


@pytest.mark.parametrize(
    ("name", "part"), [("none.csv", "no such file"), ("x.ods", "unknown extension")]
)
def test_files_that_cannot_be_opened(tmp_path, name, part):
    assert part in refusal(tmp_path / name)
    (tmp_path / "folder.csv").mkdir()
    assert "found a folder" in refusal(tmp_path / "folder.csv")


@pytest.mark.parametrize("extension", ["csv.gz", "parquet", "npy", "npz"])
@pytest.mark.parametrize("damage", ["cut", "noise", "text"])
def test_damaged_files(tmp_path, extension, damage):
    path = tmp_path / f"data.{extension}"
    write_table(
        pd.DataFrame(np.random.default_rng(0).normal(size=(500, 2)), columns=["a", "b"]), path
    )
    whole = path.read_bytes()
    path.write_bytes(
        {
            "cut": whole[: len(whole) // 2],
            "noise": np.random.default_rng(1).bytes(999),
            "text": b"a,b\n1,2\n",
        }[damage]
    )
    assert "cannot be read" in refusal(path)


@pytest.mark.parametrize(
    ("array", "parts"),
    [
        (np.zeros(3), ["two dimensions", "shape (3,)"]),
        (np.float64(3), ["two dimensions", "shape ()"]),
        (np.zeros((2, 2, 2)), ["two dimensions", "shape (2, 2, 2)"]),
        (np.array([["a", "b"]]), ["expected numbers", "<U1"]),
        (np.array([[1j]]), ["expected numbers", "complex128"]),
        (np.zeros((2, 2), dtype=[("a", float)]), ["expected numbers"]),
        (np.array([[1, "a"]], dtype=object), ["numbers", "object"]),
        (np.zeros((2, 0)), ["no columns are left"]),
    ],
)
def test_arrays_that_are_no_tables(tmp_path, array, parts):
    np.save(tmp_path / "data.npy", array)
    np.savez(tmp_path / "data.npz", X=array)
    for name in ("data.npy", "data.npz"):
        message = refusal(tmp_path / name)
        assert [part for part in parts if part.lower() not in message.lower()] == [], message


@pytest.mark.parametrize(
    ("arrays", "parts"),
    [
        (
            {"Y": np.zeros((2, 2)), "Z": np.zeros((2, 2))},
            [": expected an array X, found 'Y', 'Z'"],
        ),
        ({"X": np.zeros((2, 2)), "columns": np.array(["a"])}, ["expected 2 names", "found 1"]),
        ({"X": np.zeros((2, 2)), "columns": np.array(["a", "a"])}, ["'a' twice"]),
        ({"X": np.zeros((2, 2)), "columns": np.array([1, 2])}, ["list of names", "int64"]),
        ({"X": np.zeros((2, 2)), "columns": np.array(["a", "b"], dtype=object)}, ["dtype=str"]),
        (
            {"X": np.array([[1.0, np.nan]]), "columns": np.array(["a", "b"])},
            ["row 0", "column 'b'"],
        ),
    ],
)
def test_archives_that_are_no_tables(tmp_path, arrays, parts):
    np.savez(tmp_path / "data.npz", **arrays)
    message = refusal(tmp_path / "data.npz")
    assert [part for part in parts if part not in message] == [], message


def test_parquet_columns_that_are_no_numbers(tmp_path):
    path = tmp_path / "data.parquet"
    pd.DataFrame({"a": [1.0], "city": ["Oslo"]}).to_parquet(path)
    assert "column 'city': expected numbers, found the type" in refusal(path)
    parquet.write_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), path)
    assert "'a' twice" in refusal(path)


names_of_files = st.sampled_from([f"data.{extension}" for extension in EXTENSIONS])


@given(name=names_of_files, content=st.binary(max_size=200), keep=st.booleans())
@settings(SHARED, max_examples=200)
def test_random_bytes_are_refused_in_one_line(tmp_path, name, content, keep):
    read_or_refuse(put(tmp_path, content, name), keep)


pieces = st.sampled_from(
    ["", "a", "b", "1", "-2.5", "1e9", '"', '""', ",", "\n", "\r\n", "\r", " ", "\x00", "é", "NA"]
)


@given(content=st.lists(pieces, max_size=30).map("".join), keep=st.booleans())
@settings(SHARED, max_examples=300)
def test_scrambled_csv_is_read_or_refused(tmp_path, content, keep):
    read_or_refuse(put(tmp_path, content), keep)


@pytest.mark.parametrize("extension", ["csv.gz", "parquet", "npy", "npz"])
@given(data=st.data(), keep=st.booleans())
@settings(SHARED, max_examples=100)
def test_files_with_a_few_wrong_bytes_are_read_or_refused(tmp_path, extension, data, keep):
    path = tmp_path / f"data.{extension}"
    write_table(pd.DataFrame({"a": [1.0, 2.0, 3.5], "b": [0.1, 0.2, 0.4]}), path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    read_or_refuse(put(tmp_path, bytes(content), path.name), keep)


def read_or_refuse(path: Path, keep: bool) -> None:
    try:
        table = read_table(path, nonfinite="keep" if keep else "reject")
    except TableError as error:
        assert str(error).isprintable()
    else:
        assert len(table) and len(table.columns)
        assert keep or np.isfinite(table.to_numpy()).all()


@given(notes=st.lists(st.text(st.sampled_from('ab1",\n\r.;'), max_size=4), max_size=5))
@SHARED
def test_the_line_named_is_the_line_of_the_cell(tmp_path, notes):
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(["note", "value"])
    writer.writerows([note, "1"] for note in notes)
    line = 1 + buffer.getvalue().replace("\r\n", "\n").replace("\r", "\n").count("\n")
    writer.writerow(["", "wrong"])
    path = put(tmp_path, buffer.getvalue())
    assert f"line {line}, column 'value'" in refusal(path, columns=["value"])


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_failure_leaves_nothing_behind(tmp_path, extension):
    path = tmp_path / f"table.{extension}"
    with pytest.raises(ZeroDivisionError), table_writer(path) as writer:
        writer.write(pd.DataFrame({"a": [1.0]}))
        raise ZeroDivisionError
    assert entries(tmp_path) == []


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_failure_leaves_the_old_file_as_it_was(tmp_path, extension):
    path = put(tmp_path, b"old", f"table.{extension}")
    with pytest.raises(KeyboardInterrupt), table_writer(path) as writer:
        writer.write(pd.DataFrame({"a": [1.0]}))
        assert path.read_bytes() == b"old"
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert entries(tmp_path) == [path.name]


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_frames_must_agree_and_there_must_be_one(tmp_path, extension):
    path = tmp_path / f"table.{extension}"
    with (
        pytest.raises(TableError, match=r"expected the columns \['a'\], found \['b'\]"),
        table_writer(path) as writer,
    ):
        writer.write(pd.DataFrame({"a": [1.0]}))
        writer.write(pd.DataFrame({"b": [1.0]}))
    with pytest.raises(TableError, match="nothing was written"), table_writer(path):
        pass
    assert entries(tmp_path) == []


def test_arrays_hold_no_text(tmp_path):
    with pytest.raises(TableError, match="write csv or parquet"):
        write_table(pd.DataFrame({"a": [1.0], "b": ["x"]}), tmp_path / "table.npz")
    assert entries(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("table.xls", "unknown extension"),
        ("none/table.csv", "No such file"),
        ("folder.csv", "it is a folder"),
    ],
)
def test_what_cannot_be_written_is_told_before_any_work(tmp_path, name, part):
    (tmp_path / "folder.csv").mkdir()
    worked = False
    with pytest.raises(TableError, match=part) as caught, table_writer(tmp_path / name):
        worked = True
    assert not worked
    assert str(caught.value).startswith(str(tmp_path / name))
    assert str(caught.value).isprintable()
    assert entries(tmp_path) == ["folder.csv"]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_closed_to_writing(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(TableError, match="Permission denied"):
        write_table(pd.DataFrame({"a": [1.0]}), tmp_path / "table.csv")


def test_atomic_path_keeps_name_links_and_usual_permissions(tmp_path):
    target, link = put(tmp_path, b"old", "model.tar.gz"), tmp_path / "link"
    link.symlink_to(target)
    with atomic_path(link) as path:
        assert path.name == target.name
        path.write_bytes(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"
    assert link.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(
        put(tmp_path, b"", "other").stat().st_mode
    )
    assert entries(tmp_path) == ["link", "model.tar.gz", "other"]


def test_an_error_of_the_work_passes_through_unchanged(tmp_path):
    with (
        pytest.raises(ValueError, match=r"^mine$") as caught,
        table_writer(tmp_path / "table.csv"),
    ):
        raise ValueError("mine")
    assert type(caught.value) is ValueError
