"""Several sites at a time: random sets on a schedule, and sets planned from measured losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ancestral.decoding.decoders import Ancestral, Ramp, Request
from ancestral.noise import Noise
from ancestral.order import Order, scheduled_sets
from ancestral.space import Condition

if TYPE_CHECKING:
    from ancestral.generator import Generator


def random_sets(noise: Noise, known: Tensor, sets: Tensor) -> Order:
    """An order per item: the known sites one by one, then random sets of the unknown ones.

    Args:
        noise: one stream per item.
        known: bool ``[B, N]``, equally many in every row.
        sets: int64 ``[U]``: set of the k-th unknown site drawn, nondecreasing.
    """
    n = known.shape[1]
    u = torch.where(known, -1.0, noise.uniform(n))
    drawn = torch.argsort(torch.argsort(u, dim=-1, stable=True), -1)  # known sites come out first, by number
    first = n - len(sets)
    ranks = torch.cat([torch.arange(first), first + sets]).to(known.device)
    return Order(ranks[drawn])


def _nothing_known(generator: Generator, request: Request) -> Tensor:
    if request.known is not None:
        return request.known
    return torch.zeros(request.noise.batch, generator.space.n, dtype=torch.bool, device=request.noise.seeds.device)


@dataclass(frozen=True)
class RandomSets:
    """Random sets on one of MaskGIT's schedules, each drawn given all before.

    Each set is drawn from the product of its sites' conditionals: ``steps`` network passes instead of N (RandAR:
    Pang et al. 2024, arXiv:2412.01827).

    Args:
        steps: number of sets.
        ramp: how guidance grows; see :class:`Ancestral`.
        schedule: "cosine", sets that grow, or "arccos", sets of nearly one size until the last ones.
    """

    steps: int
    ramp: Ramp = "constant"
    schedule: Literal["cosine", "arccos"] = "cosine"

    def __call__(self, generator: Generator, request: Request) -> Tensor:
        known = _nothing_known(generator, request)
        unknown = int((~known[0]).sum())
        draw = Ancestral(ramp=self.ramp)
        if request.order is not None or unknown == 0:
            return draw(generator, request)
        order = random_sets(request.noise, known, scheduled_sets(unknown, self.steps, self.schedule))
        return draw(generator, replace(request, order=order))


def step_losses(
    generator: Generator,
    values: Tensor,
    condition: Condition | None = None,
    draws: int = 4,
    points: int = 64,
    seed: int = 0,
) -> Tensor:
    """Mean loss per hidden site when t random sites are known: float64 ``[N]``, nats, t = 0 .. N - 1.

    These are the ``L_t`` of ARDM (Hoogeboom et al. 2021, arXiv:2110.02037).

    Args:
        generator: a model that predicts all hidden sites given any known ones.
        values: ``[n, N, *event]`` to measure on, held out from training.
        condition: what the model is told.
        draws: random orders per item.
        points: values of t that are measured; those between are interpolated.
        seed: of the orders.
    """
    n, device = generator.space.n, values.device
    at = torch.unique(torch.linspace(0, n - 1, min(points, n)).round().long())
    losses = torch.zeros(len(at), dtype=torch.float64)
    noise = Noise.of(seed, len(values), device=device)
    with torch.no_grad():
        for _ in range(draws):
            rank = torch.argsort(torch.argsort(noise.uniform(n), -1), -1)
            for i, t in enumerate(at.tolist()):
                known = rank < t
                each = generator.observe(values, known, condition).log_prob(values).double()
                losses[i] -= float(torch.where(known, 0.0, each).sum(1).mean()) / (n - t) / draws
    right = torch.searchsorted(at, torch.arange(n)).clamp(max=len(at) - 1)
    left = (right - 1).clamp(min=0)
    span = (at[right] - at[left]).clamp(min=1)
    share = (torch.arange(n) - at[left]).double() / span
    return torch.where(at[right] == torch.arange(n), losses[right], torch.lerp(losses[left], losses[right], share))


def plan(losses: Tensor | Sequence[float], steps: int) -> list[int]:
    """Sizes of ``steps`` sets that cost least, by dynamic programming.

    A set of k sites drawn when t are known costs ``k * L_t`` (Hoogeboom et al. 2021, after Watson et al. 2021,
    arXiv:2106.03802): its sites miss what they would have learned from each other.

    Args:
        losses: ``L_t`` for t = 0 .. U - 1.
        steps: number of sets, at most U.
    """
    loss = torch.as_tensor(losses, dtype=torch.float64)
    n = len(loss)
    steps = min(steps, n)
    t = torch.arange(n + 1)
    cost = (t[None, :] - t[:-1, None]) * loss[:, None]  # [from, to]
    cost = torch.where(t[None, :] > t[:-1, None], cost, torch.inf)
    best = torch.full((n + 1,), torch.inf, dtype=torch.float64)
    best[0] = 0.0
    came = []
    for _ in range(steps):
        best, previous = (best[:-1, None] + cost).min(0)
        came.append(previous)
    sizes, end = [], n
    for previous in reversed(came):
        begin = int(previous[end])
        sizes.append(end - begin)
        end = begin
    return sizes[::-1]


@dataclass(frozen=True)
class Planned:
    """Random sets whose sizes minimise the expected loss in a given number of steps (parallelised ARDM).

    Args:
        steps: number of sets.
        losses: ``L_t`` of the model, from :func:`step_losses`; without it all sets are equally large.
    """

    steps: int
    losses: tuple[float, ...] | None = None

    @classmethod
    def fit(cls, generator: Generator, values: Tensor, steps: int, **measuring: int) -> Planned:
        """A plan for ``generator`` from losses measured on ``values`` ``[n, N]``; see :func:`step_losses`."""
        return cls(steps, tuple(step_losses(generator, values, **measuring).tolist()))  # type: ignore[arg-type]

    def sizes(self, unknown: int, n: int) -> list[int]:
        """Sizes of the sets that ``unknown`` of n sites are drawn in."""
        if self.losses is None:
            steps = min(self.steps, unknown)
            return [(k + 1) * unknown // steps - k * unknown // steps for k in range(steps)]
        return plan(self.losses[n - unknown :], self.steps)

    def __call__(self, generator: Generator, request: Request) -> Tensor:
        known = _nothing_known(generator, request)
        unknown = int((~known[0]).sum())
        if request.order is not None or unknown == 0:
            return Ancestral()(generator, request)
        sizes = torch.tensor(self.sizes(unknown, generator.space.n))
        sets = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        order = random_sets(request.noise, known, sets)
        return Ancestral()(generator, replace(request, order=order))
