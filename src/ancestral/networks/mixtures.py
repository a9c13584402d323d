"""Networks made of models: their features are log-probabilities, pooled over members or over classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ancestral.heads.base import Finite, Head
from ancestral.networks.base import Cache, Network, take
from ancestral.order import Order
from ancestral.space import Condition, Space


def opinion(head: Head, features: Tensor, sites: Tensor) -> Tensor:
    """Log-probabilities of all categories, ``[B, S, K]``.

    Raises:
        ValueError: a head without finitely many values.
    """
    said = head(features, sites)
    if not isinstance(said, Finite):
        raise ValueError(f"{type(head).__name__} gives no finite list of probabilities; models are pooled over those")
    return said.log_probs()


class Ensemble(Network):
    """Several models side by side; :class:`ancestral.heads.LogLinear` pools what they say at every site.

    Members see the same batches and differ by their random start, their dropout, and their architecture if you like
    (deep ensembles: Lakshminarayanan et al. 2017, arXiv:1612.01474).

    Args:
        members: (network, head) each.

    Shapes:
        features float32 ``[B, N, M * K]``: every member's log-probabilities.
    """

    def __init__(self, members: Sequence[tuple[Network, Head]]):
        super().__init__()
        if not members:
            raise ValueError("an ensemble needs at least one member")
        self.networks = nn.ModuleList(network for network, _ in members)
        self.heads = nn.ModuleList(head for _, head in members)
        for name in ("any_order", "shrinking_sets", "parallel_sets"):
            setattr(self, name, all(getattr(network, name) for network, _ in members))
        self.needs_mask = any(network.needs_mask for network, _ in members)

    def build(self, space: Space) -> Ensemble:
        self.space = space
        for network, head in self._members():
            network.build(space)
            head.build(space, network.width)
        self.width = len(self.networks) * space.largest
        return self

    def _members(self) -> list[tuple[Any, Any]]:
        return list(zip(self.networks, self.heads, strict=True))

    def check(self, order: Order) -> None:
        for network, _ in self._members():
            network.check(order)

    def forward(self, values: Tensor, order: Order, condition: Condition | None = None) -> Tensor:
        sites = torch.arange(self.space.n, device=values.device)
        said = [opinion(head, network(values, order, condition), sites) for network, head in self._members()]
        return torch.cat(said, -1)

    def observe(self, values: Tensor, known: Tensor, condition: Condition | None = None) -> Tensor:
        sites = torch.arange(self.space.n, device=values.device)
        said = [opinion(head, network.observe(values, known, condition), sites) for network, head in self._members()]
        return torch.cat(said, -1)

    def start(
        self,
        batch: int,
        order: Order,
        condition: Condition | None = None,
        values: Tensor | None = None,
        known_sets: int = 0,
    ) -> Cache:
        cache = super().start(batch, order, condition, values, known_sets)
        cache.state = [n.start(batch, order, condition, values, known_sets) for n, _ in self._members()]
        return cache

    def step(self, cache: Cache, last: Tensor | None = None) -> Tensor:
        sites = cache.order.sets[cache.next]
        cache.next += 1
        said = [
            opinion(head, network.step(inner, last), sites)
            for (network, head), inner in zip(self._members(), cache.state, strict=True)
        ]
        return torch.cat(said, -1)


class Factor(Network):
    """A network that is told one of several facts that a label stands for, or none of them.

    A label is the number with the digits ``(f_1, ..., f_m)``, the last one counting fastest.

    Args:
        network: what it is told to.
        sizes: how many values each fact has; their product is the number of labels. Without labels in the data
            nothing is told.
        which: index of the fact; None for none.

    Shapes:
        features of ``network``, float32 ``[B, N, D]``.
    """

    def __init__(self, network: Network, sizes: Sequence[int], which: int | None):
        super().__init__()
        self.network, self.sizes, self.which = network, tuple(sizes), which
        for name in ("any_order", "shrinking_sets", "parallel_sets", "needs_mask"):
            setattr(self, name, getattr(network, name))

    def build(self, space: Space) -> Factor:
        self.space = space
        if space.classes and math.prod(self.sizes) != space.classes:
            words = " x ".join(map(str, self.sizes))
            raise ValueError(
                f"factors of {words} values make {math.prod(self.sizes)} labels, the data have {space.classes}; give "
                "factors= whose product is that"
            )
        told = 0 if self.which is None or not space.classes else self.sizes[self.which]
        self.network.build(space.replace(classes=told))
        self.width = self.network.width
        return self

    def _told(self, condition: Condition | None) -> Condition | None:
        if condition is None or condition.label is None:
            return condition
        if self.which is None:
            return replace(condition, label=None)
        digit = condition.label // math.prod(self.sizes[self.which + 1 :]) % self.sizes[self.which]
        return replace(condition, label=torch.where(condition.label < 0, -1, digit))

    def check(self, order: Order) -> None:
        self.network.check(order)

    def forward(self, values: Tensor, order: Order, condition: Condition | None = None) -> Tensor:
        found: Tensor = self.network(values, order, self._told(condition))
        return found

    def observe(self, values: Tensor, known: Tensor, condition: Condition | None = None) -> Tensor:
        return self.network.observe(values, known, self._told(condition))

    def start(
        self,
        batch: int,
        order: Order,
        condition: Condition | None = None,
        values: Tensor | None = None,
        known_sets: int = 0,
    ) -> Cache:
        return self.network.start(batch, order, self._told(condition), values, known_sets)

    def step(self, cache: Cache, last: Tensor | None = None) -> Tensor:
        return self.network.step(cache, last)


class ClassMixture(Network):
    """A model of every class, mixed: ``p(x) = sum_c p(c) p(x | c)``, exactly, one site after the other.

    What is told a class is the model of that class. Where the class is withheld, a site's distribution is the mean of
    the classes' distributions weighed by how well each class explains the sites before, which is the chain rule of
    the mixture. Classes are equally likely at first. Knowing the class of the items that it learns from thus also
    helps a model of items whose class is unknown. Scores without a class cost a pass per class.

    Args:
        network, head: the model, conditioned on the class; with no classes in the data, it is all there is.

    Shapes:
        features float32 ``[B, N, K]``: log-probabilities; :class:`ancestral.heads.LogLinear` takes them as they are.
    """

    any_order = False
    parallel_sets = False

    def __init__(self, network: Network, head: Head):
        super().__init__()
        self.network, self.head = network, head

    def build(self, space: Space) -> ClassMixture:
        self.space = space
        self.network.build(space)
        self.head.build(space, self.network.width)
        self.width = space.largest
        return self

    def check(self, order: Order) -> None:
        super().check(order)
        self.network.check(order)

    def _labels(self, condition: Condition | None, batch: int, device: torch.device) -> Tensor | None:
        """Classes ``[B]``, -1 where withheld; None if there is nothing to mix."""
        if not self.space.classes:
            return None
        label = None if condition is None else condition.label
        return torch.full((batch,), -1, device=device) if label is None else label

    def forward(self, values: Tensor, order: Order, condition: Condition | None = None) -> Tensor:
        self.check(order)
        condition = condition or Condition()
        sites = torch.arange(self.space.n, device=values.device)
        label = self._labels(condition, len(values), values.device)
        if label is None or bool((label >= 0).all()):
            return opinion(self.head, self.network(values, order, condition), sites)
        tables = []
        for c in range(self.space.classes):
            told = replace(condition, label=torch.full_like(label, c))
            tables.append(opinion(self.head, self.network(values, order, told), sites))
        table = torch.stack(tables)
        own = take(table.gather(-1, values.expand(len(table), *values.shape)[..., None])[..., 0].movedim(0, -1),
                   order.permutation)  # fmt: skip
        before = take(own.cumsum(1) - own, order.places).movedim(-1, 0)
        return _mix(table, before, label)

    def start(
        self,
        batch: int,
        order: Order,
        condition: Condition | None = None,
        values: Tensor | None = None,
        known_sets: int = 0,
    ) -> Cache:
        cache = super().start(batch, order, condition, values, 0)
        label = self._labels(condition, batch, cache.values.device)
        if label is None:
            cache.state = self.network.start(batch, order, condition, values, known_sets)
            cache.next = known_sets
            return cache
        classes = self.space.classes
        wide = cache.condition.map(lambda t: t.repeat(classes, *[1] * (t.dim() - 1)))
        each = torch.arange(classes, device=label.device).repeat_interleave(batch)
        many = Order(order.rank.repeat(classes, 1)) if order.batched else order
        cache.state = self.network.start(classes * batch, many, replace(wide, label=each))
        cache.extra = {"label": label, "before": torch.zeros(classes, batch, 1, device=label.device), "table": None}
        last = None
        for k in range(known_sets):  # the known sites speak for some classes and against others
            self.step(cache, last)
            last = take(cache.values, order.sets[k])
        cache.extra["pending"] = last
        return cache

    def step(self, cache: Cache, last: Tensor | None = None) -> Tensor:
        sites = cache.order.sets[cache.next]
        cache.next += 1
        if not cache.extra:
            return opinion(self.head, self.network.step(cache.state, last), sites)
        extra, classes = cache.extra, self.space.classes
        last = extra.pop("pending", None) if last is None else last
        if last is not None:
            extra["before"] = (
                extra["before"] + extra["table"].gather(-1, last.expand(classes, *last.shape)[..., None])[..., 0]
            )
            last = last.repeat(classes, 1)
        many = sites if sites.dim() == 1 else sites.repeat(classes, 1)
        table = opinion(self.head, self.network.step(cache.state, last), many)
        extra["table"] = table.unflatten(0, (classes, cache.batch))
        return _mix(extra["table"], extra["before"], extra["label"])


def _mix(table: Tensor, before: Tensor, label: Tensor) -> Tensor:
    """Log-probabilities ``[C, B, S, K]`` of all classes, weighed: ``[B, S, K]``.

    Args:
        table: log-probabilities given each class.
        before: log-probability of all sites before, given each class: ``[C, B, S]``.
        label: the class of each item ``[B]``, -1 where withheld.
    """
    weight = torch.log_softmax(before, 0)
    mixed = (table + weight[..., None]).logsumexp(0)
    chosen = table[label.clamp(min=0), torch.arange(len(label), device=label.device)]
    return torch.where((label >= 0)[:, None, None], chosen, mixed)
