"""A model: tokenizer and generator, and the verbs that users call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ancestral import streaming
from ancestral.data import Dataset, TableFiles, read
from ancestral.decoding.complete import Completion, complete_values
from ancestral.decoding.decoders import Ancestral, Decoder, draw_values
from ancestral.decoding.mixing import NGramMixture
from ancestral.decoding.scoring import score_values
from ancestral.errors import DataError, UnsupportedError
from ancestral.fitting import learn, start_tokenizer
from ancestral.generator import Generator, Objective
from ancestral.heads.base import Head
from ancestral.inputs import check_drawing, check_guidance, checked, condition_of, order_for, split_gaps
from ancestral.networks.base import Network
from ancestral.noise import item_seeds
from ancestral.order import Order, OrderPolicy
from ancestral.quantisation import FineQuant
from ancestral.quantisation.weights import weights
from ancestral.scores import LogProb
from ancestral.space import Condition, Space
from ancestral.storage import load_model, save_model
from ancestral.tables.conditioning import draw_given
from ancestral.tables.restrictions import split_given
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
        mixture: what is mixed into the predictions of long streams.
        quantisation: what the weights are rounded to once training is over.
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
        mixture: NGramMixture | None = None,
        quantisation: FineQuant | None = None,
    ):
        self.tokenizer, self.quantisation = tokenizer, quantisation
        self._parts = (network, head, order, objective, label_dropout, mixture)
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
        self.tokenizer.to(device)
        return self

    def build(self, data: Any = None, seed: int = 0, **reading: Any) -> Model:
        """Fit the tokenizer to ``data`` (if given) and create the untrained weights from ``seed``.

        A learned tokenizer takes a single step here, or stays as it is if it is trained: training is for :meth:`fit`.
        """
        if data is not None:
            start_tokenizer(self.tokenizer, self.read(data, **reading), seed)
        network, head, order, objective, dropout, mixture = self._parts
        space = self.tokenizer.space
        chosen = head if isinstance(head, Head) else head(space)
        network.meet(self.tokenizer)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._generator = Generator(network, chosen, order, objective, dropout, mixture).build(space)
        self._generator.eval()
        return self

    def read(self, data: Any, **options: Any) -> Dataset:
        """Data of the model's modality, in memory."""
        return read(data, self.tokenizer.modality, **options).loaded()

    def fit(
        self,
        data: Any,
        *,
        validation: Any = 0.05,
        seed: int = 0,
        reading: dict[str, Any] | None = None,
        callbacks: Sequence[Callable[..., Any]] = (),
        tokenizer: Tokenizer | str | Path | None = None,
        tokenizer_training: dict[str, Any] | None = None,
        start: Model | str | Path | None = None,
        **options: Any,
    ) -> Model:
        """Learn the joint distribution of ``data``.

        A learned tokenizer is trained first, on its share of ``minutes=`` (``model.tokenizer.share``); ``steps=`` and
        ``epochs=`` are those of either. A budget given here replaces the recipe's own; without either it is ten
        minutes.

        Args:
            data: file, folder, array, DataFrame, list ... of the model's modality.
            validation: data of its own, or the share of ``data`` held out for early stopping and the learning
                curve (the last part of a stream); 0 for none.
            seed: determines the weights' start, the split and the order of the items.
            reading: options of the reader.
            callbacks: called by the training loop.
            tokenizer: use this one, or the one in this folder (:meth:`Tokenizer.save`, or a saved model's) or of this
                name (as "dct"), in place of the model's own; a learned one that is trained stays as it is.
            tokenizer_training: training options of a learned tokenizer that differ from the model's.
            start: an earlier model of the same composition, or its folder: training begins with its tokenizer and
                weights instead of random ones. See :mod:`ancestral.starting`.
            options: fields of :class:`ancestral.training.TrainConfig`: ``minutes=``, ``steps=``, ``lr=``,
                ``batch_size=``, ``checkpoint=``, ``quiet=`` ...

        Raises:
            DataError: the data cannot be used.
            TrainingError: training cannot go on.
        """
        learn(
            self, data, options, validation=validation, seed=seed, reading=reading, callbacks=callbacks,
            tokenizer=tokenizer, tokenizer_training=tokenizer_training, start=start,
        )  # fmt: skip
        return self

    # -- verbs

    def sample(
        self,
        n: int = 1,
        *,
        label: Any = None,
        caption: Any = None,
        given: Any = None,
        seed: int = 0,
        first: int = 0,
        length: int | None = None,
        order: str | Order | None = None,
        decoder: Decoder | None = None,
        guidance: float = 0.0,
        batch_size: int | None = None,
        as_dataset: bool = False,
        out: str | Path | None = None,
        **options: Any,
    ) -> Any:
        """Draw ``n`` new items.

        Args:
            n: how many.
            label: a class (name or number) for all items, or one per item.
            caption: a text that describes all items, or one per item, for models of data with captions.
            given: values of some sites that every item shall have, in the tokenizer's terms (a table's columns:
                ``{"sex": "Female"}``, sets ``{"sex": {"Female", "Male"}}`` and ranges ``{"age": between(30, 40)}``:
                :func:`ancestral.tables.draw_given`).
            seed, first: the i-th item depends on ``seed`` and ``first + i`` only, not on the batch.
            length: symbols per item, for models of streams (by default one window).
            order: follow this order instead of the model's own.
            decoder: another way of drawing; see :mod:`ancestral.decoding.decoders`.
            guidance: classifier-free guidance scale; needs ``label`` or ``caption``.
            batch_size: items drawn together; by default what suits the network.
            as_dataset: return a :class:`Dataset` rather than the form that the training data had.
            out: for tables, a csv or parquet file to write the rows to, chunk by chunk, and to return the path of.
            options: ``temperature``, ``top_k``, ``top_p``, ``min_p``.
        """
        if out is not None:
            from ancestral.tables.chunked import sample_to

            options |= {"order": order, "decoder": decoder, "guidance": guidance, "batch_size": batch_size}
            return sample_to(self, n, out, label=label, given=given, seed=seed, first=first, **options)
        check_drawing(options, guidance, n=n, seed=seed, first=first, **checked(self.tokenizer, length, decoder))
        if self.tokenizer.streaming:
            streaming.refuse(self, label=label, caption=caption, order=order, guidance=guidance or None)
            if given is not None:
                raise DataError("a model of streams takes what is given as a prefix: use complete([text])")
            empty = [torch.zeros(0, dtype=torch.int64)] * n
            drawn = streaming.extend(self, empty, length, seed, first, batch_size or 256, options, decoder)
            return self._give(drawn, as_dataset)
        told = condition_of(self.tokenizer, label, caption, n)
        check_guidance(guidance, told)
        if split_given(given)[1]:
            values = draw_given(
                self, n, given, told.label, seed, first, self._order(order, n), decoder, guidance,
                batch_size or 256, options,
            )  # fmt: skip
        elif given is not None:
            row, known = self.tokenizer.given(given)
            values = self._complete(
                row[None].expand(n, *row.shape), known[None].expand(n, -1), told, seed, first, order, decoder,
                guidance, batch_size, options,
            ).values  # fmt: skip
        else:
            values = draw_values(
                self.generator,
                decoder or self.decoder,
                torch.arange(first, first + n),
                seed=seed,
                condition=told,
                order=self._order(order, n),
                guidance=guidance,
                options=options,
                batch_size=batch_size,
            )
        return self._give(self.tokenizer.decode(values), as_dataset)

    def log_prob(
        self,
        data: Any,
        *,
        label: Any = None,
        caption: Any = None,
        order: str | Order | None = None,
        bound: int = 0,
        per_site: bool = False,
        seed: int = 0,
        batch_size: int | None = None,
    ) -> LogProb:
        """Natural logarithm of the probability (density) of every item.

        Args:
            data: items of the model's modality.
            label: condition on these classes (one, or one per item; ``True`` takes the data's own). By default
                labels are withheld.
            caption: condition on these texts (one, or one per item; ``True`` takes the data's own).
            order: score under this order rather than the model's own; exact either way.
            bound: if positive, the mean of the exact scores under this many random orders instead: a lower bound on
                the probability of a model that draws its order at random.
            per_site: keep the terms, ``.per_site`` ``[n, N]``; of streams, padded with 0 to the longest one.
            seed: of the random orders.
            batch_size: items scored together; by default what suits the network.

        Returns:
            float64 ``[n]`` nats, with ``.kind`` and ``.of``: with a learned (lossy) tokenizer the probability is
            that of the item's codes, and tells nothing about the items that have the same codes.
        """
        dataset = read(data, self.tokenizer.modality)
        if isinstance(dataset, TableFiles):
            from ancestral.tables.chunked import log_prob_chunks

            told = {"label": label, "order": order, "bound": bound, "seed": seed}
            return log_prob_chunks(self, dataset, per_site=per_site, batch_size=batch_size, **told)
        if self.tokenizer.streaming:
            streaming.refuse(self, label=label, caption=caption, order=order, bound=bound or None)
            return streaming.score(self, dataset, batch_size or 256, per_site)
        values = self.tokenizer.encode(dataset)
        terms = score_values(
            self.generator,
            values,
            condition=condition_of(self.tokenizer, label, caption, len(dataset), dataset),
            order=self._order(order, len(values)),
            bound=bound,
            seed=seed,
            batch_size=batch_size,
        )
        for row, rest in zip(terms, self.tokenizer.rest(dataset) or (), strict=False):
            row[: len(rest)] += torch.from_numpy(rest)
        kind = "lower_bound" if bound > 0 else self.kind
        scalars = [self.tokenizer.size(dataset, i) for i in range(len(values))]
        sites = terms.numpy() if per_site else None
        return LogProb(terms.sum(1).numpy(), kind, scalars, sites, self.tokenizer.scored)

    def complete(
        self,
        data: Any,
        *,
        known: Any = None,
        draws: int = 1,
        label: Any = None,
        caption: Any = None,
        seed: int = 0,
        length: int | None = None,
        order: str | Order | None = None,
        decoder: Decoder | None = None,
        guidance: float = 0.0,
        particles: int = 64,
        batch_size: int | None = None,
        as_dataset: bool = False,
        details: bool = False,
        **options: Any,
    ) -> Any:
        """Draw the unknown sites given the known ones: impute, inpaint, continue.

        Args:
            data: items with gaps: numbers that are NaN, missing cells, or anything where ``known`` says so; for
                models of streams, texts to continue.
            known: bool, True where a site is known; of the items' own shape, or one mask for all. "coarse" for images
                smaller than the model's, whose finer maps are drawn (by models that draw scale by scale).
            draws: completions per item.
            label, caption: a class, and a text that describes, all items, or one per item.
            seed: the j-th draw of item i depends on ``seed`` and ``i * draws + j`` only.
            length: symbols to add, for models of streams (by default one window).
            order, decoder: in which order, and how, the unknown sites are drawn; as for :meth:`sample`.
            guidance: classifier-free guidance scale; needs ``label`` or ``caption``.
            particles: candidates per draw where the model can only be conditioned by importance resampling.
            batch_size: items drawn together; by default what suits the network.
            as_dataset: return a :class:`Dataset` rather than the form that the data had.
            details: also return the :class:`Completion` with the method used.
            options: ``temperature``, ``top_k``, ``top_p``, ``min_p``.

        Returns:
            ``n * draws`` items, the draws of one item next to each other. Known sites never change. Of a DataFrame
            they keep the index.
        """
        check_drawing(options, guidance, draws=draws, seed=seed, **checked(self.tokenizer, length, decoder))
        if self.tokenizer.streaming:
            streaming.refuse(self, known=known, label=label, caption=caption, order=order, guidance=guidance or None)
            dataset = self.read(data)
            dataset = dataset.take([i for i in range(len(dataset)) for _ in range(draws)])
            prefixes = self.tokenizer.streams(dataset)
            longer = streaming.extend(
                self, prefixes, length, seed, 0, batch_size or 256, options, decoder, given=dataset
            )
            out = self._give(longer, as_dataset)
            return (out, Completion(torch.zeros(0), "prefix")) if details else out
        dataset, values, mask, shown = split_gaps(self.tokenizer, data, known)
        told = condition_of(self.tokenizer, label, caption, len(dataset), dataset)
        rows = dataset
        if draws > 1:
            rows = dataset.take(torch.arange(len(values)).repeat_interleave(draws).numpy())
            values, mask = values.repeat_interleave(draws, 0), mask.repeat_interleave(draws, 0)
            told = told.map(lambda t: t.repeat_interleave(draws, 0))
            shown = None if shown is None else shown.repeat_interleave(draws, 0)
        done = self._complete(values, mask, told, seed, 0, order, decoder, guidance, batch_size, options, particles)
        done.warn(self.name, particles)
        seen = mask if shown is None and self.tokenizer.lossless else shown
        decoded = self.tokenizer.decode_given(done.values, rows, seen).with_form({**dataset.form, "names": None})
        out = decoded if as_dataset else decoded.completed(data)
        return (out, done) if details else out

    def predict(self, data: Any, column: str, **options: Any) -> Any:
        """A point estimate of a table's column given the others; see :func:`ancestral.tables.predict`."""
        from ancestral.tables import predict

        return predict(self, data, column, **options)

    def predict_proba(self, data: Any, column: str, **options: Any) -> Any:
        """Probabilities of a table's column given the others; see :func:`ancestral.tables.predict_proba`."""
        from ancestral.tables import predict_proba

        return predict_proba(self, data, column, **options)

    def compress(self, data: Any, *, batch_size: int | None = None, progress: Any = None) -> bytes:
        """Lossless code of ``data``: about ``-log2 p`` bits, given the labels where there are any, plus a header.

        Raises:
            UnsupportedError: the values are real numbers, or the tokenizer is lossy.
            DataError: data that the model's values cannot hold.
        """
        from ancestral.archive import compress

        return compress(self, self.read(data), batch_size or self.generator.network.batch, progress)

    def decompress(self, blob: bytes, *, as_dataset: bool = False, progress: Any = None) -> Any:
        """The data that :meth:`compress` was given, to the bit.

        Raises:
            StreamError: damaged, of another model, or of another numerical result.
        """
        from ancestral.archive import decompress

        return self._give(decompress(self, blob, progress), as_dataset)

    def quantise(self, bits: int = 4, **options: Any) -> Model:
        """Store the weights of linear maps and tables in few bits, here; returns the model.

        Scores, samples and codes are those of the rounded weights from then on, and :meth:`save` keeps them so.

        Args:
            bits: 8 or 4.
            options: ``group``, ``shrink``, ``smallest``, ``embeddings``, ``search``, ``between`` of
                :class:`ancestral.quantisation.FineQuant`.

        Raises:
            UnsupportedError: the weights are quantised already.
            DataError: impossible settings.
        """
        FineQuant.asked(bits, **options).apply(self.generator)
        return self

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write a folder; see :func:`ancestral.storage.save_model`."""
        save_model(self, path, overwrite)

    @classmethod
    def load(cls, path: str | Path, recipe: str | Path | None = None) -> Model:
        """The model that :meth:`save` wrote; see :func:`ancestral.storage.load_model`."""
        return load_model(path, recipe)

    @property
    def name(self) -> str:
        """The recipe's id."""
        return self.recipe.id if self.recipe is not None else "this model"

    @property
    def parameters(self) -> int:
        """Number of weights, however many bits they are stored in."""
        return weights(self.generator)

    @property
    def context(self) -> int:
        """Symbols of a stream's window that are seen but not predicted again when it moves on."""
        return self.space.n // 2 if self._context is None else self._context

    @property
    def kind(self) -> str:
        """Of the scores: "exact", "lower_bound" or "estimate"."""
        kind = self.generator.head.kind
        return "lower_bound" if kind == "exact" and self.tokenizer.many_codes else kind

    def verbs(self) -> tuple[str, ...]:
        """The verbs that this model answers."""
        finite = (self._generator is None or self.generator.head.finite) and self.tokenizer.lossless
        return ("sample", "log_prob", "complete", *(("compress", "decompress") if finite else ()))

    def _order(self, order: str | Order | None, n: int) -> Order | None:
        return None if order is None else order_for(self.generator, order, n, self.name).to(self.device)

    def _complete(
        self,
        values: Tensor,
        known: Tensor,
        told: Condition,
        seed: int,
        first: int,
        order: str | Order | None,
        decoder: Decoder | None,
        guidance: float,
        batch_size: int | None,
        options: dict[str, Any],
        particles: int = 64,
    ) -> Completion:
        check_guidance(guidance, told)
        return complete_values(
            self.generator,
            values,
            known,
            seeds=item_seeds(seed, torch.arange(first, first + len(values))),
            condition=told,
            order=self._order(order, len(values)),
            decoder=decoder or self.decoder,
            guidance=guidance,
            options=options,
            particles=particles,
            batch_size=batch_size or self.generator.network.batch,
        )

    @staticmethod
    def _give(dataset: Dataset, as_dataset: bool) -> Any:
        return dataset if as_dataset else dataset.native()
