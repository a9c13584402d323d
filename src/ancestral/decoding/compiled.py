"""Drawing many values in one call of the compiled kernels: embedding, layers, head, choice, and on to the next."""

from __future__ import annotations

from ctypes import byref, pointer
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ancestral.decoding.compiled_rows import Rows, rows
from ancestral.heads.base import Chooser
from ancestral.heads.categorical import Categorical
from ancestral.heads.shared import Shared
from ancestral.native import library
from ancestral.native.library import Drawing
from ancestral.native.transformer import Held, Unknown
from ancestral.networks.base import Cache, ValueEmbedding
from ancestral.networks.columns import ColumnNetwork
from ancestral.networks.compiled import Kept
from ancestral.networks.transformer import CausalTransformer
from ancestral.order import Order
from ancestral.space import Condition

if TYPE_CHECKING:
    from ancestral.generator import Generator

_WORK = 1 << 32
"""Bytes of weights read in one call at most, about: an interruption is noticed between two calls."""


class Ahead:
    """Draws the values behind the first in one call, where the kernels know the network, the head and the chooser.

    Args:
        generator: whose values are drawn.
        draw: how.
        order: followed, one site at a time.
        condition: what the model is told.
        batch: number of items B.
        ends: symbols that end a stream.
    """

    after = 1
    """Sets that are drawn in another way first."""

    def __init__(
        self,
        generator: Generator,
        draw: Chooser,
        order: Order,
        condition: Condition,
        batch: int,
        ends: Tensor | None,
    ):
        from ancestral.decoding.walk import Draw

        assert isinstance(draw, Draw)
        network = generator.network
        assert isinstance(network, CausalTransformer)
        self.network, self.draw, self.order = network, draw, order
        held = self.held = Held()
        categories = generator.space.largest
        drawing = self.drawing = Drawing(
            batch=batch, sites=generator.space.n, places=order.n, own_order=order.batched, categories=categories
        )
        embed = network.embed
        if not isinstance(embed, ValueEmbedding) or embed.space.event or not embed.space.discrete:
            raise Unknown
        drawing.embed = held.matrix(embed.table)
        drawing.offset = self._whole(embed.offsets)
        self._head(generator)
        for name, table in (("source", network.source), ("target", network.target)):
            if table is not None:
                setattr(drawing, name, self._table(table))
        site = torch.zeros(1, dtype=torch.int64)
        if condition.site is not None:
            raise Unknown
        told = 0.0 if network.prefix else network.told(condition, site, batch)
        if isinstance(told, Tensor):
            drawing.told = held.pointer(told.expand(batch, 1, network.width).contiguous())
        if network.rotation is not None:
            drawing.turn = held.pointer(network.rotation.turn)
        drawing.turn_source = network.source_rotary
        drawing.order = self._whole(order.permutation)
        drawing.seeds = self._whole(draw.noise.seeds)
        drawing.temperature, drawing.top_k = draw.temperature, draw.top_k or 0
        drawing.min_p, drawing.top_p = draw.min_p or 0.0, draw.top_p or 0.0
        stop = generator.space.stop if order.is_raster else None
        drawing.stop = -1 if stop is None else stop
        if ends is not None:
            drawing.ends, drawing.n_ends = self._whole(ends), len(ends)
        self.logits = torch.empty(batch, categories)
        drawing.logits = self.logits.data_ptr()

    def _whole(self, tensor: Tensor | None) -> int | None:
        if tensor is None:
            return None
        tensor = tensor.to("cpu", torch.int64).contiguous()
        self.held.tensors.append(tensor)
        return tensor.data_ptr()

    def _table(self, table: nn.Embedding) -> int | None:
        if type(table) is not nn.Embedding:
            # Quantised: read once, it is as small as the window.
            return self.held.pointer(table(torch.arange(table.num_embeddings)).contiguous())
        return self.held.pointer(table.weight)

    def _head(self, generator: Generator) -> None:
        head = generator.head
        if type(head) is Shared and head.owner is generator.network:
            self.drawing.head = self.drawing.embed
        elif type(head) is Categorical and not head.own:
            local = head.bias.dim() == 2
            self.drawing.head = self.held.weights(head.weight, None if local else head.bias)
            if local:
                self.drawing.head_bias = self.held.pointer(head.bias)
        else:
            raise Unknown

    def __call__(self, cache: Cache, values: Tensor, k: int, end: int, alive: Tensor | None, over: Tensor) -> int:
        """Draw the sets from k to ``end`` at most into ``values``; returns how many, 0 if that is not possible.

        Args:
            cache: behind at least one step.
            values: int64 ``[B, N]`` with those of the sets before k, written in place.
            k: the next set.
            end: one past the last.
            alive: bool ``[B]``, False behind a stop symbol; written in place.
            over: bool ``[B]``, an ending symbol was drawn; written in place.
        """
        kept = cache.state
        if not isinstance(kept, Kept) or not kept.ready(self.network, len(values), self.order.n):
            return 0
        if kept.layers is None or kept.room is None or not values.is_contiguous():
            return 0
        drawing = self.drawing
        ended = torch.zeros(len(values), dtype=torch.bool) if alive is None else ~alive
        drawing.place, drawing.values = k, values.data_ptr()
        drawing.steps = max(1, min(end - k, _WORK // max(1, kept.layers.bytes * (1 + len(values) // 8))))
        drawing.ended, drawing.over = ended.data_ptr(), over.data_ptr()
        drawing.stack, drawing.store = pointer(kept.layers.stack), pointer(kept.room.store)
        drawing.counter = self.draw.noise.counter
        done = library.kernels().ancestral_draw(byref(drawing), *library.way())
        library.require_memory(done)
        self.draw.noise.counter += done
        if alive is not None:
            alive.copy_(~ended)
        for layer in kept:
            layer.length = k + done
        cache.next = k + done
        return done


def ahead(
    generator: Generator,
    chooser: Chooser,
    order: Order,
    condition: Condition,
    batch: int,
    ends: Tensor | None,
    sets: tuple[int, int],
) -> Ahead | Rows | None:
    """What draws many values in one call; None where there are no kernels, or none that know the generator.

    Args:
        generator, chooser, order, condition, batch, ends: as for :func:`ancestral.decoding.walk.walk`.
        sets: the first that is drawn and one past the last.
    """
    from ancestral.decoding.walk import Draw

    network = generator.network
    if type(chooser) is not Draw or not library.available() or network.training:
        return None
    if isinstance(network, ColumnNetwork):
        return rows(generator, chooser, order, condition, sets)
    if not isinstance(network, CausalTransformer):
        return None
    if network.keeping is not None or not order.sequential or generator.space.event:
        return None
    if not isinstance(chooser.noise.counter, int):
        return None
    try:
        return Ahead(generator, chooser, order, condition, batch, ends)
    except Unknown:
        return None
