"""Drafts pruned from the model that they draft for: fewer layers, fewer symbols, fewer bits."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.decoding.decoders import Ancestral, Request
from ancestral.decoding.drafts import SmallModel
from ancestral.decoding.streams import windows
from ancestral.errors import UnsupportedError
from ancestral.heads.base import Finite
from ancestral.heads.subset import Subset
from ancestral.networks.transformer import CausalTransformer, Layers
from ancestral.noise import Noise
from ancestral.order import Order
from ancestral.quantisation import FineQuant, rounded

if TYPE_CHECKING:
    from ancestral.generator import Generator
    from ancestral.model import Model

TOGETHER = 1 << 9
"""Symbols that are looked at together: a large vocabulary has a probability for each at every place."""

Shown = tuple[Tensor, Order, Tensor]
"""Values int64 ``[B, n]``, the order of their sites, and which of them count: bool ``[B, n]``."""


def pruned(
    model: Model,
    data: Any = None,
    *,
    layers: int = 0,
    vocabulary: int | None = None,
    bits: int | None = 8,
    group: int | None = 32,
    texts: int = 32,
    length: int = 192,
    seed: int = 0,
) -> SmallModel:
    """A draft for speculative decoding that is the model itself with less of it; nothing is trained.

    *Layers*: the run of ``layers`` successive layers that turns the residual stream least is left out (Gromov et al.
    2024, arXiv:2403.17887). *Vocabulary*: only the ``vocabulary`` most frequent symbols can be drafted, by a head that
    is as much smaller (FR-Spec: Zhao et al. 2025, arXiv:2502.14856); the target still draws all others, and its
    distribution stays what it is. Frequencies are the sums of the model's own probabilities over all places of the
    calibration text, which also rank symbols that do not occur in it; the paper counts a large corpus. *Bits*: what is
    left is rounded (:class:`ancestral.quantisation.FineQuant`); the table of the symbols that are read is shared with
    the model, as is all that is not rounded.

    Args:
        model: a built model; layers and vocabulary need a causal transformer and one vocabulary for all sites.
        data: calibration text, anything that ``model.read`` takes; by default ``texts`` items of ``length`` symbols
            that the model draws.
        layers: how many are left out.
        vocabulary: V, symbols that can be drafted; None for all.
        bits: 8 or 4; None leaves the weights as they are.
        group: numbers that share a scale, as for ``FineQuant``.
        texts, length, seed: what is drawn for calibration.

    Raises:
        UnsupportedError: a network or a head that cannot be pruned so.
    """
    generator = model.generator
    drop: Iterable[int] = ()
    symbols: Tensor | None = None
    if layers or vocabulary is not None:
        shown = list(calibration(model, data, texts, length, seed))
        if layers:
            drop = least_turning(turning(generator, shown), layers)
        if vocabulary is not None:
            symbols = most_frequent(frequencies(generator, shown), vocabulary)
    return SmallModel(smaller(generator, drop, symbols, bits, group))


def calibration(model: Model, data: Any = None, texts: int = 32, length: int = 192, seed: int = 0) -> Iterator[Shown]:
    """Windows of calibration text, about ``TOGETHER`` symbols at a time; arguments as for :func:`pruned`."""
    generator = model.generator
    if data is not None and model.tokenizer.streaming:
        for stream in model.tokenizer.streams(model.read(data)):
            for rows, order, places in windows(generator, stream, 0, 1):
                for row, (_, begin, end) in zip(rows, places, strict=True):
                    at = torch.arange(len(row))
                    yield row[None], order, ((at >= begin) & (at < end))[None]
        return
    order = generator.order.scoring()
    if data is not None:
        values = model.tokenizer.encode(model.read(data))
    else:
        shorter = generator.network.shortens and order.is_raster and length < order.n
        values = Ancestral()(generator, Request(Noise.of(seed, texts), sets=length if shorter else None))
        if shorter:
            values, order = values[:, :length], Order.raster(length)
    for rows in values.split(max(1, TOGETHER // order.n)):
        alive = generator.alive(rows, order)
        yield rows, order, torch.ones(rows.shape[:2], dtype=torch.bool) if alive is None else alive


class _Heard(nn.Module):
    """A layer that notes what it is given, ``[B, T, D]``, and what comes out at the end."""

    def __init__(self, block: Any, heard: list[Tensor], last: bool):
        super().__init__()
        self.block, self.heard, self.last = block, heard, last

    def project(self, x: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        self.heard.append(x)
        return self.block.project(x, rotation)

    def attend(self, *args: Any) -> Tensor:
        return self.block.attend(*args)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        x = self.block.finish(x, attended)
        if self.last:
            self.heard.append(x)
        return x


@torch.no_grad()
def turning(generator: Generator, shown: Iterable[Shown]) -> Tensor:
    """How far the residual stream turns between two layers: float64 ``[L + 1, L + 1]``, in half turns.

    ``[l, m]`` is the mean over all places of ``arccos(cos(h_l, h_m)) / pi``, h_l being what layer l (from 0) is given
    and h_L what leaves the last one (Gromov et al. 2024, arXiv:2403.17887; there at the last place).

    Raises:
        UnsupportedError: the network is no causal transformer.
    """
    network = _layered(generator)
    heard: list[Tensor] = []
    listening = [_Heard(b, heard, b is network.blocks[-1]) for b in network.blocks]
    listener = _with_blocks(generator, listening).network
    total, places = torch.zeros(len(listening) + 1, len(listening) + 1, dtype=torch.float64), 0
    for values, order, counts in shown:
        heard.clear()
        listener(values, order, None)
        here = order.places if not order.is_raster else slice(None)
        states = torch.stack([F.normalize(h, dim=-1)[:, here][counts] for h in heard], 1)
        total += (states @ states.mT).clamp(-1, 1).arccos().double().sum(0)
        places += len(states)
    return total / (math.pi * max(places, 1))


def least_turning(turned: Tensor, count: int) -> range:
    """The run of ``count`` successive layers between whose ends :func:`turning` is least.

    Raises:
        UnsupportedError: there are no more layers than that.
    """
    depth = len(turned) - 1
    if not 0 < count < depth:
        raise UnsupportedError(f"layers={count} cannot be left out of {depth}; choose 1 to {depth - 1}")
    first = int(turned.diagonal(count).argmin())
    return range(first, first + count)


@torch.no_grad()
def frequencies(generator: Generator, shown: Iterable[Shown]) -> Tensor:
    """How often every symbol is expected on calibration text, a share of all places: float64 ``[K]``."""
    total = torch.zeros(generator.space.largest, dtype=torch.float64)
    for values, order, counts in shown:
        total += _log_probs(generator, values, order)[counts].exp().sum(0, dtype=torch.float64)
    return total / total.sum()


def most_frequent(shares: Tensor, count: int) -> Tensor:
    """The ``count`` symbols of the largest ``shares`` ``[K]``, ascending: int64 ``[V]``.

    Raises:
        UnsupportedError: there are fewer.
    """
    if not 0 < count <= len(shares):
        raise UnsupportedError(f"vocabulary={count} must be between 1 and {len(shares)}, the symbols that there are")
    return shares.argsort(descending=True, stable=True)[:count].sort().values


@torch.no_grad()
def agreement(target: Generator, draft: Generator, shown: Iterable[Shown]) -> tuple[float, float]:
    """How good a draft is, without drawing from it.

    Returns:
        the share of drafted symbols that would be accepted, ``E sum_x min(p(x), q(x))`` (Leviathan et al. 2022,
        arXiv:2211.17192), and the share of places where both have the same favourite.
    """
    accepted = alike = places = 0.0
    for values, order, counts in shown:
        p, q = (_log_probs(g, values, order)[counts] for g in (target, draft))
        accepted += float(torch.minimum(p, q).exp().sum(dtype=torch.float64))
        alike += float((p.argmax(-1) == q.argmax(-1)).sum())
        places += len(p)
    return accepted / max(places, 1.0), alike / max(places, 1.0)


def smaller(
    generator: Generator,
    drop: Iterable[int] = (),
    symbols: Tensor | None = None,
    bits: int | None = None,
    group: int | None = 32,
) -> Generator:
    """The generator without some layers and symbols, rounded; whatever can be is shared with it.

    Args:
        generator: stays as it is.
        drop: numbers of the layers that are left out, from 0.
        symbols: the only ones that it gives a probability, int64 ``[V]``; it still reads all.
        bits, group: as for :class:`ancestral.quantisation.FineQuant`; None for full weights. Tables are rounded too
            unless they serve for reading only.

    Raises:
        UnsupportedError: the network or the head cannot be pruned so.
    """
    left, drop = generator, set(drop)
    if drop:
        left = _with_blocks(generator, [b for i, b in enumerate(_layered(generator).blocks) if i not in drop])
    if symbols is not None:
        left = copy.copy(left)
        left._modules = {**left._modules, "head": Subset.of(generator.head, symbols)}
    if bits is None:
        return left
    return rounded(left, FineQuant(bits, group, embeddings=8 if symbols is None else None))


def _layered(generator: Generator) -> CausalTransformer:
    if not isinstance(generator.network, CausalTransformer):
        raise UnsupportedError(
            f"layers of a {type(generator.network).__name__} cannot be left out, only those of a causal transformer"
        )
    return generator.network


def _with_blocks(generator: Generator, blocks: list[Any]) -> Generator:
    """The same generator with these layers; all weights are shared."""
    made, network = copy.copy(generator), copy.copy(_layered(generator))
    network._modules = {**network._modules, "blocks": Layers(blocks)}
    network.depth = len(blocks)
    made._modules = {**generator._modules, "network": network}
    return made


def _log_probs(generator: Generator, values: Tensor, order: Order) -> Tensor:
    """Of all symbols at all sites: float32 ``[B, n, K]``."""
    found = generator.head(generator.network(values, order, None), torch.arange(values.shape[1]))
    if not isinstance(found, Finite) or generator.space.event:
        raise UnsupportedError("only the vocabulary of models with one finite value per site can be pruned")
    return found.log_probs()
