"""Transformers: single-stream causal, query-stream (exact in any order), and bidirectional masked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.native.transformer import Shape
from ancestral.networks.base import Cache, ConditionEmbedding, Network, SequenceNetwork, ValueEmbedding, take
from ancestral.networks.compiled import Kept, compiled_mix, compiled_rows
from ancestral.networks.fused import feed_forward, rms_norm, turn_heads
from ancestral.order import Order
from ancestral.quantisation.caches import Keeping, parts
from ancestral.space import Condition, Space

_DROPPED = 1 << 21
"""Pairs of places up to which dropout is also that of attention weights."""


class RMSNorm(nn.Module):
    """Root-mean-square normalisation (Zhang and Sennrich 2019, arXiv:1910.07467) over the last axis."""

    def __init__(self, width: int, eps: float = 1e-6):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class SwiGLU(nn.Module):
    """Gated feed-forward layer (Shazeer 2020, arXiv:2002.05202).

    Args:
        width: features D.
        ratio: hidden features per feature, rounded to a multiple of 16 in all; without effect if ``hidden`` is given.
        dropout: share of hidden activations dropped in training.
        hidden: hidden features.
        bias: add biases.
    """

    def __init__(
        self, width: int, ratio: float = 8 / 3, dropout: float = 0.0, hidden: int | None = None, bias: bool = False
    ):
        super().__init__()
        hidden = hidden or max(16, int(16 * round(width * ratio / 16)))
        self.inner = nn.Linear(width, 2 * hidden, bias=bias)
        self.outer = nn.Linear(hidden, width, bias=bias)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        plain = type(self.inner) is nn.Linear and self.inner.bias is None  # neither quantised nor biased
        if plain and not (self.training and self.dropout):
            return feed_forward(x, self.inner.weight, self.outer.weight)
        gate, up = self.inner(x).chunk(2, -1)
        return self.outer(F.dropout(F.silu(gate) * up, self.dropout, self.training))


class Rotary(nn.Module):
    """Rotary position embedding (Su et al. 2021, arXiv:2104.09864) along any number of axes.

    The head's features are split between the axes of the sites' coordinates, so that a grid has a 2-D rotation.

    Args:
        space: its :meth:`Space.positions` ``[N, axes]`` are the angles' multipliers.
        head: features of one head; an even number.
        base: longest wavelength is ``2 pi base``.
        factors: every frequency is divided by its factor, ``head / 2`` of them (longer contexts than in training:
            Chen et al. 2023, arXiv:2306.15595); by default by 1.
    """

    def __init__(self, space: Space, head: int, base: float = 10000.0, factors: Sequence[float] = ()):
        super().__init__()
        positions = space.positions()
        axes = positions.shape[1]
        pairs = head // 2
        share = [pairs // axes + (1 if a < pairs % axes else 0) for a in range(axes)]
        angles = [
            positions[:, a, None] * base ** (-torch.arange(n, dtype=torch.float32) / max(n, 1))
            for a, n in enumerate(share)
        ]
        angle = torch.cat(angles, 1)
        if factors:
            if len(factors) != pairs:
                raise ValueError(f"a head of {head} features turns by {pairs} angles; got {len(factors)} factors")
            angle = angle / torch.tensor(factors, dtype=torch.float32)
        self.turn: Tensor
        self.register_buffer("turn", torch.stack([angle.cos(), angle.sin()], -1), persistent=False)

    def forward(self, sites: Tensor) -> Tensor:
        """Complex numbers of modulus 1 at ``sites`` (``[T]`` or ``[B, T]``): ``[(B,) T, E / 2]``."""
        return torch.view_as_complex(self.turn[sites])


def turn_start(turn: Tensor, factor: float = 1.0) -> Tensor:
    """Rotations preceded by that of a start token, which is not turned; 0 takes its queries and keys away."""
    return torch.cat([turn.new_full((*turn.shape[:-2], 1, turn.shape[-1]), factor), turn], -2)


class Layers(nn.ModuleList):
    """A stack of :class:`Block`."""

    def __iter__(self) -> Iterator[Block]:  # type: ignore[override]
        return super().__iter__()  # type: ignore[return-value]


class Block(nn.Module):
    """Pre-norm attention and feed-forward layer; keys and values may come from elsewhere.

    Args:
        width: features D.
        heads: of the queries.
        dropout: share of activations dropped in training.
        ratio: hidden features of the feed-forward layer, as a multiple of the width.
        shared: heads of the keys and values, each of which serves several of the queries' (grouped-query attention:
            Ainslie et al. 2023, arXiv:2305.13245); by default as many.
        eps: of the norms.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float = 0.0,
        ratio: float = 8 / 3,
        shared: int | None = None,
        eps: float = 1e-6,
    ):
        super().__init__()
        if width % heads or (width // heads) % 2:
            raise ValueError(f"width {width} must be an even multiple of the {heads} heads")
        self.heads, self.shared, self.dropout = heads, shared or heads, dropout
        if heads % self.shared:
            raise ValueError(f"{heads} heads cannot share {shared} evenly")
        self.norm = RMSNorm(width, eps)
        self.qkv = nn.Linear(width, (heads + 2 * self.shared) * (width // heads), bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm2 = RMSNorm(width, eps)
        self.mlp = SwiGLU(width, ratio, dropout)

    def project(self, x: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries ``[B, H, T, E]``, keys and values ``[B, G, T, E]`` of ``x`` ``[B, T, D]``, turned by ``rotation``."""
        b, t, d = x.shape
        heads = self.qkv(self.norm(x)).view(b, t, -1, d // self.heads)
        sizes = (self.heads, self.shared, self.shared)
        if rotation is None:
            q, k, v = heads.split(sizes, 2)
        else:
            qk, v = turn_heads(heads, rotation.unsqueeze(-2), self.heads + self.shared)
            q, k = qk.split(sizes[:2], 2)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def shape(self) -> Shape | None:
        """For the compiled kernels."""
        return Shape(self.heads, self.shared, self.out.in_features // self.heads, False, True)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Attention and output projection: ``[B, T, D]``."""
        # On a processor weights are dropped only if all of them are kept, which the memory of long sequences forbids.
        drop = self.dropout if self.training and q.shape[2] * k.shape[2] <= _DROPPED else 0.0
        if self.shared != self.heads:
            k, v = (part.repeat_interleave(self.heads // self.shared, 1) for part in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, dropout_p=drop)
        return self.out(y.transpose(1, 2).reshape(y.shape[0], y.shape[2], -1))

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Residual connections and the feed-forward layer."""
        x = x + F.dropout(attended, self.dropout, self.training)
        return x + F.dropout(self.mlp(self.norm2(x)), self.dropout, self.training)


def initialise(module: nn.Module, depth: int) -> None:
    """Normal weights of standard deviation ``1/sqrt(fan_in)``; residual outputs scaled by ``1/sqrt(2 depth)``."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear):
            std = 1 / math.sqrt(layer.in_features)
            if name.endswith((".out", ".outer")):
                std /= math.sqrt(2 * depth)
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class KeyValues:
    """Preallocated keys and values of one layer, ``[B, H, capacity, E]``."""

    def __init__(self, like: Tensor, capacity: int):
        b, h, _, e = like.shape
        self.k, self.v = like.new_empty(b, h, capacity, e), like.new_empty(b, h, capacity, e)
        self.length = 0

    def append(self, k: Tensor, v: Tensor, keep: int | None = None) -> tuple[Tensor, Tensor]:
        """Store new places, of which the first ``keep`` stay (by default all); returns views of everything stored."""
        end = self.length + k.shape[2]
        self.k[:, :, self.length : end], self.v[:, :, self.length : end] = k, v
        self.length = end if keep is None else self.length + keep
        return self.k[:, :, :end], self.v[:, :, :end]

    def rows(self, some: slice) -> KeyValues:
        """Some items' keys and values, stored in the same place."""
        part = KeyValues.__new__(KeyValues)
        part.k, part.v, part.length = self.k[some], self.v[some], self.length
        return part


class CausalTransformer(SequenceNetwork):
    """Single-stream causal transformer: RMSNorm, SwiGLU, rotary positions in as many axes as the sites have.

    Sites of one set see each other's inputs, which stem from earlier sets. With ``targets`` one network serves
    any order: every input also carries the position of the site that it predicts.

    Args:
        width: features D.
        depth: layers.
        heads: attention heads; by default one per 64 features, at least 2.
        dropout: share of activations dropped in training, and of attention weights up to about 1,400 places.
        targets: learned positions of the fed and of the predicted site are added to the input.
        rotary: rotary embedding of the predicted site's coordinates.
        blind: sites of one set do not see each other's inputs, so that each gets the features that it would
            have if it were drawn alone (sigma-GPT's proposals).
        prefix: the condition is told at the first place only, as a prefix, rather than at every place.
        source: in raster order, rotate by the fed site's coordinate rather than the predicted one's; the first place
            then has neither query nor key (Llamas with a class token).
        shared, hidden, eps: heads of keys and values, hidden features and the norms' eps; see :class:`Block`.
    """

    shortens = True
    keeping: Keeping | None = None
    """How keys and values are kept (:func:`ancestral.quantisation.keep`); None: in full."""

    def __init__(
        self,
        width: int = 384,
        depth: int = 8,
        heads: int | None = None,
        dropout: float = 0.0,
        targets: bool = True,
        rotary: bool = True,
        blind: bool = False,
        prefix: bool = False,
        source: bool = False,
        shared: int | None = None,
        hidden: int | None = None,
        eps: float = 1e-6,
    ):
        super().__init__(width, targets, prefix)
        self.source_rotary, self.shared, self.eps = source, shared, eps
        self.ratio = 8 / 3 if hidden is None else hidden / width
        self.depth, self.dropout, self.rotary, self.blind = depth, dropout, rotary, blind
        self.heads = heads or default_heads(width)

    def build(self, space: Space) -> CausalTransformer:
        super().build(space)
        self.rotation = Rotary(space, self.width // self.heads) if self.rotary else None
        self.blocks = Layers(
            Block(self.width, self.heads, self.dropout, self.ratio, self.shared, self.eps) for _ in range(self.depth)
        )
        self.norm = RMSNorm(self.width, self.eps)
        initialise(self.blocks, self.depth)
        return self

    def check(self, order: Order) -> None:
        if self.source_rotary and not order.is_raster:
            raise ValueError("this network feeds sites in raster order and no other")
        super().check(order)

    def _rotation(self, sites: Tensor) -> Tensor | None:
        if self.rotation is None:
            return None
        if not self.source_rotary:
            return self.rotation(sites)
        return self.rotation((sites - 1).clamp(min=0)) * (sites > 0)[..., None]

    def initial(self, batch: int, order: Order) -> Any:
        return []

    def mix(
        self, inputs: Tensor, places: tuple[int, int], sites: Tensor, order: Order, state: Any
    ) -> tuple[Tensor, Any]:
        found = None if state is None else compiled_mix(self, inputs, places, sites, order, state)
        if found is not None:
            return found
        begin, end = places
        if self.keeping is not None and not self.training:
            return self._mix_in_parts(inputs, places, sites, order, state, self.keeping)
        causal = order.sequential and begin == 0 and end > 1
        mask = None
        if not order.sequential:
            of = order.set_of_place.to(inputs.device)
            if self.blind:
                place = torch.arange(end, device=inputs.device)
                mask = (of[None, :end] < of[begin:end, None]) | (place[None] == place[begin:, None])
            elif begin == 0 or of[begin] != of[end - 1]:
                mask = of[None, :end] <= of[begin:end, None]
        elif begin > 0 and end - begin > 1:
            mask = (
                torch.arange(end, device=inputs.device)[None] <= torch.arange(begin, end, device=inputs.device)[:, None]
            )
        return self._layers(inputs, sites, mask, causal, state, lambda k: KeyValues(k, order.n))

    def _mix_in_parts(
        self,
        inputs: Tensor,
        places: tuple[int, int],
        sites: Tensor,
        order: Order,
        state: Any,
        keeping: Keeping,
    ) -> tuple[Tensor, Any]:
        """:meth:`mix` one buffer at a time: a place sees those before its part as they have been kept."""
        begin, end = places
        state = [] if state is None else state
        of = torch.arange(order.n) if order.sequential else order.set_of_place
        features = []
        for a, b in parts(order, begin, end, keeping.buffer):
            here = of[a:b].to(inputs.device)
            own = here[None] <= here[:, None]
            if self.blind:
                own = (here[None] < here[:, None]) | torch.eye(b - a, dtype=torch.bool, device=inputs.device)
            mask = None if bool(own.all()) else own
            x, state = self._layers(
                inputs[:, a - begin : b - begin], sites[..., a - begin : b - begin], mask, False, state, keeping.start
            )
            features.append(x)
        return torch.cat(features, 1) if len(features) > 1 else features[0], state

    def _layers(
        self,
        x: Tensor,
        sites: Tensor,
        mask: Tensor | None,
        causal: bool,
        state: Any,
        start: Callable[[Tensor], Any],
    ) -> tuple[Tensor, Any]:
        """All layers over ``x`` ``[B, T, D]``; a mask of fewer columns than there are keys is that of the last."""
        rotation = self._rotation(sites)
        for number, block in enumerate(self.blocks):
            q, k, v = block.project(x, rotation)
            if state is not None:
                if number == len(state):
                    state.append(start(k))
                k, v = state[number].append(k, v)
            if mask is not None and mask.shape[1] < k.shape[2]:
                mask = F.pad(mask, (k.shape[2] - mask.shape[1], 0), value=True)
            x = block.finish(x, block.attend(q, k, v, mask, causal))
        return self.norm(x), state


class QueryTransformer(Network):
    """Query-stream transformer: exact in any order, with a cache and several sites per step.

    Content tokens hold a value and its position and see contents of equal or lower rank; queries hold a
    position only and see contents of lower rank (two-stream attention: Yang et al. 2019, XLNet,
    arXiv:1906.08237). Both share all weights. A start token holds the condition and is seen by all.

    Args:
        width, depth, heads, dropout, rotary: as for :class:`CausalTransformer`.
    """

    def __init__(
        self,
        width: int = 384,
        depth: int = 8,
        heads: int | None = None,
        dropout: float = 0.0,
        rotary: bool = True,
    ):
        super().__init__()
        self.width, self.depth, self.dropout, self.rotary = width, depth, dropout, rotary
        self.heads = heads or default_heads(width)

    def build(self, space: Space) -> QueryTransformer:
        self.space = space
        self.embed = ValueEmbedding(space, self.width)
        self.told = ConditionEmbedding(space, self.width)
        self.first = nn.Parameter(torch.randn(self.width) * 0.5)
        self.content = nn.Embedding(space.n, self.width)
        self.query = nn.Embedding(space.n, self.width)
        nn.init.normal_(self.content.weight, std=0.3)
        nn.init.normal_(self.query.weight, std=0.5)
        self.rotation = Rotary(space, self.width // self.heads) if self.rotary else None
        self.blocks = Layers(Block(self.width, self.heads, self.dropout) for _ in range(self.depth))
        self.norm = RMSNorm(self.width)
        initialise(self.blocks, self.depth)
        return self

    def _contents(self, values: Tensor, sites: Tensor, condition: Condition | None) -> Tensor:
        x = self.embed(values, sites) + self.content(sites)
        return x + self.told(condition, sites, values.shape[0])

    def _queries(self, sites: Tensor, condition: Condition | None, batch: int) -> Tensor:
        x = self.query(sites) + self.told(condition, sites, batch)
        return x.expand(batch, *x.shape[-2:])

    def _start(self, condition: Condition | None, batch: int) -> Tensor:
        told = self.told(replace_site(condition), torch.zeros(1, dtype=torch.int64, device=self.first.device), batch)
        return (self.first + told).expand(batch, 1, self.width)

    def _angles(self, sites: Tensor, start: bool) -> Tensor | None:
        """Rotation at ``sites``, preceded by the start token's (none) if asked."""
        if self.rotation is None:
            return None
        turn = self.rotation(sites)
        return turn_start(turn) if start else turn

    def forward(self, values: Tensor, order: Order, condition: Condition | None = None) -> Tensor:
        batch, _n = values.shape[:2]
        sites = order.permutation
        # Contents of the last set are seen by nobody: leave them out.
        last = order.starts[-2]
        seen = sites[..., :last]
        contents = torch.cat([self._start(condition, batch), self._contents(take(values, seen), seen, condition)], 1)
        x = torch.cat([contents, self._queries(sites, condition, batch)], 1)
        content_angles, query_angles = self._angles(seen, True), self._angles(sites, False)
        rotation = None
        if content_angles is not None and query_angles is not None:
            rotation = torch.cat([content_angles, query_angles], -2)
        of = order.set_of_place.to(values.device)
        ranks = torch.cat([of.new_full((1,), -1), of[:last]])
        sequential = order.sequential
        mask = None
        if not sequential:
            mask = torch.cat([ranks[None, :] <= ranks[:, None], ranks[None, :] < of[:, None]])
        m = last + 1
        for block in self.blocks:
            q, k, v = block.project(x, rotation)
            k, v = k[:, :, :m], v[:, :, :m]
            if sequential:  # place t of both streams sees the contents 0 .. t: two plain causal attentions
                upper = block.attend(q[:, :, :m], k, v, causal=True)
                lower = block.attend(q[:, :, m:], k, v, causal=True)
                attended = torch.cat([upper, lower], 1)
            else:
                attended = block.attend(q, k, v, mask)
            x = block.finish(x, attended)
        features = self.norm(x[:, m:])
        return features if order.is_raster else take(features, order.places)

    def step(self, cache: Cache, last: Tensor | None = None) -> Tensor:
        order, k, batch = cache.order, cache.next, cache.batch
        self.record(cache, last)
        first = cache.state is None
        begin = 0 if first else order.starts[k - 1]
        end = order.starts[k]
        seen, asked = order.permutation[..., begin:end], order.sets[k]
        parts = [self._start(cache.condition, batch)] if first else []
        if end > begin:
            parts.append(self._contents(take(cache.values, seen), seen, cache.condition))
        contents = torch.cat(parts, 1)
        queries = self._queries(asked, cache.condition, batch)
        m = contents.shape[1]
        x = torch.cat([contents, queries], 1)
        of = order.set_of_place.to(x.device)
        rotation = None
        if self.rotation is not None:
            both = [a for a in (self._angles(seen, first), self._angles(asked, False)) if a is not None]
            rotation = torch.cat(both, -2)
        mask = None
        if first and k > 0:
            ranks = torch.cat([of.new_full((1,), -1), of[:end]])
            rows = torch.cat([ranks, of.new_full((asked.shape[-1],), k)])
            mask = ranks[None, :] <= rows[:, None]
        if first:
            cache.state = Kept()
        if mask is None:
            features = compiled_rows(self, x, m, rotation, cache.state, order.n + 1)
            if features is not None:
                cache.next += 1
                return features[:, m:]
        for number, block in enumerate(self.blocks):
            q, key, value = block.project(x, rotation)
            if number == len(cache.state):
                cache.state.append(KeyValues(key, order.n + 1))
            key, value = cache.state[number].append(key[:, :, :m], value[:, :, :m])
            x = block.finish(x, block.attend(q, key, value, mask))
        cache.next += 1
        return self.norm(x[:, m:])


def replace_site(condition: Condition | None) -> Condition | None:
    """The condition without its per-site part, for tokens that stand at no site."""
    return None if condition is None else replace(condition, site=None)


def default_heads(width: int) -> int:
    """One head per 64 features, at least 2 (1 for very small widths)."""
    return max(1 if width < 8 else 2, width // 64)
