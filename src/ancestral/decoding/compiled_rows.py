"""Drawing whole rows of a table in one call of the compiled kernels, where they know the network and the head."""

from __future__ import annotations

from ctypes import byref
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.heads.ragged import RaggedCategorical
from ancestral.native import library
from ancestral.native.library import Column, Row
from ancestral.native.transformer import Held, Unknown
from ancestral.networks.base import Cache
from ancestral.networks.columns import ColumnNetwork, Profile
from ancestral.noise import Noise
from ancestral.order import Order
from ancestral.space import Condition

if TYPE_CHECKING:
    from ancestral.decoding.walk import Draw
    from ancestral.generator import Generator

_LANES = 16


def _padded(x: Tensor, *rows: int) -> Tensor:
    """The last dimensions filled up with zeros to these sizes."""
    missing = [pair for have, want in zip(x.shape[::-1], rows[::-1]) for pair in (0, want - have)]
    return (F.pad(x, missing) if any(missing) else x).contiguous()


def _up(size: int) -> int:
    return -(-size // _LANES) * _LANES


class Rows:
    """Draws the columns behind the known ones in one call, a few rows at a time through all of them.

    Args:
        network, head: whose values are drawn.
        noise: one stream per item.
        order: shared; the sets behind ``known_sets`` are single sites.
        condition: what the model is told.
        known_sets: leading sets whose values are given.
        end: one past the last set that is drawn.
    """

    after = 0

    def __init__(
        self,
        network: ColumnNetwork,
        head: RaggedCategorical,
        noise: Noise,
        order: Order,
        condition: Condition,
        known_sets: int,
        end: int,
    ):
        self.network, self.head, self.noise, self.order = network, head, noise, order
        self.known, self.end, self.held = order.starts[known_sets], end, Held()
        embed = network.embed.table
        if type(embed) is not nn.Embedding or condition.site is not None:
            raise Unknown
        if any(profile.settled is None for profile in network.profiles):
            raise Unknown
        batch, width, sums = noise.batch, _up(network.width), network.sums
        order_of = order.permutation.tolist()[: order.starts[end]]
        self.columns = (Column * len(order_of))()
        self.spoken = network.spoken().split(network.space.site_sizes().tolist())
        self.maps = head.maps()
        for place, (column, site) in enumerate(zip(self.columns, order_of)):
            column.site, column.given = site, place < self.known
            self._tell(column, site, order_of[: place + 1])
            if place >= self.known:
                self._describe(column, site, width)
        told = network.told(condition, torch.zeros(1, dtype=torch.int64), batch)
        self.row = Row(batch, network.space.n, len(order_of), sums, width, network.depth, self.columns)
        if isinstance(told, Tensor):
            self.row.told = self._keep(told.expand(batch, 1, sums).contiguous())
        seeds = noise.seeds.contiguous()
        self.held.tensors.append(seeds)
        self.row.seeds = seeds.data_ptr()

    def _keep(self, tensor: Tensor) -> int | None:
        return self.held.pointer(tensor.detach())

    def _tell(self, column: Column, site: int, known: list[int]) -> None:
        """What the sum is told of the value at ``site`` once it is there, the last of ``known``."""
        if site not in self.network.mute:
            column.spoken = self._keep(self.spoken[site])
        for profile in self.network.profiles:
            assert isinstance(profile, Profile) and profile.settled is not None
            if site in (profile.coarse, profile.entry) and {profile.coarse, profile.entry} <= set(known):
                column.profile = self._keep(profile.settled)
                column.first, column.second, column.seconds = profile.coarse, profile.entry, profile.entries

    def _describe(self, column: Column, site: int, width: int) -> None:
        """How a value at ``site`` is drawn."""
        network, rank = self.network, self.order.rank
        column.categories = len(self.maps[1][site])
        counted = self.head.lookup(site)
        if counted is not None:
            column.unknown, column.entries = counted.bins, counted.entries
            column.coarse = counted.coarse if rank[counted.coarse] < rank[site] else -1
            column.entry = counted.entry if rank[counted.entry] < rank[site] else -1
            self.held.tensors.append(counted.edges)
            column.edges = counted.edges.data_ptr()
            if counted.spelled is not None:
                self.held.tensors.append(counted.spelled)
                column.spelled = counted.spelled.data_ptr()
            return
        column.padded = _up(column.categories)
        column.place = self._keep(network.place[site])
        column.enter = self._keep(_padded(network.enter[site], network.sums, width))
        column.enter_bias = self._keep(_padded(network.enter_bias[site], width))
        if network.depth:
            column.inner = self._keep(_padded(torch.stack([w[site] for w in network.inner]), width, width))
            column.inner_bias = self._keep(_padded(torch.stack([b[site] for b in network.inner_bias]), width))
        column.head = self._keep(_padded(self.maps[0][site].T, width, column.padded))
        bias = F.pad(self.maps[1][site], (0, column.padded - column.categories), value=float("-inf"))
        column.head_bias = self._keep(bias.contiguous())

    def __call__(self, cache: Cache, values: Tensor, k: int, end: int, alive: Tensor | None, over: Tensor) -> int:
        """As :meth:`ancestral.decoding.compiled.Ahead.__call__`; all sets are drawn at once or none."""
        if self.order.starts[k] != self.known or end != self.end or not values.is_contiguous():
            return 0
        self.row.values, self.row.counter = values.data_ptr(), self.noise.counter - self.known
        library.require_memory(library.kernels().ancestral_columns(byref(self.row), library.threads()))
        assert isinstance(self.noise.counter, int)
        self.noise.counter += end - k
        cache.next = end
        return end - k


def rows(generator: Generator, draw: Draw, order: Order, condition: Condition, sets: tuple[int, int]) -> Rows | None:
    """A :class:`Rows`; None where the kernels do not know what is asked for.

    Args:
        generator: of a :class:`ColumnNetwork`.
        draw: how.
        order, condition: as for :func:`ancestral.decoding.walk.walk`.
        sets: the first that is drawn and one past the last.
    """
    network, head = generator.network, generator.head
    if type(network) is not ColumnNetwork or type(head) is not RaggedCategorical or order.batched or not draw.plain:
        return None
    if any(size > 1 for size in order.sizes[sets[0] : sets[1]]) or not isinstance(draw.noise.counter, int):
        return None
    try:
        return Rows(network, head, draw.noise, order, condition, *sets)
    except Unknown:
        return None
