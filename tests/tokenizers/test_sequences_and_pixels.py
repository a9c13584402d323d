"""Pixels, bytes, byte-pair codes, symbols: decode inverts encode, states restore, bad input is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ancestral.data import Images, Sequences, Text, read
from ancestral.errors import DataError
from ancestral.tokenizers import BPE, Bytes, Pixels, Symbols, Tokenizer

few = settings(max_examples=40, deadline=None)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
SAMPLE = Text(["the cat sat on the mat, the end\n", "naïve café — 猫が座った 😀😀", "12 + 30 = 42\t\r\n"] * 5)


def reborn(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer after a trip through JSON."""
    other = Tokenizer.from_state(json.loads(json.dumps(tokenizer.state())))
    assert other.space == tokenizer.space and other.state() == tokenizer.state()
    return other


@pytest.fixture(scope="module")
def bpe() -> BPE:
    return BPE(vocab=300, length=8).fit(SAMPLE)


@few
@given(st.sampled_from([1, 2, 3, 4]), st.sampled_from([2, 17, 256]), st.integers(1, 3), st.integers(0, 999))
def test_pixels_round_trip(channels, levels, n, seed):
    pixels = np.random.default_rng(seed).integers(0, levels, (n, 3, 5, channels), dtype=np.uint8)
    data = Images(pixels, levels=levels)
    tokenizer = Pixels().fit(data)
    values = tokenizer.encode(data)
    assert values.dtype == torch.int64
    assert tuple(values.shape) == (n, tokenizer.space.n, *tokenizer.space.event)
    assert tokenizer.space.sizes == levels and tokenizer.space.scalars == 15 * channels
    for one in (tokenizer, reborn(tokenizer)):
        back = one.decode(values)
        assert (back.native() == data.native()).all() and back.levels == levels


def test_pixels_refuse_what_they_cannot_hold():
    data = read(np.full((2, 2, 2), 3, np.uint8), labels=[0, 1])
    tokenizer = Pixels().fit(data)
    assert tokenizer.space.classes == 2 and tokenizer.space.sizes == 4
    bright = np.full((2, 2, 2), 3, np.uint8)
    bright[1, 0, 0] = 9
    with pytest.raises(DataError, match="image 1 has the value 9"):
        tokenizer.encode(read(bright))
    with pytest.raises(DataError, match="2x3x1"):
        tokenizer.encode(read(np.zeros((1, 2, 3), np.uint8)))
    with pytest.raises(DataError, match="takes images"):
        tokenizer.encode(SAMPLE)
    with pytest.raises(DataError, match="grey levels"):
        tokenizer.decode(torch.full((1, 4), 4))
    with pytest.raises(DataError, match="call fit"):
        Pixels().encode(data)


def test_a_partly_known_image():
    tokenizer = Pixels().fit(read(np.full((1, 2, 2), 16, np.uint8)))
    for hole in (np.array([[1, np.nan], [16, 0]]), np.ma.MaskedArray([[1, 5], [16, 0]], [[0, 1], [0, 0]])):
        values, known = tokenizer.given(hole)
        assert known.tolist() == [True, False, True, True] and values[known].tolist() == [1, 16, 0]
    with pytest.raises(DataError, match="shape"):
        tokenizer.given(np.zeros((3, 3)))


@few
@given(st.lists(st.binary(max_size=12), min_size=1, max_size=5))
def test_bytes_round_trip_streaming_and_padded(payloads):
    data = Text(payloads, binary=True)
    stream = Bytes(length=4).fit(data)
    assert stream.space.sizes == 256 and stream.space.stop is None
    assert reborn(stream).from_streams(stream.streams(data)).native() == payloads
    padded = Bytes(length=12, streaming=False).fit(data)
    assert padded.space.sizes == 257 and padded.space.stop == 256
    values = padded.encode(data)
    assert reborn(padded).decode(values).native() == payloads
    assert [padded.size(data, i) for i in range(len(data))] == [len(p) for p in payloads]


def test_too_long_an_item_is_named():
    tokenizer = Bytes(length=3, streaming=False).fit(Text(["ab"]))
    with pytest.raises(DataError, match="item 1 has 4 symbols where the model takes 3"):
        tokenizer.encode(Text(["abc", "abcd"]))
    assert Bytes(length=None, streaming=False).fit(Text(["ab", "abcde"])).space.n == 5
    with pytest.raises(DataError, match="length="):
        Bytes(length=None).fit(SAMPLE)
    with pytest.raises(DataError, match="use streams"):
        Bytes(length=4).fit(SAMPLE).encode(SAMPLE)
    with pytest.raises(DataError, match="no streams"):
        tokenizer.streams(Text(["a"]))


def test_the_beginning_of_a_padded_item_can_be_given():
    values, known = Bytes(length=4, streaming=False).fit(Text(["abcd"])).given("ab")
    assert values[:2].tolist() == [97, 98] and known.tolist() == [True, True, False, False]


@few
@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(1, 6), st.integers(1, 6))
def test_windows_cover_every_symbol(lengths, n, stride):
    data = Text([bytes(range(k)) for k in lengths], binary=True)
    tokenizer = Bytes(length=n).fit(data)
    joined = torch.cat(tokenizer.streams(data))
    if len(joined) < n:
        with pytest.raises(DataError, match="fewer than the window"):
            tokenizer.windows(data)
        return
    windows = tokenizer.windows(data, min(stride, n))
    inside = joined.unfold(0, n, 1).tolist()
    assert all(w in inside for w in windows.tolist())
    assert windows[0].tolist() == inside[0] and windows[-1].tolist() == inside[-1]
    assert set(windows.flatten().tolist()) == set(joined.tolist())


@few
@given(st.lists(words, min_size=1, max_size=4))
def test_byte_pair_codes_are_lossless_on_any_text(bpe, documents):
    data = Text(documents)
    streams = bpe.streams(data)
    assert all(len(s) == 0 or (s.min() >= 0 and s.max() < bpe.space.sizes) for s in streams)
    assert bpe.from_streams(streams).native() == documents
    assert bpe.size(data, 0) == len(documents[0].encode())


def test_byte_pair_codes_learn_and_restore(bpe):
    assert 256 < bpe.space.sizes <= 300
    again = reborn(bpe)
    assert [s.tolist() for s in again.streams(SAMPLE)] == [s.tolist() for s in bpe.streams(SAMPLE)]
    plain = sum(len(p) for p in SAMPLE.payloads)
    assert sum(len(s) for s in bpe.streams(SAMPLE)) < 0.8 * plain
    # Any codes at all have bytes, also where they cut a character in two.
    half = bpe.from_stream(bpe.streams(Text(["😀"]))[0][:1])
    assert half.payloads[0] == "😀".encode()[: len(half.payloads[0])]


def test_byte_pair_codes_padded():
    tokenizer = BPE(vocab=280, length=None, streaming=False).fit(SAMPLE)
    assert tokenizer.space.stop == tokenizer.space.sizes - 1
    assert reborn(tokenizer).decode(tokenizer.encode(SAMPLE)).native() == SAMPLE.native()


def test_byte_pair_codes_refuse():
    with pytest.raises(DataError, match="at least 256"):
        BPE(vocab=200)
    with pytest.raises(DataError, match="document 0 is not UTF-8"):
        BPE().fit(Text([b"\xff"]))


def test_a_long_document_is_encoded_in_pieces(bpe):
    text = "word line " * 30_000 + "\n" + "x" * 70_000
    assert bpe.from_streams(bpe.streams(Text([text]))).native() == [text]


symbols = st.lists(st.lists(st.one_of(st.integers(-9, 9), words), max_size=6), min_size=1, max_size=5)


@few
@given(symbols.filter(any))
def test_symbols_round_trip(items):
    data = Sequences(items)
    tokenizer = Symbols().fit(data)
    values = tokenizer.encode(data)
    assert tokenizer.space.stop == len({s for item in items for s in item})
    assert reborn(tokenizer).decode(values).native() == items


def test_an_unseen_symbol_is_named():
    tokenizer = Symbols().fit(Sequences([["a", "b"], ["b"]]))
    with pytest.raises(DataError, match="item 1 has the symbol 'c'"):
        tokenizer.encode(Sequences([["a"], ["c"]]))
    with pytest.raises(DataError, match="item 0 has 3 symbols"):
        tokenizer.encode(Sequences([["a", "a", "a"]]))


def test_an_unknown_kind_is_refused():
    with pytest.raises(DataError, match="not known here"):
        Tokenizer.from_state({"kind": "Nothing"})


def test_labels_become_classes():
    data = Sequences([["a"], ["b"]], labels=["x", "y"])
    tokenizer = reborn(Symbols().fit(data))
    assert tokenizer.space.classes == 2 and tokenizer.classes == ("x", "y")
