from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ancestral.errors import DataError
from ancestral.training import ItemOrder, Items, Source, Windows
from ancestral.training.source import fetch, fingerprint


def test_items_are_indexed_and_widened():
    items = Items(values=torch.arange(12, dtype=torch.uint8).view(6, 2), weight=torch.arange(6.0))
    assert isinstance(items, Source) and len(items) == 6
    batch = items.batch(torch.tensor([5, 0]), epoch=3)
    assert batch["values"].dtype == torch.int64 and batch["values"].tolist() == [[10, 11], [0, 1]]
    assert batch["weight"].tolist() == [5.0, 0.0]
    assert items.batch([1])["values"].tolist() == [[2, 3]]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "nothing to train on"),
        ({"a": torch.zeros(0, 2)}, "no items"),
        ({"a": torch.zeros(3), "b": torch.zeros(4)}, "unequal"),
        ({"a": torch.tensor(1.0)}, "single number"),
        ({"item_seed": torch.zeros(3)}, "item_seed"),
    ],
)
def test_items_refuse(tensors, message):
    with pytest.raises(DataError, match=message):
        Items(**tensors)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20), st.integers(1, 25), st.integers(1, 4), st.integers(0, 99))
def test_every_epoch_holds_each_item_once_and_parts_make_the_batch(items, batch_size, parts, seed):
    order = ItemOrder(items, batch_size, seed)
    size = min(items, batch_size)
    seen: dict[int, list[int]] = {}
    for step in range(2 * items):  # exactly 2 * size epochs
        bounds = [order.share(step, part, parts) for part in range(parts)]
        assert bounds[0][0] == step * size and bounds[-1][1] == (step + 1) * size
        assert all(left[1] == right[0] for left, right in pairwise(bounds))
        pieces = [piece for lo, hi in bounds for piece in order.pieces(lo, hi)]
        assert sum(len(indices) for _, indices in pieces) == size
        for epoch, indices in pieces:
            seen.setdefault(epoch, []).extend(indices.tolist())
    assert sorted(seen) == list(range(2 * size))
    assert all(sorted(indices) == list(range(items)) for indices in seen.values())
    # A position asked for on its own, in any order, is the same item: what resuming needs.
    again = ItemOrder(items, batch_size, seed)
    last = order.share(2 * items - 1, 0, 1)
    assert [e for e, _ in again.pieces(*last)] == [e for e, _ in order.pieces(*last)]
    assert torch.equal(torch.cat([i for _, i in again.pieces(*last)]), torch.cat([i for _, i in order.pieces(*last)]))


def test_orders_differ_between_epochs_and_seeds():
    order = ItemOrder(100, 10, seed=0)
    assert not torch.equal(order.permutation(0), order.permutation(1))
    assert not torch.equal(order.permutation(0), ItemOrder(100, 10, seed=1).permutation(0))


def test_a_batch_runs_across_the_end_of_an_epoch():
    items, order = Items(values=torch.arange(5)), ItemOrder(5, 4, seed=0)
    pieces = order.pieces(*order.share(1, 0, 1))
    assert [epoch for epoch, _ in pieces] == [0, 1]
    expected = [order.permutation(0)[4], *order.permutation(1)[:3]]
    assert fetch(items, pieces)["values"].tolist() == [int(i) for i in expected]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(4, 60), min_size=1, max_size=3),
    st.integers(1, 4),
    st.integers(0, 9),
    st.integers(0, 3),
)
def test_windows_are_crops_and_depend_on_seed_and_epoch_alone(sizes, length, seed, epoch):
    firsts = [1000 * number for number in range(len(sizes))]
    streams = [torch.arange(first, first + size, dtype=torch.int32) for first, size in zip(firsts, sizes, strict=True)]
    windows = Windows(streams, length, seed)
    assert len(windows) == sum(size // length for size in sizes)
    everything = windows.batch(torch.arange(len(windows)), epoch)["values"]
    assert everything.dtype == torch.int64 and everything.shape == (len(windows), length)
    for row in everything.tolist():
        stream = row[0] // 1000
        assert row == list(range(row[0], row[0] + length)) and row[-1] < firsts[stream] + sizes[stream]
    pick = torch.arange(len(windows)).flip(0)[::2]
    assert torch.equal(Windows(streams, length, seed).batch(pick, epoch)["values"], everything[pick])


def test_windows_are_fresh_in_every_epoch_and_every_start_is_equally_likely():
    windows = Windows([torch.arange(22)], length=4, seed=0)  # 5 windows, starts 0 .. 18
    index = torch.arange(5)
    starts = torch.stack([windows.starts(index, epoch) for epoch in range(1500)])
    assert not torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], Windows([torch.arange(22)], 4, seed=1).starts(index, 0))
    assert (starts[:, 1:] >= starts[:, :-1]).all()  # one window per part of the stream
    counts = torch.bincount(starts.flatten(), minlength=19).double()
    expected = starts.numel() / 19
    # Stratified: less spread than independent draws, whose chi-square has 18 degrees of freedom (p = 1e-3).
    assert float(((counts - expected) ** 2 / expected).sum()) < 42.3


def test_windows_refuse_what_they_cannot_crop():
    long, short = torch.arange(10), torch.arange(3)
    with pytest.raises(DataError, match=r"1 of 2 streams are shorter .* stream 1 with 3.*skip_short"):
        Windows([long, short], 5)
    windows = Windows([long, short], 5, skip_short=True)
    assert windows.skipped == 1 and len(windows) == 2
    with pytest.raises(DataError, match="the longest has 10"):
        Windows([long, short], 11)
    with pytest.raises(DataError, match="at least one stream"):
        Windows([], 4)
    with pytest.raises(DataError, match=r"stream 0 is a torch.float32"):
        Windows([torch.zeros(10)], 4)
    with pytest.raises(DataError, match="empty"):
        Windows([long], 0)


def test_fingerprint_tells_data_apart():
    first = Items(values=torch.arange(10))
    assert fingerprint(first) == fingerprint(Items(values=torch.arange(10)))
    assert fingerprint(first) != fingerprint(Items(values=torch.arange(11)))
    assert fingerprint(first) != fingerprint(Items(values=torch.arange(10) + 1))
    assert fingerprint(first) != fingerprint(Items(other=torch.arange(10)))
