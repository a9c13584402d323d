"""Orders: which sites are drawn together, and after which others.

An order is an integer *rank* per site. Sites of equal rank form a set; the sets are drawn by increasing rank,
each given all values of lower rank: ``p(x) = prod_k p(x[rank == k] | x[rank < k])``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ancestral.space import Space


class Order:
    """A rank for every site, shared by a batch or one row per item.

    Args:
        rank: integers ``[N]``, or ``[B, N]`` for an order per item; only their sequence matters, they are
            renumbered 0, 1, 2, ... Every item of a batch must have the same set sizes (its k-th set as large
            as the others' k-th sets), so that a batch moves in step.

    Raises:
        ValueError: no sites, not integers, or set sizes that differ between items.
    """

    def __init__(self, rank: Tensor | Sequence[int]):
        rank = torch.as_tensor(rank)
        if rank.is_floating_point() or rank.dim() not in (1, 2) or rank.shape[-1] == 0:
            raise ValueError(f"ranks must be integers of shape [N] or [B, N] with N > 0, got {tuple(rank.shape)}")
        rank = rank.to(torch.int64)
        rows = rank if rank.dim() == 2 else rank[None]
        self.permutation = torch.argsort(rank, dim=-1, stable=True)
        ordered = torch.gather(rows, 1, self.permutation.reshape(rows.shape))
        new = torch.cat([torch.zeros_like(ordered[:, :1]), (ordered[:, 1:] != ordered[:, :-1]).long()], 1)
        places = new.cumsum(1)
        if rows.shape[0] > 1 and not bool((places == places[:1]).all()):
            raise ValueError("all items of a batch need the same set sizes; draw such items in batches of their own")
        self.set_of_place = places[0]
        """int64 ``[N]``: the set that each place of the sequence belongs to (the same for every item)."""
        dense = torch.zeros_like(rows).scatter_(1, self.permutation.reshape(rows.shape), places)
        self.rank = dense.reshape(rank.shape)
        """int64 ``[N]`` or ``[B, N]``: renumbered ranks."""

    def __repr__(self) -> str:
        return f"Order({self.n} sites in {self.n_sets} sets{', per item' if self.batched else ''})"

    # -- what it looks like

    @property
    def n(self) -> int:
        """Number of sites N."""
        return self.rank.shape[-1]

    @property
    def batched(self) -> bool:
        """Whether every item has an order of its own."""
        return self.rank.dim() == 2

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of sites of every set."""
        return tuple(torch.bincount(self.set_of_place).tolist())

    @property
    def n_sets(self) -> int:
        """Number of sets: the forward passes of ancestral sampling."""
        return len(self.sizes)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First place of every set, and N at the end."""
        total = [0]
        for size in self.sizes:
            total.append(total[-1] + size)
        return tuple(total)

    @cached_property
    def sets(self) -> tuple[Tensor, ...]:
        """Sites of every set: int64 ``[S_k]`` each, or ``[B, S_k]``."""
        return tuple(self.permutation[..., a:b] for a, b in zip(self.starts, self.starts[1:]))

    @property
    def sequential(self) -> bool:
        """Whether every set is a single site."""
        return self.n_sets == self.n

    @cached_property
    def is_raster(self) -> bool:
        """Whether sites are drawn one by one in their own numbering."""
        return self.sequential and bool((self.rank == torch.arange(self.n, device=self.rank.device)).all())

    @cached_property
    def feed(self) -> Tensor:
        """Place whose value is the input at every place, int64 ``[N]``, -1 in the first set.

        The j-th site of a set is fed the matching site of the set before (parallel decoding: Wang et al. 2024,
        arXiv:2412.15119); for single-site sets this is the previous site.

        Raises:
            ValueError: a set is smaller than the one before, so that a value would never be fed.
        """
        out = [-1] * self.sizes[0]
        for k in range(1, self.n_sets):
            before, size = self.sizes[k - 1], self.sizes[k]
            if size < before:
                raise ValueError(
                    f"a single-stream network cannot follow an order whose set {k} ({size} sites) is smaller than "
                    f"set {k - 1} ({before} sites); use a query-stream or masked network"
                )
            out += [self.starts[k - 1] + j * before // size for j in range(size)]
        return torch.tensor(out, dtype=torch.int64)

    @cached_property
    def places(self) -> Tensor:
        """Place of every site in the sequence, int64 ``[N]`` or ``[B, N]``: the inverse of ``permutation``."""
        return torch.argsort(self.permutation, dim=-1)

    def before(self) -> Tensor:
        """bool ``[N, N]`` or ``[B, N, N]``: entry (i, j) says that site i is drawn given site j."""
        return self.rank[..., None, :] < self.rank[..., :, None]

    # -- orders from orders

    def to(self, device: torch.device | str) -> Order:
        """The same order with its ranks on another device."""
        return self if self.rank.device == torch.device(device) else Order(self.rank.to(device))

    def expand(self, batch: int) -> Order:
        """The same order with a row per item."""
        return self if self.batched else Order(self.rank.expand(batch, self.n))

    def items(self, index: Tensor | slice) -> Order:
        """The orders of some items of the batch; a shared order is returned as it is."""
        return Order(self.rank[index]) if self.batched else self

    def given(self, known: Tensor) -> Order:
        """The order in which the known sites come first, one by one, and the others follow as before.

        Args:
            known: bool ``[N]`` or ``[B, N]``.

        Raises:
            ValueError: items of a batch differ in the set sizes that result.
        """
        rank, known = torch.broadcast_tensors(self.rank, known)
        sites = torch.arange(self.n, device=rank.device)
        return Order(torch.where(known, rank * self.n + sites, self.n * self.n + rank))

    def one_by_one(self) -> Order:
        """The same order with ties broken by site number: every set a single site."""
        return Order(self.rank * self.n + torch.arange(self.n, device=self.rank.device))

    # -- constructors

    @classmethod
    def raster(cls, n: int) -> Order:
        """Site by site in their own numbering: next-token prediction."""
        return cls(torch.arange(n))

    @classmethod
    def reverse(cls, n: int) -> Order:
        """Last site first."""
        return cls(torch.arange(n).flip(0))

    @classmethod
    def random(cls, n: int, seed: int = 0, batch: int | None = None) -> Order:
        """A uniformly drawn permutation, or one per item of a batch."""
        generator = torch.Generator().manual_seed(seed)
        return cls(torch.argsort(torch.rand(n if batch is None else (batch, n), generator=generator), -1))  # type: ignore[arg-type]

    @classmethod
    def single(cls, n: int) -> Order:
        """All sites at once: independent given the condition."""
        return cls(torch.zeros(n, dtype=torch.int64))

    @classmethod
    def scales(cls, scales: Sequence[int | tuple[int, int]]) -> Order:
        """A pyramid: each map of sites at once, given all coarser maps (VAR: Tian et al. 2024, arXiv:2404.02905).

        Args:
            scales: side (or height and width) of every map, coarsest first; N is the total number of sites.
        """
        if not scales:
            raise ValueError("a pyramid needs at least one scale")
        return cls(torch.cat([torch.full((h * w,), k) for k, (h, w) in enumerate(map(_pair, scales))]))

    @classmethod
    def frequency(cls, height: int, width: int, parallel: bool = False) -> Order:
        """Low to high frequency on a grid of DCT coefficients: JPEG's zig-zag, or its diagonals as sets."""
        v, u = _grid(height, width)
        diagonal = u + v
        if parallel:
            return cls(diagonal.reshape(-1))
        along = torch.where(diagonal % 2 == 0, u, v)
        return cls((diagonal * (height + width) + along).reshape(-1))

    @classmethod
    def neighbour(cls, *shape: int) -> Order:
        """By Manhattan distance from the first corner (NAR: He et al. 2025, arXiv:2503.10696)."""
        if not shape:
            raise ValueError("give the grid's size along at least one axis")
        axes = torch.meshgrid(*[torch.arange(s) for s in shape], indexing="ij")
        return cls(torch.stack(list(axes)).sum(0).reshape(-1))

    @classmethod
    def cells(cls, height: int, width: int, cell: int) -> Order:
        """Cells of ``cell x cell`` sites at once, cells in raster order (xAR: Ren et al. 2025, arXiv:2502.20388)."""
        _positive(cell=cell)
        v, u = _grid(height, width)
        columns = -(-width // cell)
        return cls(((v // cell) * columns + u // cell).reshape(-1))

    @classmethod
    def subsamples(cls, height: int, width: int, stride: int) -> Order:
        """Sites ``stride`` apart at once, one such subsample after the other (xAR: Ren et al. 2025)."""
        _positive(stride=stride)
        v, u = _grid(height, width)
        return cls(((v % stride) * stride + u % stride).reshape(-1))

    @classmethod
    def parallel(cls, height: int, width: int, regions: int) -> Order:
        """Distant sites together (PAR: Wang et al. 2024, arXiv:2412.15119).

        The grid is cut into ``regions x regions`` regions. Their first sites are drawn one by one; then one site
        of every region at a time, the regions running in raster order alongside each other.

        Raises:
            ValueError: the grid cannot be cut evenly.
        """
        _positive(regions=regions)
        if height % regions or width % regions:
            raise ValueError(f"a {height} x {width} grid cannot be cut into {regions} x {regions} equal regions")
        v, u = _grid(height, width)
        h, w = height // regions, width // regions
        region, local = (v // h) * regions + u // w, (v % h) * w + u % w
        return cls(torch.where(local == 0, region, regions * regions + local).reshape(-1))

    @classmethod
    def masks(cls, n: int, steps: int, seed: int = 0, batch: int | None = None) -> Order:
        """Random sets on the cosine schedule (MaskGIT: Chang et al. 2022, arXiv:2202.04200)."""
        _positive(steps=steps)
        order = cls.random(n, seed, batch)
        return cls(cosine_sets(n, steps)[order.rank])

    @classmethod
    def frames(cls, frames: int, sites: int) -> Order:
        """All ``sites`` of a frame at once, frame by frame."""
        return cls(torch.arange(frames).repeat_interleave(sites))

    @classmethod
    def hilbert(cls, height: int, width: int) -> Order:
        """Along the Hilbert curve of the smallest power-of-two square that holds the grid."""
        side = 1 << max(height - 1, width - 1, 0).bit_length()
        v, u = _grid(height, width)
        x, y, index = u.clone(), v.clone(), torch.zeros_like(u)
        step = side // 2
        while step:
            right, low = (x & step > 0).long(), (y & step > 0).long()
            index += step * step * ((3 * right) ^ low)
            flip = (low == 0) & (right == 1)
            x, y = (
                torch.where(flip, step - 1 - (x & (step - 1)), x & (step - 1)),
                torch.where(flip, step - 1 - (y & (step - 1)), y & (step - 1)),
            )
            swap = low == 0
            x, y = torch.where(swap, y, x), torch.where(swap, x, y)
            step //= 2
        return cls(index.reshape(-1))


def _pair(scale: int | tuple[int, int]) -> tuple[int, int]:
    return (scale, scale) if isinstance(scale, int) else scale


def _positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}={size} must be at least 1")


def _grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return v, u


def scheduled_sets(n: int, steps: int, schedule: Literal["cosine", "arccos"] = "cosine") -> Tensor:
    """Set of the k-th drawn site under a masking schedule: int64 ``[n]``, nondecreasing, every set non-empty.

    After step t of T a share ``cos(pi/2 * t/T)``, or ``2/pi * arccos(t/T)``, of the sites is still masked (Chang et al.
    2022, arXiv:2202.04200).
    """
    steps = min(steps, n)

    def masked(done: float) -> float:
        return math.cos(math.pi / 2 * done) if schedule == "cosine" else math.acos(done) / (math.pi / 2)

    ends = [n - math.floor(n * masked((t + 1) / steps) + 1e-9) for t in range(steps)]
    for t in range(steps):  # at least one site a step, and room left for the steps to come
        low = (ends[t - 1] if t else 0) + 1
        ends[t] = min(max(ends[t], low), n - (steps - 1 - t))
    return torch.searchsorted(torch.tensor(ends), torch.arange(n), right=True)


def cosine_sets(n: int, steps: int) -> Tensor:
    """:func:`scheduled_sets` on the cosine schedule."""
    return scheduled_sets(n, steps)


class OrderPolicy:
    """Which order an item is given: always the same one, or one drawn at random.

    ``draw`` is a pure function of uniform numbers, so that an item's order depends on its own seed only.
    """

    any_order = False
    """Whether training sees all orders to the end, so that any subset of sites can be conditioned on."""

    def build(self, space: Space) -> OrderPolicy:
        """Fix the number and arrangement of the sites; returns self."""
        self.space = space
        return self

    def draw(self, uniforms: Tensor, progress: float = 1.0) -> Order:
        """An order from uniforms in (0, 1), float ``[B, N + 1]``; ``progress`` is the share of training done."""
        raise NotImplementedError("an order policy defines draw")

    def scoring(self) -> Order:
        """The one order under which exact scores are stated and data are coded."""
        raise NotImplementedError("an order policy defines scoring")


NAMED: dict[str, Callable[[Space], Order]] = {
    "raster": lambda space: Order.raster(space.n),
    "reverse": lambda space: Order.reverse(space.n),
    "single": lambda space: Order.single(space.n),
    "neighbour": lambda space: Order.neighbour(*space.shape),
    "frequency": lambda space: Order.frequency(*space.grid),
    "hilbert": lambda space: Order.hilbert(*space.grid),
    "frames": lambda space: Order.frames(space.shape[0], space.n // space.shape[0]),
    "scales": lambda space: Order(space.positions()[:, 0].long()),
}
"""Orders that a space determines alone, by name."""


def resolve(order: str | Order | Callable[[Space], Order], space: Space) -> Order:
    """An order for ``space`` from a name, a function of the space, or an order.

    Raises:
        ValueError: unknown name, or an order over another number of sites.
    """
    if isinstance(order, str):
        if order not in NAMED:
            raise ValueError(f"unknown order {order!r}; choose from {', '.join(NAMED)} or give an Order")
        order = NAMED[order]
    found = order if isinstance(order, Order) else order(space)
    if found.n != space.n:
        raise ValueError(f"the order has {found.n} sites, the data {space.n}; build the order from the data's shape")
    return found


class FixedOrder(OrderPolicy):
    """Every item in the same order: a name, an :class:`Order`, or a function of the space."""

    def __init__(self, order: str | Order | Callable[[Space], Order] = "raster"):
        self.order = order

    def build(self, space: Space) -> FixedOrder:
        super().build(space)
        self.fixed = resolve(self.order, space)
        return self

    def draw(self, uniforms: Tensor, progress: float = 1.0) -> Order:
        return self.fixed.to(uniforms.device)

    def scoring(self) -> Order:
        return self.fixed


class RandomOrders(OrderPolicy):
    """A uniformly random permutation per item; scores are stated for one fixed order.

    Args:
        base: the order that scores are stated for, and that a draw keeps when it is not permuted.
        probability: chance that an item is permuted; ``anneal=(a, b)`` lowers it linearly from 1 to 0 while
            training progresses from a to b (RAR: Yu et al. 2024, arXiv:2411.00776).
    """

    def __init__(
        self,
        base: str | Order | Callable[[Space], Order] = "raster",
        probability: float = 1.0,
        anneal: tuple[float, float] | None = None,
    ):
        self.base, self.probability, self.anneal = base, probability, anneal
        self.any_order = anneal is None and probability > 0

    def build(self, space: Space) -> RandomOrders:
        super().build(space)
        self.fixed = resolve(self.base, space)
        return self

    def draw(self, uniforms: Tensor, progress: float = 1.0) -> Order:
        chance = self.probability
        if self.anneal is not None:
            begin, end = self.anneal
            chance *= min(1.0, max(0.0, (end - progress) / max(end - begin, 1e-9)))
        if chance <= 0.0:
            return self.fixed.to(uniforms.device)
        keys = uniforms[:, 1:]
        if self.space.groups:
            keys = keys.clone()
            for group in self.space.groups:  # ties are broken by the sequence within the group
                steps = torch.arange(len(group), device=keys.device, dtype=keys.dtype)
                keys[:, list(group)] = keys[:, group[0], None] + 1e-12 * steps
        drawn = torch.argsort(torch.argsort(keys, -1), -1) if self.space.groups else torch.argsort(keys, -1)
        if chance >= 1.0:
            return Order(drawn)
        permuted = uniforms[:, :1] < chance
        return Order(torch.where(permuted, drawn, self.fixed.to(uniforms.device).one_by_one().rank))

    def scoring(self) -> Order:
        return self.fixed


class RandomMasks(OrderPolicy):
    """Random sets on the cosine schedule, an own draw per item (MaskGIT: Chang et al. 2022, arXiv:2202.04200).

    Args:
        steps: number of sets; None draws the sites one by one.
    """

    any_order = True

    def __init__(self, steps: int | None = None):
        self.steps = steps

    def draw(self, uniforms: Tensor, progress: float = 1.0) -> Order:
        drawn = torch.argsort(torch.argsort(uniforms[:, 1:], -1), -1)
        if self.steps is None:
            return Order(drawn)
        return Order(cosine_sets(self.space.n, self.steps).to(drawn.device)[drawn])

    def scoring(self) -> Order:
        if self.steps is None:
            return Order.random(self.space.n)
        return Order.masks(self.space.n, self.steps)
