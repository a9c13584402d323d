"""Bidirectional transformer over values and mask symbols."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ancestral.networks.base import Cache, ConditionEmbedding, Network, ValueEmbedding, take
from ancestral.networks.transformer import Block, Layers, RMSNorm, Rotary, default_heads, initialise
from ancestral.order import Order
from ancestral.space import Condition, Space


class MaskedTransformer(Network):
    """Bidirectional transformer over values and mask symbols (BERT/MaskGIT/ARDM kind).

    Given any set of known sites one pass yields features for all others; features of all sites along an order
    therefore cost a pass per set.

    Args:
        width, depth, heads, dropout, rotary: as for :class:`CausalTransformer`.
    """

    needs_mask = True

    def __init__(
        self,
        width: int = 384,
        depth: int = 8,
        heads: int | None = None,
        dropout: float = 0.0,
        rotary: bool = True,
    ):
        super().__init__()
        self.width, self.depth, self.dropout, self.rotary = width, depth, dropout, rotary
        self.heads = heads or default_heads(width)

    def build(self, space: Space) -> MaskedTransformer:
        self.space = space
        self.embed = ValueEmbedding(space, self.width, masked=True)
        self.told = ConditionEmbedding(space, self.width)
        self.position = nn.Embedding(space.n, self.width)
        nn.init.normal_(self.position.weight, std=0.3)
        self.rotation = Rotary(space, self.width // self.heads) if self.rotary else None
        self.blocks = Layers(Block(self.width, self.heads, self.dropout) for _ in range(self.depth))
        self.norm = RMSNorm(self.width)
        initialise(self.blocks, self.depth)
        return self

    def observe(self, values: Tensor, known: Tensor, condition: Condition | None = None) -> Tensor:
        sites = torch.arange(self.space.n, device=values.device)
        embedded = self.embed(values, sites)
        x = torch.where(known[..., None], embedded, self.embed.mask) + self.position(sites)
        x = x + self.told(condition, sites, values.shape[0])
        rotation = None if self.rotation is None else self.rotation(sites)
        for block in self.blocks:
            q, k, v = block.project(x, rotation)
            x = block.finish(x, block.attend(q, k, v))
        return self.norm(x)

    def forward(self, values: Tensor, order: Order, condition: Condition | None = None) -> Tensor:
        return observe_all(self, values, order, condition)

    def step(self, cache: Cache, last: Tensor | None = None) -> Tensor:
        return observe_step(self, cache, last)


def observe_all(network: Network, values: Tensor, order: Order, condition: Condition | None) -> Tensor:
    """Features of all sites along an order from a network that hides values by mask symbols: a pass per set."""
    rank = order.expand(values.shape[0]).rank
    features = None
    for k in range(order.n_sets):
        seen = network.observe(values, rank < k, condition)
        features = seen if features is None else torch.where((rank == k)[..., None], seen, features)
    assert features is not None
    return features


def observe_step(network: Network, cache: Cache, last: Tensor | None) -> Tensor:
    """One step of a network that hides values by mask symbols: a full pass given what is known."""
    network.record(cache, last)
    known = (cache.order.rank < cache.next).expand(cache.batch, cache.order.n)
    features = network.observe(cache.values, known, cache.condition)
    sites = cache.order.sets[cache.next]
    cache.next += 1
    return take(features, sites)
