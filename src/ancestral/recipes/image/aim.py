"""AiM: autoregressive images with Mamba."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ancestral.heads.fitting import fitting
from ancestral.model import Model
from ancestral.networks import SequenceNetwork
from ancestral.networks.recurrent import MambaBlock
from ancestral.networks.transformer import RMSNorm
from ancestral.order import Order
from ancestral.recipes.registry import Claim, recipe
from ancestral.space import Condition, Space
from ancestral.tokenizers import Pixels


class GroupedMamba(SequenceNetwork):
    """Mamba layers whose norms the class shifts and scales, and whose outputs it gates, alike within a group.

    adaLN-group (Li et al. 2024): layer i takes the modulation of group ``i mod groups``; one group is
    adaLN-single, as many groups as layers is adaLN.

    Args:
        width, depth, state, heads: of the Mamba layers.
        groups: sets of shift, scale and gate.
    """

    parallel_sets = False

    def __init__(self, width: int, depth: int, state: int, groups: int, heads: int = 0):
        super().__init__(width, targets=True)
        self.depth, self.state, self.groups, self.heads = depth, state, groups, heads

    def build(self, space: Space) -> GroupedMamba:
        super().build(space)
        self.norms = nn.ModuleList(RMSNorm(self.width) for _ in range(self.depth))
        self.mixers = nn.ModuleList(MambaBlock(self.width, self.state, heads=self.heads) for _ in range(self.depth))
        for mixer in self.mixers:
            mixer.norm = nn.Identity()  # normalised and modulated before it
        self.modulate = nn.Linear(self.width, (3 * self.groups + 2) * self.width)
        nn.init.normal_(self.modulate.weight, std=0.2 / self.width**0.5)
        nn.init.zeros_(self.modulate.bias)
        self.norm = RMSNorm(self.width)
        return self

    def inputs(self, values: Tensor, order: Order, condition: Condition | None, begin: int, end: int) -> Tensor:
        """The class token, then the values fed; behind each the class vector that modulates the layers: [B, T, 2 D]."""
        x = super().inputs(values, order, condition and condition.without_label(), begin, end)
        told = self.told(condition, order.permutation[..., begin:end], x.shape[0]) + torch.zeros_like(x)
        if begin == 0:
            x = torch.cat([x[:, :1] + told[:, :1], x[:, 1:]], 1)
        return torch.cat([x, told], -1)

    def initial(self, batch: int, order: Order) -> Any:
        return [mixer.initial(batch) for mixer in self.mixers if isinstance(mixer, MambaBlock)]

    def mix(
        self, inputs: Tensor, places: tuple[int, int], sites: Tensor, order: Order, state: Any
    ) -> tuple[Tensor, Any]:
        x, told = inputs.chunk(2, -1)
        *groups, shift, scale = self.modulate(nn.functional.silu(told)).chunk(3 * self.groups + 2, -1)
        before = self.initial(inputs.shape[0], order) if state is None else state
        after = []
        for layer, (norm, mixer) in enumerate(zip(self.norms, self.mixers, strict=True)):
            a, b, gate = groups[3 * (layer % self.groups) :][:3]
            u = norm(x) * (1 + b) + a
            y, left = mixer(u, before[layer])
            x = x + (1 + gate) * (y - u)  # the layer adds its input itself
            after.append(left)
        return self.norm(x) * (1 + scale) + shift, after


@recipe(
    "aim",
    title="Scalable Autoregressive Image Generation with Mamba",
    paper="arXiv:2408.12245",
    authors="Li, Yang, Wang, Qiu, Chou, Li, Li (2024)",
    differs_from="gpt",
    tiny=dict(width=16, depth=2, state=4, groups=2),
    toy="grid",
    claim=Claim("as good as causal transformers of equal size, at constant memory and time per step"),
)
def aim(width: int = 64, depth: int = 4, state: int = 16, groups: int = 4, heads: int = 0) -> Model:
    """Next-pixel prediction in raster order by selective state spaces, without scans in further directions.

    Learned positions tell the network where in the image it is; the class is the token that comes first, and by
    adaLN-group shifts, scales and gates each layer. Sampling carries a state of constant size instead of keys and
    values.

    Layers are Mamba's, or with ``heads`` decay by a scalar per head as in Mamba-2, and gates begin at 1. On pixels,
    each with its colours in turn; the paper's tokens are those of a VQ autoencoder.

    Reference:
        Li et al. Scalable autoregressive image generation with Mamba. 2024, arXiv:2408.12245.

    Args:
        width, depth: of the network.
        state: numbers that every inner channel remembers.
        groups: of layers that share a modulation by the class.
        heads: that share a decay, a divisor of ``2 * width``; 0 decays every number by its own.
    """
    network = GroupedMamba(width, depth, state, groups, heads)
    return Model(Pixels(), "raster", network, fitting(), training=dict(lr=2e-3, batch_size=64))
