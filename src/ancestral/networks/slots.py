"""Items of one batch that each stand at a place of their own: they come and go while the others are drawn.

A :class:`Slots` continues caches of :meth:`Network.start` and :meth:`Network.step` in one batch, whatever the place
that each of them has reached. Rows in use are always the first ones: where an item leaves, the last row takes its
place, so that a step works on one dense block (the buffer reordering of Flover: Yao et al. 2023, arXiv:2305.13484).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ancestral.networks.base import Cache, Network
from ancestral.networks.compiled import Kept, compiled_places
from ancestral.networks.transformer import CausalTransformer, KeyValues
from ancestral.order import Order
from ancestral.space import Condition


def slots(network: Network, order: Order, capacity: int) -> Slots:
    """Room for up to ``capacity`` items that each stand at a place of their own along ``order``; see :class:`Slots`."""
    plain = isinstance(network, CausalTransformer) and network.keeping is None
    kind = KeyValueSlots if plain else Slots
    return kind(network, order, capacity)


class Slots:
    """Rows at places of their own, for any network: each step recomputes their features.

    Args:
        network: a built network.
        order: of single sites, shared by all items.
        capacity: most rows.

    Attributes:
        count: rows in use, the first ones.

    Raises:
        ValueError: an order with sets of several sites, or one per item.
    """

    def __init__(self, network: Network, order: Order, capacity: int):
        if order.batched or not order.sequential:
            raise ValueError("items at different places need one order of single sites, shared by all of them")
        network.check(order)
        self.network, self.order, self.capacity = network, order, capacity
        self.count = 0
        device = next(network.parameters()).device
        self.places = torch.zeros(capacity, dtype=torch.int64, device=device)
        self.condition = Condition()
        self.hold()

    def hold(self) -> None:
        """Make the buffers."""
        space, device = self.network.space, self.places.device
        dtype = torch.int64 if space.discrete else torch.float32
        self.values = torch.zeros(self.capacity, space.n, *space.event, dtype=dtype, device=device)

    def join(self, cache: Cache) -> None:
        """Take in the items of a cache behind its last step, as further rows.

        Raises:
            ValueError: more items than there is room for.
        """
        begin, end = self.count, self.count + cache.batch
        if end > self.capacity:
            raise ValueError(f"there is room for {self.capacity - begin} items, and {cache.batch} want to join")
        self.places[begin:end] = cache.next - 1
        self.condition = cache.condition if begin == 0 else Condition.join(self.condition, cache.condition)
        self.adopt(cache, begin, end)
        self.count = end

    def adopt(self, cache: Cache, begin: int, end: int) -> None:
        """Copy what is known of a cache's items to the rows from ``begin`` up to ``end``."""
        self.values[begin:end] = cache.values

    def leave(self, row: int) -> None:
        """Give up a row; the last one in use takes its number."""
        last = self.count - 1
        if not 0 <= row <= last:
            raise ValueError(f"row {row} is not in use; rows 0 to {last} are")
        if row < last:
            self.places[row] = self.places[last]
            self.move(last, row)
        self.condition = self.condition.map(lambda t: torch.cat([t[:row], t[last:], t[row + 1 : last]])[:last])
        self.count = last

    def move(self, source: int, target: int) -> None:
        """Copy one row onto another."""
        self.values[target] = self.values[source]

    def step(self, last: Tensor) -> Tensor:
        """Features of every row's next site, ``[count, 1, D]``.

        Args:
            last: the values drawn at the sites whose features the step before returned, ``[count, 1, *event]``.
        """
        rows = torch.arange(self.count, device=self.places.device)
        places = self.places[: self.count]
        self.values[rows, self.order.permutation[places]] = last[:, 0]
        places += 1
        values = self.values[: self.count]
        if self.network.needs_mask:
            features = self.network.observe(values, self.order.rank < places[:, None], self.condition)
        else:
            features = self.network(values, self.order, self.condition)
        return features[rows, self.order.permutation[places]][:, None]

    def sites(self) -> Tensor:
        """The site that every row stands at, int64 ``[count, 1]``."""
        return self.order.permutation[self.places[: self.count]][:, None]


_LENGTH = 64
"""Places that the buffers of keys and values grow by at least."""


class KeyValueSlots(Slots):
    """Rows of a causal transformer, whose keys and values stay where they are from step to step.

    The buffers ``[R, H, L, E]`` grow with what is asked of them, at most to the capacity and the length of the order.
    """

    network: CausalTransformer

    def hold(self) -> None:
        self.keys: list[Tensor] = []
        self.kept: list[Tensor] = []
        self._compiled = Kept()

    def adopt(self, cache: Cache, begin: int, end: int) -> None:
        length = cache.next
        if not self.keys:
            empty = [(state.k[:0, :, :0], state.v[:0, :, :0]) for state in cache.state]
            self.keys, self.kept = [k.contiguous() for k, _ in empty], [v.contiguous() for _, v in empty]
            self._compiled = Kept(KeyValues(k, 0) for k in self.keys)
        self._room(end, length)
        for number, state in enumerate(cache.state):
            self.keys[number][begin:end, :, :length] = state.k[:, :, :length]
            self.kept[number][begin:end, :, :length] = state.v[:, :, :length]

    def _room(self, rows: int, length: int) -> None:
        have, long = self.keys[0].shape[0], self.keys[0].shape[2]
        if rows <= have and length <= long:
            return
        if rows > have:
            rows = min(self.capacity, max(rows, 2 * have))
        if length > long:
            length = min(self.order.n, max(length, long + max(long // 2, _LENGTH)))
        rows, length = max(rows, have), max(length, long)
        for buffers in (self.keys, self.kept):
            for number, old in enumerate(buffers):
                # Zeros, since what stands behind a row's length is multiplied by 0 and must be finite.
                buffers[number] = old.new_zeros(rows, old.shape[1], length, old.shape[3])
                buffers[number][:have, :, :long] = old

    def move(self, source: int, target: int) -> None:
        length = int(self.places[target]) + 1  # already the source's
        for buffer in (*self.keys, *self.kept):
            buffer[target, :, :length] = buffer[source, :, :length]

    def _enter(self, last: Tensor, places: Tensor) -> tuple[Tensor, Tensor | None]:
        """Inputs ``[B, 1, D]`` at ``places``, none of them the first, and their rotations."""
        network = self.network
        sites, source = self.order.permutation[places][:, None], self.order.permutation[places - 1][:, None]
        x = network.embed(last, source)
        for table, at in ((network.source, source), (network.target, sites)):
            if table is not None:
                x = x + table(at)
        if not network.prefix:
            x = x + network.told(self.condition, sites, len(places))
        return x, network._rotation(sites)

    def step(self, last: Tensor) -> Tensor:
        network, count = self.network, self.count
        places = self.places[:count]
        places += 1
        end = int(places.max()) + 1
        self._room(count, end)
        rows = torch.arange(count, device=places.device)
        x, rotation = self._enter(last, places)
        for layer, k, v in zip(self._compiled, self.keys, self.kept, strict=True):
            layer.k, layer.v = k, v
        found = compiled_places(network, x, self._compiled, places, self.sites())
        if found is not None:
            return found
        seen = torch.arange(end, device=places.device) <= places[:, None, None, None]
        mask = None if bool(seen.all()) else seen
        for number, block in enumerate(network.blocks):
            q, k, v = block.project(x, rotation)
            keys, kept = self.keys[number], self.kept[number]
            keys[rows, :, places], kept[rows, :, places] = k[:, :, 0], v[:, :, 0]
            x = block.finish(x, block.attend(q, keys[:count, :, :end], kept[:count, :, :end], mask))
        return network.norm(x)
