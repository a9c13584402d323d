"""A classifier that judges which class a drawn image shows, and has no part in the distances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.data import Images
from ancestral.evaluation.features import FeatureNetwork
from ancestral.training import Items, TrainConfig, train


class Judge(FeatureNetwork):
    """Two 5 x 5 convolutions with pooling and two dense layers, after LeNet-5 (LeCun et al. 1998)."""

    id = "judge"

    def __init__(self) -> None:
        super().__init__()

    def make(self, channels: int, classes: int) -> Judge:
        """Create the weights for images of 32 x 32."""
        self.body = nn.Sequential(
            nn.Conv2d(channels, 24, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(24, 48, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Dropout(0.3), nn.Linear(48 * 25, 128), nn.ReLU(),
        )  # fmt: skip
        self.guess = nn.Linear(128, classes)
        return self

    def look(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        features = self.body(pixels)
        return features, self.guess(features)

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator, progress: float) -> Tensor:
        return F.cross_entropy(self.guess(self.body(batch["images"])), batch["label"])


def judge(images: Images, folder: Path, epochs: float = 6, seed: int = 1) -> Judge:
    """The judge of these labelled images, trained once and kept in ``folder``."""
    made = Judge()
    made.classes = tuple(images.classes)
    kept = folder / "judge.npz"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made.make(images.pixels.shape[-1], len(images.classes))
    if kept.exists():
        with np.load(kept) as found:
            made.load_state_dict({name: torch.from_numpy(found[name]) for name in found.files})
        return made.eval()
    pixels = torch.from_numpy(images.pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    source = Items(images=pixels, label=torch.from_numpy(images.labels))
    train(made, source, TrainConfig(epochs=epochs, lr=2e-3, ema=None, quiet=True, seed=seed))
    np.savez(kept, **{name: tensor.numpy() for name, tensor in made.state_dict().items()})
    return made.eval()
