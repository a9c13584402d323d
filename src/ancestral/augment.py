"""More images from few: random warps of training images, on the pixels' own levels."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ancestral.noise import Noise
from ancestral.space import Condition, Space

if TYPE_CHECKING:
    from ancestral.generator import Generator, Objective


class Augmentation(Protocol):
    """Random changes of values ``[B, N, *event]`` that leave them typical: a pure function of the items' noise."""

    def __call__(self, values: Tensor, space: Space, noise: Noise) -> Tensor: ...


class Augmented:
    """An objective that sees a share of the items changed at random, while training and not when evaluated.

    Args:
        objective: what is minimised.
        change: how items are changed.
        share: of the items that are changed. The model is told which (:attr:`Condition.altered`).
        until: share of training after which all items are left as they are.
    """

    def __init__(self, objective: Objective, change: Augmentation, share: float = 0.8, until: float = 1.0):
        if not 0 <= share <= 1 or not 0 <= until <= 1:
            raise ValueError(f"share={share} and until={until} must be shares, from 0 to 1")
        self.objective, self.change, self.share, self.until = objective, change, share, until

    def loss(self, generator: Generator, values: Tensor, condition: Condition, noise: Noise, progress: float) -> Tensor:
        """Mean nats per scalar of ``values`` ``[B, N, *event]``, some of them changed."""
        if generator.training and progress < self.until:
            changed = noise.uniform(1)[:, 0] < self.share
            if bool(changed.any()):
                part = Noise(noise.seeds[changed])
                part.counter = noise.counter
                values = values.clone()
                values[changed] = self.change(values[changed], generator.space, part)
            condition = replace(condition, altered=changed)
            noise.counter += 64  # the same numbers follow whether or not items were changed
        return self.objective.loss(generator, values, condition, noise, progress)


class Warp:
    """Turns, stretches, slants, shifts and bends images a little.

    Images are enlarged, warped and reduced again by means over blocks, so that shifts below a pixel are possible.

    Args:
        turn: largest rotation, in radians.
        stretch: largest change of the width, as a share; the height changes by a third of it.
        slant: largest shear.
        shift: largest move to the left or right as a share of the width; up or down a fifth of it.
        bend: standard deviation of smooth local moves, as a share of the width.
        ink: levels say which share of a pixel is covered by ink, as in scans of writing: the outline that explains
            them is found at four times the resolution and warped, and its strokes made up to ``weight`` thicker or
            thinner. Otherwise levels are brightnesses, warped with bilinear interpolation.
        weight: see ``ink``.
    """

    zoom = 4

    def __init__(
        self,
        turn: float = 0.12,
        stretch: float = 0.08,
        slant: float = 0.12,
        shift: float = 0.05,
        bend: float = 0.03,
        ink: bool = False,
        weight: float = 0.08,
    ):
        self.turn, self.stretch, self.slant, self.shift, self.bend = turn, stretch, slant, shift, bend
        self.ink, self.weight = ink, weight

    def __call__(self, values: Tensor, space: Space, noise: Noise) -> Tensor:
        """Warped values, int64 like the given ``[B, H * W, *event]``.

        Raises:
            ValueError: sites that are no grid of ordered levels.
        """
        if len(space.shape) != 2 or not space.ordinal or not isinstance(space.sizes, int):
            raise ValueError("only grids of ordered levels can be warped; leave out the augmentation")
        top = space.sizes - 1
        channels = math.prod(space.event)
        images = values.reshape(len(values), *space.shape, channels).movedim(-1, 1).float() / top
        fine = self.outline(images) if self.ink else self._enlarge(images)
        around: Literal["zeros", "border"] = "zeros" if self.ink else "border"
        fine = F.grid_sample(fine, self._grid(noise, fine), padding_mode=around, align_corners=False)
        if self.ink:
            thicker = self.weight * (2 * noise.uniform(1, 1, 1).float() - 1)
            fine = (fine + thicker > 0.5).float()
        levels = (F.avg_pool2d(fine, self.zoom) * top).round().clamp(0, top).long()
        return levels.movedim(1, -1).reshape(values.shape)

    def _enlarge(self, images: Tensor) -> Tensor:
        return F.interpolate(images, scale_factor=self.zoom, mode="bicubic", align_corners=False)

    def outline(self, images: Tensor, rounds: int = 6) -> Tensor:
        """A smooth picture ``[B, C, 4H, 4W]`` that is above 1/2 on about the given share of every block.

        Args:
            images: shares in [0, 1], ``[B, C, H, W]``.
            rounds: of correcting the picture by what its blocks miss (iterative back-projection).
        """
        fine = self._enlarge(images)
        for _ in range(rounds):
            covered = F.avg_pool2d(torch.sigmoid((fine - 0.5) * 12), self.zoom)
            fine = fine + self._enlarge(images - covered)
        return fine

    def _grid(self, noise: Noise, fine: Tensor) -> Tensor:
        u = 2 * noise.uniform(6).float() - 1
        turn, wide, high = self.turn * u[:, 0], 1 + self.stretch * u[:, 1], 1 + self.stretch / 3 * u[:, 2]
        slant, right, down = self.slant * u[:, 3], 2 * self.shift * u[:, 4], 0.4 * self.shift * u[:, 5]
        cos, sin = torch.cos(turn), torch.sin(turn)
        rows = [
            torch.stack([cos * wide, (slant - sin) * high, right], -1),
            torch.stack([sin * wide, cos * high, down], -1),
        ]
        grid = F.affine_grid(torch.stack(rows, 1), list(fine.shape), align_corners=False)
        if not self.bend:
            return grid
        moves = 2 * self.bend * noise.normal(2, 4, 4).float()
        smooth = F.interpolate(moves, size=fine.shape[2:], mode="bicubic", align_corners=False)
        return grid + smooth.movedim(1, -1)
