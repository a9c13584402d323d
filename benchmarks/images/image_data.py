"""The image data of the benchmarks: MNIST and a subset of CIFAR-10, padded or cut to 32 x 32 pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ancestral.data import Images, read

CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TITLES = {
    "mnist": "MNIST (20,000 of 60,000 training images), padded to 32 x 32",
    "cifar10": "CIFAR-10 (the first 3,000 training images)",
}


def load(name: str, folder: Path) -> tuple[Images, Images]:
    """Training and test images, 32 x 32, with their labels.

    Args:
        name: "mnist" (train.npz and test.npz with 28 x 28 images) or "cifar10" (PNG strips of 1,000 images and
            labels.txt; three to train, the fourth to test).
        folder: where they are.
    """
    if name == "mnist":
        parts = [read(folder / "mnist" / f"{part}.npz", "images") for part in ("train", "test")]
        train, test = (
            Images(np.pad(p.pixels, ((0, 0), (2, 2), (2, 2), (0, 0))), p.labels, p.classes, p.levels) for p in parts
        )
        return train, test
    from PIL import Image

    strips = [np.asarray(Image.open(folder / "cifar10_png" / f"cifar10_batch_{i}.png")) for i in range(4)]
    pixels = np.concatenate([strip.reshape(1000, 32, 32, 3) for strip in strips])
    lines = (folder / "cifar10_png" / "labels.txt").read_text(encoding="utf-8").splitlines()
    labels = np.array([int(line.split()[0]) for line in lines])
    whole = Images(pixels, labels, CIFAR_CLASSES)
    return whole.take(slice(0, 3000)), whole.take(slice(3000, 4000))


def reduced(images: Images, factor: int) -> Images:
    """The images with every square of ``factor x factor`` pixels averaged to one."""
    count, height, width, channels = images.pixels.shape
    cut = images.pixels.reshape(count, height // factor, factor, width // factor, factor, channels)
    pixels = cut.mean((2, 4), dtype=np.float32).round().astype(np.uint8)
    return Images(pixels, images.labels, images.classes, images.levels)


def enlarged(images: Images, factor: int) -> Images:
    """The images with every pixel repeated ``factor`` times along both axes."""
    pixels = images.pixels.repeat(factor, 1).repeat(factor, 2)
    return Images(pixels, images.labels, images.classes, images.levels)
