"""Frames of pandas, polars and Arrow: every type comes back from its cells, and the same kind comes out."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import ancestral
from ancestral.data import Table, read, sniff
from ancestral.data.cells import from_cells, to_cells
from ancestral.errors import DataError
from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.tokenizers import Columns, Tokenizer

MOMENT = dt.datetime(2021, 5, 6, 7, 8, 9, 123456)
ARRAYS = [
    pa.array([1, None, -3], pa.int64()),
    pa.array([1, None, 255], pa.uint8()),
    pa.array([True, None, False]),
    pa.array([0.1, None, float("nan"), -0.0, float("inf")]),
    pa.array([0.1, None, 2.5], pa.float32()),
    pa.array([np.float16(0.5), None, np.float16(2)], pa.float16()),
    pa.array(["é", None, "", "nan"]),
    pa.array(["x", None], pa.large_string()),
    pa.array([MOMENT, None], pa.timestamp("us")),
    pa.array([MOMENT, None], pa.timestamp("ns", "Europe/Oslo")),
    pa.array([dt.datetime(1600, 1, 1), None], pa.timestamp("s")),
    pa.array([dt.date(2020, 2, 29), None]),
    pa.array([dt.date(2020, 2, 29), None], pa.date64()),
    pa.array([dt.time(23, 59, 58, 123456), None], pa.time64("ns")),
    pa.array([dt.time(1, 2, 3), None], pa.time32("s")),
    pa.array([dt.timedelta(days=3, milliseconds=5), None], pa.duration("ms")),
    pa.array([Decimal("1.20"), None, Decimal("-1000.00")], pa.decimal128(10, 2)),
    pa.array(["a", None, "b", "a"]).dictionary_encode(),
    pa.array([None, None], pa.null()),
    pa.array([], pa.int32()),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: str(a.type))
def test_arrow_columns_come_back_from_their_cells(array):
    series = pd.Series(pd.arrays.ArrowExtensionArray(array))
    cells, spec = to_cells(series, "x")
    assert all(c is None or isinstance(c, str) for c in cells) and len(cells) == len(array)
    assert [c is None for c in cells] == array.is_null().to_pylist()
    back = from_cells(cells, json.loads(json.dumps(spec)))
    assert back.dtype == series.dtype
    ours = pa.array(back)
    ours = ours.combine_chunks() if isinstance(ours, pa.ChunkedArray) else ours
    if pa.types.is_dictionary(array.type):
        assert ours.to_pylist() == array.to_pylist()
    elif pa.types.is_floating(array.type):
        assert str(ours.to_pylist()) == str(array.to_pylist())
    else:
        assert ours.equals(array)


@pytest.mark.parametrize("array", [pa.array([b"x"]), pa.array([[1]])], ids=lambda a: str(a.type))
def test_types_that_are_no_plain_values_are_refused(array):
    with pytest.raises(DataError, match="column 'x' has the Arrow type"):
        read(pa.table({"x": array})).cells("x")


def mixed() -> pa.Table:
    """A row of every array that no length stands against."""
    arrays = [a for a in ARRAYS if len(a) >= 2]
    table = pa.table({f"c{i}": a.slice(0, 2) for i, a in enumerate(arrays)})
    return pa.concat_tables([table] * 4)


def test_arrow_tables_come_back_with_their_types():
    table = mixed()
    assert sniff(table) == "table"
    assert read(table).native().equals(table)
    tokenizer = Tokenizer.from_state(json.loads(json.dumps(Columns().fit(read(table)).state())))
    back = tokenizer.decode(*tokenizer.encode_with_escapes(read(table))).native()
    assert back.schema.equals(table.schema)
    assert str(back.to_pylist()) == str(table.to_pylist())
    batch = table.to_batches()[0]
    assert read(batch, "table").native().num_rows == batch.num_rows
    assert read(pa.RecordBatchReader.from_batches(batch.schema, [batch])).native().num_rows == batch.num_rows


def test_arrow_types_are_kept_in_parquet_and_in_streams(tmp_path):
    table = mixed().drop_columns(["c5"])  # parquet's float16 is as new as this test
    read(table).save(tmp_path / "x.parquet")
    import pyarrow.parquet as pq

    kept = pq.read_table(tmp_path / "x.parquet")
    dates = [f.name for f in table.schema if f.type == pa.date64()]
    assert kept.drop_columns(dates).to_pylist().__str__() == table.drop_columns(dates).to_pylist().__str__()
    few = table.select(["c0", "c6", "c9"])
    model = ancestral.fit(few, recipe="any-order", steps=2, width=8, depth=1, heads=1, quiet=True)
    assert model.decompress(model.compress(few)).equals(few)
    assert model.sample(5).schema.equals(few.schema)
    model.save(tmp_path / "m")
    assert ancestral.load(tmp_path / "m").sample(3).schema.equals(few.schema)
    # Another kind of frame with the same columns is scored alike.
    plain = few.to_pandas()
    assert np.allclose(model.log_prob(plain), model.log_prob(few))


def test_pandas_types_are_kept_by_the_verbs():
    frame = pd.DataFrame(
        {
            "a": pd.Series([1, None, 3, 4] * 5, dtype="Int16"),
            "b": pd.Categorical(["u", None, "v", "u"] * 5, categories=["v", "w", "u"], ordered=True),
            "c": pd.to_datetime(["2020-01-01", "2020-07-01", None, "2020-07-02"] * 5).tz_localize("Europe/Oslo"),
            "d": pd.Series([True, None, False, True] * 5, dtype="boolean"),
            "e": pd.Series(["x", None, "y", "z"] * 5, dtype=pd.ArrowDtype(pa.string())),
            "f": pd.Series([1.5, None, 2.5, 4.0] * 5, dtype="float32"),
        }
    )
    model = ancestral.fit(frame, recipe="any-order", steps=2, width=8, depth=1, heads=1, quiet=True)
    assert dict(model.sample(9).dtypes) == dict(frame.dtypes)
    assert dict(model.complete(frame).dtypes) == dict(frame.dtypes)
    pd.testing.assert_frame_equal(model.decompress(model.compress(frame)), frame)


def test_polars_frames_come_back_with_their_types():
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame(
        {
            "i": [1, None, 3],
            "s": ["x", None, "z"],
            "c": pl.Series(["u", "v", None], dtype=pl.Categorical),
            "e": pl.Series(["u", "w", None], dtype=pl.Enum(["u", "v", "w"])),
            "t": pl.Series([MOMENT, None, MOMENT]).dt.replace_time_zone("UTC"),
            "d": [dt.date(2020, 1, 2), None, dt.date(2021, 1, 1)],
            "x": [0.5, None, float("nan")],
        }
    )
    assert sniff(frame) == "table" and read(frame.lazy(), "table").columns == frame.columns
    assert read(frame).native().equals(frame)
    tokenizer = Columns().fit(read(frame))
    back = tokenizer.decode(*tokenizer.encode_with_escapes(read(frame))).native()
    assert isinstance(back, pl.DataFrame) and back.schema == frame.schema
    assert back.equals(frame)
    assert isinstance(read(frame).take([0]), Table) and read(frame).take([0]).native().equals(frame[:1])


def test_times_of_day_are_numbers_with_an_order():
    times = [dt.time(i % 24, i * 7 % 60, i % 60) for i in range(700)]
    table = pa.table({"t": pa.array(times, pa.time64("ns")), "u": pa.array(times, pa.time32("s"))})
    columns = Columns().fit(read(table))
    assert set(columns.kinds.values()) == {"datetime"}
    values, escapes = columns.encode_with_escapes(read(table))
    assert escapes == b"" and columns.decode(values).native().equals(table)


def test_names_that_are_numbers_stay_numbers():
    frame = pd.DataFrame(np.arange(12).reshape(4, 3))
    model = Model(Columns(), "raster", CausalTransformer(8, 1, 1), Categorical()).build(frame)
    pd.testing.assert_frame_equal(model.decompress(model.compress(frame)), frame)
    assert list(model.sample(2, given={1: 4}).columns) == [0, 1, 2]
    assert list(model.complete(frame.astype(float).mask(frame == 4)).columns) == [0, 1, 2]
    named = frame.set_axis(["0", "1", "2"], axis=1)
    assert list(model.complete(named).columns) == ["0", "1", "2"]


OBJECTS = [
    [Decimal("1.0"), Decimal("1.00"), None, Decimal("-2")],
    [dt.date(2020, 2, 29), None, dt.date(900, 1, 1)],
    [dt.time(1, 2, 3), None, dt.time(1, 2, 3, 5)],
    [uuid.UUID(int=7), None, uuid.UUID(int=2**100)],
    [3, None, -12],
    [0.5, None, -0.0],
]


@pytest.mark.parametrize("values", OBJECTS, ids=lambda values: type(values[0]).__name__)
def test_objects_of_one_plain_type_come_back_as_they_are(values):
    cells, spec = to_cells(pd.Series(values, dtype=object), "x")
    back = from_cells(cells, json.loads(json.dumps(spec)))
    assert back.dtype == object and list(map(repr, back)) == list(map(repr, values))


def test_columns_of_objects_are_dates_and_numbers_rather_than_words():
    days = [dt.date(2020, 1, 1) + dt.timedelta(days=i) for i in range(300)]
    table = Table.read(
        pd.DataFrame(
            {
                "day": pd.Series(days, dtype=object),
                "price": pd.Series([Decimal(i) / 4 for i in range(300)], dtype=object),
                "count": pd.Series([None, *range(1000, 1299)], dtype=object),
            }
        )
    )
    assert Columns().fit(table).kinds == {"day": "date", "price": "decimal", "count": "integer"}


def test_what_a_parquet_file_holds_comes_back_in_its_own_types(tmp_path):
    table = pa.table(
        {
            "gaps": pa.array([2**60 + 1, None, 3], pa.int64()),
            "day": pa.array([dt.date(2020, 2, 29), None, dt.date(1999, 1, 1)]),
            "clock": pa.array([dt.time(1, 2, 3), None, dt.time(0, 0)], pa.time64("us")),
            "price": pa.array([Decimal("1.20"), None, Decimal("-10.00")], pa.decimal128(10, 2)),
            "word": pa.array(["a", None, ""], pa.string()),
            "group": pa.array(["lo", "hi", "lo"]).dictionary_encode(),
            "nothing": pa.nulls(3),
        }
    )
    import pyarrow.parquet as pq

    pq.write_table(table, tmp_path / "x.parquet")
    data = read(tmp_path / "x.parquet")
    assert data.native()["gaps"].tolist()[0] == 2**60 + 1  # a float would have rounded it
    tokenizer = Columns().fit(data)
    tokenizer.decode_exact(*tokenizer.encode_exact(data)).save(tmp_path / "y.parquet")
    again = pq.read_table(tmp_path / "y.parquet")
    assert again.schema.equals(table.schema) and again.equals(table)


def test_a_named_index_is_a_column_of_a_parquet_file(tmp_path):
    frame = pd.DataFrame({"x": [1.5, 2.5]}, index=pd.Index(["a", "b"], name="key"))
    frame.to_parquet(tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet").columns == ["key", "x"]
