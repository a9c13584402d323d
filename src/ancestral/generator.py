"""A distribution over values at sites: order + network + head."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ancestral.decoding.mixing import NGramMixture
from ancestral.decoding.walk import Draw, walk
from ancestral.errors import DataError
from ancestral.heads.base import Distribution, Head
from ancestral.networks.base import Network
from ancestral.networks.captions import CaptionEncoder
from ancestral.noise import Noise
from ancestral.objectives import LearnedObjective, Likelihood
from ancestral.order import FixedOrder, Order, OrderPolicy
from ancestral.space import Condition, Space

_MOST_LOGITS = 1 << 26


def generator_of(model: Any, what: str = "this") -> Generator:
    """The generator of a model, or a generator itself.

    Args:
        model: either.
        what: how the refusal calls it.

    Raises:
        DataError: something else.
    """
    found = getattr(model, "generator", model)
    if not isinstance(found, Generator):
        raise DataError(f"{what} is a {type(model).__name__}; give a model, or the generator of one")
    return found


class Objective(Protocol):
    """What training minimises; see :mod:`ancestral.objectives`."""

    def loss(self, generator: Generator, values: Tensor, condition: Condition, noise: Noise, progress: float) -> Tensor:
        """Mean nats per scalar."""
        ...


class Generator(nn.Module):
    """Order, network and head: an explicit distribution ``p(x) = prod_k p(x[rank == k] | x[rank < k])``.

    Args:
        network: what each site sees.
        head: the distribution at a site.
        order: policy, or the name of a fixed order.
        objective: what training minimises; by default the exact likelihood.
        label_dropout: share of labels withheld in training, for unconditional use and guidance.
        mixture: what is mixed into the predictions of long streams; windows on their own are the network's alone.
    """

    space: Space

    def __init__(
        self,
        network: Network,
        head: Head,
        order: OrderPolicy | str = "raster",
        objective: Objective | None = None,
        label_dropout: float = 0.1,
        mixture: NGramMixture | None = None,
    ):
        super().__init__()
        self.network, self.head = network, head
        self.order = FixedOrder(order) if isinstance(order, str) else order
        self.objective: Objective = objective or Likelihood()
        self.label_dropout = label_dropout
        self.mixture = mixture

    def build(self, space: Space) -> Generator:
        """Create all parameters for ``space``; returns self."""
        self.space = space
        self.order.build(space)
        self.captions = CaptionEncoder(space.text) if space.text else None
        if self.captions is not None and space.vector:
            raise ValueError("a model cannot be told both a vector and a caption")
        self.network.build(space if self.captions is None else space.replace(vector=self.captions.width))
        self.network.check(self.order.scoring())
        if self.head.looks and not self.network.looks:
            raise ValueError(f"{type(self.network).__name__} cannot be asked again while a set is drawn")
        self.head.build(space, self.network.width)
        if self.mixture is not None:
            self.mixture.build(space)
        if isinstance(self.objective, LearnedObjective):
            self.objective.build(space)
        return self

    def prepare(self, values: Tensor, held: Tensor) -> None:
        """Let the parts look at the training values and those held out, ``[n, N, *event]``, before training."""
        self.network.prepare(values, held)
        self.head.prepare(values, held)

    def settle(self) -> None:
        """Let the parts settle what training values are no longer needed for."""
        self.network.settle()

    @property
    def any_order(self) -> bool:
        """Whether the model was trained for any order, so that it can be conditioned on any subset of sites."""
        return self.network.any_order and (self.order.any_order or self.network.needs_mask)

    def told(self, condition: Condition | None, batch: int) -> Condition | None:
        """The condition as the network takes it: a caption's bytes become a vector, also where none is given."""
        if self.captions is None or (condition is not None and condition.vector is not None):
            return condition
        condition = condition or Condition()
        text = condition.text
        if text is None:
            text = torch.zeros(batch, self.captions.length, dtype=torch.int64, device=self.captions.withheld.device)
        return replace(condition, vector=self.captions(text))

    # -- scoring

    def log_prob(self, values: Tensor, order: Order | None = None, condition: Condition | None = None) -> Tensor:
        """Log-probability of the values at every site given those of lower rank: float ``[B, N]``, nats.

        Sites behind the stop symbol of a sequence count nothing.

        Args:
            values: ``[B, N, *event]``.
            order: by default the policy's scoring order; a raster order over fewer sites scores items that stop
                short of the window, if the network ``shortens``.
            condition: what the model is told.
        """
        order = self.order.scoring().to(values.device) if order is None else order
        if self.head.joint:
            each = self.predict(values, order, condition).log_prob(values)
            alive = self.alive(values, order)
            return each if alive is None else torch.where(alive, each, 0.0)
        features = self.network(values, order, self.told(condition, len(values)))
        # Large vocabularies: without gradients the logits of a part of the sites are held at a time.
        part = order.n
        if not torch.is_grad_enabled():
            part = max(1, min(part, _MOST_LOGITS // max(1, len(values) * self.space.largest)))
        pieces = []
        for first in range(0, order.n, part):
            here = slice(first, min(first + part, order.n))
            sites = torch.arange(here.start, here.stop, device=values.device)
            pieces.append(self.head(features[:, here], sites).log_prob(values[:, here]))
        each = pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)
        alive = self.alive(values, order)
        return each if alive is None else torch.where(alive, each, 0.0)

    def losses(self, values: Tensor, order: Order, condition: Condition, noise: Noise) -> Tensor:
        """What training minimises at every site: ``[B, N]``, minus :meth:`log_prob` unless the head has a surrogate."""
        each = self.predict(values, order, condition).loss(values, noise)
        alive = self.alive(values, order)
        return each if alive is None else torch.where(alive, each, 0.0)

    def predict(self, values: Tensor, order: Order, condition: Condition | None = None) -> Distribution:
        """The distribution of every site given those of lower rank, from the values ``[B, N, *event]``."""
        sites = torch.arange(order.n, device=values.device)
        condition = self.told(condition, len(values))
        look = partial(self.network.look_all, values, order, condition) if self.head.looks else None
        features = values.flatten(2) if self.head.looks else self.network(values, order, condition)
        return self.head.over(features, sites, order.rank.to(values.device), look)

    def observe(self, values: Tensor, known: Tensor, condition: Condition | None = None) -> Distribution:
        """The distribution of every site given the known ones, bool ``[B, N]``, each on its own."""
        sites = torch.arange(self.space.n, device=values.device)
        return self.head(self.network.observe(values, known, self.told(condition, len(values))), sites)

    def alive(self, values: Tensor, order: Order) -> Tensor | None:
        """Sites up to and including the stop symbol: bool ``[B, N]``; None where every site counts."""
        if self.space.stop is None or self.space.event or not order.is_raster:
            return None
        stopped = (values == self.space.stop).long()
        return stopped.cumsum(1) - stopped == 0

    def counted(self, values: Tensor, order: Order) -> Tensor:
        """Number of scalars that count in a batch."""
        alive = self.alive(values, order)
        total = values.shape[0] * self.space.scalars if alive is None else alive.sum()
        return torch.as_tensor(total, device=values.device)

    def loss(self, values: Tensor, condition: Condition, noise: Noise, progress: float = 1.0) -> Tensor:
        """Training loss, mean nats per scalar; labels and captions are withheld at random."""
        if (condition.label is not None or condition.text is not None) and self.label_dropout > 0:
            keep = noise.uniform(1)[:, 0] >= self.label_dropout
            label = None if condition.label is None else torch.where(keep, condition.label, -1)
            text = None if condition.text is None else torch.where(keep[:, None], condition.text, 0)
            condition = replace(condition, label=label, text=text)
        return self.objective.loss(self, values, condition, noise, progress)

    # -- drawing

    def sample(
        self,
        noise: Noise,
        condition: Condition | None = None,
        order: Order | None = None,
        guidance: float = 0.0,
        **options: float | int | None,
    ) -> Tensor:
        """Draw one value tensor per stream of ``noise``: ``[B, N, *event]``.

        Args:
            noise: one stream per item.
            condition: what the model is told.
            order: by default the policy's scoring order.
            guidance: classifier-free guidance scale; 0 means none.
            options: temperature, top_k, top_p, min_p of :class:`ancestral.decoding.walk.Draw`.
        """
        order = self.order.scoring() if order is None else order
        condition = condition or Condition()
        base = (condition.without_label(), guidance) if guidance else None
        return walk(self, Draw(noise, **options), noise.batch, order, condition, base=base).values  # type: ignore[arg-type]
