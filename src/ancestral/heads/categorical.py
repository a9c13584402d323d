"""Heads for finitely many values: free logits, and mixtures of logistics for ordered ones."""

from __future__ import annotations

import math
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral import native
from ancestral.heads.base import Finite, Head, needs_one_category
from ancestral.networks.fused import linear_log_prob
from ancestral.space import Space


class Categorical(Head):
    """A free probability for every category.

    With one size for all sites a single linear map serves them all; with a size per site every site has a map
    of its own, and categories beyond a site's size get probability 0.

    Args:
        per_site: give every site its own bias (True by default for grids of a fixed size up to 4,096 sites).
    """

    def __init__(self, per_site: bool | None = None):
        super().__init__()
        self.per_site = per_site

    def build(self, space: Space, width: int) -> Categorical:
        needs_one_category(space)
        self.space = space
        self.own = isinstance(space.sizes, tuple)
        k = space.largest
        if self.own:
            self.weight = nn.Parameter(torch.randn(space.n, k, width) * (0.5 / math.sqrt(width)))
            self.bias = nn.Parameter(torch.zeros(space.n, k))
            absent = torch.arange(k) >= space.site_sizes()[:, None]
            self.absent: Tensor
            self.register_buffer("absent", absent, persistent=False)
        else:
            self.weight = nn.Parameter(torch.randn(k, width) * (0.5 / math.sqrt(width)))
            local = self.per_site if self.per_site is not None else space.n <= 4096 and space.stop is None
            self.bias = nn.Parameter(torch.zeros(space.n, k) if local else torch.zeros(k))
        return self

    def forward(self, features: Tensor, sites: Tensor) -> Finite:
        if not self.own:
            return LinearFinite(features, self.weight, self.bias, sites if self.bias.dim() == 2 else None)
        if sites.dim() == 1:
            logits = torch.einsum("bsd,skd->bsk", features, self.weight[sites])
        else:
            logits = features.new_zeros(*features.shape[:2], self.weight.shape[1])
            for site in torch.unique(sites).tolist():
                here = sites == site
                logits[here] = F.linear(features[here], self.weight[site])
        return Finite((logits + self.bias[sites]).masked_fill(self.absent[sites], float("-inf")))


class LinearFinite(Finite):
    """Categories whose logits are a linear map of the features, made when they are asked for.

    Args:
        features: float ``[B, S, D]``.
        weight: float ``[K, D]``.
        bias: float ``[K]``, or ``[N, K]`` with a row per site.
        sites: rows of the bias, ``[S]`` or ``[B, S]``; None for a shared one.
    """

    def __init__(self, features: Tensor, weight: Tensor, bias: Tensor, sites: Tensor | None):
        self.parts = features, weight, bias, sites

    @cached_property
    def logits(self) -> Tensor:  # type: ignore[override]
        features, weight, bias, sites = self.parts
        if sites is None:
            return native.linear(features, weight, bias)
        return native.linear(features, weight) + bias[sites]

    def log_prob(self, values: Tensor) -> Tensor:
        return linear_log_prob(*self.parts, values)


class LogisticMixture(Head):
    """Mixture of discretised logistics over ordered levels ``0 .. K - 1``.

    Levels are the points ``2 k / (K - 1) - 1``; a level's probability is the logistic mass of the half-open
    bin around it, the outermost bins reaching to infinity (PixelCNN++: Salimans et al. 2017,
    arXiv:1701.05517).

    Args:
        components: logistics mixed at every site.
    """

    def __init__(self, components: int = 5):
        super().__init__()
        self.components = components

    def build(self, space: Space, width: int) -> LogisticMixture:
        needs_one_category(space, ordered=True)
        if not isinstance(space.sizes, int):
            raise ValueError("a logistic mixture needs the same levels at every site; use Categorical")
        if space.sizes < 2:
            raise ValueError("a logistic mixture needs at least two levels; use Categorical")
        self.levels = space.sizes
        self.project = nn.Linear(width, 3 * self.components)
        nn.init.normal_(self.project.weight, std=0.1 / math.sqrt(width))
        with torch.no_grad():
            bias = self.project.bias.view(3, self.components)
            bias[0] = 0.0
            bias[1] = torch.linspace(-0.9, 0.9, self.components)
            bias[2] = math.log(0.3)
        edges = 2 * (torch.arange(self.levels + 1, dtype=torch.float32) - 0.5) / max(self.levels - 1, 1) - 1
        edges[0], edges[-1] = float("-inf"), float("inf")
        self.edges: Tensor
        self.register_buffer("edges", edges, persistent=False)
        return self

    def forward(self, features: Tensor, sites: Tensor) -> Finite:
        weight, mean, scale = self.project(features).chunk(3, -1)
        inverse = torch.exp(-scale.clamp(-7.0, 40.0))
        # log(sigmoid(b) - sigmoid(a)) = log(sigmoid(b)) + log1p(-exp(a - b)) - softplus(a), b > a: stable
        # everywhere, but for the two infinite edges, whose terms are taken out by hand. The gap b - a is the width
        # of a bin: as a difference of z it would vanish beside a large mean.
        z = (self.edges[1:-1] - mean[..., None]) * inverse[..., None]  # [B, S, M, K - 1]
        low, high = z[..., :-1], z[..., 1:]
        gap = (2 / (self.levels - 1)) * inverse[..., None]
        middle = F.logsigmoid(high) + torch.log(-torch.expm1(-gap)) - F.softplus(low)
        log_bins = torch.cat([F.logsigmoid(z[..., :1]), middle, F.logsigmoid(-z[..., -1:])], -1)
        return Finite(torch.logsumexp(log_bins + F.log_softmax(weight, -1)[..., None], -2))
