"""A model: tokenizer and generator, and the verbs that users call."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ancestral.data import Dataset, read
from ancestral.decoding.complete import Completion, complete_values
from ancestral.decoding.decoders import Ancestral, Decoder, Request
from ancestral.decoding.streams import continue_streams, stream_log_prob
from ancestral.errors import DataError, UnsupportedError
from ancestral.fitting import Trainee, sources
from ancestral.generator import Generator, Objective
from ancestral.heads.base import Head
from ancestral.inputs import class_labels, split_gaps
from ancestral.networks.base import Network
from ancestral.noise import ITEM_STREAM, Noise, item_seeds
from ancestral.order import NAMED, Order, OrderPolicy, resolve
from ancestral.scores import LogProb
from ancestral.space import Condition, Space
from ancestral.storage import load_model, save_model
from ancestral.tokenizers import Tokenizer

if TYPE_CHECKING:
    from ancestral.recipes.registry import Recipe
    from ancestral.training import History


class Model:
    """Tokenizer, order, network and head behind the five verbs.

    Args:
        tokenizer: data to values and back.
        order: order policy, or the name of a fixed order.
        network: what each site sees.
        head: distribution at a site, or a function of the space that gives one.
        objective: what training minimises; by default the exact likelihood.
        decoder: how samples are drawn by default.
        label_dropout: share of labels withheld in training.
        training: defaults of :class:`ancestral.training.TrainConfig` that suit the system.
        context: for models of long streams, symbols of a window that are seen but not predicted again when the
            window moves on; by default half.
    """

    recipe: Recipe | None = None
    config: dict[str, Any]
    history: History | None = None

    def __init__(
        self,
        tokenizer: Tokenizer,
        order: OrderPolicy | str,
        network: Network,
        head: Head | Callable[[Space], Head],
        *,
        objective: Objective | None = None,
        decoder: Decoder | None = None,
        label_dropout: float = 0.1,
        training: dict[str, Any] | None = None,
        context: int | None = None,
    ):
        self.tokenizer = tokenizer
        self._parts = (network, head, order, objective, label_dropout)
        self.decoder: Decoder = decoder or Ancestral()
        self.training = training or {}
        self._context = context
        self.config = {}
        self._generator: Generator | None = None

    # -- building and training

    @property
    def generator(self) -> Generator:
        """The distribution over values; there once the model has seen data."""
        if self._generator is None:
            raise UnsupportedError("this model has not seen any data; call fit(data) first, or load a fitted one")
        return self._generator

    @property
    def space(self) -> Space:
        """Sites and values."""
        return self.tokenizer.space

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.generator.parameters()).device

    def to(self, device: str | torch.device) -> Model:
        """Move the weights."""
        self.generator.to(device)
        return self

    def build(self, data: Any = None, seed: int = 0, **reading: Any) -> Model:
        """Fit the tokenizer to ``data`` (if given) and create the untrained weights from ``seed``."""
        if data is not None:
            self.tokenizer.fit(self.read(data, **reading))
        network, head, order, objective, dropout = self._parts
        space = self.tokenizer.space
        chosen = head if isinstance(head, Head) else head(space)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._generator = Generator(network, chosen, order, objective, dropout).build(space)
        self._generator.eval()
        return self

    def read(self, data: Any, **options: Any) -> Dataset:
        """Data of the model's modality."""
        return read(data, self.tokenizer.modality, **options)

    def fit(
        self,
        data: Any,
        *,
        validation: Any = 0.05,
        seed: int = 0,
        reading: dict[str, Any] | None = None,
        callbacks: Sequence[Callable[..., Any]] = (),
        **options: Any,
    ) -> Model:
        """Learn the joint distribution of ``data``.

        Args:
            data: file, folder, array, DataFrame, list ... of the model's modality.
            validation: data of its own, or the share of ``data`` held out for early stopping and the learning
                curve (the last part of a stream); 0 for none.
            seed: determines the weights' start, the split and the order of the items.
            reading: options of the reader.
            callbacks: called by the training loop.
            options: fields of :class:`ancestral.training.TrainConfig`: ``minutes=``, ``steps=``, ``lr=``,
                ``batch_size=``, ``checkpoint=``, ``quiet=`` ...

        Raises:
            DataError: the data cannot be used.
            TrainingError: training cannot go on.
        """
        from ancestral.training import TrainConfig, train

        allowed = {f.name for f in fields(TrainConfig)}
        for name in options:
            if name not in allowed:
                raise DataError(f"fit has no option {name!r}; training takes {', '.join(sorted(allowed))}")
        dataset = self.read(data, **(reading or {}))
        if len(dataset) == 0:
            raise DataError("there is nothing to learn from: the data hold no items")
        held: Dataset | None = None
        if isinstance(validation, (int, float)) and not isinstance(validation, bool):
            if not 0 <= validation < 1:
                raise DataError(f"validation={validation} must be a share below 1, or data")
            share = float(validation)
        else:
            share = 0.0
            held = None if validation is None else self.read(validation, **(reading or {}))
        self.tokenizer.fit(dataset)
        self.build(seed=seed)
        source, held_source = sources(self.tokenizer, dataset, held, share, seed)
        given = {**self.training, **options}
        if not any(given.get(k) for k in ("steps", "minutes", "epochs")):
            given["minutes"] = 10.0
        given.setdefault("seed", seed)
        if held_source is not None:
            given.setdefault("patience", 6)
        self.generator.train()
        try:
            self.history = train(
                Trainee(self.generator),
                source,
                TrainConfig(**given),
                validation=held_source,
                callbacks=callbacks,
            )
        finally:
            self.generator.eval()
        return self

    # -- verbs

    def sample(
        self,
        n: int = 1,
        *,
        label: Any = None,
        given: Any = None,
        seed: int = 0,
        first: int = 0,
        length: int | None = None,
        order: str | Order | None = None,
        decoder: Decoder | None = None,
        guidance: float = 0.0,
        batch_size: int = 256,
        as_dataset: bool = False,
        **options: Any,
    ) -> Any:
        """Draw ``n`` new items.

        Args:
            n: how many.
            label: a class (name or number) for all items, or one per item.
            given: values of some sites that every item shall have, in the tokenizer's terms (a table's columns:
                ``{"sex": "Female"}``).
            seed: the i-th item depends on ``seed`` and ``first + i`` only, not on the batch.
            first: number of the first item.
            length: symbols per item, for models of streams (by default one window).
            order: follow this order instead of the model's own.
            decoder: another way of drawing; see :mod:`ancestral.decoding.decoders`.
            guidance: classifier-free guidance scale; needs ``label``.
            batch_size: items drawn together.
            as_dataset: return a :class:`Dataset` rather than the form that the training data had.
            options: ``temperature``, ``top_k``, ``top_p``, ``min_p``.
        """
        if n < 0:
            raise DataError(f"cannot draw {n} items; give n=0 or more")
        labels = class_labels(self.tokenizer, label, n)
        if guidance and labels is None:
            raise DataError("guidance strengthens a label, and none was given; add label=")
        if self.tokenizer.streaming:
            if given is not None:
                raise DataError("a model of streams takes what is given as a prefix: use complete([text])")
            empty = [torch.zeros(0, dtype=torch.int64)] * n
            return self._continue(empty, length or self.space.n, seed, first, batch_size, options, as_dataset)
        if given is not None:
            row, known = self.tokenizer.given(given)
            values = self._complete(
                row[None].expand(n, *row.shape), known[None].expand(n, -1), labels, seed, first, order, decoder,
                guidance, batch_size, options,
            ).values  # fmt: skip
        else:
            chunks = []
            for a, b in _spans(n, batch_size):
                noise = Noise(item_seeds(seed, torch.arange(first + a, first + b)).to(self.device))
                request = Request(
                    noise,
                    Condition(label=None if labels is None else labels[a:b].to(self.device)),
                    self._order(order),
                    guidance=guidance,
                    options=options,
                )
                chunks.append((decoder or self.decoder)(self.generator, request).cpu())
            values = torch.cat(chunks) if chunks else self._empty()
        return self._give(self.tokenizer.decode(values), as_dataset)

    def log_prob(
        self,
        data: Any,
        *,
        label: Any = None,
        order: str | Order | None = None,
        bound: int = 0,
        per_site: bool = False,
        seed: int = 0,
        batch_size: int = 256,
    ) -> LogProb:
        """Natural logarithm of the probability (density) of every item.

        Args:
            data: items of the model's modality.
            label: condition on these classes (one, or one per item; ``True`` takes the data's own). By default
                labels are withheld.
            order: score under this order rather than the model's own; exact either way.
            bound: if positive, average the exact scores under this many random orders instead: a lower bound
                on the probability of a model that draws its order at random.
            per_site: keep the terms, ``.per_site`` ``[n, N]``.
            seed: of the random orders.
            batch_size: items scored together.

        Returns:
            float64 ``[n]`` nats, with ``.kind``.
        """
        dataset = self.read(data)
        if self.tokenizer.streaming:
            streams = self.tokenizer.streams(dataset)
            each = [stream_log_prob(self.generator, s, self.context, batch_size) for s in streams]
            total = [float(e.sum()) for e in each]
            sizes = [self.tokenizer.size(dataset, i) for i in range(len(streams))]
            return LogProb(total, self._kind(), sizes)
        values = self.tokenizer.encode(dataset)
        labels = class_labels(self.tokenizer, dataset.labels if label is True else label, len(values))
        chunks = []
        generator = self.generator
        with torch.no_grad():
            for a, b in _spans(len(values), batch_size):
                batch = values[a:b].to(self.device)
                condition = Condition(label=None if labels is None else labels[a:b].to(self.device))
                if bound <= 0:
                    chosen = self._order(order) or generator.order.scoring()
                    chunks.append(generator.log_prob(batch, chosen.to(self.device), condition).double().cpu())
                    continue
                noise = Noise(item_seeds(seed, torch.arange(a, b)).to(self.device))
                draws = []
                for _ in range(bound):
                    drawn = Order(torch.argsort(noise.uniform(self.space.n), -1))
                    draws.append(generator.log_prob(batch, drawn, condition).double().cpu())
                chunks.append(torch.stack(draws).mean(0))
        terms = torch.cat(chunks) if chunks else torch.zeros(0, self.space.n, dtype=torch.float64)
        kind = "lower_bound" if bound > 0 else self._kind()
        scalars = [self.tokenizer.size(dataset, i) for i in range(len(values))]
        return LogProb(terms.sum(1).numpy(), kind, scalars, terms.numpy() if per_site else None)

    def complete(
        self,
        data: Any,
        *,
        known: Any = None,
        draws: int = 1,
        label: Any = None,
        seed: int = 0,
        length: int | None = None,
        order: str | Order | None = None,
        decoder: Decoder | None = None,
        guidance: float = 0.0,
        particles: int = 64,
        batch_size: int = 256,
        as_dataset: bool = False,
        details: bool = False,
        **options: Any,
    ) -> Any:
        """Draw the unknown sites given the known ones: impute, inpaint, continue.

        Args:
            data: items with gaps: numbers that are NaN, missing cells, or anything where ``known`` says so; for
                models of streams, texts to continue.
            known: bool, True where a site is known; of the items' own shape, or one mask for all.
            draws: completions per item.
            label: a class for all items, or one per item.
            seed: the j-th draw of item i depends on ``seed`` and ``i * draws + j`` only.
            length: symbols to add, for models of streams (by default one window).
            order: in which the unknown sites are drawn.
            decoder: another way of drawing; see :mod:`ancestral.decoding.decoders`.
            guidance: classifier-free guidance scale; needs ``label``.
            particles: candidates per draw where the model can only be conditioned by importance resampling.
            batch_size: items drawn together.
            as_dataset: return a :class:`Dataset` rather than the form that the data had.
            details: also return the :class:`Completion` with the method used.
            options: ``temperature``, ``top_k``, ``top_p``, ``min_p``.

        Returns:
            ``n * draws`` items, the draws of one item next to each other. Known sites never change.
        """
        if draws < 1:
            raise DataError(f"draws={draws} must be at least 1")
        if self.tokenizer.streaming:
            dataset = self.read(data)
            prefixes = [s for s in self.tokenizer.streams(dataset) for _ in range(draws)]
            out = self._continue(prefixes, length or self.space.n, seed, 0, batch_size, options, as_dataset)
            return (out, Completion(torch.zeros(0), "prefix")) if details else out
        dataset, values, mask = split_gaps(self.tokenizer, data, known)
        labels = class_labels(self.tokenizer, dataset.labels if label is True else label, len(values))
        if draws > 1:
            values, mask = values.repeat_interleave(draws, 0), mask.repeat_interleave(draws, 0)
            labels = None if labels is None else labels.repeat_interleave(draws, 0)
        done = self._complete(
            values, mask, labels, seed, 0, order, decoder, guidance, batch_size, options, particles
        )  # fmt: skip
        if done.method == "importance" and done.effective is not None and done.effective < 0.1 * particles:
            warnings.warn(
                f"{self.name} can only be conditioned on these sites by importance resampling, and about "
                f"{done.effective:.1f} of {particles} candidates carry the weight; use an any-order recipe or "
                "more particles=",
                stacklevel=2,
            )
        decoded = self.tokenizer.decode(done.values).with_form({**dataset.form, "names": None})
        out = self._give(decoded, as_dataset)
        return (out, done) if details else out

    def compress(self, data: Any, *, batch_size: int = 256, progress: Any = None) -> bytes:
        """Lossless code of ``data``; about ``-log2 p`` bits plus a header.

        Raises:
            UnsupportedError: the values are real numbers.
            DataError: data that the model's values cannot hold.
        """
        from ancestral.coding import encode_stream_set, encode_values

        dataset = self.read(data)
        side: dict[str, Any] = {}
        if dataset.labels is not None:
            side["labels"] = dataset.labels.tolist()
            side["classes"] = list(dataset.classes)
        if self.tokenizer.streaming:
            streams = self.tokenizer.streams(dataset)
            side["form"] = _new(dataset.form, self.tokenizer.from_streams(streams[:1]).form)
            return encode_stream_set(self.generator, streams, self.context, side=_pack(side), progress=progress)
        values, extra = self.tokenizer.encode_exact(dataset)
        side["form"] = _new(dataset.form, self.tokenizer.decode(values[:1]).form)
        return encode_values(self.generator, values, batch_size=batch_size, side=_pack(side, extra), progress=progress)

    def decompress(self, blob: bytes, *, as_dataset: bool = False, progress: Any = None) -> Any:
        """The data that :meth:`compress` was given, to the bit.

        Raises:
            StreamError: damaged, of another model, or of another numerical result.
        """
        from ancestral.coding import decode_stream_set, decode_values

        if self.tokenizer.streaming:
            streams, packed = decode_stream_set(self.generator, blob, progress=progress)
            side, _ = _unpack(packed)
            dataset = self.tokenizer.from_streams(streams)
        else:
            values, packed = decode_values(self.generator, blob, progress=progress)
            side, extra = _unpack(packed)
            dataset = self.tokenizer.decode_exact(values, extra)
        if "labels" in side:
            dataset.labels = np.asarray(side["labels"], np.int64)
            dataset.classes = tuple(side["classes"])
        return self._give(dataset.with_form({**dataset.form, **side.get("form", {})}), as_dataset)

    # -- saving

    def save(self, path: str | Path) -> None:
        """Write a folder; see :func:`ancestral.storage.save_model`."""
        save_model(self, path)

    @classmethod
    def load(cls, path: str | Path, recipe: str | Path | None = None) -> Model:
        """The model that :meth:`save` wrote; see :func:`ancestral.storage.load_model`."""
        return load_model(path, recipe)

    # -- helpers

    @property
    def name(self) -> str:
        """The recipe's id."""
        return self.recipe.id if self.recipe is not None else "this model"

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(p.numel() for p in self.generator.parameters())

    @property
    def context(self) -> int:
        """Symbols of a stream's window that are seen but not predicted again when it moves on."""
        return self.space.n // 2 if self._context is None else self._context

    def verbs(self) -> tuple[str, ...]:
        """The verbs that this model answers."""
        finite = self._generator is None or self.generator.head.finite
        return ("sample", "log_prob", "complete", *(("compress", "decompress") if finite else ()))

    def _kind(self) -> str:
        return "exact" if self.generator.head.exact else "lower_bound"

    def _order(self, order: str | Order | None) -> Order | None:
        if order is None:
            return None
        try:
            found = resolve(order, self.space)
            self.generator.network.check(found)
        except (ValueError, TypeError, IndexError) as error:
            known = f" (named orders: {', '.join(NAMED)})" if isinstance(order, str) else ""
            raise DataError(f"order {order!r} does not suit this model: {error}{known}") from error
        if not self.generator.any_order and not torch.equal(found.rank, self.generator.order.scoring().rank):
            raise UnsupportedError(
                f"{self.name} was trained in one order only and cannot follow {order!r}; an any-order recipe such as "
                "any-order can"
            )
        return found.to(self.device)

    def _complete(
        self,
        values: Tensor,
        known: Tensor,
        labels: Tensor | None,
        seed: int,
        first: int,
        order: str | Order | None,
        decoder: Decoder | None,
        guidance: float,
        batch_size: int,
        options: dict[str, Any],
        particles: int = 64,
    ) -> Completion:
        if guidance and labels is None:
            raise DataError("guidance strengthens a label, and none was given; add label=")
        return complete_values(
            self.generator,
            values,
            known,
            seeds=item_seeds(seed, torch.arange(first, first + len(values))),
            condition=Condition(label=labels),
            order=self._order(order),
            decoder=decoder or self.decoder,
            guidance=guidance,
            options=options,
            particles=particles,
            batch_size=batch_size,
        )

    def _continue(
        self,
        prefixes: list[Tensor],
        length: int,
        seed: int,
        first: int,
        batch_size: int,
        options: dict[str, Any],
        as_dataset: bool,
    ) -> Any:
        seeds = item_seeds(seed ^ ITEM_STREAM, torch.arange(first, first + len(prefixes)))
        streams = continue_streams(self.generator, prefixes, length, self.context, seeds, batch_size, options)
        return self._give(self.tokenizer.from_streams(streams), as_dataset)

    def _give(self, dataset: Dataset, as_dataset: bool) -> Any:
        return dataset if as_dataset else dataset.native()

    def _empty(self) -> Tensor:
        dtype = torch.int64 if self.space.discrete else torch.float32
        return torch.zeros(0, self.space.n, *self.space.event, dtype=dtype)


def _spans(n: int, size: int) -> Iterator[tuple[int, int]]:
    for a in range(0, n, size):
        yield a, min(n, a + size)


def _new(form: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    """What of an outer form differs from the one that decoded data have anyway."""
    return {name: value for name, value in form.items() if name not in usual or usual[name] != value}


def _pack(side: dict[str, Any], extra: bytes = b"") -> bytes:
    text = json.dumps({k: v for k, v in side.items() if v}, ensure_ascii=False).encode()
    text = b"" if text == b"{}" else text
    return len(text).to_bytes(4, "little") + text + extra if text or extra else b""


def _unpack(packed: bytes) -> tuple[dict[str, Any], bytes]:
    size = int.from_bytes(packed[:4], "little")
    return json.loads(packed[4 : 4 + size] or b"{}"), packed[4 + size :]
