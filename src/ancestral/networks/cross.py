"""Decoder whose queries hold a position only, and attend to contents that were read once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.networks.base import Cache, ConditionEmbedding, Network, ValueEmbedding, take
from ancestral.networks.fused import turn_heads, turn_pairs
from ancestral.networks.transformer import (
    Block,
    KeyValues,
    Layers,
    RMSNorm,
    Rotary,
    SwiGLU,
    default_heads,
    initialise,
    replace_site,
    turn_start,
)
from ancestral.order import Order
from ancestral.space import Condition, Space


class CrossBlock(nn.Module):
    """Queries attend to given keys and values; feed-forward layer."""

    def __init__(self, width: int, heads: int, dropout: float, ratio: float = 8 / 3, eps: float = 1e-6):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm, self.norm2 = RMSNorm(width, eps), RMSNorm(width, eps)
        self.query = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.mlp = SwiGLU(width, ratio, dropout)

    def forward(self, x: Tensor, rotation: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        b, t, d = x.shape
        q = turn_pairs(self.query(self.norm(x)).view(b, t, self.heads, -1), rotation.unsqueeze(-2)).transpose(1, 2)
        drop = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=drop)
        x = x + F.dropout(self.out(y.transpose(1, 2).reshape(b, t, d)), self.dropout, self.training)
        return x + F.dropout(self.mlp(self.norm2(x)), self.dropout, self.training)


class CrossTransformer(Network):
    """Two passes (ARPG: Li et al. 2025, arXiv:2503.10568): contents are read in the order drawn, then asked.

    The first layers are causal over the drawn values, behind a token that holds the condition. Their output gives keys
    and values once, for all further layers; there, queries that are the same everywhere but for the rotation of the
    site they ask about attend to the contents drawn before. Queries do not see each other, so that any number can be
    asked at once, and only the contents' keys and values are kept.

    Args:
        width: features D.
        depth: layers, the first half over contents and the rest over queries.
        heads: attention heads; by default one per 64 features, at least 2.
        dropout: share of activations dropped in training.
        published: as in the published models, the condition's token has neither queries nor keys.
        hidden, eps: hidden features of the feed-forward layers, and the norms' eps.
    """

    def __init__(
        self,
        width: int = 384,
        depth: int = 8,
        heads: int | None = None,
        dropout: float = 0.0,
        published: bool = False,
        hidden: int | None = None,
        eps: float = 1e-6,
    ):
        super().__init__()
        if depth < 2:
            raise ValueError(f"depth={depth} leaves no layer for either the contents or the queries; give at least 2")
        self.width, self.depth, self.dropout = width, depth, dropout
        self.heads = heads or default_heads(width)
        self.published, self.eps = published, eps
        self.ratio = 8 / 3 if hidden is None else hidden / width

    def build(self, space: Space) -> CrossTransformer:
        self.space, width = space, self.width
        self.embed = ValueEmbedding(space, width)
        self.told = ConditionEmbedding(space, width)
        self.first, self.query = nn.Parameter(torch.randn(width) * 0.5), nn.Parameter(torch.randn(width) * 0.5)
        self.rotation = Rotary(space, width // self.heads)
        half = self.depth // 2
        self.blocks = Layers(Block(width, self.heads, self.dropout, self.ratio, eps=self.eps) for _ in range(half))
        self.between = RMSNorm(width, self.eps)
        self.keys = nn.Linear(width, 2 * width, bias=False)
        self.cross = nn.ModuleList(
            CrossBlock(width, self.heads, self.dropout, self.ratio, self.eps) for _ in range(self.depth - half)
        )
        self.norm = RMSNorm(width, self.eps)
        initialise(self, self.depth)
        return self

    def _contents(self, values: Tensor, sites: Tensor, condition: Condition | None, start: bool) -> Tensor:
        x = self.embed(values, sites)
        if not start:
            return x
        zero = torch.zeros(1, dtype=torch.int64, device=self.first.device)
        first = self.first + self.told(replace_site(condition), zero, len(values))
        return torch.cat([first.expand(len(values), 1, self.width), x], 1)

    def _angles(self, sites: Tensor, start: bool) -> Tensor:
        turn = self.rotation(sites)
        return turn_start(turn, 0.0 if self.published else 1.0) if start else turn

    def _read(
        self, x: Tensor, rotation: Tensor, mask: Tensor | None, kept: list[KeyValues] | None
    ) -> tuple[Tensor, Tensor]:
        """Keys and values ``[B, H, T, E]`` of contents ``[B, T, D]``, of all so far if a state is kept."""
        for number, block in enumerate(self.blocks):
            q, k, v = block.project(x, rotation)
            if kept is not None:
                k, v = kept[number].append(k, v)
            x = block.finish(x, block.attend(q, k, v, mask))
        b, t, _ = x.shape
        both = self.keys(self.between(x)).view(b, t, 2 * self.heads, -1)
        k, v = (part.transpose(1, 2) for part in turn_heads(both, rotation.unsqueeze(-2), self.heads))
        return (k, v) if kept is None else kept[-1].append(k, v)

    def _ask(self, sites: Tensor, condition: Condition | None, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        x = self.query.expand(len(k), sites.shape[-1], self.width)
        if self.told.site is not None and condition is not None and condition.site is not None:
            x = x + take(self.told.site(condition.site), sites)
        for block in self.cross:
            x = block(x, self.rotation(sites), k, v, mask)
        return self.norm(x)

    def forward(self, values: Tensor, order: Order, condition: Condition | None = None) -> Tensor:
        sites, last = order.permutation, order.starts[-2]  # nobody asks about the contents of the last set
        seen = sites[..., :last]
        x = self._contents(take(values, seen), seen, condition, True)
        of = order.set_of_place.to(values.device)
        ranks = torch.cat([of.new_full((1,), -1), of[:last]])
        k, v = self._read(x, self._angles(seen, True), ranks[None] <= ranks[:, None], None)
        features = self._ask(sites, condition, k, v, ranks[None] < of[:, None])
        return features if order.is_raster else take(features, order.places)

    def step(self, cache: Cache, last: Tensor | None = None) -> Tensor:
        order, k, batch = cache.order, cache.next, cache.batch
        self.record(cache, last)
        first = cache.state is None
        begin, end = (0 if first else order.starts[k - 1]), order.starts[k]
        seen = order.permutation[..., begin:end]
        x = self._contents(take(cache.values, seen), seen, cache.condition, first)
        if first:
            like = x.new_empty(batch, self.heads, 1, self.width // self.heads)
            cache.state = [KeyValues(like, order.n + 1) for _ in range(len(self.blocks) + 1)]
        mask = None
        if first and k > 0:
            of = order.set_of_place.to(x.device)
            ranks = torch.cat([of.new_full((1,), -1), of[:end]])
            mask = ranks[None] <= ranks[:, None]
        keys, values = self._read(x, self._angles(seen, first), mask, cache.state)
        cache.next += 1
        return self._ask(order.sets[k], cache.condition, keys, values, None)
