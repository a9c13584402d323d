"""Layers that are modulated by what the network is told: adaptive layer norm, and time to tell."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.networks.transformer import KeyValues


class Modulated(nn.Module):
    """Normalised features, scaled and shifted: adaptive layer norm (Peebles and Xie 2022, arXiv:2212.09748)."""

    def __init__(self, width: int, eps: float = 1e-6):
        super().__init__()
        self.width, self.eps = width, eps

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return F.layer_norm(x, (self.width,), eps=self.eps) * (scale + 1) + shift


class AdaptiveBlock(nn.Module):
    """Attention and feed-forward layer, both modulated and gated by the condition.

    Args:
        width: features D.
        heads: of the attention.
        ratio: hidden features of the feed-forward layer, as a multiple of the width.
        dropout: share of activations dropped in training.
        cosine: attend by the cosine of queries and keys, times a learned number per head.
        shared: the map from the condition to the six modulations is the network's, and only an offset this block's.
    """

    def __init__(self, width: int, heads: int, ratio: float, dropout: float, cosine: bool, shared: bool):
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} must be a multiple of the {heads} heads")
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.query_bias, self.value_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
        self.sharpness = nn.Parameter(torch.full((heads, 1, 1), math.log(4.0))) if cosine else None
        self.out = nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, round(width * ratio)), nn.Linear(round(width * ratio), width)
        self.modulate = nn.Linear(width, 6 * width) if not shared else None
        self.offset = nn.Parameter(torch.randn(6, width) / width**0.5) if shared else None
        self.norm = Modulated(width)

    def modulations(self, told: Tensor, common: Tensor | None) -> tuple[Tensor, ...]:
        """Two gates, two scales and two shifts, ``[B, 1, D]`` each, or ``[B, T, D]``.

        Args:
            told: the condition ``[B, D]``, or one per place ``[B, T, D]``.
            common: ``[B, 1, 6, D]`` if the map is shared.
        """
        if self.modulate is not None:
            six = self.modulate(F.silu(told)).view(len(told), -1, 6, told.shape[-1])
        else:
            assert common is not None and self.offset is not None
            six = common + self.offset
        return six.unbind(2)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values ``[B, H, T, E]``; queries hold the attention's scale."""
        b, t, d = x.shape
        bias = torch.cat([self.query_bias, torch.zeros_like(self.query_bias), self.value_bias])
        q, k, v = F.linear(x, self.qkv.weight, bias).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        if self.sharpness is not None:
            q = F.normalize(q, dim=-1) * self.sharpness.clamp(max=math.log(100.0)).exp()
            return q, F.normalize(k, dim=-1), v
        return q * (0.25 / math.sqrt(d // self.heads)), k, v

    def forward(
        self,
        x: Tensor,
        told: Tensor,
        common: Tensor | None = None,
        mask: Tensor | None = None,
        kept: KeyValues | None = None,
        keep: int | None = None,
    ) -> Tensor:
        """Features ``[B, T, D]`` of places ``[B, T, D]``.

        Args:
            x: the places.
            told, common: as for :meth:`modulations`.
            mask: bool, who sees whom.
            kept: keys and values of places before these, to which theirs are added.
            keep: how many of these stay there; by default all.
        """
        gate1, gate2, scale1, scale2, shift1, shift2 = self.modulations(told, common)
        q, k, v = self.project(self.norm(x, scale1, shift1))
        if kept is not None:
            k, v = kept.append(k, v, keep)
        drop = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=drop, scale=1.0)
        y = self.out(y.transpose(1, 2).reshape(x.shape))
        x = x + F.dropout(y, self.dropout, self.training) * gate1
        y = self.outer(F.gelu(self.inner(self.norm(x, scale2, shift2)), approximate="tanh"))
        return x + F.dropout(y, self.dropout, self.training) * gate2


def start_adaptive(module: nn.Module, width: int, depth: int, std: float) -> None:
    """Small weights, residual branches smaller with depth, and gates nearly shut."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            if name.endswith((".out", ".outer")):
                layer.weight.data.div_(math.sqrt(2 * depth))
            if name.endswith("modulate"):
                layer.weight.data[2 * width :].mul_(0.5)
                layer.weight.data[: 2 * width].mul_(1e-2)
                nn.init.constant_(layer.bias[: 2 * width], 0.5)


def waves(time: Tensor, count: int = 128) -> Tensor:
    """Cosines and sines of times ``[...]`` (0 to 1,000) at ``count`` frequencies: float32 ``[..., 2 count]``."""
    place = torch.arange(count, device=time.device).float()
    angle = time.float()[..., None] * torch.exp(-math.log(10000.0) * place / count)
    return torch.cat([angle.cos(), angle.sin()], -1)


class TimeEmbedding(nn.Module):
    """Times ``[...]`` from 0 to 1 to features ``[..., D]``."""

    def __init__(self, width: int):
        super().__init__()
        self.inner, self.outer = nn.Linear(256, width), nn.Linear(width, width)

    def forward(self, time: Tensor) -> Tensor:
        return self.outer(F.silu(self.inner(waves(1000 * time))))
