"""Numbers on grids of a few bits: rounding group by group, and packing the codes into bytes."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

WIDTHS = (2, 4, 8)
"""Bits that a code may have: those that fill a byte."""


def check_bits(bits: int) -> None:
    """Refuse widths that do not fill a byte.

    Raises:
        ValueError: another width.
    """
    if bits not in WIDTHS:
        raise ValueError(f"bits={bits!r} is none of {', '.join(map(str, WIDTHS))}")


def in_groups(x: Tensor, group: int) -> Tensor:
    """The last axis in groups, ``[..., G, group]``; a short last group is filled with zeros."""
    short = -x.shape[-1] % group
    return F.pad(x, (0, short)).unflatten(-1, (-1, group))


def ranges(x: Tensor, group: int) -> Tensor:
    """The largest absolute value in each group of the last axis: ``[..., G]``."""
    return in_groups(x, group).abs().amax(-1)


def round_symmetric(x: Tensor, bits: int, group: int, search: bool = False) -> tuple[Tensor, Tensor]:
    """Codes and scales with ``x`` about ``codes * scale``, the grid being symmetric around zero.

    Args:
        x: float ``[..., I]``.
        bits: 4 or 8: codes reach from ``-m`` to ``m = 2^(bits - 1) - 1``.
        group: numbers along the last axis that share a scale; the last group may be shorter.
        search: take the scale of the least squared error rather than that of the range. The grid then has one code
            more, ``-m - 1``, and a scale is negative where the largest number is positive.

    Returns:
        codes int8 ``[..., I]``; scales ``[..., G]``, float16, or float32 where float16 could not hold one.
    """
    check_bits(bits)
    most = 2 ** (bits - 1) - 1
    largest, info = ranges(x, group), torch.finfo(torch.float16)
    tiny = (largest > 0) & (largest < 2 * most * info.tiny)
    dtype = torch.float32 if float(largest.max()) * 2 > most * info.max or bool(tiny.any()) else torch.float16
    scales = (largest / most).to(dtype)
    if not search:
        codes = _codes(in_groups(x, group), scales, -most, most)
    else:  # a few rows at a time, which stay in a processor's cache
        rows = max(1, ROWS // x.shape[-1])
        flat, steps = x.reshape(-1, x.shape[-1]), scales.reshape(-1, scales.shape[-1])
        each = [_searched(in_groups(part, group), s, most) for part, s in zip(flat.split(rows), steps.split(rows))]
        codes = torch.cat([c for c, _ in each]).view(*x.shape[:-1], -1, group)
        scales = torch.cat([s for _, s in each]).view(scales.shape)
    return codes.flatten(-2)[..., : x.shape[-1]].to(torch.int8), scales


ROWS = 1 << 17
"""Numbers whose scales are looked for together."""
SHARES = (0.75, 0.82, 0.88, 0.94, 1.0, 1.06)
"""Ends of the grid that are tried, relative to the range: what lies beyond is cut."""


def _searched(groups: Tensor, scales: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Codes and scales of groups ``[R, G, group]``, at least as good as those of the ranges' ``scales`` ``[R, G]``."""
    codes = _codes(groups, scales, -most, most)
    error = _error(groups, codes, scales)
    extreme = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))[..., 0]
    for share in SHARES:
        tried = (extreme * (share / -(most + 1))).to(scales.dtype)
        rounded = _codes(groups, tried, -most - 1, most)
        found = _error(groups, rounded, tried)
        better = found < error
        error = torch.where(better, found, error)
        scales = torch.where(better, tried, scales)
        codes = torch.where(better[..., None], rounded, codes)
    return codes, scales


def _codes(groups: Tensor, scales: Tensor, least: int, most: int) -> Tensor:
    """For scales as they are stored."""
    step = scales.float()
    step = torch.where(step != 0, step, 1.0)
    return (groups / step[..., None]).round_().clamp_(least, most)


def _error(groups: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
    return (codes * scales.float()[..., None] - groups).square().sum(-1)


def spans(x: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """The least and the largest value in each group of the last axis: ``[..., G]`` each."""
    short = -x.shape[-1] % group
    whole = x if not short else torch.cat([x, x[..., -1:].expand(*x.shape[:-1], short)], -1)
    return whole.unflatten(-1, (-1, group)).aminmax(dim=-1)


ROUNDS = 3
"""Fits by least squares."""


def round_between(x: Tensor, bits: int, group: int, search: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, scales and least values with ``x`` about ``least + (codes + 2^(bits - 1)) * scales``.

    The grid reaches from the least to the largest number of a group, wherever zero is.

    Args:
        x: float ``[..., I]``.
        bits: 4 or 8.
        group: numbers along the last axis that share a grid; the last group may be shorter.
        search: fit scale and least value to the codes by least squares, and round again, where that errs less.

    Returns:
        codes int8 ``[..., I]``; scales and least values ``[..., G]``, float16, or float32 where float16 could not
        hold one.
    """
    check_bits(bits)
    most, half = 2**bits - 1, 2 ** (bits - 1)
    low, high = spans(x, group)
    info = torch.finfo(torch.float16)
    step = (high - low) / most
    wide = max(float(low.abs().max()), float(high.abs().max())) > info.max
    dtype = torch.float32 if wide or bool(((step > 0) & (step < info.tiny)).any()) else torch.float16
    groups = in_groups(x, group)
    counts = in_groups(torch.ones_like(x[..., :1]).expand_as(x), group)  # not what fills a short group
    scales, least = step.to(dtype), low.to(dtype)
    codes, error = _between(groups, counts, scales, least, most)
    for _ in range(ROUNDS if search else 0):
        n = counts.sum(-1)
        mean, middle = (counts * codes).sum(-1) / n, (counts * groups).sum(-1) / n
        off = counts * (codes - mean[..., None])
        spread = off.square().sum(-1)
        fitted = torch.where(spread > 0, (off * groups).sum(-1) / spread.clamp(min=1e-12), scales.float())
        tried, floor = fitted.to(dtype), (middle - fitted * mean).to(dtype)
        again, missed = _between(groups, counts, tried, floor, most)
        better = missed < error
        error = torch.where(better, missed, error)
        scales, least = torch.where(better, tried, scales), torch.where(better, floor, least)
        codes = torch.where(better[..., None], again, codes)
    return (codes - half).flatten(-2)[..., : x.shape[-1]].to(torch.int8), scales, least


def _between(groups: Tensor, counts: Tensor, scales: Tensor, least: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Codes from 0 to ``most`` of groups ``[..., G, group]`` on stored grids, and the squared errors ``[..., G]``."""
    step, floor = scales.float()[..., None], least.float()[..., None]
    codes = ((groups - floor) / torch.where(step != 0, step, 1.0)).round_().clamp_(0, most)
    return codes, (counts * (codes * step + floor - groups)).square().sum(-1)


def from_between(codes: Tensor, scales: Tensor, least: Tensor, bits: int, group: int) -> Tensor:
    """The numbers that codes float ``[..., I]`` of :func:`round_between` stand for: float32 ``[..., I]``."""
    half, columns = 2 ** (bits - 1), codes.shape[-1]
    step, floor = (t.float().repeat_interleave(group, -1)[..., :columns] for t in (scales, least))
    return (codes + half) * step + floor


def from_symmetric(codes: Tensor, scales: Tensor, group: int) -> Tensor:
    """The numbers that codes float ``[..., I]`` and scales ``[..., G]`` stand for: float32 ``[..., I]``."""
    step = scales.float()
    if step.shape[-1] == 1:
        return codes * step
    if codes.shape[-1] % group == 0:
        return torch.mul(codes.unflatten(-1, (-1, group)), step[..., None]).flatten(-2)
    return codes * step.repeat_interleave(group, -1)[..., : codes.shape[-1]]


def pack(codes: Tensor, bits: int) -> Tensor:
    """Unsigned codes uint8 ``[..., I]`` in bytes, uint8 ``[..., ceil(I bits / 8)]``, the first in the lowest bits."""
    each = 8 // bits
    if each == 1:
        return codes
    parts = F.pad(codes, (0, -codes.shape[-1] % each)).unflatten(-1, (-1, each))
    out = parts[..., 0].clone()
    for place in range(1, each):
        out |= parts[..., place] << (bits * place)
    return out


def unpack(packed: Tensor, bits: int, size: int) -> Tensor:
    """The ``size`` codes along the last axis that :func:`pack` put into bytes: uint8 ``[..., size]``."""
    each = 8 // bits
    if each == 1:
        return packed
    mask = 2**bits - 1
    parts = [(packed >> (bits * place)) & mask for place in range(each)]
    return torch.stack(parts, -1).flatten(-2)[..., :size]


BLOCK = 32
"""Columns of a row of weights are stored in multiples of this."""


@cache
def _halves() -> Tensor:
    """What the two halves of every byte of four-bit weights mean: float32 ``[256, 2]``."""
    byte = torch.arange(256)
    return torch.stack([byte & 15, byte >> 4], -1).float() - 8


def pack_rows(codes: Tensor, bits: int) -> Tensor:
    """Codes int8 ``[O, I]`` of 4 or 8 bits as weights are stored, rows filled up to multiples of 32 by zeros.

    Returns:
        of 8 bits, int8 ``[O, 32 B]``. Of 4 bits, uint8 ``[O, 16 B]``: the first 16 of every 32 are the lower halves
        of 16 bytes and the others the upper ones, both plus 8.
    """
    padded = F.pad(codes, (0, -codes.shape[-1] % BLOCK))
    if bits == 8:
        return padded.contiguous()
    halves = (padded + 8).to(torch.uint8).unflatten(-1, (-1, 2, BLOCK // 2))
    return (halves[..., 0, :] | (halves[..., 1, :] << 4)).flatten(-2).contiguous()


def unpack_rows(packed: Tensor, bits: int, size: int) -> Tensor:
    """The codes that :func:`pack_rows` stored, as float32 ``[..., size]``."""
    if bits == 8:
        return packed[..., :size].float()
    blocks = _halves().to(packed.device)[packed.int()].unflatten(-2, (-1, BLOCK // 2))
    return blocks.transpose(-1, -2).flatten(-3)[..., :size]
