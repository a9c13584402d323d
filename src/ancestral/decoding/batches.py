"""Batches of items, one after the other or one per core."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ancestral.generator import Generator

_FEWEST = 256
"""Items below which a batch is not split for the sake of another core."""


def run_batches(generator: Generator, n: int, batch_size: int | None, work: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """What ``work`` gives for every batch of the items ``0 .. n - 1``, in order; without gradients.

    Layers too small to be shared by several cores (:attr:`Network.abreast`) leave a core to every batch instead.

    Args:
        generator: a built generator.
        n: number of items.
        batch_size: items of a batch; None takes what suits the network.
        work: from the items' numbers, int64 ``[B]``.
    """
    network, threads = generator.network, torch.get_num_threads()
    abreast = network.abreast and threads > 1 and next(generator.parameters()).device.type == "cpu"
    size = batch_size or network.batch
    if abreast and batch_size is None:  # as many batches as keep all cores busy to the end
        rounds = math.ceil(n / (threads * size))
        size = max(min(size, _FEWEST), math.ceil(n / (threads * max(rounds, 1))))
    parts = torch.arange(n).split(size) if n else ()

    @torch.no_grad()
    def one(part: Tensor) -> Tensor:
        return work(part)

    if not abreast or len(parts) < 2:
        return [one(part) for part in parts]
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(one, parts))
    finally:
        torch.set_num_threads(threads)  # the number is shared by all threads that come later
