"""The small network inside heads for continuous tokens: noisy value, time and features to a direction."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Step(nn.Module):
    """Residual perceptron, modulated and gated by time and features."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
        self.modulate = nn.Linear(width, 3 * width)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        shift, scale, gate = self.modulate(F.silu(told)).chunk(3, -1)
        h = self.norm(x) * (1 + scale) + shift
        return x + gate * self.outer(F.silu(self.inner(h)))


class Denoiser(nn.Module):
    """Perceptron with adaptive layer norm (MAR: Li et al. 2024, arXiv:2406.11838, sec. 4.3).

    Args:
        channels: of the value.
        outputs: of the result.
        features: size of the features.
        width, depth: of the residual perceptrons.
    """

    frequencies: Tensor

    def __init__(self, channels: int, outputs: int, features: int, width: int, depth: int):
        super().__init__()
        self.width = width
        half = 128
        self.register_buffer(
            "frequencies", torch.exp(-math.log(10000.0) * torch.arange(half).float() / half), persistent=False
        )
        self.value, self.told = nn.Linear(channels, width), nn.Linear(features, width)
        self.time1, self.time2 = nn.Linear(2 * half, width), nn.Linear(width, width)
        self.steps = nn.ModuleList(Step(width) for _ in range(depth))
        self.modulate, self.last = nn.Linear(width, 2 * width), nn.Linear(width, outputs)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        for time in (self.time1, self.time2):
            nn.init.normal_(time.weight, std=0.02)
        # The network starts as zero, and every step as the identity.
        for shut in (self.modulate, self.last, *(step.modulate for step in self.steps)):
            assert isinstance(shut, nn.Linear)
            nn.init.zeros_(shut.weight)

    def forward(self, x: Tensor, time: Tensor, features: Tensor) -> Tensor:
        """Values ``[..., C]``, times ``[...]`` (0 to 1,000) and features ``[..., D]`` to ``[..., outputs]``."""
        angle = time.float()[..., None] * self.frequencies
        told = self.time2(F.silu(self.time1(torch.cat([angle.cos(), angle.sin()], -1)))) + self.told(features)
        x = self.value(x)
        for step in self.steps:
            x = step(x, told)
        shift, scale = self.modulate(F.silu(told)).chunk(2, -1)
        return self.last(F.layer_norm(x, (self.width,), eps=1e-6) * (1 + scale) + shift)
