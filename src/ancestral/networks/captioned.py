"""Causal transformer behind the tokens of a caption."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.networks.transformer import CausalTransformer, KeyValues
from ancestral.order import Order
from ancestral.space import Condition, Space


class _Kept(list[KeyValues]):
    """Keys and values of all layers, and which of the first tokens nobody but they themselves may see."""

    hidden: Tensor | None = None


class CaptionedTransformer(CausalTransformer):
    """Next-token transformer told by the features of a caption's words (LlamaGen: Sun et al. 2024, arXiv:2406.06525).

    The features, a row per word, pass two linear maps and come first in the sequence; they stand nowhere, and have
    neither queries nor keys that tell them apart. The last of them predicts the first value. Rows of zeros, by which
    shorter captions are filled up, are seen by themselves only.

    The condition's vector is all rows in sequence, ``tokens * features`` numbers. Where its label is withheld a learned
    caption takes its place, which guidance compares with; without a vector there is only that.

    Args:
        width, depth, heads, shared, hidden, eps: as for :class:`CausalTransformer`.
        tokens: rows of a caption.
        features: of a row.
    """

    shortens = False
    site_per_place = False

    def __init__(
        self,
        width: int = 384,
        depth: int = 8,
        heads: int | None = None,
        tokens: int = 120,
        features: int = 2048,
        shared: int | None = None,
        hidden: int | None = None,
        eps: float = 1e-6,
    ):
        super().__init__(
            width, depth, heads, targets=False, prefix=True, source=True, shared=shared, hidden=hidden, eps=eps
        )
        self.tokens, self.features = tokens, features

    def build(self, space: Space) -> CaptionedTransformer:
        if space.vector != self.tokens * self.features:
            raise ValueError(
                f"captions of {self.tokens} rows of {self.features} features need a condition of "
                f"{self.tokens * self.features} numbers, not {space.vector}"
            )
        super().build(space.replace(vector=0, classes=0))
        self.space = space
        self.caption1 = nn.Linear(self.features, self.width, bias=False)
        self.caption2 = nn.Linear(self.width, self.width, bias=False)
        self.nothing = nn.Parameter(torch.randn(self.tokens, self.features) / self.features**0.5)
        return self

    def inputs(
        self, values: Tensor, order: Order, condition: Condition | None, begin: int, end: int, drawing: bool = False
    ) -> Tensor:
        """The caption's tokens and the values fed, and 1 behind those that are hidden: ``[B, T, D + 1]``."""
        x = F.pad(super().inputs(values, order, None, begin, end, drawing), (0, 1))
        if begin > 0:
            return x
        rows = self.nothing.expand(len(values), -1, -1)
        hidden = rows.new_zeros(len(values), self.tokens, 1)
        if condition is not None and condition.vector is not None:
            given = condition.vector.view(len(values), self.tokens, self.features)
            hidden = (given == 0).all(-1, keepdim=True).to(rows.dtype)
            heeded = torch.ones(len(values), dtype=torch.bool, device=given.device)
            if condition.label is not None:
                heeded = condition.label >= 0
            rows = torch.where(heeded[:, None, None], given, rows)
        told = self.caption2(F.gelu(self.caption1(rows), approximate="tanh"))
        return torch.cat([torch.cat([told, hidden], -1), x[:, 1:]], 1)

    def initial(self, batch: int, order: Order) -> Any:
        return _Kept()

    def mix(
        self, inputs: Tensor, places: tuple[int, int], sites: Tensor, order: Order, state: Any
    ) -> tuple[Tensor, Any]:
        begin, end = places
        x, extra = inputs[..., :-1], self.tokens - 1
        rotation = self._rotation(sites)
        assert rotation is not None
        length, total = x.shape[1], end + extra
        kept = _Kept() if state is None else state
        if begin == 0:
            rotation = torch.cat([rotation[..., :1, :].expand(*rotation.shape[:-2], extra, -1), rotation], -2)
            kept.hidden = F.pad(inputs[:, : self.tokens, -1] > 0, (0, order.n - 1))
        assert kept.hidden is not None
        rows = torch.arange(total - length, total, device=x.device)
        columns = torch.arange(total, device=x.device)
        seen = (columns[None] <= rows[:, None]) & ~kept.hidden[:, None, :total]
        seen = (seen | (columns[None] == rows[:, None]))[:, None]
        for number, block in enumerate(self.blocks):
            q, k, v = block.project(x, rotation)
            if state is not None:
                if number == len(kept):
                    kept.append(KeyValues(k, order.n + extra))
                k, v = kept[number].append(k, v)
            x = block.finish(x, block.attend(q, k, v, seen))
        return self.norm(x)[:, extra if begin == 0 else 0 :], state
