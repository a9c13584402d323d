"""One-dimensional tokens: learned queries gather what an image holds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ancestral.errors import DataError
from ancestral.tokenizers.learned.convolution import patches, unpatches
from ancestral.tokenizers.learned.parts import Backbone


def check_patches(height: int, width: int, patch: int) -> None:
    """Refuse images that are not whole patches.

    Raises:
        DataError: they are not.
    """
    if height % patch or width % patch:
        raise DataError(
            f"images of {height} x {width} do not divide into patches of {patch} x {patch} pixels; read them with "
            "size= or choose another patch="
        )


class Query(Backbone):
    """Vision transformers with latent tokens (TiTok: Yu et al. 2024, arXiv:2406.07550).

    The encoder reads an image's patches together with ``tokens`` learned queries; what comes out at the queries is
    quantised. The decoder reads these and a mask token per patch, and gives the patches. A token belongs to no place.

    Args:
        tokens: number of latent tokens.
        patch: side of a patch in pixels.
        width, depth, heads: of encoder and decoder.
    """

    def __init__(self, tokens: int = 32, patch: int = 4, width: int = 64, depth: int = 3, heads: int = 2):
        super().__init__()
        self.tokens, self.patch, self.width, self.depth, self.heads = tokens, patch, width, depth, heads
        self.grid = (1, tokens)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.tokens,)

    def build(self, image: tuple[int, int, int], inputs: int, width: int) -> Query:
        from ancestral.networks.vision import VisionBlock, xavier

        channels, height, across = image
        check_patches(height, across, self.patch)
        self.size = (height, across)
        count, pixels = height * across // self.patch**2, channels * self.patch**2
        self.read, self.write = nn.Linear(pixels, self.width), nn.Linear(self.width, pixels)
        self.queries = nn.Parameter(torch.randn(self.tokens, self.width) * 0.3)
        self.hidden = nn.Parameter(torch.randn(self.width) * 0.3)
        self.places = nn.Parameter(torch.randn(2, count, self.width) * 0.3)
        self.numbers = nn.Parameter(torch.randn(self.tokens, self.width) * 0.3)
        self.out, self.back = nn.Linear(self.width, inputs), nn.Linear(width, self.width)
        self.encoder = nn.ModuleList(VisionBlock(self.width, self.heads) for _ in range(self.depth))
        self.decoder = nn.ModuleList(VisionBlock(self.width, self.heads) for _ in range(self.depth))
        self.norms = nn.ModuleList(nn.LayerNorm(self.width, eps=1e-6) for _ in range(2))
        xavier(self)
        return self

    def encode(self, images: Tensor) -> Tensor:
        x = self.read(patches(images, self.patch)) + self.places[0]
        x = torch.cat([x, self.queries.expand(len(x), -1, -1)], 1)
        for block in self.encoder:
            x = block(x)
        latents = self.out(self.norms[0](x[:, -self.tokens :]))
        return latents.transpose(1, 2)[:, :, None]

    def decode(self, latents: Tensor) -> Tensor:
        told = self.back(latents[:, :, 0].transpose(1, 2)) + self.numbers
        x = torch.cat([(self.hidden + self.places[1]).expand(len(told), -1, -1), told], 1)
        for block in self.decoder:
            x = block(x)
        return unpatches(self.write(self.norms[1](x[:, : -self.tokens])), self.patch, *self.size)

    def cells(self, known: Tensor) -> Tensor:
        # Every token depends on every pixel.
        return known.flatten(1).all(1)[:, None, None].expand(-1, *self.grid)
