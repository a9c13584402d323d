"""A model as the head of another: the values at a site have a chain rule of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ancestral.heads.base import Chooser, Distribution, Head
from ancestral.space import Condition, Space

if TYPE_CHECKING:
    from ancestral.generator import Generator


class NestedDistribution(Distribution):
    """The inner model at every site, conditioned on the site's features.

    Args:
        generator: a built inner generator over the values at one site.
        features: float ``[B, S, D]``.
        event: shape of the values at one site.
        base: features of the unguided branch and the scale, for guidance.
    """

    def __init__(
        self,
        generator: Generator,
        features: Tensor,
        event: tuple[int, ...],
        base: tuple[Tensor, float] | None = None,
    ):
        self.generator, self.features, self.event, self.base = generator, features, event, base

    def log_prob(self, values: Tensor) -> Tensor:
        b, s = values.shape[:2]
        space = self.generator.space
        inner = values.reshape(b * s, space.n, *space.event)
        condition = Condition(vector=self.features.reshape(b * s, -1))
        return self.generator.log_prob(inner, condition=condition).sum(-1).reshape(b, s)

    def guided(self, other: Distribution, scale: float) -> Distribution:
        assert isinstance(other, NestedDistribution)
        return NestedDistribution(self.generator, self.features, self.event, (other.features, scale))

    def choose(self, chooser: Chooser, given: Tensor | None = None, alive: Tensor | None = None) -> Tensor:
        from ancestral.decoding.walk import Sites, walk

        b, s, d = self.features.shape
        space = self.generator.space
        condition = Condition(vector=self.features.reshape(b * s, d))
        base = None
        if self.base is not None:
            base = (Condition(vector=self.base[0].reshape(b * s, d)), self.base[1])
        out = walk(
            self.generator,
            Sites(chooser, b, s),
            b * s,
            self.generator.order.scoring(),
            condition,
            given=None if given is None else given.reshape(b * s, space.n, *space.event),
            alive=None if alive is None else alive.reshape(b * s),
            base=base,
        )
        return out.values.reshape(b, s, *self.event)


class Nested(Head):
    """The head is another autoregressive model (RQ depth, colour channels, sub-patches, fractals).

    Args:
        generator: an unbuilt generator (order, network, head) over the values at one site; its network is
            conditioned on the outer features.
    """

    def __init__(self, generator: Generator):
        super().__init__()
        self.generator = generator

    def build(self, space: Space, width: int) -> Nested:
        self.event = space.event
        self.generator.build(self.inner(space, width))
        self.exact, self.finite = self.generator.head.exact, self.generator.head.finite
        self.kind = self.generator.head.kind
        return self

    def inner(self, space: Space, width: int) -> Space:
        """The inner model's space; by default every scalar at the site is an inner site."""
        return space.inner(width)

    def forward(self, features: Tensor, sites: Tensor) -> Distribution:
        return NestedDistribution(self.generator, features, self.event)
