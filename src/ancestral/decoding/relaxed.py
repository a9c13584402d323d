"""Relatives of speculative decoding that trade the exact distribution for fewer passes."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ancestral.decoding.decoders import Request
from ancestral.decoding.drafts import Draft, ModelDrafter
from ancestral.decoding.speculative import Relaxed, SpeculationReport, prepare
from ancestral.decoding.tracks import Track
from ancestral.decoding.walk import Draw, draw_categories
from ancestral.errors import DataError, UnsupportedError, check_range
from ancestral.networks.base import ValueEmbedding
from ancestral.noise import Noise

if TYPE_CHECKING:
    from ancestral.generator import Generator


@dataclass(frozen=True)
class Lantern:
    """Values near a drafted one lend it their probability (LANTERN: Jang et al. 2024, arXiv:2410.03355).

    Of the ``nearest`` values around the drafted one, nearest first, as many as together hold at most ``delta`` of the
    target's probability give it up to the drafted value. For any drafted value the target so changed is within
    ``delta`` of the true one in total variation. That bounds each changed target, **not** the distribution of what is
    drawn, which mixes them over the drafted values and may be further away (:func:`induced`).

    Args:
        nearest: values in a neighbourhood, the drafted one not counted.
        delta: bound on the total variation.
        codebook: float ``[K, C]``, in which distances are Euclidean: a quantiser's codes; by default the network's
            embeddings of the values.
    """

    nearest: int = 10
    delta: float = 0.1
    codebook: Tensor | None = None

    def __post_init__(self) -> None:
        check_range("lantern", "nearest", self.nearest, 0)
        check_range("lantern", "delta", self.delta, 0, 1)

    def start(self, target: Generator) -> Relaxed:
        codes = self.codebook
        if codes is None:
            embed = getattr(target.network, "embed", None)
            if not isinstance(embed, ValueEmbedding) or not isinstance(target.space.sizes, int):
                raise UnsupportedError("neighbours need one set of categories for all sites, or a codebook=")
            codes = embed.table.weight
        elif len(codes) != target.space.largest:
            raise DataError(f"the codebook has {len(codes)} codes, the model {target.space.largest} values")
        codes = codes.detach().double()

        @lru_cache(1 << 14)
        def near(value: int) -> Tensor:  # all distances of a vocabulary of 50,000 would take 20 GB
            return neighbours(codes, self.nearest, torch.tensor([value], device=codes.device))[0]

        return lambda p, x: lend(p, x, near(x), self.delta)


@dataclass(frozen=True)
class Typical:
    """A drafted value is taken where the target finds it typical (Medusa: Cai et al. 2024, arXiv:2401.10774).

    That is where its probability exceeds ``epsilon`` or ``delta exp(-H)``, whichever is less, H being the entropy of
    the target; elsewhere the exact rule decides. What is drawn leans towards the draft.

    Args:
        epsilon: a probability that is always enough.
        delta: share of the probability that every value would have if ``exp(H)`` were equally likely.
    """

    epsilon: float = 0.09
    delta: float = 0.3

    def start(self, target: Generator) -> Relaxed:
        def relax(p: Tensor, x: int) -> Tensor:
            entropy = float(torch.special.entr(p).sum())
            if float(p[x]) <= min(self.epsilon, self.delta * math.exp(-entropy)):
                return p
            return torch.zeros_like(p).index_fill(0, torch.tensor(x, device=p.device), 1.0)

        return relax


def neighbours(codes: Tensor, count: int, rows: Tensor | None = None) -> Tensor:
    """The ``count`` rows nearest to ``rows`` of ``codes`` ``[K, C]``, themselves not counted: int64 ``[R, count]``.

    Args:
        codes: ``[K, C]``.
        count: neighbours of each.
        rows: int64 ``[R]``; None: all. Memory grows with R times K.
    """
    rows = torch.arange(len(codes), device=codes.device) if rows is None else rows
    distance = torch.cdist(codes[rows], codes)
    distance.scatter_(1, rows[:, None], math.inf)
    return distance.argsort(dim=1, stable=True)[:, : min(count, len(codes) - 1)]


def lend(target: Tensor, drafted: int, near: Tensor, delta: float) -> Tensor:
    """``target`` ``[K]`` after the first of ``near`` that hold at most ``delta`` gave theirs to ``drafted``."""
    given = near[target[near].cumsum(0) <= delta]
    changed = target.clone()
    changed[drafted] += target[given].sum()
    changed[given] = 0.0
    return changed


def induced(target: Tensor, draft: Tensor, relax: Relaxed) -> Tensor:
    """The distribution of the value that relaxed acceptance gives, by going through all drafts: float64 ``[K]``.

    Args:
        target, draft: probabilities p and q, float64 ``[K]``.
        relax: how the target is changed.
    """
    out = torch.zeros_like(target)
    for x in torch.nonzero(draft)[:, 0].tolist():
        asked = relax(target, x)
        accepted = min(1.0, float(asked[x] / draft[x]))
        out[x] += draft[x] * accepted
        rest = (asked - draft).clamp(min=0.0)
        if accepted < 1:
            out += draft[x] * (1 - accepted) * rest / rest.sum()
    return out


@dataclass(frozen=True)
class BigLittle:
    """A small model draws while it is sure; the large one steps in, and takes back what it disagrees with.

    BiLD (Kim et al. 2023, arXiv:2302.07863). The small model *falls back* to the large one where its largest
    probability is below ``fallback``; in one pass the large model then judges all values that the small one drew
    since, *rolls back* to the first whose negative log-probability exceeds ``rollback``, and draws one value itself.
    The samples follow neither model.

    Args:
        draft: the small model.
        fallback: least probability of the small model's favourite.
        rollback: largest distance, in nats.
        ahead: values that the small model may draw in a row.
        report: counts; added to by every call.
    """

    draft: Draft
    fallback: float = 0.6
    rollback: float = 3.0
    ahead: int = 10
    report: SpeculationReport = field(default_factory=SpeculationReport, compare=False)

    def __post_init__(self) -> None:
        check_range("a big and a little model", "fallback", self.fallback, 0)
        check_range("a big and a little model", "rollback", self.rollback, 0)
        check_range("a big and a little model", "ahead", self.ahead, 0)

    @torch.no_grad()
    def __call__(self, generator: Generator, request: Request) -> Tensor:
        start = time.perf_counter()
        values, order, known = prepare(generator, request)
        if not order.sequential:
            raise UnsupportedError("a big and a little model need an order of single sites")
        end = order.n_sets if request.sets is None else min(order.n_sets, known + request.sets)
        stop = generator.space.stop if order.is_raster else None
        ends = set() if request.ends is None else set(request.ends.tolist())
        ends |= set() if stop is None else {stop}
        seeds = request.noise.bits(1)[:, 0]
        for i in range(len(values)):
            told = request.condition.map(lambda t, i=i: t[i : i + 1])
            drafter = self.draft.start(generator, order, told, {})
            if not isinstance(drafter, ModelDrafter):
                raise UnsupportedError("the little model must be a model: take SmallModel or EarlyLayers as draft=")
            pair = _Pair(Track(generator, order, told), drafter.track, Draw(Noise(seeds[i : i + 1]), **request.options))
            row = values[i : i + 1]
            over = stop is not None and bool((row[:, : order.starts[known]] == stop).any())
            last = known if over else self._item(pair, row, known, end, ends)
            if stop is not None:
                row[:, order.permutation[last:]] = stop
            self.report.sets += last - known
            self.report.passes += pair.big.passes
            self.report.draft_passes += pair.little.passes
        self.report.seconds += time.perf_counter() - start
        return values

    def _item(self, pair: _Pair, values: Tensor, k: int, end: int, ends: set[int]) -> int:
        """Fill ``values`` ``[1, N]`` from place k on, in place; one past the last place."""
        permutation = pair.big.order.permutation
        while k < end:
            pending = self._draw_little(pair, values, k, end, ends)
            at = k + len(pending)
            done = bool(pending) and (pending[-1] in ends or at == end)  # the large model has nothing to draw
            found = pair.big.log_probs(values, k, at if done else at + 1)
            self.report.drafted += len(pending)
            for number, value in enumerate(pending):
                if -float(found[number][0, 0, value]) > self.rollback:
                    at, done = k + number, False
                    break
            self.report.accepted += at - k
            if done:
                return at
            value = pair.drawn(found[at - k])
            values[0, permutation[at]] = value
            k = at + 1
            pair.big.keep(k)
            pair.little.keep(k)
            if value in ends:
                break
        return k

    def _draw_little(self, pair: _Pair, values: Tensor, k: int, end: int, ends: set[int]) -> list[int]:
        """What the small model draws from place k on while it is sure; written to ``values``."""
        pending: list[int] = []
        while k + len(pending) < end and len(pending) < self.ahead:
            place = k + len(pending)
            found = pair.little.log_probs(values, place, place + 1)[0]
            if math.exp(float(found.max())) < self.fallback:
                break
            pending.append(pair.drawn(found))
            values[0, pair.big.order.permutation[place]] = pending[-1]
            if pending[-1] in ends:
                break
        return pending


@dataclass
class _Pair:
    """Both models on one item, and how values are drawn from either."""

    big: Track
    little: Track
    draw: Draw

    def drawn(self, log_probs: Tensor) -> int:
        """A value from log-probabilities ``[1, 1, K]``."""
        return int(draw_categories(self.draw.adjust(log_probs), self.draw.noise)[0, 0])
