"""Inception-v3 as the Frechet inception distance uses it, for weights that the user has in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.data import Images
from ancestral.errors import DataError
from ancestral.evaluation.features import FeatureNetwork

_SIDE = 299  # pixels that the network was made for
_FEATURES, _CLASSES = 2048, 1008


class Unit(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int | tuple[int, int], **options: Any):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, bias=False, **options)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def _pool(x: Tensor) -> Tensor:
    # As in TensorFlow, whose average leaves padding out.
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _across(inputs: int, outputs: int) -> Unit:
    return Unit(inputs, outputs, (1, 7), padding=(0, 3))


def _down(inputs: int, outputs: int) -> Unit:
    return Unit(inputs, outputs, (7, 1), padding=(3, 0))


class Narrow(nn.Module):
    """Branches of 1 x 1, 5 x 5, twice 3 x 3, and pooling, at 35 x 35."""

    def __init__(self, inputs: int, pooled: int):
        super().__init__()
        self.branch1x1 = Unit(inputs, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = Unit(inputs, 48, 1), Unit(48, 64, 5, padding=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Unit(inputs, 64, 1), Unit(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Unit(96, 96, 3, padding=1)
        self.branch_pool = Unit(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, three, self.branch_pool(_pool(x))], 1)


class Shrink(nn.Module):
    """From 35 x 35 to 17 x 17."""

    def __init__(self, inputs: int):
        super().__init__()
        self.branch3x3 = Unit(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Unit(inputs, 64, 1), Unit(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Unit(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, stride=2)], 1)


class Factored(nn.Module):
    """Branches of 7 x 7 convolutions, each as 1 x 7 and 7 x 1, at 17 x 17."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.branch1x1 = Unit(inputs, 192, 1)
        self.branch7x7_1, self.branch7x7_2 = Unit(inputs, width, 1), _across(width, width)
        self.branch7x7_3 = _down(width, 192)
        self.branch7x7dbl_1, self.branch7x7dbl_2 = Unit(inputs, width, 1), _down(width, width)
        self.branch7x7dbl_3, self.branch7x7dbl_4 = _across(width, width), _down(width, width)
        self.branch7x7dbl_5 = _across(width, 192)
        self.branch_pool = Unit(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return torch.cat([self.branch1x1(x), once, twice, self.branch_pool(_pool(x))], 1)


class ShrinkAgain(nn.Module):
    """From 17 x 17 to 8 x 8."""

    def __init__(self, inputs: int):
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = Unit(inputs, 192, 1), Unit(192, 320, 3, stride=2)
        self.branch7x7x3_1, self.branch7x7x3_2 = Unit(inputs, 192, 1), _across(192, 192)
        self.branch7x7x3_3, self.branch7x7x3_4 = _down(192, 192), Unit(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, F.max_pool2d(x, 3, stride=2)], 1)


class Wide(nn.Module):
    """Branches that fork into 1 x 3 and 3 x 1, at 8 x 8."""

    def __init__(self, inputs: int, pooling: Literal["average", "max"]):
        super().__init__()
        self.pooling = pooling
        self.branch1x1 = Unit(inputs, 320, 1)
        self.branch3x3_1 = Unit(inputs, 384, 1)
        self.branch3x3_2a = Unit(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = Unit(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Unit(inputs, 448, 1), Unit(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = Unit(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = Unit(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = Unit(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        once = self.branch3x3_1(x)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = _pool(x) if self.pooling == "average" else F.max_pool2d(x, 3, stride=1, padding=1)
        forks = [self.branch3x3_2a(once), self.branch3x3_2b(once)]
        forks += [self.branch3x3dbl_3a(twice), self.branch3x3dbl_3b(twice)]
        return torch.cat([self.branch1x1(x), *forks, self.branch_pool(pooled)], 1)


class InceptionV3(FeatureNetwork):
    """Inception-v3 (Szegedy et al. 2015, arXiv:1512.00567) with what differs in the network of the published FIDs.

    Averages leave padding out, and the last block pools by the maximum. Weights are not shipped: they come from a file
    under the names of ``pt_inception-2015-12-05`` (the TensorFlow network of 2015 as a PyTorch state dict, 1008
    classes). Images are resized to 299 x 299 by bilinear interpolation without antialiasing, as PyTorch's usual FID
    script does; other scripts resize otherwise, and their numbers differ (Parmar et al. 2021, arXiv:2104.11222).

    Features are the 2,048 pooled ones; class probabilities leave out the bias of the last layer, as the published
    inception scores do.
    """

    id = "inception-v3"

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Unit(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Unit(32, 32, 3)
        self.Conv2d_2b_3x3 = Unit(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Unit(64, 80, 1)
        self.Conv2d_4a_3x3 = Unit(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = Narrow(192, 32), Narrow(256, 64), Narrow(288, 64)
        self.Mixed_6a = Shrink(288)
        self.Mixed_6b, self.Mixed_6c = Factored(768, 128), Factored(768, 160)
        self.Mixed_6d, self.Mixed_6e = Factored(768, 160), Factored(768, 192)
        self.Mixed_7a = ShrinkAgain(768)
        self.Mixed_7b, self.Mixed_7c = Wide(1280, "average"), Wide(2048, "max")
        self.fc = nn.Linear(_FEATURES, _CLASSES)
        self.classes = tuple(map(str, range(_CLASSES)))

    @classmethod
    def from_file(cls, path: str | Path) -> InceptionV3:
        """The network with the weights of a file: safetensors, or a PyTorch state dict (read without pickled code).

        Raises:
            DataError: no such file, or other weights; a weight that is lacking or of another shape is named.
        """
        from ancestral.published.weights import fill, read_weights

        network = cls()
        found = {k: v for k, v in read_weights(path).items() if not k.startswith("AuxLogits.")}
        counts = [k for k in network.state_dict() if k.endswith("num_batches_tracked")]
        rows = found.get("fc.weight")
        if rows is not None and rows.shape[0] != _CLASSES:
            raise DataError(
                f"{path} holds an Inception-v3 of {rows.shape[0]} classes, not the one of the Frechet inception "
                f"distance, which has {_CLASSES}; give the weights of pt_inception-2015-12-05"
            )
        fill(network, found, keep=counts)
        network.source = Path(path).name
        return network.eval()

    def check(self, images: Images) -> None:
        if images.pixels.shape[-1] not in (1, 3):
            raise DataError(
                f"Inception-v3 looks at grey or RGB images, not at {images.pixels.shape[-1]} channels; read them with "
                "channels=3"
            )

    def look(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        if pixels.shape[1] == 1:
            pixels = pixels.expand(-1, 3, -1, -1)
        features = self.pooled(F.interpolate(pixels, size=(_SIDE, _SIDE), mode="bilinear", align_corners=False) * 2 - 1)
        return features, features @ self.fc.weight.T

    def pooled(self, x: Tensor) -> Tensor:
        """Features ``[B, 2048]`` of images ``[B, 3, H, W]`` in [-1, 1], as they are."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, stride=2)))
        x = F.max_pool2d(x, 3, stride=2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean((2, 3))
