"""What a learned tokenizer minimises beside the distance of pixels: features, and an adversary's judgement."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.tokenizers.learned.convolution import norm


class Features(nn.Module):
    """A small convolutional network whose layers compare images; trained on the data set itself.

    It learns the class labels where there are some, else by how many quarter turns an image was rotated (Gidaris et
    al. 2018, arXiv:1803.07728). No weights are downloaded.

    Args:
        channels: of the images.
        levels: grey levels of the images.
        classes: number of classes; 0 for rotations.
        width: features of the first layer; every further layer has twice as many at half the resolution.
        depth: layers.
    """

    def __init__(self, channels: int, levels: int = 256, classes: int = 0, width: int = 16, depth: int = 3):
        super().__init__()
        self.levels, self.classes = levels, classes
        sizes = [channels, *[width * 2**k for k in range(depth)]]
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=1 + (k > 0), padding=1) for k, (a, b) in enumerate(itertools.pairwise(sizes))
        )
        self.norms = nn.ModuleList(norm(b) for b in sizes[1:])
        self.guess = nn.Linear(sizes[-1], classes or 4)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of every layer, ``[B, C_k, H_k, W_k]`` each, of images ``[B, C, H, W]`` in [-1, 1]."""
        found, x = [], images
        for layer, scale in zip(self.layers, self.norms, strict=True):
            x = F.silu(scale(layer(x)))
            found.append(x)
        return found

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator, progress: float) -> Tensor:
        """Cross-entropy of the label or the rotation."""
        images = batch["images"].float() * (2 / max(self.levels - 1, 1)) - 1
        if self.classes:
            target = batch["label"]
        else:
            images = images[..., : min(images.shape[2:]), : min(images.shape[2:])]
            target = torch.arange(len(images), device=images.device) % 4
            images = torch.cat([torch.rot90(image, int(k), (-2, -1))[None] for image, k in zip(images, target)])
        return F.cross_entropy(self.guess(self(images)[-1].mean((2, 3))), target)

    def distance(self, one: Tensor, other: Tensor) -> Tensor:
        """Mean squared distance of unit-length features, averaged over layers (Zhang et al. 2018, arXiv:1801.03924)."""
        pairs = zip(self(one), self(other), strict=True)
        each = [(F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean() for a, b in pairs]
        return torch.stack(each).mean()


def contrast(one: Tensor, other: Tensor, temperature: float = 0.07) -> Tensor:
    """Cross-entropy, both ways, of which rows ``[B, C]`` of two views belong together (Radford et al. 2021,
    arXiv:2103.00020)."""
    likeness = F.normalize(one, dim=1) @ F.normalize(other, dim=1).T / temperature
    own = torch.arange(len(one), device=one.device)
    return 0.5 * (F.cross_entropy(likeness, own) + F.cross_entropy(likeness.T, own))


class Discriminator(nn.Module):
    """Judges patches of images (PatchGAN: Isola et al. 2016, arXiv:1611.07004)."""

    def __init__(self, channels: int, width: int = 32):
        super().__init__()
        self.judge = nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            norm(2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 3, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.judge(images)

    def game(self, real: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
        """The autoencoder's loss, which leaves the judge's weights alone, and the judge's hinge loss.

        Both can be minimised by one optimiser: neither has a gradient in the other's weights.
        """
        held = {name: weight.detach() for name, weight in self.named_parameters()}
        fooled = -torch.func.functional_call(self, held, (made,)).mean()
        judged = F.relu(1 - self(real)).mean() + F.relu(1 + self(made.detach())).mean()
        return fooled, 0.5 * judged
