"""A head per direction: neighbours that predict the same site average their logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ancestral.heads.base import Finite, Head, needs_one_category
from ancestral.networks.frontier import predecessors
from ancestral.space import Space


class Directions(Head):
    """One linear map to logits per axis of the grid (NAR: He et al. 2025, arXiv:2503.10696).

    Features hold one part per axis, the output of the decoded neighbour before the site along it
    (:class:`ancestral.networks.frontier.FrontierTransformer`); the logits of the neighbours that exist are averaged.
    The first site has no neighbour and takes the first axis's map of a start token.
    """

    def build(self, space: Space, width: int) -> Directions:
        needs_one_category(space)
        if not isinstance(space.sizes, int):
            raise ValueError("direction heads need the same categories at every site")
        axes = len(space.shape)
        part = width // axes
        self.weight = nn.Parameter(torch.randn(axes, space.sizes, part) * (0.5 / math.sqrt(part)))
        self.bias = nn.Parameter(torch.zeros(axes, space.sizes))
        there = (predecessors(space.shape) >= 0).float()
        there[0, 0] = 1.0
        self.share: Tensor
        self.register_buffer("share", there / there.sum(1, keepdim=True), persistent=False)
        return self

    def forward(self, features: Tensor, sites: Tensor) -> Finite:
        parts = features.unflatten(-1, (self.weight.shape[0], -1))
        logits = torch.einsum("bsap,akp->bsak", parts, self.weight) + self.bias
        return Finite((logits * self.share[sites][..., None]).sum(-2))
