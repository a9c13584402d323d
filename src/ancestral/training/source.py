"""Where batches come from, and in which order: pure functions of (seed, epoch), so that runs resume."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ancestral.errors import DataError
from ancestral.noise import Noise, item_seeds
from ancestral.training.disk import shuffled

ITEM_SEED = "item_seed"
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def derive(*parts: int | str) -> int:
    """A seed in [0, 2**63) that depends on every part: the same on all machines and Python versions."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@runtime_checkable
class Source(Protocol):
    """Anything with a number of items and batches of them.

    ``batch`` must be a pure function of its arguments (draw augmentations from ``(seed, epoch, index)``):
    exact resumption and equal results on several processes rest on it.
    """

    def __len__(self) -> int:
        """Items per epoch."""
        ...

    def batch(self, indices: Tensor, epoch: int) -> dict[str, Tensor]:
        """The items ``indices`` (int64 ``[B]``) of ``epoch``: CPU tensors whose first dimension is B."""
        ...


class Items:
    """Tensors in memory, indexed along their first dimension.

    Compact integers stay compact in memory (``uint8`` pixels, ``int32`` tokens) and come out as int64; other
    types come out as they are.

    Args:
        tensors: ``[n, ...]`` each, by the name under which ``module.loss`` finds them.

    Raises:
        DataError: no tensor, no item, or tensors of unequal length.
    """

    def __init__(self, **tensors: Tensor):
        if not tensors:
            raise DataError("there is nothing to train on: give at least one tensor, as in Items(values=...)")
        if ITEM_SEED in tensors:
            raise DataError(f"the name {ITEM_SEED!r} is kept for the items' random seeds; use another name")
        for name, tensor in tensors.items():
            if tensor.ndim == 0:
                raise DataError(f"tensor {name!r} is a single number; give one entry per item, of shape [n, ...]")
        lengths = {name: tensor.shape[0] for name, tensor in tensors.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"tensors of unequal numbers of items {lengths}; the first dimension counts the items")
        self.tensors = tensors
        self._items = next(iter(lengths.values()))
        if self._items == 0:
            raise DataError("there is nothing to train on: the tensors hold no items")

    def __len__(self) -> int:
        return self._items

    def batch(self, indices: Tensor | Sequence[int], epoch: int = 0) -> dict[str, Tensor]:
        """The rows ``indices`` (int64 ``[B]`` or a list) of every tensor; ``epoch`` changes nothing."""
        index = torch.as_tensor(indices, dtype=torch.int64)
        found = {name: tensor[index] for name, tensor in self.tensors.items()}
        return {k: v.long() if v.dtype in _INTEGERS else v for k, v in found.items()}


class Windows:
    """Random crops of long streams: text as bytes or tokens, music, any sequence without items of its own.

    An epoch has ``floor(len(stream) / length)`` windows of every stream. Their starts are stratified: the
    possible starts of a stream are cut into that many equal parts and each window starts uniformly within its
    part, afresh in every epoch. So each start is equally likely, and an epoch sees almost every value about
    once.

    Args:
        streams: integer tensors ``[T_i]`` (``uint8``, ``int32`` ... stay compact in memory).
        length: values per window.
        seed: with the epoch and the window's number, determines the start.
        skip_short: leave out streams shorter than ``length`` instead of refusing them.

    Raises:
        DataError: not one-dimensional integers, or a stream shorter than ``length``.
    """

    def __init__(self, streams: Sequence[Tensor], length: int, seed: int = 0, skip_short: bool = False):
        if length < 1:
            raise DataError(f"windows of {length} values are empty; give length=1 or more")
        for number, stream in enumerate(streams):
            if stream.ndim != 1 or stream.dtype not in _INTEGERS:
                raise DataError(
                    f"stream {number} is a {stream.dtype} tensor of shape {list(stream.shape)}; "
                    "streams are integers of shape [T]"
                )
        long_enough = [stream for stream in streams if len(stream) >= length]
        if not long_enough:
            longest = max((len(stream) for stream in streams), default=0)
            raise DataError(
                f"no stream holds a window of {length} values (the longest has {longest}); "
                f"give length={longest} or less, or join short streams into one with a separator"
                if longest
                else "there is nothing to train on: give at least one stream that is not empty"
            )
        self.skipped = len(streams) - len(long_enough)
        if self.skipped and not skip_short:
            first = next(number for number, stream in enumerate(streams) if len(stream) < length)
            raise DataError(
                f"{self.skipped} of {len(streams)} streams are shorter than a window of {length} values "
                f"(the first is stream {first} with {len(streams[first])}); give a smaller length, join "
                "short streams into one with a separator, or leave them out with skip_short=True"
            )
        self.length = length
        self.seed = seed
        self._values = long_enough[0] if len(long_enough) == 1 else torch.cat(long_enough)
        sizes = torch.tensor([len(stream) for stream in long_enough])
        counts = sizes // length
        stream_of = torch.repeat_interleave(torch.arange(len(sizes)), counts)
        first_value, first_window = sizes.cumsum(0) - sizes, counts.cumsum(0) - counts
        self._base = first_value[stream_of]
        self._part = torch.arange(len(stream_of)) - first_window[stream_of]
        self._parts = counts[stream_of]
        self._starts = (sizes - length + 1)[stream_of]
        self._ramp = torch.arange(length)

    def __len__(self) -> int:
        return len(self._base)

    def starts(self, indices: Tensor, epoch: int) -> Tensor:
        """First positions, int64 ``[B]``, of the windows ``indices`` in the streams laid end to end."""
        jitter = Noise(item_seeds(derive("windows", self.seed, epoch), indices)).uniform(1)[:, 0]
        share = self._starts[indices].double() / self._parts[indices]
        offset = ((self._part[indices] + jitter) * share).long()
        return self._base[indices] + torch.minimum(offset, self._starts[indices] - 1)

    def batch(self, indices: Tensor | Sequence[int], epoch: int = 0) -> dict[str, Tensor]:
        """``{"values": int64 [B, length]}``."""
        start = self.starts(torch.as_tensor(indices, dtype=torch.int64), epoch)
        return {"values": self._values[start[:, None] + self._ramp].long()}


class ItemOrder:
    """The endless, shuffled sequence of items that training consumes, without repeats inside an epoch.

    Position p is item ``permutation(seed, p // items)[p % items]``. Step s consumes the positions
    ``s * batch_size`` up to ``(s + 1) * batch_size``, so batches run across the ends of epochs and are all of
    one size. When there are fewer items than ``batch_size``, every batch is all of them. More than
    ``LISTED`` items are permuted without a list of them.
    """

    LISTED = 1 << 22

    def __init__(self, items: int, batch_size: int, seed: int):
        self.items = items
        self.batch_size = min(batch_size, items)
        self.seed = seed
        self._permutations: dict[int, Tensor] = {}

    def permutation(self, epoch: int) -> Tensor:
        """The items in the order of ``epoch``: int64 ``[items]``."""
        if epoch not in self._permutations:
            # A batch touches at most two epochs; older ones are never asked for again.
            self._permutations = {e: p for e, p in self._permutations.items() if e == epoch - 1}
            generator = torch.Generator().manual_seed(derive("order", self.seed, epoch))
            self._permutations[epoch] = torch.randperm(self.items, generator=generator)
        return self._permutations[epoch]

    def _items_at(self, epoch: int, begin: int, end: int) -> Tensor:
        if self.items <= self.LISTED:
            return self.permutation(epoch)[begin:end]
        return shuffled(self.items, derive("order", self.seed, epoch), torch.arange(begin, end))

    def share(self, step: int, part: int, parts: int) -> tuple[int, int]:
        """The positions ``[lo, hi)`` of one of ``parts`` nearly equal parts of a step's batch."""
        first = step * self.batch_size
        return first + self.batch_size * part // parts, first + self.batch_size * (part + 1) // parts

    def pieces(self, lo: int, hi: int) -> list[tuple[int, Tensor]]:
        """The positions ``[lo, hi)`` as (epoch, int64 indices), one entry per epoch touched."""
        found = []
        while lo < hi:
            epoch, offset = divmod(lo, self.items)
            end = min(hi, (epoch + 1) * self.items)
            found.append((epoch, self._items_at(epoch, offset, offset + end - lo)))
            lo = end
        return found


def fetch(source: Source, pieces: list[tuple[int, Tensor]]) -> dict[str, Tensor]:
    """One batch of the given (epoch, indices)."""
    batches = [source.batch(indices, epoch) for epoch, indices in pieces]
    if len(batches) == 1:
        return dict(batches[0])
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def fingerprint(source: Source) -> str:
    """A short digest of the number of items and of three of them, to tell one training set from another."""
    items = len(source)
    batch = source.batch(torch.tensor(sorted({0, items // 2, items - 1})), 0)
    digest = hashlib.blake2b(str(items).encode(), digest_size=8)
    for name in sorted(batch):
        tensor = batch[name].detach().cpu().contiguous()
        digest.update(f"{name}{tensor.dtype}{list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
