"""A small network for tables: one running sum of what is known, and layers of its own for every column."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.networks.base import Cache, ConditionEmbedding, Network, ValueEmbedding, take
from ancestral.networks.dropout import dropped
from ancestral.order import Order
from ancestral.smooth import SmoothRows
from ancestral.space import Condition, Lexicon, Space


class Profile(nn.Module):
    """What the training rows that share a listed value have in common.

    A value that occurs a few times among thousands is too rare for an embedding of its own. Its vector is the mean,
    over up to ``neighbours`` training rows that have it, of learned embeddings of their other cells. In training
    the row itself is left out of its own neighbours. Once training is over (:meth:`settle`), the vectors are a
    table and the rows are forgotten.

    Args:
        space: sites and values.
        lexicon: the column with the listed values.
        width: of the vectors.
        neighbours: most rows that a vector is the mean of.
        speaks: float ``[N]``, 1 for the sites whose values mean something by themselves.
    """

    def __init__(self, space: Space, lexicon: Lexicon, width: int, neighbours: int, speaks: Tensor):
        super().__init__()
        self.coarse, self.entry = lexicon.sites[:2]
        sizes = space.site_sizes()
        self.entries = int(sizes[self.entry])
        self.slots = int(sizes[self.coarse]) * self.entries
        self.neighbours = neighbours
        self.embed = ValueEmbedding(space, width)
        nn.init.normal_(self.embed.table.weight, std=0.15)
        self.count = nn.Embedding(neighbours + 1, width)
        nn.init.normal_(self.count.weight, std=0.1)
        self.table: Tensor
        self.register_buffer("table", torch.zeros(self.slots, width))
        self._live: Tensor
        self.register_buffer("_live", speaks.nonzero()[:, 0], persistent=False)
        # Where every site has a part of the table, its rows begin here; 0 where all share one.
        starts = sizes.cumsum(0) - sizes if self.embed.offsets is not None else torch.zeros_like(sizes)
        self._starts: Tensor
        self.register_buffer("_starts", starts, persistent=False)
        self._everything = torch.zeros(0, space.n, dtype=torch.uint8)
        self._members: Tensor | None = None
        self._counts: Tensor | None = None

    def prepare(self, values: Tensor, held: Tensor) -> None:
        """Remember up to ``neighbours + 1`` rows of every listed value, out of int ``[n, N]``.

        Rows held out for validation become neighbours once training is over.
        """
        self._everything = torch.cat([values, held])
        self._remember(values)

    def _remember(self, values: Tensor) -> None:
        slot = values[:, self.coarse].long() * self.entries + values[:, self.entry].long()
        order = torch.argsort(slot, stable=True)
        counts = torch.bincount(slot, minlength=self.slots)
        place = torch.arange(len(slot)) - (counts.cumsum(0) - counts)[slot[order]]
        kept = place <= self.neighbours
        dtype = torch.uint8 if int(values.max()) < 256 else torch.int32
        members = torch.zeros(self.slots, self.neighbours + 1, values.shape[1], dtype=dtype)
        members[slot[order][kept], place[kept]] = values[order[kept]].to(dtype)
        self._members, self._counts = members, counts.clamp(max=self.neighbours + 1)

    def settle(self) -> None:
        """Write down all vectors and forget the rows."""
        if self._members is None:
            return
        self._remember(self._everything)
        with torch.no_grad():
            for part in torch.arange(self.slots).split(4096):
                self.table[part] = self._vectors(part.to(self.table.device), None)
        self._members = self._counts = None
        self._everything = self._everything[:0]

    @property
    def settled(self) -> Tensor | None:
        """The vectors of all listed values, float32 ``[slots, width]``; None before :meth:`settle`."""
        return self.table if self._members is None else None

    def slot(self, values: Tensor) -> Tensor:
        """Number of the listed value, int64 ``[B]``, of ``values`` ``[B, N]``."""
        return values[:, self.coarse] * self.entries + values[:, self.entry]

    def forward(self, values: Tensor) -> Tensor:
        """Vectors float32 ``[B, width]`` of the listed values of ``values`` ``[B, N]``."""
        if self._members is None:
            return self.table[self.slot(values)]
        return self._vectors(self.slot(values), values if self.training else None)

    def _vectors(self, slots: Tensor, own: Tensor | None) -> Tensor:
        assert self._members is not None and self._counts is not None
        at = slots.cpu()
        rows = self._members[at].to(slots.device, torch.int64)  # [B, R + 1, N]
        valid = torch.arange(self.neighbours + 1) < self._counts[at][:, None]
        valid = valid.to(slots.device)
        if own is not None:  # leave out the row itself: the first that equals it
            same = (rows == own[:, None]).all(-1) & valid
            valid = valid & ~(same & (same.cumsum(1) == 1))
        # No more rows in training than afterwards.
        valid = valid & (valid.cumsum(1) <= self.neighbours)
        many = valid.sum(1)
        # Neither the cells' vectors nor the rows' are ever there all at once; most values have few neighbours.
        cells = (rows[valid][:, self._live] + self._starts[self._live]).view(-1)
        ends = many.cumsum(0)
        shares = (1 / many.clamp(min=1)).to(self.table.dtype).repeat_interleave(many * len(self._live))
        bags = (ends - many) * len(self._live)
        mean = F.embedding_bag(cells, self.embed.table.weight, bags, mode="sum", per_sample_weights=shares)
        return mean + self.count(many)


class ColumnNetwork(Network):
    """Per-column layers on a shared running sum, for any order of the columns.

    Before a column is drawn, the vectors of the known cells are summed; the sum goes through layers that belong to
    that column alone (TabularARGN: Tiwald et al. 2025, arXiv:2501.12012, has such layers on the concatenated
    embeddings). A sum needs no memory of the past and is the same for any order, as in NADE
    (Uria et al. 2016, arXiv:1605.02226). Cells of columns with listed values (:class:`ancestral.space.Lexicon`)
    enter as a :class:`Profile`.

    The first two features of a counted site tell its head the coarse value and the entry (-1: unknown).

    Args:
        width: features D.
        sums: size of the running sum.
        depth: residual layers per column.
        dropout: share of units dropped in training.
        neighbours: most rows behind a profile.
    """

    batch, abreast = 4096, True

    def __init__(self, width: int = 64, sums: int = 96, depth: int = 1, dropout: float = 0.1, neighbours: int = 4):
        super().__init__()
        self.width, self.sums, self.depth, self.dropout, self.neighbours = width, sums, depth, dropout, neighbours

    def build(self, space: Space) -> ColumnNetwork:
        if not space.discrete or space.event:
            raise ValueError("a network of columns needs one category per site; quantise the values first")
        self.space = space
        n, sums, width = space.n, self.sums, self.width
        self.embed = ValueEmbedding(space, sums)
        nn.init.normal_(self.embed.table.weight, std=0.15)
        self.smooth = SmoothRows(space, self.embed.table.weight, 0.15) if space.ordered else None
        self.told = ConditionEmbedding(space, sums)
        self.known = nn.Parameter(torch.randn(n, sums) * 0.05)
        self.place = nn.Parameter(torch.zeros(n, sums))
        self.enter = nn.Parameter(torch.randn(n, sums, width) / math.sqrt(sums))
        self.enter_bias = nn.Parameter(torch.zeros(n, width))
        self.inner = nn.ParameterList(torch.randn(n, width, width) / math.sqrt(width) for _ in range(self.depth))
        self.inner_bias = nn.ParameterList(torch.zeros(n, width) for _ in range(self.depth))
        speaks = torch.ones(n)
        for lexicon in space.lexicons:
            if lexicon.counted:
                speaks[list(lexicon.sites[1:])] = 0
        self.mute = frozenset((speaks == 0).nonzero()[:, 0].tolist())
        """Counted sites, which neither speak nor need features."""
        self._live: Tensor
        self.register_buffer("_live", speaks.nonzero()[:, 0], persistent=False)
        self.speaks: Tensor
        self.register_buffer("speaks", speaks, persistent=False)
        sizes = space.site_sizes()
        self._starts: Tensor
        self.register_buffer("_starts", sizes.cumsum(0) - sizes, persistent=False)
        self._site: Tensor
        self.register_buffer("_site", torch.arange(n).repeat_interleave(sizes), persistent=False)
        self.profiles = nn.ModuleList(
            Profile(space, lexicon, sums, self.neighbours, speaks) for lexicon in space.lexicons
        )
        return self

    def prepare(self, values: Tensor, held: Tensor) -> None:
        for profile in self.profiles:
            profile.prepare(values, held)  # type: ignore[operator]

    def settle(self) -> None:
        for profile in self.profiles:
            profile.settle()  # type: ignore[operator]

    def spoken(self) -> Tensor:
        """What every value of every site adds to the sum: float32 ``[sum of the sizes, sums]``."""
        table = self.embed.table.weight
        if self.smooth is not None:
            table = table + self.smooth()
        own = table if len(table) == len(self._site) else table.repeat(self.space.n, 1)
        return (own + self.known[self._site]) * self.speaks[self._site][:, None]

    def forward(self, values: Tensor, order: Order, condition: Condition | None = None) -> Tensor:
        if not torch.is_grad_enabled() and not order.batched:
            return self._follow(values, order, condition)
        n, batch = self.space.n, values.shape[0]
        sites = torch.arange(n, device=values.device)
        each, rank = F.embedding(values + self._starts, self.spoken()), order.rank.to(values.device)
        for profile, lexicon in zip(self.profiles, self.space.lexicons):
            # A value is known once both its sites are.
            each = torch.cat([each, profile(values)[:, None]], 1)
            rank = torch.cat([rank, rank[..., list(lexicon.sites[:2])].amax(-1, keepdim=True)], -1)
        live = self._live
        before = (rank[..., None, :] < rank[..., live, None]).to(each.dtype).expand(batch, -1, -1)
        told = self.told(condition, sites[live], batch) + self.place[live]
        total = torch.baddbmm(told.expand(batch, -1, -1), before, each)
        features = self._layers(total, live)
        if len(live) < n:
            features = features.new_zeros(n, batch, self.width).index_copy(0, live, features.transpose(0, 1))
            features = features.transpose(0, 1)
        return self._tell(features, sites, values, rank[..., :n])

    def _follow(self, values: Tensor, order: Order, condition: Condition | None) -> Tensor:
        """Features along a shared order: one running sum per item, which stays in the processor's cache."""
        out = values.new_empty(self.space.n, len(values), self.width, dtype=self.place.dtype)
        cache, last = self.start(len(values), order, condition), None
        for sites in order.sets:
            features = self.step(cache, last).transpose(0, 1)
            if len(sites) == 1:
                out[int(sites)], last = features[0], values[:, int(sites), None]
            else:
                out[sites], last = features, take(values, sites)
        return out.transpose(0, 1)

    def step(self, cache: Cache, last: Tensor | None = None) -> Tensor:
        order, k = cache.order, cache.next
        self.record(cache, last)
        rank = order.rank.to(cache.values.device)
        if cache.state is None:
            cache.state = torch.zeros(cache.batch, 1, self.sums, device=self.place.device)
            cache.extra["spoken"] = self.spoken()
            seen, since = order.permutation[..., : order.starts[k]], 0
        else:
            seen, since = order.sets[k - 1], k - 1
        if seen.shape[-1] and not self._silent(seen):
            each = F.embedding(take(cache.values, seen) + self._starts[seen], cache.extra["spoken"])
            cache.state = (each if each.shape[1] == 1 else each.sum(1, keepdim=True)).add_(cache.state)
        for profile, lexicon in zip(self.profiles, self.space.lexicons):
            complete = rank[..., list(lexicon.sites[:2])].amax(-1)
            new = (complete >= since) & (complete < k)
            if bool(new.any()):
                added = profile(cache.values)
                cache.state = cache.state + (added if new.dim() == 0 else added * new[:, None])[:, None]
        cache.next += 1
        sites = order.sets[k]
        known = torch.where(rank < k, rank, k)
        if self._silent(sites):
            features = cache.state.new_zeros(cache.batch, sites.shape[-1], self.width)
        else:
            total = cache.state + (self.place[sites] + self.told(cache.condition, sites, cache.batch))
            features = self._layers(total.expand(cache.batch, sites.shape[-1], -1), sites)
            if self.mute and (sites.dim() == 2 or len(sites) > 1):
                features = features * self.speaks[sites][..., None]
        return self._tell(features, sites, cache.values, known)

    def _silent(self, sites: Tensor) -> bool:
        """Whether all of ``sites`` are counted."""
        return bool(self.mute) and self.mute.issuperset(sites.flatten().tolist())

    def _layers(self, total: Tensor, sites: Tensor) -> Tensor:
        """Features ``[B, S, D]`` of target ``sites`` from sums ``[B, S, sums]``."""
        if sites.dim() == 2:  # every item asks for columns of its own
            out = total.new_zeros(*sites.shape, self.width)
            for site in torch.unique(sites).tolist():
                here = sites == site
                out[here] = self._layers(total[here][:, None], torch.tensor([site], device=sites.device))[:, 0]
            return out
        if len(sites) == 1:
            return self._site_layers(total, int(sites))
        every = len(sites) == self.space.n  # asked for in full: no copies of the weights
        own = [p if every else p[sites] for p in (self.enter, self.enter_bias, *self.inner, *self.inner_bias)]
        reuse = not torch.is_grad_enabled()
        x = F.silu(total.transpose(0, 1), inplace=reuse)
        x = dropped(x, self.dropout, self.training)
        x = F.silu(torch.baddbmm(own[1][:, None], x, own[0]), inplace=reuse)
        for weight, bias in zip(own[2 : 2 + self.depth], own[2 + self.depth :]):
            inner = torch.baddbmm(bias[:, None], dropped(x, self.dropout, self.training), weight)
            x = F.silu(inner, inplace=reuse).add_(x) if reuse else x + F.silu(inner)
        return x.transpose(0, 1)

    def _site_layers(self, total: Tensor, site: int) -> Tensor:
        """The same ``[B, 1, D]`` for one site."""
        reuse = not torch.is_grad_enabled()
        x = dropped(F.silu(total[:, 0], inplace=reuse), self.dropout, self.training)
        x = F.silu(torch.addmm(self.enter_bias[site], x, self.enter[site]), inplace=reuse)
        for weight, bias in zip(self.inner, self.inner_bias):
            inner = torch.addmm(bias[site], dropped(x, self.dropout, self.training), weight[site])
            x = F.silu(inner, inplace=reuse).add_(x) if reuse else x + F.silu(inner)
        return x[:, None]

    def _tell(self, features: Tensor, sites: Tensor, values: Tensor, rank: Tensor) -> Tensor:
        """Features, whose first two at counted sites become what their heads look up; in place where those speak not.

        Counted sites have features of nothing else.
        """
        if self.mute.isdisjoint(sites.flatten().tolist()):
            return features
        for lexicon in self.space.lexicons:
            if not lexicon.counted:
                continue
            coarse, entry = lexicon.sites[:2]
            for site in lexicon.sites[1:]:
                here = sites == site
                if not bool(here.any()):
                    continue
                base = torch.where(rank[..., coarse] < rank[..., site], values[:, coarse], -1)
                listed = torch.where(rank[..., entry] < rank[..., site], values[:, entry], -1)
                told = torch.stack([base, listed], -1).to(features.dtype)
                if sites.dim() == 1:
                    features[:, int(here.nonzero()), :2] = told
                    continue
                mark = here.reshape(-1, here.shape[-1], 1)
                first = torch.where(mark, told[:, None].expand(-1, features.shape[1], -1), features[..., :2])
                features = torch.cat([first, features[..., 2:]], -1)
        return features
