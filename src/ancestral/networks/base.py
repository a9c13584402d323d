"""The protocol every network keeps: features of a site see the values of lower rank and nothing else.

All decoders, the coder and the scorers are written once on three methods, ``forward``, ``start`` and ``step``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ancestral.order import Order
from ancestral.space import Condition, Space

if TYPE_CHECKING:
    from ancestral.tokenizers import Tokenizer


@dataclass
class Cache:
    """State of one incremental pass along an order.

    Attributes:
        order: the order that is followed.
        condition: what the model is told.
        batch: number of items B.
        next: the set whose features the next ``step`` returns.
        values: values seen so far at their sites, ``[B, N, *event]`` (kept by networks that recompute, and for
            the sites known from the start).
        state: whatever the network keeps (keys and values, queues, recurrent states).
    """

    order: Order
    condition: Condition
    batch: int
    next: int
    values: Tensor
    state: Any = None
    extra: dict[str, Any] = field(default_factory=dict)


class Network(nn.Module):
    """Base of all networks: what may each site see?

    A network is configured by its constructor and gets its parameters in :meth:`build`, once the tokenizer
    knows the space. Its value embedding is the submodule ``embed``, so that laws can look at derivatives.
    """

    space: Space
    width: int
    any_order = True
    """Whether one set of weights serves any order."""
    shrinking_sets = True
    """Whether a set may be smaller than the one before."""
    parallel_sets = True
    """Whether sets of several sites are possible."""
    shortens = False
    """Whether a raster order over fewer sites than the space has is followed too: the leading sites alone."""
    looks = False
    """Whether features can be had for values of the moment while a set is drawn: :meth:`look`."""
    batch = 256
    """Items that are drawn or scored together unless the caller says how many."""
    abreast = False
    """Whether batches on a CPU are best handled one per core: layers too small for several cores to share."""
    needs_mask = False
    """Whether the network hides values by mask symbols, so that all sites' features cost a pass per set."""

    def build(self, space: Space) -> Network:
        """Create the parameters for ``space``; returns self."""
        raise NotImplementedError("a network defines build")

    def prepare(self, values: Tensor, held: Tensor) -> None:
        """Look at the training values ``[n, N, *event]`` before training, and before it is resumed.

        ``held`` are the values held out for validation: no gradient and no evaluation may profit from them.
        """

    def settle(self) -> None:
        """Settle what the training values are no longer needed for; called when training is over."""

    def meet(self, tokenizer: Tokenizer) -> None:
        """Look at the fitted tokenizer before :meth:`build`, for networks that read values by its codebook."""

    def forward(self, values: Tensor, order: Order, condition: Condition | None = None) -> Tensor:
        """Features of all sites, float32 ``[B, N, D]`` in site order; ``[:, i]`` sees only lower ranks.

        Args:
            values: ``[B, N, *event]``, int64 or float32.
            order: the order, shared or per item.
            condition: what the model is told beside the values.
        """
        raise NotImplementedError("a network defines forward")

    def observe(self, values: Tensor, known: Tensor, condition: Condition | None = None) -> Tensor:
        """Features of all sites ``[B, N, D]`` given the known sites only, bool ``[B, N]``.

        Features of known sites are of no use. By default the known sites form a set of their own.
        """
        return self(values, Order((~known).long()), condition)

    def start(
        self,
        batch: int,
        order: Order,
        condition: Condition | None = None,
        values: Tensor | None = None,
        known_sets: int = 0,
    ) -> Cache:
        """Begin an incremental pass.

        Args:
            batch: number of items B.
            order: the order to follow.
            condition: what the model is told.
            values: ``[B, N, *event]`` with the values of the first ``known_sets`` sets filled in.
            known_sets: number of leading sets that are given rather than drawn.
        """
        self.check(order)
        device = next(self.parameters()).device
        if values is None:
            dtype = torch.int64 if self.space.discrete else torch.float32
            values = torch.zeros(batch, self.space.n, *self.space.event, dtype=dtype, device=device)
        return Cache(order, condition or Condition(), batch, known_sets, values.clone())

    def step(self, cache: Cache, last: Tensor | None = None) -> Tensor:
        """Features of the next set, ``[B, S_k, D]`` in the order's sequence of sites.

        Args:
            cache: from :meth:`start`; it is moved on by one set.
            last: values of the set whose features the step before returned, ``[B, S, *event]``; None at first.
        """
        self.record(cache, last)
        features = self(cache.values, cache.order, cache.condition)
        sites = cache.order.sets[cache.next]
        cache.next += 1
        return take(features, sites)

    def stepped(self, count: int) -> None:
        """Told that compiled kernels took ``count`` steps in the place of :meth:`step`; nothing needs to be done.

        Who counts passes (:mod:`ancestral.evaluation.passes`) listens here.
        """

    def look(self, cache: Cache, now: Tensor, time: Tensor, rows: slice) -> Tensor:
        """Features ``[B', S_k, D]`` of the set that the last :meth:`step` was about, given what its values are now.

        For heads that draw a set jointly and little by little: they see the sets before as they are, and their own set
        as it is at the moment. The cache stays as it is.

        Args:
            cache: after :meth:`step`.
            now: values of the moment ``[B', S_k, *event]``.
            time: ``[B', S_k]``, from 0 (nothing but noise) to 1 (drawn).
            rows: the items of the cache that are meant.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be asked again while a set is drawn")

    def look_all(self, values: Tensor, order: Order, condition: Condition | None, now: Tensor, time: Tensor) -> Tensor:
        """:meth:`look` for all sets at once, in site order: ``[B, N, D]``, each set given the values of those before.

        In training a network may show the sets before as they are now, rather than their values.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be asked again while a set is drawn")

    def record(self, cache: Cache, last: Tensor | None) -> None:
        """Write the values of the last set to their sites."""
        if last is not None:
            put(cache.values, cache.order.sets[cache.next - 1], last)

    def check(self, order: Order) -> None:
        """Refuse an order that the network cannot follow.

        Raises:
            ValueError: sets of several sites, or shrinking sets, that the network has no way to feed.
        """
        if not self.parallel_sets and not order.sequential:
            raise ValueError(
                f"{type(self).__name__} draws one site at a time; use an order without ties or a transformer"
            )
        if not self.shrinking_sets:
            _ = order.feed


def take(x: Tensor, sites: Tensor) -> Tensor:
    """Rows of ``[B, N, ...]`` at ``sites`` (``[S]`` or ``[B, S]``): ``[B, S, ...]``."""
    if sites.dim() == 1:
        if len(sites) == 1 and sites.device.type == "cpu":  # a view, much faster than an index
            return x.narrow(1, int(sites), 1)
        return x[:, sites]
    return x[torch.arange(x.shape[0], device=x.device)[:, None], sites]


def put(x: Tensor, sites: Tensor, rows: Tensor) -> None:
    """Write ``rows`` ``[B, S, ...]`` into ``x`` at ``sites``, in place."""
    if sites.dim() == 1:
        if len(sites) == 1 and sites.device.type == "cpu":
            x.narrow(1, int(sites), 1).copy_(rows)
            return
        x[:, sites] = rows
    else:
        x[torch.arange(x.shape[0], device=x.device)[:, None], sites] = rows


class ValueEmbedding(nn.Module):
    """Values at sites to vectors: a table for categories (one per channel), a linear map for real numbers.

    Args:
        space: sites and values; with one size per site every site has a table of its own.
        width: features D.
        masked: reserve a learned vector for hidden values, ``self.mask``.
    """

    def __init__(self, space: Space, width: int, masked: bool = False):
        super().__init__()
        self.space = space
        self.channels = 1
        for e in space.event:
            self.channels *= e
        self.offsets: Tensor | None
        if not space.discrete:
            self.register_buffer("offsets", None)
            self.project = nn.Linear(self.channels, width)
        else:
            if isinstance(space.sizes, tuple):
                sizes = space.site_sizes()
                self.register_buffer("offsets", sizes.cumsum(0) - sizes, persistent=False)
                rows = int(sizes.sum())
            else:
                self.register_buffer("offsets", None)
                rows = space.sizes
            self.table = nn.Embedding(rows * self.channels, width)
            nn.init.normal_(self.table.weight, std=0.5 / self.channels**0.5)
        if masked:
            self.mask = nn.Parameter(torch.randn(width) * 0.5)

    def forward(self, values: Tensor, sites: Tensor) -> Tensor:
        """``[B, S, *event]`` at ``sites`` (``[S]`` or ``[B, S]``) to float32 ``[B, S, D]``."""
        if not self.space.discrete:
            return self.project(values.reshape(*values.shape[:2], self.channels))
        if self.offsets is not None:
            values = values + self.offsets[sites].reshape(*sites.shape, *[1] * len(self.space.event))
        if not self.space.event:
            return self.table(values)
        flat = values.reshape(*values.shape[:2], self.channels)
        rows = self.table.num_embeddings // self.channels
        return self.table(flat + rows * torch.arange(self.channels, device=flat.device)).sum(-2)


class ConditionEmbedding(nn.Module):
    """What the model is told, as a vector per item or per site that is added to the network's inputs.

    Args:
        space: what there is to tell.
        width: features D.
        altered: tell augmented training items from others, so that what only they have is not taken for real.
    """

    def __init__(self, space: Space, width: int, altered: bool = False):
        super().__init__()
        self.altered = nn.Parameter(torch.zeros(width)) if altered else None
        self.label = nn.Embedding(space.classes + 1, width) if space.classes else None
        self.vector = nn.Linear(space.vector, width) if space.vector else None
        self.site = nn.Linear(space.site, width) if space.site else None
        if self.label is not None:
            nn.init.normal_(self.label.weight, std=0.5)

    def forward(self, condition: Condition | None, sites: Tensor, batch: int) -> Tensor | float:
        """The sum of all parts, broadcastable to ``[B, S, D]``; 0.0 where there is nothing to tell.

        A withheld label (-1, or no label at all) has an embedding of its own.
        """
        total: Tensor | float = 0.0
        condition = condition or Condition()
        if self.label is not None:
            label = condition.label
            if label is None:
                label = torch.full((batch,), -1, device=self.label.weight.device)
            total = total + self.label(torch.where(label < 0, self.label.num_embeddings - 1, label))[:, None]
        if self.altered is not None and condition.altered is not None:
            total = total + condition.altered[:, None, None] * self.altered
        if self.vector is not None:
            if condition.vector is None:
                raise ValueError("this network is conditioned on a vector; none was given")
            total = total + self.vector(condition.vector)[:, None]
        if self.site is not None and condition.site is not None:
            total = total + take(self.site(condition.site), sites)
        return total


class SequenceNetwork(Network):
    """Base of single-stream networks: the place of the order is the time axis.

    The input at a place is the value of the place that feeds it (:attr:`Order.feed`: the previous site, or the
    matching site of the previous set), the target site's own learned position when one network serves several
    orders (double positional encoding: sigma-GPT, Pannatier et al. 2024, arXiv:2404.09562), and the condition.
    Subclasses define :meth:`mix`, which may see inputs of equal or lower rank.
    """

    shrinking_sets = False
    site_per_place = True
    """Whether its sequence holds a place per site and no more, so that what is kept can be cut back at any of them."""
    offset = 0
    """How much further than in a whole pass the places of fed values are numbered when drawing."""

    def __init__(self, width: int, targets: bool = True, prefix: bool = False):
        super().__init__()
        self.width = width
        self.targets = targets
        self.prefix = prefix
        """Whether the condition is told at the beginning only, rather than at every place."""

    def build(self, space: Space) -> SequenceNetwork:
        self.space = space
        self.embed = ValueEmbedding(space, self.width)
        self.told = ConditionEmbedding(space, self.width)
        self.first = nn.Parameter(torch.randn(self.width) * 0.5)
        self.source = nn.Embedding(space.n, self.width) if self.targets else None
        self.target = nn.Embedding(space.n, self.width) if self.targets else None
        for table in (self.source, self.target):
            if table is not None:
                nn.init.normal_(table.weight, std=0.3)
        return self

    def mix(
        self, inputs: Tensor, places: tuple[int, int], sites: Tensor, order: Order, state: Any
    ) -> tuple[Tensor, Any]:
        """Run the layers over inputs ``[B, T, D]`` that stand at ``places = (a, b)`` of the sequence.

        Args:
            inputs: float32 ``[B, T, D]``.
            places: first place and one past the last.
            sites: target sites, ``[T]`` or ``[B, T]``.
            order: the order.
            state: None for a pass over the whole sequence whose state is not needed; otherwise the state left
                by the places before (:meth:`initial` at the beginning).

        Returns:
            features ``[B, T, D]`` and the new state.
        """
        raise NotImplementedError("a sequence network defines mix")

    def initial(self, batch: int, order: Order) -> Any:
        """The state before the first place; must not be None."""
        raise NotImplementedError("a sequence network defines initial")

    def forward(self, values: Tensor, order: Order, condition: Condition | None = None) -> Tensor:
        self.check(order)
        sites = order.permutation
        inputs = self.inputs(values, order, condition, 0, order.n)
        features, _ = self.mix(inputs, (0, order.n), sites, order, None)
        if order.is_raster:
            return features
        back = order.places
        return take(features, back)

    def step(self, cache: Cache, last: Tensor | None = None) -> Tensor:
        order, k = cache.order, cache.next
        self.record(cache, last)
        begin = order.starts[k]
        if cache.state is None:
            cache.state, begin = self.initial(cache.batch, order), 0
        end = order.starts[k + 1]
        inputs = self.inputs(cache.values, order, cache.condition, begin, end, drawing=True)
        features, cache.state = self.mix(inputs, (begin, end), order.permutation[..., begin:end], order, cache.state)
        cache.next += 1
        return features[:, order.starts[k] - begin :]

    def inputs(
        self, values: Tensor, order: Order, condition: Condition | None, begin: int, end: int, drawing: bool = False
    ) -> Tensor:
        """Inputs at the places ``begin .. end - 1``: float32 ``[B, end - begin, D]``.

        ``drawing`` tells an incremental pass from one over a whole sequence, for published models that differ in both.
        """
        batch = values.shape[0]
        sites = order.permutation[..., begin:end]
        first = max(0, min(order.sizes[0], end) - begin)
        pieces = []
        told = self.told(condition, sites[..., :first] if self.prefix else sites, batch)
        if first:
            start = self.first.expand(batch, first, self.width)
            pieces.append(start + told if self.prefix else start)
        if end - begin > first:
            fed = order.feed[begin + first : end].to(values.device)
            source = order.permutation[..., fed]
            embedded = self.embed(take(values, source), source)
            if self.source is not None:
                embedded = embedded + self.source(source + self.offset if drawing else source)
            pieces.append(embedded)
        x = torch.cat(pieces, 1) if len(pieces) > 1 else pieces[0]
        if self.target is not None:
            x = x + self.target(sites)
        return x if self.prefix else x + told
