"""What a tokenizer promises its model: how many sites there are and which values stand at them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ancestral.errors import DataError


@dataclass(frozen=True)
class Lexicon:
    """A column whose values are listed: one coarse site, the entry in the list of that coarse value, digits.

    Attributes:
        sites: ``(coarse, entry, *digits)``.
        counted: entries and digits mean nothing by themselves, so that their distribution given the coarse value
            is counted rather than learned. The last entry then means "not listed"; the digits of a listed value
            follow from its entry.
    """

    sites: tuple[int, ...]
    counted: bool = False


@dataclass(frozen=True)
class Space:
    """The set of all values tensors ``[B, N, *event]`` that a model is a distribution over.

    Attributes:
        shape: how the N sites are arranged, ``(N,)`` for a sequence, ``(H, W)`` for a grid, ``(T, H, W)`` for a
            clip; N is the product.
        sizes: number of categories, one for all sites or one per site; 0 for real values.
        event: shape of the values at one site, ``()`` for a scalar, ``(3,)`` for a colour.
        stop: symbol that ends a sequence and pads what follows; None if every site is always used.
        classes: number of class labels that the model may be conditioned on.
        vector: size of a real vector that the model may be conditioned on (a nested head's features).
        text: bytes of a caption that the model may be conditioned on.
        site: size of a real vector per site that the model may be conditioned on.
        coords: position of every site, N rows; by default the index along every axis of ``shape``.
        ordinal: neighbouring categories are alike (grey levels), so that mixtures of logistics make sense.
        groups: sites that make sense in this sequence only (the digits of a number), which random orders keep.
        lexicons: columns with listed values.
        ordered: sites, in ascending order, whose symbols ascend with a number, where only some sites are such.
    """

    shape: tuple[int, ...]
    sizes: int | tuple[int, ...]
    event: tuple[int, ...] = ()
    stop: int | None = None
    classes: int = 0
    vector: int = 0
    site: int = 0
    coords: tuple[tuple[float, ...], ...] | None = None
    ordinal: bool = False
    groups: tuple[tuple[int, ...], ...] = ()
    lexicons: tuple[Lexicon, ...] = ()
    text: int = 0
    ordered: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.sizes, tuple) and len(self.sizes) != self.n:
            raise ValueError(
                f"sizes has {len(self.sizes)} entries for {self.n} sites; give one per site or one for all"
            )

    @property
    def n(self) -> int:
        """Number of sites N."""
        return math.prod(self.shape)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the sites.

        Raises:
            DataError: they stand in a sequence.
        """
        if len(self.shape) != 2:
            raise DataError(
                f"this model draws a grid of sites, and there are {self.n} in a sequence; choose a tokenizer whose "
                "codes stand in a grid"
            )
        return self.shape[0], self.shape[1]

    @property
    def discrete(self) -> bool:
        """Whether the values are categories rather than real numbers."""
        return self.largest > 0

    @property
    def largest(self) -> int:
        """Largest number of categories at any site; 0 for real values."""
        return self.sizes if isinstance(self.sizes, int) else max(self.sizes)

    @property
    def scalars(self) -> int:
        """Numbers that one item consists of: the "dimensions" of bits per dimension."""
        return self.n * math.prod(self.event)

    def empty(self) -> Tensor:
        """The values of no item, ``[0, N, *event]``."""
        return torch.zeros(0, self.n, *self.event, dtype=torch.int64 if self.discrete else torch.float32)

    def site_sizes(self) -> Tensor:
        """Categories at every site, int64 ``[N]``."""
        if isinstance(self.sizes, int):
            return torch.full((self.n,), self.sizes, dtype=torch.int64)
        return torch.tensor(self.sizes, dtype=torch.int64)

    def waves(self, most: int = 8) -> tuple[Tensor, ...]:
        """Smooth functions on the symbols of every ordered site, each float32 ``[K, most]``.

        They are cosines of 1, 2 ... half waves over the K symbols, the j-th of amplitude 1/j, scaled so that the mean
        square length of a symbol's row is 1. A linear map of them changes little from a symbol to the next.
        """
        number, sizes = torch.arange(1, most + 1), self.site_sizes()
        each = []
        for site in self.ordered:
            place = (torch.arange(int(sizes[site])) + 0.5) / sizes[site]
            wave = torch.cos(math.pi * place[:, None] * number) / number
            each.append(wave / wave.square().sum(1).mean().sqrt().clamp(min=1e-6))
        return tuple(each)

    def positions(self) -> Tensor:
        """Coordinates of the sites, float32 ``[N, axes]``."""
        if self.coords is not None:
            return torch.tensor(self.coords, dtype=torch.float32)
        axes = [torch.arange(s, dtype=torch.float32) for s in self.shape]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(self.n, len(self.shape))

    def replace(self, **changes: Any) -> Space:
        """A copy with some attributes changed."""
        return replace(self, **changes)

    def inner(self, vector: int) -> Space:
        """The space of one site's values, conditioned on a feature vector: what a nested head models."""
        if not self.event:
            raise DataError(
                "this model draws the several values of a site in turn, and there is one per site: keep the recipe's "
                "own tokenizer"
            )
        if not isinstance(self.sizes, int):
            raise ValueError("a nested head needs the same categories at every site")
        return Space(shape=(math.prod(self.event),), sizes=self.sizes, vector=vector, ordinal=self.ordinal)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON content; see :meth:`from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Space:
        """The space that :meth:`to_json` described."""
        content = dict(content)
        for key in ("shape", "event"):
            content[key] = tuple(content[key])
        if isinstance(content["sizes"], list):
            content["sizes"] = tuple(content["sizes"])
        content["ordered"] = tuple(content.get("ordered", ()))
        if content.get("coords") is not None:
            content["coords"] = tuple(tuple(row) for row in content["coords"])
        content["groups"] = tuple(tuple(group) for group in content.get("groups", ()))
        content["lexicons"] = tuple(
            Lexicon(tuple(lexicon["sites"]), lexicon["counted"]) for lexicon in content.get("lexicons", ())
        )
        return cls(**content)


@dataclass
class Condition:
    """What a model is told beside the values; every part is optional.

    Attributes:
        label: int64 ``[B]``, -1 where the label is withheld (classifier-free guidance).
        vector: float32 ``[B, V]``.
        site: float32 ``[B, N, C]``, one vector per site.
        altered: bool ``[B]``, which training items are augmented ones (:class:`ancestral.augment.Augmented`); without
            it, and always after training, none is.
        text: int64 ``[B, L]``, the bytes of captions plus 1, padded with 0; all 0 where there is none.
    """

    label: Tensor | None = None
    vector: Tensor | None = None
    site: Tensor | None = None
    altered: Tensor | None = None
    text: Tensor | None = None

    def map(self, function: Any) -> Condition:
        """Apply ``function`` to every part that is there."""
        return Condition(*(None if t is None else function(t) for t in self.parts()))

    def without_label(self) -> Condition:
        """The same condition with all labels and captions withheld."""
        label = None if self.label is None else torch.full_like(self.label, -1)
        return replace(self, label=label, text=None if self.text is None else torch.zeros_like(self.text))

    @staticmethod
    def join(first: Condition, second: Condition) -> Condition:
        """Stack two conditions along the batch."""
        pairs = zip(first.parts(), second.parts(), strict=True)
        return Condition(*(None if a is None or b is None else torch.cat([a, b]) for a, b in pairs))

    def parts(self) -> tuple[Tensor | None, ...]:
        """All parts, in declaration order."""
        return self.label, self.vector, self.site, self.altered, self.text
