"""Keys and values of earlier places kept in few bits: GEAR, staircases of precision, and dropping places."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.errors import UnsupportedError
from ancestral.order import Order
from ancestral.quantisation.grids import check_bits, pack, unpack

if TYPE_CHECKING:
    from ancestral.model import Model


class Kept(Protocol):
    """The keys and values of one layer that is run part by part."""

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store those of new places ``[B, H, T, E]``; all that is left of the earlier places, and the new ones."""
        ...

    @property
    def bytes(self) -> int:
        """Memory that is held between two steps."""
        ...


class Keeping(Protocol):
    """How keys and values are kept."""

    @property
    def buffer(self) -> int:
        """Places that are read at a time and kept as they are until the next part begins."""
        ...

    def start(self, like: Tensor) -> Kept:
        """Nothing yet, of one layer whose keys look like ``[B, H, T, E]``."""
        ...


def parts(order: Order, begin: int, end: int, buffer: int) -> list[tuple[int, int]]:
    """The places ``begin .. end - 1`` cut where the buffer is full; no set is cut in two."""
    if order.sequential:
        cuts = list(range(begin - begin % buffer + buffer, end, buffer))
    else:
        cuts, since = [], 0
        for start in order.starts[1:]:
            if start - since >= buffer:
                since = start
                cuts.append(start)
        cuts = [c for c in cuts if begin < c < end]
    edges = [begin, *cuts, end]
    return list(itertools.pairwise(edges))


STORED = ("codes", "scale", "least", "left", "right", "values", "places")


@dataclass
class Packed:
    """Matrices ``[..., R, C]`` of which every row's numbers are on grids of a few bits, corrected in two ways.

    A number is ``code * scale + least`` of its group, plus what the factors of low rank say; the extremes of every
    row are kept apart.

    Attributes:
        codes: uint8 ``[..., R, C bits / 8]``.
        scale, least: float16 ``[..., R, G]``.
        left, right: float16 ``[..., R, r]`` and ``[..., C, r]``, or None.
        values, places: float16 and uint8 or int16 ``[..., R, S]``, the extremes and where they are; or None.
        size: C.
    """

    codes: Tensor
    scale: Tensor
    least: Tensor
    left: Tensor | None
    right: Tensor | None
    values: Tensor | None
    places: Tensor | None
    size: int
    bits: int
    group: int

    @property
    def tensors(self) -> list[Tensor]:
        return [t for t in (getattr(self, name) for name in STORED) if t is not None]

    @property
    def bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self.tensors)

    def dense(self) -> Tensor:
        """What is stored, float32 ``[..., R, C]``."""
        codes = F.pad(unpack(self.codes, self.bits, self.size), (0, -self.size % self.group))
        x = codes.unflatten(-1, (-1, self.group)) * self.scale.float()[..., None]
        x = x.add_(self.least.float()[..., None]).flatten(-2)[..., : self.size]
        if self.left is not None and self.right is not None:
            x = x + self.left.float() @ self.right.float().mT
        if self.values is not None and self.places is not None:
            x = x.scatter(-1, self.places.long(), self.values.float())
        return x

    def _with(self, found: list[Tensor | None]) -> Packed:
        codes, scale, least, left, right, values, places = found
        assert codes is not None and scale is not None and least is not None
        return Packed(codes, scale, least, left, right, values, places, self.size, self.bits, self.group)

    def joined(self, *others: Packed) -> Packed:
        """This one's matrices and the others', one after the other along axis 2."""
        found: list[Tensor | None] = []
        for name in STORED:
            each = [getattr(p, name) for p in (self, *others)]
            found.append(None if each[0] is None else torch.cat(each, 2))
        return self._with(found)

    def split(self, first: int) -> tuple[Packed, Packed]:
        """The first ``first`` matrices along axis 2, and the rest."""
        return self._part(slice(first)), self._part(slice(first, None))

    def _part(self, index: slice) -> Packed:
        every: list[Tensor | None] = [getattr(self, name) for name in STORED]
        return self._with([None if t is None else t[:, :, index] for t in every])


def low_rank(x: Tensor, rank: int, rounds: int = 2) -> tuple[Tensor, Tensor]:
    """Factors ``a`` ``[..., R, r]`` and ``b`` ``[..., C, r]`` with ``a @ b.T`` about the best of that rank.

    Power iteration on all columns at once (Vogels et al. 2019, arXiv:1905.13727), from a start that is always the
    same.

    Args:
        x: float ``[..., R, C]``.
        rank: r.
        rounds: of the iteration.
    """
    start = torch.randn(x.shape[-1], rank, generator=torch.Generator().manual_seed(0)).to(x)
    b = start.expand(*x.shape[:-2], -1, -1)
    for _ in range(rounds):
        a = torch.linalg.qr(x @ b).Q
        b = x.mT @ a
    return a, b


def pack_matrices(x: Tensor, bits: int, group: int, outliers: float, rank: int) -> Packed:
    """``x`` as GEAR stores it: extremes, the rest on a grid, and what the grid misses as a product of low rank.

    Kang et al. 2024, arXiv:2403.05527, algorithm 1.

    Args:
        x: float ``[..., R, C]``.
        bits: of a code.
        group: numbers of a row that share a scale and an offset.
        outliers: share of every row that is kept apart, half from its top and half from its bottom.
        rank: of the correction; 0 for none.
    """
    x = x.detach()
    size = x.shape[-1]
    each = min(round(size * outliers / 2), (size - 1) // 2)
    values = places = None
    rest = x
    if each:
        most, least = x.topk(each, -1), x.topk(each, -1, largest=False)
        places = torch.cat([most.indices, least.indices], -1)
        values = torch.cat([most.values, least.values], -1).half()
        # What stands in their places must not stretch the grid, and counts for nothing.
        apart = torch.zeros_like(x, dtype=torch.bool).scatter(-1, places, True)
        mean = x.masked_fill(apart, 0.0).sum(-1, keepdim=True) / (size - 2 * each)
        rest = torch.where(apart, mean, x)
    short = -size % group
    padded = torch.cat([rest, rest[..., -1:].expand(*rest.shape[:-1], short)], -1) if short else rest
    groups = padded.unflatten(-1, (-1, group))
    floor = groups.amin(-1).half()
    step = ((groups.amax(-1) - floor.float()) / (2**bits - 1)).half()
    width = torch.where(step > 0, step, 1.0).float()
    codes = ((groups - floor.float()[..., None]) / width[..., None]).round_().clamp_(0, 2**bits - 1)
    flat = codes.to(torch.uint8).flatten(-2)[..., :size]
    found = Packed(pack(flat, bits), step, floor, None, None, None, None, size, bits, group)
    if rank:
        missed = rest - found.dense()
        left, right = low_rank(missed if not each else missed.masked_fill(apart, 0.0), rank)
        found.left, found.right = left.half(), right.half()
    if values is not None and places is not None:
        found.values, found.places = values, places.to(torch.uint8 if size <= 256 else torch.int16)
    return found


@dataclass(frozen=True)
class Gear:
    """Keys and values in a few bits, with corrections for what the grid misses and for extremes.

    The places read last stand in a buffer as they are; when it is full they are compressed together: keys by feature
    along the places, values by place along the features, the correction of low rank by head (Kang et al. 2024,
    arXiv:2403.05527). With ``stairs`` the precision falls with age: places move on to fewer bits ("staircase adaptive
    quantization": Li 2024, The nature of mathematical modeling and probabilistic optimization engineering in
    generative AI).

    A model is scored as it is drawn from: what a place sees of the places before its part has been compressed. The
    paper reads a prompt with full keys and compresses them afterwards.

    Args:
        bits: 2, 4 or 8.
        group: numbers that share a scale.
        outliers: share of every row that is kept in full; 0 for none.
        rank: of the correction; 0 for none.
        buffer: places compressed together.
        stairs: (bits, places) of the places compressed last, newest first; older ones have ``bits``.
    """

    bits: int = 4
    group: int = 64
    outliers: float = 0.02
    rank: int = 2
    buffer: int = 64
    stairs: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        check_bits(self.bits)
        for bits, places in self.stairs:
            check_bits(bits)
            if places < 1:
                raise ValueError(f"stairs={self.stairs}: a step must be at least one place long")
        if self.buffer < 1 or self.group < 1:
            raise ValueError(f"buffer={self.buffer} and group={self.group} must be at least 1")
        if not 0 <= self.outliers < 1:
            raise ValueError(f"outliers={self.outliers} must be in [0, 1)")
        if self.rank < 0:
            raise ValueError(f"rank={self.rank} must not be negative")

    def start(self, like: Tensor) -> Kept:
        return _Compressed(self)


class _Compressed:
    """One layer's; blocks of places lie along axis 2, the oldest first."""

    def __init__(self, how: Gear):
        self.how = how
        self.buffer: tuple[Tensor, Tensor] | None = None
        self.steps = [bits for bits, _ in how.stairs] + [how.bits]
        self.limits = [max(1, places // how.buffer) for _, places in how.stairs]
        # Keys lie transposed, so that a row is what one feature has been at all places.
        self.packed: list[tuple[Packed, Packed] | None] = [None] * len(self.steps)

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.buffer is not None and self.buffer[0].shape[2] >= self.how.buffer:
            self._compress(*self.buffer)
            self.buffer = None
        if self.buffer is not None:
            k, v = torch.cat([self.buffer[0], k], 2), torch.cat([self.buffer[1], v], 2)
        self.buffer = k, v
        keys, values = [], []
        for found in reversed(self.packed):
            if found is not None:
                keys.append(found[0].dense().mT.flatten(2, 3))
                values.append(found[1].dense().flatten(2, 3))
        return torch.cat([*keys, k], 2), torch.cat([*values, v], 2)

    def _compress(self, k: Tensor, v: Tensor) -> None:
        if k.shape[2] != self.how.buffer:
            raise UnsupportedError(
                f"{k.shape[2]} places are to be compressed together, {self.how.buffer} are expected: sets of an order "
                "must fill the buffer evenly; choose another buffer="
            )
        self._add(0, k.mT[:, :, None], v[:, :, None])

    def _add(self, step: int, k: Tensor, v: Tensor) -> None:
        """Compress a block ``[B, H, 1, E, T]`` and ``[B, H, 1, T, E]``, and let the oldest move on to the next step."""
        how, bits = self.how, self.steps[step]
        new = [
            pack_matrices(x, bits, min(how.group, x.shape[-1]), how.outliers, min(how.rank, *x.shape[-2:]))
            for x in (k, v)
        ]
        old = self.packed[step]
        both = (new[0], new[1]) if old is None else (old[0].joined(new[0]), old[1].joined(new[1]))
        if step < len(self.limits) and both[0].codes.shape[2] > self.limits[step]:
            oldest, rest = zip(*(p.split(1) for p in both), strict=True)
            self._add(step + 1, oldest[0].dense(), oldest[1].dense())
            both = (rest[0], rest[1])
        self.packed[step] = both

    @property
    def bytes(self) -> int:
        held = 0 if self.buffer is None else sum(t.numel() * t.element_size() for t in self.buffer)
        return held + sum(p.bytes for found in self.packed if found is not None for p in found)


@dataclass(frozen=True)
class Dropping:
    """Only the first places and the latest are kept (attention sinks: Xiao et al. 2023, arXiv:2309.17453).

    The rotary positions of what is left stay as they were; the paper counts them anew.

    Args:
        first: places at the beginning.
        recent: of the latest places, how many are still there when a part of ``buffer`` more is read.
        buffer: places read at a time.
    """

    first: int = 4
    recent: int = 252
    buffer: int = 64

    def start(self, like: Tensor) -> Kept:
        return _Rest(self)


class _Rest:
    def __init__(self, how: Dropping):
        self.how, self.places = how, 0
        self.kept: tuple[Tensor, Tensor] | None = None

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.kept is not None:
            if self.places % self.how.buffer == 0 and self.kept[0].shape[2] > self.how.first + self.how.recent:
                self.kept = tuple(
                    torch.cat([t[:, :, : self.how.first], t[:, :, -self.how.recent :]], 2) for t in self.kept
                )  # type: ignore[assignment]
            assert self.kept is not None
            k_all, v_all = torch.cat([self.kept[0], k], 2), torch.cat([self.kept[1], v], 2)
        else:
            k_all, v_all = k, v
        self.places += k.shape[2]
        self.kept = k_all, v_all
        return self.kept

    @property
    def bytes(self) -> int:
        return 0 if self.kept is None else sum(t.numel() * t.element_size() for t in self.kept)


class Full:
    """Everything as it is, in growing memory; for comparison with the others."""

    buffer = 64

    def start(self, like: Tensor) -> Kept:
        return _Rest(Dropping(0, 1 << 60, self.buffer))


def keep(root: nn.Module | Model, how: Keeping | None) -> None:
    """Let all causal transformers in ``root``, a model or a network, keep keys and values as told.

    Args:
        root: where they are.
        how: how keys and values are kept; None: in full, as they begin.

    Raises:
        UnsupportedError: there are none.
    """
    from ancestral.networks.transformer import CausalTransformer

    module = root if isinstance(root, nn.Module) else root.generator
    found = [m for m in module.modules() if isinstance(m, CausalTransformer) and m.site_per_place]
    if not found:
        raise UnsupportedError("only causal transformers keep keys and values that can be compressed")
    for network in found:
        network.keeping = how


def kept_bytes(state: Sequence[Kept]) -> int:
    """Memory that the keys and values of all layers take."""
    return sum(layer.bytes for layer in state)
