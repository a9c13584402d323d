"""Wavelet bit planes: an image as decisions from the most significant bit of the coarsest coefficient on."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ancestral.data import Dataset, Images
from ancestral.errors import DataError
from ancestral.space import Space
from ancestral.tokenizers.transforms import FixedTransform

LONG = 8192
"""Tokens per image beyond which a word of warning is due."""
ZERO, POSITIVE, NEGATIVE, LOW, HIGH = range(5)
"""Still insignificant; significant now, with a sign; the next bit of a significant coefficient."""


def lift(pixels: np.ndarray, levels: int) -> np.ndarray:
    """Integer wavelet coefficients of images int64 ``[n, H, W]``, coarse band in the upper left corner.

    The reversible 5/3 filter of JPEG 2000 (Le Gall and Tabatabai 1988) by lifting, with mirrored edges: predictions
    and updates are rounded, so that :func:`drop` gives the same integers back.
    """
    out = pixels.astype(np.int64).copy()
    height, width = out.shape[1:]
    for _ in range(levels):
        for axis in (2, 1):
            part = np.moveaxis(out[:, :height, :width], axis, 2)
            even, odd = part[..., ::2].copy(), part[..., 1::2].copy()
            if odd.shape[-1]:
                odd -= (even[..., : odd.shape[-1]] + _after(even, odd.shape[-1])) >> 1
                even += (_before(odd, even.shape[-1]) + _here(odd, even.shape[-1]) + 2) >> 2
            out[:, :height, :width] = np.moveaxis(np.concatenate([even, odd], -1), 2, axis)
        height, width = -(-height // 2), -(-width // 2)
    return out


def drop(coefficients: np.ndarray, levels: int) -> np.ndarray:
    """The inverse of :func:`lift`."""
    out = coefficients.astype(np.int64).copy()
    sizes = [out.shape[1:]]
    for _ in range(levels - 1):
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    for height, width in reversed(sizes[:levels]):
        for axis in (1, 2):
            part = np.moveaxis(out[:, :height, :width], axis, 2)
            count = -(-part.shape[-1] // 2)
            even, odd = part[..., :count].copy(), part[..., count:].copy()
            if odd.shape[-1]:
                even -= (_before(odd, count) + _here(odd, count) + 2) >> 2
                odd += (even[..., : odd.shape[-1]] + _after(even, odd.shape[-1])) >> 1
            whole = np.empty_like(part)
            whole[..., ::2], whole[..., 1::2] = even, odd
            out[:, :height, :width] = np.moveaxis(whole, 2, axis)
    return out


def apart(pixels: np.ndarray) -> np.ndarray:
    """Brightness and two differences of colour in place of red, green and blue: int64 ``[n, H, W, C]``.

    The reversible transform of JPEG 2000 (ISO/IEC 15444-1, annex G). Other channels, such as alpha, stay as they are.
    """
    out = pixels.astype(np.int64)
    if out.shape[-1] >= 3:
        red, green, blue = (out[..., c].copy() for c in range(3))
        out[..., 0], out[..., 1], out[..., 2] = (red + 2 * green + blue) >> 2, blue - green, red - green
    return out


def together(planes: np.ndarray) -> np.ndarray:
    """The inverse of :func:`apart`."""
    out = planes.copy()
    if out.shape[-1] >= 3:
        bright, blues, reds = (planes[..., c] for c in range(3))
        green = bright - ((blues + reds) >> 2)
        out[..., 0], out[..., 1], out[..., 2] = reds + green, green, blues + green
    return out


def _after(even: np.ndarray, count: int) -> np.ndarray:
    """The even sample behind each odd one; the last is mirrored."""
    return np.concatenate([even[..., 1:], even[..., -1:]], -1)[..., :count]


def _here(odd: np.ndarray, count: int) -> np.ndarray:
    """The odd sample behind each even one; mirrored at the end."""
    return np.concatenate([odd, odd[..., -1:]], -1)[..., :count]


def _before(odd: np.ndarray, count: int) -> np.ndarray:
    """The odd sample before each even one; mirrored at the beginning."""
    return np.concatenate([odd[..., :1], odd], -1)[..., :count]


class WaveletPlanes(FixedTransform):
    """Bit planes of integer wavelet coefficients, coarsest and most significant first.

    Plane by plane, every coefficient gets a token: it stays insignificant, becomes significant with a sign, or, if it
    is significant, gets its next bit (a plain form of Mattar et al. 2024, arXiv:2406.19997, without their tokens for
    groups of insignificant coefficients). Colours become brightness and two differences, whose coefficients of a place
    follow each other. Each prefix of the sequence is an image, and with all planes the image comes back to the bit.

    Args:
        levels: of the wavelet transform.
        planes: bit planes kept, the most significant ones; None keeps all, and is lossless. The training images say how
            many there are.
    """

    def __init__(self, levels: int = 2, planes: int | None = None):
        if levels < 1 or (planes is not None and planes < 1):
            raise ValueError("levels= and planes= must be at least 1")
        self.transform_levels, self.planes, self.top = levels, planes, 0

    @property
    def lossless(self) -> bool:  # type: ignore[override]
        return self.planes is None or self.planes >= self.top

    def _own(self) -> dict[str, Any]:
        return {"levels": self.transform_levels, "planes": self.planes}

    def state(self) -> dict[str, Any]:
        return super().state() | {"top": self.top}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.top = state["top"]

    def fit(self, dataset: Dataset) -> WaveletPlanes:
        images = self._remember(dataset)
        peak = int(np.abs(self._coefficients(images.pixels)).max()) if len(images) else 1
        self.top = max(peak.bit_length(), 1)
        kept = self._kept()
        colours = range(self.shape[2])
        sites = [
            (float(p), float(v), float(u), float(c)) if len(colours) > 1 else (float(p), float(v), float(u))
            for p in range(kept)
            for v, u in self._scan()
            for c in colours
        ]
        if len(sites) > LONG:
            warnings.warn(
                f"every image is {len(sites):,} tokens, on which a transformer is slow: read the images smaller "
                "(size=), in grey (channels=1), or keep fewer planes=",
                stacklevel=2,
            )
        # In the first plane nothing is significant yet, and no bit can follow.
        count = len(sites) // kept
        sizes = (LOW,) * count + (HIGH + 1,) * (len(sites) - count)
        self._space = Space((len(sites),), sizes, classes=len(self.classes), coords=tuple(sites))
        return self

    def _coefficients(self, pixels: np.ndarray) -> np.ndarray:
        """Integer coefficients in the order of the sites of one plane, int64 ``[n, H * W * C]``."""
        planes = apart(pixels)
        planes[..., 0] -= self.levels // 2
        scan = np.array(self._scan())
        bands = [lift(planes[..., c], self.transform_levels) for c in range(self.shape[2])]
        return np.stack([band[:, scan[:, 0], scan[:, 1]] for band in bands], -1).reshape(len(pixels), -1)

    def _kept(self) -> int:
        return self.top if self.planes is None else min(self.planes, self.top)

    def _scan(self) -> list[tuple[int, int]]:
        """Places of the coefficients, coarse bands first, each in raster order."""
        height, width = self.shape[:2]
        sizes = [(height, width)]
        for _ in range(self.transform_levels):
            sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))

        def band(place: tuple[int, int]) -> int:
            return -sum(place[0] < h and place[1] < w for h, w in sizes)

        return sorted(((v, u) for v in range(height) for u in range(width)), key=lambda p: (band(p), p))

    def encode(self, dataset: Dataset) -> Tensor:
        flat = self._coefficients(self._pixels(dataset))
        size, tokens = np.abs(flat), []
        beyond = (size >> self.top).any(1)
        if beyond.any():
            raise DataError(
                f"image {int(np.argmax(beyond))} has a wavelet coefficient of more than {self.top} bits, which no "
                "training image had; train on more images"
            )
        for plane in range(self.top - 1, self.top - 1 - self._kept(), -1):
            old, bit = (size >> (plane + 1)) > 0, (size >> plane) & 1
            fresh = np.where(bit == 0, ZERO, np.where(flat > 0, POSITIVE, NEGATIVE))
            tokens.append(np.where(old, LOW + bit, fresh))
        return torch.from_numpy(np.concatenate(tokens, 1).astype(np.int64))

    def decode(self, values: Tensor) -> Images:
        """The images of values ``[n, N]``; a token that cannot stand at its place counts as a zero bit."""
        scan, kept = np.array(self._scan()), self._kept()
        planes = values.numpy().reshape(len(values), kept, -1)
        size, sign = np.zeros(planes[:, 0].shape, np.int64), np.ones(planes[:, 0].shape, np.int64)
        for k in range(kept):
            token, plane = planes[:, k], self.top - 1 - k
            fresh = (size == 0) & ((token == POSITIVE) | (token == NEGATIVE))
            sign = np.where(fresh & (token == NEGATIVE), -1, sign)
            size = size + ((fresh | ((size > 0) & (token == HIGH))).astype(np.int64) << plane)
        rest = self.top - kept
        if rest:  # the middle of what the planes left out may be
            size = np.where(size > 0, size + (1 << (rest - 1)), 0)
        coefficients = np.zeros((len(values), *self.shape), np.int64)
        coefficients[:, scan[:, 0], scan[:, 1]] = (sign * size).reshape(len(values), len(scan), -1)
        whole = np.stack([drop(coefficients[..., c], self.transform_levels) for c in range(self.shape[2])], -1)
        whole[..., 0] += self.levels // 2
        return self._images(np.clip(together(whole), 0, self.levels - 1))
