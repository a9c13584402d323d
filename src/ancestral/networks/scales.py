"""Transformer over a pyramid of code maps: each map is predicted from the sum of all coarser ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.networks.adaptive import AdaptiveBlock, Modulated, start_adaptive
from ancestral.networks.base import Cache, Network, take
from ancestral.networks.transformer import KeyValues
from ancestral.order import Order
from ancestral.space import Condition, Space

if TYPE_CHECKING:
    from ancestral.tokenizers import Tokenizer


class CodeVectors(nn.Module):
    """The tokenizer's code vectors at sites; several codes of a site stand side by side."""

    vectors: Tensor

    def __init__(self, tables: list[Tensor]):
        super().__init__()
        self.register_buffer("vectors", torch.stack([t.detach().clone() for t in tables]))

    def forward(self, values: Tensor, sites: Tensor) -> Tensor:
        """``[B, S]`` or ``[B, S, P]`` codes to float32 ``[B, S, P * C]``."""
        values = values.reshape(*values.shape[:2], -1)
        parts = [table[code] for table, code in zip(self.vectors, values.unbind(-1), strict=True)]
        return torch.cat(parts, -1)


class Vectors(nn.Module):
    """Real values at sites as they are."""

    def forward(self, values: Tensor, sites: Tensor) -> Tensor:
        return values


class ScaleTransformer(Network):
    """Block-causal transformer over the maps of a pyramid (VAR: Tian et al. 2024, arXiv:2404.02905).

    The input at a site of one scale is what the tokenizer makes of all coarser scales (:class:`Pyramid`: the sum of
    their code vectors, enlarged and shrunk again to that scale; or the map before, enlarged); the coarsest scale starts
    from the class. Sites see those of their own and of coarser scales. The class also modulates every block (adaptive
    layer norm). The tokenizer's code vectors and convolutions are part of the network, and not trained with it.

    Args:
        width: features D.
        depth: layers.
        heads: attention heads; by default one per 64 features, at least 2.
        ratio: of the feed-forward layers.
        dropout: share of activations dropped in training.
        cosine: cosine attention (the published models of depth 16 and more).
        shared: one map from the condition to all blocks' modulations.
    """

    any_order = False

    def __init__(
        self,
        width: int = 256,
        depth: int = 8,
        heads: int | None = None,
        ratio: float = 4.0,
        dropout: float = 0.0,
        cosine: bool = True,
        shared: bool = False,
    ):
        super().__init__()
        self.width, self.depth, self.ratio, self.dropout = width, depth, ratio, dropout
        self.heads = heads or max(2, width // 64)
        self.cosine, self.shared = cosine, shared
        self._branches: list[nn.Module] = []

    def meet(self, tokenizer: Tokenizer) -> None:
        from ancestral.tokenizers.learned import Product, Pyramid

        quantiser = getattr(tokenizer, "quantiser", None)
        branches = list(quantiser.branches) if isinstance(quantiser, Product) else [quantiser]
        if not all(isinstance(b, Pyramid) for b in branches):
            raise ValueError(
                "next-scale prediction needs a tokenizer whose values are a pyramid of scales: MultiScaleVQ or "
                "LatentPyramid"
            )
        self._branches = branches  # type: ignore[assignment]

    def build(self, space: Space) -> ScaleTransformer:
        import copy

        from ancestral.tokenizers.learned import Pyramid

        if not self._branches:
            raise ValueError("next-scale prediction reads codes by the tokenizer's codebook; build it with a model")
        self.space, width = space, self.width
        # A list keeps the copies out of the parameters; what of them is needed later are buffers.
        copies = [copy.deepcopy(b).requires_grad_(False).eval() for b in self._branches]
        parts = [b for b in copies if isinstance(b, Pyramid)]
        self.scales = parts[0].scales
        tables = [table for table in (b.strip() for b in parts) if table is not None]
        self.embed = CodeVectors(tables) if tables else Vectors()
        self.pyramids = nn.ModuleList(parts)
        self.word = nn.Linear(sum(b.width for b in parts), width)
        std = math.sqrt(1 / width / 3)
        self.classes = nn.Embedding(space.classes + 1, width)
        self.vector = nn.Linear(space.vector, width) if space.vector else None
        self.start_position = nn.Parameter(torch.randn(self.scales[0] ** 2, width) * std)
        self.position = nn.Parameter(torch.randn(space.n, width) * std)
        self.level = nn.Embedding(len(self.scales), width)
        for table in (self.classes, self.level):
            nn.init.normal_(table.weight, std=std)
        self.blocks = nn.ModuleList(
            AdaptiveBlock(width, self.heads, self.ratio, self.dropout, self.cosine, self.shared)
            for _ in range(self.depth)
        )
        self.modulate = nn.Linear(width, 6 * width) if self.shared else None
        self.last = nn.Linear(width, 2 * width)
        self.norm = Modulated(width)
        start_adaptive(self, width, self.depth, std)
        nn.init.normal_(self.word.weight, std=1 / math.sqrt(self.word.in_features))
        self.last.weight.data.mul_(0.5)
        levels = torch.cat([torch.full((s * s,), k) for k, s in enumerate(self.scales)])
        self.levels: Tensor
        self.register_buffer("levels", levels, persistent=False)
        return self

    def check(self, order: Order) -> None:
        """Refuse any order but that of the scales.

        Raises:
            ValueError: another order.
        """
        rank = order.rank.reshape(-1, order.n)
        if not bool((rank == self.levels.to(rank.device)).all()):
            raise ValueError("next-scale prediction follows the order of its scales, coarsest first, and no other")

    # -- inputs

    def _maps(self, vectors: Tensor, scale: int) -> list[Tensor]:
        """The branches' maps ``[B, C, s, s]`` of the code vectors ``[B, s * s, P * C]`` of one scale."""
        side = self.scales[scale]
        parts = vectors.transpose(1, 2).reshape(len(vectors), -1, side, side)
        return list(parts.split([b.width for b in self.pyramids], 1))  # type: ignore[misc]

    def _grow(self, sums: list[Tensor] | None, vectors: Tensor, scale: int) -> list[Tensor]:
        """What all branches know, ``[B, C, H, W]`` each, once a scale's vectors are added."""
        maps = self._maps(vectors, scale)
        before = [None] * len(maps) if sums is None else sums
        return [b.grow(total, m, scale) for b, total, m in zip(self.pyramids, before, maps, strict=True)]  # type: ignore[operator]

    def _shrunk(self, sums: list[Tensor], scale: int) -> Tensor:
        """What a scale is told of the coarser ones: ``[B, s * s, P * C]``."""
        parts = [b.shrink(total, scale) for b, total in zip(self.pyramids, sums, strict=True)]  # type: ignore[operator]
        return torch.cat(parts, 1).flatten(2).transpose(1, 2)

    def told(self, condition: Condition | None, batch: int) -> Tensor:
        """The class's vector ``[B, D]``, and what else is told; withheld labels have one of their own."""
        label = None if condition is None else condition.label
        if label is None:
            label = torch.full((batch,), -1, device=self.position.device)
        told = self.classes(torch.where(label < 0, self.classes.num_embeddings - 1, label))
        if self.vector is not None:
            if condition is None or condition.vector is None:
                raise ValueError("this network is conditioned on a vector; none was given")
            told = told + self.vector(condition.vector)
        return told

    def tokens(self, coarse: Tensor, told: Tensor, first: int) -> Tensor:
        """Inputs ``[B, T, D]`` of the sites ``first .. first + T - 1``.

        Args:
            coarse: ``[B, T', P * C]``, what the sites behind the coarsest map are told.
            told: the class's vector ``[B, D]``.
            first: number of the first site; 0 puts the start tokens in front.
        """
        parts = [(told[:, None] + self.start_position)] if first == 0 else []
        if coarse.shape[1]:
            parts.append(self.word(coarse))
        x = torch.cat(parts, 1)
        span = slice(first, first + x.shape[1])
        return x + self.position[span] + self.level(self.levels[span])

    def run(self, x: Tensor, told: Tensor, mask: Tensor | None, kept: list[KeyValues] | None = None) -> Tensor:
        """Features ``[B, T, D]`` of inputs ``[B, T, D]``."""
        common = None if self.modulate is None else self.modulate(F.silu(told)).view(len(told), 1, 6, -1)
        for number, block in enumerate(self.blocks):
            x = block(x, told, common, mask, None if kept is None else kept[number])
        scale, shift = self.last(F.silu(told)).view(len(told), 1, 2, -1).unbind(2)
        return self.norm(x, scale, shift)

    def mask(self) -> Tensor:
        """bool ``[N, N]``: sites see their own and coarser scales."""
        return self.levels[None, :] <= self.levels[:, None]

    def forward(self, values: Tensor, order: Order, condition: Condition | None = None) -> Tensor:
        self.check(order)
        vectors = self.embed(values, torch.arange(self.space.n, device=values.device))
        pieces = vectors.split([s * s for s in self.scales], 1)
        sums: list[Tensor] | None = None
        coarse = []
        for scale, piece in enumerate(pieces[:-1]):
            sums = self._grow(sums, piece, scale)
            coarse.append(self._shrunk(sums, scale + 1))
        told = self.told(condition, len(values))
        seen = torch.cat(coarse, 1) if coarse else vectors[:, :0]
        return self.run(self.tokens(seen, told, 0), told, self.mask())

    def step(self, cache: Cache, last: Tensor | None = None) -> Tensor:
        order, k = cache.order, cache.next
        self.record(cache, last)
        told = self.told(cache.condition, cache.batch)
        begin = order.starts[k]
        fresh = cache.state is None
        if fresh:
            cache.extra["sums"] = None
        coarse = []
        for scale in range(0 if fresh else k - 1, k):
            sites = order.sets[scale].reshape(-1, self.scales[scale] ** 2)[0]
            cache.extra["sums"] = self._grow(cache.extra["sums"], self.embed(take(cache.values, sites), sites), scale)
            coarse.append(self._shrunk(cache.extra["sums"], scale + 1))
        seen = torch.cat(coarse, 1) if coarse else self.word.weight.new_zeros(cache.batch, 0, self.word.in_features)
        x = self.tokens(seen, told, 0 if fresh else begin)
        if fresh:
            like = x.new_empty(cache.batch, self.heads, 1, self.width // self.heads)
            cache.state = [KeyValues(like, order.n) for _ in self.blocks]
        mask = self.mask()[: x.shape[1], : x.shape[1]] if fresh and k else None
        features = self.run(x, told, mask, cache.state)
        cache.next += 1
        return features[:, (begin if fresh else 0) :]
