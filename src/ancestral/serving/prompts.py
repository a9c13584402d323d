"""How probable the symbols of a prompt are."""

from __future__ import annotations

import torch
from torch import Tensor

from ancestral.decoding.streams import network_log_probs, stream_log_prob
from ancestral.errors import UnsupportedError
from ancestral.heads.base import Finite
from ancestral.model import Model

Scored = tuple[float, tuple[tuple[int, float], ...]]


@torch.no_grad()
def report(model: Model, prompt: Tensor, top: int) -> list[Scored]:
    """Log-probability of every symbol given those before, and the ``top`` most probable symbols there.

    Of a model that mixes counts into its predictions only the log-probabilities are told.

    Args:
        model: of text.
        prompt: int64 ``[T]``.
        top: symbols to list.
    """
    generator = model.generator
    if not len(prompt):
        return []
    if generator.mixture is not None:
        return [(value, ()) for value in stream_log_prob(generator, prompt, model.context).tolist()]
    out: list[Scored] = []
    if model.tokenizer.streaming:
        pieces = network_log_probs(generator, prompt, model.context)
    else:
        values = torch.full((1, model.space.n), int(model.space.stop or 0))
        values[0, : len(prompt)] = prompt[: model.space.n]
        leaf = generator.predict(values.to(model.device), generator.order.scoring().to(model.device))
        if not isinstance(leaf, Finite):
            raise UnsupportedError(f"{model.name} lists no probabilities of symbols")
        pieces = iter([leaf.log_probs()[0, : len(prompt)]])
    for piece in pieces:
        each = torch.log_softmax(piece.double().cpu(), -1)
        own = each.gather(1, prompt[len(out) : len(out) + len(each), None])[:, 0].tolist()
        best = each.topk(min(top, each.shape[-1]), -1)
        rows = zip(own, best.indices.tolist(), best.values.tolist(), strict=True)
        out += [(value, tuple(zip(symbols, values, strict=True))) for value, symbols, values in rows]
    return out
