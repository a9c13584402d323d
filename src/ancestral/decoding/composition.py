"""Several models as one: mixtures, products and negations of distributions over the same values.

Composing small models into larger ones: Du and Kaelbling 2024, arXiv:2402.01103.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ancestral.decoding.decoders import Ancestral, Request
from ancestral.decoding.speculative import prepare
from ancestral.decoding.walk import Draw, draw_categories
from ancestral.errors import DataError, UnsupportedError, check_range
from ancestral.heads.base import Finite
from ancestral.heads.loglinear import LogLinear
from ancestral.networks.base import put
from ancestral.networks.mixtures import Ensemble
from ancestral.order import Order
from ancestral.space import Condition

if TYPE_CHECKING:
    from ancestral.generator import Generator


@dataclass
class Composed:
    """Values drawn from a composition.

    Attributes:
        values: int64 ``[B, N]``.
        log_weight: float64 ``[B]``: log of the unnormalised composition minus log of the chance with which the values
            were drawn; 0 where they were drawn exactly.
    """

    values: Tensor
    log_weight: Tensor


def mixture_log_prob(generators: Sequence[Generator], weights: Sequence[float], values: Tensor) -> Tensor:
    """Exact log-probability of ``values`` ``[B, N]`` under ``sum_m weights[m] p_m``: float64 ``[B]``, nats."""
    with torch.no_grad():
        each = torch.stack([g.log_prob(values).double().sum(1) for g in generators])
    share = torch.tensor(_normal(weights), dtype=torch.float64, device=values.device)
    return (each + share.log()[:, None]).logsumexp(0)


def product_log_prob(generators: Sequence[Generator], powers: Sequence[float], values: Tensor) -> Tensor:
    """Unnormalised log-probability ``sum_m powers[m] log p_m``, of ``values`` ``[B, N]``: float64 ``[B]``, nats."""
    with torch.no_grad():
        return sum(  # type: ignore[return-value]
            a * g.log_prob(values).double().sum(1) for g, a in zip(generators, powers, strict=True)
        )


@dataclass(frozen=True)
class Mixture:
    """Draws exactly from ``sum_m weights[m] p_m``, given a known beginning too.

    At every place the models' distributions are mixed by their posterior weights given what stands before.

    Args:
        others: generators, or models, mixed with the one that the decoder is called with.
        weights: of that one and of the others; need not sum to 1.
    """

    others: tuple[Generator, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "others", _generators(self.others))
        _normal(self.weights)

    def __call__(self, generator: Generator, request: Request) -> Tensor:
        start = torch.tensor(_normal(self.weights), dtype=torch.float64).log()
        return _follow((generator, *self.others), request, start, None).values


@dataclass(frozen=True)
class Product:
    """Draws from ``prod_m p_m ** powers[m]``, normalised; a negative power steers away from a model.

    The models' conditionals multiplied and normalised place by place are not the product, whose conditionals weigh
    every symbol by the mass behind it. So ``particles`` are drawn in that way and one is chosen by its importance
    weight (sampling importance resampling: Rubin 1987), which is exact as they grow in number.

    Args:
        others: generators, or models, multiplied with the one that the decoder is called with.
        powers: of that one and of the others.
        particles: candidates per item; 1 leaves the conditionals' product as it is.
    """

    others: tuple[Generator, ...]
    powers: tuple[float, ...]
    particles: int = 32

    def __post_init__(self) -> None:
        object.__setattr__(self, "others", _generators(self.others))
        for power in self.powers:
            if not math.isfinite(power):
                raise DataError(f"powers must be finite numbers, got {tuple(self.powers)}")
        check_range("a product", "particles", self.particles, 1)

    def __call__(self, generator: Generator, request: Request) -> Tensor:
        drawn = self.draw(generator, request)
        batch = request.noise.batch
        weight = torch.softmax(drawn.log_weight.reshape(batch, self.particles), -1)
        u = request.noise.uniform(1)
        pick = (u > weight.cumsum(-1)[:, :-1]).sum(-1)
        candidates = drawn.values.reshape(batch, self.particles, -1)
        return candidates[torch.arange(batch, device=candidates.device), pick]

    def draw(self, generator: Generator, request: Request) -> Composed:
        """All ``B * particles`` candidates, item-major, with their weights."""

        def wide(t: Tensor | None) -> Tensor | None:
            return None if t is None else t.repeat_interleave(self.particles, 0)

        spread = Request(
            request.noise.repeat(self.particles),
            request.condition.map(lambda t: t.repeat_interleave(self.particles, 0)),
            request.order,
            wide(request.given),
            wide(request.known),
            request.guidance,
            request.options,
            request.sets,
            request.ends,
        )
        return _follow((generator, *self.others), spread, None, torch.tensor(self.powers, dtype=torch.float64))


@dataclass(frozen=True)
class WholeProduct:
    """Draws from the product of an ensemble's members over whole items, rather than of their conditionals.

    What an :class:`ancestral.networks.Ensemble` under a :class:`ancestral.heads.LogLinear` head scores and draws is
    the product place by place; see :class:`Product` for how the two differ.

    Args:
        particles: candidates per item; 1 leaves the product place by place.
    """

    particles: int = 32

    def __call__(self, generator: Generator, request: Request) -> Tensor:
        if self.particles == 1:
            return Ancestral()(generator, request)
        first, *others = members(generator)
        head = generator.head
        assert isinstance(head, LogLinear)
        powers = head.powers or (1 / (1 + len(others)),) * (1 + len(others))
        return Product(tuple(others), powers, self.particles)(first, request)


def members(generator: Generator) -> list[Generator]:
    """The members of an ensemble as generators of their own; all weights are shared.

    Raises:
        UnsupportedError: another network or head.
    """
    network, head = generator.network, generator.head
    if not isinstance(network, Ensemble) or not isinstance(head, LogLinear):
        raise UnsupportedError("a product of members needs an ensemble of networks under a log-linear head")
    found = []
    for one, own in zip(network.networks, network.heads, strict=True):
        made = copy.copy(generator)
        made._modules = {**generator._modules, "network": one, "head": own}
        found.append(made)
    return found


def _generators(models: Any) -> tuple[Generator, ...]:
    from ancestral.generator import generator_of

    if not isinstance(models, (tuple, list)):
        raise DataError("others must be a tuple of models")
    return tuple(generator_of(model, "a model of a composition") for model in models)


def _normal(weights: Sequence[float]) -> list[float]:
    total = math.fsum(weights)
    if not weights or min(weights) < 0 or not 0 < total < math.inf:
        raise DataError(f"weights must be at least 0 and not all 0, got {tuple(weights)}")
    return [w / total for w in weights]


@torch.no_grad()
def _follow(
    generators: Sequence[Generator], request: Request, mixture: Tensor | None, powers: Tensor | None
) -> Composed:
    """Draw along the order, the models side by side.

    Args:
        generators: M models of the same values.
        request: what to draw.
        mixture: log of the weights ``[M]``, or
        powers: ``[M]``.
    """
    values, order, known = prepare(generators[0], request)
    wanted = mixture if mixture is not None else powers
    assert wanted is not None
    if len(wanted) != len(generators):
        raise DataError(f"{len(generators)} models need as many weights or powers, got {len(wanted)}")
    for g in generators[1:]:
        if (g.space.n, g.space.sizes, g.space.event) != (values.shape[1], generators[0].space.sizes, ()):
            raise UnsupportedError("models can be composed only if they have the same values; use the same tokenizer")
    batch, stop = len(values), generators[0].space.stop if order.is_raster else None
    draw = Draw(request.noise, **request.options)
    posterior = None if mixture is None else mixture.to(values.device)[:, None].expand(-1, batch).clone()
    if posterior is not None and known:  # what is known tells the components apart
        posterior += torch.stack([_seen(g, values, order, known, request.condition) for g in generators])
    caches = [g.network.start(batch, order, request.condition, values if known else None, known) for g in generators]
    log_weight = torch.zeros(batch, dtype=torch.float64, device=values.device)
    alive = torch.ones(batch, dtype=torch.bool, device=values.device)
    if stop is not None:
        alive = ~(values[:, : order.starts[known]] == stop).any(1)
    last: Tensor | None = None
    end = order.n_sets if request.sets is None else min(order.n_sets, known + request.sets)
    for k in range(known, end):
        sites = order.sets[k]
        each = torch.stack([_log_probs(g, g.network.step(c, last), sites) for g, c in zip(generators, caches)])
        if posterior is not None:
            joint = (posterior.log_softmax(0)[:, :, None, None] + each).logsumexp(0)
        else:
            assert powers is not None
            scaled = powers.to(each.device)[:, None, None, None] * each
            # A category that some model rules out is out, even where its power is negative.
            joint = torch.where(each.isneginf().any(0), -torch.inf, scaled.sum(0))
            log_weight += torch.where(alive, joint.logsumexp(-1).sum(1), 0.0)
        last = draw_categories(draw.adjust(torch.log_softmax(joint, -1)), draw.noise)
        if stop is not None:
            last = torch.where(alive[:, None], last, stop)
        if posterior is not None:
            found = each.gather(-1, last.expand(len(each), -1, -1)[..., None])[..., 0].sum(2)
            posterior += torch.where(alive, found, 0.0)
        put(values, sites, last)
        if stop is not None:
            alive = alive & (last[:, 0] != stop)
        if request.ends is not None:
            alive = alive & ~torch.isin(last, request.ends).any(1)
    return Composed(values, log_weight)


def _log_probs(generator: Generator, features: Tensor, sites: Tensor) -> Tensor:
    found = generator.head(features, sites)
    if not isinstance(found, Finite):
        raise UnsupportedError("composing models place by place needs heads with one finite value per site")
    return found.log_probs().double()


def _seen(generator: Generator, values: Tensor, order: Order, known: int, condition: Condition) -> Tensor:
    """Log-probability of the known sets: float64 ``[B]``."""
    each = generator.log_prob(values, order, condition).double()
    return torch.where(order.rank < known, each, 0.0).sum(1)
