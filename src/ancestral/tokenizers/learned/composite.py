"""Quantisers made of quantisers: residual stages, a pyramid of scales, parallel branches."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.noise import Noise
from ancestral.space import Space
from ancestral.tokenizers.learned.parts import Pyramid, Quantised, Quantiser, flat, unflat
from ancestral.tokenizers.learned.quantisers import Codebook, at_least_one

_DROPPED = 0xD20B
"""Block of an item's random numbers that says which of its maps are left out."""


class ResidualVQ(Quantiser):
    """Stage by stage, the nearest vector to what the stages before have left over.

    RQ-VAE (Lee et al. 2022, arXiv:2203.01941) and SoundStream (Zeghidour et al. 2021, arXiv:2107.03312). The stages'
    codes are a site's event, to be drawn in turn by a nested head.

    Args:
        codes: K of every stage.
        depth: stages.
        width: C.
        decay, restart: of the codebooks.
        commitment: weight of the encoder's distance from its codes, averaged over the stages.
    """

    def __init__(
        self,
        codes: int = 256,
        depth: int = 4,
        width: int = 8,
        decay: float = 0.97,
        restart: float = 0.03,
        commitment: float = 0.25,
    ):
        super().__init__()
        at_least_one(depth=depth)
        self.codes, self.depth, self.width, self.commitment = codes, depth, width, commitment
        self.books = nn.ModuleList(Codebook(codes, width, False, decay, restart) for _ in range(depth))

    def space(self, shape: tuple[int, ...]) -> Space:
        return Space(shape, self.codes, event=(self.depth,))

    def _stages(self) -> list[Codebook]:
        return [book for book in self.books if isinstance(book, Codebook)]

    def initialise(self, latents: Tensor, seed: int) -> None:
        rest = flat(latents)
        for stage, book in enumerate(self._stages()):
            book.start(rest, seed + stage)
            rest = rest - book.vectors[book.find(rest)]

    def forward(self, latents: Tensor, noise: Noise, chance: Any = None) -> Quantised:
        vectors = flat(latents)
        total, commit, codes = torch.zeros_like(vectors), latents.new_zeros(()), []
        for book in self._stages():
            rest = vectors.detach() - total
            found = book.find(rest)
            total = total + book.vectors[found]
            if self.training:
                book.follow(rest, found, chance)
            commit = commit + (vectors - total).square().mean() / self.depth
            codes.append(found.reshape(len(latents), -1))
        through = vectors + (total - vectors).detach()
        return Quantised(unflat(through, latents), torch.stack(codes, -1), self.commitment * commit, commitment=commit)

    def encode(self, latents: Tensor) -> Tensor:
        rest, codes = flat(latents), []
        for book in self._stages():
            codes.append(book.find(rest))
            rest = rest - book.vectors[codes[-1]]
        return torch.stack(codes, -1).reshape(len(latents), -1, self.depth)

    def decode(self, codes: Tensor) -> Tensor:
        total = sum(book.vectors[codes[..., stage]] for stage, book in enumerate(self._stages()))
        assert isinstance(total, Tensor)
        return total.transpose(1, 2).reshape(len(codes), -1, *self.grid)


class MultiScaleVQ(Pyramid):
    """A pyramid of code maps, each of what the coarser maps have left over (VAR: Tian et al. 2024, arXiv:2404.02905).

    The rest is shrunk to a scale by averaging areas, looked up in one codebook, enlarged by bicubic interpolation, and
    convolved; the result is taken from the rest. Sites are numbered scale by scale, coarsest first.

    Args:
        codes: K, of one codebook for all scales.
        width: C.
        scales: side of every map; the last must be that of the latents. By default each is a third larger than the one
            before: 1, 2, 3, 4, 5, 7 for latents of 7 x 7.
        normalise: codes are found by direction rather than distance.
        convolutions: number of different convolutions, shared evenly between the scales.
        share: weight of the convolution beside the identity.
        decay, restart: of the codebook.
        commitment: weight of the encoder's distance from the sum so far, averaged over scales.
        drop: share of training's images whose finer maps are left out, from a random map on (quantiser dropout:
            Zeghidour et al. 2021, arXiv:2107.03312); the branches of a :class:`Product` leave out the same ones.
    """

    def __init__(
        self,
        codes: int = 512,
        width: int = 8,
        scales: tuple[int, ...] | None = None,
        normalise: bool = False,
        convolutions: int = 4,
        share: float = 0.5,
        decay: float = 0.97,
        restart: float = 0.03,
        commitment: float = 0.25,
        drop: float = 0.0,
    ):
        super().__init__()
        if not 0 <= drop <= 1:
            raise ValueError(f"drop={drop} must be a share of the images")
        if scales is not None and (not scales or any(a >= b for a, b in itertools.pairwise(scales))):
            raise ValueError(f"scales={scales} must grow")
        self.codes, self.width, self.wanted, self.share, self.commitment = codes, width, scales, share, commitment
        self.normalise, self.drop = normalise, drop
        self.book = Codebook(codes, width, False, decay, restart)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(convolutions))

    def build(self, height: int, width: int) -> MultiScaleVQ:
        sides = [height]
        while sides[0] > 1:
            sides.insert(0, min(round(sides[0] * 3 / 4), sides[0] - 1))
        self.scales = tuple(sides) if self.wanted is None else self.wanted
        if height != width or self.scales[-1] != height:
            raise ValueError(
                f"the last of scales={self.scales} must be the side of the latents, and those are {height} x {width}"
            )
        # Convolution of every scale: the one whose tick is nearest to the scale's place in [0, 1]; four have ticks of
        # their own in the published model.
        count = len(self.smooth)
        inset = 1 / 3 if count == 4 else 1 / 2
        ticks = torch.linspace(inset / count, 1 - inset / count, count, dtype=torch.float64)
        places = [k / max(len(self.scales) - 1, 1) for k in range(len(self.scales))]
        self.which = [int((ticks - place).abs().argmin()) for place in places]
        super().build(height, width)
        return self

    def space(self, shape: tuple[int, ...]) -> Space:
        coords = self.coordinates()
        return Space((len(coords),), self.codes, coords=coords)

    def strip(self) -> Tensor:
        vectors = self.book.vectors
        del self.book
        return vectors

    def grow(self, total: Tensor | None, vectors: Tensor, scale: int) -> Tensor:
        lifted = self.lift(vectors, scale)
        return lifted if total is None else total + lifted

    def maps(self, codes: Tensor) -> list[Tensor]:
        """Codes ``[B, N]`` as one map ``[B, s, s]`` per scale."""
        parts = codes.split([s * s for s in self.scales], 1)
        return [part.reshape(-1, s, s) for part, s in zip(parts, self.scales, strict=True)]

    def lift(self, vectors: Tensor, scale: int) -> Tensor:
        """What the code vectors ``[B, C, s, s]`` of a scale add to the latents ``[B, C, H, W]``."""
        if scale < len(self.scales) - 1:
            vectors = F.interpolate(vectors, size=self.grid, mode="bicubic")
        return vectors * (1 - self.share) + self.smooth[self.which[scale]](vectors) * self.share

    def shrink(self, latents: Tensor, scale: int) -> Tensor:
        """Latents ``[B, C, H, W]`` at the resolution of a scale."""
        if scale == len(self.scales) - 1:
            return latents
        return F.interpolate(latents, size=(self.scales[scale],) * 2, mode="area")

    def look_up(self, codes: Tensor) -> Tensor:
        """Code vectors ``[B, C, s, s]`` of a map ``[B, s, s]``."""
        return self.book.vectors[codes].permute(0, 3, 1, 2)

    def _find(self, vectors: Tensor) -> Tensor:
        if not self.normalise:
            return self.book.find(vectors)
        return (F.normalize(vectors, dim=-1) @ F.normalize(self.book.vectors, dim=-1).T).argmax(1)

    def initialise(self, latents: Tensor, seed: int) -> None:
        # Vectors of all scales, each scale's rest being what is left when its own average is taken away.
        rest, seen = latents, []
        for scale in range(len(self.scales)):
            small = self.shrink(rest, scale)
            seen.append(flat(small))
            rest = rest - F.interpolate(small, size=self.grid, mode="bicubic")
        self.book.start(torch.cat(seen[:-1] * 2 + seen[-1:]), seed)

    def forward(self, latents: Tensor, noise: Noise, chance: Any = None) -> Quantised:
        fixed = latents.detach()
        total, loss, codes = torch.zeros_like(fixed), latents.new_zeros(()), []
        taken, used = [], self._used(noise)
        for scale, side in enumerate(self.scales):
            small = flat(self.shrink((fixed - total).detach(), scale))
            found = self._find(small)
            added = self.lift(self.look_up(found.reshape(len(latents), side, side)), scale)
            total = total + (added if used is None else added * used[:, scale, None, None, None])
            here = slice(None) if used is None else used[:, scale].repeat_interleave(side * side)
            taken.append((small[here], found[here]))
            # The second term teaches the convolutions, and the encoder nothing.
            loss = loss + self.commitment * self._mean((latents - total.detach()).square(), used, scale)
            loss = loss + self._mean((total - fixed).square(), used, scale)
            codes.append(found.reshape(len(latents), -1))
        if self.training:
            self.book.follow(torch.cat([s for s, _ in taken]), torch.cat([f for _, f in taken]), chance)
        loss = loss / len(self.scales)
        through = latents + (total - latents).detach()
        return Quantised(through, torch.cat(codes, 1), loss, commitment=loss)

    def _used(self, noise: Noise) -> Tensor | None:
        """Maps that training uses of every item, bool ``[B, scales]``; None for all of them."""
        if not (self.training and self.drop):
            return None
        # Numbers that depend on the items alone: all branches of a product see the same.
        chance = Noise(noise.seeds, _DROPPED).uniform(2)
        many = 1 + (chance[:, 1] * len(self.scales)).long()
        many = torch.where(chance[:, 0] < self.drop, many, len(self.scales))
        return torch.arange(len(self.scales), device=many.device) < many[:, None]

    def _mean(self, errors: Tensor, used: Tensor | None, scale: int) -> Tensor:
        """A scale's part of the mean error over all maps in use, times the number of scales."""
        if used is None:
            return errors.mean()
        return (errors.mean((1, 2, 3)) * used[:, scale]).sum() * (len(self.scales) / used.sum())

    def encode(self, latents: Tensor) -> Tensor:
        total, codes = torch.zeros_like(latents), []
        for scale, side in enumerate(self.scales):
            found = self._find(flat(self.shrink(latents - total, scale))).reshape(-1, side, side)
            total = total + self.lift(self.look_up(found), scale)
            codes.append(found.flatten(1))
        return torch.cat(codes, 1)

    def sums(self, codes: Tensor) -> list[Tensor]:
        """Latents ``[B, C, H, W]`` after every scale."""
        out: list[Tensor] = []
        for scale, part in enumerate(self.maps(codes)):
            added = self.lift(self.look_up(part), scale)
            out.append(added if not out else out[-1] + added)
        return out

    def decode(self, codes: Tensor) -> Tensor:
        return self.sums(codes)[-1]


class Product(Quantiser):
    """Branches side by side: each quantises its own channels, and a site has a code of each.

    Product quantisation; with two branches of :class:`MultiScaleVQ` the tokens of ImageFolder (Li et al. 2024,
    arXiv:2410.01756). All branches must have the same sites and number of codes.

    Args:
        branches: quantisers with one code per site.
    """

    def __init__(self, branches: Sequence[Quantiser]):
        super().__init__()
        if len(branches) < 2:
            raise ValueError("a product needs at least two branches")
        self.branches = nn.ModuleList(branches)
        self.width = sum(b.width for b in branches)

    def _parts(self) -> list[Quantiser]:
        return [b for b in self.branches if isinstance(b, Quantiser)]

    def _split(self, latents: Tensor) -> tuple[Tensor, ...]:
        return latents.split([b.inputs for b in self._parts()], 1)

    @property
    def inputs(self) -> int:
        return sum(b.inputs for b in self._parts())

    def build(self, height: int, width: int) -> Product:
        for branch in self._parts():
            branch.build(height, width)
        super().build(height, width)
        return self

    def space(self, shape: tuple[int, ...]) -> Space:
        first, *rest = [b.space(shape) for b in self._parts()]
        if first.event or any(r != first for r in rest):
            raise ValueError("the branches of a product need the same sites, with one code of the same number each")
        return first.replace(event=(len(rest) + 1,))

    def initialise(self, latents: Tensor, seed: int) -> None:
        for number, (branch, part) in enumerate(zip(self._parts(), self._split(latents), strict=True)):
            branch.initialise(part, seed + 100 * number)

    def finish(self, latents: Tensor) -> None:
        for branch, part in zip(self._parts(), self._split(latents), strict=True):
            branch.finish(part)

    def forward(self, latents: Tensor, noise: Noise, chance: Any = None) -> Quantised:
        found = [b(p, noise, chance) for b, p in zip(self._parts(), self._split(latents), strict=True)]
        loss = torch.stack([f.loss for f in found]).mean()
        codes = torch.stack([f.codes for f in found], -1)
        return Quantised(torch.cat([f.latents for f in found], 1), codes, loss, **found[0].parts)

    def encode(self, latents: Tensor) -> Tensor:
        return torch.stack([b.encode(p) for b, p in zip(self._parts(), self._split(latents), strict=True)], -1)

    def decode(self, codes: Tensor) -> Tensor:
        return torch.cat([b.decode(c) for b, c in zip(self._parts(), codes.unbind(-1), strict=True)], 1)

    def meaning(self, latents: Tensor) -> Tensor:
        """The last branch's."""
        return latents[:, -self._parts()[-1].width :]

    def resolutions(self) -> tuple[int, ...]:
        return self._parts()[0].resolutions()

    def known(self, cells: Tensor) -> Tensor:
        return self._parts()[0].known(cells)
