"""What a model's images are worth: every figure with the network, the reference set and the counts behind it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ancestral.data import Images
from ancestral.errors import DataError
from ancestral.evaluation import distances
from ancestral.evaluation.features import FeatureNetwork
from ancestral.evaluation.passes import counting

if TYPE_CHECKING:
    from ancestral.model import Model


@dataclass(frozen=True)
class Figure:
    """One number, and all that it depends on.

    Attributes:
        name: of the measure.
        value: the number.
        best: "low" or "high", which way is better; empty where a reference value is to be met.
        network: title of the feature network.
        reference: what the images were held against, in words.
        real, made: number of reference images and of images judged.
        note: bias and settings.
        floor: the same number for real images in place of the made ones, as many as there were; None if unknown.
    """

    name: str
    value: float
    best: str
    network: str
    reference: str
    real: int
    made: int
    note: str = ""
    floor: float | None = None

    def __str__(self) -> str:
        where = f"{self.made:,} images against {self.real:,} of {self.reference}"
        return f"{self.name} {self.value:.4g}: {where}, by {self.network}"


_NOTES = {
    "frechet": "too large on average for few images, by about a constant over their number",
    "frechet_limit": "extrapolated to infinitely many made images; the reference set's own bias stays",
    "kernel": "unbiased; can be below 0; cubic kernel over the whole sets",
    "precision": "share of made images near a real one",
    "recall": "share of real images near a made one",
    "density": "1 on average for images of the same distribution",
    "coverage": "depends on both counts",
    "inception_score": "whole set at once; too small on average for few images; knows nothing of the reference set",
}


def figures(
    network: FeatureNetwork,
    real: Images,
    made: Images,
    *,
    reference: str,
    other: Images | None = None,
    k: int = 5,
    seed: int = 0,
) -> dict[str, Figure]:
    """All measures of made images against real ones.

    Args:
        network: whose features are compared.
        real: the reference set.
        made: the images to judge.
        reference: what the reference set is, in words.
        other: further real images: their own figures are the floors. They are used up to the number of ``made``.
        k: neighbour that balls reach to; see :func:`ancestral.evaluation.distances.neighbourhoods`.
        seed: of the random subsets.

    Returns:
        By key: ``frechet``, ``frechet_limit``, ``kernel``, ``precision``, ``recall``, ``density``, ``coverage``, and
        ``inception_score`` if the network knows classes.

    Raises:
        DataError: too few images, or images that the network does not take.
    """
    theirs = network.reference(real)
    found = _numbers(theirs, *network.measure(made), k, seed)
    floors: dict[str, float] = {}
    if other is not None and len(other) > max(k, 20):
        floors = _numbers(theirs, *network.measure(other.take(slice(0, len(made)))), k, seed)
    best = {"frechet": "low", "frechet_limit": "low", "kernel": "low", "density": ""}
    names = {
        "frechet": "Frechet distance",
        "frechet_limit": "Frechet distance, extrapolated",
        "kernel": "kernel distance",
        "inception_score": f"inception-style score of {len(network.classes)} classes",
    }
    notes = {**_NOTES, **{n: f"{_NOTES[n]}; k = {k}" for n in ("precision", "recall", "density", "coverage")}}
    expected, title = distances.expected_coverage(len(real), len(made), k), network.title
    notes["coverage"] += f"; {expected:.3f} to expect of images of the same distribution"
    return {
        key: Figure(
            names.get(key, key), value, best.get(key, "high"), title, reference, len(real), len(made),
            notes[key], floors.get(key),
        )
        for key, value in found.items()
    }  # fmt: skip


def _numbers(
    real: np.ndarray, made: np.ndarray, probabilities: np.ndarray | None, k: int, seed: int
) -> dict[str, float]:
    near = distances.neighbourhoods(real, made, k)
    found = {
        "frechet": distances.frechet_distance(real, made),
        "frechet_limit": distances.frechet_limit(real, made, seed),
        "kernel": distances.kernel_distance(real, made),
        "precision": near.precision,
        "recall": near.recall,
        "density": near.density,
        "coverage": near.coverage,
    }
    if probabilities is not None:
        found["inception_score"] = distances.inception_score(probabilities)
    return found


def reconstruction(network: FeatureNetwork, model: Model, real: Images, *, reference: str) -> Figure:
    """rFID: the Frechet distance between images and what the model's tokenizer makes of them.

    Both sets have the same images, so that a lossless tokenizer gives 0.
    """
    tokenizer = model.tokenizer
    back = tokenizer.decode(tokenizer.encode(real))
    assert isinstance(back, Images)
    value = distances.frechet_distance(network.measure(real)[0], network.measure(back)[0])
    note = "0 for a lossless tokenizer; the same images on both sides"
    name = "Frechet distance of reconstructions (rFID)"
    return Figure(name, value, "low", network.title, reference, len(real), len(back), note)


@dataclass
class Drawn:
    """Images that a model drew, and what it took.

    Attributes:
        images: with the labels that were asked for.
        seconds: wall-clock time per image.
        processor: processor time per image, in seconds, over all threads.
        passes: of the network, for an image (or any batch of them).
        batch: images drawn together.
    """

    images: Images
    seconds: float
    processor: float
    passes: float
    batch: int


def draw(
    model: Model, n: int, labels: np.ndarray | None = None, *, seed: int = 0, guidance: float = 0.0, batch: int = 256
) -> Drawn:
    """Draw images and measure the work.

    Args:
        model: of images.
        n: how many.
        labels: int ``[n]``, the classes to draw, if the model knows classes.
        seed: of the draws.
        guidance: classifier-free guidance scale; needs labels.
        batch: images drawn together.
    """
    asked: Any = None if labels is None else list(labels)
    begin, busy = time.perf_counter(), time.process_time()
    with counting(model.generator.network) as passes:
        made = model.sample(n, label=asked, seed=seed, guidance=guidance, batch_size=batch, as_dataset=True)
    seconds, busy = time.perf_counter() - begin, time.process_time() - busy
    made = Images(made.pixels, labels, made.classes if labels is not None else (), made.levels)
    return Drawn(made, seconds / n, busy / n, passes.network / -(-n // batch), min(batch, n))


@dataclass
class ImageQuality:
    """What was measured of a model of images.

    Attributes:
        real: the reference images.
        drawn: the model's, with the work they took.
        figures: by key, see :func:`figures`; ``reconstruction`` if the tokenizer is learned, ``accuracy`` if the
            model is told classes and the network knows them.
        guidance: of the draws.
        bits: mean bits per image of the reference set (or of its codes), None if not scored.
        bits_of, score_kind: what they are bits of, and whether they are exact.
        tokenizer: of a learned one, how well images survive it and how much of its codebook is used; see
            :meth:`ancestral.tokenizers.learned.Autoencoder.report`.
        notes: what could not be measured, and why.
        seconds: (what, seconds).
    """

    real: Images
    drawn: Drawn
    figures: dict[str, Figure]
    guidance: float = 0.0
    bits: float | None = None
    bits_of: str = "images"
    score_kind: str = "exact"
    tokenizer: dict[str, float] | None = None
    notes: dict[str, str] = field(default_factory=dict)
    seconds: list[tuple[str, float]] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """The figures as plain JSON content."""
        return {
            "figures": {key: asdict(figure) for key, figure in self.figures.items()},
            "guidance": self.guidance,
            "seconds_per_image": self.drawn.seconds,
            "processor_seconds_per_image": self.drawn.processor,
            "passes_per_image": self.drawn.passes,
            "batch": self.drawn.batch,
            "bits_per_image": self.bits,
            "bits_of": self.bits_of,
            "score_kind": self.score_kind,
            "tokenizer": self.tokenizer,
            "not_available": self.notes,
        }


def measure(
    model: Model,
    real: Images,
    network: FeatureNetwork,
    *,
    reference: str,
    other: Images | None = None,
    samples: int = 1000,
    scored: int = 64,
    guidance: float = 0.0,
    seed: int = 0,
    batch: int = 256,
    say: Callable[[str], None] = lambda what: None,
) -> ImageQuality:
    """Judge a model of images.

    Classes are drawn as often as they occur in the reference set.

    Args:
        model: fitted on images.
        real: the reference set: images that it was not trained on.
        network: whose features are compared.
        reference: what the reference set is, in words.
        other: further real images, for the floors.
        samples: images to draw.
        scored: images of the reference set to score; 0 for none.
        guidance, seed, batch: of the draws.
        say: told what is done next.

    Raises:
        DataError: no model of images, or too few images.
    """
    if model.tokenizer.modality != "images":
        raise DataError(f"this model is of {model.tokenizer.modality}, not of images")
    if samples < 20 or len(real) < 20:
        raise DataError(f"{min(samples, len(real))} images are too few to compare; give at least 20")
    clock: list[tuple[str, float]] = []

    def timed(what: str, do: Callable[[], Any]) -> Any:
        say(what)
        begin = time.perf_counter()
        found = do()
        clock.append((what, time.perf_counter() - begin))
        return found

    labels = None
    if model.space.classes and real.labels is not None:
        known = {name: i for i, name in enumerate(model.tokenizer.classes)}
        told = [known.get(real.classes[int(i)], -1) for i in real.labels]
        chance = np.random.default_rng(seed)
        labels = chance.choice([t for t in told if t >= 0], samples) if any(t >= 0 for t in told) else None
    guidance = guidance if labels is not None else 0.0
    drawn = timed("drawing images", lambda: draw(model, samples, labels, seed=seed, guidance=guidance, batch=batch))
    found = timed(
        "comparing features", lambda: figures(network, real, drawn.images, reference=reference, other=other, seed=seed)
    )
    out = ImageQuality(real, drawn, found, guidance, seconds=clock)
    if labels is not None and network.classes == tuple(model.tokenizer.classes):
        out.figures["accuracy"] = _accuracy(network, drawn.images)
    if model.tokenizer.learned:
        part = real.take(slice(0, samples))
        found["reconstruction"] = timed(
            "reconstructing images", lambda: reconstruction(network, model, part, reference=reference)
        )
        counted: Any = model.tokenizer
        out.tokenizer = counted.report(part)
    if scored:
        scores = timed("scoring images", lambda: model.log_prob(real.take(slice(0, scored))))
        out.bits, out.score_kind, out.bits_of = float(-scores.mean() / np.log(2)), scores.kind, scores.of
    return out


def _accuracy(network: FeatureNetwork, made: Images) -> Figure:
    from ancestral.evaluation.features import class_accuracy

    note = "share of drawn images that the network puts in the class asked for; where the network also measures the "
    note += "distance, it is no independent judge"
    value = class_accuracy(network, made)
    return Figure("class accuracy", value, "high", network.title, "the classes asked for", 0, len(made), note)


def report(
    model: Model,
    data: Any,
    training: Any = None,
    *,
    features: Any = "label-classifier",
    teaching: dict[str, Any] | None = None,
    samples: int = 1000,
    guidance: float = 0.0,
    most: int = 10_000,
    seed: int = 0,
    reading: dict[str, Any] | None = None,
    say: Callable[[str], None] = lambda what: None,
) -> ImageQuality:
    """Judge a model of images by data that are read, with a feature network that is trained if need be.

    Args:
        model: fitted on images.
        data: images that it was not trained on.
        training: images that the feature network learns from; by default half of ``data``, which then is no part of the
            reference set. A part of them gives the floors.
        features, teaching: see :func:`ancestral.evaluation.features.feature_network`.
        samples, guidance: of the draws.
        most: at most so many real images are used.
        seed: of everything.
        reading: options of the reader, such as ``size``.
        say: told what is done next.

    Raises:
        DataError: too few images, or images of another size.
    """
    from ancestral.evaluation.features import feature_network

    name = str(getattr(data, "name", "the data"))
    whole = model.read(data, **(reading or {}))
    taught = None if training is None else model.read(training, **(reading or {}))
    mixed = np.random.default_rng(seed).permutation(len(whole))
    if taught is None:
        half = len(whole) // 2
        other, real = whole.take(mixed[:half]), whole.take(mixed[half:][:most])
        source, reference = f"a random half of {name}", f"the other half of {name}"
    else:
        other, real = taught, whole.take(mixed[:most])
        source, reference = str(getattr(training, "name", "the training images")), name
    assert isinstance(other, Images) and isinstance(real, Images)
    if min(len(real), len(other)) < 20:
        raise DataError(f"{min(len(real), len(other))} images are too few to compare; give at least 20 (40 for halves)")
    say("preparing the feature network")
    network = feature_network(features, other, seed=seed, source=source, **(teaching or {}))
    shuffled = other.take(np.random.default_rng(seed + 1).permutation(len(other)))
    return measure(
        model,
        real,
        network,
        reference=reference,
        other=shuffled,
        samples=samples,
        guidance=guidance,
        seed=seed,
        say=say,
    )
