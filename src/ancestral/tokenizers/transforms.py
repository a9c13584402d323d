"""Fixed transforms of images: cosine coefficients, wavelet bit planes, JPEG bytes."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ancestral.data import Dataset, Images
from ancestral.errors import DataError
from ancestral.space import Space
from ancestral.tokenizers.base import Tokenizer


class FixedTransform(Tokenizer):
    """Shared by fixed image tokenizers: image size, grey levels, and the form in which images are given back."""

    modality = "images"

    def _remember(self, dataset: Dataset) -> Images:
        self._expect(dataset)
        assert isinstance(dataset, Images)
        self.shape: tuple[int, int, int] = dataset.pixels.shape[1:]
        self.levels = dataset.levels
        self.form: dict[str, Any] = dataset.form | {"names": None}
        self.classes = dataset.classes if dataset.labels is not None else ()
        return dataset

    def _pixels(self, dataset: Dataset) -> np.ndarray:
        self._expect(dataset)
        assert isinstance(dataset, Images)
        _ = self.space
        if dataset.pixels.shape[1:] != self.shape:
            ours, theirs = ("x".join(map(str, s)) for s in (self.shape, dataset.pixels.shape[1:]))
            raise DataError(
                f"the images are {theirs} where the model takes {ours} (height x width x channels); "
                "read them with size= and channels="
            )
        if dataset.pixels.size and int(dataset.pixels.max()) >= self.levels:
            raise DataError(f"grey level {int(dataset.pixels.max())} is beyond the {self.levels} that the model knows")
        return dataset.pixels

    def _images(self, pixels: np.ndarray) -> Images:
        return Images(pixels.astype(np.uint8), classes=self.classes, levels=self.levels).with_form(self.form)

    def _own(self) -> dict[str, Any]:
        """The arguments, as JSON content."""
        return {}

    def state(self) -> dict[str, Any]:
        own = {"shape": list(self.shape), "levels": self.levels, "form": self.form}
        return self._base_state() | own | {"arguments": self._own()}

    def load_state(self, state: dict[str, Any]) -> None:
        type(self).__init__(self, **state["arguments"])
        self._load_base(state)
        height, width, channels = state["shape"]
        self.shape, self.levels, self.form = (height, width, channels), state["levels"], dict(state["form"])


def cosine_matrix(n: int) -> np.ndarray:
    """The orthonormal discrete cosine transform of n samples, float64 ``[n, n]``: row k is the k-th frequency."""
    k, t = np.arange(n)[:, None], np.arange(n)[None]
    rows = np.sqrt(2 / n) * np.cos(np.pi * (2 * t + 1) * k / (2 * n))
    rows[0] /= math.sqrt(2)
    return rows


class DCT(FixedTransform):
    """Cosine coefficients of the whole grey image, rounded: lossy unless ``step`` is very small.

    The coefficient of frequency (v, u) stands at site (v, u), so that the order "frequency" draws an image from coarse
    to fine. Each is divided by ``step``, rounded, and shifted by half of ``bins``; what is beyond the last bin is cut.

    Args:
        bins: categories per coefficient.
        step: pixel values per bin, for coefficients of unit-length basis images; by default the smallest with which
            the training images are not cut.
    """

    lossless = False

    def __init__(self, bins: int = 256, step: float | None = None):
        if bins < 2:
            raise ValueError(f"bins={bins} must be at least two")
        self.bins, self.step = bins, step

    def _own(self) -> dict[str, Any]:
        return {"bins": self.bins, "step": self.step}

    def _transform(self, pixels: np.ndarray) -> np.ndarray:
        height, width = self.shape[:2]
        centred = pixels[..., 0].astype(np.float64) - (self.levels - 1) / 2
        return cosine_matrix(height) @ centred @ cosine_matrix(width).T

    def fit(self, dataset: Dataset) -> DCT:
        images = self._remember(dataset)
        if self.shape[2] != 1:
            raise DataError("cosine coefficients are taken of grey images; read them with channels=1")
        if self.step is None:
            peak = float(np.abs(self._transform(images.pixels)).max()) if len(images) else 1.0
            self.step = max(peak, 1e-6) / ((self.bins - 1) // 2 or 1)
        self._space = Space(self.shape[:2], self.bins, classes=len(self.classes), ordinal=True)
        return self

    def encode(self, dataset: Dataset) -> Tensor:
        found = np.rint(self._transform(self._pixels(dataset)) / self.step) + self.bins // 2
        return torch.from_numpy(np.clip(found, 0, self.bins - 1).astype(np.int64)).flatten(1)

    def decode(self, values: Tensor) -> Images:
        height, width = self.shape[:2]
        found = (values.numpy().reshape(-1, height, width) - self.bins // 2) * self.step
        pixels = cosine_matrix(height).T @ found @ cosine_matrix(width) + (self.levels - 1) / 2
        return self._images(np.clip(np.rint(pixels), 0, self.levels - 1)[..., None])


class JPEGBytes(FixedTransform):
    """The bytes of each image's JPEG file, without the header that all files share (JPEG-LM: Han et al. 2024,
    arXiv:2408.08459).

    All files are written by Pillow with one quality, no chroma subsampling, and the standard Huffman tables; a stop
    symbol ends each. A model's samples that are no valid file decode to what can be read of it, and grey below.

    Args:
        quality: 1 to 95.
        length: most bytes per image; by default those of the longest training image.
    """

    lossless = False

    def __init__(self, quality: int = 25, length: int | None = None):
        if not 1 <= quality <= 95:
            raise ValueError(f"quality={quality} must be from 1 to 95")
        self.quality, self.length = quality, length
        self.header = b""

    def _own(self) -> dict[str, Any]:
        return {"quality": self.quality, "length": self.length}

    def _file(self, pixels: np.ndarray) -> bytes:
        from PIL import Image

        stretched = np.rint(pixels * (255 / max(self.levels - 1, 1))).astype(np.uint8)
        picture = Image.fromarray(stretched[..., 0] if pixels.shape[-1] == 1 else stretched)
        file = io.BytesIO()
        picture.save(file, format="JPEG", quality=self.quality, subsampling=0, optimize=False)
        return file.getvalue()

    def _bytes(self, pixels: np.ndarray) -> bytes:
        whole = self._file(pixels)
        if not self.header:
            # The scan starts behind the start-of-scan marker and its length; all before is the same for all.
            scan = whole.index(b"\xff\xda")
            self.header = whole[: scan + 2 + int.from_bytes(whole[scan + 2 : scan + 4], "big")]
        return whole[len(self.header) : -2]

    def fit(self, dataset: Dataset) -> JPEGBytes:
        images = self._remember(dataset)
        if self.shape[2] not in (1, 3):
            raise DataError("JPEG holds grey or RGB images; read them with channels=1 or 3")
        if self.length is None:
            self.length = max((len(self._bytes(p)) for p in images.pixels), default=1)
        self._space = Space((self.length,), 257, stop=256, classes=len(self.classes))
        return self

    def encode(self, dataset: Dataset) -> Tensor:
        """Bytes int64 ``[n, N]``, padded with 256.

        Raises:
            DataError: an image whose file is longer than any in training.
        """
        pixels = self._pixels(dataset)
        values = np.full((len(pixels), self.space.n), 256, np.int64)
        for i, image in enumerate(pixels):
            row = np.frombuffer(self._bytes(image), np.uint8)
            if len(row) > self.space.n:
                raise DataError(f"image {i} takes {len(row)} bytes where the model takes {self.space.n}; give length=")
            values[i, : len(row)] = row
        return torch.from_numpy(values)

    def decode(self, values: Tensor) -> Images:
        from PIL import Image, ImageFile

        height, width, channels = self.shape
        if not self.header:
            self._bytes(np.zeros(self.shape, np.uint8))
        pixels = np.full((len(values), *self.shape), (self.levels - 1) // 2, np.uint8)
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            for i, row in enumerate(values.numpy()):
                ends = np.flatnonzero(row == 256)
                body = row[: ends[0]] if len(ends) else row
                try:
                    picture = Image.open(io.BytesIO(self.header + body.astype(np.uint8).tobytes() + b"\xff\xd9"))
                    found = np.asarray(picture.convert("L" if channels == 1 else "RGB"), np.float64)
                except (OSError, ValueError, SyntaxError):
                    continue  # nothing of it can be read
                if found.shape[:2] == (height, width):
                    pixels[i] = np.rint(found * ((self.levels - 1) / 255)).reshape(self.shape)
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before
        return self._images(pixels)

    def size(self, dataset: Dataset, item: int) -> int:
        return len(self._bytes(self._pixels(dataset.take([item]))[0]))
