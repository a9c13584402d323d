"""Interchangeable parts of learned tokenizers, each described by the arguments it was made with."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.errors import DataError
from ancestral.noise import Noise
from ancestral.space import Space


class Part(nn.Module):
    """A module that remembers its constructor's arguments, so that JSON can rebuild it."""

    _kinds: ClassVar[dict[str, type[Part]]] = {}
    arguments: dict[str, Any]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        Part._kinds[cls.__name__] = cls

    def __new__(cls, *positional: Any, **named: Any) -> Self:
        made = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind(made, *positional, **named)
        except TypeError:
            return made  # copies are made without arguments and filled afterwards; else __init__ will say what is wrong
        bound.apply_defaults()
        object.__setattr__(made, "arguments", dict(list(bound.arguments.items())[1:]))
        return made

    def state(self) -> dict[str, Any]:
        """Kind and arguments as plain JSON content."""
        return {"kind": type(self).__name__, **{k: _plain(v) for k, v in self.arguments.items()}}

    @staticmethod
    def from_state(state: dict[str, Any]) -> Any:
        """The unbuilt part that :meth:`state` described.

        Raises:
            DataError: a kind that is not installed.
        """
        arguments = dict(state)
        kind = Part._kinds.get(arguments.pop("kind"))
        if kind is None:
            raise DataError(f"part {state['kind']!r} of a tokenizer is not known here; import its module first")
        return kind(**{k: _rich(v) for k, v in arguments.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, Part):
        return value.state()
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _rich(value: Any) -> Any:
    if isinstance(value, dict) and "kind" in value:
        return Part.from_state(value)
    return tuple(_rich(v) for v in value) if isinstance(value, list) else value


class Quantised:
    """What a quantiser makes of latents.

    Attributes:
        latents: float ``[B, C, H, W]`` for the decoder; gradients pass to the encoder.
        codes: int64 or float32 ``[B, N, *event]``.
        loss: scalar to add to the reconstruction loss.
        parts: named shares of it, for reports.
    """

    def __init__(self, latents: Tensor, codes: Tensor, loss: Tensor, **parts: Tensor):
        self.latents, self.codes, self.loss, self.parts = latents, codes, loss, parts


class Quantiser(Part):
    """Latents on a grid to values at sites and back.

    Attributes:
        width: channels C of the latents that it gives the decoder.
        inputs: channels of the latents that it takes from the encoder; C, but 2 C for a mean and a variance.
    """

    width: int

    @property
    def inputs(self) -> int:
        return self.width

    def build(self, height: int, width: int) -> Quantiser:
        """Create the parameters for latents of ``height x width``; returns self."""
        self.grid = (height, width)
        return self

    def space(self, shape: tuple[int, ...]) -> Space:
        """The sites and values, for latents arranged as ``shape`` (the grid, or one axis)."""
        raise NotImplementedError("a quantiser defines space")

    def forward(self, latents: Tensor, noise: Noise, chance: Any = None) -> Quantised:
        """Quantise ``[B, inputs, H, W]``; in training, codebooks follow.

        Args:
            latents: from the encoder.
            noise: one stream of random numbers per item.
            chance: ``torch.Generator`` for what belongs to the batch rather than to an item (restarted codes).
        """
        raise NotImplementedError("a quantiser defines forward")

    def encode(self, latents: Tensor) -> Tensor:
        """Codes ``[B, N, *event]`` of latents ``[B, inputs, H, W]``; always the same for the same latents."""
        raise NotImplementedError("a quantiser defines encode")

    def decode(self, codes: Tensor) -> Tensor:
        """Latents ``[B, C, H, W]`` of codes ``[B, N, *event]``."""
        raise NotImplementedError("a quantiser defines decode")

    def initialise(self, latents: Tensor, seed: int) -> None:
        """Look at the untrained encoder's latents of some items ``[n, inputs, H, W]`` before training."""

    def finish(self, latents: Tensor) -> None:
        """Look at the trained encoder's latents of some items ``[n, inputs, H, W]`` after training."""

    def meaning(self, latents: Tensor) -> Tensor:
        """Those channels of quantised latents ``[B, C, H, W]`` that a semantic loss is about."""
        return latents

    def resolutions(self) -> tuple[int, ...]:
        """Side of every map, coarsest first, if the sites are maps of growing resolution; else nothing."""
        return ()

    def known(self, cells: Tensor) -> Tensor:
        """Sites bool ``[n, N]`` whose codes depend on known cells of the grid alone, bool ``[n, H, W]``."""
        return cells.flatten(1)


class Pyramid(Quantiser):
    """Quantiser whose sites are maps of growing resolution, numbered scale by scale, coarsest first.

    Attributes:
        scales: side of every map; the last is that of the latents.
    """

    scales: tuple[int, ...]

    def resolutions(self) -> tuple[int, ...]:
        return self.scales

    def coordinates(self) -> tuple[tuple[float, ...], ...]:
        """Scale, and row and column of the finest map, of every site."""
        side = self.scales[-1]
        return tuple(
            (float(k), (i + 0.5) * side / s - 0.5, (j + 0.5) * side / s - 0.5)
            for k, s in enumerate(self.scales)
            for i in range(s)
            for j in range(s)
        )

    def strip(self) -> Tensor | None:
        """Drop what only encoding and decoding need, and return the code vectors ``[K, C]``, if there are any."""
        raise NotImplementedError("a pyramid defines strip")

    def grow(self, total: Tensor | None, vectors: Tensor, scale: int) -> Tensor:
        """What is known ``[B, C, h, w]`` of the latents once a scale's vectors ``[B, C, s, s]`` are."""
        raise NotImplementedError("a pyramid defines grow")

    def shrink(self, latents: Tensor, scale: int) -> Tensor:
        """What is known, ``[B, C, h, w]``, at the resolution of a scale."""
        raise NotImplementedError("a pyramid defines shrink")

    def known(self, cells: Tensor) -> Tensor:
        hidden = (~cells)[:, None].float()
        return torch.cat([F.adaptive_max_pool2d(hidden, s).flatten(1) == 0 for s in self.scales], 1)


class Backbone(Part):
    """Encoder from images to latents on a grid, and decoder back.

    Attributes:
        grid: height and width of the latents.
        shape: how the sites are arranged for a network: the grid, or one axis.
    """

    grid: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.grid

    def build(self, image: tuple[int, int, int], inputs: int, width: int) -> Backbone:
        """Create the parameters; returns self.

        Args:
            image: channels, height, width.
            inputs: channels of the latents that the encoder gives.
            width: channels of the latents that the decoder takes.

        Raises:
            DataError: images whose size does not suit.
        """
        raise NotImplementedError("a backbone defines build")

    def encode(self, images: Tensor) -> Tensor:
        """Latents ``[B, inputs, h, w]`` of images ``[B, C, H, W]`` in [-1, 1]."""
        raise NotImplementedError("a backbone defines encode")

    def decode(self, latents: Tensor) -> Tensor:
        """Images ``[B, C, H, W]`` of latents ``[B, width, h, w]``."""
        raise NotImplementedError("a backbone defines decode")

    def cells(self, known: Tensor) -> Tensor:
        """Cells of the latent grid bool ``[n, h, w]`` that stand for known pixels alone, bool ``[n, H, W]``."""
        raise NotImplementedError("a backbone defines cells")


def flat(latents: Tensor) -> Tensor:
    """Vectors ``[B * H * W, C]`` of a map ``[B, C, H, W]``."""
    return latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])


def unflat(vectors: Tensor, like: Tensor) -> Tensor:
    """The map ``[B, C, H, W]`` of vectors ``[B * H * W, C]``, arranged as ``like``."""
    b, _, h, w = like.shape
    return vectors.reshape(b, h, w, -1).permute(0, 3, 1, 2)
