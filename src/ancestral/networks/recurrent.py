"""Recurrent networks along the order: selective state spaces and gated recurrent units."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.networks.base import SequenceNetwork
from ancestral.networks.transformer import RMSNorm
from ancestral.order import Order
from ancestral.space import Space


def selective_scan(decay: Tensor, drive: Tensor, start: Tensor, chunk: int = 64) -> Tensor:
    """All states of ``h_t = exp(decay_t) h_{t-1} + drive_t``: float32 ``[B, T, ...]``, linear in T.

    Within a chunk the recurrence is solved by doubling (Blelloch 1990): after step s every entry has composed
    the last ``2^s`` updates. No division by a decay takes place, so nothing overflows.

    Args:
        decay: logarithm of the decay, at most 0, ``[B, T, ...]``.
        drive: what is added, of the same shape.
        start: state before the first, ``[B, ...]``.
        chunk: places solved together.
    """
    out = []
    for a in range(0, decay.shape[1], chunk):
        log_a, h = decay[:, a : a + chunk], drive[:, a : a + chunk]
        length, shift = log_a.shape[1], 1
        while shift < length:
            earlier = torch.cat([torch.zeros_like(h[:, :shift]), h[:, :-shift]], 1)
            h = h + torch.exp(log_a) * earlier
            log_a = log_a + torch.cat([torch.zeros_like(log_a[:, :shift]), log_a[:, :-shift]], 1)
            shift *= 2
        h = h + torch.exp(log_a) * start[:, None]
        start = h[:, -1]
        out.append(h)
    return torch.cat(out, 1)


class MambaBlock(nn.Module):
    """Selective state space layer (Gu and Dao 2023, arXiv:2312.00752) with its residual connection.

    Args:
        width: features D.
        state: numbers N that every inner channel remembers.
        expand: inner channels per feature.
        kernel: taps of the causal convolution before the scan.
        eps: of the norm.
    """

    def __init__(self, width: int, state: int = 16, expand: int = 2, kernel: int = 4, eps: float = 1e-6):
        super().__init__()
        inner = expand * width
        self.inner, self.state, self.kernel = inner, state, kernel
        self.rank = max(1, math.ceil(width / 16))
        self.norm = RMSNorm(width, eps)
        self.enter = nn.Linear(width, 2 * inner, bias=False)
        self.local = nn.Conv1d(inner, inner, kernel, groups=inner)
        self.select = nn.Linear(inner, self.rank + 2 * state, bias=False)
        self.delta = nn.Linear(self.rank, inner)
        rates = torch.arange(1, state + 1, dtype=torch.float32).repeat(inner, 1)
        self.log_rate = nn.Parameter(torch.log(rates))
        self.skip = nn.Parameter(torch.ones(inner))
        self.leave = nn.Linear(inner, width, bias=False)
        with torch.no_grad():  # steps between 0.001 and 0.1 at the beginning, as in Mamba
            step = torch.exp(torch.rand(inner) * (math.log(0.1) - math.log(0.001)) + math.log(0.001))
            self.delta.bias.copy_(step + torch.log(-torch.expm1(-step)))

    def initial(self, batch: int) -> tuple[Tensor, Tensor]:
        """Past inputs of the convolution ``[B, E, kernel - 1]`` and states ``[B, E, N]``."""
        make = self.skip.new_zeros
        return make(batch, self.inner, self.kernel - 1), make(batch, self.inner, self.state)

    def mixed(self, u: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The layer without norm and residual connection: outputs of ``u [B, T, D]``, and the state behind it."""
        past, h = state
        length = u.shape[1]
        u, gate = self.enter(u).chunk(2, -1)
        seen = torch.cat([past, u.transpose(1, 2)], 2)
        u = F.silu(self.local(seen)).transpose(1, 2)
        step, b, c = self.select(u).split([self.rank, self.state, self.state], -1)
        step = F.softplus(self.delta(step))
        decay = -step[..., None] * torch.exp(self.log_rate)
        drive = (step * u)[..., None] * b[:, :, None]
        if length == 1:
            h = torch.exp(decay[:, 0]) * h + drive[:, 0]
            states = h[:, None]
        else:
            states = selective_scan(decay, drive, h)
            h = states[:, -1]
        y = torch.einsum("bten,btn->bte", states, c) + self.skip * u
        return self.leave(y * F.silu(gate)), (seen[:, :, seen.shape[2] - self.kernel + 1 :], h)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Outputs of ``x [B, T, D]`` and the state behind it."""
        y, state = self.mixed(self.norm(x), state)
        return x + y, state


class Mamba(SequenceNetwork):
    """Stack of selective state space layers along any sequential order: linear time, constant memory per step.

    Args:
        width: features D.
        depth: layers.
        state, expand, kernel: of :class:`MambaBlock`.
        targets: as for :class:`SequenceNetwork`.
    """

    parallel_sets = False

    def __init__(
        self,
        width: int = 128,
        depth: int = 4,
        state: int = 16,
        expand: int = 2,
        kernel: int = 4,
        targets: bool = True,
    ):
        super().__init__(width, targets)
        self.depth, self.state, self.expand, self.kernel = depth, state, expand, kernel

    def build(self, space: Space) -> Mamba:
        super().build(space)
        self.blocks = nn.ModuleList(
            MambaBlock(self.width, self.state, self.expand, self.kernel) for _ in range(self.depth)
        )
        self.norm = RMSNorm(self.width)
        return self

    def initial(self, batch: int, order: Order) -> Any:
        return [block.initial(batch) for block in self.blocks if isinstance(block, MambaBlock)]

    def mix(
        self, inputs: Tensor, places: tuple[int, int], sites: Tensor, order: Order, state: Any
    ) -> tuple[Tensor, Any]:
        states = self.initial(inputs.shape[0], order) if state is None else state
        x, left = inputs, []
        for block, before in zip(self.blocks, states, strict=True):
            x, after = block(x, before)
            left.append(after)
        return self.norm(x), left


class Recurrent(SequenceNetwork):
    """Gated recurrent units (Cho et al. 2014, arXiv:1406.1078) along any sequential order.

    Args:
        width: features D, and hidden units.
        depth: layers.
        targets: as for :class:`SequenceNetwork`.
    """

    parallel_sets = False

    def __init__(self, width: int = 128, depth: int = 2, targets: bool = True):
        super().__init__(width, targets)
        self.depth = depth

    def build(self, space: Space) -> Recurrent:
        super().build(space)
        self.units = nn.GRU(self.width, self.width, self.depth, batch_first=True)
        return self

    def initial(self, batch: int, order: Order) -> Any:
        return self.first.new_zeros(self.depth, batch, self.width)

    def mix(
        self, inputs: Tensor, places: tuple[int, int], sites: Tensor, order: Order, state: Any
    ) -> tuple[Tensor, Any]:
        start = self.initial(inputs.shape[0], order) if state is None else state
        return self.units(inputs, start)
