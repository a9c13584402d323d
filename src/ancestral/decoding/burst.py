"""Burst sampling: propose all remaining sites at once, keep those that a random order would have drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ancestral.decoding.decoders import Request
from ancestral.decoding.walk import Draw, draw_categories
from ancestral.heads.base import Finite
from ancestral.networks.base import put, take
from ancestral.noise import Noise
from ancestral.order import Order

if TYPE_CHECKING:
    from ancestral.generator import Generator


@dataclass(frozen=True)
class Burst:
    """Rejection sampling of bursts of sites (sigma-GPT: Pannatier et al. 2024, arXiv:2404.09562).

    A round takes two passes. The first draws every remaining site from its conditional p given the known sites;
    the second scores these candidates along a fresh random order of the remaining sites, giving q. Along that
    order a candidate is accepted with probability ``min(1, q / p)``; the first one rejected is drawn again from
    the normalised positive part of ``q - p`` (Leviathan et al. 2022, arXiv:2211.17192), and the round
    ends. The samples are exactly those of drawing one site after the other in a uniformly random order.

    The paper scores several random orders per round and keeps the one that accepts most, which is no longer
    exact; here it is one order.
    """

    @torch.no_grad()
    def __call__(self, generator: Generator, request: Request) -> Tensor:
        space = generator.space
        values, known = request.begin(generator)
        # Sites in the sequence they were accepted in; only the first `count` places of a row mean anything.
        sequence = torch.argsort((~known).long(), dim=-1, stable=True)
        count = known.sum(1)
        seeds = request.noise.bits(space.n)
        for turn in range(space.n):  # a round accepts one site at least
            before = count.clone()
            for c in torch.unique(before[before < space.n]).tolist():
                items = torch.nonzero(before == c)[:, 0]
                noise = Noise(seeds[items, turn])
                found = self._round(generator, request, values[items], sequence[items], c, items, noise)
                values[items], sequence[items], count[items] = found
        return values

    def _round(
        self,
        generator: Generator,
        request: Request,
        values: Tensor,
        sequence: Tensor,
        c: int,
        items: Tensor,
        noise: Noise,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Values, sequence and number of known sites ``[b]`` after one round, c being known before."""
        n, b = generator.space.n, len(items)
        draw = Draw(noise, **request.options)
        condition = request.condition.map(lambda t: t[items])

        def log_probs(order: Order, sites: Tensor) -> Tensor:
            def at(told: object) -> Finite:
                features = generator.network(values, order, told)
                found = generator.head(take(features, sites), sites)
                if not isinstance(found, Finite):
                    raise ValueError("burst sampling needs a head with finitely many values")
                return found

            found = at(condition)
            if request.guidance:
                pushed = found.guided(at(condition.without_label()), request.guidance)
                assert isinstance(pushed, Finite)
                found = pushed
            return torch.log_softmax(draw.adjust(found.log_probs()).double(), -1)

        shuffle = torch.argsort(noise.uniform(n - c), -1)
        rest = sequence[:, c:].gather(1, shuffle)
        sequence = torch.cat([sequence[:, :c], rest], 1)
        place = torch.argsort(sequence, -1)
        p = log_probs(Order(place.clamp(max=c)), rest)
        candidates = draw_categories(p, noise)
        put(values, rest, candidates)
        q = log_probs(Order(place), rest)
        ratio = (q - p).gather(-1, candidates[..., None])[..., 0]
        accepted = noise.uniform(n - c).log() < ratio
        run = accepted.long().cumprod(1).sum(1)  # accepted before the first rejection
        last = run.clamp(max=n - c - 1)
        rows = torch.arange(b, device=values.device)
        positive = (q[rows, last].exp() - p[rows, last].exp()).clamp(min=0)
        again = draw_categories(torch.where(positive > 0, positive.log(), -torch.inf)[:, None], noise)[:, 0]
        site = rest[rows, last]
        values[rows, site] = torch.where(run < n - c, again, values[rows, site])
        return values, sequence, c + last + 1
