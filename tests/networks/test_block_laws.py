"""Laws 1 and 2 over all networks and all orders that they accept."""

from __future__ import annotations

import pytest
import torch

from ancestral.networks import (
    MADE,
    NADE,
    CausalConvolution,
    CausalTransformer,
    DeepNADE,
    GatedConvolution,
    Mamba,
    MaskedConvolution,
    MaskedTransformer,
    Network,
    QueryTransformer,
    Recurrent,
)
from ancestral.networks.base import take
from ancestral.networks.cross import CrossTransformer
from ancestral.networks.frontier import FrontierTransformer
from ancestral.networks.instructed import InstructedTransformer
from ancestral.networks.modulated import ModulatedTransformer
from ancestral.networks.prompted import CaptionedTransformer
from ancestral.networks.recurrent import selective_scan
from ancestral.networks.state_space import GroupedMamba
from ancestral.networks.vision import MaskedAutoencoder
from ancestral.order import Order
from ancestral.space import Condition, Space

NETWORKS = {
    "causal": lambda: CausalTransformer(16, 2),
    "causal-plain": lambda: CausalTransformer(16, 2, targets=False),
    "query": lambda: QueryTransformer(16, 2),
    "masked": lambda: MaskedTransformer(16, 2),
    "nade": lambda: NADE(16, 2),
    "deepnade": lambda: DeepNADE(8, 32, 2),
    "made": lambda: MADE(8, 64, 2),
    "convolution": lambda: GatedConvolution(8, 2, 3),
    "causal-convolution": lambda: CausalConvolution(8, 2),
    "masked-convolution": lambda: MaskedConvolution(16, 2),
    "mamba": lambda: Mamba(16, 2, state=4),
    "captioned": lambda: CaptionedTransformer(16, 2, tokens=2, features=1, shared=1),
    "mamba-2": lambda: GroupedMamba(16, 3, 4, 2, heads=4, shared=2),
    "recurrent": lambda: Recurrent(16, 2),
    "frontier": lambda: FrontierTransformer(16, 2),
    "cross": lambda: CrossTransformer(16, 2),
    "cross-published": lambda: CrossTransformer(16, 2, published=True),
    "cross-deep": lambda: CrossTransformer(16, 5),
    "vision": lambda: MaskedAutoencoder(16, 1, buffer=2),
    "instructed-published": lambda: InstructedTransformer(16, 2, published=True, shared=1),
    "causal-shared": lambda: CausalTransformer(16, 2, heads=4, shared=2, prefix=True),
    "causal-source": lambda: CausalTransformer(16, 2, targets=False, prefix=True, source=True),
    "modulated": lambda: ModulatedTransformer(16, 2),
    "instructed": lambda: InstructedTransformer(16, 2),
}
ORDERS = {
    "raster": lambda: Order.raster(16),
    "reverse": lambda: Order.reverse(16),
    "random": lambda: Order.random(16, seed=1),
    "random per item": lambda: Order.random(16, batch=3),
    "parallel": lambda: Order.parallel(4, 4, 2),
    "neighbour": lambda: Order.neighbour(4, 4),
    "cells": lambda: Order.cells(4, 4, 2),
    "frequency": lambda: Order.frequency(4, 4, parallel=True),
    "masks per item": lambda: Order.masks(16, 4, batch=3),
    "hilbert": lambda: Order.hilbert(4, 4),
    "single": lambda: Order.single(16),
}
SPACE = Space((4, 4), 5, classes=3, vector=2, site=2)


def made(name: str) -> Network:
    torch.manual_seed(0)
    return NETWORKS[name]().build(SPACE).eval()


def told() -> Condition:
    generator = torch.Generator().manual_seed(5)
    return Condition(
        torch.tensor([0, 2, -1]), torch.randn(3, 2, generator=generator), torch.randn(3, 16, 2, generator=generator)
    )


def accepted(network: Network, order: Order) -> bool:
    try:
        network.check(order)
    except ValueError as error:
        assert len(str(error)) > 20
        return False
    return True


CASES = [(n, o) for n in NETWORKS for o in ORDERS if accepted(made(n), ORDERS[o]())]


@pytest.mark.parametrize(("network", "order"), CASES)
def test_causality(network: str, order: str) -> None:
    """The derivative of a site's features in the embeddings of unseen sites is exactly zero."""
    net, followed = made(network), ORDERS[order]().expand(3)
    if not ORDERS[order]().batched:
        followed = ORDERS[order]()
    values = torch.randint(5, (3, 16), generator=torch.Generator().manual_seed(1))
    leaves: list[tuple[torch.Tensor, torch.Tensor]] = []

    def as_leaf(module: object, args: tuple[torch.Tensor, torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        leaf = output.detach().clone().requires_grad_()
        leaves.append((leaf, args[1]))
        return leaf

    net.embed.register_forward_hook(as_leaf)
    features = net(values, followed, told())
    rank = followed.expand(3).rank
    seen_any = 0.0
    if followed.n_sets == 1:  # nothing is seen, so nothing may even be embedded in a way that matters
        assert all(torch.equal(features, net(torch.full_like(values, v), followed, told())) for v in range(5))
        return
    weight = torch.randn(features.shape[-1], generator=torch.Generator().manual_seed(2))
    for site in range(16):
        gradients = torch.autograd.grad(
            (features[:, site] @ weight).sum(), [leaf for leaf, _ in leaves], retain_graph=True, allow_unused=True
        )
        for gradient, (leaf, sites) in zip(gradients, leaves, strict=True):
            if gradient is None:
                continue
            at = sites.expand(3, leaf.shape[1])
            unseen = take(rank, at) >= rank[:, site, None] if at.dim() == 2 else rank >= rank[:, site, None]
            size = gradient.abs().sum(-1)
            assert float(size[unseen].sum()) == 0.0
            seen_any += float(size[~unseen].sum())
    assert seen_any > 0


@pytest.mark.parametrize(("network", "order"), CASES)
@pytest.mark.parametrize("known", [0, 1, 2])
def test_incremental_equals_parallel(network: str, order: str, known: int) -> None:
    """start and step give forward's features to 1e-5, whatever is known from the start."""
    net, followed = made(network), ORDERS[order]()
    if known >= followed.n_sets:
        known = followed.n_sets - 1
    values = torch.randint(5, (3, 16), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = net(values, followed, told())
        cache = net.start(3, followed, told(), values if known else None, known)
        last = None
        for k in range(known, followed.n_sets):
            features = net.step(cache, last)
            last = take(values, followed.sets[k])
            torch.testing.assert_close(features, take(whole, followed.sets[k]), atol=1e-5, rtol=1e-5)


def test_networks_say_which_orders_they_refuse() -> None:
    with pytest.raises(ValueError, match="one site at a time"):
        made("mamba").check(Order.single(16))
    with pytest.raises(ValueError, match="smaller than"):
        made("causal").check(Order.neighbour(4, 4))
    with pytest.raises(ValueError, match="one order for all items"):
        made("made").check(Order.random(16, batch=2))
    with pytest.raises(ValueError, match="neighbours before a site"):
        made("frontier").check(Order.reverse(16))


@pytest.mark.parametrize("length", [1, 5, 64, 65, 200])
def test_scan_equals_recurrence(length: int) -> None:
    generator = torch.Generator().manual_seed(0)
    decay = -torch.rand(2, length, 3, generator=generator) * 20
    drive, state = torch.randn(2, length, 3, generator=generator), torch.randn(2, 3, generator=generator)
    found = selective_scan(decay, drive, state)
    for t in range(length):
        state = torch.exp(decay[:, t]) * state + drive[:, t]
        torch.testing.assert_close(found[:, t], state, atol=1e-5, rtol=1e-5)
