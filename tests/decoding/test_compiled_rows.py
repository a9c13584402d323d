"""The rows that the compiled kernels draw are those that PyTorch draws, cell by cell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ancestral import native
from ancestral.decoding import compiled_rows
from ancestral.decoding.walk import Draw, walk
from ancestral.generator import Generator
from ancestral.heads.ragged import RaggedCategorical
from ancestral.networks.columns import ColumnNetwork
from ancestral.noise import Noise
from ancestral.order import Order, RandomOrders
from ancestral.space import Condition, Lexicon, Space

pytestmark = pytest.mark.skipif(not native.available(), reason="the kernels were not compiled")

SIZES = (2, 3, 2, 40, 300, 1, 17)
"""A coarse site, its list of two values and "not listed", a digit, and ordinary columns, one of a single value."""


def trained(depth: int = 1, width: int = 8, classes: int = 0, settle: bool = True) -> Generator:
    torch.manual_seed(depth)
    space = Space((7,), SIZES, groups=((0, 1, 2),), lexicons=(Lexicon((0, 1, 2), True),), classes=classes, ordered=(4,))
    network = ColumnNetwork(width, 12, depth, 0.0, 2)
    made = Generator(network, RaggedCategorical(), RandomOrders("raster", 0.5)).build(space)
    with torch.no_grad():  # nothing may hide behind weights that start from zero
        for weight in made.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    random = np.random.default_rng(0)
    coarse, entry = random.integers(0, 2, 80), random.integers(0, 3, 80)
    digit = np.where(entry == 2, random.integers(0, 2, 80), (coarse + entry) % 2)
    others = [random.integers(0, size, 80) for size in SIZES[3:]]
    values = torch.from_numpy(np.stack([coarse, entry, digit, *others], 1))
    made.prepare(values[:60], values[60:])
    made.eval()
    if settle:
        made.settle()
    return made


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sets each call of the kernels drew."""
    counts: list[int] = []
    call = compiled_rows.Rows.__call__

    def counted(self: compiled_rows.Rows, *args: Any) -> int:
        counts.append(call(self, *args))
        return counts[-1]

    monkeypatch.setattr(compiled_rows.Rows, "__call__", counted)
    return counts


@pytest.fixture(params=["avx512", "avx2", "base"])
def kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    with native.restricted(request.param) as there:
        if not there:
            pytest.skip(f"no {request.param} here")
        yield


def both(generator: Generator, batch: int, order: Order, **options: Any) -> tuple[Tensor, Tensor]:
    condition = options.pop("condition", None)
    fast = walk(generator, Draw(Noise.of(5, batch)), batch, order, condition, **options).values
    with native.without():
        return fast, walk(generator, Draw(Noise.of(5, batch)), batch, order, condition, **options).values


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize(
    "order", [Order.raster(7), Order.reverse(7), Order.random(7, 1)], ids=lambda o: str(o.rank.tolist())
)
def test_the_same_rows(kernels: None, calls: list[int], order: Order, depth: int, threads: int) -> None:
    generator, before = trained(depth, 8 if depth else 32), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for batch in (1, 97, 300):
            fast, plain = both(generator, batch, order)
            assert torch.equal(fast, plain)
    finally:
        torch.set_num_threads(before)
    assert calls == [7] * 3
    assert len(fast[:, 4].unique()) > 20  # more than a mode or two


@pytest.mark.parametrize("sites", [[0], [1], [0, 1], [2, 4], [3, 5, 6], [0, 1, 2, 3, 5]])
def test_the_same_rows_given_some_columns(calls: list[int], sites: list[int]) -> None:
    generator = trained()
    known = torch.zeros(200, 7, dtype=torch.bool)
    known[:, sites] = True
    given = torch.stack([torch.arange(200) % (size - (size > 2)) for size in SIZES], 1)
    order = Order.raster(7).given(known[0])
    for arranged, sets in ((order, len(sites)), (Order((order.rank - len(sites) + 1).clamp(min=0)), 1)):
        fast, plain = both(generator, 200, arranged, given=given, known_sets=sets)
        assert torch.equal(fast, plain)
        assert torch.equal(fast[:, sites], given[:, sites])
    assert calls == [7 - len(sites)] * 2


def test_the_same_rows_under_labels_and_up_to_a_set(calls: list[int]) -> None:
    generator = trained(classes=3)
    label = Condition(label=torch.arange(120) % 4 - 1)
    fast, plain = both(generator, 120, Order.raster(7), condition=label)
    assert torch.equal(fast, plain)
    assert not torch.equal(fast, both(generator, 120, Order.raster(7))[0])
    fast, plain = both(generator, 120, Order.raster(7), sets=3)
    assert torch.equal(fast, plain)
    assert bool((fast[:, 3:] == 0).all())
    assert calls == [7, 7, 3]


def test_draws_go_on_where_the_kernels_stopped() -> None:
    generator, noise, same = trained(), Noise.of(1, 9), Noise.of(1, 9)
    walk(generator, Draw(noise), 9, Order.raster(7))
    with native.without():
        walk(generator, Draw(same), 9, Order.raster(7))
    assert torch.equal(noise.uniform(3), same.uniform(3))


def test_what_the_kernels_do_not_know_is_left_to_pytorch(calls: list[int]) -> None:
    generator = trained()
    walk(generator, Draw(Noise.of(0, 4), temperature=0.5), 4, Order.raster(7))
    walk(generator, Draw(Noise.of(0, 4)), 4, Order.raster(7).expand(4))
    walk(generator, Draw(Noise.of(0, 4)), 4, Order(torch.tensor([0, 1, 2, 3, 3, 4, 5])))
    walk(trained(settle=False), Draw(Noise.of(0, 4)), 4, Order.raster(7))
    assert calls == []


def test_rows_follow_the_weights() -> None:
    generator = trained()
    first = both(generator, 50, Order.raster(7))[0]
    with torch.no_grad():
        generator.head.bias.add_(torch.randn_like(generator.head.bias))  # type: ignore[operator, arg-type]
    fast, plain = both(generator, 50, Order.raster(7))
    assert torch.equal(fast, plain)
    assert not torch.equal(fast, first)
