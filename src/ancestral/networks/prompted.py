"""Causal transformers whose sequence begins with a prompt: a caption's words, or the codes of what came before."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.networks.transformer import CausalTransformer, KeyValues
from ancestral.order import Order
from ancestral.space import Condition, Space


class _Kept(list[KeyValues]):
    """Keys and values of all layers, and which of the prompt's tokens nobody but they themselves may see."""

    hidden: Tensor | None = None


class PromptedTransformer(CausalTransformer):
    """Next-token transformer behind tokens that the condition makes; the last of them predicts the first value.

    Subclasses define :meth:`prompt`. Where sites turn queries and keys, the prompt's tokens stand nowhere, and have
    neither.

    Args:
        tokens: of the prompt.
        others: of :class:`CausalTransformer`.
    """

    shortens = False
    site_per_place = False

    def __init__(self, tokens: int, **others: Any):
        super().__init__(**others, prefix=True)
        self.tokens = tokens

    def prompt(self, condition: Condition | None, batch: int) -> tuple[Tensor, Tensor]:
        """Tokens ``[B, P, D]``, and which of them only they themselves see, bool ``[B, P]``."""
        raise NotImplementedError("a prompted transformer defines prompt")

    def inputs(
        self, values: Tensor, order: Order, condition: Condition | None, begin: int, end: int, drawing: bool = False
    ) -> Tensor:
        """The prompt's tokens and the values fed, and 1 behind those that are hidden: ``[B, T, D + 1]``."""
        x = super().inputs(values, order, None, begin, end, drawing)
        if begin > 0:
            return F.pad(x, (0, 1))
        told, hidden = self.prompt(condition, len(values))
        x = torch.cat([told[:, :-1], told[:, -1:] + x[:, :1], x[:, 1:]], 1)
        return torch.cat([x, F.pad(hidden, (0, end - 1))[..., None].to(x.dtype)], -1)

    def initial(self, batch: int, order: Order) -> Any:
        return _Kept()

    def mix(
        self, inputs: Tensor, places: tuple[int, int], sites: Tensor, order: Order, state: Any
    ) -> tuple[Tensor, Any]:
        begin, end = places
        x, extra = inputs[..., :-1], self.tokens - 1
        rotation = self._rotation(sites)
        length, total = x.shape[1], end + extra
        kept = _Kept() if state is None else state
        if begin == 0:
            if rotation is not None:
                nowhere = torch.zeros_like(rotation[..., :1, :]).expand(*rotation.shape[:-2], extra, -1)
                rotation = torch.cat([nowhere, rotation], -2)
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


class CaptionedTransformer(PromptedTransformer):
    """Next-token transformer told by the features of a caption's words (LlamaGen: Sun et al. 2024, arXiv:2406.06525).

    The features, a row per word, pass two linear maps. Rows of zeros, by which shorter captions are filled up, are seen
    by themselves only.

    The condition's vector is all rows in sequence, ``tokens * features`` numbers. Where its label is withheld a learned
    caption takes its place, which guidance compares with; without a vector there is only that.

    Args:
        width, depth, heads, shared, hidden, eps: as for :class:`CausalTransformer`.
        tokens: rows of a caption.
        features: of a row.
    """

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
        sizes = {"width": width, "depth": depth, "heads": heads, "shared": shared, "hidden": hidden, "eps": eps}
        super().__init__(tokens, **sizes, targets=False, source=True)
        self.features = features

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

    def prompt(self, condition: Condition | None, batch: int) -> tuple[Tensor, Tensor]:
        rows = self.nothing.expand(batch, -1, -1)
        hidden = torch.zeros(batch, self.tokens, dtype=torch.bool, device=rows.device)
        if condition is not None and condition.vector is not None:
            given = condition.vector.view(batch, self.tokens, self.features)
            hidden = (given == 0).all(-1)
            heeded = torch.ones(batch, dtype=torch.bool, device=rows.device)
            if condition.label is not None:
                heeded = condition.label >= 0
            rows = torch.where(heeded[:, None, None], given, rows)
        return self.caption2(F.gelu(self.caption1(rows), approximate="tanh")), hidden


class ContinuingTransformer(PromptedTransformer):
    """Next-token transformer behind codes that are known and a sign that separates them (LARP's prediction of frames:
    Wang et al. 2024, arXiv:2410.21264).

    The condition's vector is the known codes, whole numbers. Places in the sequence have learned positions.

    Args:
        width, depth, heads, shared, hidden, eps: as for :class:`CausalTransformer`.
        known: codes that are known.
    """

    def __init__(
        self,
        width: int = 384,
        depth: int = 8,
        heads: int | None = None,
        known: int = 1024,
        shared: int | None = None,
        hidden: int | None = None,
        eps: float = 1e-6,
    ):
        sizes = {"width": width, "depth": depth, "heads": heads, "shared": shared, "hidden": hidden, "eps": eps}
        super().__init__(known + 1, **sizes, targets=True, rotary=False)
        self.known = known

    def build(self, space: Space) -> ContinuingTransformer:
        if space.vector != self.known:
            raise ValueError(f"{self.known} known codes need a condition of as many numbers, not {space.vector}")
        super().build(space.replace(vector=0, classes=0))
        self.space = space
        self.before = nn.Embedding(self.known, self.width)
        nn.init.normal_(self.before.weight, std=0.3)
        self.separator = nn.Parameter(torch.randn(self.width) * 0.5)
        return self

    def prompt(self, condition: Condition | None, batch: int) -> tuple[Tensor, Tensor]:
        if condition is None or condition.vector is None:
            raise ValueError("this network continues known codes; none were given")
        sites = torch.zeros(self.known, dtype=torch.int64, device=self.separator.device)
        told = self.embed(condition.vector.long(), sites) + self.before.weight
        told = torch.cat([told, self.separator.expand(batch, 1, -1)], 1)
        return told, torch.zeros(batch, self.tokens, dtype=torch.bool, device=told.device)
