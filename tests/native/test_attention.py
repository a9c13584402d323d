"""Attention to kept keys and values equals PyTorch's, at odd sizes, on every instruction set."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ancestral import native
from ancestral.networks import CausalTransformer, LanguageTransformer, Network
from ancestral.networks.compiled import Kept
from ancestral.order import Order
from ancestral.space import Space

pytestmark = [
    pytest.mark.skipif(not native.available(), reason="the kernels were not compiled"),
    pytest.mark.parametrize("instructions", ["amx", "avx512", "avx2", "base"]),
]
ROUNDING = 1e-5
PARTS = 2e-4
"""Of products by parts of 16 bits, each right to 2^-16 of itself."""


@torch.no_grad()
def off(network: Network, order: Order, values: Tensor, instructions: str, threads: int = 1) -> float:
    """How far the kernels' steps are from PyTorch's pass over ``values [B, N]``, relative to its largest feature."""
    network.eval()
    with native.without():
        expected = network(values, order)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with native.restricted(instructions) as there:
            if not there:
                pytest.skip(f"no {instructions} here")
            cache = network.start(len(values), order)
            found = [network.step(cache)] + [network.step(cache, values[:, s]) for s in order.sets[:-1]]
            assert isinstance(cache.state, Kept) and cache.state.layers is not None
    finally:
        torch.set_num_threads(before)
    return float((torch.cat(found, 1) - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("batch", [1, 3, 19])
@pytest.mark.parametrize(
    ("width", "heads", "kv_heads"),
    [
        (128, 2, 2),  # 64 features of a head, as most have
        (60, 10, 10),  # more heads than are read at once, fewer features than a vector has
        (264, 3, 3),  # whole vectors and a rest
        (320, 10, 2),  # several queries see one key
        (180, 18, 9),
    ],
)
def test_steps_equal_the_forward_pass(instructions: str, batch: int, width: int, heads: int, kv_heads: int) -> None:
    torch.manual_seed(0)
    network = LanguageTransformer(width, 2, heads=heads, kv_heads=kv_heads, hidden=width + 5).build(Space((23,), 11))
    values = torch.randint(11, (batch, 23))
    error = PARTS if instructions == "amx" and batch > 12 else ROUNDING
    for threads in (1, 2, 3):
        assert off(network, Order.raster(23), values, instructions, threads) <= error


@pytest.mark.parametrize("heads", [1, 3, 9])
def test_neighbouring_features_are_turned(instructions: str, heads: int) -> None:
    """Where rotary positions turn pairs rather than halves of a head."""
    torch.manual_seed(0)
    network = CausalTransformer(heads * 22, 1, heads=heads, targets=False).build(Space((9,), 7))
    assert off(network, Order.raster(9), torch.randint(7, (2, 9)), instructions) <= ROUNDING


def test_sites_of_one_set_see_each_other(instructions: str) -> None:
    """Several rows of one item in a pass: all keep their keys and values before any is read."""
    torch.manual_seed(0)
    network = CausalTransformer(96, 2, heads=3).build(Space((3, 7), 11))
    values = torch.randint(11, (5, 21))
    for threads in (1, 2, 3):
        error = PARTS if instructions == "amx" else ROUNDING  # 35 rows
        assert off(network, Order.frames(3, 7), values, instructions, threads) <= error
