"""Causal transformer of vision blocks that the class and the place in the sequence modulate."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.networks.base import SequenceNetwork
from ancestral.networks.transformer import KeyValues, default_heads, replace_site
from ancestral.networks.vision import VisionBlock, xavier
from ancestral.order import Order
from ancestral.space import Condition, Space


class ModulatedTransformer(SequenceNetwork):
    """Next-token transformer along any sequential order, modulated at every place (RAR: Yu et al. 2024,
    arXiv:2411.00776).

    Two tokens come first: one that is always the same, and the condition's. Every token that is fed carries the learned
    position of its site and that of the site it predicts (the target-aware position). The condition, plus a learned
    vector per place in the sequence, shifts, scales and gates every block (adaptive layer norm).

    Args:
        width: features D.
        depth: layers.
        heads: attention heads; by default one per 64 features, at least 2.
        dropout: share of activations dropped in training.
        hidden: features inside the perceptrons; by default ``4 width``.

    Shapes:
        values: ``[B, N, *event]``; features float32 ``[B, N, D]``.
    """

    parallel_sets = False
    site_per_place = False

    def __init__(
        self,
        width: int = 384,
        depth: int = 8,
        heads: int | None = None,
        dropout: float = 0.0,
        hidden: int | None = None,
    ):
        super().__init__(width, targets=True, prefix=True)
        self.depth, self.dropout = depth, dropout
        self.heads = heads or default_heads(width)
        self.ratio = 4.0 if hidden is None else hidden / width

    def build(self, space: Space) -> ModulatedTransformer:
        super().build(space)
        self.summary = nn.Parameter(torch.randn(self.width) * 0.5)
        self.place = nn.Embedding(space.n + 1, self.width)
        nn.init.normal_(self.place.weight, std=0.3)
        self.blocks = nn.ModuleList(
            VisionBlock(self.width, self.heads, self.ratio, self.dropout, modulated=True, normalised=True)
            for _ in range(self.depth)
        )
        self.modulate = nn.Linear(self.width, 2 * self.width)
        xavier(self)
        for name, layer in self.named_modules():
            if name.endswith("modulate"):  # branches begin nearly shut
                nn.init.normal_(layer.weight, std=0.1 / self.width**0.5)
        return self

    def inputs(
        self, values: Tensor, order: Order, condition: Condition | None, begin: int, end: int, drawing: bool = False
    ) -> Tensor:
        """Tokens and what modulates them, side by side, the first two for the first place: ``[B, T (+ 1), 2 D]``."""
        x = super().inputs(values, order, condition, begin, end, drawing)
        batch = len(values)
        told = self.told(condition, order.permutation[..., begin:end], batch) + torch.zeros_like(x)
        places = torch.arange(begin + 1, end + 1, device=x.device)
        if begin == 0:
            zero = torch.zeros(1, dtype=torch.int64, device=x.device)
            front = self.told(replace_site(condition), zero, batch) + x.new_zeros(batch, 1, self.width)
            x, told = torch.cat([self.summary.expand(batch, 1, -1), x], 1), torch.cat([front, told], 1)
            places = torch.cat([zero, places])
        return torch.cat([x, told + self.place(places)], -1)

    def initial(self, batch: int, order: Order) -> Any:
        like = self.summary.new_empty(batch, self.heads, 1, self.width // self.heads)
        return [KeyValues(like, order.n + 1) for _ in self.blocks]

    def mix(
        self, inputs: Tensor, places: tuple[int, int], sites: Tensor, order: Order, state: Any
    ) -> tuple[Tensor, Any]:
        begin, end = places
        x, told = inputs.chunk(2, -1)
        mask = None
        if begin > 0 and end - begin > 1:
            mask = torch.ones(end - begin, end + 1, dtype=torch.bool, device=x.device).tril(begin + 1)
        for number, block in enumerate(self.blocks):
            x = block(x, mask, told, None if state is None else state[number], causal=begin == 0)
        scale, shift = self.modulate(F.silu(told)).chunk(2, -1)
        x = F.layer_norm(x, (self.width,), eps=1e-6) * (1 + scale) + shift
        return x[:, 1 if begin == 0 else 0 :], state
