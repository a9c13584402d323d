"""Mixture of Gaussians for real vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ancestral.heads.base import Density, Head
from ancestral.noise import Noise
from ancestral.space import Space


class MixtureDensity(Density):
    """Mixture of Gaussians with diagonal covariances at every site.

    Args:
        log_weight: float ``[B, S, M]``, normalised.
        mean: float ``[B, S, M, C]``.
        log_std: float ``[B, S, M, C]``.
    """

    def __init__(self, log_weight: Tensor, mean: Tensor, log_std: Tensor, event: tuple[int, ...]):
        self.log_weight, self.mean, self.log_std, self.event = log_weight, mean, log_std, event

    def log_prob(self, values: Tensor) -> Tensor:
        x = values.reshape(*values.shape[:2], 1, -1)
        z = (x - self.mean) * torch.exp(-self.log_std)
        each = -0.5 * z**2 - self.log_std - 0.5 * math.log(2 * math.pi)
        return torch.logsumexp(self.log_weight + each.sum(-1), -1)

    def sample(self, noise: Noise, temperature: float = 1.0) -> Tensor:
        """One value per site, float ``[B, S, *event]``.

        The temperature flattens or sharpens the choice of the component as that of a category, and scales its
        standard deviations; 0 takes the mean of the heaviest component.
        """
        b, s, _m, c = self.mean.shape
        weight = self.log_weight.double()
        if temperature == 0:
            weight = torch.where(weight == weight.amax(-1, keepdim=True), 0.0, -torch.inf)
        else:
            weight = weight / temperature
        edges = torch.softmax(weight, -1).cumsum(-1)
        pick = (noise.uniform(s)[..., None] > edges[..., :-1]).sum(-1)
        index = pick[..., None, None].expand(b, s, 1, c)
        mean, std = self.mean.gather(2, index)[:, :, 0], self.log_std.gather(2, index)[:, :, 0].exp()
        drawn = mean + temperature * std * noise.normal(s, c).to(mean.dtype)
        return drawn.reshape(b, s, *self.event)


class GaussianMixture(Head):
    """Mixture density (Bishop 1994; RNADE: Uria et al. 2013, arXiv:1306.0186) with an exact log-density.

    Args:
        components: Gaussians mixed at every site.
        floor: smallest standard deviation, in the units of the values; bounds the density.
    """

    finite = False

    def __init__(self, components: int = 8, floor: float = 1e-3):
        super().__init__()
        self.components, self.floor = components, floor

    def build(self, space: Space, width: int) -> GaussianMixture:
        if space.discrete:
            raise ValueError("a Gaussian mixture needs real values; use Categorical for categories")
        self.event = space.event
        self.channels = math.prod(space.event)
        self.project = nn.Linear(width, self.components * (1 + 2 * self.channels))
        nn.init.normal_(self.project.weight, std=0.1 / math.sqrt(width))
        with torch.no_grad():
            _, mean, _ = self._split(self.project.bias)
            mean.copy_(torch.randn_like(mean) * 0.7)
        return self

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        m, c = self.components, self.channels
        weight, mean, std = x.split([m, m * c, m * c], -1)
        return weight, mean.reshape(*mean.shape[:-1], m, c), std.reshape(*std.shape[:-1], m, c)

    def forward(self, features: Tensor, sites: Tensor) -> MixtureDensity:
        weight, mean, std = self._split(self.project(features))
        log_std = torch.logaddexp(std, torch.full_like(std, math.log(self.floor)))
        return MixtureDensity(torch.log_softmax(weight, -1), mean, log_std, self.event)
