"""Completion: draw the unknown sites given any subset of known ones."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ancestral.decoding.decoders import Ancestral, Decoder, Request
from ancestral.decoding.walk import Draw, walk
from ancestral.errors import DataError
from ancestral.noise import Noise
from ancestral.order import Order
from ancestral.space import Condition

if TYPE_CHECKING:
    from ancestral.generator import Generator


@dataclass
class Completion:
    """Completed values and how they were found.

    Attributes:
        values: ``[n, N, *event]``.
        method: "exact" (any-order model: known sites first), "prefix" (the known sites are the first of the
            model's order: exact too) or "importance" (fixed order, known sites elsewhere: each draw is one of
            several candidates, chosen by the probability that they give to the known sites), "pinned" (as
            "importance", but a head that draws whole sets lets the unknown values of a set suit the known ones while it
            draws: an approximation).
        effective: for "importance", the mean effective number of candidates, ``1 / sum w^2``.
    """

    values: Tensor
    method: str
    effective: float | None = None

    def warn(self, name: str, particles: int) -> None:
        """Warn if few candidates carry the weight; ``name`` is the model's."""
        if self.method == "importance" and self.effective is not None and self.effective < 0.1 * particles:
            warnings.warn(
                f"{name} can only be conditioned on these sites by importance resampling, and about "
                f"{self.effective:.1f} of {particles} candidates carry the weight; use an any-order recipe or "
                "more particles=",
                stacklevel=3,
            )


def method_for(generator: Generator, known: Tensor, order: Order | None = None) -> str:
    """How sites that are known, bool ``[n, N]``, can be conditioned on; see :class:`Completion`."""
    if generator.any_order:
        return "exact"
    rank = (order or generator.order.scoring()).to(known.device).rank
    # The known sites are the first of the order if no unknown site has a rank at or below one of theirs.
    highest = torch.where(known, rank, -1).amax(1)
    lowest = torch.where(known, torch.iinfo(torch.int64).max, rank).amin(1)
    if bool((highest < lowest).all()):
        return "prefix"
    return "pinned" if generator.head.joint else "importance"


def complete_values(
    generator: Generator,
    values: Tensor,
    known: Tensor,
    *,
    seeds: Tensor,
    condition: Condition,
    order: Order | None,
    decoder: Decoder,
    guidance: float,
    options: dict[str, Any],
    particles: int = 64,
    batch_size: int = 256,
) -> Completion:
    """Draw the unknown sites.

    Args:
        generator: a built generator.
        values: ``[n, N, *event]``; entries at unknown sites are ignored.
        known: bool ``[n, N]``.
        seeds: int64 ``[n]``, one stream of random numbers per item.
        condition: what the model is told.
        order: in which unknown sites are drawn, shared or one per item; None leaves it to the model.
        decoder: used where the model can be conditioned exactly.
        guidance, options: as for :class:`Request`.
        particles: candidates per item for importance resampling.
        batch_size: items drawn together.
    """
    device = next(generator.parameters()).device
    method = method_for(generator, known, order)
    out = values.clone()
    effective: list[float] = []
    for index in _alike(generator, known, order, method):
        for part in index.split(batch_size if method != "importance" else max(1, batch_size // particles)):
            told = condition.map(lambda t, part=part: t[part].to(device))
            given, shown = values[part].to(device), known[part].to(device)
            noise = Noise(seeds[part].to(device))
            mine = None if order is None else order.items(part).to(device)
            if method == "pinned":
                drawn = _pinned(generator, given, shown, noise, told, mine, guidance, options)
            elif method == "importance":
                drawn, weight = _importance(generator, given, shown, noise, told, mine, guidance, options, particles)
                effective += weight
            else:
                request = Request(noise, told, mine, given, shown, guidance, options)
                drawn = decoder(generator, request)
            out[part] = drawn.cpu()
    mask = known.reshape(*known.shape, *[1] * (values.dim() - 2))
    out = torch.where(mask, values, out)
    return Completion(out, method, sum(effective) / len(effective) if effective else None)


def _alike(generator: Generator, known: Tensor, order: Order | None, method: str) -> list[Tensor]:
    """Items grouped so that those of a group can move in step: equal set sizes once known sites come first."""
    if method in ("importance", "pinned"):
        return [torch.arange(len(known))]
    base = order or generator.order.scoring()
    if base.sequential:
        signature = known.sum(1, keepdim=True)
    else:
        rank = base.rank.to(known.device)
        counts = [(~known & (rank == k)).sum(1) for k in range(base.n_sets)]
        signature = torch.stack([known.sum(1), *counts], 1)
    _, group = torch.unique(signature, dim=0, return_inverse=True)
    return [torch.nonzero(group == g)[:, 0] for g in range(int(group.max()) + 1)] if len(known) else []


def _pinned(
    generator: Generator,
    given: Tensor,
    known: Tensor,
    noise: Noise,
    condition: Condition,
    order: Order | None,
    guidance: float,
    options: dict[str, Any],
) -> Tensor:
    """One walk in which the known values of every set are held while the others are drawn."""
    base = (condition.without_label(), guidance) if guidance else None
    order = order or generator.order.scoring()
    draw = Draw(noise, **options)
    return walk(generator, draw, len(given), order, condition, given=given, known=known, base=base).values


def _importance(
    generator: Generator,
    given: Tensor,
    known: Tensor,
    noise: Noise,
    condition: Condition,
    order: Order | None,
    guidance: float,
    options: dict[str, Any],
    particles: int,
) -> tuple[Tensor, list[float]]:
    """Sampling importance resampling (Rubin 1987) among ``particles`` candidates per item."""
    batch = given.shape[0]
    wide = condition.map(lambda t: t.repeat_interleave(particles, 0))
    base = (wide.without_label(), guidance) if guidance else None
    order = order or generator.order.scoring()
    walked = walk(
        generator,
        Draw(noise.repeat(particles), **options),
        batch * particles,
        Order(order.rank.repeat_interleave(particles, 0)) if order.batched else order,
        wide,
        given=given.repeat_interleave(particles, 0),
        known=known.repeat_interleave(particles, 0),
        base=base,
    )
    log_weight = walked.log_weight.reshape(batch, particles)
    if bool(log_weight.isneginf().all(1).any()):
        raise DataError(
            "no completion agrees with the known sites: the model gives them probability 0 (such as a known symbol "
            "behind the known end of a sequence); check what is marked as known"
        )
    weight = torch.softmax(log_weight, -1)
    u = noise.uniform(1)
    pick = (u > weight.cumsum(-1)[:, :-1]).sum(-1)
    candidates = walked.values.reshape(batch, particles, *walked.values.shape[1:])
    chosen = candidates[torch.arange(batch, device=given.device), pick]
    return chosen, (1 / weight.square().sum(-1)).tolist()


__all__ = ["Ancestral", "Completion", "complete_values", "method_for"]
