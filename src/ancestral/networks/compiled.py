"""Steps of transformers in one call of the compiled kernels, where there are some that know the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ancestral.native.library import available
from ancestral.native.transformer import ROWS, Layers, Room, describe, run
from ancestral.order import Order

if TYPE_CHECKING:
    from ancestral.networks.base import Network
    from ancestral.networks.frontier import FrontierTransformer
    from ancestral.networks.transformer import CausalTransformer, KeyValues, QueryTransformer


class Kept(list["KeyValues"]):
    """Keys and values of all layers, and how the kernels see the layers that they belong to."""

    layers: Layers | None = None
    room: Room | None = None
    known = False
    """Whether ``layers`` says whether the kernels know this network."""

    def ready(
        self, network: CausalTransformer | QueryTransformer | FrontierTransformer, batch: int, capacity: int
    ) -> bool:
        """Let the kernels see the layers, with room for ``capacity`` places; False if they do not know them."""
        if not self.known:
            self.layers = describe(network.blocks, network.norm, network.rotation is not None)
            self.known = True
        if self.layers is None:
            return False
        if not self:
            from ancestral.networks.transformer import KeyValues

            shape = self.layers.shape
            like = network.first.new_empty(batch, shape.groups, 0, shape.head)
            self.extend(KeyValues(like, capacity) for _ in network.blocks)
        if self.room is None or not self.room.fits(self, self.layers, batch):
            self.room = Room(self)
        return self.room.fits(self, self.layers, batch)


def _refused(network: Network, x: Tensor) -> bool:
    """Whether these inputs ``[B, T, D]`` are not for the kernels, whatever the layers are."""
    if not available() or network.training or x.requires_grad or x.shape[0] * x.shape[1] > ROWS:
        return True
    return x.device.type != "cpu" or x.dtype != torch.float32


def _run(kept: Kept, x: Tensor, slot: Tensor, seen: Tensor, turn: Tensor | None, turn_at: Tensor | None) -> Tensor:
    """Features of ``x`` ``[B, T, D]``; ``slot`` and ``seen`` are ``[T]``, ``turn_at`` is ``[B, T]``."""
    assert kept.layers is not None and kept.room is not None
    batch, count, width = x.shape
    item = torch.arange(batch).repeat_interleave(count)
    at = None if turn_at is None else turn_at.reshape(-1)
    rows = x.reshape(batch * count, width)
    features = run(kept.layers, kept.room, rows, item, slot.repeat(batch), seen.repeat(batch), turn, at)
    return features.view(batch, count, width)


def compiled_mix(
    network: CausalTransformer, inputs: Tensor, places: tuple[int, int], sites: Tensor, order: Order, state: Any
) -> tuple[Tensor, Kept] | None:
    """:meth:`CausalTransformer.mix` by the kernels; None if that is not for them."""
    begin, end = places
    if _refused(network, inputs) or network.keeping is not None or (network.blind and not order.sequential):
        return None
    kept = state if isinstance(state, Kept) else Kept(state)
    if (kept and kept[0].length != begin) or not kept.ready(network, len(inputs), order.n):
        return None
    place = torch.arange(begin, end)
    if order.sequential:
        seen = place + 1
    else:
        seen = torch.tensor(order.starts[1:])[order.set_of_place[begin:end]].clamp(max=end)
    turn = turn_at = None
    if network.rotation is not None:
        turn = network.rotation.turn
        turn_at = (sites - 1 if network.source_rotary else sites).expand(len(inputs), end - begin)
    features = _run(kept, inputs, place, seen, turn, turn_at)
    for layer in kept:
        layer.length = end
    return features, kept


def compiled_places(network: CausalTransformer, x: Tensor, kept: Kept, places: Tensor, sites: Tensor) -> Tensor | None:
    """All layers over rows that each stand at a place of their own, by the kernels; None if that is not for them.

    Args:
        network: whose layers.
        x: inputs float32 ``[B, 1, D]``.
        kept: keys and values of all layers, of at least B items; their ``length`` is left alone.
        places: int64 ``[B]``; a row sees its item's places up to its own.
        sites: int64 ``[B, 1]``, what its rotary positions are those of.

    Returns:
        features behind the last norm, ``[B, 1, D]``.
    """
    if _refused(network, x) or network.keeping is not None or not kept:
        return None
    if not kept.ready(network, kept[0].k.shape[0], 0):
        return None
    assert kept.layers is not None and kept.room is not None
    turn = turn_at = None
    if network.rotation is not None:
        turn = network.rotation.turn
        turn_at = (sites - 1 if network.source_rotary else sites).reshape(-1)
    item = torch.arange(len(x))
    return run(kept.layers, kept.room, x[:, 0], item, places, places + 1, turn, turn_at)[:, None]


def compiled_rows(
    network: QueryTransformer | FrontierTransformer,
    x: Tensor,
    stored: int,
    rotation: Tensor | None,
    state: Any,
    capacity: int,
) -> Tensor | None:
    """All layers over rows that see everything kept and each other's, by the kernels; None if that is not for them.

    Args:
        network: whose layers.
        x: inputs float32 ``[B, T, D]``.
        stored: how many of the T, the first, leave keys and values behind; the others are seen by nobody.
        rotation: complex ``[T, E / 2]`` or ``[B, T, E / 2]``, or None.
        state: keys and values of the layers, moved on in place.
        capacity: places that there is room for.

    Returns:
        features behind the last norm, ``[B, T, D]``.
    """
    if not isinstance(state, Kept) or _refused(network, x) or not state.ready(network, len(x), capacity):
        return None
    batch, count, _ = x.shape
    begin = state[0].length
    slot = torch.full((count,), -1)
    slot[:stored] = torch.arange(begin, begin + stored)
    turn = turn_at = None
    if rotation is not None:
        turn = torch.view_as_real(rotation.resolve_conj())
        shared = rotation.dim() == 2
        turn_at = torch.arange(count).expand(batch, count)
        turn_at = turn_at if shared else turn_at + count * torch.arange(batch)[:, None]
    features = _run(state, x, slot, torch.full((count,), begin + stored), turn, turn_at)
    for layer in state:
        layer.length = begin + stored
    return features
