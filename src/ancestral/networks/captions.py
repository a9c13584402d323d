"""Captions as what a model is told: bytes to one vector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

MOST_BYTES = 256
"""Bytes of a caption that are read; what stands behind is cut off."""


def caption_bytes(captions: Sequence[str], length: int) -> Tensor:
    """UTF-8 bytes plus 1, padded with 0: int64 ``[n, length]``. An empty caption is all 0, as a withheld one."""
    rows = torch.zeros(len(captions), length, dtype=torch.int64)
    for row, caption in zip(rows, captions, strict=True):
        content = caption.encode()[:length]
        row[: len(content)] = torch.tensor(list(content), dtype=torch.int64) + 1
    return rows


def longest_caption(captions: Sequence[str] | None) -> int:
    """Bytes that the longest caption takes, at most ``MOST_BYTES``; 0 without captions."""
    return min(max((len(c.encode()) for c in captions or ()), default=0), MOST_BYTES)


class CaptionEncoder(nn.Module):
    """A small transformer over the bytes of a caption, learned together with the model that it is for.

    Args:
        length: bytes.
        width: of the vector.
        depth, heads: of the transformer.
    """

    def __init__(self, length: int, width: int = 64, depth: int = 2, heads: int = 4):
        super().__init__()
        from ancestral.networks.vision import VisionBlock, xavier

        self.length, self.width = length, width
        self.embed = nn.Embedding(257, width)
        self.position = nn.Parameter(torch.randn(length, width) * 0.3)
        self.blocks = nn.ModuleList(VisionBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.withheld = nn.Parameter(torch.randn(width) * 0.5)
        xavier(self)
        nn.init.normal_(self.embed.weight, std=0.5)

    def forward(self, text: Tensor) -> Tensor:
        """``[B, length]`` (:func:`caption_bytes`) to float32 ``[B, width]``."""
        there = text > 0
        none = ~there.any(1, keepdim=True)
        # Nobody would see anything in an empty caption; there everything is seen, and the result is not used.
        seen = (there | none)[:, None, None]
        x = self.embed(text) + self.position
        for block in self.blocks:
            x = block(x, seen)
        count = there.sum(1, keepdim=True).clamp(min=1)
        mean = self.norm((x * there[..., None]).sum(1) / count)
        return torch.where(none, self.withheld, mean)
