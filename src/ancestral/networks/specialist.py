"""One network for the order that counts, another for all the others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ancestral.heads.base import Head
from ancestral.networks.base import Cache, Network
from ancestral.networks.mixtures import opinion
from ancestral.order import Order
from ancestral.space import Condition, Space


class Specialist(Network):
    """A specialist for the raster order beside a network that follows any order.

    A network of one order learns all conditionals of an item in one pass and is better at them than one that must
    answer every question. What follows the raster order (exact scores, samples, codes, continuations) is left to
    the specialist; everything else, such as completion from any subset of sites, to the other.

    Args:
        raster: (network, head) that follow the raster order.
        other: (network, head) for any order.

    Shapes:
        features float32 ``[B, N, K]``: log-probabilities; :class:`ancestral.heads.LogLinear` takes them as they are.
    """

    def __init__(self, raster: tuple[Network, Head], other: tuple[Network, Head]):
        super().__init__()
        self.raster, self.raster_head = raster
        self.other, self.other_head = other
        for name in ("any_order", "shrinking_sets", "parallel_sets", "needs_mask"):
            setattr(self, name, getattr(self.other, name))

    def build(self, space: Space) -> Specialist:
        self.space = space
        for network, head in ((self.raster, self.raster_head), (self.other, self.other_head)):
            network.build(space)
            head.build(space, network.width)
        self.width = space.largest
        return self

    def _for(self, order: Order) -> tuple[Any, Any]:
        return (self.raster, self.raster_head) if order.is_raster else (self.other, self.other_head)

    def check(self, order: Order) -> None:
        self._for(order)[0].check(order)

    def forward(self, values: Tensor, order: Order, condition: Condition | None = None) -> Tensor:
        network, head = self._for(order)
        sites = torch.arange(self.space.n, device=values.device)
        return opinion(head, network(values, order, condition), sites)

    def observe(self, values: Tensor, known: Tensor, condition: Condition | None = None) -> Tensor:
        sites = torch.arange(self.space.n, device=values.device)
        return opinion(self.other_head, self.other.observe(values, known, condition), sites)

    def start(
        self,
        batch: int,
        order: Order,
        condition: Condition | None = None,
        values: Tensor | None = None,
        known_sets: int = 0,
    ) -> Cache:
        cache = super().start(batch, order, condition, values, known_sets)
        cache.state = self._for(order)[0].start(batch, order, condition, values, known_sets)
        return cache

    def step(self, cache: Cache, last: Tensor | None = None) -> Tensor:
        network, head = self._for(cache.order)
        sites = cache.order.sets[cache.next]
        cache.next += 1
        return opinion(head, network.step(cache.state, last), sites)
