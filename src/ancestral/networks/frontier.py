"""Transformer whose sites are predicted from their decoded neighbours: features per direction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ancestral.networks.base import Cache, ConditionEmbedding, Network, ValueEmbedding, put, take
from ancestral.networks.compiled import Kept, compiled_rows
from ancestral.networks.transformer import (
    Block,
    KeyValues,
    Layers,
    RMSNorm,
    Rotary,
    default_heads,
    initialise,
    replace_site,
    turn_start,
)
from ancestral.order import Order
from ancestral.space import Condition, Space


def predecessors(shape: tuple[int, ...]) -> Tensor:
    """The site before every site along every axis of a grid, int64 ``[N, axes]``; -1 where there is none."""
    index = torch.arange(int(torch.tensor(shape).prod())).reshape(shape)
    columns = []
    for axis, size in enumerate(shape):
        before = torch.roll(index, 1, axis)
        before.index_fill_(axis, torch.tensor([0]), -1)
        assert size == index.shape[axis]
        columns.append(before.reshape(-1))
    return torch.stack(columns, 1)


class FrontierTransformer(Network):
    """Content transformer for neighbour prediction (NAR: He et al. 2025, arXiv:2503.10696).

    Each drawn token attends to all tokens at most as far from the first corner as itself (proximity mask), and its
    output speaks for its next neighbour along every axis. The features of a site are the outputs of its decoded
    neighbours, one part of size ``width`` per axis (zeros where there is none), to be read by
    :class:`ancestral.heads.directions.Directions`. The first site is spoken for by a start token.

    Shapes:
        features: float32 ``[B, N, axes * width]``; ``self.width`` is ``axes * width``.

    Args:
        width: features of a token.
        depth: layers.
        heads: attention heads; by default one per 64 features, at least 2.
        dropout: share of activations dropped in training.
    """

    any_order = False

    def __init__(self, width: int = 384, depth: int = 8, heads: int | None = None, dropout: float = 0.0):
        super().__init__()
        self.token_width, self.depth, self.dropout = width, depth, dropout
        self.heads = heads or default_heads(width)

    def build(self, space: Space) -> FrontierTransformer:
        self.space, width = space, self.token_width
        self.width = width * len(space.shape)
        self.embed = ValueEmbedding(space, width)
        self.told = ConditionEmbedding(space, width)
        self.first = nn.Parameter(torch.randn(width) * 0.5)
        self.position = nn.Embedding(space.n, width)
        nn.init.normal_(self.position.weight, std=0.3)
        self.rotation = Rotary(space, width // self.heads)
        self.blocks = Layers(Block(width, self.heads, self.dropout) for _ in range(self.depth))
        self.norm = RMSNorm(width)
        initialise(self.blocks, self.depth)
        before = predecessors(space.shape)
        before[0, 0] = space.n  # the start token speaks for the first site, along the first axis
        self.before: Tensor
        self.register_buffer("before", before, persistent=False)
        return self

    def check(self, order: Order) -> None:
        """Refuse an order in which a site comes no later than its neighbour before it.

        Raises:
            ValueError: such an order.
        """
        rank = order.rank.reshape(-1, order.n)
        before = self.before.to(rank.device)
        there = (before >= 0) & (before < order.n)
        earlier = rank[:, before.clamp(0, order.n - 1)] < rank[..., None]
        if not bool((earlier | ~there).all()):
            raise ValueError("neighbour prediction needs an order in which neighbours before a site are drawn first")

    def _tokens(self, values: Tensor, sites: Tensor, condition: Condition | None) -> Tensor:
        x = self.embed(values, sites) + self.position(sites)
        return x + self.told(condition, sites, values.shape[0])

    def _start(self, condition: Condition | None, batch: int) -> Tensor:
        zero = torch.zeros(1, dtype=torch.int64, device=self.first.device)
        return (self.first + self.told(replace_site(condition), zero, batch)).expand(batch, 1, self.token_width)

    def _angles(self, sites: Tensor, start: bool) -> Tensor:
        turn = self.rotation(sites)
        return turn_start(turn) if start else turn

    def _speak(self, outputs: Tensor, sites: Tensor) -> Tensor:
        """Features at ``sites`` from the outputs at all sites and the start token, ``[B, N + 1, W]``."""
        before = self.before[sites]
        parts = [take(outputs, before[..., a].clamp(min=0)) for a in range(before.shape[-1])]
        parts = [torch.where(before[..., a, None] >= 0, part, 0.0) for a, part in enumerate(parts)]
        return torch.cat(parts, -1)

    def forward(self, values: Tensor, order: Order, condition: Condition | None = None) -> Tensor:
        self.check(order)
        batch = values.shape[0]
        sites = order.permutation
        x = torch.cat([self._start(condition, batch), self._tokens(take(values, sites), sites, condition)], 1)
        rotation = self._angles(sites, True)
        of = order.set_of_place.to(values.device)
        sets = torch.cat([of.new_full((1,), -1), of])
        mask = sets[None, :] <= sets[:, None]
        for block in self.blocks:
            q, k, v = block.project(x, rotation)
            x = block.finish(x, block.attend(q, k, v, mask))
        x = self.norm(x)
        outputs = torch.cat([take(x[:, 1:], order.places), x[:, :1]], 1)
        return self._speak(outputs, torch.arange(order.n, device=values.device))

    def step(self, cache: Cache, last: Tensor | None = None) -> Tensor:
        order, k, batch = cache.order, cache.next, cache.batch
        self.record(cache, last)
        first = cache.state is None
        begin, end = (0 if first else order.starts[k - 1]), order.starts[k]
        seen = order.permutation[..., begin:end]
        tokens = self._tokens(take(cache.values, seen), seen, cache.condition)
        x = torch.cat([self._start(cache.condition, batch), tokens], 1) if first else tokens
        mask = None
        if first:
            cache.state = Kept()
            cache.extra["outputs"] = x.new_zeros(batch, order.n + 1, self.token_width)
            of = order.set_of_place.to(x.device)
            sets = torch.cat([of.new_full((1,), -1), of[:end]])
            mask = sets[None, :] <= sets[:, None]
        rotation = self._angles(seen, first)
        found = None
        if mask is None:
            found = compiled_rows(self, x, x.shape[1], rotation, cache.state, order.n + 1)
        if found is None:
            for number, block in enumerate(self.blocks):
                q, key, value = block.project(x, rotation)
                if number == len(cache.state):
                    cache.state.append(KeyValues(key, order.n + 1))
                key, value = cache.state[number].append(key, value)
                x = block.finish(x, block.attend(q, key, value, mask))
            found = self.norm(x)
        x = found
        outputs = cache.extra["outputs"]
        if first:
            outputs[:, -1] = x[:, 0]
        put(outputs, seen, x[:, 1:] if first else x)
        cache.next += 1
        return self._speak(outputs, order.sets[k])
