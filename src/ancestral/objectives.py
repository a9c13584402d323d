"""What training minimises. Every objective is a mean number of nats per scalar, so that they can be compared."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from ancestral.heads.base import Finite
from ancestral.noise import Noise
from ancestral.space import Condition, Space

if TYPE_CHECKING:
    from ancestral.generator import Generator, Objective


class Likelihood:
    """Exact negative log-likelihood under the orders that the policy draws."""

    def loss(self, generator: Generator, values: Tensor, condition: Condition, noise: Noise, progress: float) -> Tensor:
        """Mean nats per scalar of ``values`` ``[B, N, *event]``."""
        order = generator.order.draw(noise.uniform(generator.space.n + 1), progress)
        return generator.losses(values, order, condition, noise).sum() / generator.counted(values, order)


class EarlyExit:
    """Likelihood of the whole network and, with a weight, of its first layers alone, which then draft well.

    Both end in the same norm and head (Elhoushi et al. 2024, arXiv:2404.16710, with one exit).

    Args:
        layers: of the early exit.
        weight: of its likelihood; the loss is divided by ``1 + weight``.
    """

    def __init__(self, layers: int, weight: float = 0.5):
        self.layers, self.weight = layers, weight

    def loss(self, generator: Generator, values: Tensor, condition: Condition, noise: Noise, progress: float) -> Tensor:
        """Mean nats per scalar of ``values`` ``[B, N, *event]``, averaged over both exits."""
        from ancestral.decoding.tracks import early_exit

        order = generator.order.draw(noise.uniform(generator.space.n + 1), progress)
        full = generator.log_prob(values, order, condition).sum()
        short = early_exit(generator, self.layers).log_prob(values, order, condition).sum()
        return -(full + self.weight * short) / (1 + self.weight) / generator.counted(values, order)


class InOrder:
    """Exact negative log-likelihood under the scoring order, whichever orders the policy draws."""

    def loss(self, generator: Generator, values: Tensor, condition: Condition, noise: Noise, progress: float) -> Tensor:
        """Mean nats per scalar of ``values`` ``[B, N, *event]``."""
        order = generator.order.scoring().to(values.device)
        return generator.losses(values, order, condition, noise).sum() / generator.counted(values, order)


class Jointly:
    """The mean of several objectives on the same items, for generators whose parts learn from different questions.

    Args:
        objectives: at least one.
    """

    def __init__(self, *objectives: Objective):
        if not objectives:
            raise ValueError("give at least one objective")
        self.objectives = objectives

    def loss(self, generator: Generator, values: Tensor, condition: Condition, noise: Noise, progress: float) -> Tensor:
        """Mean nats per scalar of ``values`` ``[B, N, *event]``."""
        each = [o.loss(generator, values, condition, noise, progress) for o in self.objectives]
        return torch.stack(each).mean()


class MaskedLikelihood:
    """Cross-entropy of hidden sites given the others, for networks that predict all hidden sites in one pass.

    Args:
        ratio: how many sites are hidden: "uniform" hides 1 .. N with equal chance; "cosine" a share
            ``cos(pi/2 * u)`` (MaskGIT: Chang et al. 2022, arXiv:2202.04200); "high" a share from a normal of mean 1
            and spread 0.25, cut to [0.7, 1] (MAR: Li et al. 2024, arXiv:2406.11838).
        weighting: "bound" takes each item's mean over its hidden sites, which with "uniform" is an unbiased
            estimate of the negative bound per site (ARDM: Hoogeboom et al. 2021, arXiv:2110.02037);
            "mean" takes the mean over all hidden sites of the batch.
        prefixes: share of items whose known sites are the first of the scoring order; they train the model for
            the very masks that exact scores, samples and codes meet. All sites behind the known ones count, not
            only the one that is drawn next: that one alone would make the loss an unbiased estimate of the
            negative log-likelihood in the scoring order, but from one site per pass. So the value of the loss is no
            bound where this is used.
        withhold: share of the labels withheld for this objective alone.
    """

    def __init__(
        self,
        ratio: Literal["uniform", "cosine", "high"] = "uniform",
        weighting: Literal["bound", "mean"] = "bound",
        prefixes: float = 0.0,
        withhold: float = 0.0,
    ):
        self.ratio, self.weighting, self.prefixes, self.withhold = ratio, weighting, prefixes, withhold

    def hidden(self, noise: Noise, n: int) -> Tensor:
        """Which sites are hidden: bool ``[B, N]``, at least one per item."""
        u = noise.uniform(1)
        if self.ratio == "uniform":
            count = (u * n).floor() + 1
        elif self.ratio == "high":
            lowest = torch.special.ndtr(torch.tensor((0.7 - 1) / 0.25, dtype=u.dtype, device=u.device))
            share = 1 + 0.25 * torch.special.ndtri(lowest + u * (0.5 - lowest))
            count = (share * n).ceil().clamp(1, n)
        else:
            count = (torch.cos(u * (math.pi / 2)) * n).ceil().clamp(1, n)
        return torch.argsort(torch.argsort(noise.uniform(n), -1), -1) < count

    def loss(self, generator: Generator, values: Tensor, condition: Condition, noise: Noise, progress: float) -> Tensor:
        """Mean nats per scalar of ``values`` ``[B, N, *event]``."""
        n = generator.space.n
        hidden = self.hidden(noise, n)
        if self.prefixes:
            rank = generator.order.scoring().to(values.device).rank
            later = rank >= (noise.uniform(1) * n).floor()
            hidden = torch.where(noise.uniform(1) < self.prefixes, later, hidden)
        if self.withhold and condition.label is not None:
            kept = noise.uniform(1)[:, 0] >= self.withhold
            condition = replace(condition, label=torch.where(kept, condition.label, -1))
        each = generator.observe(values, ~hidden, condition).loss(values, noise)
        each = torch.where(hidden, each, 0.0)
        per_site = generator.space.scalars / n
        if self.weighting == "bound":
            return (each.sum(1) / hidden.sum(1)).mean() / per_site
        return each.sum() / hidden.sum() / per_site


class AbsorbingDiffusion:
    """Continuous-time bound of masked diffusion (MD4: Shi et al. 2024, arXiv:2406.04329).

    At time t every site is hidden independently with probability ``1 - alpha(t)``; the negative bound is the
    integral over t of ``alpha'(t) / (1 - alpha(t))`` times the log-probability of the hidden sites. With the mean
    over t drawn uniformly this is unbiased for any schedule, and its value does not depend on the schedule.

    Args:
        schedule: "linear" ``alpha = 1 - t`` or "cosine" ``alpha = 1 - cos(pi/2 (1 - t))``.
        smallest: t is drawn from ``[smallest, 1]``; hidden shares below it are not sampled.
        even: times are spread evenly over consecutive items rather than drawn independently, which lowers the
            variance of a batch's loss (low-discrepancy sampling: Kingma et al. 2021, arXiv:2107.00630).
    """

    def __init__(self, schedule: Literal["linear", "cosine"] = "cosine", smallest: float = 1e-3, even: bool = True):
        self.schedule, self.smallest, self.even = schedule, smallest, even

    def alpha(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """``alpha(t)`` and the weight ``-alpha'(t) / (1 - alpha(t))``, elementwise."""
        if self.schedule == "linear":
            return 1 - t, 1 / t
        hidden = torch.cos(math.pi / 2 * (1 - t))
        return 1 - hidden, math.pi / 2 * torch.sin(math.pi / 2 * (1 - t)) / hidden

    def estimate(self, generator: Generator, values: Tensor, condition: Condition, noise: Noise, t: Tensor) -> Tensor:
        """Unbiased estimate of the negative bound in nats per item at times ``t`` ``[B, 1]``: ``[B]``."""
        alpha, weight = self.alpha(t)
        hidden = noise.uniform(generator.space.n) >= alpha
        each = generator.observe(values, ~hidden, condition).log_prob(values)
        return -(torch.where(hidden, each, 0.0).sum(1) * weight[:, 0].to(each.dtype))

    def loss(self, generator: Generator, values: Tensor, condition: Condition, noise: Noise, progress: float) -> Tensor:
        """Mean nats per scalar of ``values`` ``[B, N, *event]``."""
        u = noise.stratified() if self.even else noise.uniform(1)
        t = self.smallest + (1 - self.smallest) * u
        return self.estimate(generator, values, condition, noise, t).mean() / generator.space.scalars


class LearnedObjective(nn.Module):
    """Base of objectives with parameters of their own, which train with the network's."""

    def build(self, space: Space) -> LearnedObjective:
        """Create the parameters for ``space``; returns self."""
        raise NotImplementedError("a learned objective defines build")


class SymbolSchedules(LearnedObjective):
    """Masked diffusion whose schedules are learned, one per symbol (GenMD4: Shi et al. 2024, arXiv:2406.04329, sec. 6).

    A site that holds symbol v is still visible at time t with probability ``1 - t ** w_v``, so symbols of small
    exponent are hidden early and revealed late. Let ``mu`` be what the network says of a hidden site. The negative
    bound is the integral over t of the sum over hidden sites of
    ``(w_x (-log mu_x - 1) + sum_v w_v mu_v) / t``, which with equal exponents is the weighted cross-entropy of
    :class:`AbsorbingDiffusion`. The exponents act on what is hidden, too: that part of their gradient is estimated
    by the score function, from two maskings of every item that are each other's baseline (leave one out).

    Args:
        start: exponent of all symbols before training.
        smallest: t is drawn from ``[smallest, 1]``.

    Shapes:
        exponents float32 ``[K]``, positive.
    """

    def __init__(self, start: float = 1.0, smallest: float = 1e-3):
        super().__init__()
        if start <= 0:
            raise ValueError(f"start={start} is the power of a time and must be more than zero")
        self.start, self.smallest = start, smallest

    def build(self, space: Space) -> SymbolSchedules:
        """Create the exponents.

        Raises:
            ValueError: values that are no finite set of symbols, one per site.
        """
        if not space.discrete or space.event:
            raise ValueError("schedules per symbol need sites that hold one symbol each")
        self.raw = nn.Parameter(torch.full((space.largest,), math.log(math.expm1(self.start))))
        return self

    @property
    def exponents(self) -> Tensor:
        """``w``, float32 ``[K]``."""
        return nn.functional.softplus(self.raw)

    def remaining(self, values: Tensor, t: float | Tensor, s: float | Tensor) -> Tensor:
        """Chance that sites of ``values`` hidden at time t are still hidden at s < t: ``(s / t) ** w``."""
        return (torch.as_tensor(s) / torch.as_tensor(t)) ** self.exponents.double()[values]

    def estimate(
        self, generator: Generator, values: Tensor, condition: Condition, noise: Noise, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Negative bound in nats per item at times ``t [B, 1]``, and the log-probability of the masking: ``[B]`` each.

        The first is unbiased; its derivative lacks what the masking contributes.
        """
        weight = self.exponents
        log_hidden = weight[values] * t.log().to(weight.dtype)  # [B, N]
        hidden = noise.uniform(generator.space.n) < log_hidden.exp()
        said = generator.observe(values, ~hidden, condition)
        if not isinstance(said, Finite):
            raise ValueError("schedules per symbol need a head with finitely many values")
        table = said.log_probs()
        own = table.gather(-1, values[..., None])[..., 0]
        each = weight[values] * (-own - 1) + (table.exp() * weight[: table.shape[-1]]).sum(-1)
        bound = torch.where(hidden, each, 0.0).sum(1) / t[:, 0].to(each.dtype)
        chance = torch.where(hidden, log_hidden, torch.log(-torch.expm1(log_hidden.clamp(max=-1e-6))))
        return bound, chance.sum(1)

    def loss(self, generator: Generator, values: Tensor, condition: Condition, noise: Noise, progress: float) -> Tensor:
        """Mean nats per scalar of ``values`` ``[B, N]``, averaged over two maskings per item."""
        t = self.smallest + (1 - self.smallest) * noise.stratified()
        first, chance = self.estimate(generator, values, condition, noise, t)
        second, other = self.estimate(generator, values, condition, noise, t)
        value = (first + second) / 2
        if torch.is_grad_enabled():
            score = (first - second).detach() * (chance - other) / 2
            value = value + score - score.detach()  # its derivative and not its value
        return value.mean() / generator.space.scalars
