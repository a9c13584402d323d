"""The verbs of models of streams: items of any length, seen through a window that moves on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ancestral.decoding.streams import continue_streams, stream_log_prob
from ancestral.errors import UnsupportedError
from ancestral.noise import ITEM_STREAM, item_seeds
from ancestral.scores import LogProb

if TYPE_CHECKING:
    from ancestral.data import Dataset
    from ancestral.decoding.decoders import Decoder
    from ancestral.model import Model


def refuse(model: Model, **options: Any) -> None:
    """Refuse options that mean nothing to a stream, rather than ignore them.

    Raises:
        UnsupportedError: one of them is given.
    """
    for name, value in options.items():
        if value is not None and value is not False:
            raise UnsupportedError(
                f"{name}= is not for {model.name} on streams, which have no fixed sites and are read from front to "
                "back; leave it out, or fit whole documents with streaming=False"
            )


def score(model: Model, dataset: Dataset, batch_size: int, per_site: bool) -> LogProb:
    """Log-probability of every stream, float64 ``[n]``, nats; its terms are padded with 0 to the longest stream."""
    streams = model.tokenizer.streams(dataset)
    each = [stream_log_prob(model.generator, s, model.context, batch_size) for s in streams]
    rest = model.tokenizer.rest(dataset)
    if rest is not None:
        each = [e + torch.from_numpy(r) for e, r in zip(each, rest, strict=True)]
    sizes = [model.tokenizer.size(dataset, i) for i in range(len(streams))]
    terms = None
    if per_site:
        terms = np.zeros((len(each), max((len(e) for e in each), default=0)))
        for row, e in zip(terms, each):
            row[: len(e)] = e.numpy()
    return LogProb([float(e.sum()) for e in each], model.kind, sizes, terms)


def extend(
    model: Model,
    prefixes: list[Tensor],
    length: int | None,
    seed: int,
    first: int,
    batch_size: int,
    options: dict[str, Any],
    decoder: Decoder | None = None,
    given: Dataset | None = None,
) -> Dataset:
    """The prefixes, int64 ``[T_i]`` each, with ``length`` symbols added (by default one window).

    A stream in which the model draws a symbol that ends it (:attr:`Tokenizer.ends`) stays shorter.

    Args:
        decoder: another way of drawing.
        given: the items that the prefixes are the symbols of, which come back as they are.
    """
    seeds = item_seeds(seed ^ ITEM_STREAM, torch.arange(first, first + len(prefixes)))
    streams = continue_streams(
        model.generator,
        prefixes,
        model.space.n if length is None else length,
        model.context,
        seeds,
        batch_size,
        options,
        decoder or model.decoder,
        model.tokenizer.ends,
    )
    return model.tokenizer.from_streams(streams) if given is None else model.tokenizer.continued(streams, given)
