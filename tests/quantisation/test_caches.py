"""Keys and values in few bits: corrections correct, precision falls with age, and models stay consistent."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ancestral.decoding.decoders import Ancestral, Request
from ancestral.decoding.drafts import Lookup
from ancestral.decoding.speculative import Speculative
from ancestral.errors import UnsupportedError
from ancestral.generator import Generator
from ancestral.heads import Categorical
from ancestral.laws.features import check_causality, check_incremental
from ancestral.networks import CausalTransformer, LanguageTransformer, QueryTransformer
from ancestral.networks.slots import slots
from ancestral.noise import Noise
from ancestral.order import Order, RandomOrders
from ancestral.quantisation import Dropping, Full, Gear, keep, kept_bytes
from ancestral.quantisation.caches import Packed, low_rank, pack_matrices, parts
from ancestral.space import Space


def matrices(seed: int = 0, rows: int = 16, columns: int = 64) -> torch.Tensor:
    """Keys as they are found: features of unequal size that have something in common, and a few extremes."""
    random = torch.Generator().manual_seed(seed)
    common = torch.randn(2, 1, 1, rows, 1, generator=random) @ torch.randn(2, 1, 1, 1, columns, generator=random)
    x = common + 0.3 * torch.randn(2, 1, 1, rows, columns, generator=random)
    x[..., ::4, 7] += 12.0
    return x


def error(x: torch.Tensor, packed: Packed) -> float:
    return float((packed.dense() - x).norm() / x.norm())


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_each_correction_helps(bits: int) -> None:
    x = matrices()
    plain, sparse, low, both = (
        error(x, pack_matrices(x, bits, 64, outliers, rank))
        for outliers, rank in ((0, 0), (0.04, 0), (0, 2), (0.04, 2))
    )
    assert both < sparse < plain and both < low < plain
    assert plain < {2: 0.8, 4: 0.2, 8: 0.02}[bits]


def test_extremes_and_products_of_low_rank_are_kept() -> None:
    x = matrices()
    packed = pack_matrices(x, 2, 64, 0.04, 0)
    top = x.topk(1, -1)
    torch.testing.assert_close(packed.dense().gather(-1, top.indices), top.values, rtol=1e-3, atol=0)
    a, b = low_rank(torch.randn(3, 20, 2) @ torch.randn(3, 2, 9), 2)
    assert a.shape == (3, 20, 2) and b.shape == (3, 9, 2)
    product = torch.randn(5, 2) @ torch.randn(2, 7)
    a, b = low_rank(product, 2)
    torch.testing.assert_close(a @ b.mT, product, atol=1e-5, rtol=1e-4)


@given(st.sampled_from((2, 4, 8)), st.integers(1, 40), st.sampled_from((4, 16)), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_the_grid_is_as_fine_as_it_says(bits: int, size: int, group: int, seed: int) -> None:
    x = torch.randn(1, 1, 2, 3, size, generator=torch.Generator().manual_seed(seed))
    packed = pack_matrices(x, bits, group, 0.0, 0)
    step = packed.scale.float().repeat_interleave(group, -1)[..., :size]
    assert bool(((packed.dense() - x).abs() <= 0.51 * step + 4e-3).all())
    first, rest = packed.split(1)
    assert torch.equal(first.joined(rest).dense(), packed.dense())


def built(network: Any, n: int = 7, order: Any = "raster") -> Generator:
    torch.manual_seed(0)
    return Generator(network, Categorical(per_site=False), order).build(Space((n,), 5)).eval()


@pytest.mark.parametrize("blind", [False, True])
@pytest.mark.parametrize(
    "how",
    [
        Full(),
        Gear(4, 8, 0.3, 1, 3),
        Gear(2, 8, 0.0, 0, 2, stairs=((8, 2), (4, 4))),
        Gear(4, 8, 0.3, 1, 64),
        Dropping(1, 2, 2),
    ],
    ids=["full", "gear", "stairs", "buffered", "dropping"],
)
def test_step_by_step_is_what_is_scored(how: Any, blind: bool) -> None:
    generator = built(CausalTransformer(16, 2, blind=blind), order=RandomOrders())
    values = torch.randint(0, 5, (2, 7), generator=torch.Generator().manual_seed(1))
    orders = [Order.raster(7), Order.random(7, 5, 2)]
    full = [generator.log_prob(values, o).detach() for o in orders]
    keep(generator, how)
    for order, before in zip(orders, full, strict=True):
        check_incremental(generator, values, order)
        check_causality(generator, values, order)
        off = float((generator.log_prob(values, order) - before).detach().abs().max())
        if isinstance(how, Full) or how.buffer > 7:
            assert off < 1e-5
        else:
            assert 1e-5 < off < 1.5
    keep(generator, None)
    assert torch.equal(generator.log_prob(values, orders[0]), full[0])


def test_sets_of_several_sites() -> None:
    generator = built(CausalTransformer(16, 1), 12, RandomOrders())
    values = torch.randint(0, 5, (2, 12), generator=torch.Generator().manual_seed(1))
    even, uneven = Order(torch.arange(12) // 3), Order(torch.arange(12) // 2)
    keep(generator, Gear(4, 8, 0.0, 1, 3))
    check_incremental(generator, values, even)
    check_causality(generator, values, even)
    with pytest.raises(UnsupportedError, match="evenly"):
        generator.log_prob(values, uneven)
    with pytest.raises(UnsupportedError, match="causal"):
        keep(built(QueryTransformer(16, 1)), Gear())


@given(st.integers(0, 30), st.integers(1, 30), st.integers(1, 9))
@settings(max_examples=50, deadline=None)
def test_parts_end_where_the_buffer_is_full(begin: int, count: int, buffer: int) -> None:
    found = parts(Order.raster(60), begin, begin + count, buffer)
    assert [i for a, b in found for i in range(a, b)] == list(range(begin, begin + count))
    assert all(b % buffer == 0 for _, b in found[:-1]) and all(b - a <= buffer for a, b in found)


def test_memory_is_what_the_settings_say() -> None:
    space = Space((256,), 5)
    torch.manual_seed(0)
    network = LanguageTransformer(64, 1, 2, 1)  # one head of 32 features
    Generator(network, Categorical(per_site=False)).build(space).eval()
    values = torch.zeros(1, 256, dtype=torch.int64)
    held = {}
    hows = {
        "full": Full(),
        "plain": Gear(4, 32, 0, 0, 32),
        "gear": Gear(4, 32, 0.0625, 2, 32),
        "stairs": Gear(2, 32, 0, 0, 32, stairs=((8, 32), (4, 64))),
        "dropped": Dropping(4, 60, 32),
    }
    for name, how in hows.items():
        network.keeping = how
        cache = network.start(1, Order.raster(256), None, values, 255)
        network.step(cache)
        held[name] = kept_bytes(cache.state)
    numbers, last = 2 * 32, 32  # per place; the last part stands in the buffer
    assert held["full"] == 256 * numbers * 4
    packed = (256 - last) * numbers
    assert held["plain"] == packed * (4 / 8 + 4 / 32) + last * numbers * 4
    assert held["gear"] == held["plain"] + packed * (2 / 32 * (2 + 1) + 2 * 2 * (32 + 32) / 32 / 32)
    eights, fours, twos = 32, 64, 256 - last - 96
    assert held["stairs"] == numbers * (eights + fours / 2 + twos / 4 + (256 - last) * 4 / 32 + last * 4)
    assert held["dropped"] == (64 + 32) * numbers * 4


def test_speculation_follows_the_compressed_model() -> None:
    generator = built(CausalTransformer(16, 2, targets=False), 30)
    keep(generator, Gear(2, 8, 0, 0, 4))
    request = Request(Noise.of(0, 2), options={"temperature": 0})
    assert torch.equal(Speculative(Lookup(), ahead=3)(generator, request), Ancestral()(generator, request))


def test_rows_that_come_and_go_follow_the_compressed_model() -> None:
    generator = built(CausalTransformer(16, 2, targets=False), 8)
    keep(generator, Gear(2, 8, 0, 0, 2))
    order, values = Order.raster(8), torch.randint(0, 5, (2, 8), generator=torch.Generator().manual_seed(2))
    found = slots(generator.network, order, 2)
    cache = generator.network.start(2, order, None, values, 4)
    generator.network.step(cache)
    found.join(cache)
    features = found.step(values[:, 4:5])
    torch.testing.assert_close(features[:, 0], generator.network(values, order)[:, 5], atol=1e-5, rtol=0)


def test_settings_that_cannot_be_are_refused() -> None:
    for wrong in ({"bits": 3}, {"stairs": ((4, 0),)}, {"buffer": 0}, {"outliers": 1.0}, {"rank": -1}):
        with pytest.raises(ValueError):
            Gear(**wrong)  # type: ignore[arg-type]
