"""Decoders: strategies that turn a generator into samples and completions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from ancestral.decoding.batches import run_batches
from ancestral.decoding.walk import Draw, walk
from ancestral.heads.base import Chooser
from ancestral.noise import Noise, item_seeds
from ancestral.order import Order
from ancestral.space import Condition

if TYPE_CHECKING:
    from ancestral.generator import Generator


@dataclass
class Request:
    """What to draw.

    Attributes:
        noise: one stream per item.
        condition: what the model is told.
        order: order to follow; None leaves it to the decoder.
        given: ``[B, N, *event]`` values of the known sites.
        known: bool ``[B, N]``; None means that nothing is known.
        guidance: classifier-free guidance scale; 0 means none.
        options: temperature, top_k, top_p, min_p.
        sets: draw this many sets only, behind the known ones (models of streams); None means all.
        ends: int64, symbols that end a stream; what stands behind the first of them is of no meaning.
        around: what stands between the distributions and whatever decides the values (models of streams); None means
            nothing.
    """

    noise: Noise
    condition: Condition = field(default_factory=Condition)
    order: Order | None = None
    given: Tensor | None = None
    known: Tensor | None = None
    guidance: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)
    sets: int | None = None
    ends: Tensor | None = None
    around: Callable[[Chooser], Chooser] | None = None

    def base(self) -> tuple[Condition, float] | None:
        """Condition and scale of the unguided branch."""
        return (self.condition.without_label(), self.guidance) if self.guidance else None

    def begin(self, generator: Generator) -> tuple[Tensor, Tensor]:
        """Values ``[B, N, *event]``, a copy of those given, else zero, and which are known, bool ``[B, N]``."""
        space, device = generator.space, next(generator.parameters()).device
        shape, known = (self.noise.batch, space.n), self.known
        if known is None:
            known = torch.zeros(shape, dtype=torch.bool, device=device)
        if self.given is not None:
            return self.given.clone(), known
        dtype = torch.int64 if space.discrete else torch.float32
        return torch.zeros(*shape, *space.event, dtype=dtype, device=device), known


class Decoder(Protocol):
    """Draws values ``[B, N, *event]`` as a :class:`Request` asks; known sites come back to the bit."""

    def __call__(self, generator: Generator, request: Request) -> Tensor: ...


Ramp = Literal["constant", "sets", "before", "after", "with"] | float
"""How guidance grows along the sets; see :class:`Ancestral`."""


@dataclass(frozen=True)
class Ancestral:
    """Set by set along the order, each from its conditional distribution: exact samples of the model.

    Args:
        random_orders: draw an order per item from the policy rather than follow the scoring order.
        ramp: how guidance grows: "constant"; "sets", from 0 at the first set to its full scale at the last (VAR: Tian
            et al. 2024, arXiv:2404.02905); "before", by the share of sites drawn before a set (RandAR: Pang et al.
            2024, arXiv:2412.01827); "after", by the share drawn once it is (MAR: Li et al. 2024, arXiv:2406.11838),
            and "with", the same, but its full scale at the last set (ARPG: Li et al. 2025, arXiv:2503.10568); a number
            p, as ``(1 - cos(pi s^p)) / 2`` of the share s drawn before (RAR: Yu et al. 2024, arXiv:2411.00776), which
            is constant for p = 0.
    """

    random_orders: bool = False
    ramp: Ramp = "constant"

    def _scales(self, order: Order, guidance: float) -> float | list[float]:
        if self.ramp == "sets":
            return [guidance * k / max(order.n_sets - 1, 1) for k in range(order.n_sets)]
        if self.ramp == "before":
            return [guidance * start / order.n for start in order.starts[:-1]]
        if self.ramp == "after":
            return [guidance * min(end, order.n - 1) / order.n for end in order.starts[1:]]
        if self.ramp == "with":
            return [guidance * end / order.n for end in order.starts[1:]]
        if not isinstance(self.ramp, str):
            shares = [(start / order.n) ** self.ramp for start in order.starts[:-1]]
            return [guidance * (1 - math.cos(math.pi * share)) / 2 for share in shares]
        return guidance

    def __call__(self, generator: Generator, request: Request) -> Tensor:
        order = request.order
        if order is None and self.random_orders:
            order = generator.order.draw(request.noise.uniform(generator.space.n + 1))
        if order is None:
            order = generator.order.scoring()
        known_sets = 0
        if request.known is not None:
            count = int(request.known[0].sum())
            if not bool((request.known.sum(1) == count).all()):
                raise ValueError("items of one request must have equally many known sites")
            if count == generator.space.n:
                assert request.given is not None
                return request.given.clone()
            # Known sites that are the first sets of the order leave it as it is: the sets of a parallel order
            # keep seeing what they saw in training. Otherwise the known sites come first, one by one.
            leading = int(order.set_of_place[count])
            if bool(((order.rank < leading) == request.known).all()):
                known_sets = leading
            else:
                order, known_sets = order.given(request.known), count
        draw = Draw(request.noise, **request.options)
        base = request.base()
        return walk(
            generator,
            draw if request.around is None else request.around(draw),
            request.noise.batch,
            order,
            request.condition,
            given=request.given if known_sets else None,
            known_sets=known_sets,
            sets=request.sets,
            base=None if base is None else (base[0], self._scales(order, base[1])),
            ends=request.ends,
        ).values


@dataclass(frozen=True)
class Confidence:
    """All hidden sites are drawn at every step, the most confident kept, the others hidden again.

    MaskGIT (Chang et al. 2022, arXiv:2202.04200): after step t of T the share ``cos(pi/2 * t/T)`` of
    the sites is still hidden. Confidence is the log-probability of the drawn value plus Gumbel noise whose
    size falls linearly to 0. The samples follow no tractable distribution.

    Args:
        steps: forward passes T.
        choice_temperature: size of the noise on the confidence at the first step; ``inf`` chooses at random.
    """

    steps: int = 8
    choice_temperature: float = 4.5

    @torch.no_grad()
    def __call__(self, generator: Generator, request: Request) -> Tensor:
        space, noise = generator.space, request.noise
        values, known = request.begin(generator)
        hidden_first = (~known).sum(1)
        draw = Draw(noise, **request.options)
        base = request.base()
        for step in range(self.steps):
            distribution = generator.observe(values, known, request.condition)
            if base is not None:
                distribution = distribution.guided(generator.observe(values, known, base[0]), base[1])
            if not generator.head.finite:
                raise ValueError("confidence decoding needs a head with finitely many values")
            drawn = distribution.choose(draw)
            values = torch.where(known.reshape(*known.shape, *[1] * len(space.event)), values, drawn)
            done = (step + 1) / self.steps
            keep_hidden = torch.floor(hidden_first * math.cos(math.pi / 2 * done) + 1e-9).long()
            if step + 1 == self.steps:
                break
            confidence = distribution.log_prob(values).double()
            if math.isinf(self.choice_temperature):
                confidence = noise.uniform(space.n)
            else:
                confidence = confidence + self.choice_temperature * (1 - done) * noise.gumbel(space.n)
            confidence = confidence.masked_fill(known, math.inf)
            place = torch.argsort(torch.argsort(confidence, -1, descending=False), -1)
            known = place >= keep_hidden[:, None]
        return values


def draw_values(
    generator: Generator,
    decoder: Decoder,
    numbers: Tensor,
    *,
    seed: int,
    condition: Condition,
    order: Order | None,
    guidance: float,
    options: dict[str, Any],
    batch_size: int | None = None,
) -> Tensor:
    """New items from nothing: values ``[n, N, *event]`` on the CPU.

    Args:
        generator: a built generator.
        decoder: draws them.
        numbers: int64 ``[n]``; an item depends on ``seed`` and its number only.
        seed: base of all items' seeds.
        condition: what the model is told about them.
        order: shared, one per item, or None, which leaves it to the decoder.
        guidance, options: as for :class:`Request`.
        batch_size: items drawn together; None takes what suits the network.
    """
    device = next(generator.parameters()).device

    def draw(index: Tensor) -> Tensor:
        request = Request(
            Noise(item_seeds(seed, numbers[index]).to(device)),
            condition.map(lambda t: t[index].to(device)),
            None if order is None else order.items(index),
            guidance=guidance,
            options=options,
        )
        return decoder(generator, request).cpu()

    chunks = run_batches(generator, len(numbers), batch_size, draw)
    return torch.cat(chunks) if chunks else generator.space.empty()
