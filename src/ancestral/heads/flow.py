"""Flow matching: an ordinary differential equation from noise to continuous tokens, one by one or a set at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from ancestral.heads.base import Density, Distribution, Head, Look
from ancestral.heads.denoiser import Denoiser, SetDenoiser
from ancestral.noise import Noise
from ancestral.space import Space

_SUITED = 4
"""Times that a step is taken where some values of a set are known."""

Velocity = Callable[[Tensor, Tensor], Tensor]
"""Where values ``[B, S, C]`` move at times ``[B, S]``, from 0 (noise) to 1 (data)."""


class FlowDensity(Density):
    """Values at sites by following a velocity; see :class:`FlowHead`.

    Args:
        head: its settings.
        velocity: of all sites' values, those of a set depending on each other if the head draws them jointly.
        like: ``[B, S, ...]``, for the number of items and sites and the kind of numbers.
        sets: int64 ``[S]`` or ``[B, S]``, the set of every site; None if all are one set.
        pins: bool ``[B, S]``, which values are known, and the values.
    """

    def __init__(
        self,
        head: FlowHead,
        velocity: Velocity,
        like: Tensor,
        sets: Tensor | None = None,
        pins: tuple[Tensor, Tensor] | None = None,
    ):
        self.head, self.velocity, self.like, self.sets, self.pins = head, velocity, like, sets, pins

    def guided(self, other: Distribution, scale: float) -> FlowDensity:
        """The velocity is pushed away from the other's."""
        assert isinstance(other, FlowDensity)
        mine, theirs = self.velocity, other.velocity

        def pushed(x: Tensor, time: Tensor) -> Tensor:
            found = mine(x, time)
            return found + scale * (found - theirs(x, time))

        return FlowDensity(self.head, pushed, self.like, self.sets)

    def pinned(self, known: Tensor, values: Tensor) -> FlowDensity:
        return FlowDensity(self.head, self.velocity, self.like, self.sets, (known, values))

    def sample(self, noise: Noise, temperature: float = 1.0) -> Tensor:
        """Heun's method from normal noise; ``temperature`` scales the noise."""
        steps = self.head.passes
        x = self._noise(noise, temperature)
        for k in range(steps):
            if self.pins is None:
                x = self._move(x, k / steps, 1 / steps)
            else:
                x = self._suit(x, k / steps, (k + 1) / steps, noise, temperature)
        return x.reshape(*x.shape[:2], *self.head.event)

    def _noise(self, noise: Noise, temperature: float) -> Tensor:
        return temperature * noise.normal(self.like.shape[1], self.head.channels).to(self.like.dtype)

    def _suit(self, x: Tensor, start: float, end: float, noise: Noise, temperature: float) -> Tensor:
        """A step with the known values put in as noisy as the time says; back and again, so that the others suit them.

        RePaint (Lugmayr et al. 2022, arXiv:2201.09865), on straight lines.
        """
        assert self.pins is not None
        known, values = self.pins[0][..., None], self.pins[1].reshape(x.shape)
        share = start / end
        for again in range(_SUITED):
            x = torch.where(known, start * values + (1 - start) * self._noise(noise, temperature), x)
            x = self._move(x, start, end - start)
            x = torch.where(known, end * values + (1 - end) * self._noise(noise, temperature), x)
            if again + 1 < _SUITED:
                spread = math.sqrt((1 - start) ** 2 - (share * (1 - end)) ** 2)
                x = share * x + spread * self._noise(noise, temperature)
        return x

    def _move(self, x: Tensor, start: float, by: float) -> Tensor:
        first = self.velocity(x, torch.full(x.shape[:2], start, device=x.device))
        second = self.velocity(x + by * first, torch.full(x.shape[:2], start + by, device=x.device))
        return x + 0.5 * by * (first + second)

    def log_prob(self, values: Tensor) -> Tensor:
        """Estimate of the log-density, nats ``[B, S]``: noise and volume found by following the equation back.

        Instantaneous change of variables (Chen et al. 2018, arXiv:1806.07366); time is cut into the steps that samples
        take. The trace is exact for sites on their own. Where a set is drawn jointly it is estimated by a few fixed
        random probes (Grathwohl et al. 2018, arXiv:1810.01367), and only the sum over a set is its log-density.
        """
        x = values.reshape(*self.like.shape[:2], self.head.channels)
        volume = x.new_zeros(x.shape[:2])
        by = 1 / self.head.passes
        for k in reversed(range(self.head.passes)):
            middle = self._move(x, (k + 1) * by, -0.5 * by)
            volume = volume + by * self._trace(middle, (k + 0.5) * by)
            x = self._move(x, (k + 1) * by, -by)
        return (-0.5 * x.square() - 0.5 * math.log(2 * math.pi)).sum(-1) - volume

    def _trace(self, x: Tensor, time: float) -> Tensor:
        """Divergence of the velocity, ``[B, S]``; its sum over a set is that of the set's values."""
        at = torch.full(x.shape[:2], time, device=x.device)
        if self.head.joint:
            signs = Noise.of(0xF10, 1, device=x.device).uniform(self.head.probes, *x.shape[1:])[0] < 0.5
            weights = [torch.where(probe, 1.0, -1.0).expand_as(x) for probe in signs.unbind(0)]
            share = 1 / self.head.probes
        else:
            eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
            weights, share = [row.expand_as(x) for row in eye.unbind(0)], 1.0
        total = x.new_zeros(x.shape[:2])
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            moved = self.velocity(point, at)
            for weight in weights:
                (slope,) = torch.autograd.grad((moved * weight).sum(), point, retain_graph=True)
                total = total + share * (slope * weight).sum(-1).detach()
        return total

    def loss(self, values: Tensor, noise: Noise) -> Tensor:
        """Surrogate loss, summed over channels, ``[B, S]``: squared error of the velocity at random times.

        Sites that are drawn jointly share a time.
        """
        b, s = self.like.shape[:2]
        x, c = values.reshape(b, s, -1), self.head.channels
        total = x.new_zeros(b, s)
        for _ in range(self.head.repeats):
            time = noise.uniform(s).to(x.dtype)
            if self.head.joint:
                time = time.gather(1, self._places().expand(b, s))
            start = noise.normal(s, c).to(x.dtype)
            between = time[..., None] * x + (1 - time[..., None]) * start
            total = total + (self.velocity(between, time) - (x - start)).square().sum(-1)
        return total / self.head.repeats

    def _places(self) -> Tensor:
        """Number of every site's set."""
        return torch.zeros_like(self.like[0, :, 0], dtype=torch.int64) if self.sets is None else self.sets


class FlowHead(Head):
    """Flow matching along straight lines (Lipman et al. 2022, arXiv:2210.02747) for continuous tokens.

    ``log_prob`` is an **estimate** of a density, neither exact nor a bound: the differential equation is solved in
    ``passes`` steps. Training minimises the squared error of the velocity, whose value is not in nats.

    Args:
        width, depth: of the head's network.
        passes: steps that samples and scores take, two evaluations each.
        repeats: times drawn per site in training, for one pass of the big network.
        sees: "site": the velocity at a site depends on its own value and features. "set": on the values and features
            of all sites that are drawn with it, by a small transformer (:class:`SetDenoiser`). "network": the big
            network itself is asked again with the values of the moment (:meth:`Network.look`), and the head only reads
            the velocity off its features (xAR: Ren et al. 2025, arXiv:2502.20388).
        heads: attention heads of a "set" head.
        probes: of the estimated trace where sets are drawn jointly.
    """

    exact = False
    finite = False
    kind = "estimate"

    def __init__(
        self,
        width: int = 256,
        depth: int = 3,
        passes: int = 25,
        repeats: int = 4,
        sees: Literal["site", "set", "network"] = "site",
        heads: int = 4,
        probes: int = 4,
    ):
        super().__init__()
        if sees not in ("site", "set", "network"):
            raise ValueError(f"sees={sees!r} must be site, set or network")
        self.width, self.depth, self.passes, self.repeats = width, depth, passes, repeats
        self.sees, self.heads, self.probes = sees, heads, probes
        self.joint, self.looks = sees != "site", sees == "network"

    def build(self, space: Space, width: int) -> FlowHead:
        if space.discrete:
            raise ValueError("a flow head needs real values; use Categorical for categories")
        self.event, self.channels = space.event, math.prod(space.event)
        self.net: nn.Module
        if self.sees == "site":
            self.net = Denoiser(self.channels, self.channels, width, self.width, self.depth)
        elif self.sees == "set":
            self.net = SetDenoiser(self.channels, self.channels, width, self.width, self.depth, self.heads)
        else:
            self.net = nn.Linear(width, self.channels)
            nn.init.zeros_(self.net.weight)
            nn.init.zeros_(self.net.bias)
        return self

    def forward(self, features: Tensor, sites: Tensor) -> FlowDensity:
        return self.over(features, sites)

    def over(
        self, features: Tensor, sites: Tensor, sets: Tensor | None = None, look: Look | None = None
    ) -> FlowDensity:
        if self.sees == "site":
            return FlowDensity(self, lambda x, time: self.net(x, 1000 * time, features), features)
        if self.sees == "set":
            apart = None if sets is None else sets[..., None, :] == sets[..., :, None]
            mask = apart[:, None] if apart is not None and apart.dim() == 3 else apart
            return FlowDensity(self, lambda x, time: self.net(x, 1000 * time, features, mask), features, sets)
        if look is None:
            raise ValueError("this head asks its network again while it draws, and this way of drawing cannot")
        asked = look

        def velocity(x: Tensor, time: Tensor) -> Tensor:
            return self.net(asked(x.reshape(*x.shape[:2], *self.event), time))

        return FlowDensity(self, velocity, features, sets)
