"""Scores of items: exact under one order, or averaged over random ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ancestral.decoding.batches import run_batches
from ancestral.noise import Noise, item_seeds
from ancestral.order import Order
from ancestral.space import Condition

if TYPE_CHECKING:
    from ancestral.generator import Generator


def score_values(
    generator: Generator,
    values: Tensor,
    *,
    condition: Condition,
    order: Order | None = None,
    bound: int = 0,
    seed: int = 0,
    batch_size: int | None = None,
) -> Tensor:
    """Log-probability of every site given those of lower rank: float64 ``[n, N]``, nats.

    Args:
        generator: a built generator.
        values: ``[n, N, *event]``.
        condition: what the model is told.
        order: to score under, shared or one per item; by default the policy's scoring order.
        bound: if positive, the mean over this many random orders per item.
        seed: of the random orders.
        batch_size: items scored together; None takes what suits the network.
    """
    device, space = next(generator.parameters()).device, generator.space
    chosen = generator.order.scoring() if order is None else order

    def score(index: Tensor) -> Tensor:
        batch = values[index].to(device)
        told = condition.map(lambda t: t[index].to(device))
        if bound <= 0:
            return generator.log_prob(batch, chosen.items(index).to(device), told).double().cpu()
        noise = Noise(item_seeds(seed, index).to(device))
        draws = []
        for _ in range(bound):
            drawn = Order(torch.argsort(noise.uniform(space.n), -1))
            draws.append(generator.log_prob(batch, drawn, told).double().cpu())
        return torch.stack(draws).mean(0)

    empty = torch.zeros(0, space.n, dtype=torch.float64)
    return torch.cat([empty, *run_batches(generator, len(values), batch_size, score)])
