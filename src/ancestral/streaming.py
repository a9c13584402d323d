"""The verbs of models of streams: items of any length, seen through a window that moves on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ancestral.decoding.streams import continue_streams, stream_log_prob
from ancestral.noise import ITEM_STREAM, item_seeds
from ancestral.scores import LogProb

if TYPE_CHECKING:
    from ancestral.data import Dataset
    from ancestral.decoding.decoders import Decoder
    from ancestral.model import Model


def score(model: Model, dataset: Dataset, batch_size: int) -> LogProb:
    """Log-probability of every stream, float64 ``[n]``, nats."""
    streams = model.tokenizer.streams(dataset)
    each = [stream_log_prob(model.generator, s, model.context, batch_size) for s in streams]
    sizes = [model.tokenizer.size(dataset, i) for i in range(len(streams))]
    return LogProb([float(e.sum()) for e in each], model.kind, sizes)


def extend(
    model: Model,
    prefixes: list[Tensor],
    length: int | None,
    seed: int,
    first: int,
    batch_size: int,
    options: dict[str, Any],
    decoder: Decoder | None = None,
) -> Dataset:
    """The prefixes, int64 ``[T_i]`` each, with ``length`` symbols added (by default one window).

    A stream in which the model draws a symbol that ends it (:attr:`Tokenizer.ends`) stays shorter.
    """
    seeds = item_seeds(seed ^ ITEM_STREAM, torch.arange(first, first + len(prefixes)))
    streams = continue_streams(
        model.generator,
        prefixes,
        length or model.space.n,
        model.context,
        seeds,
        batch_size,
        options,
        decoder or model.decoder,
        model.tokenizer.ends,
    )
    return model.tokenizer.from_streams(streams)
