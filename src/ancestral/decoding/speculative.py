"""Speculative decoding: a draft proposes several sets, the model judges them all in one pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from ancestral.decoding.decoders import Request
from ancestral.decoding.drafts import Draft, Drafter, Proposal, Watching
from ancestral.decoding.tracks import Track
from ancestral.errors import DataError, UnsupportedError, check_range
from ancestral.networks.base import put
from ancestral.noise import Noise
from ancestral.order import Order
from ancestral.space import Condition

if TYPE_CHECKING:
    from ancestral.generator import Generator


@dataclass
class SpeculationReport:
    """What speculation did so far: acceptance, passes and wall-clock time together.

    Attributes:
        sets: sets that were drawn.
        passes: passes of the target.
        draft_passes: passes of the draft's network.
        drafted: sets that were proposed along the candidate that was followed.
        accepted: of those, the ones that were taken over.
        seconds: wall-clock time.
    """

    sets: int = 0
    passes: int = 0
    draft_passes: int = 0
    drafted: int = 0
    accepted: int = 0
    seconds: float = 0.0

    @property
    def acceptance(self) -> float:
        """Share of the drafted sets that were accepted."""
        return self.accepted / self.drafted if self.drafted else 0.0

    @property
    def sets_per_pass(self) -> float:
        """Sets drawn per pass of the target; 1 without speculation."""
        return self.sets / self.passes if self.passes else 0.0


Relaxed = Callable[[Tensor, int], Tensor]
"""Probabilities float64 ``[K]`` to put in place of a target ``[K]`` once a value has been drafted."""


class Relaxation(Protocol):
    """A way to accept more than an exact sampler may; see :class:`ancestral.decoding.relaxed.Lantern`."""

    def start(self, target: Generator) -> Relaxed: ...


def judge(
    target: Tensor,
    drafts: list[Tensor | None],
    candidates: list[int],
    uniforms: Tensor,
    relax: Relaxed | None = None,
) -> tuple[int, int | None]:
    """A value that follows ``target`` exactly, if possible one of the candidates.

    One candidate after the other is accepted with probability ``min(1, p / q)``; a rejected one leaves the
    normalised positive part of ``p - q`` as the target for the next (one candidate: Leviathan et al. 2022,
    arXiv:2211.17192; several: Miao et al. 2023, arXiv:2305.09781).

    Args:
        target: probabilities p, float64 ``[K]``.
        drafts: probabilities q that each candidate was drawn from, ``[K]``; None for a certain one.
        candidates: drafted values, independent of each other given q.
        uniforms: float64 ``[len(candidates) + 1]``.
        relax: see :data:`Relaxed`; the value then follows another distribution.

    Returns:
        the value, and which candidate was accepted (None: the value was drawn from what was left).
    """
    p = target
    for i, (q, x) in enumerate(zip(drafts, candidates, strict=True)):
        asked = p if relax is None else relax(p, x)
        share = 1.0 if q is None else float(q[x])
        if float(uniforms[i]) * share < float(asked[x]):
            return x, i
        if q is None:
            rest = asked.clone()
            rest[x] = 0.0
        else:
            rest = (asked - q).clamp(min=0.0)
        total = float(rest.sum())
        if total <= 0.0:  # p and q agree up to rounding, and u was within it
            return x, i
        p = rest / total
    edges = p.cumsum(0)
    u = float(uniforms[-1]) * float(edges[-1])
    last = int((edges < edges[-1]).sum())
    return min(int(torch.searchsorted(edges, torch.tensor(u, dtype=edges.dtype), right=True)), last), None


@dataclass(frozen=True)
class Speculative:
    """Draws exactly from the target, several sets per pass where the draft is good.

    Works for every model with one finite value per site, in any shared order; the items of a batch are drawn one
    after the other, each from its own stream of numbers, so that an item does not depend on the others.

    Args:
        draft: :class:`ancestral.decoding.drafts.SmallModel`, ``EarlyLayers``, ``Lookup`` or another.
        ahead: sets drafted at a time.
        candidates: drafts judged together in one pass; more than one needs an order of single sites.
        relax: give up exactness for acceptance.
        report: counts; added to by every call.
    """

    draft: Draft
    ahead: int = 4
    candidates: int = 1
    relax: Relaxation | None = None
    report: SpeculationReport = field(default_factory=SpeculationReport, compare=False)

    def __post_init__(self) -> None:
        if not callable(getattr(self.draft, "start", None)):
            raise DataError(
                f"draft={type(self.draft).__name__} is no way of drafting; give SmallModel(model), EarlyLayers(...) or "
                "Lookup()"
            )
        check_range("speculation", "ahead", self.ahead, 0)
        check_range("speculation", "candidates", self.candidates, 1)

    @torch.no_grad()
    def __call__(self, generator: Generator, request: Request) -> Tensor:
        start = time.perf_counter()
        values, order, known = prepare(generator, request)
        if self.candidates > 1 and not order.sequential:
            raise UnsupportedError("several candidates need an order of single sites; use candidates=1")
        end = order.n_sets if request.sets is None else min(order.n_sets, known + request.sets)
        relax = None if self.relax is None else self.relax.start(generator)
        seeds = request.noise.bits(1)[:, 0]
        for i in range(len(values)):
            told = request.condition.map(lambda t, i=i: t[i : i + 1])
            item = _Item(generator, order, told, request.options, self.draft, self.report, relax)
            ends = final_symbols(generator, order, request)
            item.run(self, values[i : i + 1], known, end, Noise(seeds[i : i + 1]), ends)
        self.report.seconds += time.perf_counter() - start
        return values


def prepare(generator: Generator, request: Request) -> tuple[Tensor, Order, int]:
    """Values ``[B, N]`` with what is known filled in, the order to follow and its number of known sets.

    Raises:
        UnsupportedError: guidance, several values per site, or known sites that the order cannot put first.
    """
    space, device = generator.space, request.noise.seeds.device
    if request.guidance:
        raise UnsupportedError("this decoder takes no guidance; use the ancestral one")
    if space.event or not space.discrete:
        raise UnsupportedError("this decoder needs one finite value per site")
    order = (generator.order.scoring() if request.order is None else request.order).to(device)
    values = torch.zeros(request.noise.batch, space.n, dtype=torch.int64, device=device)
    if request.known is None or not bool(request.known.any()):
        return values, order, 0
    assert request.given is not None
    shown = request.known[0]
    if not bool((request.known == shown).all()):
        raise UnsupportedError("this decoder needs the same known sites in all items of a request")
    count = int(shown.sum())
    known = int(order.set_of_place[count]) if count < space.n else order.n_sets
    if not torch.equal(order.rank < known, shown):
        order, known = order.given(shown), count
    return torch.where(request.known, request.given, values), order, known


def final_symbols(generator: Generator, order: Order, request: Request) -> set[int]:
    """Symbols behind which nothing is drawn."""
    ends = set() if request.ends is None else set(request.ends.tolist())
    if generator.space.stop is not None and order.is_raster:
        ends.add(generator.space.stop)
    return ends


class _Item:
    """One item on its way."""

    def __init__(
        self,
        generator: Generator,
        order: Order,
        condition: Condition,
        options: dict[str, Any],
        draft: Draft,
        report: SpeculationReport,
        relax: Relaxed | None,
    ):
        self.relax = relax
        self.order, self.stop, self.report = order, generator.space.stop, report
        self.track = Track(generator, order, condition, options)
        self.drafter: Drafter = draft.start(generator, order, condition, options)

    def run(self, how: Speculative, values: Tensor, k: int, end: int, noise: Noise, ends: set[int]) -> None:
        """Fill ``values`` ``[1, N]`` from set k up to ``end``, in place."""
        begin = k
        if self.stop in ends and bool((values[:, : self.order.starts[k]] == self.stop).any()):
            end = k
        if how.candidates > 1 and k < end:  # keys and values that all candidates share
            value = self._open(values, k, noise)
            k, end = k + 1, (k + 1 if value in ends else end)
        while k < end:
            count = min(how.ahead, end - k - 1)
            proposal = self.drafter.propose(values, k, count, how.candidates, noise) if count else None
            k, over = self._judge(values, k, proposal, noise, ends)
            if over:
                break
        if self.stop is not None and self.stop in ends:
            values[:, self.order.permutation[self.order.starts[k] :]] = self.stop
        self.report.sets += k - begin
        self.report.passes += self.track.passes
        self.report.draft_passes += self.drafter.passes

    def _open(self, values: Tensor, k: int, noise: Noise) -> int:
        p = self.track.log_probs(values, k, k + 1)[0][0, 0].exp()
        value, _ = judge(p, [], [], noise.uniform(1)[0])
        values[0, self.order.sets[k]] = value
        self.track.keep(k + 1)
        return value

    def _judge(
        self, values: Tensor, k: int, proposal: Proposal | None, noise: Noise, ends: set[int]
    ) -> tuple[int, bool]:
        """Take over what is accepted and one set more; the next set, and whether the item has ended."""
        count = 0 if proposal is None else proposal.sets
        rows = values if proposal is None or not count else proposal.values
        found = self.track.log_probs(rows, k, k + count + 1)
        if isinstance(self.drafter, Watching):
            self.drafter.watch(k, found)
        alive, row = list(range(len(rows))), 0
        self.report.drafted += count
        over = False
        for j in range(count + 1):
            sites = self.order.sets[k + j]
            uniforms = noise.uniform(len(sites), len(alive) + 1)[0]
            drawn, accepted = [], j < count
            for s in range(len(sites)):
                p = found[j][row, s].exp()
                if j == count:
                    value, winner = judge(p, [], [], uniforms[s])
                else:
                    assert proposal is not None
                    qs = [proposal.probabilities(j, a, s, len(p)) for a in alive]
                    shown = [int(rows[a, sites[s]]) for a in alive]
                    value, winner = judge(p, qs, shown, uniforms[s], self.relax)
                drawn.append(value)
                accepted = accepted and winner is not None
                if winner is not None and len(sites) == 1:
                    row = alive[winner]
            put(values, sites, torch.tensor([drawn], device=values.device))
            over = bool(ends) and any(value in ends for value in drawn)
            self.report.accepted += accepted
            if over or not accepted:
                break
            alive = [a for a in alive if torch.equal(rows[a, sites], values[0, sites])]
        final = k + j + 1
        self.track.keep(final, row)
        self.drafter.keep(final, row)
        return final, over
