"""Several items at once, chosen together: beam search, and sampling without replacement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ancestral.decoding.decoders import Request
from ancestral.decoding.speculative import prepare
from ancestral.decoding.walk import Draw
from ancestral.errors import UnsupportedError, check_range
from ancestral.heads.base import Finite
from ancestral.networks.base import Cache
from ancestral.networks.transformer import KeyValues
from ancestral.noise import Noise
from ancestral.space import Condition

if TYPE_CHECKING:
    from ancestral.generator import Generator
    from ancestral.model import Model


@dataclass
class Found:
    """Distinct values of one item, best first.

    Attributes:
        values: int64 ``[W, N]``.
        log_prob: of what was drawn of them, float64 ``[W]``, nats.
        score: what they were chosen by: the log-probability itself (beam search), or perturbed by Gumbel noise
            (sampling without replacement), float64 ``[W]``.
    """

    values: Tensor
    log_prob: Tensor
    score: Tensor


@torch.no_grad()
def search(generator: Generator, request: Request, width: int, perturbed: bool = False) -> list[Found]:
    """The ``width`` best ways on that are found by keeping as many at every place; one result per item.

    With ``perturbed`` every way's log-probability is perturbed by Gumbel noise, top down, so that the best are a
    sample without replacement from the model (stochastic beam search: Kool et al. 2019, arXiv:1903.06059). Fewer
    are found where there are fewer.

    Args:
        generator: a built generator with one finite value per site, and an order of single sites.
        request: what to draw; ``options`` change the distribution that is searched.
        width: ways kept.
        perturbed: sample rather than search.

    Raises:
        UnsupportedError: another kind of model or order.
    """
    check_range("a beam", "width", width, 1)
    values, order, known = prepare(generator, request)
    if not order.sequential:
        raise UnsupportedError("beams need an order of single sites")
    end = order.n_sets if request.sets is None else min(order.n_sets, known + request.sets)
    stop = generator.space.stop if order.is_raster else None
    ends = [] if request.ends is None else request.ends.tolist()
    final = torch.tensor(sorted({*ends, *([] if stop is None else [stop])}), dtype=torch.int64, device=values.device)
    seeds = request.noise.bits(1)[:, 0]
    out = []
    for i in range(len(values)):
        told = request.condition.map(lambda t, i=i: t[i : i + 1])
        beam = _Beam(generator, Noise(seeds[i : i + 1]), request.options, perturbed)
        found = beam.run(values[i : i + 1], order, told, (known, end), width, final)
        if stop is not None:
            behind = (found.values == stop).long()
            found.values = torch.where(behind.cumsum(1) - behind > 0, stop, found.values)
        out.append(found)
    return out


class _Beam:
    def __init__(self, generator: Generator, noise: Noise, options: dict[str, Any], perturbed: bool):
        self.generator, self.noise, self.perturbed = generator, noise, perturbed
        self.draw = Draw(noise, **options)

    def run(self, row: Tensor, order: Any, told: Condition, span: tuple[int, int], width: int, final: Tensor) -> Found:
        known, end = span
        network = self.generator.network
        cache = network.start(1, order, told, row if known else None, known)
        values = row.clone()
        log_prob = torch.zeros(1, dtype=torch.float64, device=row.device)
        score = self.noise.gumbel(1)[0] if self.perturbed else log_prob.clone()
        over = torch.zeros(1, dtype=torch.bool, device=row.device)
        if len(final) and known:
            over |= torch.isin(values[:, order.permutation[:known]], final[final == self.generator.space.stop]).any(1)
        last: Tensor | None = None
        for k in range(known, end):
            if bool(over.all()):
                break
            site = order.sets[k]
            found = self.generator.head(network.step(cache, last), site)
            if not isinstance(found, Finite):
                raise UnsupportedError("beams need a head with one finite value per site")
            each = torch.log_softmax(self.draw.adjust(found.log_probs()).double(), -1)[:, 0]
            # An item that has ended goes on in one way only, which costs nothing.
            stay = torch.full_like(each, -torch.inf)
            stay[:, 0] = 0.0
            total = log_prob[:, None] + torch.where(over[:, None], stay, each)
            chosen_by = self._perturb(total, score) if self.perturbed else total
            best = chosen_by.flatten().topk(min(width, int((total > -torch.inf).sum())))
            rows, drawn = best.indices // total.shape[1], best.indices % total.shape[1]
            log_prob, score, over = total.flatten()[best.indices], best.values, over[rows]
            values = values[rows]
            fresh = torch.where(over, values[:, site[0]], drawn)
            values[:, site[0]] = fresh
            _reorder(cache, rows)
            cache.batch = len(rows)
            last = fresh[:, None]
            if len(final):
                over = over | torch.isin(fresh, final)
        return Found(values, log_prob, score)

    def _perturb(self, total: Tensor, score: Tensor) -> Tensor:
        """Perturbed log-probabilities of all children, the largest of each parent being the parent's: ``[W, K]``.

        Gumbel variables with the given maximum (Kool et al. 2019, appendix B.3, the stable form).
        """
        drawn = total + self.noise.gumbel(*total.shape)[0]
        largest = drawn.amax(-1, keepdim=True)
        gap = torch.log(-torch.expm1((drawn - largest).clamp(max=-1e-300)))
        v = score[:, None] - drawn + torch.where(drawn == largest, -torch.inf, gap)
        moved = score[:, None] - v.clamp(min=0) - torch.log1p(torch.exp(-v.abs()))
        return torch.where(drawn == largest, score[:, None], torch.where(total > -torch.inf, moved, -torch.inf))


def _reorder(cache: Cache, rows: Tensor) -> None:
    """Let the items of a cache go on as copies of the ``rows`` given."""
    cache.values = cache.values[rows]
    cache.condition = cache.condition.map(lambda t: t[rows] if len(t) == cache.batch else t)
    if isinstance(cache.state, list) and all(isinstance(kept, KeyValues) for kept in cache.state):
        for kept in cache.state:
            kept.k, kept.v = kept.k[rows], kept.v[rows]
    else:
        cache.state = None  # networks without keys and values go through what has been drawn again


@dataclass(frozen=True)
class Beam:
    """The best of the ways that beam search finds; nothing is random.

    Args:
        width: ways kept at every place; 1 is greedy.
    """

    width: int = 4

    def __call__(self, generator: Generator, request: Request) -> Tensor:
        return torch.stack([found.values[0] for found in search(generator, request, self.width)])


def distinct(model: Generator | Model, count: int, seed: int = 0, **options: Any) -> Found:
    """``count`` different items (fewer if there are fewer), a sample without replacement.

    The first is an ordinary sample; see :func:`search`.

    Raises:
        DataError: no model, a count below 1, or an option that drawing does not have.
    """
    from ancestral.generator import generator_of
    from ancestral.inputs import check_drawing

    check_drawing(options, seed=seed)
    check_range("distinct", "count", count, 1)
    generator = generator_of(model)
    device = next(generator.parameters()).device
    return search(generator, Request(Noise.of(seed, 1, device=device), options=options), count, True)[0]
