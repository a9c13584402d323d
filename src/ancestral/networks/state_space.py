"""State space duality, and stacks of state space layers that the class modulates."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.networks.base import SequenceNetwork
from ancestral.networks.recurrent import MambaBlock
from ancestral.networks.transformer import RMSNorm
from ancestral.order import Order
from ancestral.space import Condition, Space


def dual_scan(decay: Tensor, drive: Tensor, write: Tensor, read: Tensor, start: Tensor, chunk: int = 64) -> Any:
    """``h_t = exp(decay_t) h_{t-1} + drive_t write_t^T`` and ``y_t = h_t read_t``, chunk by chunk.

    Within a chunk the recurrence is a masked attention of ``read`` to ``write`` (structured state space duality: Dao
    and Gu 2024, arXiv:2405.21060); between chunks the state is handed on. Linear in T; no division by a decay.

    Args:
        decay: logarithm of the decay, at most 0, ``[B, T, H]``.
        drive: ``[B, T, H, P]``.
        write, read: ``[B, T, H, N]``.
        start: state before the first, ``[B, H, P, N]``.
        chunk: places solved together.

    Returns:
        outputs ``[B, T, H, P]`` and the last state ``[B, H, P, N]``.
    """
    out = []
    for a in range(0, decay.shape[1], chunk):
        span = slice(a, a + chunk)
        total = decay[:, span].cumsum(1).transpose(1, 2)  # [B, H, L]
        u, b, c = (part[:, span].transpose(1, 2) for part in (drive, write, read))  # [B, H, L, P or N]
        length = total.shape[2]
        later = torch.ones(length, length, dtype=torch.bool, device=total.device).triu(1)
        between = (total[..., :, None] - total[..., None, :]).masked_fill(later, -math.inf).exp()
        y = (c @ b.mT * between) @ u + total.exp()[..., None] * (c @ start.mT)
        left = (total[..., -1:] - total).exp()[..., None]
        start = total[..., -1, None, None].exp() * start + (left * u).mT @ b
        out.append(y.transpose(1, 2))
    return torch.cat(out, 1), start


class Mamba2Block(nn.Module):
    """Mamba-2 layer (Dao and Gu 2024, arXiv:2405.21060) with its residual connection.

    Args:
        width: features D.
        state: numbers N that every inner channel remembers.
        expand: inner channels per feature.
        kernel: taps of the causal convolution before the scan.
        heads: that decay by one number each; a divisor of the inner channels.
        shared: sets of what is written and read, each of which serves several heads.
        eps: of the norms.
    """

    def __init__(
        self,
        width: int,
        state: int = 128,
        expand: int = 2,
        kernel: int = 4,
        heads: int = 8,
        shared: int = 1,
        eps: float = 1e-5,
    ):
        super().__init__()
        inner = expand * width
        if heads < 1 or inner % heads or heads % shared:
            raise ValueError(f"{inner} inner channels cannot be shared by {heads} heads; choose a divisor")
        self.inner, self.state, self.kernel, self.heads = inner, state, kernel, heads
        self.shared, self.eps = shared, eps
        self.convolved = inner + 2 * shared * state
        self.norm = RMSNorm(width, eps)
        self.enter = nn.Linear(width, inner + self.convolved + heads, bias=False)
        self.local = nn.Conv1d(self.convolved, self.convolved, kernel, groups=self.convolved)
        self.log_rate = nn.Parameter(torch.linspace(1, 16, heads).log())
        self.skip = nn.Parameter(torch.ones(heads))
        self.gain = nn.Parameter(torch.ones(inner))
        self.leave = nn.Linear(inner, width, bias=False)
        # Steps between 0.001 and 0.1 at the beginning, as in Mamba.
        step = torch.exp(torch.rand(heads) * (math.log(0.1) - math.log(0.001)) + math.log(0.001))
        self.delta = nn.Parameter(step + torch.log(-torch.expm1(-step)))

    def initial(self, batch: int) -> tuple[Tensor, Tensor]:
        """Past inputs of the convolution ``[B, E, kernel - 1]`` and states ``[B, H, P, N]``."""
        make = self.skip.new_zeros
        held = (batch, self.heads, self.inner // self.heads, self.state)
        return make(batch, self.convolved, self.kernel - 1), make(*held)

    def mixed(self, u: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The layer without norm and residual connection: outputs of ``u [B, T, D]``, and the state behind it."""
        past, h = state
        batch, t = u.shape[:2]
        gate, seen, step = self.enter(u).split([self.inner, self.convolved, self.heads], -1)
        seen = torch.cat([past, seen.transpose(1, 2)], 2)
        x = F.silu(self.local(seen)).transpose(1, 2)
        sizes = [self.inner, self.shared * self.state, self.shared * self.state]
        x, write, read = x.split(sizes, -1)
        x = x.view(batch, t, self.heads, -1)
        each = self.heads // self.shared
        write, read = (part.unflatten(-1, (self.shared, -1)).repeat_interleave(each, 2) for part in (write, read))
        step = F.softplus(step + self.delta)
        y, h = dual_scan(-step * self.log_rate.exp(), step[..., None] * x, write, read, h)
        y = (y + self.skip[:, None] * x).reshape(batch, t, self.inner) * F.silu(gate)
        y = F.rms_norm(y.unflatten(-1, (self.shared, -1)), (self.inner // self.shared,), eps=self.eps).flatten(-2)
        return self.leave(y * self.gain), (seen[:, :, seen.shape[2] - self.kernel + 1 :], h)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Outputs of ``x [B, T, D]`` and the state behind it."""
        y, state = self.mixed(self.norm(x), state)
        return x + y, state


class GroupedMamba(SequenceNetwork):
    """Mamba layers whose inputs the class shifts and scales, and whose outputs it gates, alike within a group.

    adaLN-group (AiM: Li et al. 2024, arXiv:2408.12245): layer i takes the modulation of group ``i mod groups`` and adds
    its own constants; one group is adaLN-single, as many groups as layers is adaLN. The class is the first token too.

    Args:
        width, depth: of the network.
        state: numbers that every inner channel remembers.
        groups: sets of shift, scale and gate.
        heads: of the Mamba-2 layers; 0 for layers of the first Mamba.
        expand, kernel, shared: of the layers.
        offset: how much further than in training the fed values' places are numbered when drawing; not 0 in one
            published sampler only.
    """

    parallel_sets = False

    def __init__(
        self,
        width: int,
        depth: int,
        state: int,
        groups: int,
        heads: int = 0,
        expand: int = 2,
        kernel: int = 4,
        shared: int = 1,
        offset: int = 0,
    ):
        super().__init__(width, targets=True, prefix=True)
        self.depth, self.groups, self.offset = depth, groups, offset
        self.sizes = {"state": state, "expand": expand, "kernel": kernel}
        self.shared = {"heads": heads, "shared": shared} if heads else {}

    def build(self, space: Space) -> GroupedMamba:
        super().build(space)
        make = Mamba2Block if self.shared else MambaBlock
        self.blocks = nn.ModuleList(make(self.width, **self.sizes, **self.shared, eps=1e-5) for _ in range(self.depth))
        self.modulate = nn.Linear(self.width, 3 * self.groups * self.width)
        # Shift, scale and gate of every layer by itself; gates begin at 1.
        self.constants = nn.Parameter(torch.tensor([0.0, 0.0, 1.0])[:, None].repeat(self.depth, 1, self.width))
        self.last = nn.Linear(self.width, 2 * self.width)
        for layer in (self.modulate, self.last):
            nn.init.normal_(layer.weight, std=0.2 / self.width**0.5)
            nn.init.zeros_(layer.bias)
        self.norm, self.norm2 = RMSNorm(self.width, 1e-5), RMSNorm(self.width, 1e-5)
        return self

    def inputs(
        self, values: Tensor, order: Order, condition: Condition | None, begin: int, end: int, drawing: bool = False
    ) -> Tensor:
        """The class token, then the values fed; behind each the class vector that modulates the layers: [B, T, 2 D]."""
        x = super().inputs(values, order, condition, begin, end, drawing)
        told = self.told(condition, order.permutation[..., begin:end], x.shape[0])
        return torch.cat([x, told + torch.zeros_like(x)], -1)

    def initial(self, batch: int, order: Order) -> Any:
        return [block.initial(batch) for block in self.blocks if isinstance(block, (MambaBlock, Mamba2Block))]

    def mix(
        self, inputs: Tensor, places: tuple[int, int], sites: Tensor, order: Order, state: Any
    ) -> tuple[Tensor, Any]:
        x, told = inputs.chunk(2, -1)
        groups = self.modulate(F.silu(told)).unflatten(-1, (self.groups, 3, self.width)).unbind(2)
        before = self.initial(inputs.shape[0], order) if state is None else state
        after = []
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, (MambaBlock, Mamba2Block))
            shift, scale, gate = (groups[layer % self.groups] + self.constants[layer]).unbind(2)
            y, left = block.mixed(block.norm(x) * (1 + scale) + shift, before[layer])
            x = x + gate * y
            after.append(left)
        shift, scale = self.last(F.silu(told)).chunk(2, -1)
        return self.norm2(self.norm(x)) * (1 + scale) + shift, after
