"""Orders: every constructor partitions the sites, and orders made from orders keep their promises."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ancestral.noise import Noise
from ancestral.order import NAMED, FixedOrder, Order, RandomMasks, RandomOrders, cosine_sets, resolve
from ancestral.space import Space

sides = st.integers(1, 9)
few = settings(max_examples=40, deadline=None)


def valid(order: Order, n: int) -> None:
    """Ranks are 0 .. n_sets - 1, sets partition the sites in the order of their ranks."""
    assert order.n == n
    rows = order.rank if order.batched else order.rank[None]
    for row in rows:
        assert sorted(set(row.tolist())) == list(range(order.n_sets))
    permutation = order.permutation if order.batched else order.permutation[None]
    for row, line in zip(rows, permutation, strict=True):
        assert sorted(line.tolist()) == list(range(n))
        assert row[line].tolist() == order.set_of_place.tolist()
    assert sum(order.sizes) == n and order.starts[-1] == n
    assert torch.equal(
        torch.gather(permutation, 1, order.places.reshape(permutation.shape)), torch.arange(n).expand(len(rows), n)
    )
    before = order.before()
    assert not (before & before.transpose(-1, -2)).any()


@few
@given(sides, sides)
def test_grid_constructors(height: int, width: int) -> None:
    n = height * width
    for order in (
        Order.frequency(height, width),
        Order.frequency(height, width, parallel=True),
        Order.neighbour(height, width),
        Order.cells(height, width, 2),
        Order.hilbert(height, width),
        Order.raster(n),
        Order.reverse(n),
        Order.single(n),
        Order.random(n, seed=height),
        Order.random(n, batch=3),
        Order.masks(n, 4, batch=2),
        Order.frames(height, width),
    ):
        valid(order, n)
    assert Order.neighbour(height, width).n_sets == height + width - 1
    assert Order.frequency(height, width).sequential and Order.hilbert(height, width).sequential


@few
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_scales(sides: list[int]) -> None:
    order = Order.scales(sides)
    valid(order, sum(s * s for s in sides))
    assert order.sizes == tuple(s * s for s in sides)


@few
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_parallel_groups(h: int, w: int, regions: int) -> None:
    order = Order.parallel(h * regions, w * regions, regions)
    valid(order, h * w * regions**2)
    assert order.sizes == (1,) * regions**2 + (regions**2,) * (h * w - 1)
    for chosen in order.sets[regions**2 :]:
        place = torch.stack([chosen // (w * regions) // h, chosen % (w * regions) // w])
        assert len({tuple(p) for p in place.T.tolist()}) == regions**2  # one site in every region


@pytest.mark.parametrize("side", [2, 4, 8, 16])
def test_hilbert_steps_go_to_neighbours(side: int) -> None:
    sites = Order.hilbert(side, side).permutation
    steps = (sites // side).diff().abs() + (sites % side).diff().abs()
    assert steps.tolist() == [1] * (side * side - 1)


def test_zig_zag_is_that_of_jpeg() -> None:
    assert Order.frequency(8, 8).permutation[:15].tolist() == [0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4]


def test_zig_zag_snakes_along_all_diagonals() -> None:
    """ISO 10918-1, figure A.6, walked by hand: turn at every edge."""
    expected, v, u, up = [], 0, 0, True
    for _ in range(64):
        expected.append(8 * v + u)
        if up and u == 7:
            v, up = v + 1, False
        elif up and v == 0:
            u, up = u + 1, False
        elif not up and v == 7:
            u, up = u + 1, True
        elif not up and u == 0:
            v, up = v + 1, True
        else:
            v, u = (v - 1, u + 1) if up else (v + 1, u - 1)
    assert Order.frequency(8, 8).permutation.tolist() == expected


def test_small_orders_by_hand() -> None:
    assert Order.reverse(4).rank.tolist() == [3, 2, 1, 0]
    assert Order.frames(3, 2).rank.tolist() == [0, 0, 1, 1, 2, 2]
    assert Order.cells(2, 5, 2).rank.reshape(2, 5).tolist() == [[0, 0, 1, 1, 2]] * 2
    assert Order.cells(3, 3, 2).rank.reshape(3, 3).tolist() == [[0, 0, 1], [0, 0, 1], [2, 2, 3]]
    assert Order.neighbour(2, 3).rank.tolist() == [0, 1, 2, 1, 2, 3]
    assert Order.neighbour(2, 2, 2).sizes == (1, 3, 3, 1)
    assert Order.parallel(2, 4, 2).rank.reshape(2, 4).tolist() == [[0, 4, 1, 4], [2, 4, 3, 4]]
    assert Order.hilbert(2, 2).permutation.tolist() in ([0, 1, 3, 2], [0, 2, 3, 1])
    assert Order([5, 2, 2]).rank.tolist() == [1, 0, 0]


def test_feed_is_the_matching_site() -> None:
    """Sets of 1, 2 and 4: each site of a set is fed by the site at the same share of the way through the last."""
    assert Order([0, 1, 1, 2, 2, 2, 2]).feed.tolist() == [-1, 0, 0, 1, 1, 2, 2]
    assert Order([0, 0, 1, 1, 1]).feed.tolist() == [-1, -1, 0, 0, 1]


@few
@given(st.integers(1, 200), st.integers(1, 30))
def test_cosine_sets_leave_the_published_share_hidden(n: int, steps: int) -> None:
    """floor(n cos(pi/2 t/T)) sites are hidden after step t wherever every step can still draw one site."""
    sets, total = cosine_sets(n, steps), min(n, steps)
    hidden = [int((sets > t).sum()) for t in range(total)]
    for t, count in enumerate(hidden):
        published = int(n * torch.cos(torch.tensor(torch.pi / 2 * (t + 1) / total, dtype=torch.float64)) + 1e-9)
        room = (total - 1 - t, (hidden[t - 1] if t else n) - 1)
        assert count == min(max(published, room[0]), room[1])


@few
@given(st.integers(1, 200), st.integers(1, 30))
def test_cosine_sets_are_nondecreasing_and_never_empty(n: int, steps: int) -> None:
    sets = cosine_sets(n, steps)
    assert sets.shape == (n,) and (sets.diff() >= 0).all()
    assert torch.bincount(sets).min() >= 1 and int(sets.max()) == min(n, steps) - 1


@few
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=12), st.data())
def test_given_puts_known_sites_first_and_keeps_the_rest(ranks: list[int], data: st.DataObject) -> None:
    order = Order(torch.tensor(ranks))
    valid(order, len(ranks))
    known = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(ranks), max_size=len(ranks))))
    new = order.given(known)
    valid(new, len(ranks))
    count = int(known.sum())
    assert new.sizes[:count] == (1,) * count
    assert (new.rank[known] < count).all()
    rest = torch.nonzero(~known)[:, 0]
    for i in rest.tolist():
        for j in rest.tolist():
            assert (order.rank[i] < order.rank[j]) == (new.rank[i] < new.rank[j])
    assert order.one_by_one().sequential


def test_feed_points_to_the_previous_set() -> None:
    order = Order.parallel(4, 4, 2)
    feed, of = order.feed, order.set_of_place
    assert feed[0] == -1
    for place in range(1, order.n):
        assert of[feed[place]] == of[place] - 1
    with pytest.raises(ValueError, match="smaller than"):
        _ = Order.neighbour(3, 3).feed


def test_bad_ranks_are_refused() -> None:
    for bad in (torch.zeros(0, dtype=torch.long), torch.zeros(3), torch.zeros(1, 2, 3, dtype=torch.long)):
        with pytest.raises(ValueError, match="ranks must be integers"):
            Order(bad)
    with pytest.raises(ValueError, match="same set sizes"):
        Order(torch.tensor([[0, 0, 1], [0, 1, 2]]))
    with pytest.raises(ValueError, match="unknown order"):
        resolve("spiral", Space((2, 2), 2))
    with pytest.raises(ValueError, match="sites"):
        resolve(Order.raster(3), Space((2, 2), 2))
    with pytest.raises(ValueError, match="cannot be cut"):
        Order.parallel(5, 4, 2)
    for build, name in (
        (lambda: Order.parallel(4, 4, 0), "regions=0"),
        (lambda: Order.cells(4, 4, 0), "cell=0"),
        (lambda: Order.subsamples(4, 4, -1), "stride=-1"),
        (lambda: Order.masks(4, 0), "steps=0"),
        (lambda: Order.scales(()), "at least one scale"),
        (lambda: Order.neighbour(), "at least one axis"),
    ):
        with pytest.raises(ValueError, match=name):
            build()


@pytest.mark.parametrize("name", sorted(NAMED))
def test_named_orders_fit_their_space(name: str) -> None:
    valid(resolve(name, Space((3, 4), 2)), 12)


@pytest.mark.parametrize(
    "policy", [FixedOrder(), RandomOrders(), RandomOrders(anneal=(0.2, 0.8)), RandomMasks(), RandomMasks(4)]
)
def test_an_items_order_does_not_depend_on_its_batch(policy: RandomOrders) -> None:
    policy.build(Space((3, 4), 2))
    many = policy.draw(Noise.of(3, 6).uniform(13), 0.5).expand(6)
    for i in range(6):
        alone = policy.draw(Noise.of(3, 1, first=i).uniform(13), 0.5).expand(1)
        assert torch.equal(alone.rank[0], many.rank[i])
    valid(policy.scoring(), 12)


def test_annealing_ends_in_the_very_order_that_scores_are_stated_for() -> None:
    """Sites that are scored together are, in the end, trained together."""
    policy = RandomOrders("neighbour", anneal=(0.2, 0.8)).build(Space((3, 4), 2))
    end = policy.draw(Noise.of(0, 5).uniform(13), 1.0)
    assert torch.equal(end.expand(5).rank, policy.scoring().expand(5).rank) and end.n_sets == 6


def test_random_orders_are_uniform() -> None:
    policy = RandomOrders().build(Space((3,), 2))
    ranks = policy.draw(Noise.of(0, 6000).uniform(4)).expand(6000).rank
    counts = (ranks @ torch.tensor([9, 3, 1])).bincount()
    counts = counts[counts > 0]
    assert len(counts) == 6
    # Five degrees of freedom: beyond 25.7 with probability 1e-4.
    assert float(((counts - 1000.0) ** 2 / 1000).sum()) < 25.7


def test_annealing_ends_in_the_base_order() -> None:
    policy = RandomOrders(anneal=(0.2, 0.8)).build(Space((3, 4), 2))
    uniforms = Noise.of(0, 64).uniform(13)
    share = [
        float((policy.draw(uniforms, p).expand(64).rank != torch.arange(12)).any(1).float().mean())
        for p in (0.1, 0.5, 0.9)
    ]
    assert share[0] == 1.0 and 0.3 < share[1] < 0.7 and share[2] == 0.0
