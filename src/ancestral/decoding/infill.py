"""Fill a gap in a text by a model that reads from left to right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ancestral.decoding.walk import Draw, walk
from ancestral.errors import DataError, UnsupportedError, check_range
from ancestral.noise import Noise

if TYPE_CHECKING:
    from ancestral.model import Model


@dataclass
class Infilled:
    """Texts whose gap was filled.

    Attributes:
        texts: beginning, middle and end, one per draw.
        effective: effective number of candidates, ``1 / sum w^2``; near 1, more candidates are needed.
    """

    texts: list[str]
    effective: float


def infill(
    model: Model,
    before: str,
    after: str,
    length: int,
    *,
    draws: int = 1,
    candidates: int = 32,
    seed: int = 0,
    **options: Any,
) -> Infilled:
    """Middles of ``length`` symbols between two texts.

    Candidates are drawn as continuations of ``before`` and resampled by the probability that they give to ``after``
    (sampling importance resampling: Rubin 1987), which follows the model's conditional distribution as they grow in
    number. The texts before and after never change.

    Args:
        model: a model of streams of text.
        before, after: what stands around the gap.
        length: symbols of the middle.
        draws: middles to choose, with replacement among the same candidates.
        candidates: continuations that are tried.
        seed: of all random draws.
        options: temperature, top_k, top_p, min_p.

    Raises:
        UnsupportedError: a model of another kind; for items of a fixed length use ``model.complete(known=...)``.
        DataError: the texts and the gap do not fit into one window.
    """
    from ancestral.inputs import check_drawing

    check_drawing(options, draws=draws, seed=seed, candidates=candidates, length=length)
    check_range("infill", "candidates", candidates, 1)
    tokenizer = model.tokenizer
    if not tokenizer.streaming or tokenizer.modality != "text":
        raise UnsupportedError("infill takes models of streams of text; for others use model.complete(data, known=...)")
    first, rest = (tokenizer.streams(model.read([t]))[0] if t else torch.zeros(0).long() for t in (before, after))
    n, total = model.space.n, len(first) + length + len(rest)
    if length < 1 or total > n:
        raise DataError(
            f"{len(first)} symbols before, {length} between and {len(rest)} after do not fit into the window of {n}"
        )
    row, known = torch.zeros(n, dtype=torch.int64), torch.zeros(n, dtype=torch.bool)
    row[: len(first)], row[len(first) + length : total] = first, rest
    known[: len(first)] = known[len(first) + length : total] = True
    noise = Noise.of(seed, candidates, device=model.device)
    walked = walk(
        model.generator,
        Draw(noise, **options),
        candidates,
        model.generator.order.scoring().to(model.device),
        given=row.to(model.device).expand(candidates, n),
        known_sets=len(first),
        sets=total - len(first),
        known=(known & (torch.arange(n) >= len(first))).to(model.device).expand(candidates, n),
    )
    weight = torch.softmax(walked.log_weight, 0)
    u = Noise.of(seed + 1, draws, device=model.device).uniform(1)
    pick = (u > weight.cumsum(0)[:-1]).sum(1)
    chosen = walked.values[pick, :total].cpu()
    payloads = tokenizer.from_streams(list(chosen)).native()
    return Infilled([str(text) for text in payloads], float(1 / weight.square().sum()))
