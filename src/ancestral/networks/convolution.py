"""Gated dilated causal convolutions along the order (WaveNet: van den Oord et al. 2016, arXiv:1609.03499)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.networks.base import SequenceNetwork
from ancestral.order import Order
from ancestral.space import Space


class _Gate(nn.Module):
    """One dilated layer: ``tanh(W_f * x) sigmoid(W_g * x)``, with residual and skip outputs."""

    def __init__(self, width: int, kernel: int, dilation: int):
        super().__init__()
        self.kernel, self.dilation = kernel, dilation
        self.both = nn.Conv1d(width, 2 * width, kernel, dilation=dilation)
        self.told = nn.Conv1d(width, 2 * width, 1, bias=False)
        self.residual = nn.Conv1d(width, width, 1)
        self.skip = nn.Conv1d(width, width, 1)

    @property
    def reach(self) -> int:
        """Inputs before the present one that are seen."""
        return (self.kernel - 1) * self.dilation

    def forward(self, x: Tensor, told: Tensor, past: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs of ``x [B, D, T]`` behind ``past [B, D, reach]``: residual, skip, and the new past."""
        seen = torch.cat([past, x], 2)
        tanh, gate = (self.both(seen) + self.told(told)).chunk(2, 1)
        y = torch.tanh(tanh) * torch.sigmoid(gate)
        return x + self.residual(y), self.skip(y), seen[:, :, seen.shape[2] - self.reach :]


class GatedConvolution(SequenceNetwork):
    """WaveNet along any sequential order.

    The inputs (with what the model is told: class, vector or per-site condition) enter the first layer and, by a
    1 x 1 convolution of their own, every gate. State of incremental sampling: each layer's last inputs.

    Args:
        width: channels D.
        cycles: times that the dilations 1, 2, 4 ... are gone through.
        layers: dilations per cycle.
        kernel: taps of every convolution.
        targets: as for :class:`SequenceNetwork`.
    """

    parallel_sets = False

    def __init__(self, width: int = 64, cycles: int = 2, layers: int = 8, kernel: int = 2, targets: bool = True):
        super().__init__(width, targets)
        self.cycles, self.layers, self.kernel = cycles, layers, kernel

    def build(self, space: Space) -> GatedConvolution:
        super().build(space)
        self.gates = nn.ModuleList(
            _Gate(self.width, self.kernel, 2**layer) for _ in range(self.cycles) for layer in range(self.layers)
        )
        self.last = nn.Linear(self.width, self.width)
        return self

    @property
    def receptive_field(self) -> int:
        """Inputs that a prediction sees."""
        return 1 + self.cycles * (2**self.layers - 1) * (self.kernel - 1)

    def initial(self, batch: int, order: Order) -> Any:
        return [torch.zeros(batch, self.width, gate.reach, device=self.first.device) for gate in self._gates()]

    def _gates(self) -> list[_Gate]:
        return [gate for gate in self.gates if isinstance(gate, _Gate)]

    def mix(
        self, inputs: Tensor, places: tuple[int, int], sites: Tensor, order: Order, state: Any
    ) -> tuple[Tensor, Any]:
        pasts = self.initial(inputs.shape[0], order) if state is None else state
        told = inputs.transpose(1, 2)
        x, total, left = told, torch.zeros_like(told), []
        for gate, past in zip(self._gates(), pasts, strict=True):
            x, skip, past = gate(x, told, past)
            total = total + skip
            left.append(past)
        y = F.relu(self.last(F.relu(total.transpose(1, 2))))
        return y, left
