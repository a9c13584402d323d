"""Drafts of what a model might draw next: by a smaller model, by its own first layers, by looking up repetitions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ancestral.decoding.tracks import Track, early_exit
from ancestral.decoding.walk import draw_categories
from ancestral.errors import UnsupportedError, check_range
from ancestral.heads.subset import spread
from ancestral.networks.base import put
from ancestral.noise import Noise
from ancestral.order import Order
from ancestral.space import Condition

if TYPE_CHECKING:
    from ancestral.generator import Generator


@dataclass
class Proposal:
    """Drafted values of the next sets.

    Attributes:
        values: int64 ``[R, N]``, a row per candidate, filled in up to the last drafted set.
        log_probs: per set, what its values were drawn from: float64 ``[R, S, K]``; None for a draft that is
            certain of its values.
        sets: number of drafted sets.
        symbols: int64 ``[V]``, what ``log_probs`` ``[R, S, V]`` are of, where the others cannot be drafted; None: all.
    """

    values: Tensor
    log_probs: list[Tensor] | None
    sets: int
    symbols: Tensor | None = None

    def probabilities(self, number: int, row: int, site: int, size: int) -> Tensor | None:
        """What a drafted value was drawn from, float64 ``[size]``; None for a certain one.

        Args:
            number: of the drafted set.
            row: the candidate.
            site: place within the set.
            size: number of categories.
        """
        if self.log_probs is None:
            return None
        found = self.log_probs[number][row, site].exp()
        return found if self.symbols is None else spread(found, self.symbols, size, 0.0)


class Drafter(Protocol):
    """Drafts for one item.

    Candidates must be drawn independently, from distributions that depend on the values before them only: then
    accepted values follow the target exactly.
    """

    @property
    def passes(self) -> int:
        """Network passes so far."""
        ...

    def propose(self, values: Tensor, first: int, count: int, rows: int, noise: Noise) -> Proposal:
        """At most ``count`` sets from ``first`` on, given ``values`` ``[1, N]``, for at most ``rows`` candidates."""
        ...

    def keep(self, sets: int, row: int) -> None:
        """The values before the set ``sets`` are final; up to its last accepted set they are candidate ``row``'s."""
        ...


@runtime_checkable
class Watching(Protocol):
    """A drafter that looks at what the target finds."""

    def watch(self, first: int, found: list[Tensor]) -> None:
        """The target's log-probabilities of the sets from ``first`` on, ``[R, S, K]`` each, given what was drafted."""
        ...


class Draft(Protocol):
    """A way of drafting; gives a :class:`Drafter` for every item."""

    def start(self, target: Generator, order: Order, condition: Condition, options: dict[str, Any]) -> Drafter: ...


@dataclass(frozen=True)
class SmallModel:
    """Drafts by another generator over the same values (Leviathan et al. 2022, arXiv:2211.17192).

    It may be much smaller, the target itself with rounded weights (:func:`ancestral.quantisation.rounded`), which is
    nearly always right, or with less of it (:func:`ancestral.decoding.pruning.pruned`).

    Args:
        generator: the draft, or the model that has it.
        sure: drafting stops before a value that the draft finds no favourite for, one at least so probable; 0 to go
            on.
    """

    generator: Generator
    sure: float = 0.0

    def __post_init__(self) -> None:
        from ancestral.generator import generator_of

        object.__setattr__(self, "generator", generator_of(self.generator, "the draft"))

    def start(self, target: Generator, order: Order, condition: Condition, options: dict[str, Any]) -> Drafter:
        mine, theirs = self.generator.space, target.space
        if (mine.n, mine.sizes, mine.event) != (theirs.n, theirs.sizes, theirs.event):
            raise UnsupportedError(
                f"the draft's values ({mine.n} sites of {mine.largest} categories) are not the target's ({theirs.n} "
                f"of {theirs.largest}); fit it with the same tokenizer"
            )
        return ModelDrafter(Track(self.generator, order, condition, options), self.sure)


@dataclass(frozen=True)
class EarlyLayers:
    """Drafts by the first layers of the target itself (Elhoushi et al. 2024, arXiv:2404.16710).

    Args:
        layers: how many; they draft well if they were trained to (:class:`ancestral.objectives.EarlyExit`).
        sure: as for :class:`SmallModel`.
    """

    layers: int
    sure: float = 0.0

    def start(self, target: Generator, order: Order, condition: Condition, options: dict[str, Any]) -> Drafter:
        return ModelDrafter(Track(early_exit(target, self.layers), order, condition, options), self.sure)


class ModelDrafter:
    """Drafts by running another network along the order."""

    def __init__(self, track: Track, sure: float = 0.0):
        self.track, self.sure = track, sure

    @property
    def passes(self) -> int:
        return self.track.passes

    def propose(self, values: Tensor, first: int, count: int, rows: int, noise: Noise) -> Proposal:
        order = self.track.order
        values = values.expand(rows, -1).clone()
        log_probs: list[Tensor] = []
        symbols = self.track.symbols
        for k in range(first, first + count):
            # All candidates share the first distribution; afterwards each follows its own values from there.
            alike = values[:1] if k == first else values
            found = self.track.known_log_probs(alike, first if rows > 1 else k, k + 1)[-1].expand(rows, -1, -1)
            # Whether to go on depends on what came before the value, not on the value: what is drafted stays fair.
            if self.sure and k > first and float(found.amax(-1).min()) < math.log(self.sure):
                return Proposal(values, log_probs, k - first, symbols)
            size = found.shape[1]
            drawn = draw_categories(found.reshape(1, rows * size, -1), noise).reshape(rows, size)
            put(values, order.sets[k], drawn if symbols is None else symbols[drawn])
            log_probs.append(found)
            if rows > 1 and k == first:
                self.track.keep(first + 1)
        return Proposal(values, log_probs, count, symbols)

    def keep(self, sets: int, row: int) -> None:
        self.track.keep(sets, row)


@dataclass(frozen=True)
class Lookup:
    """Drafts what followed the last symbols where they occurred before (prompt lookup: Saxena 2023).

    Other occurrences make other candidates, the latest first.

    Args:
        longest: symbols that are looked for at first; fewer if there is no match.
        least: symbols that have to match.
    """

    longest: int = 3
    least: int = 1

    def __post_init__(self) -> None:
        check_range("looking up", "least", self.least, 1)
        check_range("looking up", "longest", self.longest, self.least)

    def start(self, target: Generator, order: Order, condition: Condition, options: dict[str, Any]) -> Drafter:
        if not order.sequential:
            raise UnsupportedError("looking up repetitions needs an order of single sites")
        return _LookupDrafter(order, self.longest, self.least)


class _LookupDrafter:
    @property
    def passes(self) -> int:
        return 0

    def __init__(self, order: Order, longest: int, least: int = 1):
        self.order, self.longest, self.least = order, longest, least

    def propose(self, values: Tensor, first: int, count: int, rows: int, noise: Noise) -> Proposal:
        seen = values[0, self.order.permutation[:first]]
        found: list[Tensor] = []
        for size in range(min(self.longest, first - 1), self.least - 1, -1):
            windows = seen[:-1].unfold(0, size, 1)
            matches = torch.nonzero((windows == seen[-size:]).all(1))[:, 0].flip(0)
            for start in (matches + size).tolist():
                follows = seen[start : start + count]
                if not any(torch.equal(follows[:1], other[:1]) for other in found):
                    found.append(follows)
                if len(found) == rows:
                    break
            if found:
                break
        if not found:
            return Proposal(values.clone(), None, 0)
        sets = min(len(f) for f in found)
        values = values.expand(len(found), -1).clone()
        for row, follows in zip(values, found, strict=True):
            row[self.order.permutation[first : first + sets]] = follows[:sets]
        return Proposal(values, None, sets)

    def keep(self, sets: int, row: int) -> None:
        pass
