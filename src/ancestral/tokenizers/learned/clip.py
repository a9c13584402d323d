"""One-dimensional tokens of clips: learned queries gather what several frames hold."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ancestral.errors import DataError
from ancestral.tokenizers.learned.query import Query, check_patches


class Clip(Query):
    """Tokens of a clip by learned queries (LARP: Wang et al. 2024, arXiv:2410.21264).

    A clip is read as an image, its frames one below the other. The encoder reads blocks of pixels of several frames
    together with learned queries; the decoder is asked for the blocks, from the tokens' vectors. A token belongs to no
    place and no time. Vectors go to the quantiser, and come from it, as they are.

    Args:
        tokens: number of latent tokens.
        patch: side of a block in pixels.
        frames: of a clip.
        span: frames of a block.
        encoder, decoder: width, depth and heads of each.
        eps: of the layers' norms; that of the norm before the pixels is 1e-6.
    """

    def __init__(
        self,
        tokens: int = 1024,
        patch: int = 8,
        frames: int = 16,
        span: int = 4,
        encoder: tuple[int, int, int] = (768, 12, 12),
        decoder: tuple[int, int, int] = (768, 12, 12),
        eps: float = 1e-5,
    ):
        super().__init__(tokens, patch, *encoder)
        if frames % span:
            raise ValueError(f"frames={frames} do not divide into blocks of span={span} frames")
        self.frames, self.span, self.decoder_size, self.eps = frames, span, decoder, eps

    def build(self, image: tuple[int, int, int], inputs: int, width: int) -> Clip:
        from ancestral.networks.vision import VisionBlock, xavier

        colours, height, across = image
        if height % self.frames:
            raise DataError(f"images {height} high do not divide into {self.frames} frames, one below the other")
        check_patches(height // self.frames, across, self.patch)
        self.size = (height // self.frames, across)
        count, pixels = self.frames // self.span, colours * self.span * self.patch**2
        count *= self.size[0] * self.size[1] // self.patch**2
        (inner, depth, heads), (outer, back, back_heads) = (self.width, self.depth, self.heads), self.decoder_size

        def some(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape) * 0.3)

        self.read, self.out = nn.Linear(pixels, inner), nn.Linear(inner, inputs)
        self.back, self.write = nn.Linear(width, outer), nn.Linear(outer, pixels)
        self.places, self.queries = some(count, inner), some(self.tokens, inner)
        self.asked, self.numbers = some(count, outer), some(self.tokens, outer)
        self.encoder = nn.ModuleList(VisionBlock(inner, heads, eps=self.eps, bias=False) for _ in range(depth))
        self.decoder = nn.ModuleList(VisionBlock(outer, back_heads, eps=self.eps, bias=False) for _ in range(back))
        self.norm = nn.LayerNorm(outer, eps=1e-6)
        xavier(self)
        return self

    def encode(self, images: Tensor) -> Tensor:
        batch, clips = len(images), ((images + 1) / 2).unflatten(2, (-1, self.span, self.size[0]))
        blocks = clips.unflatten(4, (-1, self.patch)).unflatten(6, (-1, self.patch))  # B C t s h p w q
        blocks = blocks.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(batch, -1, self.read.in_features)
        x = torch.cat([self.read(blocks) + self.places, self.queries.expand(batch, -1, -1)], 1)
        for block in self.encoder:
            x = block(x)
        return self.out(x[:, -self.tokens :]).transpose(1, 2)[:, :, None]

    def decode(self, latents: Tensor) -> Tensor:
        told = self.back(latents[:, :, 0].transpose(1, 2)) + self.numbers
        x = torch.cat([told, self.asked.expand(len(told), -1, -1)], 1)
        for block in self.decoder:
            x = block(x)
        blocks = self.write(self.norm(x[:, self.tokens :]))
        rows, columns = (side // self.patch for side in self.size)
        blocks = blocks.unflatten(2, (-1, self.span, self.patch, self.patch)).unflatten(1, (-1, rows, columns))
        clips = blocks.permute(0, 4, 1, 5, 2, 6, 3, 7)  # B C t s h p w q
        return 2 * clips.flatten(6, 7).flatten(2, 5) - 1


__all__ = ["Clip"]
