"""From a dataset to what the training loop consumes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ancestral.data import Dataset
from ancestral.errors import DataError
from ancestral.generator import Generator
from ancestral.noise import Noise
from ancestral.space import Condition, Space
from ancestral.tokenizers import Tokenizer
from ancestral.training import Items, Windows


class Trainee(nn.Module):
    """What the training loop sees: a loss of batches."""

    def __init__(self, generator: Generator):
        super().__init__()
        self.generator = generator

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator, progress: float) -> Tensor:
        condition = Condition(label=batch.get("label"))
        return self.generator.loss(batch["values"], condition, Noise(batch["item_seed"]), progress)


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
        streams = tokenizer.streams(dataset)
        joined = torch.cat(streams)
        if len(joined) < space.n:
            raise DataError(
                f"the text has {len(joined)} symbols, fewer than the model's window of {space.n}; give "
                "more text or a smaller length="
            )
        rest: Tensor | None = None
        if held is not None:
            rest = torch.cat(tokenizer.streams(held))
        elif share:
            cut = int(len(joined) * (1 - share))
            if min(cut, len(joined) - cut) >= space.n:
                joined, rest = joined[:cut], joined[cut:]
        windows = None
        if rest is not None and len(rest) >= space.n:
            whole = len(rest) // space.n
            windows = Items(values=rest[: whole * space.n].reshape(whole, -1))
        return Windows([joined], space.n, seed), windows

    def items(part: Dataset) -> Any:
        tensors = {"values": compact(tokenizer.encode(part), space)}
        if space.classes and part.labels is not None:
            tensors["label"] = torch.from_numpy(part.labels)
        return Items(**tensors)

    if held is not None:
        return items(dataset), items(held)
    count = int(len(dataset) * share)
    if count < 8:
        return items(dataset), None
    mixed = np.random.default_rng(seed).permutation(len(dataset))
    return items(dataset.take(mixed[count:])), items(dataset.take(mixed[:count]))


def compact(values: Tensor, space: Space) -> Tensor:
    """Small categories in small integers, to hold large data in memory."""
    if not space.discrete:
        return values
    return values.to(torch.uint8 if space.largest <= 256 else torch.int32)
