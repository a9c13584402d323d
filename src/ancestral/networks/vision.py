"""Blocks of vision transformers, and the masked autoencoder made of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.networks.base import Cache, ConditionEmbedding, Network, ValueEmbedding
from ancestral.networks.transformer import observe_all, observe_step
from ancestral.order import Order
from ancestral.space import Condition, Space


class VisionBlock(nn.Module):
    """Layer norm, attention, layer norm, two-layer perceptron (ViT: Dosovitskiy et al. 2020, arXiv:2010.11929)."""

    def __init__(self, width: int, heads: int, ratio: float = 4.0, dropout: float = 0.0):
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} must be a multiple of the {heads} heads")
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, round(width * ratio)), nn.Linear(round(width * ratio), width)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """Tokens ``[B, T, D]``; ``seen``, bool and broadcastable to ``[B, H, T, T]``, says who sees whom."""
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        drop = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=drop)
        x = x + F.dropout(self.out(y.transpose(1, 2).reshape(b, t, d)), self.dropout, self.training)
        return x + F.dropout(self.outer(F.gelu(self.inner(self.norm2(x)))), self.dropout, self.training)


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
