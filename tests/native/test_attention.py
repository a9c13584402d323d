"""Attention to kept keys and values equals PyTorch's, at odd sizes, on every instruction set."""

from __future__ import annotations

import pytest
import torch

from ancestral import native
from ancestral.networks import CausalTransformer, LanguageTransformer
from ancestral.networks.compiled import Kept
from ancestral.order import Order
from ancestral.space import Space

pytestmark = pytest.mark.skipif(not native.available(), reason="the kernels were not compiled")


@pytest.mark.parametrize("instructions", ["amx", "avx512", "avx2", "base"])
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
    space, order = Space((23,), 11), Order.raster(23)
    network = LanguageTransformer(width, 2, heads=heads, kv_heads=kv_heads, hidden=width + 5).build(space).eval()
    values = torch.randint(11, (batch, 23))
    before = torch.get_num_threads()
    with torch.no_grad():
        with native.without():
            expected = network(values, order)
        try:
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                with native.restricted(instructions) as there:
                    if not there:
                        pytest.skip(f"no {instructions} here")
                    cache = network.start(batch, order)
                    found = [network.step(cache)]
                    found += [network.step(cache, values[:, i : i + 1]) for i in range(22)]
                    assert isinstance(cache.state, Kept) and cache.state.layers is not None
                # "amx" multiplies by parts of 16 bits, whose products are right to 2^-16 of themselves
                error = 2e-4 if instructions == "amx" and batch > 12 else 1e-5
                assert float((torch.cat(found, 1) - expected).abs().max()) <= error * float(expected.abs().max())
        finally:
            torch.set_num_threads(before)


@pytest.mark.parametrize("instructions", ["amx", "avx512", "avx2", "base"])
@pytest.mark.parametrize("heads", [1, 3, 9])
def test_neighbouring_features_are_turned(instructions: str, heads: int) -> None:
    """Where rotary positions turn pairs rather than halves of a head."""
    torch.manual_seed(0)
    space, order = Space((9,), 7), Order.raster(9)
    network = CausalTransformer(heads * 22, 1, heads=heads, targets=False).build(space).eval()
    values = torch.randint(7, (2, 9))
    with torch.no_grad():
        with native.without():
            expected = network(values, order)
        with native.restricted(instructions) as there:
            if not there:
                pytest.skip(f"no {instructions} here")
            cache = network.start(2, order)
            found = [network.step(cache)] + [network.step(cache, values[:, i : i + 1]) for i in range(8)]
    assert float((torch.cat(found, 1) - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize("instructions", ["amx", "avx512", "avx2", "base"])
def test_sites_of_one_set_see_each_other(instructions: str) -> None:
    """Several rows of one item in a pass: all keep their keys and values before any is read."""
    torch.manual_seed(0)
    space, order = Space((3, 7), 11), Order.frames(3, 7)
    network = CausalTransformer(96, 2, heads=3).build(space).eval()
    values = torch.randint(11, (5, 21))
    before = torch.get_num_threads()
    with torch.no_grad():
        with native.without():
            expected = network(values, order)
        try:
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                with native.restricted(instructions) as there:
                    if not there:
                        pytest.skip(f"no {instructions} here")
                    cache = network.start(5, order)
                    found = [network.step(cache)] + [network.step(cache, values[:, i : i + 7]) for i in (0, 7)]
                    assert isinstance(cache.state, Kept) and cache.state.layers is not None
                error = 2e-4 if instructions == "amx" else 1e-5  # 35 rows, by parts of 16 bits
                assert float((torch.cat(found, 1) - expected).abs().max()) <= error * float(expected.abs().max())
        finally:
            torch.set_num_threads(before)
