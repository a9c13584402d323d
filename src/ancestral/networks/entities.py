"""Transformer that sees sets as they are drawn: those before as they are, the next one as it is at the moment."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.networks.adaptive import AdaptiveBlock, Modulated, TimeEmbedding, start_adaptive
from ancestral.networks.base import Cache, ConditionEmbedding, Network, ValueEmbedding, take
from ancestral.networks.transformer import KeyValues, default_heads
from ancestral.order import Order
from ancestral.space import Condition, Space


class EntityTransformer(Network):
    """Block-causal transformer over noisy values (xAR: Ren et al. 2025, arXiv:2502.20388).

    A place holds a value, its position, and how far it is drawn: a time from 0 (noise) to 1. Places of a set see each
    other and the sets before. The time, with the condition, scales, shifts and gates every layer (adaptive layer norm).
    Asked for features of a set whose values are not drawn (:meth:`forward`, :meth:`step`), it sees zeros at time 0
    there; a head that draws them little by little asks again with what it has (:meth:`look`).

    Args:
        width: features D.
        depth: layers.
        heads: attention heads; by default one per 64 features, at least 2.
        ratio: of the feed-forward layers.
        dropout: share of activations dropped in training.
        noisy: in training the sets before are shown as noisy as they are learned at (noisy context learning), rather
            than as they are.
    """

    any_order = False
    looks = True

    def __init__(
        self,
        width: int = 256,
        depth: int = 8,
        heads: int | None = None,
        ratio: float = 4.0,
        dropout: float = 0.0,
        noisy: bool = True,
    ):
        super().__init__()
        self.width, self.depth, self.ratio, self.dropout, self.noisy = width, depth, ratio, dropout, noisy
        self.heads = heads or default_heads(width)

    def build(self, space: Space) -> EntityTransformer:
        if space.discrete:
            raise ValueError("noisy values are real numbers; this network needs continuous latents")
        self.space = space
        self.embed = ValueEmbedding(space, self.width)
        self.told = ConditionEmbedding(space, self.width)
        self.time = TimeEmbedding(self.width)
        self.position = nn.Parameter(torch.randn(space.n, self.width) * 0.3)
        self.blocks = nn.ModuleList(
            AdaptiveBlock(self.width, self.heads, self.ratio, self.dropout, cosine=True, shared=False)
            for _ in range(self.depth)
        )
        self.norm = Modulated(self.width)
        self.last = nn.Linear(self.width, 2 * self.width)
        start_adaptive(self, self.width, self.depth, self.width**-0.5)
        return self

    # -- places

    def _inputs(self, values: Tensor | None, sites: Tensor, batch: int) -> Tensor:
        """What stands at ``sites``: values ``[B, S, *event]``, or zeros, at their positions: ``[B, S, D]``."""
        if values is None:
            values = self.position.new_zeros(batch, sites.shape[-1], *self.space.event)
        # Values of the moment do not go through `embed`, which is for those that are drawn.
        return self.embed.project(values.flatten(2)) + self.position[sites]

    def _contents(self, values: Tensor, sites: Tensor) -> Tensor:
        return self.embed(take(values, sites), sites) + self.position[sites]

    def _told(self, condition: Condition | None, sites: Tensor, time: Tensor) -> Tensor:
        """Modulation ``[B, S, D]`` of places at ``time`` ``[B, S]``."""
        return self.time(time) + self.told(condition, sites, len(time))

    def _run(self, x: Tensor, told: Tensor, mask: Tensor | None, kept: list[KeyValues] | None, keep: int) -> Tensor:
        for number, block in enumerate(self.blocks):
            x = block(x, told, None, mask, None if kept is None else kept[number], keep)
        scale, shift = self.last(F.silu(told)).chunk(2, -1)
        return self.norm(x, scale, shift)

    # -- all sets at once

    def forward(self, values: Tensor, order: Order, condition: Condition | None = None) -> Tensor:
        return self._both(values, order, condition, None, self.position.new_zeros(len(values), order.n))

    def look_all(self, values: Tensor, order: Order, condition: Condition | None, now: Tensor, time: Tensor) -> Tensor:
        if not (self.noisy and self.training):
            return self._both(values, order, condition, now, time)
        sites = torch.arange(order.n, device=now.device)
        x, told = self._inputs(now, sites, len(now)), self._told(condition, sites, time)
        rank = order.rank.to(now.device)
        mask = rank[..., None, :] <= rank[..., :, None]
        return self._run(x, told, mask[:, None] if mask.dim() == 3 else mask, None, 0)

    def _both(
        self, values: Tensor, order: Order, condition: Condition | None, now: Tensor | None, time: Tensor
    ) -> Tensor:
        """Sets as they are, and for each a copy as it is at the moment, which sees the sets before and itself."""
        batch, sites, end = len(values), order.permutation, order.starts[-2]
        seen = sites[..., :end]
        if now is not None:
            now = take(now, sites)
        x = torch.cat([self._contents(values, seen), self._inputs(now, sites, batch)], 1)
        done = torch.ones_like(time[:, :end])
        time = take(time[..., None], sites)[..., 0]
        both = torch.cat([seen, sites], -1)
        told = self._told(condition, both, torch.cat([done, time], 1))
        of = order.set_of_place.to(x.device)
        here, there = of[:end], of
        own = torch.cat([here.new_zeros(end, order.n, dtype=torch.bool), there[None, :] == there[:, None]])
        before = torch.cat([here[None, :] <= here[:, None], here[None, :] < there[:, None]])
        features = self._run(x, told, torch.cat([before, own], 1), None, 0)[:, end:]
        return features if order.is_raster else take(features, order.places)

    # -- set by set

    def step(self, cache: Cache, last: Tensor | None = None) -> Tensor:
        order, k = cache.order, cache.next
        self.record(cache, last)
        fresh = cache.state is None
        begin, end = (0 if fresh else order.starts[k - 1]), order.starts[k]
        seen, asked = order.permutation[..., begin:end], order.sets[k]
        x = torch.cat([self._contents(cache.values, seen), self._inputs(None, asked, cache.batch)], 1)
        time = (torch.arange(x.shape[1], device=x.device) < end - begin).float().expand(cache.batch, -1)
        told = self._told(cache.condition, torch.cat([seen, asked], -1), time)
        if fresh:
            like = x.new_empty(cache.batch, self.heads, 1, self.width // self.heads)
            cache.state = [KeyValues(like, order.n + max(order.sizes)) for _ in self.blocks]
        of = order.set_of_place.to(x.device)[: order.starts[k + 1]]
        mask = of[None, :] <= of[begin:, None]
        features = self._run(x, told, mask, cache.state, end - begin)[:, end - begin :]
        cache.next += 1
        return features

    def look(self, cache: Cache, now: Tensor, time: Tensor, rows: slice) -> Tensor:
        sites = cache.order.sets[cache.next - 1]
        if sites.dim() == 2:
            sites = sites[rows]
        condition = cache.condition.map(lambda part: part[rows])
        x, told = self._inputs(now, sites, len(now)), self._told(condition, sites, time)
        return self._run(x, told, None, [kept.rows(rows) for kept in cache.state], 0)
