from __future__ import annotations

import math
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from coding_toys import LogisticMixture, build, build_nested, ideal_bits, network, sample
from hypothesis import given, settings
from hypothesis import strategies as st
from test_container import reseal

from ancestral.coding import decode, decode_values, encode_values, pack, unpack
from ancestral.coding.prints import fingerprint, probe, probe_values
from ancestral.errors import DataError, StreamError, UnsupportedError
from ancestral.generator import Generator
from ancestral.heads.categorical import Categorical
from ancestral.heads.gaussian import GaussianMixture
from ancestral.networks.transformer import CausalTransformer
from ancestral.order import Order, RandomOrders
from ancestral.space import Condition, Space

GRID = Space((2, 3), 4)
RAGGED = Space((5,), (3, 1, 7, 2, 4))
TEXT = Space((8,), 5, stop=4)
SCALES = Space((21,), 4)

CASES = {
    "causal raster": lambda: build(GRID),
    "causal random": lambda: build(GRID, Order.random(6)),
    "causal neighbour": lambda: build(Space((2, 2), 4), Order([0, 1, 1, 2]), "query"),
    "causal scales": lambda: build(SCALES, Order.scales([1, 2, 4])),
    "causal frames": lambda: build(GRID, Order.frames(2, 3)),
    "causal single": lambda: build(GRID, Order.single(6)),
    "causal stop": lambda: build(TEXT),
    "causal stop reversed": lambda: build(TEXT, Order.reverse(8)),
    "causal ragged": lambda: build(RAGGED),
    "causal mixture": lambda: build(Space((2, 3), 16, ordinal=True), head=LogisticMixture(3)),
    "causal large": lambda: build(Space((4,), 4096)),
    "causal one category": lambda: build(Space((4,), 1)),
    "query raster": lambda: build(GRID, "raster", "query"),
    "query shrinking sets": lambda: build(GRID, Order([1, 0, 0, 0, 2, 1]), "query"),
    "query ragged": lambda: build(RAGGED, Order.random(5), "query"),
    "query stop": lambda: build(TEXT, "raster", "query"),
    "masked raster": lambda: build(GRID, "raster", "masked"),
    "masked sets": lambda: build(GRID, Order.masks(6, 3), "masked"),
    "masked ragged": lambda: build(RAGGED, Order.masks(5, 2), "masked"),
    "nested causal": lambda: build_nested("raster", "causal"),
    "nested sets": lambda: build_nested(Order.masks(6, 3), "query"),
    "nested masked": lambda: build_nested(Order.random(6), "masked", "query"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("count", [0, 1, 13])
def test_round_trip(case, count):
    generator = CASES[case]()
    values = sample(generator, count) if count else torch.zeros(0, generator.space.n, *generator.space.event).long()
    blob = encode_values(generator, values, batch_size=5, side=b"side \x00\xff")
    back, side = decode_values(generator, blob)
    assert torch.equal(back, values) and back.dtype == torch.int64 and side == b"side \x00\xff"


@pytest.mark.parametrize("case", CASES)
def test_length_is_minus_log2_p(case):
    generator = CASES[case]()
    values = sample(generator, 400)
    blob = encode_values(generator, values)
    ideal = ideal_bits(generator, values)
    assert abs(unpack(blob).code_bits - ideal) <= 0.01 * ideal + 64
    assert len(blob) - unpack(blob).code_bits / 8 <= 48  # the header is small enough for small data
    assert torch.equal(decode_values(generator, blob)[0], values)


def test_any_values_come_back_however_improbable():
    generator = build(RAGGED)
    sizes = RAGGED.site_sizes()
    values = torch.stack([torch.zeros(5).long(), sizes - 1, sizes // 2])
    assert torch.equal(decode_values(generator, encode_values(generator, values))[0], values)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_round_trip_in_any_order_and_batch_size(data):
    generator = build(GRID, Order.random(6, seed=1), "query")
    rank = data.draw(st.lists(st.integers(0, 5), min_size=6, max_size=6))
    n, batch = data.draw(st.integers(0, 7)), data.draw(st.integers(1, 8))
    values = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=6 * n, max_size=6 * n))).reshape(n, 6).long()
    blob = encode_values(generator, values, order=Order(rank), batch_size=batch)
    assert torch.equal(decode_values(generator, blob)[0], values)


def test_another_order_is_stored_and_the_scoring_order_is_not():
    generator = Generator(network("query"), build(GRID).head, RandomOrders("raster")).build(GRID)
    values = sample(generator, 50)
    plain = encode_values(generator, values, order=Order.raster(6))
    assert unpack(plain).sections[1] == b""
    order = Order([5, 3, 3, 1, 1, 0])
    blob = encode_values(generator, values, order=order)
    ideal = ideal_bits(generator, values, order)
    assert abs(unpack(blob).code_bits - ideal) <= 0.01 * ideal + 64
    assert torch.equal(decode_values(generator, blob)[0], values)


def test_labels_are_withheld_or_stored():
    generator = build(Space((2, 3), 4, classes=3))
    labels = torch.arange(60) % 4 - 1
    values = sample(generator, 60, condition=Condition(label=labels))
    told = Condition(label=labels)
    with_labels = encode_values(generator, values, told)
    back = decode(generator, with_labels)
    assert torch.equal(back.values, values) and back.labels is not None and torch.equal(back.labels, labels)
    ideal = ideal_bits(generator, values, condition=told)
    assert abs(unpack(with_labels).code_bits - ideal) <= 0.01 * ideal + 64
    assert 8 * len(unpack(with_labels).sections[2]) <= 60 * math.log2(4) + 64
    without = decode(generator, encode_values(generator, values))
    assert torch.equal(without.values, values) and without.labels is None
    with pytest.raises(DataError, match="labels run from -1 to 3, the model knows 0 to 2"):
        encode_values(generator, values[:5], Condition(label=torch.tensor([-1, 0, 1, 2, 3])))
    with pytest.raises(DataError, match="4 rows of label for 60 items"):
        encode_values(generator, values, Condition(label=labels[:4]))


def test_vectors_must_be_given_again():
    generator = build(Space((2, 3), 4, vector=2))
    told = Condition(vector=torch.randn(9, 2))
    values = sample(generator, 9, condition=told)
    blob = encode_values(generator, values, told, batch_size=4)
    assert torch.equal(decode_values(generator, blob, told)[0], values)
    for other in (None, Condition(vector=told.vector + 1e-6)):  # type: ignore[operator]
        with pytest.raises(StreamError, match="give the condition that the encoder was given"):
            decode_values(generator, blob, other)


def test_training_mode_threads_and_progress():
    torch.manual_seed(0)
    generator = Generator(CausalTransformer(16, 1, 2, dropout=0.5), Categorical()).build(GRID).train()
    values, before = sample(generator, 6), torch.get_num_threads()
    seen: list[tuple[int, int]] = []
    blob = encode_values(generator, values, batch_size=4, progress=lambda *p: seen.append(p))
    assert seen[-1] == (36, 36) and [d for d, _ in seen] == sorted(d for d, _ in seen) and len(seen) > 4
    seen.clear()
    try:
        torch.set_num_threads(before + 1)  # the decoder goes back to the writer's number, and then to its own
        decode_values(generator, blob, progress=lambda *p: seen.append(p))
        assert torch.get_num_threads() == before + 1 and generator.training and seen[-1] == (36, 36)
    finally:
        torch.set_num_threads(before)
    assert unpack(blob).numbers[0] == before


# -- what is refused


def test_unlike_data_are_refused():
    generator, text = build(RAGGED), build(TEXT)
    with pytest.raises(DataError, match="item 1 has value 1 at site 1, which has the categories 0 to 0 only"):
        encode_values(generator, torch.tensor([[0, 0, 0, 0, 0], [0, 1, 0, 0, 0]]))
    with pytest.raises(DataError, match="value -1"):
        encode_values(generator, torch.tensor([[0, 0, -1, 0, 0]]))
    with pytest.raises(DataError, match=r"shape \(1, 4\), the model codes \[items, 5\]"):
        encode_values(generator, torch.zeros(1, 4).long())
    with pytest.raises(DataError, match="float32"):
        encode_values(generator, torch.zeros(1, 5))
    with pytest.raises(DataError, match="item 0 goes on at site 3 behind the stop symbol 4"):
        encode_values(text, torch.tensor([[0, 1, 4, 2, 4, 4, 4, 4]]))


def test_real_values_are_refused_with_the_alternatives():
    torch.manual_seed(0)
    generator = Generator(network(), GaussianMixture(2)).build(Space((4,), 0))
    with pytest.raises(UnsupportedError, match="density cannot be coded losslessly; quantise the data"):
        encode_values(generator, torch.zeros(2, 4))
    with pytest.raises(UnsupportedError, match="density"):
        decode_values(generator, b"")


def test_orders_that_cannot_be_followed_are_refused():
    generator = build(GRID)
    values = torch.zeros(2, 6).long()
    with pytest.raises(UnsupportedError, match="single-stream"):
        encode_values(generator, values, order=Order([0, 0, 0, 1, 2, 2]))
    with pytest.raises(UnsupportedError, match="one order"):
        encode_values(generator, values, order=Order.random(6, batch=2))


BLOB_MODEL = build(TEXT, seed=3)
BLOB_VALUES = sample(BLOB_MODEL, 12)
BLOB = encode_values(BLOB_MODEL, BLOB_VALUES, batch_size=5, side=b"labels and names " * 4)


def test_every_damaged_header_byte_is_refused():
    for at in range(len(BLOB) - 4 - len(unpack(BLOB).sections[-1])):
        for change in (1, 0x80, 0xFF):
            broken = bytearray(BLOB)
            broken[at] ^= change
            with pytest.raises(StreamError):
                decode_values(BLOB_MODEL, bytes(broken))


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_damaged_payload_is_refused(data):
    broken = bytearray(BLOB)
    for bit in data.draw(st.sets(st.integers(22 * 8, 8 * len(BLOB) - 1), min_size=1, max_size=6)):
        broken[bit // 8] ^= 1 << bit % 8
    with pytest.raises(StreamError):
        decode_values(BLOB_MODEL, bytes(broken))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, len(BLOB) - 1))
def test_truncation_is_refused(end):
    with pytest.raises(StreamError):
        decode_values(BLOB_MODEL, BLOB[:end])


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4 * 8 * len(unpack(BLOB).sections[-1]) // 4))
def test_damage_behind_a_fitting_checksum_is_found_by_the_digest(bit):
    # The last word or so of a range coder's code may hold bits that no value depends on.
    broken = bytearray(BLOB)
    broken[-4 - (bit + 7) // 8] ^= 1 << bit % 8
    try:
        assert torch.equal(decode_values(BLOB_MODEL, reseal(broken))[0], BLOB_VALUES)
        assert bit <= 64
    except StreamError:
        pass


def test_a_header_that_contradicts_itself_is_refused():
    content = unpack(BLOB)
    for at, number in ((0, 0), (0, 10**6), (1, 11), (1, 13), (2, 0)):
        numbers = list(content.numbers)
        numbers[at] = number
        other = type(content)(1, content.fingerprint, content.probe, content.digest, tuple(numbers), content.sections)
        with pytest.raises(StreamError):
            decode_values(BLOB_MODEL, pack(other))


def test_another_model_is_refused():
    with pytest.raises(StreamError, match="written with another model"):
        decode_values(build(TEXT, seed=4), BLOB)
    nearly = build(TEXT, seed=3)
    with torch.no_grad():
        nearly.head.weight[0, 0] = torch.nextafter(nearly.head.weight[0, 0], torch.tensor(9.0))  # type: ignore[union-attr,operator,index]
    with pytest.raises(StreamError, match="written with another model"):
        decode_values(nearly, BLOB)
    with pytest.raises(StreamError, match="written with another model"):
        decode_values(build(GRID), BLOB)


def test_other_probabilities_of_the_same_model_are_refused(monkeypatch):
    model = build(TEXT, seed=3)
    forward = type(model.head).forward
    assert fingerprint(model) == fingerprint(BLOB_MODEL)

    def off_by_a_bit(self, features, sites):
        leaf = forward(self, features, sites)
        leaf.logits = leaf.logits * (1 + 2e-7)
        return leaf

    monkeypatch.setattr(type(model.head), "forward", off_by_a_bit)
    # It is the probe that refuses: nothing is decoded at all.
    monkeypatch.setattr("ancestral.coding.codec.Decode", lambda words: pytest.fail)
    with pytest.raises(StreamError, match="computes other probabilities"):
        decode_values(model, BLOB)


def test_other_probabilities_behind_the_probe_are_refused(monkeypatch):
    # Numbers that differ only where the probe did not look: the digest of the values finds it.
    model, items = build(TEXT, seed=3), []
    forward = type(model.head).forward
    monkeypatch.setattr("ancestral.coding.codec._probe", lambda *a: unpack(BLOB).probe)

    def late(self, features, sites):
        leaf = forward(self, features, sites)
        items.append(1)
        if len(items) > 8:
            leaf.logits = leaf.logits.flip(-1)
        return leaf

    monkeypatch.setattr(type(model.head), "forward", late)
    with pytest.raises(StreamError, match="computes other probabilities"):
        decode_values(model, BLOB)


def test_probe_sees_every_end_of_the_order():
    space = Space((40,), 6, stop=5)
    model = build(space)
    order = model.order.scoring()
    values = probe_values(space, 3)
    assert bool((values < 5).all()) and bool((values >= 0).all()) and len(values.unique()) == 5
    first = probe(model, 3, order)
    assert first == probe(model, 3, order) and first != probe(model, 3, Order.reverse(40))
    for site in (0, 39):
        other = build(space)
        with torch.no_grad():
            other.network.target.weight[site] += 1e-4  # type: ignore[union-attr,index]
        assert probe(other, 3, order) != first


def test_another_process_decodes(tmp_path):
    values = sample(BLOB_MODEL, 12)
    (tmp_path / "blob").write_bytes(BLOB)
    script = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from coding_toys import build
        from ancestral.coding import decode_values
        from ancestral.space import Space
        model = build(Space((8,), 5, stop=4), seed=3)
        values, side = decode_values(model, open({str(tmp_path / "blob")!r}, "rb").read())
        print(values.tolist())
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(values.tolist())
