"""Residual convolutional encoder and decoder, with attention at the coarse levels."""

from __future__ import annotations

import itertools
import math

import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.errors import DataError
from ancestral.tokenizers.learned.parts import Backbone


def norm(channels: int) -> nn.GroupNorm:
    """Group normalisation in 32 groups, or fewer where the channels do not divide."""
    return nn.GroupNorm(math.gcd(32, channels), channels, eps=1e-6)


class Residual(nn.Module):
    """Two normalised 3 x 3 convolutions beside a shortcut.

    With ``plain`` as in the published MaskGIT tokenizer: convolutions without biases, and where the channels change the
    shortcut starts from the convolutions' result rather than from the input.
    """

    def __init__(self, inputs: int, outputs: int, plain: bool = False):
        super().__init__()
        self.plain = plain
        self.norm1, self.norm2 = norm(inputs), norm(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=not plain)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=not plain)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Conv2d(outputs if plain else inputs, outputs, 1, bias=not plain)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        start = h if self.plain and isinstance(self.shortcut, nn.Conv2d) else x
        return self.shortcut(start) + h


class GridAttention(nn.Module):
    """One-headed attention between all cells of a map."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, -1)
        y = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return x + self.out(y.transpose(1, 2).reshape(x.shape))


class Level(nn.Module):
    """Residual blocks of one resolution, each followed by attention if asked."""

    def __init__(self, inputs: int, outputs: int, blocks: int, attention: bool, plain: bool = False):
        super().__init__()
        sizes = [inputs, *[outputs] * blocks]
        self.blocks = nn.ModuleList(Residual(a, b, plain) for a, b in itertools.pairwise(sizes))
        self.attention = nn.ModuleList(GridAttention(outputs) for _ in range(blocks if attention else 0))

    def forward(self, x: Tensor) -> Tensor:
        for number, block in enumerate(self.blocks):
            x = block(x)
            if len(self.attention):
                x = self.attention[number](x)
        return x


class Middle(nn.Sequential):
    """Residual block, attention, residual block at the coarsest resolution."""

    def __init__(self, channels: int, attention: bool):
        between = GridAttention(channels) if attention else nn.Identity()
        super().__init__(Residual(channels, channels), between, Residual(channels, channels))


def _middle(channels: int, blocks: int, attention: bool, plain: bool) -> nn.Sequential:
    if plain:
        return nn.Sequential(*(Residual(channels, channels, plain) for _ in range(blocks)))
    return Middle(channels, attention)


class Encoder(nn.Module):
    """Images to latents; every level but the last halves height and width, by a convolution or (``plain``) a mean."""

    def __init__(
        self,
        images: int,
        stem: int,
        channels: list[int],
        blocks: int,
        latents: int,
        attention: bool,
        middle: bool,
        plain: bool = False,
    ):
        super().__init__()
        sizes, top = [stem, *channels], len(channels) - 1
        self.first = nn.Conv2d(images, stem, 3, padding=1, bias=not plain)
        self.levels = nn.ModuleList(
            Level(a, b, blocks, attention and i == top, plain) for i, (a, b) in enumerate(itertools.pairwise(sizes))
        )
        self.down = nn.ModuleList(nn.AvgPool2d(2) if plain else nn.Conv2d(c, c, 3, stride=2) for c in channels[:-1])
        self.middle = _middle(channels[-1], blocks, middle, plain)
        self.norm = norm(channels[-1])
        self.last = nn.Conv2d(channels[-1], latents, 1 if plain else 3, padding=0 if plain else 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for number, level in enumerate(self.levels):
            x = level(x)
            if number < len(self.down):
                down = self.down[number]
                x = down(F.pad(x, (0, 1, 0, 1)) if isinstance(down, nn.Conv2d) else x)
        return self.last(F.silu(self.norm(self.middle(x))))


class Decoder(nn.Module):
    """Latents to images; every level but the finest doubles height and width.

    Args:
        images: channels of the images.
        channels: features of every level, finest first.
        blocks: residual blocks per level; one more unless ``plain``.
        latents: channels of the latents.
        attention: after the blocks of the coarsest level.
        middle: attention between the two blocks at the coarsest resolution.
        plain: see :class:`Residual`.
    """

    def __init__(
        self,
        images: int,
        channels: list[int],
        blocks: int,
        latents: int,
        attention: bool,
        middle: bool,
        plain: bool = False,
    ):
        super().__init__()
        top = len(channels) - 1
        self.first = nn.Conv2d(latents, channels[top], 3, padding=1)
        self.middle = _middle(channels[top], blocks, middle, plain)
        sizes, each = [channels[top], *reversed(channels)], blocks if plain else blocks + 1
        self.levels = nn.ModuleList(
            Level(a, b, each, attention and i == 0, plain) for i, (a, b) in enumerate(itertools.pairwise(sizes))
        )
        self.up = nn.ModuleList(nn.Conv2d(c, c, 3, padding=1) for c in reversed(channels[1:]))
        self.norm = norm(channels[0])
        self.last = nn.Conv2d(channels[0], images, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.middle(self.first(z))
        for number, level in enumerate(self.levels):
            x = level(x)
            if number < len(self.up):
                x = self.up[number](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.last(F.silu(self.norm(x)))


class Convolutional(Backbone):
    """The autoencoder of VQGAN (Esser et al. 2021, arXiv:2012.09841), which most image tokenizers share.

    Height and width shrink by ``patch * 2 ** (len(multipliers) - 1)``.

    Args:
        channels: features at the finest level.
        multipliers: features of every level as multiples of ``channels``, finest first.
        blocks: residual blocks per level of the encoder; the decoder has one more.
        patch: pixels of ``patch x patch`` squares are channels of one cell before the first level (and after the
            last): the full resolution, the most expensive one, is left out.
        attention: attention after the blocks of the coarsest level of the encoder.
        attention_back: of the decoder; by default the same.
        middle: attention between the two blocks at the coarsest resolution.
        kernel: size of a convolution before and after quantisation; 0 for none.
        between: channels on the networks' side of these convolutions; by default those of the latents.
        plain: the published MaskGIT tokenizer's details: no attention, no biases in the residual blocks (see
            :class:`Residual`), means rather than convolutions to halve the resolution, as many blocks in the decoder
            and in the middle as in the encoder, and images in [0, 1].
    """

    def __init__(
        self,
        channels: int = 32,
        multipliers: tuple[int, ...] = (1, 2),
        blocks: int = 1,
        patch: int = 2,
        attention: bool = False,
        attention_back: bool | None = None,
        middle: bool = True,
        kernel: int = 1,
        between: int | None = None,
        plain: bool = False,
    ):
        super().__init__()
        self.between, self.plain = between, plain
        if plain:
            attention, attention_back, middle = False, False, False
        self.channels = [channels * m for m in multipliers]
        self.blocks, self.patch, self.kernel = blocks, patch, kernel
        self.stem, self.attention, self.middle = channels, attention, middle
        self.attention_back = attention if attention_back is None else attention_back

    @property
    def factor(self) -> int:
        """Pixels of a cell, along each axis."""
        return self.patch * 2 ** (len(self.channels) - 1)

    def build(self, image: tuple[int, int, int], inputs: int, width: int) -> Convolutional:
        colours, height, across = image
        if height % self.factor or across % self.factor:
            raise DataError(
                f"images of {height} x {across} do not divide into cells of {self.factor} x {self.factor} pixels; read "
                f"them with size= a multiple of {self.factor}, or choose another patch= or multipliers="
            )
        self.grid = (height // self.factor, across // self.factor)
        pixels, kernel = colours * self.patch**2, self.kernel
        given, taken = self.between or inputs, self.between or width
        self.encoder = Encoder(
            pixels, self.stem, self.channels, self.blocks, given, self.attention, self.middle, self.plain
        )
        self.decoder = Decoder(pixels, self.channels, self.blocks, taken, self.attention_back, self.middle, self.plain)
        self.before = nn.Conv2d(given, inputs, kernel, padding=kernel // 2) if kernel else nn.Identity()
        self.after = nn.Conv2d(width, taken, kernel, padding=kernel // 2) if kernel else nn.Identity()
        return self

    def encode(self, images: Tensor) -> Tensor:
        if self.plain:
            images = (images + 1) / 2
        return self.before(self.encoder(F.pixel_unshuffle(images, self.patch) if self.patch > 1 else images))

    def decode(self, latents: Tensor) -> Tensor:
        x = self.decoder(self.after(latents))
        if self.plain:
            x = 2 * x - 1
        return F.pixel_shuffle(x, self.patch) if self.patch > 1 else x

    def cells(self, known: Tensor) -> Tensor:
        return ~(F.max_pool2d((~known)[:, None].float(), self.factor)[:, 0] > 0)


def patches(images: Tensor, side: int) -> Tensor:
    """Squares of ``side x side`` pixels as vectors: ``[B, C, H, W]`` to ``[B, H W / side^2, C side^2]``."""
    return F.pixel_unshuffle(images, side).flatten(2).transpose(1, 2)


def unpatches(vectors: Tensor, side: int, height: int, width: int) -> Tensor:
    """The inverse of :func:`patches`, for images of ``height x width``."""
    x = vectors.transpose(1, 2).reshape(vectors.shape[0], -1, height // side, width // side)
    return F.pixel_shuffle(x, side)


__all__ = ["Convolutional", "Decoder", "Encoder", "GridAttention", "Residual", "norm", "patches", "unpatches"]
