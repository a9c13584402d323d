"""The small networks inside heads for continuous tokens: noisy value, time and features to a direction."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.networks.adaptive import AdaptiveBlock, Modulated, TimeEmbedding, waves


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


def _start(module: nn.Module, *shut: nn.Module) -> None:
    """Xavier-uniform weights, but zero in the layers that shall do nothing at first."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    for layer in shut:
        assert isinstance(layer, nn.Linear)
        nn.init.zeros_(layer.weight)


class Denoiser(nn.Module):
    """Perceptron with adaptive layer norm (MAR: Li et al. 2024, arXiv:2406.11838, sec. 4.3).

    Args:
        channels: of the value.
        outputs: of the result.
        features: size of the features.
        width, depth: of the residual perceptrons.
    """

    def __init__(self, channels: int, outputs: int, features: int, width: int, depth: int):
        super().__init__()
        self.width = width
        self.value, self.told = nn.Linear(channels, width), nn.Linear(features, width)
        self.time1, self.time2 = nn.Linear(256, width), nn.Linear(width, width)
        self.steps = nn.ModuleList(Step(width) for _ in range(depth))
        self.modulate, self.last = nn.Linear(width, 2 * width), nn.Linear(width, outputs)
        # The network starts as zero, and every step as the identity.
        _start(self, self.modulate, self.last, *(step.modulate for step in self.steps))  # type: ignore[arg-type]
        for time in (self.time1, self.time2):
            nn.init.normal_(time.weight, std=0.02)

    def forward(self, x: Tensor, time: Tensor, features: Tensor) -> Tensor:
        """Values ``[..., C]``, times ``[...]`` (0 to 1,000) and features ``[..., D]`` to ``[..., outputs]``."""
        told = self.time2(F.silu(self.time1(waves(time).to(x.dtype)))) + self.told(features)
        x = self.value(x)
        for step in self.steps:
            x = step(x, told)
        shift, scale = self.modulate(F.silu(told)).chunk(2, -1)
        return self.last(F.layer_norm(x, (self.width,), eps=1e-6) * (1 + scale) + shift)


class SetDenoiser(nn.Module):
    """Transformer over sites that are drawn together (FlowAR: Ren et al. 2024, arXiv:2412.15205).

    Every site's layers are scaled, shifted and gated by its own features and the time (spatial adaptive layer norm).

    Args:
        channels: of the value.
        outputs: of the result.
        features: size of the features.
        width, depth, heads: of the transformer.
    """

    def __init__(self, channels: int, outputs: int, features: int, width: int, depth: int, heads: int):
        super().__init__()
        self.value, self.told, self.time = nn.Linear(channels, width), nn.Linear(features, width), TimeEmbedding(width)
        self.blocks = nn.ModuleList(
            AdaptiveBlock(width, heads, 4.0, 0.0, cosine=True, shared=False) for _ in range(depth)
        )
        self.norm = Modulated(width)
        self.modulate, self.last = nn.Linear(width, 2 * width), nn.Linear(width, outputs)
        _start(self, self.modulate, self.last, *(block.modulate for block in self.blocks))  # type: ignore[arg-type]

    def forward(self, x: Tensor, time: Tensor, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Values ``[B, S, C]``, times ``[B, S]`` (0 to 1,000) and features ``[B, S, D]`` to ``[B, S, outputs]``.

        ``mask``, bool and broadcastable to ``[B, H, S, S]``, says which sites are drawn together; by default all.
        """
        told = self.time(time / 1000) + self.told(features)
        x = self.value(x)
        for block in self.blocks:
            x = block(x, told, mask=mask)
        scale, shift = self.modulate(F.silu(told)).chunk(2, -1)
        return self.last(self.norm(x, scale, shift))
