"""Steps of causal transformers in one call of the compiled kernels, where there are some that know the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ancestral.native.library import available
from ancestral.native.transformer import ROWS, Layers, Room, describe, run
from ancestral.order import Order

if TYPE_CHECKING:
    from ancestral.networks.transformer import CausalTransformer, KeyValues


class Kept(list["KeyValues"]):
    """Keys and values of all layers, and how the kernels see the layers that they belong to."""

    layers: Layers | None = None
    room: Room | None = None
    known = False
    """Whether ``layers`` says whether the kernels know this network."""

    def ready(self, network: CausalTransformer, batch: int, capacity: int) -> bool:
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


def compiled_mix(
    network: CausalTransformer, inputs: Tensor, places: tuple[int, int], sites: Tensor, order: Order, state: Any
) -> tuple[Tensor, Kept] | None:
    """:meth:`CausalTransformer.mix` by the kernels; None if that is not for them."""
    begin, end = places
    batch, count, _ = inputs.shape
    if (
        not available()
        or batch * count > ROWS
        or network.training
        or inputs.requires_grad
        or (network.blind and not order.sequential)
    ):
        return None
    if inputs.device.type != "cpu" or inputs.dtype != torch.float32:
        return None
    kept = state if isinstance(state, Kept) else Kept(state)
    if (kept and kept[0].length != begin) or not kept.ready(network, batch, order.n):
        return None
    assert kept.layers is not None and kept.room is not None
    place = torch.arange(begin, end)
    if order.sequential:
        seen = place + 1
    else:
        ends = torch.tensor(order.starts[1:])
        seen = ends[order.set_of_place[begin:end]].clamp(max=end)
    turn = turn_at = None
    if network.rotation is not None:
        turn = network.rotation.turn
        turn_at = (sites - 1 if network.source_rotary else sites).expand(batch, count).reshape(-1)
    features = run(
        kept.layers,
        kept.room,
        inputs.reshape(batch * count, -1),
        torch.arange(batch).repeat_interleave(count),
        place.repeat(batch),
        seen.repeat(batch),
        turn,
        turn_at,
    )
    for layer in kept:
        layer.length = end
    return features.view(batch, count, -1), kept
