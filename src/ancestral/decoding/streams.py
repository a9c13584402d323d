"""Streams longer than a model's window: a window that moves on, with part of it seen as context."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ancestral.decoding.continuous import Continuous
from ancestral.decoding.decoders import Ancestral, Decoder, Request
from ancestral.decoding.mixing import Mixed
from ancestral.decoding.ngrams import History
from ancestral.errors import UnsupportedError
from ancestral.heads.base import Chooser, Finite
from ancestral.noise import Noise
from ancestral.order import Order

if TYPE_CHECKING:
    from ancestral.generator import Generator

_SYMBOLS = 1 << 14
"""Symbols scored together at most, unless one window has more."""


@torch.no_grad()
def stream_log_prob(generator: Generator, stream: Tensor, context: int, batch_size: int = 64) -> Tensor:
    """Log-probability of every symbol of a stream given those before: float64 ``[T]``, nats.

    The first window predicts N symbols; each later one sees ``context`` symbols and predicts ``N - context``.

    Args:
        generator: a model of windows of N symbols in raster order.
        stream: int64 ``[T]``.
        context: symbols seen again in every window, below N.
        batch_size: windows scored together.
    """
    if generator.mixture is not None:
        return generator.mixture.stream_log_prob(stream, network_log_probs(generator, stream, context, batch_size))
    out = torch.zeros(len(stream), dtype=torch.float64)
    for rows, order, places in windows(generator, stream, context, batch_size):
        each = generator.log_prob(rows, order).double().cpu()
        for row, (start, begin, end) in zip(each, places, strict=True):
            out[start + begin : start + end] = row[begin:end]
    return out


@torch.no_grad()
def network_log_probs(generator: Generator, stream: Tensor, context: int, batch_size: int = 64) -> Iterator[Tensor]:
    """The network's log-probabilities of all symbols at successive places of a stream: ``[t, K]``, window by window.

    Arguments as for :func:`stream_log_prob`.
    """
    for rows, order, places in windows(generator, stream, context, batch_size):
        sites = torch.arange(rows.shape[1], device=rows.device)
        leaf = generator.head(generator.network(rows, order, None), sites)
        assert isinstance(leaf, Finite), "only chances of finitely many symbols can be listed"
        log_probs = leaf.log_probs()
        for row, (_, begin, end) in zip(log_probs, places, strict=True):
            yield row[begin:end]


Place = tuple[int, int, int]
"""Where a window starts in its stream, and the first of its sites that is predicted and one past the last."""


def windows(
    generator: Generator, stream: Tensor, context: int, batch_size: int
) -> Iterator[tuple[Tensor, Order, list[Place]]]:
    """Windows over a stream in batches: int64 ``[B, n]``, the order of their sites, and their places.

    Arguments as for :func:`stream_log_prob`. Zeros stand behind the stream's end; where the network can, windows that
    the stream does not fill are cut short.
    """
    n, device = generator.space.n, next(generator.parameters()).device
    total, order = len(stream), generator.order.scoring()
    starts = [0, *range(n - context, max(total - context, 1), n - context)] if total else []
    batch_size = max(1, min(batch_size, _SYMBOLS // n))
    for a in range(0, len(starts), batch_size):
        part = starts[a : a + batch_size]
        longest = min(n, total - part[0]) if generator.network.shortens and order.is_raster else n
        rows = torch.zeros(len(part), longest, dtype=torch.int64)
        for row, s in zip(rows, part, strict=True):
            row[: min(n, total - s)] = stream[s : s + n]
        follow = order if longest == n else Order.raster(longest)
        places = [(s, 0 if s == 0 else context, min(n, total - s)) for s in part]
        yield rows.to(device), follow.to(device), places


def histories(generator: Generator, streams: list[Tensor]) -> list[History] | None:
    """Where the streams stand, if the generator mixes counts into its predictions."""
    mixture = generator.mixture
    return None if mixture is None else [mixture.history(stream.tolist()) for stream in streams]


def mixing(generator: Generator, chooser: Chooser, streams: list[History] | None) -> Chooser:
    """``chooser``, shown the generator's mixture if it has one."""
    if generator.mixture is None or streams is None:
        return chooser
    return Mixed(chooser, generator.mixture, streams)


def _around(generator: Generator, decoder: Decoder, prefixes: list[Tensor]) -> Callable[[Chooser], Chooser] | None:
    """What a decoder shall put around its chooser to draw from the mixture behind ``prefixes``."""
    past = histories(generator, prefixes)
    if past is None:
        return None
    if not isinstance(decoder, Ancestral):
        raise UnsupportedError(
            f"{type(decoder).__name__} draws from the network alone, and this model mixes counts into its predictions; "
            "leave decoder= out, or fit with ngrams=0"
        )
    return partial(mixing, generator, streams=past)


def continue_streams(
    generator: Generator,
    prefixes: list[Tensor],
    length: int,
    context: int,
    seeds: Tensor,
    batch_size: int,
    options: dict[str, Any],
    decoder: Decoder | None = None,
    ends: tuple[int, ...] = (),
) -> list[Tensor]:
    """Add ``length`` symbols to every prefix; when the window is full it moves on, keeping ``context`` symbols.

    Args:
        generator: a model of windows of N symbols in raster order.
        prefixes: int64 ``[T_i]`` each.
        length: symbols to add.
        context: symbols kept when the window moves on, below N.
        seeds: int64, one per prefix.
        batch_size: streams drawn together.
        options: temperature, top_k, top_p, min_p.
        decoder: how the symbols are drawn; by default one after the other.
        ends: symbols that end a stream; it is returned without them, and may then be shorter.
    """
    n, device = generator.space.n, next(generator.parameters()).device
    decoder = decoder or Ancestral()
    if isinstance(decoder, Continuous) and length > 0:
        return decoder.streams(generator, prefixes, length, context, seeds, options, ends)
    final = torch.tensor(ends, dtype=torch.int64)
    done: list[Tensor | None] = [None] * len(prefixes)
    # Streams whose windows are equally full move in step.
    groups: dict[int, list[int]] = {}
    for i, prefix in enumerate(prefixes):
        groups.setdefault(len(prefix) if len(prefix) < n else n, []).append(i)
    for members in groups.values():
        for a in range(0, len(members), batch_size):
            part = members[a : a + batch_size]
            noise = Noise(seeds[torch.tensor(part)].to(device))
            rows = [prefixes[i].clone() for i in part]
            around = _around(generator, decoder, rows)
            left = length
            while left > 0:
                seen = len(rows[0]) if len(rows[0]) < n else max(context, 1)
                seen = min(seen, len(rows[0]))
                window = torch.zeros(len(part), n, dtype=torch.int64)
                for row, stream in zip(window, rows, strict=True):
                    if seen:
                        row[:seen] = stream[len(stream) - seen :]
                added = min(n - seen, left)
                known = (torch.arange(n, device=device) < seen).expand(len(part), n)
                request = Request(
                    noise,
                    given=window.to(device) if seen else None,
                    known=known if seen else None,
                    options=options,
                    sets=added,
                    ends=final.to(device) if ends else None,
                    around=around,
                )
                values = decoder(generator, request).cpu()
                rows = [torch.cat([row, v[seen : seen + added]]) for row, v in zip(rows, values, strict=True)]
                left -= added
                fresh = [row[len(prefixes[i]) :] for i, row in zip(part, rows, strict=True)]
                if all(bool(torch.isin(f, final).any()) for f in fresh):
                    break
            for i, row in zip(part, rows, strict=True):
                done[i] = _cut(row, len(prefixes[i]), final)
    return [d for d in done if d is not None]


def _cut(stream: Tensor, prefix: int, ends: Tensor) -> Tensor:
    """The stream up to its first ending symbol behind the prefix."""
    found = torch.nonzero(torch.isin(stream[prefix:], ends))
    return stream[: prefix + int(found[0])] if len(found) else stream
