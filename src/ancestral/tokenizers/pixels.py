"""Pixels as they are: one site per pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ancestral.data.base import Dataset
from ancestral.data.images import Images
from ancestral.errors import DataError
from ancestral.space import Space
from ancestral.tokenizers.base import Tokenizer


class Pixels(Tokenizer):
    """A grid of H x W sites: the grey level (event ``()``) or the C channels (event ``(C,)``) of a pixel.

    Args:
        levels: number of grey levels; by default that of the training images.

    Shapes:
        values: int64 ``[n, H*W]`` or ``[n, H*W, C]``, in raster order, below ``levels``.
    """

    modality = "images"

    def __init__(self, levels: int | None = None) -> None:
        self.levels = levels
        self.shape: tuple[int, int, int] = (0, 0, 0)
        self.form: dict[str, Any] = {}

    def fit(self, dataset: Dataset) -> Pixels:
        self._expect(dataset)
        assert isinstance(dataset, Images)
        height, width, channels = dataset.pixels.shape[1:]
        if self.levels is None:
            self.levels = dataset.levels
        self.shape = (height, width, channels)
        self.classes = dataset.classes if dataset.labels is not None else ()
        self.form = dataset.form | {"names": None}
        self._settle()
        self._check(dataset)
        return self

    def _settle(self) -> None:
        height, width, channels = self.shape
        self._space = Space(
            shape=(height, width),
            sizes=self.levels or 256,
            event=() if channels == 1 else (channels,),
            classes=len(self.classes),
            ordinal=True,
        )

    def _check(self, dataset: Images) -> None:
        if dataset.pixels.shape[1:] != self.shape:
            ours, theirs = ("x".join(map(str, s)) for s in (self.shape, dataset.pixels.shape[1:]))
            raise DataError(
                f"the images are {theirs} where the model takes {ours} (height x width x channels); "
                "read them with size= and channels="
            )
        high = dataset.pixels.reshape(len(dataset), -1).max(1) if len(dataset) else np.zeros(0)
        if (high >= (self.levels or 256)).any():
            item = int(np.argmax(high >= (self.levels or 256)))
            raise DataError(
                f"image {item} has the value {int(high[item])} where the model knows grey levels 0 to "
                f"{(self.levels or 256) - 1}; convert the images or fit with levels={int(high.max()) + 1} "
                "or more"
            )

    def encode(self, dataset: Dataset) -> Tensor:
        self._expect(dataset)
        assert isinstance(dataset, Images)
        space = self.space
        self._check(dataset)
        pixels = np.ascontiguousarray(dataset.pixels, dtype=np.uint8)
        return torch.from_numpy(pixels).to(torch.int64).reshape(len(dataset), space.n, *space.event)

    def given(self, given: Any) -> tuple[Tensor, Tensor]:
        mask = np.ma.getmaskarray(given) if isinstance(given, np.ma.MaskedArray) else np.zeros((), dtype=bool)
        array = np.asarray(np.ma.getdata(given))
        height, width, channels = self.shape
        if array.shape not in ((height, width), self.shape) or (array.ndim == 2 and channels > 1):
            raise DataError(f"given= has the shape {array.shape}; give one image {self.shape} with NaN where not known")
        gaps = (np.isnan(array) if array.dtype.kind == "f" else np.zeros(array.shape, dtype=bool)) | mask
        plain = np.where(gaps, 0, array)
        images = Images.read(plain.reshape(1, *self.shape), levels=256)
        # A pixel with an unknown channel is an unknown site.
        known = torch.from_numpy(~gaps.reshape(self.space.n, -1).any(1))
        return self.encode(images)[0], known

    def decode(self, values: Tensor) -> Images:
        pixels = values.detach().cpu().reshape(len(values), *self.shape)
        if pixels.numel() and (int(pixels.min()) < 0 or int(pixels.max()) >= (self.levels or 256)):
            raise DataError(f"values from {int(pixels.min())} to {int(pixels.max())} are not {self.levels} grey levels")
        images = Images(pixels.to(torch.uint8).numpy(), classes=self.classes, levels=self.levels or 256)
        return images.with_form(self.form)

    def decode_given(self, values: Tensor, dataset: Dataset, known: Tensor | None = None) -> Images:
        """Completed images; known pixels, bool ``[n, H, W]``, of sites that were drawn anew are as they were."""
        images = self.decode(values)
        if known is not None and known.dim() == 3:
            assert isinstance(dataset, Images)
            images.pixels = np.where(known.numpy()[..., None], dataset.pixels, images.pixels)
        return images

    def state(self) -> dict[str, Any]:
        return self._base_state() | {"levels": self.levels, "shape": list(self.shape), "form": self.form}

    def load_state(self, state: dict[str, Any]) -> None:
        self._load_base(state)
        self.levels = state["levels"]
        height, width, channels = state["shape"]
        self.shape = (height, width, channels)
        self.form = dict(state["form"])
