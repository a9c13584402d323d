"""The published one-dimensional tokenizers in all their details."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ancestral.tokenizers.learned.convolution import Decoder, patches, unpatches
from ancestral.tokenizers.learned.query import Query, check_patches


class TiTok(Query):
    """:class:`Query` as published (TiTok: Yu et al. 2024, arXiv:2406.07550).

    Both transformers have a class token, and a norm before their layers too. The decoder either gives pixels, smoothed
    by a convolution, or tells which codes of MaskGIT's tokenizer stand in the image's cells; then MaskGIT's decoder
    paints it from their mean vectors. Models of codes read the encoder's last features as if they were transposed.

    Args:
        tokens: number of latent tokens.
        patch: side of a patch in pixels, for encoder and decoder.
        encoder, decoder: width, depth and heads of each.
        gives: what the decoder gives: "pixels"; "codes", whose vectors are averaged by their probabilities; "best
            codes", the likeliest only (models before their second stage of training).
        painter: of MaskGIT's decoder: channels, multipliers and blocks, as for
            :class:`~ancestral.tokenizers.learned.Convolutional`, the codes' channels, and their number.
    """

    def __init__(
        self,
        tokens: int = 32,
        patch: int = 16,
        encoder: tuple[int, int, int] = (512, 8, 8),
        decoder: tuple[int, int, int] = (512, 8, 8),
        gives: Literal["pixels", "codes", "best codes"] = "codes",
        painter: tuple[int, tuple[int, ...], int, int, int] = (128, (1, 1, 2, 2, 4), 2, 256, 1024),
    ):
        super().__init__(tokens, patch, *encoder)
        self.decoder_size, self.gives, self.sizes = decoder, gives, painter

    def build(self, image: tuple[int, int, int], inputs: int, width: int) -> TiTok:
        from ancestral.networks.vision import VisionBlock, xavier

        colours, height, across = image
        check_patches(height, across, self.patch)
        self.size = (height, across)
        count, pixels = height * across // self.patch**2, colours * self.patch**2
        (inner, depth, heads), (outer, back, back_heads) = (self.width, self.depth, self.heads), self.decoder_size

        def some(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape) * shape[-1] ** -0.5)

        self.read, self.out = nn.Linear(pixels, inner), nn.Linear(inner, inputs)
        # A class token, the patches' places, queries; a class token, the mask tokens' places, the tokens' numbers.
        self.front, self.places, self.queries = some(inner), some(count, inner), some(self.tokens, inner)
        self.front_back, self.places_back, self.numbers = some(outer), some(count, outer), some(self.tokens, outer)
        self.back = nn.Linear(width, outer)
        self.encoder = nn.ModuleList(VisionBlock(inner, heads, eps=1e-5) for _ in range(depth))
        self.decoder = nn.ModuleList(VisionBlock(outer, back_heads, eps=1e-5) for _ in range(back))
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in (inner, inner, outer, outer))
        if self.gives == "pixels":
            self.write = nn.Linear(outer, pixels)
            self.smooth = nn.Conv2d(colours, colours, 3, padding=1)
        else:
            channels, multipliers, blocks, latents, codes = self.sizes
            self.tell, self.write = nn.Linear(outer, 2 * outer), nn.Linear(2 * outer, codes)
            self.palette = nn.Parameter(torch.randn(codes, latents))
            self.painter = Decoder(colours, [channels * m for m in multipliers], blocks, latents, False, False, True)
        xavier(self)
        return self

    def encode(self, images: Tensor) -> Tensor:
        batch = len(images)
        x = self.read(patches((images + 1) / 2, self.patch)) + self.places
        front, queries = (part.expand(batch, -1, -1) for part in (self.front[None], self.queries))
        x = self.norms[0](torch.cat([front, x, queries], 1))
        for block in self.encoder:
            x = block(x)
        latents = self.norms[1](x[:, -self.tokens :])
        if self.gives != "pixels":  # the published models were trained so
            latents = latents.reshape(batch, self.width, self.tokens).transpose(1, 2)
        return self.out(latents).transpose(1, 2)[:, :, None]

    def decode(self, latents: Tensor) -> Tensor:
        x = self._cells(latents)
        if self.gives == "pixels":
            return 2 * self.smooth(unpatches(self.write(x), self.patch, *self.size)) - 1
        told = self._told(x)
        chosen = self.palette[told.argmax(-1)] if self.gives == "best codes" else told.softmax(-1) @ self.palette
        grid = [side // self.patch for side in self.size]
        return 2 * self.painter(chosen.transpose(1, 2).unflatten(2, grid)) - 1

    def logits(self, latents: Tensor) -> Tensor:
        """Of MaskGIT's codes in the cells, ``[B, H W / patch^2, K]``, for latents ``[B, width, 1, tokens]``."""
        return self._told(self._cells(latents))

    def _told(self, x: Tensor) -> Tensor:
        return self.write(torch.tanh(self.tell(x)))

    def _cells(self, latents: Tensor) -> Tensor:
        """The decoder's features of the patches ``[B, H W / patch^2, D]``."""
        told = self.back(latents[:, :, 0].transpose(1, 2)) + self.numbers
        masks = torch.cat([self.front_back[None], self.places_back]).expand(len(told), -1, -1)
        x = self.norms[2](torch.cat([masks, told], 1))
        for block in self.decoder:
            x = block(x)
        return self.norms[3](x[:, 1 : -self.tokens])


__all__ = ["TiTok"]
