"""Files read chunk by chunk give what the same files give at once, and their tokenizer misses nothing."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tables_toys import TINY, fitted, made

import ancestral
from ancestral.data import Table, TableFiles, read, sniff
from ancestral.data.survey import survey
from ancestral.data.tablefiles import CHUNK
from ancestral.errors import DataError
from ancestral.fitting import sources
from ancestral.tables import sample_to, score_to
from ancestral.tokenizers import Columns
from ancestral.training import DiskItems, ItemOrder
from ancestral.training.disk import shuffled


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The rows of ``made(500)`` as parquet, csv, and in three parts of each."""
    folder, frame = tmp_path_factory.mktemp("files"), made(500)
    frame.to_parquet(folder / "all.parquet", index=False, row_group_size=120)
    frame.to_csv(folder / "all.csv", index=False)
    for i in range(3):
        part = frame.iloc[i * 200 : (i + 1) * 200]
        (folder / "parquet").mkdir(exist_ok=True)
        part.to_parquet(folder / "parquet" / f"{i}.parquet", index=False)
        part.to_csv(folder / f"part{i}.csv.gz", index=False)
    return folder


def test_chunks_are_the_rows_in_their_order(files):
    whole = read(files / "all.csv")
    for source in (files / "all.csv", files / "part*.csv.gz", [files / f"part{i}.csv.gz" for i in range(3)]):
        data = read(source, "table", chunk=70)
        assert isinstance(data, TableFiles) and len(data) == 500 and data.columns == whole.columns
        assert max(len(chunk) for chunk in data.chunks()) <= 200
        pd.testing.assert_frame_equal(data.loaded().frame, whole.frame)
        pd.testing.assert_frame_equal(data.at([499, 3]).frame, whole.take([3, 499]).frame)
    for source in (files / "all.parquet", files / "parquet", f"{files}/parquet/*.parquet"):
        data = read(source, chunk=70)
        assert isinstance(data, TableFiles) and len(data) == 500 and sniff(source) == "table"
        pd.testing.assert_frame_equal(data.native(), made(500))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), min_size=2, max_size=2),
        min_size=1,
        max_size=9,
    ),
    st.integers(1, 4),
)
def test_csv_chunks_read_what_the_reader_of_whole_files_reads(tmp_path_factory, rows, chunk):
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    frame = pd.DataFrame(np.array(rows, dtype=object), columns=["p", "q"], dtype=object)
    Table(frame, kind="csv").save(path)
    chunks = list(read(path, chunk=chunk, header=True, separator=",").chunks())
    assert [row for part in chunks for row in part.frame.values.tolist()] == rows
    assert all(part.separator == "," and part.header for part in chunks)


def test_the_survey_holds_every_word_and_both_extremes():
    rng = np.random.default_rng(0)
    n = 20_000
    frame = pd.DataFrame(
        {
            "word": [f"w{i}" for i in rng.zipf(1.5, n) % 300],
            "few": rng.choice([1, 2, 3], n),
            "wide": rng.normal(size=n) * 1e6,
            "text": [f"t{i}" for i in range(n)],
            "numeral": [str(i) for i in rng.integers(-(10**8), 10**8, n)],
        }
    )
    frame.loc[777, "few"] = 99
    frame.loc[17_003, "word"] = None
    chunks = [read(frame.iloc[i : i + 3000]) for i in range(0, n, 3000)]
    count, sample = survey(chunks, rows=500, words=400, numbers=50)
    rows = sample.frame
    assert count == n and 500 < len(rows) < 500 + 300 + 400 + 50 + 20
    assert set(frame["word"].dropna()) <= set(rows["word"].dropna()) and rows["word"].isna().any()
    assert 99 in set(rows["few"])
    for extreme in ("min", "max"):
        assert getattr(rows["wide"], extreme)() == getattr(frame["wide"], extreme)()
        assert getattr(rows["numeral"].astype(int), extreme)() == getattr(frame["numeral"].astype(int), extreme)()
    # The random part is uniform: a mean within four standard errors.
    assert abs(rows["wide"][:500].mean() - frame["wide"].mean()) < 4e6 / 500**0.5
    assert len(survey(chunks, rows=n)[1]) == n
    again = survey(chunks, rows=500, words=400, numbers=50)[1].frame
    pd.testing.assert_frame_equal(rows, again)


def test_training_items_on_disk_are_the_encoded_rows(files):
    data = read(files / "all.parquet", chunk=90)
    tokenizer = Columns().fit(data.sketch())
    source, held = sources(tokenizer, data, None, 0.1, seed=3)
    every = tokenizer.encode(data.loaded())
    ours = source.batch(torch.arange(len(source)))["values"]
    rest = held.batch(torch.arange(len(held)))["values"]
    assert 20 <= len(held) <= 90 and len(source) + len(held) == 500

    def bag(rows):
        return sorted(map(tuple, rows.tolist()))

    assert bag(torch.cat([ours, rest])) == bag(every)
    assert torch.equal(source.batch([7, 0, 7])["values"], ours[[7, 0, 7]])
    place = source._path
    assert place.exists() and place.stat().st_size == len(source) * tokenizer.space.n
    del source
    assert not place.exists()
    with pytest.raises(DataError, match="no items"):
        DiskItems(iter([]))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**62))
def test_the_shuffle_without_a_list_is_a_permutation(items, seed):
    found = shuffled(items, seed, torch.arange(items))
    assert sorted(found.tolist()) == list(range(items))
    assert torch.equal(shuffled(items, seed, torch.arange(items)[5:9]), found[5:9])


def test_the_shuffle_without_a_list_mixes(monkeypatch):
    monkeypatch.setattr(ItemOrder, "LISTED", 100)
    order = ItemOrder(10_000, 500, seed=1)
    pieces = [order.pieces(a, a + 500) for a in range(0, 20_000, 500)]
    first = torch.cat([index for piece in pieces[:20] for _, index in piece])
    second = torch.cat([index for piece in pieces[20:] for _, index in piece])
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(10_000))
    assert not torch.equal(first, second)
    for values in (first, second):  # neighbours are unrelated: correlation of standard deviation 0.01
        centred = values.double() - values.double().mean()
        assert abs((centred[1:] * centred[:-1]).mean() / centred.square().mean()) < 0.05
        halves = values[:5000].double().mean() - values[5000:].double().mean()
        assert abs(halves) < 5 * 2887 * (2 / 5000) ** 0.5


def test_a_fit_by_chunks_learns_like_a_fit_at_once(files):
    options = dict(recipe="any-order", steps=40, quiet=True, lr=1e-2, **{**TINY, "depth": 1})
    whole = ancestral.fit(files / "all.parquet", **options)
    parts = ancestral.fit(files / "parquet", chunk=64, **options)
    assert parts.tokenizer.kinds == whole.tokenizer.kinds
    test = made(200, seed=5)
    assert abs(parts.log_prob(test).mean() - whole.log_prob(test).mean()) < 1.5
    assert dict(parts.sample(3).dtypes) == dict(whole.sample(3).dtypes)
    csv = ancestral.fit(files / "part*.csv.gz", chunk=100, **{**options, "steps": 2})
    assert csv.sample(2).shape == (2, 5)


def test_samples_go_to_a_file_chunk_by_chunk(tmp_path):
    model = fitted()
    expected = model.sample(50, seed=4)
    for name in ("x.parquet", "x.tsv.gz"):
        assert sample_to(model, 50, tmp_path / name, chunk=17, seed=4) == tmp_path / name
        back = read(tmp_path / name).native()
        assert back["size"].tolist() == expected["size"].tolist()
        assert back["label"].tolist() == expected["label"].tolist()
    assert pq.ParquetFile(tmp_path / "x.parquet").num_row_groups == 3
    assert gzip.decompress((tmp_path / "x.tsv.gz").read_bytes()).count(b"colour\t") == 1
    assert model.sample(20, out=tmp_path / "y.csv", given={"size": 3}) == tmp_path / "y.csv"
    assert set(pd.read_csv(tmp_path / "y.csv")["size"]) == {3}


def test_plain_numbers_of_a_csv_are_numbers_in_parquet(tmp_path):
    rng = np.random.default_rng(0)
    n = 300
    frame = pd.DataFrame(
        {
            "whole": rng.integers(-9, 9, n),
            "wide": rng.integers(0, 10**6, n),
            "gaps": [None if i % 7 == 0 else str(i * i) for i in range(n)],
            "decimal": rng.normal(size=n).round(3),
            "truth": rng.random(n) < 0.5,
            "zip": [f"{i:05d}" for i in rng.integers(0, 99999, n)],
            "money": [f"${i}.50" for i in range(n)],
            "mixed": ["n/a" if i % 9 == 0 else str(i) for i in range(n)],
            "word": rng.choice(["a", "b", ""], n),
        }
    )
    frame.to_csv(tmp_path / "x.csv", index=False)
    model = ancestral.fit(tmp_path / "x.csv", recipe="any-order", width=8, depth=1, heads=1, steps=3, quiet=True)
    model.sample(40, as_dataset=True).save(tmp_path / "once.parquet")
    sample_to(model, 40, tmp_path / "parts.parquet", chunk=3)
    for name in ("once.parquet", "parts.parquet"):
        schema = pq.read_schema(tmp_path / name)
        types = {field.name: str(field.type).removeprefix("large_") for field in schema}
        assert types == dict(
            whole="int64",
            wide="int64",
            gaps="int64",
            decimal="double",
            truth="bool",
            zip="string",
            money="string",
            mixed="string",
            word="string",
        )
    assert pq.read_table(tmp_path / "once.parquet").equals(pq.read_table(tmp_path / "parts.parquet"))
    assert np.isfinite(np.asarray(model.log_prob(tmp_path / "once.parquet"))).all()


def test_files_are_scored_chunk_by_chunk(files, tmp_path):
    model = fitted()
    expected = model.log_prob(made(500), per_site=True)
    by_chunks = model.log_prob(read(files / "all.parquet", chunk=77), per_site=True)
    assert np.allclose(by_chunks, expected) and np.allclose(by_chunks.per_site, expected.per_site)
    assert by_chunks.bits_per_dim() == pytest.approx(expected.bits_per_dim())
    done = score_to(model, files / "parquet", tmp_path / "s.parquet", per_column=True)
    back = pd.read_parquet(tmp_path / "s.parquet")
    assert done["rows"] == 500 and done["kind"] == "exact" and done["mean_nats"] == pytest.approx(expected.mean())
    assert back["row"].tolist() == list(range(500)) and np.allclose(back["nats"], expected)
    columns = back[[f"nats of {name}" for name in made(1).columns]]
    assert np.allclose(columns.sum(axis=1), back["nats"])
    # Verbs that need all rows take them into memory.
    assert len(model.complete(read(files / "all.parquet", chunk=300))) == 500


def test_bad_files_are_one_clear_sentence(tmp_path, files):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n3,4\n")
    (tmp_path / "b.csv").write_text("x,z\n1,2\n")
    (tmp_path / "ragged.csv").write_text("x,y\n" + "1,2\n" * 300 + "3\n")
    (tmp_path / "open.csv").write_text('x,y\n1,2\n"a\nb",4\n5,"6\n7,8\n')
    (tmp_path / "twice.csv").write_text("x,x\n1,b\n")
    (tmp_path / "bytes.csv").write_bytes(b"x,y\n1,\xff\n")
    (tmp_path / "head.csv").write_text("x,y\n")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"x,y\n1,2\n" * 999)[:-9])
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    (tmp_path / "empty").mkdir()
    every = [
        (lambda: list(read([tmp_path / "a.csv", tmp_path / "b.csv"], "table").chunks()), "b.csv lacks the column 'y'"),
        (lambda: list(read(tmp_path / "ragged.csv", chunk=9).chunks()), "line 302 of .* 1 cells where the first .* 2"),
        (lambda: list(read(tmp_path / "twice.csv", chunk=9, header=True).chunks()), "two columns named 'x'"),
        (lambda: list(read(tmp_path / "open.csv", chunk=9).chunks()), "line 5 of .*a quote opens there"),
        (lambda: list(read(tmp_path / "bytes.csv", chunk=9).chunks()), "not utf-8 text: byte 0xff"),
        (lambda: list(read(tmp_path / "head.csv", chunk=9, header=True).chunks()), "there are no rows in"),
        (lambda: list(read(tmp_path / "cut.csv.gz", chunk=9).chunks()), "cannot be read to its end"),
        (lambda: list(read(tmp_path / "bad.parquet", chunk=9).chunks()), "not a readable parquet"),
        (lambda: read(tmp_path / "empty", "table"), "holds no table"),
        (lambda: read(made(5), chunk=9), "chunk= is for files"),
        (lambda: read(files / "all.csv", chunk=0).columns, "chunk=0"),
        (lambda: fitted().sample(5, out=tmp_path / "x.png"), "x.png has no suffix for tables"),
        (lambda: fitted().sample(0, out=tmp_path / "x.csv"), "cannot write 0 rows"),
        (lambda: score_to(fitted(), tmp_path / "a.csv", tmp_path / "s.csv"), "has no column 'colour'"),
    ]
    for ask, said in every:
        with pytest.raises(DataError, match=said) as caught:
            ask()
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "s.csv").exists() and not (tmp_path / "x.csv").exists()
    assert CHUNK > 1000
