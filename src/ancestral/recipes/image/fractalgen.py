"""FractalGen: autoregressive models inside autoregressive models."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from ancestral.data import Dataset, Images
from ancestral.errors import DataError
from ancestral.generator import Generator
from ancestral.heads import Categorical, Head, Nested
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.recipes.registry import Claim, recipe
from ancestral.space import Space
from ancestral.tokenizers import Pixels


class Patches(Pixels):
    """A view of the pixel grid: sites are the largest patches, an event is all values of one patch.

    Values of an event run patch by patch through the levels: those of a sub-patch stand together.

    Args:
        sides: side of the patches at every level, coarsest first, each a multiple of the next.
    """

    def __init__(self, sides: tuple[int, ...]) -> None:
        super().__init__()
        self.sides = sides

    def _settle(self) -> None:
        height, width, channels = self.shape
        side = self.sides[0]
        if height % side or width % side:
            raise DataError(
                f"images of {height} x {width} do not divide into patches of side {side}; give other patches= or size="
            )
        super()._settle()
        self._space = self._space.replace(  # type: ignore[union-attr]
            shape=(height // side, width // side), event=(side * side * channels,)
        )

    def index(self) -> Tensor:
        """Raster number of the pixel value at every place of the values, int64 ``[H * W * C]``."""
        index = torch.arange(math.prod(self.shape)).reshape(1, *self.shape)
        for side in self.sides:
            batch, height, width, channels = index.shape
            cut = index.reshape(batch, height // side, side, width // side, side, channels)
            index = cut.transpose(2, 3).reshape(-1, side, side, channels)
        return index.reshape(-1)

    def encode(self, dataset: Dataset) -> Tensor:
        flat = super().encode(dataset).flatten(1)[:, self.index()]
        return flat.reshape(len(flat), self.space.n, *self.space.event)

    def decode(self, values: Tensor) -> Images:
        return super().decode(values.cpu().flatten(1)[:, torch.argsort(self.index())])

    def known_sites(self, shown: Tensor) -> Tensor:
        side = self.sides[0]
        whole = shown.reshape(len(shown), -1, side, shown.shape[2] // side, side).all(4).all(2)
        return whole.flatten(1)

    def given(self, given: Any) -> tuple[Tensor, Tensor]:
        raise DataError("a patch is known as a whole or not at all; use complete with known= per patch")

    def state(self) -> dict[str, Any]:
        return super().state() | {"sides": list(self.sides)}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.sides = tuple(state["sides"])


class Split(Nested):
    """A patch as a smaller image: an inner model over its ``parts x parts`` sub-patches, told the patch's features."""

    def __init__(self, generator: Generator, parts: int):
        super().__init__(generator)
        self.parts = parts

    def inner(self, space: Space, width: int) -> Space:
        n = self.parts * self.parts
        if not space.event or space.event[0] % n:
            raise DataError(
                "fractalgen draws the pixels of a patch in turn, and there are none in a site of this tokenizer: leave "
                "it on pixels"
            )
        event = (space.event[0] // n,)
        return Space((self.parts, self.parts), space.sizes, event, vector=width, ordinal=space.ordinal)


@recipe(
    "fractalgen",
    title="Fractal Generative Models",
    paper="arXiv:2502.17437",
    authors="Li, Sun, Fan, He (2025)",
    differs_from="aim",
    tiny=dict(patches=(2, 1), widths=(16, 16, 16), depths=(1, 1, 1), dropout=0.0),
    toy="wide",
    claim=Claim("pixel-by-pixel generation with strong likelihood at a fraction of a flat model's cost"),
)
def fractalgen(
    patches: tuple[int, ...] = (4, 1),
    widths: tuple[int, ...] = (128, 64, 32),
    depths: tuple[int, ...] = (4, 2, 1),
    dropout: float = 0.1,
) -> Model:
    """A generator calls a smaller generator for every patch, down to pixels and their colours.

    The top transformer runs over the largest patches in raster order; its output at a patch is the condition of the
    next one, which runs over the sub-patches of that patch, and so on. The last draws the channels of one pixel as
    categories. All levels are trained together on the exact likelihood; attention costs the square of the parts at
    each level instead of that of all pixels.

    Each level is told its own patch's features; the paper's gives it those of the four patches around as well. The
    paper's masked (MAR) variant of the levels is not here.

    Reference:
        Li, Sun, Fan, He. Fractal generative models. 2025, arXiv:2502.17437.

    Args:
        patches: side of the patches at every level, coarsest first, each a multiple of the next; the last is 1.
        widths, depths: of the transformers, one more than there are patch sizes: the last is over the channels.
        dropout: share of activations dropped in training.
    """
    if patches[-1] != 1 or any(a % b for a, b in itertools.pairwise(patches)):
        raise ValueError(f"patches={patches} must end with 1, each a multiple of the next")
    if not len(widths) == len(depths) == len(patches) + 1:
        raise ValueError(f"{len(patches)} patch sizes need {len(patches) + 1} widths and depths")
    networks = [CausalTransformer(w, d, dropout=dropout) for w, d in zip(widths, depths, strict=True)]
    head: Head = Nested(Generator(networks[-1], Categorical()))
    for level in range(len(patches) - 1, 0, -1):
        head = Split(Generator(networks[level], head), patches[level - 1] // patches[level])
    return Model(Patches(patches), "raster", networks[0], head, training=dict(lr=2e-3, batch_size=64))
