"""Networks that tell what is in an image: feature vectors and class probabilities, pluggable, saved on their own."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self
from weakref import WeakKeyDictionary

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ancestral.data import Images
from ancestral.errors import DataError, UnsupportedError
from ancestral.files import atomic_path
from ancestral.tokenizers.learned.losses import Features
from ancestral.version import __version__

FORMAT = 1


class FeatureNetwork(nn.Module):
    """Images to feature vectors, and to class probabilities where it knows classes.

    Attributes:
        id: name of its record in the catalogue.
        source: what its weights were learned from, in words.
        classes: names of the classes; empty if it knows none.
    """

    _kinds: ClassVar[dict[str, type[FeatureNetwork]]] = {}
    id: str = ""
    source: str = ""
    classes: tuple[str, ...] = ()
    trainable: bool = False
    """Whether :meth:`fit` teaches it; else its weights come from a file."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        FeatureNetwork._kinds[cls.__name__] = cls

    def __init__(self) -> None:
        super().__init__()
        self._references: WeakKeyDictionary[Images, np.ndarray] = WeakKeyDictionary()

    @property
    def ready(self) -> bool:
        """Whether there are weights to use."""
        return next(self.parameters(), None) is not None

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits that change with the weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:8]

    @property
    def title(self) -> str:
        """Id, fingerprint of the weights, and what they were learned from: what stands beside every number."""
        return f"{self.id} {self.fingerprint}" + (f" ({self.source})" if self.source else "")

    def fit(self, images: Images, *, seed: int = 0, source: str = "", **options: Any) -> Self:
        """Learn from images and their labels.

        Args:
            images: with labels, or without.
            seed: determines the weights' start and the order of the items.
            source: what the images are, in words.
            options: fields of :class:`ancestral.training.TrainConfig`.

        Raises:
            UnsupportedError: a network whose weights come from a file.
        """
        raise UnsupportedError(f"{self.id} is not trained here; its weights come from a file")

    @abstractmethod
    def look(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features float32 ``[B, D]`` and class log-odds ``[B, K]``, or None, of images.

        Args:
            pixels: float32 ``[B, C, H, W]`` in [0, 1].
        """

    def check(self, images: Images) -> None:
        """Refuse images that the network cannot look at.

        Raises:
            DataError: another size or number of channels.
        """

    @torch.no_grad()
    def measure(self, images: Images, batch_size: int = 64) -> tuple[np.ndarray, np.ndarray | None]:
        """Features float64 ``[n, D]`` and class probabilities ``[n, K]`` (None if it knows no classes).

        Raises:
            UnsupportedError: no weights yet.
            DataError: images that it cannot look at.
        """
        if not self.ready:
            raise UnsupportedError(f"the feature network {self.id} has no weights yet; fit or load it first")
        self.check(images)
        self.eval()
        device = next(self.parameters()).device
        found, odds = [], []
        for begin in range(0, len(images), batch_size):
            part = images.pixels[begin : begin + batch_size].transpose(0, 3, 1, 2)
            pixels = torch.from_numpy(np.ascontiguousarray(part)).to(device).float() / max(images.levels - 1, 1)
            features, logits = self.look(pixels)
            found.append(features.double().cpu().numpy())
            if logits is not None:
                odds.append(torch.softmax(logits.double(), -1).cpu().numpy())
        return np.concatenate(found), np.concatenate(odds) if odds else None

    def reference(self, images: Images) -> np.ndarray:
        """Features of a reference set, measured once for as long as the set is in use."""
        if images not in self._references:
            self._references[images] = self.measure(images)[0]
        return self._references[images]

    # -- saving

    def state(self) -> dict[str, Any]:
        """All that is needed beside the weights, as plain JSON content."""
        return {"kind": type(self).__name__, "id": self.id, "source": self.source, "classes": list(self.classes)}

    @classmethod
    def _empty(cls, state: dict[str, Any]) -> FeatureNetwork:
        """The network that :meth:`state` described, its weights still to be filled in."""
        return cls()

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write a folder: ``features.json`` and ``features.safetensors``.

        Raises:
            DataError: the place cannot be written, or is a folder of other files.
        """
        content = {"format": FORMAT, "ancestral": __version__, "network": self.state()}
        with atomic_path(path, directory=True, overwrite=overwrite, ours="features.json") as folder:
            text = json.dumps(content, indent=2, ensure_ascii=False)
            (folder / "features.json").write_text(text + "\n", encoding="utf-8")
            save_file({k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}, folder / _WEIGHTS)

    @staticmethod
    def load(path: str | Path) -> FeatureNetwork:
        """The network in a folder that :meth:`save` wrote.

        Raises:
            DataError: no such folder, or damaged.
        """
        path = Path(path)
        try:
            state = json.loads((path / "features.json").read_text(encoding="utf-8"))["network"]
            network = FeatureNetwork._kinds[state["kind"]]._empty(state)
            network.id, network.source, network.classes = state["id"], state["source"], tuple(state["classes"])
            network.load_state_dict(load_file(path / _WEIGHTS))
        except OSError as error:
            raise DataError(f"{path} holds no saved feature network; give a folder that save wrote") from error
        except Exception as error:  # JSON, safetensors and torch each raise their own kinds
            raise DataError(
                f"the feature network in {path} is damaged ({type(error).__name__}); save it again"
            ) from error
        return network.eval()


_WEIGHTS = "features.safetensors"


class Classifier(FeatureNetwork):
    """A small convolutional classifier of a data set's own labels; its pooled last layer is the feature vector.

    Without labels it learns by how many quarter turns an image was rotated (Gidaris et al. 2018, arXiv:1803.07728).
    Its features know what tells the classes of this data set apart, and no more: compare numbers of one network only.

    Args:
        width: features of the first layer; every further layer has twice as many at half the resolution.
        depth: layers.
    """

    trainable = True

    def __init__(self, width: int = 24, depth: int = 4):
        super().__init__()
        self.width, self.depth = width, depth
        self.shape: tuple[int, int, int] = (0, 0, 0)

    def _build(self, shape: tuple[int, int, int], classes: int) -> None:
        self.shape = shape
        # Two levels: pixels are stretched to [0, 1] before the network sees them.
        self.network = Features(shape[2], 2, classes, self.width, self.depth)

    def fit(self, images: Images, *, seed: int = 0, source: str = "", **options: Any) -> Self:
        """Learn from images; see :meth:`FeatureNetwork.fit`. By default ten passes over them."""
        from ancestral.fitting import check_options, train_config
        from ancestral.training import Items, train

        check_options(options)
        if len(images) == 0:
            raise DataError("there are no images for a feature network to learn from")
        if not any(options.get(k) for k in ("steps", "minutes", "epochs")):
            options["epochs"] = 10.0
        labels = images.labels
        classes = len(images.classes) if labels is not None else 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._build(images.pixels.shape[1:], classes)
        scaled = images.pixels.transpose(0, 3, 1, 2).astype(np.float32) / max(images.levels - 1, 1)
        tensors = {"images": torch.from_numpy(np.ascontiguousarray(scaled))}
        if labels is not None:
            tensors["label"] = torch.from_numpy(labels)
        settings: dict[str, Any] = {"lr": 3e-3, "batch_size": 64, "ema": None, "quiet": True, **options}
        self._references.clear()
        train(self.network, Items(**tensors), train_config(settings, seed, validated=False))
        self.classes = tuple(images.classes) if labels is not None else ()
        taught = "labels" if labels is not None else "rotations"
        self.source = f"{taught} of {len(images):,} images" + (f" of {source}" if source else "")
        return self.eval()

    def check(self, images: Images) -> None:
        if images.pixels.shape[1:] != self.shape:
            ours, theirs = ("x".join(map(str, s)) for s in (self.shape, images.pixels.shape[1:]))
            raise DataError(f"the images are {theirs} where the feature network {self.id} takes {ours}")

    def look(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        features = self.network(pixels * 2 - 1)[-1].mean((2, 3))
        return features, self.network.guess(features) if self.classes else None

    def accuracy(self, images: Images) -> float:
        """Share of labelled images whose class it finds.

        Raises:
            UnsupportedError: it knows no classes, or the images have no labels.
        """
        return class_accuracy(self, images)

    def state(self) -> dict[str, Any]:
        return super().state() | {"width": self.width, "depth": self.depth, "shape": list(self.shape)}

    @classmethod
    def _empty(cls, state: dict[str, Any]) -> FeatureNetwork:
        made = cls(state["width"], state["depth"])
        height, width, channels = state["shape"]
        made._build((height, width, channels), len(state["classes"]))
        return made


def class_accuracy(network: FeatureNetwork, images: Images, labels: Any = None) -> float:
    """Share of images that the network puts in the class they are labelled with.

    Args:
        network: knows the images' classes.
        images: any.
        labels: int ``[n]``, instead of the images' own.

    Raises:
        UnsupportedError: the network knows no classes, or there are no labels.
    """
    target = images.labels if labels is None else np.asarray(labels)
    _, probabilities = network.measure(images)
    if probabilities is None or target is None:
        raise UnsupportedError("class accuracy needs a network that knows the classes, and labels")
    return float((probabilities.argmax(1) == target).mean())


def feature_network(
    chosen: str | Path | FeatureNetwork = "label-classifier",
    training: Images | None = None,
    *,
    seed: int = 0,
    source: str = "",
    **options: Any,
) -> FeatureNetwork:
    """A feature network to measure with: one that is there, a saved one, or one of the catalogue.

    Args:
        chosen: a network; a folder that :meth:`FeatureNetwork.save` wrote; a file with weights of Inception-v3 in the
            FID layout (safetensors, or a PyTorch state dict); or the id of a record in ``recipes/features``.
        training: labelled images that a trainable one learns from.
        seed: of the training.
        source: what these images are, in words.
        options: of the record and of its training (``minutes=``).

    Raises:
        DataError: nothing that can be used, or no images to learn from.
    """
    from ancestral.recipes.registry import feature_networks

    if isinstance(chosen, FeatureNetwork):
        return chosen
    known = feature_networks()
    if str(chosen) in known:
        record = known[str(chosen)]
        names = set(record.config())
        network: Any = record.build(**record.config(**{k: v for k, v in options.items() if k in names}))
        network.id = record.id
        if network.trainable:
            if training is None:
                raise DataError(f"the feature network {record.id} is trained first; give it images to learn from")
            rest = {k: v for k, v in options.items() if k not in names}
            network.fit(training, seed=seed, source=source, **rest)
        return network  # type: ignore[no-any-return]
    path = Path(chosen)
    if path.is_dir():
        return FeatureNetwork.load(path)
    if path.is_file():
        from ancestral.evaluation.inception import InceptionV3

        return InceptionV3.from_file(path)
    raise DataError(
        f"there is no feature network {str(chosen)!r}; give the folder of a saved one, a file of Inception-v3 weights, "
        f"or one of {', '.join(known)}"
    )
