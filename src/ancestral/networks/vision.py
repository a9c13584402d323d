"""Blocks of vision transformers, and the masked autoencoder made of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.networks.base import Cache, ConditionEmbedding, Network, ValueEmbedding
from ancestral.networks.masked import observe_all, observe_step
from ancestral.networks.transformer import KeyValues
from ancestral.order import Order
from ancestral.space import Condition, Space


class VisionBlock(nn.Module):
    """Layer norm, attention, layer norm, two-layer perceptron (ViT: Dosovitskiy et al. 2020, arXiv:2010.11929).

    Args:
        width: features D.
        heads: of the attention.
        ratio: hidden features of the perceptron, as a multiple of the width.
        dropout: share of activations dropped in training.
        eps: of the norms.
        bias: queries, keys and values have one.
        modulated: a condition shifts and scales what is normalised, and gates both branches (adaptive layer norm:
            Peebles and Xie 2022, arXiv:2212.09748).
        normalised: every head's queries and keys are normalised too (Dehghani et al. 2023, arXiv:2302.05442).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        ratio: float = 4.0,
        dropout: float = 0.0,
        eps: float = 1e-6,
        bias: bool = True,
        modulated: bool = False,
        normalised: bool = False,
    ):
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} must be a multiple of the {heads} heads")
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=bias), nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, round(width * ratio)), nn.Linear(round(width * ratio), width)
        self.modulate = nn.Linear(width, 6 * width) if modulated else None
        self.query_norm = nn.LayerNorm(width // heads, eps=eps) if normalised else None
        self.key_norm = nn.LayerNorm(width // heads, eps=eps) if normalised else None

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values ``[B, H, T, E]`` of normalised tokens ``[B, T, D]``."""
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        return q, k, v

    def forward(
        self,
        x: Tensor,
        seen: Tensor | None = None,
        told: Tensor | None = None,
        kept: KeyValues | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Tokens ``[B, T, D]`` to tokens.

        Args:
            x: the tokens.
            seen: bool, broadcastable to ``[B, H, T, S]``: who sees whom of the S tokens kept and given.
            told: the condition ``[B, T, D]`` or ``[B, 1, D]`` of a modulated block.
            kept: keys and values of tokens before, to which these are added.
            causal: tokens see themselves and those before; not with ``seen``.
        """
        six: tuple[Tensor | None, ...] = (None,) * 6
        if self.modulate is not None:
            assert told is not None
            six = self.modulate(F.silu(told)).chunk(6, -1)
        shift1, scale1, gate1, shift2, scale2, gate2 = six
        q, k, v = self.project(_moved(self.norm1(x), shift1, scale1))
        if kept is not None:
            k, v = kept.append(k, v)
        drop = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=causal, dropout_p=drop)
        y = F.dropout(self.out(y.transpose(1, 2).reshape(x.shape)), self.dropout, self.training)
        x = x + (y if gate1 is None else gate1 * y)
        y = self.outer(F.gelu(self.inner(_moved(self.norm2(x), shift2, scale2))))
        y = F.dropout(y, self.dropout, self.training)
        return x + (y if gate2 is None else gate2 * y)


def _moved(x: Tensor, shift: Tensor | None, scale: Tensor | None) -> Tensor:
    return x if shift is None or scale is None else x * (1 + scale) + shift


def xavier(module: nn.Module) -> None:
    """Xavier-uniform linear maps without biases, as vision transformers usually start."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class MaskedAutoencoder(Network):
    """Encoder over the known sites and decoder over all (MAE: He et al. 2021, arXiv:2111.06377; MAR: Li et al. 2024,
    arXiv:2406.11838).

    The encoder reads the known values behind ``buffer`` tokens that hold the class; the decoder sees its outputs, and a
    mask token at every hidden site. Features of a site also get its position again, for the head.

    Args:
        width: features of encoder and decoder.
        depth: layers of the encoder, and as many of the decoder.
        heads: attention heads; by default one per 64 features, at least 2.
        ratio: of the perceptrons.
        dropout: share of activations dropped in training.
        buffer: class tokens.
        decoder: width, depth and heads of the decoder, where they differ from the encoder's.
    """

    needs_mask = True

    def __init__(
        self,
        width: int = 256,
        depth: int = 4,
        heads: int | None = None,
        ratio: float = 4.0,
        dropout: float = 0.0,
        buffer: int = 8,
        decoder: tuple[int, int, int] | None = None,
    ):
        super().__init__()
        heads = heads or max(2, width // 64)
        self.encoder_size = (width, depth, heads)
        self.decoder_size = decoder or self.encoder_size
        self.width = self.decoder_size[0]
        self.ratio, self.dropout, self.buffer = ratio, dropout, buffer

    def build(self, space: Space) -> MaskedAutoencoder:
        self.space = space
        (inner, depth, heads), (outer, back, back_heads) = self.encoder_size, self.decoder_size
        self.embed = ValueEmbedding(space, inner)
        self.classes = nn.Embedding(space.classes + 1, inner)
        self.told = ConditionEmbedding(space.replace(classes=0), outer)
        self.encoder_position = nn.Parameter(torch.randn(self.buffer + space.n, inner) * 0.02)
        self.entry = nn.LayerNorm(inner, eps=1e-6)
        self.encoder = nn.ModuleList(VisionBlock(inner, heads, self.ratio, self.dropout) for _ in range(depth))
        self.encoder_norm = nn.LayerNorm(inner, eps=1e-6)
        self.bridge = nn.Linear(inner, outer)
        self.hidden = nn.Parameter(torch.randn(outer) * 0.02)
        self.decoder_position = nn.Parameter(torch.randn(self.buffer + space.n, outer) * 0.02)
        self.decoder = nn.ModuleList(VisionBlock(outer, back_heads, self.ratio, self.dropout) for _ in range(back))
        self.decoder_norm = nn.LayerNorm(outer, eps=1e-6)
        self.position = nn.Parameter(torch.randn(space.n, outer) * 0.02)
        xavier(self)
        nn.init.normal_(self.classes.weight, std=0.02)
        return self

    def encode(self, values: Tensor, known: Tensor, condition: Condition | None = None) -> Tensor:
        """The encoder's outputs ``[B, buffer + N, D]``; those at hidden sites mean nothing, and nothing sees them."""
        sites = torch.arange(self.space.n, device=values.device)
        label = None if condition is None else condition.label
        if label is None:
            label = torch.full((len(values),), -1, device=values.device)
        told = self.classes(torch.where(label < 0, self.classes.num_embeddings - 1, label))
        x = torch.cat([told[:, None].expand(-1, self.buffer, -1), self.embed(values, sites)], 1)
        x = self.entry(x + self.encoder_position)
        seen = F.pad(known, (self.buffer, 0), value=True)[:, None, None]
        for block in self.encoder:
            x = block(x, seen)
        return self.encoder_norm(x)

    def observe(self, values: Tensor, known: Tensor, condition: Condition | None = None) -> Tensor:
        encoded = self.bridge(self.encode(values, known, condition))
        there = F.pad(known, (self.buffer, 0), value=True)[..., None]
        told = self.told(condition, torch.arange(self.space.n, device=values.device), len(values))
        if isinstance(told, Tensor):
            told = F.pad(told.expand(-1, self.space.n, -1), (0, 0, self.buffer, 0))
        x = torch.where(there, encoded, self.hidden) + self.decoder_position + told
        for block in self.decoder:
            x = block(x)
        return self.decoder_norm(x)[:, self.buffer :] + self.position

    def forward(self, values: Tensor, order: Order, condition: Condition | None = None) -> Tensor:
        return observe_all(self, values, order, condition)

    def step(self, cache: Cache, last: Tensor | None = None) -> Tensor:
        return observe_step(self, cache, last)
