"""Decoders side by side: passes, time, and whether what they draw is still the model's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ancestral.data import Text
from ancestral.decoding.decoders import Decoder
from ancestral.decoding.exits import ExitReport
from ancestral.decoding.speculative import SpeculationReport
from ancestral.errors import DataError
from ancestral.model import Model


def documentation() -> str:
    """The text of Python's own documentation of topics, which comes with every Python."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def split_text(path: str, share: float = 0.05) -> tuple[str, str]:
    """Training and held-out part of a text file; without a path, of :func:`documentation`.

    Raises:
        DataError: the file cannot be read, or is too short.
    """
    from ancestral.data.base import existing, read_bytes

    text = read_bytes(existing(path)).decode("utf-8", "replace") if path else documentation()
    cut = int(len(text) * (1 - share))
    if len(text) - cut < 400:
        raise DataError(f"{path} has {len(text)} characters; give 8,000 at least")
    return text[:cut], text[cut:]


def prompts_from(text: str, count: int, length: int) -> list[str]:
    """``count`` excerpts of ``length`` characters, spread evenly over a text."""
    step = max(1, (len(text) - length) // count)
    return [text[i * step : i * step + length] for i in range(count)]


def trial(
    model: Model, decoder: Decoder, prompts: Sequence[str], length: int, judge: Model | None = None, **options: Any
) -> dict[str, Any]:
    """What a decoder does when it goes on from prompts, one after the other, by ``length`` symbols each.

    Args:
        model: of text.
        decoder: with a ``report``, if it counts what it does.
        prompts: texts.
        length: symbols.
        judge: model whose opinion of the texts is told; by default ``model``.
        options: temperature ...

    Returns:
        ``cpu_seconds`` of this process, ``nats_per_symbol`` under the judge, the ``texts`` as bytes, and from a report
        ``symbols_per_call`` (accepted length), ``acceptance``, ``calls`` and ``draft_calls`` per symbol.
    """
    dataset = Text(list(prompts))
    began = time.process_time()
    drawn = [
        model.complete(dataset.take([i]), length=length, decoder=decoder, seed=i, as_dataset=True, **options).payloads[
            0
        ]
        for i in range(len(dataset))
    ]
    seconds = time.process_time() - began
    out = {"cpu_seconds": seconds, "nats_per_symbol": opinion(judge or model, dataset.payloads, drawn)}
    report = getattr(decoder, "report", None)
    if isinstance(report, SpeculationReport):
        out |= {
            "symbols_per_call": report.sets_per_pass,
            "calls": report.passes / report.sets,
            "draft_calls": report.draft_passes / report.sets,
            "acceptance": report.acceptance,
        }
    elif isinstance(report, ExitReport):
        out |= {"symbols_per_call": 1.0, "calls": 1.0, "layers": report.layers_per_site}
    return out | {"texts": drawn}


def opinion(judge: Model, prompts: Sequence[bytes], texts: Sequence[bytes]) -> float:
    """Mean nats per byte that a model needs for what was added to prompts."""
    added = sum(len(t) - len(p) for t, p in zip(texts, prompts, strict=True))
    whole, known = (judge.log_prob(Text(list(part), True)) for part in (texts, prompts))
    return float(-(np.asarray(whole) - np.asarray(known)).sum() / max(added, 1))


@torch.no_grad()
def follows(model: Model, decoder: Decoder, prompt: str, draws: int, seed: int = 0) -> float:
    """P-value of a chi-square test that the first two symbols behind a prompt follow the model.

    Three are drawn, so that the first two can both be drafted.

    Args:
        model: of streams of text.
        decoder: tested.
        prompt: shorter than the model's window less three symbols.
        draws: items.
        seed: of the draws.
    """
    from ancestral.laws import chi_square

    (prefix,) = model.tokenizer.streams(Text([prompt]))
    size, n = model.space.largest, model.space.n
    drawn = model.complete(Text([prompt]), draws=draws, length=3, decoder=decoder, seed=seed, as_dataset=True)
    pairs = torch.stack([stream[len(prefix) : len(prefix) + 2] for stream in model.tokenizer.streams(drawn)])
    every = torch.cartesian_prod(torch.arange(size), torch.arange(size))
    values = torch.zeros(size, n, dtype=torch.int64)
    values[:, : len(prefix)] = prefix
    values[:, len(prefix)] = torch.arange(size)
    generator, at = model.generator, len(prefix)
    found = generator.predict(values, generator.order.scoring())
    log_probs = torch.log_softmax(found.logits[:, at : at + 2].double(), -1)  # type: ignore[attr-defined]
    joint = (log_probs[0, 0][:, None] + log_probs[:, 1]).exp()
    return chi_square(pairs, every, joint.flatten())
