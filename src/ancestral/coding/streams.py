"""Lossless coding of streams longer than the model's window.

A window of N sites moves on by ``N - context`` symbols; its first ``context`` sites hold symbols already coded. A
stream may be cut into lanes that are coded side by side, as a batch: each lane starts without context, which costs
some tens of bits, and the time falls by the number of lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ancestral.coding.choosers import Aligned, Decode, Encode, reporting
from ancestral.coding.container import STREAMS, Container, pack, read_varints, unpack, varints
from ancestral.coding.prints import (
    fingerprint,
    numerics,
    probe,
    require_finite,
    require_order,
    require_same,
    require_writer,
    values_digest,
)
from ancestral.decoding.streams import histories, mixing
from ancestral.decoding.walk import walk
from ancestral.errors import DataError, StreamError, UnsupportedError
from ancestral.heads.base import Chooser

if TYPE_CHECKING:
    from ancestral.generator import Generator

# Meaning of the container's numbers and sections for streams.
_NUMBERS = ("threads", "streams", "batch", "context")
_SECTIONS = ("side", "lengths", "lanes", "code")

_MOST_LANES, _WINDOWS_PER_LANE = 64, 64
_MIXED = 4  # lanes are that much longer where they adapt, since each adapts on its own


def encode_stream_set(
    generator: Generator,
    streams: Sequence[Tensor],
    context: int | None = None,
    *,
    lanes: int | None = None,
    batch_size: int = 64,
    side: bytes = b"",
    progress: Callable[[int, int], None] | None = None,
) -> bytes:
    """Code several streams of symbols; the bits are those of ``stream_log_prob`` of every lane.

    Args:
        generator: a model of windows of N symbols in raster order, one symbol per site and no stop symbol.
        streams: int64 ``[T_i]`` each.
        context: symbols of a window that are seen but not coded again; by default half the window.
        lanes: lanes that every stream is cut into (fewer if it is shorter); 1 gives the smallest code. By default a
            lane per 64 windows, at most 64 in all, which costs some 0.3 %; a lane per 256 windows if the model adapts
            to its stream, which every lane does anew.
        batch_size: lanes coded together; recorded.
        side: bytes of the caller, stored deflated.
        progress: called with the symbols done and their total.

    Raises:
        UnsupportedError: a model of real values, or not of windows.
        DataError: symbols that the model does not know, or a context that fills the window.
    """
    _require_windows(generator)
    n = generator.space.n
    context = n // 2 if context is None else context
    if not 0 <= context < n:
        raise DataError(f"a context of {context} symbols leaves nothing of a window of {n} to code; give 0 to {n - 1}")
    if batch_size < 1 or (lanes is not None and lanes < 1):
        raise ValueError(f"batch_size and lanes must be at least 1, got {batch_size} and {lanes}")
    streams = [_checked(generator, number, s) for number, s in enumerate(streams)]
    lengths = [len(s) for s in streams]
    counts = (
        [min(max(t, 1), lanes) for t in lengths]
        if lanes is not None
        else default_lanes(lengths, n * (_MIXED if generator.mixture is not None else 1))
    )
    cut = [part for stream, count in zip(streams, counts) for part in _cut(stream, count)]
    coder = Encode()
    chooser = reporting(coder, sum(lengths), progress)
    with numerics(generator) as threads:
        seen = _probe(generator, sum(counts), batch_size, sum(lengths))
        _follow(generator, chooser, [len(lane) for lane in cut], context, batch_size, cut)
    return pack(
        Container(
            STREAMS,
            fingerprint(generator),
            seen,
            values_digest(*streams),
            (threads, len(streams), batch_size, context),
            (side, varints(lengths), varints(counts), coder.words()),
        )
    )


def decode_stream_set(
    generator: Generator, blob: bytes, progress: Callable[[int, int], None] | None = None
) -> tuple[list[Tensor], bytes]:
    """The streams, int64 ``[T_i]`` each, and the side bytes that :func:`encode_stream_set` was given.

    Raises:
        StreamError: damaged, cut short, of another model, or of another numerical result.
        UnsupportedError: a model of real values, or not of windows.
    """
    _require_windows(generator)
    content = unpack(blob)
    require_writer(generator, content, STREAMS, len(_NUMBERS), len(_SECTIONS))
    threads, number, batch_size, context = content.numbers
    side, lengths_section, counts_section, code = content.sections
    lengths, counts = read_varints(lengths_section), read_varints(counts_section)
    if len(lengths) != number or len(counts) != number:
        raise StreamError("the stream's header contradicts itself; it was not written by ancestral")
    sizes = [end - begin for t, count in zip(lengths, counts) for begin, end in _bounds(t, count)]
    chooser = reporting(Decode(code), sum(lengths), progress)
    with numerics(generator, threads):
        require_same(_probe(generator, len(sizes), batch_size, sum(lengths)), content.probe)
        cut = iter(_follow(generator, chooser, sizes, context, batch_size, None))
    streams = [torch.cat([next(cut) for _ in range(count)]) for count in counts]
    require_same(values_digest(*streams), content.digest)
    return streams, side


def encode_stream(
    generator: Generator,
    tokens: Tensor,
    context: int | None = None,
    *,
    lanes: int | None = None,
    batch_size: int = 64,
    side: bytes = b"",
    progress: Callable[[int, int], None] | None = None,
) -> bytes:
    """Code one stream of symbols, int64 ``[T]``; see :func:`encode_stream_set`."""
    return encode_stream_set(
        generator, [tokens], context, lanes=lanes, batch_size=batch_size, side=side, progress=progress
    )


def decode_stream(
    generator: Generator, blob: bytes, progress: Callable[[int, int], None] | None = None
) -> tuple[Tensor, bytes]:
    """The stream, int64 ``[T]``, and the side bytes that :func:`encode_stream` was given.

    Raises:
        StreamError: as :func:`decode_stream_set`, or several streams.
    """
    streams, side = decode_stream_set(generator, blob, progress)
    if len(streams) != 1:
        raise StreamError(f"the container holds {len(streams)} streams, not one; use decode_stream_set")
    return streams[0], side


def default_lanes(lengths: Sequence[int], n: int) -> list[int]:
    """Lanes for streams of these lengths under a window of ``n``: one per 64 windows, 64 in all."""
    total = max(sum(lengths), 1)
    return [max(1, min(t // (_WINDOWS_PER_LANE * n), _MOST_LANES * t // total)) for t in lengths]


def _bounds(length: int, lanes: int) -> list[tuple[int, int]]:
    """Begin and end of every lane: nearly equal parts."""
    return [(i * length // lanes, (i + 1) * length // lanes) for i in range(lanes)]


def _cut(stream: Tensor, lanes: int) -> list[Tensor]:
    return [stream[begin:end] for begin, end in _bounds(len(stream), lanes)]


def _follow(
    generator: Generator,
    chooser: Chooser,
    sizes: list[int],
    context: int,
    batch_size: int,
    truth: list[Tensor] | None,
) -> list[Tensor]:
    """Walk over all lanes, the longest first, so that the lanes of a batch end one after the other."""
    lanes = [torch.zeros(size, dtype=torch.int64) for size in sizes]
    pasts = histories(generator, [lane[:0] for lane in lanes])
    longest_first = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    n, device = generator.space.n, next(generator.parameters()).device
    order = generator.order.scoring().to(device)
    for a in range(0, len(sizes), batch_size):
        part = longest_first[a : a + batch_size]
        start = seen = 0  # first symbol of the window, and how many of its symbols are coded already
        while True:
            now = start + seen
            active = [i for i in part if sizes[i] > now]
            if not active:
                break
            left = torch.tensor([min(n - seen, sizes[i] - now) for i in active])
            columns = int(left.max())
            given = shown = None
            if seen:
                given = torch.zeros(len(active), n, dtype=torch.int64)
                given[:, :seen] = torch.stack([lanes[i][start:now] for i in active])
                given = given.to(device)
            if truth is not None:
                shown = torch.zeros(len(active), columns, dtype=torch.int64)
                for row, i in zip(shown, active):
                    row[: min(columns, sizes[i] - now)] = truth[i][now : now + columns]
                shown = shown.to(device)
            here = None if pasts is None else [pasts[i] for i in active]
            values = walk(
                generator,
                Aligned(mixing(generator, chooser, here), left.to(device), shown),
                len(active),
                order,
                given=given,
                known_sets=seen,
                sets=columns,
            ).values.cpu()
            for row, i, width in zip(values, active, left.tolist()):
                lanes[i][now : now + width] = row[seen : seen + width]
            start, seen = start + n - context, context
    return lanes


def _probe(generator: Generator, lanes: int, batch_size: int, total: int) -> bytes:
    """Probe in the shape of the first batch of lanes; nothing where there are no symbols."""
    if not total:
        return bytes(4)
    device = next(generator.parameters()).device
    empty = torch.zeros(0, dtype=torch.int64)

    def around(chooser: Chooser, rows: int) -> Chooser:
        return mixing(generator, chooser, histories(generator, [empty] * rows))

    return probe(generator, min(lanes, batch_size), generator.order.scoring().to(device), around=around)


def _require_windows(generator: Generator) -> None:
    require_finite(generator)
    space, order = generator.space, generator.order.scoring()
    require_order(generator, order)
    if space.event or space.stop is not None or not order.is_raster or isinstance(space.sizes, tuple):
        raise UnsupportedError(
            "only a model of windows of one symbol per site, in raster order and without a stop symbol, can code "
            "long streams; code separate items instead"
        )


def _checked(generator: Generator, number: int, stream: Tensor) -> Tensor:
    stream = torch.as_tensor(stream).cpu()
    if stream.dim() != 1 or stream.is_floating_point():
        raise DataError(f"stream {number} must be a vector of integers, got {stream.dtype} {tuple(stream.shape)}")
    stream, size = stream.to(torch.int64), generator.space.largest
    if len(stream) and (int(stream.min()) < 0 or int(stream.max()) >= size):
        wrong = int(torch.nonzero((stream < 0) | (stream >= size))[0])
        raise DataError(
            f"stream {number} has symbol {int(stream[wrong])} at place {wrong}, the model knows 0 to {size - 1} only; "
            "encode the data with the model's own tokenizer"
        )
    return stream
