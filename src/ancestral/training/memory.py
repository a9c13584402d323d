"""How much a training step has to remember, and in how many parts to take it so that memory suffices."""

from __future__ import annotations

import math

import torch
from torch import nn

from ancestral.training.source import ITEM_SEED, Source, fetch

LIMIT = 4 << 30
"""Bytes that one step may remember for its way back, about."""


@torch.enable_grad()
def remembered(module: nn.Module, source: Source, seed: int = 0) -> int:
    """Bytes that the loss of one item keeps for its gradient, parameters not counted.

    Args:
        module: has ``loss``, which changes nothing but its generator.
        source: of the item, the first one.
        seed: of the loss's randomness.
    """
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    most = 0
    for progress in (0.0, 1.0):  # what is learned may change on the way
        batch = {
            **fetch(source, [(0, torch.zeros(1, dtype=torch.int64))]),
            ITEM_SEED: torch.zeros(1, dtype=torch.int64),
        }
        kept.clear()
        with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            torch.manual_seed(seed)
            loss = module.loss(batch, torch.Generator().manual_seed(seed), progress)  # type: ignore[operator]
        most = max(most, sum(kept.values()))
        del loss
    return most


def parts(module: nn.Module, source: Source, batch_size: int, numbers: int) -> int:
    """Parts to take a batch in, so that each remembers about ``LIMIT`` bytes at most.

    Args:
        module, source: as for :func:`remembered`.
        batch_size: items of a batch.
        numbers: that the features and probabilities of one item consist of; where a few hundred times as many are
            well below the limit, nothing is measured.
    """
    if len(source) == 0 or batch_size * numbers * 4 * 400 < LIMIT:
        return 1
    return min(batch_size, max(1, math.ceil(batch_size * remembered(module, source) / LIMIT)))
