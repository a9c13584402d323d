"""The one traversal: follow an order, and let a chooser decide the values set by set.

Sampling, stepwise scoring, encoding, decoding and completion differ in their chooser only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ancestral.decoding.compiled import ahead
from ancestral.errors import DataError
from ancestral.heads.base import Chooser, Density, Finite, Leaf, draw_categories
from ancestral.networks.base import put, take
from ancestral.noise import Noise
from ancestral.order import Order
from ancestral.space import Condition

if TYPE_CHECKING:
    from ancestral.generator import Generator


@dataclass
class Sites:
    """Shows an outer chooser the leaves of a nested head: ``[B * S, T]`` inner sites as ``[B, S * T]``."""

    chooser: Chooser
    batch: int
    sites: int

    def __call__(self, leaf: Leaf, given: Tensor | None, alive: Tensor | None) -> Tensor:
        def outer(x: Tensor) -> Tensor:
            return x.reshape(self.batch, -1, *x.shape[2:])

        shape = (self.batch * self.sites, -1)
        if isinstance(leaf, Finite):
            flat: Leaf = Finite(outer(leaf.logits))
        else:
            flat = _regroup(leaf, outer)
        chosen = self.chooser(flat, None if given is None else outer(given), None if alive is None else outer(alive))
        return chosen.reshape(*shape, *chosen.shape[2:])


def _regroup(leaf: Leaf, outer: object) -> Leaf:
    from ancestral.heads.gaussian import MixtureDensity

    if not isinstance(leaf, MixtureDensity):
        raise ValueError(f"{type(leaf).__name__} cannot stand inside a nested head")
    assert callable(outer)
    return MixtureDensity(outer(leaf.log_weight), outer(leaf.mean), outer(leaf.log_std), leaf.event)


@dataclass
class Walked:
    """Result of :func:`walk`: ``values [B, N, *event]`` and ``log_weight`` float64 ``[B]`` of the known sites."""

    values: Tensor
    log_weight: Tensor


@torch.no_grad()
def walk(
    generator: Generator,
    chooser: Chooser,
    batch: int,
    order: Order,
    condition: Condition | None = None,
    *,
    given: Tensor | None = None,
    known_sets: int = 0,
    sets: int | None = None,
    known: Tensor | None = None,
    alive: Tensor | None = None,
    base: tuple[Condition, float | Sequence[float]] | None = None,
    ends: Tensor | None = None,
) -> Walked:
    """Decide the values of all sites along ``order``.

    Args:
        generator: a built generator.
        chooser: decides the values of each set.
        batch: number of items B.
        order: shared or per item.
        condition: what the model is told.
        given: ``[B, N, *event]``: values shown to the chooser, and the values of the known sets.
        known_sets: leading sets that are taken from ``given`` without asking the chooser.
        sets: stop after deciding this many sets; the sites behind keep their zeros.
        known: bool ``[B, N]``: sites further down whose given values are forced on the item; it is then weighed by
            their probability (likelihood weighting: Fung and Chang 1989), so that items resampled by weight
            follow the conditional distribution given all known sites. A ``joint`` head draws the others of their set
            to suit them instead, and nothing is weighed.
        alive: bool ``[B]``: items whose values matter (nested heads behind the end of a sequence).
        base: condition and scale (one, or one per set) of classifier-free guidance; both branches run as one batch.
        ends: int64, symbols that end a stream: the walk stops once every item has drawn one. What stands behind an
            item's first is of no meaning.

    Returns:
        the values ``[B, N, *event]``, known ones to the bit, and the log-weights.
    """
    space, network, head = generator.space, generator.network, generator.head
    device = next(generator.parameters()).device
    condition = generator.told(condition, batch) or Condition()
    dtype = torch.int64 if space.discrete else torch.float32
    values = torch.zeros(batch, space.n, *space.event, dtype=dtype, device=device)
    if given is not None and known_sets:  # only what is known: networks may keep all they are shown
        shown_first = order.permutation[..., : order.starts[known_sets]]
        put(values, shown_first, take(given, shown_first))
    followed, told, start = order, condition, values
    if base is not None:
        told = Condition.join(condition, generator.told(base[0], batch) or Condition())
        start = torch.cat([values, values])
        followed = Order(torch.cat([order.rank, order.rank])) if order.batched else order
    cache = network.start(start.shape[0], followed, told, start if known_sets else None, known_sets)

    stop = space.stop if order.is_raster and not space.event else None
    if stop is not None:
        ended = (values[:, : order.starts[known_sets]] == stop).any(1)
        alive = ~ended if alive is None else alive & ~ended
    # A sequence has not ended before a known symbol: there the stop is ruled out, and weighed.
    until: Tensor | None = None
    if stop is not None and known is not None and given is not None:
        until = torch.where(known & (given != stop), torch.arange(space.n, device=device), -1).amax(1)
    log_weight = torch.zeros(batch, dtype=torch.float64, device=device)
    over = torch.zeros(batch, dtype=torch.bool, device=device)
    last: Tensor | None = None
    end = order.n_sets if sets is None else min(order.n_sets, known_sets + sets)
    run = None
    if base is None and known is None and (alive is None or stop is not None) and end - known_sets > 1:
        run = ahead(generator, chooser, order, condition, batch, ends, (known_sets, end))
    k = known_sets - 1
    while (k := k + 1) < end:
        if alive is not None and stop is not None and not bool(alive.any()):
            put(
                values,
                torch.arange(order.starts[k], space.n),
                torch.as_tensor(stop, dtype=dtype, device=device),
            )
            break
        if run is not None and k >= known_sets + run.after and (done := run(cache, values, k, end, alive, over)):
            network.stepped(done)
            k += done - 1
            if ends is not None and bool(over.all()):
                break
            continue
        features = network.step(cache, last if base is None or last is None else torch.cat([last, last]))
        sites = order.sets[k]
        looks = [partial(network.look, cache, rows=slice(at, at + batch)) for at in range(0, len(features), batch)]
        if base is None:
            distribution = head.over(features, sites, None, looks[0])
        else:
            full = sites if sites.dim() == 1 else torch.cat([sites, sites])
            top, bottom = features[:batch], features[batch:]
            first, second = (full, full) if sites.dim() == 1 else (full[:batch], full[batch:])
            scale = base[1] if isinstance(base[1], (int, float)) else base[1][k]
            plain = head.over(bottom, second, None, looks[1])
            distribution = head.over(top, first, None, looks[0]).guided(plain, scale)
        if until is not None and isinstance(distribution, Finite):
            goes_on = until > order.starts[k]
            log_probs = distribution.log_probs()
            without = log_probs.index_fill(-1, torch.tensor([stop], device=device), float("-inf"))
            distribution = Finite(torch.where(goes_on[:, None, None], without, log_probs))
            log_weight += torch.where(goes_on, without.double().logsumexp(-1)[:, 0], 0.0)
        live = None if alive is None else alive[:, None].expand(batch, sites.shape[-1])
        shown = None if given is None else take(given, sites)
        if head.joint and known is not None and shown is not None:
            distribution = distribution.pinned(take(known, sites), shown)
        last = distribution.choose(chooser, shown, live)
        if live is not None:
            blank = last.new_full((), stop if stop is not None else 0)
            last = torch.where(live.reshape(*live.shape, *[1] * (last.dim() - 2)), last, blank)
        if known is not None and given is not None:
            forced, shown = take(known, sites), take(given, sites)
            if bool(forced.any()) and not head.joint:
                each = distribution.log_prob(shown).double()
                if stop is not None and live is not None:  # behind its end a sequence holds nothing but stops
                    each = torch.where(live, each, torch.where(shown == stop, 0.0, float("-inf")))
                log_weight += torch.where(forced, each, 0.0).sum(1)
            if bool(forced.any()):
                last = torch.where(forced.reshape(*forced.shape, *[1] * (last.dim() - 2)), shown, last)
        if stop is not None:
            assert alive is not None
            alive = alive & (last[:, 0] != stop)
        put(values, sites, last)
        if ends is not None:
            over |= torch.isin(last, ends).flatten(1).any(1)
            if bool(over.all()):
                break
    return Walked(values, log_weight)


class Draw:
    """Draws values at random, each item from its own stream of numbers.

    Args:
        noise: one stream per item.
        temperature: flattens (> 1) or sharpens (< 1) every distribution; 0 takes the most probable value.
        top_k: keep the k most probable categories.
        top_p: keep the smallest set of categories whose probability is at least this (nucleus sampling:
            Holtzman et al. 2019, arXiv:1904.09751).
        min_p: keep categories at least this many times as probable as the best (Nguyen et al. 2024,
            arXiv:2407.01082).

    Raises:
        DataError: an option out of its range, NaN included.
    """

    def __init__(
        self,
        noise: Noise,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
    ):
        if not 0 <= temperature < math.inf:
            raise DataError(
                f"temperature={temperature} must be a number of at least 0; 1 draws from the model as it is"
            )
        if top_k is not None and not top_k >= 1:
            raise DataError(f"top_k={top_k} must be at least 1; leave it out to draw among all values")
        for name, share in (("top_p", top_p), ("min_p", min_p)):
            if share is not None and not 0 < share <= 1:
                raise DataError(f"{name}={share} must be more than 0 and at most 1; leave it out to drop no value")
        self.noise, self.temperature = noise, temperature
        self.top_k, self.top_p, self.min_p = top_k, top_p, min_p

    def __call__(self, leaf: Leaf, given: Tensor | None, alive: Tensor | None) -> Tensor:
        if isinstance(leaf, Finite):
            if self.plain:  # what is drawn as it is needs no normalising first
                return leaf.draw(self.noise)
            return draw_categories(self.adjust(leaf.log_probs()), self.noise)
        assert isinstance(leaf, Density)
        return leaf.sample(self.noise, self.temperature)

    @property
    def plain(self) -> bool:
        """Whether :meth:`adjust` changes nothing."""
        untruncated = self.top_k is None and self.top_p is None and self.min_p is None
        return self.temperature == 1 and untruncated

    def adjust(self, log_probs: Tensor) -> Tensor:
        """Log-probabilities ``[B, S, K]`` after temperature and truncation, not normalised."""
        if self.temperature == 0:
            best = log_probs.argmax(-1, keepdim=True)
            return torch.full_like(log_probs, float("-inf")).scatter(-1, best, 0.0)
        x = log_probs if self.temperature == 1 else torch.log_softmax(log_probs / self.temperature, -1)
        if self.top_k is not None and self.top_k < x.shape[-1]:
            kept = x.topk(self.top_k, -1).indices
            x = torch.full_like(x, float("-inf")).scatter(-1, kept, x.gather(-1, kept))
        if self.min_p is not None:
            x = x.masked_fill(x < x.amax(-1, keepdim=True) + math.log(self.min_p), float("-inf"))
        if self.top_p is not None and self.top_p < 1:
            ordered, index = torch.softmax(x, -1).sort(-1, descending=True)
            # A category stays if those more probable than it do not reach top_p already.
            drop = (ordered.cumsum(-1) - ordered) >= self.top_p
            x = x.masked_fill(torch.zeros_like(drop).scatter(-1, index, drop), float("-inf"))
        return x


class Given:
    """Takes the given values and adds up their log-probabilities: exact scores by the incremental path.

    ``self.log_prob`` is float64 ``[B]`` afterwards.
    """

    def __init__(self) -> None:
        self.log_prob: Tensor | float = 0.0

    def __call__(self, leaf: Leaf, given: Tensor | None, alive: Tensor | None) -> Tensor:
        assert given is not None, "scoring needs the values"
        each = leaf.log_prob(given).double()
        if alive is not None:
            each = torch.where(alive, each, 0.0)
        self.log_prob = self.log_prob + each.sum(1)
        return given
