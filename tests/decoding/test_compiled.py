"""What the compiled kernels draw is what PyTorch draws, symbol by symbol."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ancestral import native
from ancestral.decoding import compiled
from ancestral.generator import Generator
from ancestral.heads import Categorical, Shared
from ancestral.networks import CausalTransformer, LanguageTransformer
from ancestral.networks.compiled import Kept
from ancestral.noise import Noise
from ancestral.order import Order
from ancestral.space import Condition, Space

pytestmark = pytest.mark.skipif(not native.available(), reason="the kernels were not compiled")


def llama(space: Space) -> Generator:
    network = LanguageTransformer(32, 2, heads=4, kv_heads=2)
    return Generator(network, Shared(network))


def gpt_2(space: Space) -> Generator:
    network = LanguageTransformer(24, 2, heads=3, gated=False, bias=("qkv", "out", "mlp"))
    return Generator(network, Categorical())


def any_order(space: Space) -> Generator:
    return Generator(CausalTransformer(32, 2, shared=1), Categorical())


def classes_first(space: Space) -> Generator:
    return Generator(CausalTransformer(32, 2, targets=False, prefix=True, source=True), Categorical())


@pytest.fixture
def drawn_ahead(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many values each call of the kernels drew."""
    counts: list[int] = []
    call = compiled.Ahead.__call__

    def counted(self: compiled.Ahead, *args: Any) -> int:
        counts.append(call(self, *args))
        return counts[-1]

    monkeypatch.setattr(compiled.Ahead, "__call__", counted)
    return counts


def both(generator: Generator, seed: int, batch: int, *args: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    fast = generator.sample(Noise.of(seed, batch), *args, **options)
    with native.without():
        return fast, generator.sample(Noise.of(seed, batch), *args, **options)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("make", [llama, gpt_2, any_order, classes_first])
def test_the_same_symbols(make: Any, threads: int, drawn_ahead: list[int]) -> None:
    torch.manual_seed(0)
    space = Space((40,), 50, classes=3)
    generator = make(space).build(space).eval()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for batch in (1, 3, 20):
            label = Condition(label=torch.arange(batch) % 4 - 1)
            fast, plain = both(generator, batch, batch, label)
            assert torch.equal(fast, plain)
    finally:
        torch.set_num_threads(before)
    assert sum(drawn_ahead) == 3 * 39


@pytest.mark.parametrize(
    "options",
    [
        dict(temperature=0.0),
        dict(temperature=0.6),
        dict(top_k=1),
        dict(top_k=7),
        dict(top_k=1000),
        dict(min_p=0.3),
        dict(top_p=0.5),
        dict(top_p=1e-6),
        dict(temperature=1.5, top_k=30, top_p=0.9, min_p=0.01),
    ],
)
def test_the_same_choices(options: dict[str, Any], drawn_ahead: list[int]) -> None:
    torch.manual_seed(1)
    space = Space((64,), 300)
    generator = llama(space).build(space).eval()
    fast, plain = both(generator, 5, 4, **options)
    assert torch.equal(fast, plain)
    assert sum(drawn_ahead) == 63


def test_any_order_of_single_sites(drawn_ahead: list[int]) -> None:
    torch.manual_seed(2)
    space = Space((4, 6), tuple(range(3, 27)))
    generator = Generator(CausalTransformer(32, 2), Categorical()).build(space).eval()
    for order in (Order.reverse(24), Order.random(24, batch=3)):
        assert torch.equal(*both(generator, 0, 3, None, order))
    assert not sum(drawn_ahead), "weights of their own per site are not for the kernels"
    space = Space((4, 6), 9)
    generator = Generator(CausalTransformer(32, 2), Categorical()).build(space).eval()
    for order in (Order.reverse(24), Order.random(24, batch=3)):
        assert torch.equal(*both(generator, 0, 3, None, order))
    assert sum(drawn_ahead) == 2 * 23


def test_a_sequence_ends_where_it_ends(drawn_ahead: list[int]) -> None:
    torch.manual_seed(3)
    space = Space((60,), 4, stop=3)
    generator = llama(space).build(space).eval()
    fast, plain = both(generator, 0, 8)
    assert torch.equal(fast, plain)
    assert (fast == 3).any(1).all()
    assert 0 < sum(drawn_ahead) < 59


def test_an_item_does_not_depend_on_its_batch() -> None:
    torch.manual_seed(4)
    space = Space((48,), 20)
    generator = gpt_2(space).build(space).eval()
    many = generator.sample(Noise.of(3, 18))
    for i in range(18):
        assert torch.equal(generator.sample(Noise.of(3, 1, first=i))[0], many[i])


def test_other_weights_are_noticed() -> None:
    torch.manual_seed(5)
    space = Space((16,), 20)
    generator = llama(space).build(space).eval()
    first = generator.sample(Noise.of(0, 2))
    other = {k: v + 0.3 * torch.randn_like(v) for k, v in generator.state_dict().items()}
    generator.load_state_dict(other, assign=True)
    fast, plain = both(generator, 0, 2)
    assert torch.equal(fast, plain) and not torch.equal(fast, first)


def test_training_goes_through_pytorch() -> None:
    space = Space((8,), 5)
    generator = llama(space).build(space)
    values = torch.zeros(1, 8, dtype=torch.int64)
    cache = generator.network.start(1, Order.raster(8))
    features = generator.network.step(cache)
    assert features.requires_grad and not isinstance(cache.state, Kept)
    generator.eval()
    with torch.no_grad():
        cache = generator.network.start(1, Order.raster(8))
        generator.network.step(cache)
        generator.network.step(cache, values[:, :1])
    assert isinstance(cache.state, Kept)
