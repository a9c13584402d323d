"""Random numbers that depend on an item's own seed and on nothing else.

A counter-based generator: the k-th number of an item is a hash of (seed, k), so drawing an item alone or among
a thousand others, on one process or on eight, gives the same item. The hash is the finaliser of SplitMix64
(Steele, Lea and Flood, 2014, "Fast splittable pseudorandom number generators").
"""

from __future__ import annotations

import math
import operator

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """The int64 with the same bits as an unsigned 64-bit ``value``."""
    return value - (1 << 64) if value >= 1 << 63 else value


ITEM_STREAM = 0x5EED
"""Keeps the numbers of continued streams apart from those of single items under the same seed."""

_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def _shift(x: Tensor, bits: int) -> Tensor:
    # int64 has an arithmetic shift only; the mask clears the copies of the sign bit.
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def hash64(x: Tensor) -> Tensor:
    """SplitMix64 finaliser, elementwise on int64 tensors of any shape."""
    x = x + _GOLDEN
    x.bitwise_xor_(_shift(x, 30)).mul_(_FIRST)
    x.bitwise_xor_(_shift(x, 27)).mul_(_SECOND)
    return x.bitwise_xor_(_shift(x, 31))


def _inverse_shift(x: Tensor, bits: int) -> Tensor:
    """The y with ``y ^ (y >>> bits) == x``."""
    y = x
    for _ in range(64 // bits):
        y = x ^ _shift(y, bits)
    return y


_FIRST_INVERSE = _signed(pow(0xBF58476D1CE4E5B9, -1, 1 << 64))
_SECOND_INVERSE = _signed(pow(0x94D049BB133111EB, -1, 1 << 64))


def unhash64(x: Tensor) -> Tensor:
    """The inverse of :func:`hash64`."""
    x = _inverse_shift(_inverse_shift(x, 31) * _SECOND_INVERSE, 27) * _FIRST_INVERSE
    return _inverse_shift(x, 30) - _GOLDEN


def item_seeds(seed: int, items: Tensor) -> Tensor:
    """One seed per item: int64 ``[B]`` from a base ``seed`` and the items' numbers, int64 ``[B]``."""
    base = hash64(torch.tensor(_signed(operator.index(seed) & ((1 << 64) - 1)), dtype=torch.int64))
    return hash64(items.to(torch.int64) ^ base)


class Noise:
    """Independent streams of random numbers, one per item of a batch.

    Args:
        seeds: int64 ``[B]``, see :func:`item_seeds`.
        counter: blocks that were drawn before, one number for all streams or int64 ``[B]``.
    """

    def __init__(self, seeds: Tensor, counter: int | Tensor = 0):
        self.seeds = seeds
        self.counter = counter
        # Words of calls to come, int64 [calls, B], and the number of the first of these calls.
        self._ahead, self._since = seeds.new_zeros(0, len(seeds)), 0

    @classmethod
    def of(cls, seed: int, batch: int, first: int = 0, device: torch.device | str = "cpu") -> Noise:
        """Streams for the items ``first .. first + batch - 1`` under one base seed."""
        return cls(item_seeds(seed, torch.arange(first, first + batch)).to(device))

    @property
    def batch(self) -> int:
        """Number of items B."""
        return self.seeds.shape[0]

    def bits(self, *shape: int) -> Tensor:
        """Hashed 64-bit words, int64 ``[B, *shape]``; every call moves all streams on by one block."""
        count = math.prod(shape)
        if count == 1 and isinstance(self.counter, int):
            return self._word(self.counter).reshape(self.batch, *shape)
        counter = torch.as_tensor(self.counter, dtype=torch.int64, device=self.seeds.device)
        block = hash64(self.seeds ^ hash64(counter))
        self.counter = self.counter + 1
        index = torch.arange(count, dtype=torch.int64, device=self.seeds.device)
        return hash64(block[:, None] ^ hash64(index)[None]).reshape(self.batch, *shape)

    def _word(self, counter: int) -> Tensor:
        """What :meth:`bits` gives for one word an item; words of several calls are hashed together."""
        place = counter - self._since
        if not 0 <= place < len(self._ahead):
            many = min(16, 2 * len(self._ahead) or 1)
            calls = torch.arange(counter, counter + many, dtype=torch.int64, device=self.seeds.device)
            block = hash64(self.seeds ^ hash64(calls)[:, None])
            self._ahead, self._since, place = hash64(block ^ hash64(torch.zeros_like(calls[:1]))), counter, 0
        self.counter = counter + 1
        return self._ahead[place]

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in the open interval (0, 1), float64 ``[B, *shape]``."""
        return _shift(self.bits(*shape), 12).to(torch.float64).add_(0.5).mul_(2.0**-52)

    def stratified(self) -> Tensor:
        """One uniform per item that is spread evenly over items with consecutive numbers: float64 ``[B, 1]``.

        The radical inverse in base 2 of the item's number, digitally shifted by the base seed (a van der Corput
        sequence): among ``2^k`` items in a row each interval of length ``2^-k`` is met about once, yet an item's
        number depends on its own seed only. Repeated calls give the same numbers.
        """
        number = unhash64(self.seeds)
        place = torch.arange(52, dtype=torch.int64, device=number.device)
        bit = ((number[:, None] >> place) & 1).to(torch.float64)
        return ((bit * 2.0 ** -(place + 1)).sum(1, keepdim=True) + 2.0**-53).to(torch.float64)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, float64 ``[B, *shape]``."""
        return torch.special.ndtri(self.uniform(*shape))

    def gumbel(self, *shape: int) -> Tensor:
        """Standard Gumbel, float64 ``[B, *shape]``."""
        return -torch.log(-torch.log(self.uniform(*shape)))

    def repeat(self, times: int) -> Noise:
        """Streams for ``times`` sub-items of every item, item-major: ``[B * times]``."""
        return Noise(self.bits(times).reshape(-1))
