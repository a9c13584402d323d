"""Ensembles over orders: one network, several factorisations, one mixture."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ancestral.decoding.decoders import Ancestral, Request
from ancestral.order import Order
from ancestral.space import Condition

if TYPE_CHECKING:
    from ancestral.generator import Generator


@dataclass(frozen=True)
class OrderEnsemble:
    """The mixture ``1/M sum_m p(x | order m)`` of an any-order model (Uria et al. 2014, arXiv:1310.1757).

    The orders of a random-order network disagree a little; their mixture is a distribution in its own right that is
    never worse than the mean of its members' log-probabilities. The first member is the model's scoring order, the
    others are fixed random permutations.

    As a decoder it draws a member per item and follows it. Where sites are known the member is drawn uniformly too,
    not by how well it explains them.

    Args:
        members: number of orders M.
        seed: of the permutations.
    """

    members: int
    seed: int = 0

    def orders(self, generator: Generator) -> list[Order]:
        """The M orders, each over single sites."""
        if not generator.any_order:
            raise ValueError("an ensemble over orders needs a model that was trained for any order")
        first = generator.order.scoring().one_by_one()
        n = generator.space.n
        return [first, *(Order.random(n, self.seed * 7919 + m) for m in range(1, self.members))]

    @torch.no_grad()
    def log_prob(self, generator: Generator, values: Tensor, condition: Condition | None = None) -> Tensor:
        """Exact log-probability of ``values`` ``[B, N, *event]`` under the mixture: float64 ``[B]``, nats."""
        orders = [order.to(values.device) for order in self.orders(generator)]
        each = [generator.log_prob(values, order, condition).double().sum(1) for order in orders]
        return torch.stack(each).logsumexp(0) - math.log(len(orders))

    def __call__(self, generator: Generator, request: Request) -> Tensor:
        if request.order is not None:
            return Ancestral()(generator, request)
        device = request.noise.seeds.device
        ranks = torch.stack([order.rank for order in self.orders(generator)]).to(device)
        member = (request.noise.uniform(1)[:, 0] * len(ranks)).long()
        return Ancestral()(generator, replace(request, order=Order(ranks[member])))
