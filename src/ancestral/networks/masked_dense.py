"""Dense networks: NADE (exact in any order), DeepNADE (masks as input) and MADE (masked weights)."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.networks.base import Cache, ConditionEmbedding, Network, ValueEmbedding, take
from ancestral.networks.dropout import dropped
from ancestral.networks.masked import observe_all, observe_step
from ancestral.order import Order
from ancestral.space import Condition, Space


class NADE(Network):
    """Neural autoregressive distribution estimator (Uria et al. 2016, arXiv:1605.02226).

    The hidden accumulation before site i is ``c + sum_{rank j < rank i} W_j[x_j]``: one running sum serves all
    sites, any order and any sets, and is the whole state of incremental sampling. The nonlinearity follows, then
    further dense layers if ``depth`` is above 1; what depends on the target site is added before them.

    Args:
        width: hidden units H, and features.
        depth: 1 is the classic estimator.
    """

    def __init__(self, width: int = 256, depth: int = 1):
        super().__init__()
        self.width, self.depth = width, depth

    def build(self, space: Space) -> NADE:
        self.space = space
        self.embed = ValueEmbedding(space, self.width)
        self.told = ConditionEmbedding(space, self.width)
        self.place = nn.Embedding(space.n, self.width)
        self.target = nn.Embedding(space.n, self.width)
        self.value = nn.Linear(self.width, self.width, bias=False)
        self.bias = nn.Parameter(torch.zeros(self.width))
        # Each site's weights W_j differ: the shared table is scaled and shifted by vectors of the site's own.
        nn.init.normal_(self.place.weight, mean=1.0, std=0.5)
        nn.init.normal_(self.target.weight, std=0.3)
        nn.init.normal_(self.value.weight, std=1 / math.sqrt(self.width * max(1, space.n) ** 0.5))
        self.site = nn.Embedding(space.n, self.width)
        nn.init.normal_(self.site.weight, std=0.1)
        self.deeper = nn.ModuleList(nn.Linear(self.width, self.width) for _ in range(self.depth - 1))
        return self

    def contributions(self, values: Tensor, sites: Tensor) -> Tensor:
        """``W_j[x_j]`` of values ``[B, S, *event]`` at ``sites``: float32 ``[B, S, H]``."""
        return self.value(self.embed(values, sites) * self.place(sites)) + self.site(sites)

    def finish(self, total: Tensor, sites: Tensor, condition: Condition | None) -> Tensor:
        """Features ``[B, S, H]`` of the target ``sites`` from accumulations ``[B, S, H]`` or ``[B, 1, H]``."""
        x = total + self.bias + self.target(sites) + self.told(condition, sites, total.shape[0])
        x = F.silu(x)
        for layer in self.deeper:
            x = x + F.silu(layer(x))
        return x

    def forward(self, values: Tensor, order: Order, condition: Condition | None = None) -> Tensor:
        sites = order.permutation
        each = self.contributions(take(values, sites), sites)
        before = torch.cat([torch.zeros_like(each[:, :1]), each.cumsum(1)], 1)
        # All places of a set see the sum up to the set's first place.
        first = torch.tensor(order.starts[:-1], device=values.device)[order.set_of_place.to(values.device)]
        features = self.finish(before[:, first], sites, condition)
        return features if order.is_raster else take(features, order.places)

    def step(self, cache: Cache, last: Tensor | None = None) -> Tensor:
        order, k = cache.order, cache.next
        self.record(cache, last)
        if cache.state is None:
            cache.state = torch.zeros(cache.batch, 1, self.width, device=self.bias.device)
            seen = order.permutation[..., : order.starts[k]]
        else:
            seen = order.sets[k - 1]
        if seen.shape[-1]:
            added = self.contributions(take(cache.values, seen), seen).sum(1, keepdim=True)
            cache.state = cache.state + added
        cache.next += 1
        return self.finish(cache.state.expand(-1, order.sizes[k], -1), order.sets[k], cache.condition)


class DeepNADE(Network):
    """Order-agnostic dense network over values and their mask (Uria et al. 2014, arXiv:1310.1757).

    Args:
        width: features D at every site.
        hidden: units of the shared layers.
        depth: residual layers.
        dropout: share of hidden units dropped in training.
    """

    needs_mask = True

    def __init__(self, width: int = 32, hidden: int = 512, depth: int = 2, dropout: float = 0.0):
        super().__init__()
        self.width, self.hidden, self.depth, self.dropout = width, hidden, depth, dropout

    def build(self, space: Space) -> DeepNADE:
        self.space = space
        self.embed = ValueEmbedding(space, self.width, masked=True)
        self.told = ConditionEmbedding(space, self.width)
        self.enter = nn.Linear(space.n * self.width, self.hidden)
        self.norms = nn.ModuleList(nn.LayerNorm(self.hidden) for _ in range(self.depth))
        self.inner = nn.ModuleList(nn.Linear(self.hidden, self.hidden) for _ in range(self.depth))
        self.outer = nn.ModuleList(nn.Linear(self.hidden, self.hidden) for _ in range(self.depth))
        self.leave = nn.Linear(self.hidden, space.n * self.width)
        return self

    def observe(self, values: Tensor, known: Tensor, condition: Condition | None = None) -> Tensor:
        sites = torch.arange(self.space.n, device=values.device)
        x = torch.where(known[..., None], self.embed(values, sites), self.embed.mask)
        # The condition enters at every site, so that the network knows where a per-site condition stands.
        h = self.enter((x + self.told(condition, sites, values.shape[0])).flatten(1))
        for norm, inner, outer in zip(self.norms, self.inner, self.outer, strict=True):
            h = h + outer(dropped(F.gelu(inner(norm(h))), self.dropout, self.training))
        return self.leave(h).view(-1, self.space.n, self.width)

    def forward(self, values: Tensor, order: Order, condition: Condition | None = None) -> Tensor:
        return observe_all(self, values, order, condition)

    def step(self, cache: Cache, last: Tensor | None = None) -> Tensor:
        return observe_step(self, cache, last)


class MADE(Network):
    """Masked autoencoder (Germain et al. 2015, arXiv:1502.03509): the order is cut out of the weights.

    Every hidden unit has a degree d and sees only sites of rank below d; a site of rank r sees only units of
    degree at most r. Degrees are spread evenly over the ranks, so one pass gives all sites' features. Weights are
    trained for one order. What the model is told enters all hidden units of the first layer, unmasked, and is added
    to the features.

    Args:
        width: features D at every site.
        hidden: units per layer.
        depth: hidden layers.
        dropout: share of hidden units dropped in training.
        direct: connect the values with the features of later sites directly, too (the paper's section on direct
            connections between input and output).
    """

    any_order = False

    def __init__(self, width: int = 32, hidden: int = 512, depth: int = 2, dropout: float = 0.0, direct: bool = False):
        super().__init__()
        self.width, self.hidden, self.depth = width, hidden, depth
        self.dropout, self.direct = dropout, direct

    def build(self, space: Space) -> MADE:
        self.space = space
        self.embed = ValueEmbedding(space, self.width)
        self.told = ConditionEmbedding(space, self.width)
        sizes = [space.n * self.width, *[self.hidden] * self.depth]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.leave = nn.Linear(self.hidden, space.n * self.width)
        if self.direct:
            self.straight = nn.Parameter(torch.zeros(space.n * self.width, space.n * self.width))
        told = space.n * self.width if space.site else self.width if space.classes or space.vector else 0
        self.guide = nn.Linear(told, self.hidden, bias=False) if told else None
        return self

    def _guide(self, told: Tensor | float) -> Tensor | float:
        """What every hidden unit of the first layer is told: ``[B, hidden]``, or 0.0."""
        if self.guide is None or not isinstance(told, Tensor):
            return 0.0
        if self.space.site:
            told = told.expand(told.shape[0], self.space.n, self.width)
        return self.guide(told.flatten(1))

    def forward(self, values: Tensor, order: Order, condition: Condition | None = None) -> Tensor:
        if order.batched:
            raise ValueError("MADE has one order for all items; give an order of shape [N]")
        sites = torch.arange(self.space.n, device=values.device)
        rank = order.rank.to(values.device).repeat_interleave(self.width)
        # Degrees 0 .. n_sets - 1: a unit of degree d may see ranks below d, and feeds ranks of at least d.
        degree = (torch.arange(self.hidden, device=values.device) * order.n_sets) // self.hidden
        x = h = self.embed(values, sites).flatten(1)
        told = self.told(condition, sites, values.shape[0])
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, nn.Linear)
            mask = rank[None] < degree[:, None] if number == 0 else degree[None] <= degree[:, None]
            h = F.linear(h, layer.weight * mask, layer.bias)
            h = F.silu(h + self._guide(told) if number == 0 else h)
            h = dropped(h, self.dropout, self.training)
        mask = degree[None] <= rank[:, None]
        features = F.linear(h, self.leave.weight * mask, self.leave.bias)
        if self.direct:
            features = features + F.linear(x, self.straight * (rank[None] < rank[:, None]))
        return features.view(-1, self.space.n, self.width) + told

    def check(self, order: Order) -> None:
        if order.batched:
            raise ValueError("MADE has one order for all items; give an order of shape [N]")
        super().check(order)
