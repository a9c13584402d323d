"""Gated convolutions over the sites above and to the left (PixelCNN: van den Oord et al. 2016, arXiv:1606.05328)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.networks.base import Cache, ConditionEmbedding, Network, ValueEmbedding
from ancestral.order import Order
from ancestral.space import Condition, Space


def causal_taps(shape: tuple[int, ...], above: int, aside: int, centre: bool) -> Tensor:
    """Sites under a causal window at every site of a grid: int64 ``[N, T]``, N where the window leaves the grid.

    Args:
        shape: (height, width).
        above: rows above that are seen.
        aside: columns to either side that are seen.
        centre: whether the site itself belongs to its window.
    """
    height, width = shape
    offsets = [(-r, c) for r in range(above, 0, -1) for c in range(-aside, aside + 1)]
    offsets += [(0, c) for c in range(-aside, 1 if centre else 0)]
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    found = []
    for down, right in offsets:
        r, c = row + down, column + right
        inside = (r >= 0) & (c >= 0) & (c < width)
        found.append(torch.where(inside, r * width + c, height * width).reshape(-1))
    return torch.stack(found, 1)


def _under(x: Tensor, taps: Tensor) -> Tensor:
    """What stands under the windows ``taps [S, T]`` of ``x [B, N + 1, D]``: ``[B, S, T * D]``."""
    return x[:, taps.reshape(-1)].view(x.shape[0], taps.shape[0], -1)


def _edged(x: Tensor) -> Tensor:
    """``x [B, N, D]`` with a row of zeros behind, which stands for everything outside the grid."""
    return F.pad(x, (0, 0, 0, 1))


class _Layer(nn.Module):
    """A gated window of 2 x 3 sites, then (on small grids) a map from all sites before, each added to its input."""

    def __init__(self, width: int, taps: Tensor, dropout: float, groups: int):
        super().__init__()
        sites, window = taps.shape
        self.dropout, self.groups = dropout, groups
        self.taps: Tensor
        self.register_buffer("taps", taps, persistent=False)
        self.norm = nn.LayerNorm(width)
        self.both = nn.Linear(window * width, 2 * width)
        self.out = nn.Linear(width, width)
        if groups:
            self.mix_norm = nn.LayerNorm(width)
            self.take, self.give = nn.Linear(width, width), nn.Linear(width, width)
            self.mix = nn.Parameter(torch.randn(groups, sites, sites) * 0.02)
            self.before: Tensor
            self.register_buffer("before", torch.ones(sites, sites).tril(), persistent=False)

    def window(self, seen: Tensor, x: Tensor, told: Tensor, sites: Tensor) -> Tensor:
        """Outputs at ``sites [S]``, inputs ``x [B, S, D]``, from the normed inputs ``seen [B, N + 1, D]``."""
        value, gate = (self.both(_under(seen, self.taps[sites])) + told).chunk(2, -1)
        return x + self.out(F.dropout(F.gelu(value) * torch.sigmoid(gate), self.dropout, self.training))

    def mixed(self, seen: Tensor, x: Tensor, sites: Tensor) -> Tensor:
        """The map between sites, from :attr:`take` of the normed inputs of the first M sites, ``seen [B, M, D]``."""
        parts = seen.unflatten(-1, (self.groups, -1))
        weight = (self.mix[:, sites] * self.before[sites])[..., : seen.shape[1]]
        y = torch.einsum("gsn,bngd->bsgd", weight, parts).flatten(2)
        return x + self.give(F.dropout(y, self.dropout, self.training))

    def forward(self, x: Tensor, told: Tensor, sites: Tensor) -> Tensor:
        x = self.window(_edged(self.norm(x)), x, told, sites)
        return self.mixed(self.take(self.mix_norm(x)), x, sites) if self.groups else x


class CausalConvolution(Network):
    """PixelCNN: stacked windows over the sites before in raster order, gated, and steered by the class.

    All conditionals of an image are learned from one pass. On small grids every layer also has a triangular linear
    map over all sites before (one per group of channels), so that no window leaves a blind spot.

    Args:
        width: channels D, a multiple of 4.
        depth: layers.
        dropout: share of activations dropped in training.
        everywhere: triangular maps; by default on grids of at most 1,024 sites.

    Shapes:
        features float32 ``[B, H * W, D]``.
    """

    any_order = False
    parallel_sets = False

    def __init__(self, width: int = 40, depth: int = 5, dropout: float = 0.1, everywhere: bool | None = None):
        super().__init__()
        self.width, self.depth, self.dropout, self.everywhere = width, depth, dropout, everywhere

    def build(self, space: Space) -> CausalConvolution:
        if len(space.shape) != 2:
            raise ValueError(f"a convolution on a grid needs sites (height, width), these are {space.shape}")
        if self.width % 4:
            raise ValueError(f"width={self.width} must be a multiple of 4")
        self.space = space
        self.embed = ValueEmbedding(space, self.width)
        # Grey levels are ordered; their height enters beside their own vectors, so that rare levels are understood.
        self.height = nn.Linear(1, self.width) if space.ordinal and not space.event else None
        self.told = ConditionEmbedding(space, self.width, altered=True)
        self.steer = nn.Linear(self.width, 2 * self.width, bias=False)
        self.position = nn.Parameter(torch.randn(space.n, self.width) * 0.3)
        first = causal_taps(space.shape, 2, 2, centre=False)
        self.first_taps: Tensor
        self.register_buffer("first_taps", first, persistent=False)
        self.first = nn.Linear(first.shape[1] * self.width, self.width)
        everywhere = space.n <= 1024 if self.everywhere is None else self.everywhere
        taps = causal_taps(space.shape, 1, 1, centre=True)
        groups = 4 if everywhere else 0
        self.layers = nn.ModuleList(_Layer(self.width, taps, self.dropout, groups) for _ in range(self.depth))
        self.last = nn.LayerNorm(self.width)
        return self

    def check(self, order: Order) -> None:
        if not order.is_raster:
            raise ValueError("causal convolutions follow the raster order only; an any-order network takes others")

    def _embedded(self, values: Tensor, sites: Tensor) -> Tensor:
        x = self.embed(values, sites)
        if self.height is None:
            return x
        level = values.to(x.dtype) * (2 / max(self.space.largest - 1, 1)) - 1
        return x + self.height(level[..., None])

    def _inputs(self, seen: Tensor, sites: Tensor, condition: Condition | None) -> tuple[Tensor, Tensor]:
        """Inputs of the first layer at ``sites`` from embedded values ``[B, N + 1, D]``, and what steers the gates."""
        told = self.told(condition, sites, seen.shape[0])
        x = self.first(_under(seen, self.first_taps[sites])) + self.position[sites] + told
        return x, self.steer(told) if isinstance(told, Tensor) else x.new_zeros(())

    def forward(self, values: Tensor, order: Order, condition: Condition | None = None) -> Tensor:
        self.check(order)
        sites = torch.arange(self.space.n, device=values.device)
        x, told = self._inputs(_edged(self._embedded(values, sites)), sites, condition)
        for layer in self._layers():
            x = layer(x, told, sites)
        return self.last(x)

    def step(self, cache: Cache, last: Tensor | None = None) -> Tensor:
        self.record(cache, last)
        k = cache.next
        if cache.state is None:
            shape = (cache.batch, self.space.n + 1, self.width)
            cache.state = [torch.zeros(shape, device=cache.values.device) for _ in range(1 + 2 * self.depth)]
            sites = torch.arange(k + 1, device=cache.values.device)
        else:
            sites = torch.arange(k, k + 1, device=cache.values.device)
        behind = sites[:-1] if len(sites) > 1 else sites - 1
        embedded, *states = cache.state
        if k:
            embedded[:, behind] = self._embedded(cache.values[:, behind], behind)
        x, told = self._inputs(embedded, sites, cache.condition)
        for layer, window, mix in zip(self._layers(), states[::2], states[1::2], strict=True):
            window[:, sites] = layer.norm(x)
            x = layer.window(window, x, told, sites)
            if layer.groups:
                mix[:, sites] = layer.take(layer.mix_norm(x))
                x = layer.mixed(mix[:, : k + 1], x, sites)
        cache.next += 1
        return self.last(x[:, -1:])

    def _layers(self) -> list[_Layer]:
        return [layer for layer in self.layers if isinstance(layer, _Layer)]
