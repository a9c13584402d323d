"""Streams longer than a model's window: a window that moves on, with part of it seen as context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ancestral.decoding.walk import Draw, walk
from ancestral.noise import Noise

if TYPE_CHECKING:
    from ancestral.generator import Generator


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
    n, device = generator.space.n, next(generator.parameters()).device
    total = len(stream)
    out = torch.zeros(total, dtype=torch.float64)
    starts = [0, *range(n - context, max(total - context, 1), n - context)]
    for a in range(0, len(starts), batch_size):
        part = starts[a : a + batch_size]
        rows = torch.zeros(len(part), n, dtype=torch.int64)
        for i, s in enumerate(part):
            rows[i, : min(n, total - s)] = stream[s : s + n]
        each = generator.log_prob(rows.to(device)).double().cpu()
        for i, s in enumerate(part):
            begin = 0 if s == 0 else context
            end = min(n, total - s)
            out[s + begin : s + end] = each[i, begin:end]
    return out


def continue_streams(
    generator: Generator,
    prefixes: list[Tensor],
    length: int,
    context: int,
    seeds: Tensor,
    batch_size: int,
    options: dict[str, Any],
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
    """
    n, device = generator.space.n, next(generator.parameters()).device
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
            left = length
            while left > 0:
                seen = len(rows[0]) if len(rows[0]) < n else max(context, 1)
                seen = min(seen, len(rows[0]))
                window = torch.zeros(len(part), n, dtype=torch.int64)
                for row, stream in zip(window, rows, strict=True):
                    if seen:
                        row[:seen] = stream[len(stream) - seen :]
                order = generator.order.scoring().to(device)
                values = walk(
                    generator,
                    Draw(noise, **options),
                    len(part),
                    order,
                    given=window.to(device) if seen else None,
                    known_sets=seen,
                    sets=min(n - seen, left),
                ).values.cpu()
                added = min(n - seen, left)
                rows = [torch.cat([row, v[seen : seen + added]]) for row, v in zip(rows, values, strict=True)]
                left -= added
            for i, row in zip(part, rows, strict=True):
                done[i] = row
    return [d for d in done if d is not None]
