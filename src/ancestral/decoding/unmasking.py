"""Hidden sites revealed at random times (absorbing diffusion), or drawn at once and the doubtful ones again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ancestral.decoding.decoders import Request
from ancestral.decoding.walk import Draw
from ancestral.errors import UnsupportedError
from ancestral.heads.base import Finite
from ancestral.objectives import AbsorbingDiffusion, SymbolSchedules

if TYPE_CHECKING:
    from ancestral.generator import Generator


@dataclass(frozen=True)
class Unmasking:
    """From all hidden at time 1 to all revealed at time 0 in equal steps of time.

    Between t and s < t every hidden site is revealed with probability ``(alpha_s - alpha_t) / (1 - alpha_t)`` and
    then drawn from its conditional given what was known at t (MD4: Shi et al. 2024, arXiv:2406.04329). As the steps
    grow in number, sites are revealed one by one in a uniformly random order.

    Where schedules per symbol were learned, a value is drawn first, and revealed with the chance that its symbol has.

    Args:
        steps: network passes T.
        schedule: of ``alpha``; see :class:`ancestral.objectives.AbsorbingDiffusion`. "learned" takes the schedules of
            the model's :class:`ancestral.objectives.SymbolSchedules`.
    """

    steps: int = 64
    schedule: Literal["linear", "cosine", "learned"] = "cosine"

    @torch.no_grad()
    def __call__(self, generator: Generator, request: Request) -> Tensor:
        space, noise = generator.space, request.noise
        values, known = request.begin(generator)
        time = torch.linspace(1, 0, self.steps + 1, dtype=torch.float64)
        schedules = generator.objective if self.schedule == "learned" else None
        if schedules is not None and not isinstance(schedules, SymbolSchedules):
            raise ValueError("the model has learned no schedules; draw with linear or cosine")
        alpha = None if self.schedule == "learned" else AbsorbingDiffusion(self.schedule).alpha(time)[0]
        draw, base = Draw(noise, **request.options), request.base()
        for step in range(self.steps):
            chance = noise.uniform(space.n)
            distribution = generator.observe(values, known, request.condition)
            if base is not None:
                distribution = distribution.guided(generator.observe(values, known, base[0]), base[1])
            drawn = distribution.choose(draw)
            if step + 1 == self.steps:
                revealed = ~known
            elif schedules is not None:
                revealed = ~known & (chance >= schedules.remaining(drawn, float(time[step]), float(time[step + 1])))
            else:
                assert alpha is not None
                revealed = ~known & (chance < float((alpha[step + 1] - alpha[step]) / (1 - alpha[step])))
            values = torch.where(revealed.reshape(*known.shape, *[1] * len(space.event)), drawn, values)
            known = known | revealed
        return values


@dataclass(frozen=True)
class MaskPredict:
    """All hidden sites are drawn at once; then those that were least probable, fewer each time, are drawn again.

    Of H sites ``H (T - t) / T`` are hidden again at step t of T, those whose values had the least probability when they
    were drawn (Ghazvininejad et al. 2019, arXiv:1904.09324, which takes the most probable values: ``temperature=0``).
    The samples follow no tractable distribution.

    Args:
        steps: network passes T.
    """

    steps: int = 10

    @torch.no_grad()
    def __call__(self, generator: Generator, request: Request) -> Tensor:
        space, noise = generator.space, request.noise
        if space.event or not space.discrete or request.guidance:
            raise UnsupportedError("mask-predict draws one finite value per site, without guidance")
        values, known = request.begin(generator)
        draw, hidden = Draw(noise, **request.options), ~known
        chance = torch.full(known.shape, math.inf, dtype=torch.float64, device=values.device)
        for step in range(self.steps):
            if step:
                again = (~known).sum(1, keepdim=True) * (self.steps - step) // self.steps
                rank = torch.argsort(torch.argsort(chance, dim=-1, stable=True), -1)
                hidden = ~known & (rank < again)
            found = generator.observe(values, ~hidden, request.condition)
            assert isinstance(found, Finite)
            values = torch.where(hidden, draw(found, None, None), values)
            chance = torch.where(hidden, found.log_prob(values).double(), chance)
        return values
