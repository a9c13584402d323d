from __future__ import annotations

import itertools
import math

import pytest
import torch
from coding_toys import build, build_nested
from hypothesis import given, settings
from hypothesis import strategies as st

from ancestral.coding import (
    decode_stream,
    decode_stream_set,
    decode_values,
    encode_stream,
    encode_stream_set,
    encode_values,
    stream_log_prob,
    unpack,
)
from ancestral.coding.streams import _cut, _follow, default_lanes
from ancestral.errors import DataError, StreamError, UnsupportedError
from ancestral.order import Order
from ancestral.space import Space

WINDOW = 12
MODEL = build(Space((WINDOW,), 7), seed=5)


def text(length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 7, (length,), generator=torch.Generator().manual_seed(seed))


def bits(tokens: torch.Tensor, context: int) -> float:
    with torch.no_grad():
        return -stream_log_prob(MODEL, tokens, context).sum().item() / math.log(2)


@pytest.mark.parametrize("length", [0, 1, 5, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW, 100])
@pytest.mark.parametrize("context", [0, 1, 6, WINDOW - 1])
def test_round_trip_and_length(length, context):
    tokens = text(length)
    blob = encode_stream(MODEL, tokens, context, lanes=1, side=b"name")
    back, side = decode_stream(MODEL, blob)
    assert torch.equal(back, tokens) and side == b"name"
    ideal = bits(tokens, context)
    assert abs(unpack(blob).code_bits - ideal) <= 0.01 * ideal + 64


@pytest.mark.parametrize("context", [0, 4, 11])
@pytest.mark.parametrize("lanes", [1, 3])
def test_coding_sees_the_very_windows_that_scoring_sees(context, lanes):
    # Lengths alone would not tell: an untrained model gains little from its context.
    tokens, total = text(101), []

    def score(leaf, given, alive):
        each = leaf.log_prob(given).double()
        total.append(float((each if alive is None else torch.where(alive, each, 0.0)).sum()))
        return given

    parts = _cut(tokens, lanes)
    _follow(MODEL, score, [len(p) for p in parts], context, 2, parts)
    expected = sum(stream_log_prob(MODEL, p, context).sum().item() for p in parts)
    assert sum(total) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("kind", ["query", "masked"])
def test_other_networks(kind):
    model = build(Space((WINDOW,), 7), "raster", kind)
    tokens = text(70)
    blob = encode_stream(model, tokens, 5, lanes=3)
    assert torch.equal(decode_stream(model, blob)[0], tokens)


def test_length_of_a_long_stream_in_lanes():
    tokens = text(700)
    for lanes in (1, 4, 10):
        blob = encode_stream(MODEL, tokens, 6, lanes=lanes)
        assert torch.equal(decode_stream(MODEL, blob)[0], tokens)
        cuts = [i * 700 // lanes for i in range(lanes + 1)]
        ideal = sum(bits(tokens[a:b], 6) for a, b in itertools.pairwise(cuts))
        assert abs(unpack(blob).code_bits - ideal) <= 0.01 * ideal + 64


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(0, 40), max_size=6),
    st.integers(0, WINDOW - 1),
    st.one_of(st.none(), st.integers(1, 5)),
    st.integers(1, 4),
)
def test_several_streams(lengths, context, lanes, batch_size):
    streams = [text(length, seed) for seed, length in enumerate(lengths)]
    blob = encode_stream_set(MODEL, streams, context, lanes=lanes, batch_size=batch_size)
    back, _ = decode_stream_set(MODEL, blob)
    assert len(back) == len(streams) and all(map(torch.equal, back, streams))


def test_default_lanes():
    assert default_lanes([0, 10, 63 * WINDOW], WINDOW) == [1, 1, 1]
    assert default_lanes([64 * WINDOW * 3], WINDOW) == [3]
    assert default_lanes([64 * WINDOW * 500], WINDOW) == [64]
    assert sum(default_lanes([64 * WINDOW * 100] * 4, WINDOW)) == 64
    assert default_lanes([], WINDOW) == []


def test_progress_ends_at_the_total():
    seen: list[tuple[int, int]] = []
    blob = encode_stream(MODEL, text(50), 6, lanes=3, progress=lambda *p: seen.append(p))
    assert seen[-1] == (50, 50) and len(seen) > 10
    seen.clear()
    decode_stream(MODEL, blob, progress=lambda *p: seen.append(p))
    assert seen[-1] == (50, 50)


def test_refusals():
    tokens = text(30)
    blob = encode_stream(MODEL, tokens, 6)
    with pytest.raises(StreamError, match="written with another model"):
        decode_stream(build(Space((WINDOW,), 7), seed=6), blob)
    with pytest.raises(StreamError, match="holds long streams of symbols, this model codes separate items"):
        decode_values(MODEL, blob)
    with pytest.raises(StreamError, match="holds separate items, this model codes long streams"):
        decode_stream(MODEL, encode_values(MODEL, torch.zeros(1, WINDOW).long()))
    with pytest.raises(StreamError, match="2 streams, not one"):
        decode_stream(MODEL, encode_stream_set(MODEL, [tokens, tokens], 6))
    with pytest.raises(DataError, match="stream 1 has symbol 7 at place 2, the model knows 0 to 6"):
        encode_stream_set(MODEL, [tokens, torch.tensor([0, 1, 7])], 6)
    with pytest.raises(DataError, match="context of 12 symbols leaves nothing"):
        encode_stream(MODEL, tokens, WINDOW)
    for other in (
        build(Space((6,), 4, stop=3)),
        build(Space((6,), 4), Order.reverse(6)),
        build(Space((3,), (2, 3, 4))),
        build_nested("raster", "causal"),
    ):
        with pytest.raises(UnsupportedError, match="only a model of windows"):
            encode_stream(other, torch.zeros(3).long())


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_damage_is_refused(data):
    blob = encode_stream(MODEL, text(20), 6)
    broken = bytearray(blob)
    for bit in data.draw(st.sets(st.integers(0, 8 * len(blob) - 1), min_size=1, max_size=4)):
        broken[bit // 8] ^= 1 << bit % 8
    with pytest.raises(StreamError):
        decode_stream(MODEL, bytes(broken))
    with pytest.raises(StreamError):
        decode_stream(MODEL, blob[: data.draw(st.integers(0, len(blob) - 1))])


def test_other_probabilities_are_refused(monkeypatch):
    blob = encode_stream(MODEL, text(20), 6)
    forward = type(MODEL.head).forward

    def off_by_a_bit(self, features, sites):
        leaf = forward(self, features, sites)
        leaf.logits = leaf.logits * (1 + 2e-7)
        return leaf

    monkeypatch.setattr(type(MODEL.head), "forward", off_by_a_bit)
    monkeypatch.setattr("ancestral.coding.streams.Decode", lambda words: pytest.fail)
    with pytest.raises(StreamError, match="computes other probabilities"):
        decode_stream(MODEL, blob)
