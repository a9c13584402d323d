"""Order-agnostic convolutional network on a grid (ConvNADE: Uria et al. 2016, arXiv:1605.02226)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.networks.base import Cache, ConditionEmbedding, Network, ValueEmbedding
from ancestral.networks.masked import observe_all, observe_step
from ancestral.order import Order
from ancestral.space import Condition, Space


class _Residual(nn.Module):
    """Local 3x3 convolution, then (on small grids) a linear map between all sites, each added to its input."""

    def __init__(self, width: int, sites: int, dropout: float, everywhere: bool):
        super().__init__()
        self.norm = nn.GroupNorm(max(1, width // 8), width)
        self.local = nn.Conv2d(width, width, 3, padding=1)
        self.point = nn.Conv2d(width, width, 1)
        self.mix = nn.Linear(sites, sites) if everywhere else None
        if self.mix is not None:
            nn.init.normal_(self.mix.weight, std=0.02)
            nn.init.zeros_(self.mix.bias)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.local(self.norm(x)))
        x = x + self.point(F.dropout2d(y, self.dropout, self.training))
        if self.mix is not None:
            x = x + 0.3 * self.mix(x.flatten(2)).view_as(x)
        return x


class MaskedConvolution(Network):
    """Residual convolutions over a grid of values and mask symbols.

    Convolutions share what they learn between places, which on little data is worth more than attention.

    Args:
        width: channels D, a multiple of 8.
        depth: residual layers.
        dropout: share of channels dropped in training.
        everywhere: linear maps between all sites; by default on grids of at most 1,024 sites.

    Shapes:
        features float32 ``[B, H * W, D]``.
    """

    needs_mask = True

    def __init__(self, width: int = 48, depth: int = 4, dropout: float = 0.0, everywhere: bool | None = None):
        super().__init__()
        self.width, self.depth, self.dropout, self.everywhere = width, depth, dropout, everywhere

    def build(self, space: Space) -> MaskedConvolution:
        if len(space.shape) != 2:
            raise ValueError(f"a convolution on a grid needs sites (height, width), these are {space.shape}")
        self.space = space
        self.embed = ValueEmbedding(space, self.width, masked=True)
        self.told = ConditionEmbedding(space, self.width, altered=True)
        self.position = nn.Parameter(torch.randn(space.n, self.width) * 0.3)
        # Grey levels are ordered; their height enters beside their own vectors, so that rare levels are understood.
        self.height = nn.Linear(1, self.width) if space.ordinal and not space.event else None
        everywhere = space.n <= 1024 if self.everywhere is None else self.everywhere
        self.blocks = nn.Sequential(
            *(_Residual(self.width, space.n, self.dropout, everywhere) for _ in range(self.depth))
        )
        return self

    def observe(self, values: Tensor, known: Tensor, condition: Condition | None = None) -> Tensor:
        sites = torch.arange(self.space.n, device=values.device)
        x = self.embed(values, sites)
        if self.height is not None:
            level = values.to(x.dtype) * (2 / max(self.space.largest - 1, 1)) - 1
            x = x + self.height(level[..., None])
        x = torch.where(known[..., None], x, self.embed.mask) + self.position
        x = x + self.told(condition, sites, values.shape[0])
        grid = x.transpose(1, 2).reshape(-1, self.width, *self.space.shape)
        return self.blocks(grid).flatten(2).transpose(1, 2)

    def forward(self, values: Tensor, order: Order, condition: Condition | None = None) -> Tensor:
        return observe_all(self, values, order, condition)

    def step(self, cache: Cache, last: Tensor | None = None) -> Tensor:
        return observe_step(self, cache, last)
