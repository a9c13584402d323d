"""Drafts without another network: the target's own guesses, refined pass by pass, and text that was seen before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ancestral.decoding.drafts import Drafter, Proposal
from ancestral.errors import UnsupportedError
from ancestral.noise import Noise
from ancestral.order import Order
from ancestral.space import Condition

if TYPE_CHECKING:
    from ancestral.generator import Generator


def _require_single_sites(order: Order) -> None:
    if not order.sequential:
        raise UnsupportedError("this draft needs an order of single sites")


@dataclass(frozen=True)
class Jacobi:
    """Drafts what the target found most probable at each site in its last pass, whatever stood before it then.

    Each pass that judges a window of guesses also renews those behind the accepted ones: Jacobi iteration for the fixed
    point that greedy decoding reaches (Santilli et al. 2023, arXiv:2305.10427). The guesses are certain drafts, so that
    what is drawn at other temperatures follows the target too.
    """

    def start(self, target: Generator, order: Order, condition: Condition, options: dict[str, Any]) -> Drafter:
        _require_single_sites(order)
        return _JacobiDrafter(order)


class _JacobiDrafter:
    def __init__(self, order: Order):
        self.order = order
        self._guesses: dict[int, int] = {}

    @property
    def passes(self) -> int:
        return 0

    def propose(self, values: Tensor, first: int, count: int, rows: int, noise: Noise) -> Proposal:
        values = values.clone()
        guess = int(values[0, self.order.sets[first - 1]]) if first else 0
        for k in range(first, first + count):
            guess = self._guesses.get(k, guess)
            values[0, self.order.sets[k]] = guess
        return Proposal(values, None, count)

    def watch(self, first: int, found: list[Tensor]) -> None:
        """Take the favourites of the sets from ``first`` on as the next guesses."""
        self._guesses = {first + j: int(log_probs[0, 0].argmax()) for j, log_probs in enumerate(found)}

    def keep(self, sets: int, row: int) -> None:
        pass


class Retrieval:
    """Drafts what followed the last ``size`` symbols in a text that is known beforehand (REST: He et al. 2023).

    Reference:
        He et al. REST: retrieval-based speculative decoding. 2023, arXiv:2311.08252.

    Args:
        text: int64 ``[T]``, for instance the training text.
        size: symbols that have to match; where they do not occur nothing is drafted.
    """

    def __init__(self, text: Tensor, size: int = 5):
        if size < 1:
            raise ValueError(f"size={size} must be at least 1")
        self.text, self.size = text, size
        strings = np.lib.stride_tricks.sliding_window_view(text.numpy().astype(np.int32), size)[:-1]
        self._sorted = np.lexsort(strings.T[::-1])
        self._strings = strings

    def find(self, symbols: np.ndarray) -> np.ndarray:
        """Where the text goes on after ``symbols`` ``[size]``: int64 places, the earliest first."""
        low, high = 0, len(self._sorted)
        for column, symbol in enumerate(symbols.tolist()):
            part = self._strings[self._sorted[low:high], column]
            low, high = (
                low + int(np.searchsorted(part, symbol, "left")),
                low + int(np.searchsorted(part, symbol, "right")),
            )
        return np.sort(self._sorted[low:high]) + self.size

    def start(self, target: Generator, order: Order, condition: Condition, options: dict[str, Any]) -> Drafter:
        _require_single_sites(order)
        return _RetrievalDrafter(self, order)


class _RetrievalDrafter:
    def __init__(self, source: Retrieval, order: Order):
        self.source, self.order = source, order

    @property
    def passes(self) -> int:
        return 0

    def propose(self, values: Tensor, first: int, count: int, rows: int, noise: Noise) -> Proposal:
        size, text = self.source.size, self.source.text
        found: list[Tensor] = []
        if first >= size:
            seen = values[0, self.order.permutation[first - size : first]].cpu().numpy()
            for place in self.source.find(seen)[::-1][:64].tolist():
                follows = text[place : place + count]
                if len(follows) and not any(torch.equal(follows[:1], other[:1]) for other in found):
                    found.append(follows)
                if len(found) == rows:
                    break
        if not found:
            return Proposal(values.clone(), None, 0)
        sets = min(len(f) for f in found)
        values = values.expand(len(found), -1).clone()
        for row, follows in zip(values, found, strict=True):
            row[self.order.permutation[first : first + sets]] = follows[:sets].to(values.device)
        return Proposal(values, None, sets)

    def keep(self, sets: int, row: int) -> None:
        pass
