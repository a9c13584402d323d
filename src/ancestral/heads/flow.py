"""Flow matching at every site: an ordinary differential equation from noise to a continuous token."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ancestral.heads.base import Density, Distribution, Head
from ancestral.heads.denoiser import Denoiser
from ancestral.noise import Noise
from ancestral.space import Space


class FlowDensity(Density):
    """Values at sites by following a velocity; see :class:`FlowHead`.

    Args:
        head: its network.
        features: ``[B, S, D]``.
        base: features of the unguided branch and the scale.
    """

    def __init__(self, head: FlowHead, features: Tensor, base: tuple[Tensor, float] | None = None):
        self.head, self.features, self.base = head, features, base

    def guided(self, other: Distribution, scale: float) -> FlowDensity:
        """The velocity is pushed away from the other's."""
        assert isinstance(other, FlowDensity)
        return FlowDensity(self.head, self.features, (other.features, scale))

    def velocity(self, x: Tensor, time: Tensor) -> Tensor:
        """Where values ``[B, S, C]`` move at ``time`` ``[B, S]``, from 0 (noise) to 1 (data)."""
        found = self.head.net(x, 1000 * time, self.features)
        if self.base is None:
            return found
        return found + self.base[1] * (found - self.head.net(x, 1000 * time, self.base[0]))

    def sample(self, noise: Noise, temperature: float = 1.0) -> Tensor:
        """Heun's method from normal noise; ``temperature`` scales the noise."""
        b, s, _ = self.features.shape
        x = temperature * noise.normal(s, self.head.channels).to(self.features.dtype)
        for k in range(self.head.passes):
            x = self._move(x, k / self.head.passes, 1 / self.head.passes)
        return x.reshape(b, s, *self.head.event)

    def _move(self, x: Tensor, start: float, by: float) -> Tensor:
        first = self.velocity(x, torch.full(x.shape[:2], start, device=x.device))
        second = self.velocity(x + by * first, torch.full(x.shape[:2], start + by, device=x.device))
        return x + 0.5 * by * (first + second)

    def log_prob(self, values: Tensor) -> Tensor:
        """Estimate of the log-density, nats ``[B, S]``: noise and volume found by following the equation back.

        Instantaneous change of variables (Chen et al. 2018, arXiv:1806.07366); the trace is exact, time is cut into
        the steps that samples take.
        """
        x = values.reshape(*self.features.shape[:2], self.head.channels)
        volume = x.new_zeros(x.shape[:2])
        by = 1 / self.head.passes
        for k in reversed(range(self.head.passes)):
            middle = self._move(x, (k + 1) * by, -0.5 * by)
            volume = volume + by * self._trace(middle, (k + 0.5) * by)
            x = self._move(x, (k + 1) * by, -by)
        return (-0.5 * x.square() - 0.5 * math.log(2 * math.pi)).sum(-1) - volume

    def _trace(self, x: Tensor, time: float) -> Tensor:
        """Divergence of the velocity, ``[B, S]``."""
        at = torch.full(x.shape[:2], time, device=x.device)
        total = x.new_zeros(x.shape[:2])
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            moved = self.velocity(point, at)
            for c in range(x.shape[-1]):
                (slope,) = torch.autograd.grad(moved[..., c].sum(), point, retain_graph=True)
                total = total + slope[..., c].detach()
        return total

    def loss(self, values: Tensor, noise: Noise) -> Tensor:
        """Surrogate loss, summed over channels, ``[B, S]``: squared error of the velocity at random times."""
        b, s, _ = self.features.shape
        x, c = values.reshape(b, s, -1), self.head.channels
        total = x.new_zeros(b, s)
        for _ in range(self.head.repeats):
            time = noise.uniform(s).to(x.dtype)
            start = noise.normal(s, c).to(x.dtype)
            between = time[..., None] * x + (1 - time[..., None]) * start
            total = total + (self.velocity(between, time) - (x - start)).square().sum(-1)
        return total / self.head.repeats


class FlowHead(Head):
    """Flow matching along straight lines (Lipman et al. 2022, arXiv:2210.02747) for continuous tokens.

    ``log_prob`` is an **estimate** of a density, neither exact nor a bound: the differential equation is solved in
    ``passes`` steps. Training minimises the squared error of the velocity, whose value is not in nats.

    Args:
        width, depth: of the network.
        passes: steps that samples and scores take, two evaluations each.
        repeats: times drawn per site in training, for one pass of the big network.
    """

    exact = False
    finite = False
    kind = "estimate"

    def __init__(self, width: int = 256, depth: int = 3, passes: int = 25, repeats: int = 4):
        super().__init__()
        self.width, self.depth, self.passes, self.repeats = width, depth, passes, repeats

    def build(self, space: Space, width: int) -> FlowHead:
        if space.discrete:
            raise ValueError("a flow head needs real values; use Categorical for categories")
        self.event, self.channels = space.event, math.prod(space.event)
        self.net = Denoiser(self.channels, self.channels, width, self.width, self.depth)
        return self

    def forward(self, features: Tensor, sites: Tensor) -> FlowDensity:
        return FlowDensity(self, features)
