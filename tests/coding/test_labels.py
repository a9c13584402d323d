"""Labels are coded about as short as they can be, and come back by name."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ancestral
from ancestral import Model
from ancestral.coding import unpack
from ancestral.coding.labels import decode_labels, encode_labels
from ancestral.data import Images
from ancestral.errors import DataError


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 300).flatmap(lambda k: st.tuples(st.just(k), st.lists(st.integers(0, k - 1), max_size=60))))
def test_any_labels_come_back(case: tuple[int, list[int]]) -> None:
    size, numbers = case
    labels = np.array(numbers, np.int64)
    words = encode_labels(labels, size)
    assert (decode_labels(words, len(labels), size) == labels).all()
    # Never much longer than a fixed number of bits each: half a logarithm per class that occurs.
    most = len(labels) * math.log2(size) + len(set(numbers)) * 0.5 * math.log2(len(labels) + 1) + 1
    assert 8 * len(words) <= most + 64


@pytest.mark.parametrize(
    ("labels", "most"),
    [
        (np.random.default_rng(0).choice(10, 2000, p=[0.91] + [0.01] * 9), None),
        (np.arange(2000) // 200, 400),  # sorted, as a folder of classes is: 10 runs
        (np.zeros(2000, np.int64), 64),
        (np.random.default_rng(0).integers(0, 10, 2000), None),
    ],
    ids=["skewed", "sorted", "constant", "even"],
)
def test_codes_are_near_the_entropy(labels: np.ndarray, most: float | None) -> None:
    share = np.bincount(labels, minlength=10) / len(labels)
    entropy = -float((share[share > 0] * np.log2(share[share > 0])).sum()) * len(labels)
    bits = 8 * len(encode_labels(labels, 10))
    assert bits <= (entropy + 9 / 2 * math.log2(2000) + 64 if most is None else most)
    assert (decode_labels(encode_labels(labels, 10), 2000, 10) == labels).all()


def test_golden_code() -> None:
    assert encode_labels(np.array([0, 0, 1, 2, 2, 2, 0, 1]), 3).hex() == "26588928"


def striped(n: int, seed: int, names: tuple[str, ...] = ("dark", "light")) -> Images:
    """Images whose class is their grey level, so that a label says nearly everything."""
    labels = np.random.default_rng(seed).integers(0, 2, n)
    levels = {"dark": 0, "light": 3}
    pixels = np.stack([np.full((4, 4), levels.get(names[label], 0), np.uint8) for label in labels])
    pixels[:, 0, 0] = np.random.default_rng(seed + 1).integers(0, 4, n)
    return Images.read(pixels, labels=labels, classes=names)


@pytest.fixture(scope="module")
def model() -> Model:
    size = dict(width=16, depth=1, heads=2, dropout=0.0)
    return ancestral.fit(
        striped(256, 0), recipe="any-order", steps=120, lr=1e-2, ema=0.9, quiet=True, validation=0, **size
    )


def test_items_are_coded_given_their_labels(model: Model) -> None:
    data = striped(100, 7)
    blob = model.compress(data)
    back = model.decompress(blob, as_dataset=True)
    assert (back.pixels == data.pixels).all() and (back.labels == data.labels).all() and back.classes == data.classes
    ideal = -float(np.asarray(model.log_prob(data, label=True)).sum()) / math.log(2)
    bits = unpack(blob).code_bits
    assert abs(bits - ideal) <= 0.01 * ideal + 64
    withheld = -float(np.asarray(model.log_prob(data)).sum()) / math.log(2)
    assert bits < withheld  # a label, itself coded, saves the items more than nothing
    plain = Images.read(data.pixels)
    assert len(blob) <= len(model.compress(plain)) + (100 + 64) / 8


def test_classes_are_matched_by_name(model: Model) -> None:
    swapped = striped(50, 3, ("light", "dark"))
    back = model.decompress(model.compress(swapped), as_dataset=True)
    assert back.classes == ("light", "dark") and (back.labels == swapped.labels).all()
    same = Images.read(swapped.pixels, labels=1 - swapped.labels, classes=("dark", "light"))
    np.testing.assert_allclose(model.log_prob(swapped, label=True), model.log_prob(same, label=True), rtol=1e-12)


def test_foreign_classes_come_back_too(model: Model) -> None:
    foreign = striped(50, 3, ("noon", "dark"))
    back = model.decompress(model.compress(foreign), as_dataset=True)
    assert back.classes == ("noon", "dark") and (back.labels == foreign.labels).all()
    assert (back.pixels == foreign.pixels).all()
    with pytest.raises(DataError, match="no class 'noon'"):
        model.log_prob(foreign, label=True)
    with pytest.raises(DataError, match="no labels of their own"):
        model.log_prob(Images.read(foreign.pixels), label=True)
