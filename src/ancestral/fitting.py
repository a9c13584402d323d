"""From a dataset to what the training loop consumes, and to a trained model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ancestral.data import Dataset, TableFiles, read
from ancestral.decoding.streams import network_log_probs
from ancestral.errors import DataError, TrainingError
from ancestral.generator import Generator
from ancestral.inputs import training_labels
from ancestral.networks.captions import caption_bytes, longest_caption
from ancestral.noise import Noise, hash64
from ancestral.space import Condition, Space
from ancestral.tokenizers import Tokenizer
from ancestral.training import DiskItems, Items, TrainConfig, Windows, derive
from ancestral.training.memory import parts
from ancestral.training.source import Source

if TYPE_CHECKING:
    from ancestral.model import Model


class Trainee(nn.Module):
    """What the training loop sees: a loss of batches."""

    def __init__(self, generator: Generator):
        super().__init__()
        self.generator = generator

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator, progress: float) -> Tensor:
        condition = Condition(label=batch.get("label"), text=batch.get("text"))
        return self.generator.loss(batch["values"], condition, Noise(batch["item_seed"]), progress)


def learn(
    model: Model,
    data: Any,
    options: dict[str, Any],
    *,
    validation: Any = 0.05,
    seed: int = 0,
    reading: dict[str, Any] | None = None,
    callbacks: Sequence[Callable[..., Any]] = (),
    tokenizer: Tokenizer | str | Path | None = None,
    tokenizer_training: dict[str, Any] | None = None,
    start: Model | str | Path | None = None,
) -> None:
    """Train a model; arguments as for :meth:`ancestral.model.Model.fit`, whose ``options`` are a dict here.

    Raises:
        DataError: the data, an option or the start cannot be used.
        TrainingError: training cannot go on.
    """
    from ancestral.starting import adopt, inherit
    from ancestral.training import train

    check_options(options)
    before = None if start is None else adopt(model, start, tokenizer, tokenizer_training)
    dataset = read(data, model.tokenizer.modality, **(reading or {}))
    # Before the items are counted: of data that are read chunk by chunk this is the pass that counts them.
    sketch = dataset.sketch()
    if len(dataset) == 0:
        raise DataError("there is nothing to learn from: the data hold no items")
    share = held_share(validation)
    held = None
    if share is None:
        held = model.read(validation, **({} if isinstance(validation, Dataset) else reading or {}))
    if tokenizer is not None:
        model.tokenizer, dataset = swap_tokenizer(tokenizer, dataset)
    merged = merge_options(model.training, options)
    if before is None:
        merged = fit_tokenizer(model.tokenizer, dataset, sketch, held, share or 0.0, seed, merged, tokenizer_training)
    try:
        model.build(seed=seed)
    except ValueError as error:
        what = "the data or its arguments" if tokenizer is None else "the given tokenizer"
        raise DataError(f"this model does not suit {what}: {error}") from error
    source, held_source = sources(model.tokenizer, dataset, held, share or 0.0, seed)
    prepare(model.generator, source, held_source)
    if before is not None:
        inherit(model, before)
    model.generator.train()
    try:
        trainee = Trainee(model.generator)
        config = train_config(merged, seed, held_source is not None, trainee, source)
        model.history = train(trainee, source, config, validation=held_source, callbacks=callbacks)
    finally:
        model.generator.eval()
        model.generator.settle()
    if model.quantisation is not None:
        model.quantisation.apply(model.generator)
    fit_mixture(model.generator, model.tokenizer, dataset, held, share or 0.0, model.context, seed)


def check_options(options: dict[str, Any]) -> None:
    """Refuse what is no option of training.

    Raises:
        DataError: an unknown name.
    """
    allowed = {f.name for f in fields(TrainConfig)}
    for name in options:
        if name not in allowed:
            raise DataError(f"fit has no option {name!r}; training takes {', '.join(sorted(allowed))}")


_BUDGETS = ("steps", "minutes", "epochs", "min_steps")


def merge_options(defaults: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """A recipe's options of training with those that were asked for, whose budget replaces the recipe's whole."""
    if any(options.get(k) for k in _BUDGETS[:3]):
        defaults = {k: v for k, v in defaults.items() if k not in _BUDGETS}
    return {**defaults, **options}


def train_config(
    options: dict[str, Any], seed: int, validated: bool, trainee: Trainee | None = None, source: Source | None = None
) -> TrainConfig:
    """The configuration of training: ten minutes, early stopping where there is validation, and batches in as many
    parts as memory needs, unless told."""
    options = dict(options)
    if not any(options.get(k) for k in _BUDGETS[:3]):
        options["minutes"] = 10.0
    options.setdefault("seed", seed)
    if validated:
        options.setdefault("patience", 6)
    config = TrainConfig(**options)
    if trainee is None or source is None or "accumulate" in options:
        return config
    space, width = trainee.generator.space, trainee.generator.network.width
    numbers = space.n * (width + math.prod(space.event) * space.largest)
    return replace(config, accumulate=parts(trainee, source, config.batch_size, numbers))


def held_share(validation: Any) -> float | None:
    """The share of the training data to hold out; None where ``validation`` is data of its own.

    Raises:
        DataError: a number that is no share.
    """
    if validation is None:
        return 0.0
    if isinstance(validation, bool) or not isinstance(validation, (int, float)):
        return None
    if not 0 <= validation < 1:
        raise DataError(f"validation={validation} must be a share below 1, or data")
    return float(validation)


def swap_tokenizer(tokenizer: Tokenizer | str | Path, dataset: Dataset) -> tuple[Tokenizer, Dataset]:
    """The tokenizer, or the one saved in this folder or of this name, and the dataset as it reads it.

    Raises:
        DataError: no such folder, and no such name.
    """
    from ancestral.tokenizers.named import named, unknown

    chosen = tokenizer if isinstance(tokenizer, Tokenizer) else None
    if not isinstance(tokenizer, Tokenizer):
        chosen = Tokenizer.load(tokenizer) if Path(tokenizer).exists() else named(str(tokenizer))
        if chosen is None:
            raise DataError(unknown(str(tokenizer)))
    assert chosen is not None
    return chosen, read(dataset, chosen.modality)


def start_tokenizer(tokenizer: Tokenizer, dataset: Dataset, seed: int) -> None:
    """Fit a tokenizer without training: a learned one takes a single step, or stays as it is if it is trained."""
    fit_tokenizer(tokenizer, dataset, dataset, None, 0.0, seed, dict(steps=1, quiet=True))


def fit_tokenizer(
    tokenizer: Tokenizer,
    dataset: Dataset,
    sketch: Dataset,
    held: Dataset | None,
    share: float,
    seed: int,
    options: dict[str, Any],
    own: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Fit the tokenizer, and return the training options that are left for the model.

    A learned tokenizer takes its ``share`` of the minutes; steps and epochs hold for both. One that is trained
    already only learns the class labels. Neither ever sees what is held out.

    Args:
        tokenizer: of the model.
        sketch: of ``dataset`` (:meth:`Dataset.sketch`); what a tokenizer without weights is fitted to.
        dataset, held, share, seed: as for :func:`sources`.
        options: of the model's training.
        own: options of the tokenizer's training that differ.

    Raises:
        DataError: options for the training of a tokenizer that has none.
        TrainingError: the run was interrupted.
    """
    tokenizer.captions = longest_caption(dataset.captions)
    if not tokenizer.learned or tokenizer.fitted:
        if own:
            raise DataError(
                "there is no tokenizer to train with tokenizer_training=: "
                + ("the one given is trained" if tokenizer.fitted else f"{type(tokenizer).__name__} is not learned")
            )
        if tokenizer.learned:
            tokenizer.relabel(dataset)
        else:
            tokenizer.fit(sketch)
        return options
    check_options(own or {})
    left = dict(options)
    passed: dict[str, Any] = {k: options[k] for k in ("steps", "epochs", "quiet") if k in options}
    minutes = options.get("minutes")
    if minutes is None and not any(options.get(k) for k in ("steps", "epochs")):
        minutes = 10.0
    if minutes is not None:
        passed["minutes"] = (own or {}).get("minutes") or minutes * tokenizer.share
        left["minutes"] = minutes - passed["minutes"]
        if left["minutes"] <= 0:
            raise DataError(
                f"the tokenizer's {passed['minutes']} of {minutes} minutes leave none for the model; minutes= are for "
                "both together"
            )
    if options.get("checkpoint") is not None:
        passed["checkpoint"] = Path(options["checkpoint"]) / "tokenizer"
    kept, rest = (dataset, held) if held is not None else split_items(dataset, share, seed)
    train: Any = tokenizer.fit  # learned ones take a budget
    train(kept, validation=0 if rest is None else rest, seed=seed, **{**passed, **(own or {})})
    history = getattr(tokenizer, "history", None)
    if history is not None and history.interrupted:
        raise TrainingError(
            "the run was interrupted while the tokenizer was trained, before there was a model; with checkpoint= the "
            "same call goes on from there"
        )
    return left


def split_items(dataset: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset | None]:
    """Training and validation items; the latter None if fewer than 8 would be held out."""
    count = int(len(dataset) * share)
    if count < 8:
        return dataset, None
    mixed = np.random.default_rng(seed).permutation(len(dataset))
    return dataset.take(mixed[count:]), dataset.take(mixed[:count])


def sources(tokenizer: Tokenizer, dataset: Dataset, held: Dataset | None, share: float, seed: int) -> tuple[Any, Any]:
    """Training and validation sources of a dataset; the latter None if too little would be held out.

    Args:
        tokenizer: fitted.
        dataset: training data.
        held: validation data of their own.
        share: else the share of ``dataset`` to hold out (the last part of a stream).
        seed: of the split and of the windows.

    Raises:
        DataError: a stream shorter than one window.
    """
    space = tokenizer.space

    if tokenizer.streaming:
        joined, rest = split_stream(tokenizer, dataset, held, share)
        windows = None
        if rest is not None and len(rest) >= space.n:
            whole = len(rest) // space.n
            windows = Items(values=rest[: whole * space.n].reshape(whole, -1))
        return Windows([joined], space.n, seed), windows

    if isinstance(dataset, TableFiles):
        return disk_sources(tokenizer, dataset, held, share, seed)

    def items(part: Dataset) -> Any:
        part = part.loaded()
        tensors = {"values": compact(tokenizer.encode(part), space)}
        label = training_labels(tokenizer, part)
        if label is not None:
            tensors["label"] = label
        if space.text:
            tensors["text"] = caption_bytes(part.captions or [""] * len(part), space.text)
        return Items(**tensors)

    if held is not None:
        return items(dataset), items(held)
    kept, out = split_items(dataset, share, seed)
    return items(kept), None if out is None else items(out)


MOST_HELD = 50_000
"""Most rows held out of a table that is read chunk by chunk."""


def disk_sources(
    tokenizer: Tokenizer, dataset: TableFiles, held: Dataset | None, share: float, seed: int
) -> tuple[Any, Any]:
    """:func:`sources` of a table that is read chunk by chunk: encoded in one pass and kept on disk.

    Which rows are held out depends on the seed and on their number; they are at most ``MOST_HELD``.
    """
    space = tokenizer.space
    share = 0.0 if held is not None else min(share, MOST_HELD / max(len(dataset), 1))
    if int(len(dataset) * share) < 8:
        share = 0.0
    limit = int(share * 2**62)
    kept: list[Tensor] = []

    def parts() -> Iterator[Tensor]:
        first = 0
        for chunk in dataset.chunks():
            values = compact(tokenizer.encode(chunk), space)
            number = torch.arange(first, first + len(values)) ^ derive("held out", seed)
            out = (hash64(number) & (2**62 - 1)) < limit
            kept.append(values[out])
            first += len(values)
            yield values[~out]

    source = DiskItems(parts())
    if held is not None:
        return source, Items(values=compact(tokenizer.encode(held.loaded()), space))
    rest = torch.cat(kept)
    return source, Items(values=rest) if len(rest) else None


MOST_PREPARED = 2_000_000
"""Most rows that the parts of a model look at before training."""


def prepare(generator: Generator, source: Any, held: Any) -> None:
    """Let the generator's parts look at the values; a stream's windows have none to look at."""
    if isinstance(source, Items | DiskItems):
        generator.prepare(_values(source, generator.space), _values(held, generator.space))


def _values(source: Any, space: Space) -> Tensor:
    rows = torch.arange(0 if source is None else min(len(source), MOST_PREPARED))
    parts = [compact(source.batch(part)["values"], space) for part in rows.split(65536) if len(part)]
    return torch.cat(parts) if parts else compact(torch.zeros(0, space.n, *space.event, dtype=torch.int64), space)


def fit_mixture(
    generator: Generator,
    tokenizer: Tokenizer,
    dataset: Dataset,
    held: Dataset | None,
    share: float,
    context: int,
    seed: int,
) -> None:
    """Fit what a trained generator of streams mixes into its predictions, if anything; validation data that were held
    out of ``dataset`` are remembered in the end. Arguments as for :func:`sources`; ``context`` of a moving window."""
    if generator.mixture is None:
        return
    stream, rest = split_stream(tokenizer, dataset, held, share)
    predict = partial(network_log_probs, generator, context=context)
    generator.mixture.fit(stream, rest, predict, seed=seed, remember_held=held is None)


def split_stream(
    tokenizer: Tokenizer, dataset: Dataset, held: Dataset | None, share: float
) -> tuple[Tensor, Tensor | None]:
    """Training and validation data as one stream each, int64 ``[T]``; arguments as for :func:`sources`.

    Raises:
        DataError: a stream shorter than one window.
    """
    n = tokenizer.space.n
    joined = torch.cat(tokenizer.streams(dataset))
    if len(joined) < n:
        raise DataError(
            f"the text has {len(joined)} symbols, fewer than the model's window of {n}; give "
            "more text or a smaller length="
        )
    if held is not None:
        return joined, torch.cat(tokenizer.streams(held))
    cut = int(len(joined) * (1 - share))
    if share and min(cut, len(joined) - cut) >= n:
        return joined[:cut], joined[cut:]
    return joined, None


def compact(values: Tensor, space: Space) -> Tensor:
    """Small categories in small integers, to hold large data in memory."""
    if not space.discrete:
        return values
    return values.to(torch.uint8 if space.largest <= 256 else torch.int32)
