"""Learned image tokenizers: an autoencoder around a quantiser, trained, saved and reused on its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.data import Dataset, Images, read
from ancestral.errors import DataError
from ancestral.noise import Noise
from ancestral.space import Space
from ancestral.tokenizers.base import Tokenizer
from ancestral.tokenizers.learned.convolution import Convolutional
from ancestral.tokenizers.learned.losses import Discriminator, Features, contrast
from ancestral.tokenizers.learned.parts import Backbone, Part, Quantised, Quantiser
from ancestral.tokenizers.learned.quantisers import VQ

if TYPE_CHECKING:
    from ancestral.training import History

_TRAINING: dict[str, Any] = {"lr": 2e-3, "batch_size": 64, "ema": None, "eval_items": 256}


class Autoencoder(Tokenizer):
    """Images to codes and back, learned: the codes are what a model is a distribution over.

    Decoding gives an image *like* the encoded one, so that a model's probabilities are those of codes, not of images,
    and nothing can be compressed losslessly. :meth:`fit` trains it; a model's ``fit`` does so with a share of its
    budget, unless it is given one that is trained.

    Args:
        quantiser: latents to values at sites.
        backbone: images to latents and back; by default :class:`Convolutional` at its default size.
        reconstruction: distance of pixels, "l2" or "l1".
        perceptual: weight of the distance of features (:class:`Features`).
        adversarial: weight of the adversary's judgement (:class:`Discriminator`), which sets in half-way.
        semantic: weight of a contrastive loss: of a batch, the mean of an image's quantised latents shall tell which
            image it is of by the frozen network's features (ImageFolder: Li et al. 2024, arXiv:2410.01756). Of a
            :class:`Product` it is the last branch that does.
        share: of a model's training time that goes to its tokenizer.
        training: options of :class:`ancestral.training.TrainConfig` that suit it.

    Shapes:
        values: int64 or float32 ``[n, N, *event]``; see the quantiser.
    """

    modality = "images"
    lossless = False
    learned = True

    def __init__(
        self,
        quantiser: Quantiser | None = None,
        backbone: Backbone | None = None,
        *,
        reconstruction: Literal["l2", "l1"] = "l2",
        perceptual: float = 0.1,
        adversarial: float = 0.0,
        semantic: float = 0.0,
        share: float = 0.4,
        training: dict[str, Any] | None = None,
    ) -> None:
        if reconstruction not in ("l2", "l1"):
            raise ValueError(f"reconstruction={reconstruction!r} must be l2 or l1")
        if not 0 < share < 1:
            raise ValueError(f"share={share} must be between 0 and 1")
        self.quantiser: Quantiser = VQ() if quantiser is None else quantiser
        self.backbone: Backbone = Convolutional() if backbone is None else backbone
        self.reconstruction, self.perceptual, self.adversarial = reconstruction, perceptual, adversarial
        self.semantic = semantic
        self.share, self.training = share, dict(training or {})
        self.fitted = False
        self.levels = 256
        self.shape: tuple[int, int, int] = (0, 0, 0)
        self.form: dict[str, Any] = {}
        self.history: History | None = None

    @property
    def scored(self) -> str:
        return "codes" if self.space.discrete else "latents"

    # -- training

    def fit(
        self,
        dataset: Any,
        *,
        validation: Any = 0.05,
        seed: int = 0,
        callbacks: Sequence[Callable[..., Any]] = (),
        **options: Any,
    ) -> Self:
        """Train on images.

        Args:
            dataset: images of one size, in any form that ``ancestral.fit`` takes.
            validation: images of their own, or the share held out.
            seed: determines the weights' start and the order of the items.
            callbacks: called by the training loop.
            options: fields of :class:`ancestral.training.TrainConfig`: ``minutes=``, ``steps=``, ``lr=`` ...

        Raises:
            DataError: the images cannot be used.
        """
        from ancestral.fitting import check_options, held_share, split_items, train_config
        from ancestral.training import Items, train

        check_options(options)
        images = self._images(dataset)
        if len(images) == 0:
            raise DataError("there is nothing to learn from: the data hold no images")
        share = held_share(validation)
        held: Dataset | None
        if share is None:
            held = validation if isinstance(validation, Dataset) else read(validation, self.modality)
            kept: Dataset = images
        else:
            kept, held = split_items(images, share, seed)
        assert isinstance(kept, Images)
        self._settle(images)
        self._build(seed)
        some = torch.from_numpy(self._pixels(kept.take(slice(0, 1024))))
        with torch.no_grad():
            self.quantiser.initialise(self.backbone.encode(self._scaled(some)), seed)
        config = train_config({**_TRAINING, **self.training, **options}, seed, validated=held is not None)
        features = self._features(kept, config, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            trainee = _Trainee(self, features)
        source = Items(images=torch.from_numpy(self._pixels(kept)))
        test = None if held is None else Items(images=torch.from_numpy(self._pixels(self._images(held))))
        trainee.train()
        try:
            self.history = train(trainee, source, config, validation=test, callbacks=callbacks)
        finally:
            self._modules().eval()
        with torch.no_grad():
            self.quantiser.finish(torch.cat([self._latents(part) for part in some.split(256)]))
        self.fitted = True
        return self

    def _settle(self, images: Images) -> None:
        height, width, channels = images.pixels.shape[1:]
        self.shape, self.levels = (height, width, channels), images.levels
        self.form = images.form | {"names": None}
        self.classes = images.classes if images.labels is not None else ()

    def _build(self, seed: int) -> None:
        height, width, channels = self.shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # Fresh ones, so that their start depends on the seed alone.
            self.quantiser = Part.from_state(self.quantiser.state())
            self.backbone = Part.from_state(self.backbone.state())
            self.backbone.build((channels, height, width), self.quantiser.inputs, self.quantiser.width)
            try:
                self.quantiser.build(*self.backbone.grid)
                self._space = self._fresh_space()
            except ValueError as error:
                raise DataError(f"the quantiser does not suit images of {height} x {width}: {error}") from error
        self._modules().eval()

    def _fresh_space(self) -> Space:
        return self.quantiser.space(self.backbone.shape).replace(classes=len(self.classes))

    def _features(self, images: Images, config: Any, seed: int) -> Features | None:
        """The network whose features are compared, trained for a tenth of the budget."""
        if not (self.perceptual or self.semantic):
            return None
        from dataclasses import replace

        from ancestral.training import Items, train

        channels, labels = self.shape[2], images.labels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            features = Features(channels, self.levels, len(images.classes) if labels is not None else 0)
        tensors = {"images": torch.from_numpy(self._pixels(images))}
        if labels is not None:
            tensors["label"] = torch.from_numpy(labels)
        tenth = {name: getattr(config, name) for name in ("steps", "minutes", "epochs")}
        tenth = {k: None if v is None else (max(1, v // 10) if k == "steps" else v / 10) for k, v in tenth.items()}
        train(features, Items(**tensors), replace(config, **tenth, checkpoint=None, log=None, lr=2e-3, patience=None))
        return features.requires_grad_(False).eval()

    def relabel(self, dataset: Dataset) -> None:
        """Take the class labels of other images, for a model of them; what was learned stays.

        Raises:
            DataError: images of another size.
        """
        self._check(self._images(dataset))
        self.classes = dataset.classes if dataset.labels is not None else ()
        self._space = self._fresh_space()

    # -- images and tensors

    def _images(self, dataset: Any) -> Images:
        if not isinstance(dataset, Dataset):
            dataset = read(dataset, self.modality)
        self._expect(dataset)
        assert isinstance(dataset, Images)
        return dataset

    def _check(self, images: Images) -> None:
        if images.pixels.shape[1:] != self.shape:
            ours, theirs = ("x".join(map(str, s)) for s in (self.shape, images.pixels.shape[1:]))
            raise DataError(
                f"the images are {theirs} where the tokenizer takes {ours} (height x width x channels); "
                "read them with size= and channels="
            )
        if images.pixels.size and int(images.pixels.max()) >= self.levels:
            raise DataError(
                f"there is a grey level {int(images.pixels.max())} where the tokenizer knows 0 to {self.levels - 1}"
            )

    def _pixels(self, images: Images) -> np.ndarray:
        self._check(images)
        return np.ascontiguousarray(images.pixels.transpose(0, 3, 1, 2))

    def _scaled(self, pixels: Tensor) -> Tensor:
        return pixels.to(self.device).float() * (2 / max(self.levels - 1, 1)) - 1

    def _latents(self, pixels: Tensor) -> Tensor:
        return self.backbone.encode(self._scaled(pixels))

    def _modules(self) -> nn.ModuleDict:
        return nn.ModuleDict({"backbone": self.backbone, "quantiser": self.quantiser})

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(iter(self.backbone.parameters())).device

    def to(self, device: str | torch.device) -> Self:
        """Move the weights."""
        self._modules().to(device)
        return self

    # -- images to values and back

    @torch.no_grad()
    def encode(self, dataset: Any) -> Tensor:
        """Codes of images, in any form that :meth:`fit` takes: int64 (or float32 latents) ``[n, N, *event]``."""
        space, images = self.space, self._images(dataset)
        pixels = torch.from_numpy(self._pixels(images))
        dtype = torch.int64 if space.discrete else torch.float32
        found = torch.zeros(len(images), space.n, *space.event, dtype=dtype)
        _in_blocks(
            lambda part: self.quantiser.encode(self._latents(part)), pixels, found, pixels.shape[2] * pixels.shape[3]
        )
        return found

    @torch.no_grad()
    def decode(self, values: Tensor) -> Images:
        """Images that look like those encoded to ``values`` ``[n, N, *event]``.

        Raises:
            DataError: values of another shape, or codes that there are not.
        """
        self._look(values)
        height, width, channels = self.shape
        top = self.levels - 1

        def pictures(part: Tensor) -> Tensor:
            images = self.backbone.decode(self.quantiser.decode(part.to(self.device)))
            return ((images + 1) * (top / 2)).round().clamp(0, top).permute(0, 2, 3, 1)

        pixels = torch.zeros(len(values), height, width, channels, dtype=torch.uint8)
        _in_blocks(pictures, values, pixels, height * width)
        return Images(pixels.numpy(), classes=self.classes, levels=self.levels).with_form(self.form)

    def _look(self, values: Tensor) -> None:
        space = self.space
        if values.dim() == 0 or tuple(values.shape[1:]) != (space.n, *space.event):
            wanted = ", ".join(map(str, ("n", space.n, *space.event)))
            raise DataError(f"the values have the shape {tuple(values.shape)}; give ({wanted})")
        if space.discrete and values.numel() and not 0 <= int(values.min()) <= int(values.max()) < space.largest:
            odd = int(values.min()) if int(values.min()) < 0 else int(values.max())
            raise DataError(f"there is no code {odd}; codes are 0 to {space.largest - 1}")

    def known_sites(self, shown: Tensor) -> Tensor:
        """Sites bool ``[n, N]`` that stand for known pixels alone, bool ``[n, H, W]``."""
        return self.quantiser.known(self.backbone.cells(shown.to(self.device))).cpu()

    @torch.no_grad()
    def coarse(self, dataset: Dataset) -> tuple[Dataset, Tensor, Tensor]:
        """Small images, bicubically enlarged; their values, and the sites of the maps that they are large enough for.

        Raises:
            UnsupportedError: the quantiser has no maps of growing resolution.
            DataError: images that are not smaller than the model's, or of another form, or too small for any map.
        """
        scales = self.quantiser.resolutions()
        if not scales:
            return super().coarse(dataset)
        small = self._images(dataset)
        height, width, channels = self.shape
        h, w, c = small.pixels.shape[1:]
        if h * width != w * height or c != channels or not 0 < h < height:
            raise DataError(
                f"the images are {h} x {w} x {c}; to be refined to {height} x {width} x {channels} they must have the "
                "same proportions and channels, and be smaller"
            )
        known = torch.cat([torch.full((s * s,), s * height <= h * scales[-1]) for s in scales])
        if not bool(known.any()):
            raise DataError(f"images of {h} x {w} are too small to tell the model's coarsest map; give larger ones")
        grey = torch.from_numpy(np.ascontiguousarray(small.pixels.transpose(0, 3, 1, 2))).float()
        large = F.interpolate(grey * ((self.levels - 1) / (small.levels - 1)), size=(height, width), mode="bicubic")
        pixels = large.round().clamp(0, self.levels - 1).to(torch.uint8).permute(0, 2, 3, 1).numpy()
        images = Images(pixels, small.labels, small.classes, self.levels, captions=small.captions).with_form(small.form)
        return images, self.encode(images), known.expand(len(images), -1)

    def decode_given(self, values: Tensor, dataset: Dataset, known: Tensor | None = None) -> Images:
        """Completed images, with the known pixels, bool ``[n, H, W]``, as they were."""
        images = self.decode(values)
        if known is not None:
            given = self._images(dataset).pixels
            images.pixels = np.where(known.numpy()[..., None], given, images.pixels)
        return images

    def given(self, given: Any) -> tuple[Tensor, Tensor]:
        raise DataError("the codes of a learned tokenizer are no parts of an image; use complete(images, known=mask)")

    # -- reports

    def report(self, dataset: Any) -> dict[str, float]:
        """How well images survive, and how evenly codes are used.

        Args:
            dataset: images, held out from training for an honest number.

        Returns:
            ``mse`` of pixels scaled to [0, 1], ``psnr`` in dB; for codes ``used``, the share of the codebook that
            occurs (the smallest over the codes of a site), ``perplexity``, and ``bits`` per image, the codes'
            number at full length.
        """
        images = self._images(dataset)
        values = self.encode(images)
        top = max(self.levels - 1, 1)
        error = (self.decode(values).pixels.astype(np.float64) - images.pixels) / top
        mse = float(np.square(error).mean())
        found = {"mse": mse, "psnr": -10 * float(np.log10(max(mse, 1e-12)))}
        if self.space.discrete:
            k = self.space.largest
            stages = values.reshape(-1, self.space.scalars // self.space.n)
            shares = torch.stack([torch.bincount(s, minlength=k).double() / len(s) for s in stages.unbind(1)])
            entropy = -torch.xlogy(shares, shares).sum(1)
            found["used"] = float((shares > 0).double().mean(1).min())
            found["perplexity"] = float(entropy.exp().mean())
            found["bits"] = self.space.scalars * float(np.log2(k))
        return found

    # -- saving

    def state(self) -> dict[str, Any]:
        return self._base_state() | {
            "quantiser": self.quantiser.state(),
            "backbone": self.backbone.state(),
            "losses": [self.reconstruction, self.perceptual, self.adversarial],
            "semantic": self.semantic,
            "share": self.share,
            "training": self.training,
            "levels": self.levels,
            "shape": list(self.shape),
            "form": self.form,
            "fitted": self.fitted,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        reconstruction, perceptual, adversarial = state["losses"]
        Autoencoder.__init__(
            self,
            Part.from_state(state["quantiser"]),
            Part.from_state(state["backbone"]),
            reconstruction=reconstruction,
            perceptual=perceptual,
            adversarial=adversarial,
            semantic=state.get("semantic", 0.0),
            share=state["share"],
            training=state["training"],
        )
        height, width, channels = state["shape"]
        self.shape, self.levels, self.form = (height, width, channels), state["levels"], dict(state["form"])
        self._load_base(state)
        self.fitted = state["fitted"]
        if self.fitted:
            self._build(0)

    def tensors(self) -> dict[str, Tensor]:
        return self._modules().state_dict() if self.fitted else {}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        self._modules().load_state_dict(tensors)


def _in_blocks(function: Callable[[Tensor], Tensor], items: Tensor, out: Tensor, area: int) -> None:
    """Apply a function to blocks of one size, the last one filled up: no result depends on how many items there are.

    The size depends on ``area``, the pixels of an image, alone: large images gain nothing from company.
    """
    size = max(1, min(16, (1 << 16) // area))
    for begin in range(0, len(items), size):
        block = items[begin : begin + size]
        short = size - len(block)
        if short:
            block = torch.cat([block, block[-1:].expand(short, *block.shape[1:])])
        out[begin : begin + size] = function(block)[: size - short].to(out)


class _Trainee(nn.Module):
    """What the training loop sees of a tokenizer."""

    def __init__(self, tokenizer: Autoencoder, features: Features | None):
        super().__init__()
        self.backbone, self.quantiser = tokenizer.backbone, tokenizer.quantiser
        self.adversary = Discriminator(tokenizer.shape[2]) if tokenizer.adversarial else None
        # A list hides it from the optimiser and the checkpoints.
        self.features = [] if features is None else [features]
        self.align: nn.Linear | None = None
        if features is not None and tokenizer.semantic:
            shown = self.quantiser.meaning(torch.empty(1, self.quantiser.width, 1, 1))
            self.align = nn.Linear(features.guess.in_features, shown.shape[1])
        self.scaled, self.settings = tokenizer._scaled, tokenizer

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator, progress: float) -> Tensor:
        settings = self.settings
        images = self.scaled(batch["images"])
        found: Quantised = self.quantiser(self.backbone.encode(images), Noise(batch["item_seed"]), generator)
        made = self.backbone.decode(found.latents)
        distance = F.mse_loss if settings.reconstruction == "l2" else F.l1_loss
        total = distance(made, images) + found.loss
        for features in self.features:
            if settings.perceptual:
                total = total + settings.perceptual * features.distance(made, images)
            if self.align is not None:
                wanted = self.align(features(images)[-1].mean((2, 3)))
                meant = self.quantiser.meaning(found.latents).mean((2, 3))
                total = total + settings.semantic * contrast(meant, wanted)
        if self.adversary is not None and self.training:
            fooled, judged = self.adversary.game(images, made)
            total = total + (settings.adversarial * fooled if progress >= 0.5 else 0.0) + judged
        return total
