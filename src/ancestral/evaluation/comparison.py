"""Several recipes on the same data and the same training time: one row each."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ancestral.data import Dataset, Images, Text, read, sniff
from ancestral.errors import AncestralError, DataError, UnsupportedError
from ancestral.evaluation.features import FeatureNetwork, feature_network
from ancestral.evaluation.passes import counting

if TYPE_CHECKING:
    from ancestral.data import Table
    from ancestral.model import Model
    from ancestral.recipes.registry import Recipe

HELD = 0.1
"""Share of the data that is kept for the comparison where no test data are given."""
_MOST_SCORED = {"images": 64, "table": 1000, "sequences": 256, "audio": 16}
_MOST_CHARACTERS = 20_000


@dataclass
class Contender:
    """One recipe's row.

    Attributes:
        recipe: its id.
        failed: why there are no numbers, in one sentence; empty if there are.
        parameters: weights of the generator; a learned tokenizer's are ``tokenizer_parameters``.
        steps, minutes: of training, the tokenizer's minutes included.
        seconds: wall-clock time to draw an item, in batches of ``batch``.
        passes: forward passes of the network that a batch takes.
        count: items that were drawn and measured.
        quality: measure -> number.
        bits_of, score_kind: what "bits" are of, and whether they are exact.
        drawn: some items, for the page.
    """

    recipe: str
    summary: str = ""
    failed: str = ""
    parameters: int = 0
    tokenizer_parameters: int = 0
    steps: int = 0
    minutes: float = 0.0
    seconds: float = 0.0
    passes: float = 0.0
    count: int = 0
    batch: int = 0
    quality: dict[str, float] = field(default_factory=dict)
    bits_of: str = ""
    score_kind: str = ""
    drawn: Dataset | None = None


@dataclass
class Comparison:
    """What was compared, and how.

    Attributes:
        modality: of the data.
        trained, tested: number of items (for one long text: of characters).
        minutes: of training for every recipe.
        rows: one per recipe, in the order they were asked for.
        measures: name of every measure -> what it is, which way is better ("low", "high"), and what it depends on.
        floor: the same measures for real items in place of drawn ones, where that makes sense.
        real: some real items, for the page.
        reference: what the drawn items are held against, in words.
        network: title of the feature network; empty where there is none.
        seed: of everything.
    """

    modality: str
    trained: int
    tested: int
    minutes: float
    rows: list[Contender]
    measures: dict[str, tuple[str, str]]
    floor: dict[str, float]
    real: Dataset
    reference: str
    network: str
    seed: int

    def best(self) -> str:
        """The measure to rank by: the first one."""
        return next(iter(self.measures))

    def summary(self) -> dict[str, Any]:
        """Everything but the items, as plain JSON content."""
        rows = [{k: v for k, v in _plain(row).items() if k not in ("drawn", "summary")} for row in self.rows]
        return {
            "modality": self.modality,
            "trained_on": self.trained,
            "tested_on": self.tested,
            "minutes": self.minutes,
            "reference": self.reference,
            "feature_network": self.network or None,
            "measures": {name: {"about": about, "best": best} for name, (about, best) in self.measures.items()},
            "real_items": self.floor,
            "seed": self.seed,
            "recipes": rows,
        }


def _plain(row: Contender) -> dict[str, Any]:
    drawn, row.drawn = row.drawn, None
    try:
        return asdict(row)
    finally:
        row.drawn = drawn


def compare(
    data: Any,
    recipes: Sequence[str | Path],
    minutes: float,
    *,
    test: Any = None,
    modality: str | None = None,
    samples: int = 500,
    shown: int = 30,
    features: str | Path | FeatureNetwork = "label-classifier",
    feature_minutes: float | None = None,
    guidance: float = 0.0,
    seed: int = 0,
    reading: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    tokenizer: Any = None,
    quiet: bool = True,
    name: str = "the data",
    say: Callable[[str], None] = lambda what: None,
) -> Comparison:
    """Train every recipe for the same time on the same items, draw from it, and measure.

    Args:
        data: in any form that ``ancestral.fit`` takes.
        recipes: ids, or Python files with a recipe.
        minutes: of training for each, a learned tokenizer's included.
        test: items to measure with; by default a tenth of the data, which no recipe sees.
        modality: what the data are, where that is not plain from them.
        samples: items that each recipe draws.
        shown: of them, for the page.
        features: for images, see :func:`ancestral.evaluation.features.feature_network`; trained on the training items.
        feature_minutes: of training of the feature network, by default ten passes over the items.
        guidance: classifier-free guidance scale of the draws, for images with classes.
        seed: of the split, the training and the draws.
        reading: options of the reader.
        settings: arguments of recipes and of training, taken by those recipes that have them.
        tokenizer: a trained tokenizer for all, as in :meth:`ancestral.Model.fit`.
        quiet: no progress bars of training.
        name: what the data are, in words.
        say: told what is done next.

    Raises:
        DataError: data or recipes that cannot be used; an argument that none of the recipes has.
    """
    from ancestral.recipes.registry import find

    records = [find(recipe) for recipe in recipes]
    if not records:
        raise DataError("there is nothing to compare; name at least one recipe")
    if not minutes > 0:
        raise DataError(f"minutes={minutes} must be more than zero")
    kind = modality or (data.modality if isinstance(data, Dataset) else sniff(data))
    whole = read(data, kind, **(reading or {})).loaded()
    known = read(test, kind, **(reading or {})).loaded() if test is not None else None
    train, held = (whole, known) if known is not None else _split(whole, seed)
    own = _settings(records, settings or {})
    title = f"{name}, a tenth held out" if known is None else f"the test data of {name}"
    judge = _judge(train, held, title, kind, samples, seed)
    if isinstance(judge, _Pictures):
        say("training the feature network")
        taught: dict[str, Any] = {} if feature_minutes is None else {"minutes": feature_minutes}
        assert isinstance(train, Images)
        judge.prepare(feature_network(features, train, seed=seed, source=name, **taught), train, guidance)
    rows = []
    for record, options in zip(records, own, strict=True):
        say(f"training {record.id}")
        row = Contender(record.id, record.summary)
        try:
            model = _train(record, train, kind, minutes, seed, tokenizer, {"quiet": quiet, **options}, row)
            say(f"drawing from {record.id}")
            judge.measure(model, row, shown)
        except AncestralError as error:
            row.failed = " ".join(str(error).split())
        rows.append(row)
    sizes = [sum(len(p) for p in d.payloads) if isinstance(d, Text) and len(d) == 1 else len(d) for d in (train, held)]
    return Comparison(
        kind, sizes[0], sizes[1], minutes, rows, judge.measures, judge.floor, held.take(slice(0, shown)),
        judge.reference, judge.network_title, seed,
    )  # fmt: skip


def _split(whole: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    """Nine tenths to train on and a tenth to measure with; of one long text the last tenth."""
    if isinstance(whole, Text) and len(whole) == 1:
        payload = whole.payloads[0]
        cut = int(len(payload) * (1 - HELD))
        cut = payload.find(b"\n", cut) + 1 or cut
        made = [Text([part if whole.binary else part.decode("utf-8", "ignore")], whole.binary) for part in
                (payload[:cut], payload[cut:])]  # fmt: skip
        return made[0], made[1]
    count = int(len(whole) * HELD)
    if count < 20:
        raise DataError(
            f"there are {len(whole)} items, too few to keep a tenth for the comparison; give test data, or at least 200"
        )
    mixed = np.random.default_rng(seed).permutation(len(whole))
    return whole.take(mixed[count:]), whole.take(mixed[:count])


def _settings(records: Sequence[Recipe], given: dict[str, Any]) -> list[dict[str, Any]]:
    """For each recipe the settings that it, or training, has."""
    from dataclasses import fields

    from ancestral.training import TrainConfig

    training = {f.name for f in fields(TrainConfig)}
    own = [{k: v for k, v in given.items() if k in training or k in record.config()} for record in records]
    unused = [k for k in given if not any(k in o for o in own)]
    if unused:
        raise DataError(f"none of the recipes has an argument {unused[0]!r}, and training has no such option")
    if "minutes" in given or "steps" in given or "epochs" in given:
        raise DataError("the recipes are compared at an equal budget in minutes; leave steps and epochs out")
    return own


def _train(
    record: Recipe,
    train: Dataset,
    kind: str,
    minutes: float,
    seed: int,
    tokenizer: Any,
    options: dict[str, Any],
    row: Contender,
) -> Model:
    from ancestral import api

    begin = time.perf_counter()
    recipe: Any = record.path if record.modality == "outside" else record.id
    swap = {} if tokenizer is None else {"tokenizer": tokenizer}
    model = api.fit(train, recipe=recipe, modality=kind, minutes=minutes, seed=seed, **swap, **options)
    row.minutes = (time.perf_counter() - begin) / 60
    row.parameters = model.parameters
    row.tokenizer_parameters = sum(t.numel() for t in model.tokenizer.tensors().values())
    row.steps = 0 if model.history is None else model.history.steps
    return model


class _Judge:
    """Draws from models of one modality and measures; this one knows bits only."""

    def __init__(self, held: Dataset, reference: str, kind: str, samples: int, seed: int) -> None:
        self.held, self.kind, self.samples, self.seed = held, kind, samples, seed
        self.reference, self.network_title = f"{reference} ({_count(held)})", ""
        self.floor: dict[str, float] = {}
        unit = {"text": "byte", "bytes": "byte", "table": "row"}.get(kind, "value")
        self.measures: dict[str, tuple[str, str]] = {
            "bits": (f"bits per {unit} of items held out: the negative base-2 logarithm of their probability", "low")
        }

    def labels(self, model: Model, count: int) -> Any:
        """The classes to draw, as often as the test items have them; None where there are none."""
        held = self.held
        if held.labels is None or tuple(model.tokenizer.classes) != tuple(held.classes) or not model.space.classes:
            return None
        return list(np.random.default_rng(self.seed).choice(held.labels, count))

    def draw(self, model: Model, row: Contender) -> Dataset:
        streaming = model.tokenizer.streaming
        count = min(self.samples, 4) if streaming else self.samples
        options: dict[str, Any] = {} if streaming else {"label": self.labels(model, count)}
        if streaming:
            options["length"] = min(400, _MOST_CHARACTERS)
        row.count, row.batch = count, min(256, count)
        begin = time.perf_counter()
        with counting(model.generator.network) as passes:
            made: Dataset = model.sample(count, seed=self.seed, as_dataset=True, batch_size=row.batch, **options)
        row.seconds = (time.perf_counter() - begin) / count
        row.passes = passes.network / -(-count // row.batch)
        return made

    def bits(self, model: Model, row: Contender) -> None:
        part = self.held
        if isinstance(part, Text) and len(part) == 1:
            head = part.payloads[0][:_MOST_CHARACTERS]
            part = Text([head if part.binary else head.decode("utf-8", "ignore")], part.binary)
        elif not isinstance(part, Text):
            part = part.take(slice(0, _MOST_SCORED.get(self.kind, 256)))
        scores = model.log_prob(part)
        row.bits_of, row.score_kind = scores.of, scores.kind
        each = float(-np.asarray(scores).mean() / math.log(2)) if self.kind == "table" else scores.bits_per_dim()
        row.quality["bits"] = each

    def measure(self, model: Model, row: Contender, shown: int) -> None:
        row.drawn = self.draw(model, row).take(slice(0, shown))
        self.bits(model, row)


class _Pictures(_Judge):
    """Judges images by a feature network."""

    network: FeatureNetwork

    def prepare(self, network: FeatureNetwork, train: Images, guidance: float) -> None:
        """Take the network, and measure real training images in place of drawn ones."""
        from ancestral.evaluation.images import figures

        self.network, self.network_title, self.guidance = network, network.title, guidance
        assert isinstance(self.held, Images)
        mixed = np.random.default_rng(self.seed).permutation(len(train))[: self.samples]
        found = figures(network, self.held, train.take(mixed), reference=self.reference, seed=self.seed)
        self.floor = {key: figure.value for key, figure in found.items()}
        told = {"accuracy": ("share of images that the feature network puts in the class asked for", "high")}
        measures = {key: (f.note, f.best) for key, f in found.items()} | (told if network.classes else {})
        measures["bits"] = ("bits per pixel of images held out; with a learned tokenizer, per code", "low")
        first = [key for key in ("frechet", "accuracy", "precision", "recall", "bits") if key in measures]
        self.measures = {key: measures[key] for key in [*first, *(k for k in measures if k not in first)]}

    def measure(self, model: Model, row: Contender, shown: int) -> None:
        from ancestral.evaluation.images import draw, measure

        assert isinstance(self.held, Images)
        found = measure(
            model, self.held, self.network, reference=self.reference, samples=self.samples, scored=0, seed=self.seed,
            guidance=self.guidance,
        )  # fmt: skip
        row.seconds, row.passes, row.batch = found.drawn.seconds, found.drawn.passes, found.drawn.batch
        row.count = self.samples
        row.quality = {key: figure.value for key, figure in found.figures.items()}
        classes = len(model.tokenizer.classes)
        if found.drawn.images.labels is None:
            row.drawn = found.drawn.images.take(slice(0, shown))
        else:
            # The same classes in the same places for every recipe.
            told = np.arange(shown) % classes
            row.drawn = draw(model, shown, told, seed=self.seed + 1, guidance=self.guidance).images
        try:
            self.bits(model, row)
        except UnsupportedError as error:
            row.score_kind = str(error)


class _Rows(_Judge):
    """Judges tables by a classifier and by their columns."""

    def __init__(self, *positional: Any) -> None:
        super().__init__(*positional)
        self.measures = {
            "auc": (
                "area under the ROC curve of a classifier that tells drawn rows from real ones; 0.5 is a coin",
                "low",
            ),
            "marginal": ("mean distance of a column's values, 0 where alike and 1 where nothing is in common", "low"),
            **self.measures,
        }

    def measure(self, model: Model, row: Contender, shown: int) -> None:
        from ancestral.evaluation import tables
        from ancestral.evaluation.quality import words_of

        made: Any = self.draw(model, row)
        held: Any = self.held
        real, drawn = words_of(held), words_of(made)
        row.quality["marginal"] = float(np.mean(list(tables.marginals(real, drawn).values())))
        try:
            row.quality["auc"] = tables.two_sample_auc(real, drawn, seed=self.seed)
        except UnsupportedError as error:
            self.measures["auc"] = (f"not measured: {error}", "low")
        row.drawn = made.take(slice(0, shown))
        self.bits(model, row)


def _judge(train: Dataset, held: Dataset, reference: str, kind: str, samples: int, seed: int) -> _Judge:
    if kind == "images" and min(samples, len(held)) < 20:
        raise DataError(f"{min(samples, len(held))} images are too few to compare; give at least 20")
    judge = {"images": _Pictures, "table": _Rows}.get(kind, _Judge)(held, reference, kind, samples, seed)
    if isinstance(judge, _Rows):
        judge.floor = _table_floor(train, held, samples, seed)  # type: ignore[arg-type]
    return judge


def _table_floor(train: Table, held: Table, samples: int, seed: int) -> dict[str, float]:
    from ancestral.evaluation import tables
    from ancestral.evaluation.quality import words_of

    part = train.take(np.random.default_rng(seed).permutation(len(train))[:samples])
    real, other = words_of(held), words_of(part)
    found = {"marginal": float(np.mean(list(tables.marginals(real, other).values())))}
    with contextlib.suppress(AncestralError):  # too few rows, or no scikit-learn: each recipe's row says so
        found["auc"] = tables.two_sample_auc(real, other, seed=seed)
    return found


def _count(data: Dataset) -> str:
    if isinstance(data, Text) and len(data) == 1:
        return f"{len(data.payloads[0]):,} bytes"
    noun = {"images": "images", "table": "rows"}.get(data.modality, "items")
    return f"{len(data):,} {noun}"
