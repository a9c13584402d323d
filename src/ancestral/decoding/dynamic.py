"""Dynamic evaluation: a network goes on learning from a stream while it is scored."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ancestral.decoding.streams import stream_log_prob, windows
from ancestral.heads.base import Finite

if TYPE_CHECKING:
    from ancestral.generator import Generator


def dynamic_log_prob(
    generator: Generator, stream: Tensor, context: int, rate: float, decay: float = 0.0, clip: float = 1.0
) -> Tensor:
    """Log-probability of every symbol of a stream, after learning from those before: float64 ``[T]``, nats.

    Windows follow each other as in :func:`ancestral.decoding.streams.stream_log_prob`; when one has been scored, a
    copy of the network takes a step down the gradient of its newly scored symbols. What the generator mixes in is
    mixed in here too. Nothing of ``generator`` changes. For scoring: streams are coded without it.

    Reference:
        Krause, Kahembwe, Murray and Renals. Dynamic evaluation of neural sequence models. 2017, arXiv:1709.07432.

    Args:
        generator: a model of windows of N symbols in raster order.
        stream: int64 ``[T]``.
        context: symbols seen again in every window, below N.
        rate: of stochastic gradient descent; 0 scores without learning.
        decay: share of the way back to the trained weights, taken with every step.
        clip: largest Euclidean norm of a gradient.
    """
    if rate < 0 or not 0 <= decay < 1 or clip <= 0:
        raise ValueError(f"rate={rate} must be at least 0, decay={decay} in [0, 1), and clip={clip} more than 0")
    if rate == 0:
        return stream_log_prob(generator, stream, context)
    pieces = _learning(generator, stream, context, rate, decay, clip)
    if generator.mixture is not None:
        return generator.mixture.stream_log_prob(stream, pieces)
    out, done = torch.zeros(len(stream), dtype=torch.float64), 0
    for piece in pieces:
        truth = stream[done : done + len(piece), None]
        out[done : done + len(piece)] = piece.double().cpu().gather(1, truth)[:, 0]
        done += len(piece)
    return out


def _learning(
    generator: Generator, stream: Tensor, context: int, rate: float, decay: float, clip: float
) -> Iterator[Tensor]:
    """The log-probabilities of successive windows, ``[t, K]``, with a step of learning after each."""
    network, head = copy.deepcopy(generator.network).eval(), copy.deepcopy(generator.head).eval()
    weights = [p for p in (*network.parameters(), *head.parameters()) if p.requires_grad]
    start = [w.detach().clone() for w in weights]
    for rows, order, [(_, begin, end)] in windows(generator, stream, context, 1):
        sites = torch.arange(rows.shape[1], device=rows.device)
        with torch.enable_grad():
            leaf = head(network(rows, order, None), sites)
            assert isinstance(leaf, Finite), "only chances of finitely many symbols can be listed"
            log_probs = leaf.log_probs()[0, begin:end]
            yield log_probs.detach()
            loss = -log_probs.gather(1, rows[0, begin:end, None]).mean()
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        known = [(w, s, g) for w, s, g in zip(weights, start, gradients, strict=True) if g is not None]
        norm = torch.nn.utils.get_total_norm([g for _, _, g in known])
        with torch.no_grad():
            for weight, first, gradient in known:
                weight.sub_(gradient * (rate * torch.clamp(clip / (norm + 1e-6), max=1.0)))
                weight.lerp_(first, decay)
