"""Passes of transformer layers in one call: norms, projections, attention over kept keys and values, feed-forward.

A stack of layers describes itself by pointers to the weights that are there: nothing is copied. It holds for as long as
the weights stay where they are, so it is made anew for every walk.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ctypes import byref, c_void_p
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ancestral.native import library
from ancestral.native.library import HALVES, NO_TURN, PAIRS, Block, Matrix, Norm, Pass, Stack, Store
from ancestral.native.linear import BLOCK, matrix, quantised_matrix

ROWS = 512
"""Rows of a pass at most; beyond, PyTorch's matrix products are as fast."""


@dataclass(frozen=True)
class Shape:
    """How a layer reads its projections.

    Attributes:
        heads: of the queries.
        groups: heads of the keys and values.
        head: features of a head.
        halves: rotary positions turn the first half of a head against the second, rather than neighbours.
        gated: SwiGLU rather than GELU (tanh).
    """

    heads: int
    groups: int
    head: int
    halves: bool
    gated: bool


class Layer(Protocol):
    """A transformer layer that can be described: pre-norm attention ``qkv``, ``out`` and a feed-forward layer."""

    norm: nn.Module
    qkv: nn.Module
    out: nn.Module
    norm2: nn.Module
    mlp: nn.Module

    def shape(self) -> Shape | None:
        """None for what the kernels do not know."""
        ...


class Kept(Protocol):
    """Keys and values of one layer, ``[B, G, capacity, E]``."""

    k: Tensor
    v: Tensor
    length: int


class Unknown(Exception):
    """Something that the kernels do not know."""


class Held:
    """Tensors whose memory is pointed to."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []

    def pointer(self, tensor: Tensor | None) -> int | None:
        """Where a float32 tensor lies; None for none.

        Raises:
            Unknown: another type or device, or one that is not contiguous.
        """
        if tensor is None:
            return None
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu" or not tensor.is_contiguous():
            raise Unknown
        self.tensors.append(tensor)
        return tensor.data_ptr()

    def matrix(self, module: nn.Module) -> Matrix:
        """A linear map or a table, plain or quantised (``codes`` and ``scales``; see ``ancestral.quantisation``)."""
        bias = getattr(module, "bias", None)
        if type(module) in (nn.Linear, nn.Embedding):
            return self.weights(module.get_parameter("weight"), bias)
        codes, scales = getattr(module, "codes", None), getattr(module, "scales", None)
        if not isinstance(codes, Tensor) or not isinstance(scales, Tensor) or codes.device.type != "cpu":
            raise Unknown
        columns, group = int(module.columns), int(module.group)  # type: ignore[arg-type]
        if module.bits not in (4, 8) or (group % BLOCK and scales.shape[1] > 1) or not codes.is_contiguous():
            raise Unknown
        if scales.dtype not in (torch.float32, torch.float16):
            raise Unknown
        scales, least = scales.contiguous(), getattr(module, "least", None)
        group = -(-group // BLOCK) * BLOCK
        self.pointer(bias)
        self.tensors += [codes, scales]
        if least is not None:
            least = least.contiguous()
            self.tensors.append(least)
        return quantised_matrix(codes, scales, group, columns, bias, least)

    def weights(self, weight: Tensor, bias: Tensor | None = None) -> Matrix:
        """float32 weights ``[R, C]``."""
        for tensor in (weight, bias):
            self.pointer(tensor)
        return matrix(weight, bias)

    def norm(self, module: nn.Module) -> Norm:
        """A root-mean-square or layer norm."""
        eps = getattr(module, "eps", None)
        eps = getattr(module, "epsilon", None) if eps is None else eps
        weight, bias, centred = getattr(module, "weight", None), getattr(module, "bias", None), False
        if isinstance(module, nn.LayerNorm):
            centred = True
        elif bias is not None or type(module).__name__ not in ("RMSNorm", "RootMeanSquare"):
            raise Unknown
        if weight is None or not isinstance(eps, float):
            raise Unknown
        return Norm(self.pointer(weight), self.pointer(bias), eps, centred)


class Layers:
    """Transformer layers and their last norm as the kernels see them."""

    def __init__(self, blocks: Sequence[Layer], last: nn.Module, turned: bool):
        self.held = Held()
        shapes = {block.shape() for block in blocks}
        shape = shapes.pop() if len(shapes) == 1 else None
        if shape is None:
            raise Unknown
        described = (Block * len(blocks))()
        hidden = set()
        for to, block in zip(described, blocks, strict=True):
            inner, outer = getattr(block.mlp, "inner", None), getattr(block.mlp, "outer", None)
            if inner is None or outer is None:
                raise Unknown
            to.before, to.between = self.held.norm(block.norm), self.held.norm(block.norm2)
            to.qkv, to.out = self.held.matrix(block.qkv), self.held.matrix(block.out)
            to.inner, to.outer = self.held.matrix(inner), self.held.matrix(outer)
            hidden.add(to.outer.cols)
        if len(hidden) != 1:
            raise Unknown
        self.shape, self.described, self.width = shape, described, int(described[0].qkv.cols)
        turning = NO_TURN if not turned else HALVES if shape.halves else PAIRS
        self.stack = Stack(
            self.width, len(blocks), shape.heads, shape.groups, shape.head, hidden.pop(), turning, shape.gated,
            described, self.held.norm(last),
        )  # fmt: skip

    @property
    def bytes(self) -> int:
        """Memory of the weights."""
        return sum(t.numel() * t.element_size() for t in self.held.tensors)


def describe(blocks: Any, last: nn.Module, turned: bool) -> Layers | None:
    """The layers as the kernels see them; None if there are no kernels, or none that know them.

    Args:
        blocks: the layers, a sequence of :class:`Layer`.
        last: the norm behind them.
        turned: rotary positions are applied.
    """
    if library.kernels() is None or not len(blocks) or any(not hasattr(b, "shape") for b in blocks):
        return None
    if torch.is_grad_enabled() and any(p.requires_grad for p in blocks[0].parameters()):
        return None
    try:
        return Layers(list(blocks), last, turned)
    except Unknown:
        return None


class Room:
    """Where the kernels find the keys and values of all layers."""

    def __init__(self, kept: Iterable[Kept]):
        kept = list(kept)
        self.tensors = [(layer.k, layer.v) for layer in kept]
        self.keys = (c_void_p * len(kept))(*(k.data_ptr() for k, _ in self.tensors))
        self.values = (c_void_p * len(kept))(*(v.data_ptr() for _, v in self.tensors))
        self.capacity = self.tensors[0][0].shape[2]
        self.store = Store(self.keys, self.values, self.capacity)

    def fits(self, kept: Sequence[Kept], layers: Layers, batch: int) -> bool:
        """Whether this is still where they are, in a form that the kernels read."""
        shape = (batch, layers.shape.groups, self.capacity, layers.shape.head)
        return len(kept) == len(self.tensors) and all(
            layer.k is k and layer.v is v and k.shape == shape and v.shape == shape and k.is_contiguous()
            and v.is_contiguous() and k.dtype == v.dtype == torch.float32
            for layer, (k, v) in zip(kept, self.tensors)
        )  # fmt: skip


def run(
    layers: Layers,
    room: Room,
    inputs: Tensor,
    item: Tensor,
    slot: Tensor,
    seen: Tensor,
    turn: Tensor | None,
    turn_at: Tensor | None,
) -> Tensor:
    """One pass over rows, which stand for places of items.

    Args:
        layers: what is run.
        room: where keys and values are kept.
        inputs: float32 ``[R, D]``.
        item: int64 ``[R]``, the item of each row.
        slot: int64 ``[R]``, where its key and value are kept; negative: nowhere.
        seen: int64 ``[R]``, how many slots of its item it sees, once all rows have stored theirs.
        turn: float32 ``[M, E / 2, 2]``, cosines and sines of rotary positions; None for none.
        turn_at: int64 ``[R]``, each row's among them; negative: its query and key are zero.

    Returns:
        features behind the last norm, float32 ``[R, D]``.
    """
    inputs, item, slot, seen = (t.contiguous() for t in (inputs, item, slot, seen))
    turn, turn_at = (None if t is None else t.contiguous() for t in (turn, turn_at))
    features = torch.empty_like(inputs)
    rows = Pass(
        len(inputs), item.data_ptr(), slot.data_ptr(), seen.data_ptr(), None if turn is None else turn.data_ptr(),
        None if turn_at is None else turn_at.data_ptr(), inputs.data_ptr(), features.data_ptr(),
    )  # fmt: skip
    found = library.kernels().ancestral_pass(byref(layers.stack), byref(room.store), byref(rows), *library.way())
    library.require_memory(found)
    return features
