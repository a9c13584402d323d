"""Transformer over interleaved position instructions and values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ancestral.networks.base import Cache, ConditionEmbedding, Network, ValueEmbedding, take
from ancestral.networks.fused import turn_pairs
from ancestral.networks.transformer import (
    Block,
    KeyValues,
    Layers,
    RMSNorm,
    Rotary,
    default_heads,
    initialise,
    replace_site,
    turn_start,
)
from ancestral.order import Order
from ancestral.space import Condition, Space


class InstructedTransformer(Network):
    """Causal transformer over pairs ``[instruction, value]`` in the order of generation.

    An instruction token says where the next value stands; the features of a site are the output at its
    instruction, which sees all earlier pairs (RandAR: Pang et al. 2024, arXiv:2412.01827). Several
    instructions may be asked at once: each sees the pairs of earlier sets and itself. Their values are then fed back
    interleaved with their instructions, so that the network always reads the sequence it was trained on.

    Args:
        width: features D.
        depth: layers.
        heads: attention heads; by default one per 64 features, at least 2.
        dropout: share of activations dropped in training.
        published: the details of the published model rather than a vector of its own for every position: one
            instruction vector, turned by the position's rotation; the class is told at the start only, by a token
            without queries and keys; instructions of one set see those before them, though not their values.
        shared, hidden, eps: heads of keys and values, hidden features and the norms' eps; see :class:`Block`.
    """

    def __init__(
        self,
        width: int = 384,
        depth: int = 8,
        heads: int | None = None,
        dropout: float = 0.0,
        published: bool = False,
        shared: int | None = None,
        hidden: int | None = None,
        eps: float = 1e-6,
    ):
        super().__init__()
        self.width, self.depth, self.dropout = width, depth, dropout
        self.heads = heads or default_heads(width)
        self.published, self.shared, self.eps = published, shared, eps
        self.ratio = 8 / 3 if hidden is None else hidden / width

    def build(self, space: Space) -> InstructedTransformer:
        self.space = space
        self.embed = ValueEmbedding(space, self.width)
        self.told = ConditionEmbedding(space, self.width)
        self.first = nn.Parameter(torch.randn(self.width) * 0.5)
        self.instruction = nn.Embedding(1 if self.published else space.n, self.width)
        nn.init.normal_(self.instruction.weight, std=0.5)
        self.rotation = Rotary(space, self.width // self.heads)
        self.blocks = Layers(
            Block(self.width, self.heads, self.dropout, self.ratio, self.shared, self.eps) for _ in range(self.depth)
        )
        self.norm = RMSNorm(self.width, self.eps)
        initialise(self.blocks, self.depth)
        return self

    def _start(self, condition: Condition | None, batch: int) -> Tensor:
        zero = torch.zeros(1, dtype=torch.int64, device=self.first.device)
        return (self.first + self.told(replace_site(condition), zero, batch)).expand(batch, 1, self.width)

    def _ask(self, sites: Tensor, condition: Condition | None, batch: int) -> Tensor:
        """Instruction tokens ``[B, S, D]``."""
        if self.published:
            x = self._turned(sites)
        else:
            x = self.instruction(sites) + self.told(condition, sites, batch)
        return x.expand(batch, *x.shape[-2:])

    def _turned(self, sites: Tensor) -> Tensor:
        """The one instruction, its neighbouring features turned as pairs: ``[S, D]`` or ``[B, S, D]``."""
        heads = self.instruction.weight.view(self.heads, -1)
        return turn_pairs(heads, self.rotation(sites)[..., None, :]).flatten(-2)

    def _company(self, sets: Tensor) -> Tensor:
        """Which instructions see which, bool ``[S, S]``, for the sets int64 ``[S]`` that they belong to."""
        own = torch.eye(len(sets), dtype=torch.bool, device=sets.device)
        return (sets[None] == sets[:, None]).tril() if self.published else own

    def _pairs(self, values: Tensor, sites: Tensor, condition: Condition | None) -> Tensor:
        """Instruction and value of every site, interleaved: ``[B, 2 S, D]``."""
        x = self.embed(values, sites)
        asked = self._ask(sites, condition, values.shape[0])
        return torch.stack([asked, x], 2).flatten(1, 2)

    def _angles(self, pairs: Tensor, asked: Tensor, start: bool) -> Tensor:
        """Rotations of an optional start token (none), pairs at their site's position, and instructions."""
        turn = self.rotation(torch.cat([pairs.repeat_interleave(2, -1), asked], -1))
        return turn_start(turn, 0.0 if self.published else 1.0) if start else turn

    def _run(self, x: Tensor, m: int, rotation: Tensor, mask: Tensor, state: list[Any] | None) -> Tensor:
        """Layers over ``m`` tokens that are kept and the instructions behind them, which nobody but they see."""
        for number, block in enumerate(self.blocks):
            q, k, v = block.project(x, rotation)
            kept_k, kept_v = k[:, :, :m], v[:, :, :m]
            if state is not None:
                if number == len(state):
                    state.append(KeyValues(k, 2 * self.space.n + 1))
                kept_k, kept_v = state[number].append(kept_k, kept_v)
            keys, vals = torch.cat([kept_k, k[:, :, m:]], 2), torch.cat([kept_v, v[:, :, m:]], 2)
            x = block.finish(x, block.attend(q, keys, vals, mask))
        return self.norm(x[:, m:])

    def forward(self, values: Tensor, order: Order, condition: Condition | None = None) -> Tensor:
        batch, device = values.shape[0], values.device
        sites = order.permutation
        last = order.starts[-2]  # nobody sees the pairs of the last set
        seen = sites[..., :last]
        kept = torch.cat([self._start(condition, batch), self._pairs(take(values, seen), seen, condition)], 1)
        x = torch.cat([kept, self._ask(sites, condition, batch)], 1)
        m = kept.shape[1]
        of = order.set_of_place.to(device)
        sets = torch.cat([of.new_full((1,), -1), of[:last].repeat_interleave(2)])
        causal = torch.ones(m, m, dtype=torch.bool, device=device).tril()
        upper = torch.cat([causal, causal.new_zeros(m, order.n)], 1)
        lower = torch.cat([sets[None, :] < of[:, None], self._company(of)], 1)
        features = self._run(x, m, self._angles(seen, sites, True), torch.cat([upper, lower]), None)
        return take(features, order.places)

    def step(self, cache: Cache, last: Tensor | None = None) -> Tensor:
        order, k, batch = cache.order, cache.next, cache.batch
        self.record(cache, last)
        first = cache.state is None
        begin, end = (0 if first else order.starts[k - 1]), order.starts[k]
        seen, asked = order.permutation[..., begin:end], order.sets[k]
        parts = [self._start(cache.condition, batch)] if first else []
        parts.append(self._pairs(take(cache.values, seen), seen, cache.condition))
        parts.append(self._ask(asked, cache.condition, batch))
        x = torch.cat(parts, 1)
        size = asked.shape[-1]
        m = x.shape[1] - size
        if first:
            cache.state = []
        past = 2 * begin + (0 if first else 1)
        kept = torch.ones(m, past + m, dtype=torch.bool, device=x.device).tril(past)
        upper = torch.cat([kept, kept.new_zeros(m, size)], 1)
        own = self._company(torch.zeros(size, dtype=torch.int64, device=x.device))
        lower = torch.cat([own.new_ones(size, past + m), own], 1)
        cache.next += 1
        return self._run(x, m, self._angles(seen, asked, first), torch.cat([upper, lower]), cache.state)
