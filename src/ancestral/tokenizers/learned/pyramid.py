"""Continuous latents as a pyramid of scales."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ancestral.noise import Noise
from ancestral.space import Space
from ancestral.tokenizers.learned.parts import Pyramid, Quantised
from ancestral.tokenizers.learned.quantisers import KL


class LatentPyramid(Pyramid):
    """The latents of a variational autoencoder, shrunk to every scale (FlowAR: Ren et al. 2024, arXiv:2412.15205).

    The autoencoder knows nothing of scales: it is trained as :class:`KL`, each map is its latents averaged over areas,
    and the finest map, the latents themselves, is what is decoded. A scale is told the map before it, enlarged.

    Args:
        latent: the latents; with one site per cell.
        scales: side of every map, coarsest first; by default each is double the one before (rounded up where the
            latents' side is no power of two), from a single site.
    """

    def __init__(self, latent: KL | None = None, scales: tuple[int, ...] | None = None):
        super().__init__()
        self.latent = KL() if latent is None else latent
        if self.latent.fold != 1:
            raise ValueError("a pyramid needs latents with one site per cell: fold=1")
        if scales is not None and any(a >= b for a, b in itertools.pairwise(scales)):
            raise ValueError(f"scales={scales} must grow")
        self.width, self.wanted = self.latent.width, scales

    @property
    def inputs(self) -> int:
        return self.latent.inputs

    def build(self, height: int, width: int) -> LatentPyramid:
        if height != width:
            raise ValueError(f"a pyramid needs latents as high as wide, and those are {height} x {width}")
        sides = [height]
        while sides[0] > 1:
            sides.insert(0, -(-sides[0] // 2))
        self.scales = tuple(sides) if self.wanted is None else self.wanted
        if self.scales[-1] != height:
            raise ValueError(
                f"the last of scales={self.scales} must be the side of the latents, and those are {height} x {width}"
            )
        self.latent.build(height, width)
        super().build(height, width)
        return self

    def space(self, shape: tuple[int, ...]) -> Space:
        coords = self.coordinates()
        return Space((len(coords),), 0, event=(self.width,), coords=coords)

    def forward(self, latents: Tensor, noise: Noise, chance: Any = None) -> Quantised:
        found = self.latent(latents, noise, chance)
        return Quantised(found.latents, found.codes, found.loss, **found.parts)

    def encode(self, latents: Tensor) -> Tensor:
        codes = self.latent.encode(latents)
        finest = codes.transpose(1, 2).reshape(len(codes), -1, *self.grid)
        maps = [F.interpolate(finest, size=(s, s), mode="area") for s in self.scales[:-1]]
        return torch.cat([m.flatten(2).transpose(1, 2) for m in (*maps, finest)], 1)

    def decode(self, codes: Tensor) -> Tensor:
        return self.latent.decode(codes[:, -(self.scales[-1] ** 2) :])

    def finish(self, latents: Tensor) -> None:
        self.latent.finish(latents)

    def strip(self) -> None:
        del self.latent

    def grow(self, total: Tensor | None, vectors: Tensor, scale: int) -> Tensor:
        return vectors

    def shrink(self, latents: Tensor, scale: int) -> Tensor:
        side = self.scales[scale]
        return F.interpolate(latents, size=(side, side), mode="bicubic")
