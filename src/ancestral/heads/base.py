"""The distribution at a site: what a head returns and what decoders may ask of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from ancestral.errors import DataError, UnsupportedError
from ancestral.noise import Noise
from ancestral.space import Space


class Chooser(Protocol):
    """Decides the values at sites: by drawing them, by looking them up, or by decoding them from a stream."""

    def __call__(self, leaf: Leaf, given: Tensor | None, alive: Tensor | None) -> Tensor:
        """Values ``[B, S]`` (finite) or ``[B, S, C]`` (real) under ``leaf``.

        Args:
            leaf: an elementary distribution.
            given: the true values, where they are known to the caller (scoring, encoding).
            alive: bool ``[B, S]``, False where a sequence has already ended; None means everywhere.
        """
        ...


Look = Callable[[Tensor, Tensor], Tensor]
"""Features ``[B, S, D]`` of sites whose values are for the moment ``[B, S, *event]`` at times ``[B, S]`` from 0 to 1;
see :meth:`ancestral.networks.base.Network.look`."""


class Distribution:
    """Distribution of the values at ``[B, S]`` sites, independent between sites given the features.

    A head that is ``joint`` gives one whose sites depend on each other within a set; of its log-probabilities only the
    sum over a set means something.
    """

    def log_prob(self, values: Tensor) -> Tensor:
        """Natural logarithm of the probability (density) of ``values`` ``[B, S, *event]``: ``[B, S]``."""
        raise NotImplementedError("a distribution defines log_prob")

    def loss(self, values: Tensor, noise: Noise) -> Tensor:
        """What training minimises for ``values`` ``[B, S, *event]``: float ``[B, S]``.

        The negative log-probability in nats, unless a head learns by a surrogate.
        """
        return -self.log_prob(values)

    def choose(self, chooser: Chooser, given: Tensor | None = None, alive: Tensor | None = None) -> Tensor:
        """Let ``chooser`` decide the values, one elementary distribution at a time: ``[B, S, *event]``."""
        raise NotImplementedError("a distribution defines choose")

    def guided(self, other: Distribution, scale: float) -> Distribution:
        """This distribution pushed away from ``other`` (Ho and Salimans 2022, arXiv:2207.12598).

        Log-probabilities become ``(1 + scale) * self - scale * other``, normalised again.

        Raises:
            UnsupportedError: a density that is given by a formula, whose product with another is none.
        """
        raise UnsupportedError(
            f"guidance cannot strengthen a {type(self).__name__}; leave it out, or use a recipe of categories such as "
            "llamagen, or one that denoises its values such as mar"
        )

    def pinned(self, known: Tensor, values: Tensor) -> Distribution:
        """For heads that are ``joint``: as this, but some values of the set are known and the others drawn to suit.

        An approximation of the conditional distribution.

        Args:
            known: bool ``[B, S]``.
            values: ``[B, S, *event]``.
        """
        raise ValueError(f"{type(self).__name__} draws every site on its own; there is nothing to suit")


class Leaf(Distribution):
    """An elementary distribution, chosen from in one go."""

    def choose(self, chooser: Chooser, given: Tensor | None = None, alive: Tensor | None = None) -> Tensor:
        return chooser(self, given, alive)


class Finite(Leaf):
    """Categories ``0 .. K - 1`` at every site.

    Args:
        logits: float ``[B, S, K]``; unnormalised log-probabilities, -inf where a category does not exist.
    """

    def __init__(self, logits: Tensor):
        self.logits = logits

    def log_probs(self) -> Tensor:
        """Normalised log-probabilities of all categories, float ``[B, S, K]``."""
        return torch.log_softmax(self.logits, -1)

    def log_prob(self, values: Tensor) -> Tensor:
        return self.log_probs().gather(-1, values[..., None])[..., 0]

    def cdf(self) -> Tensor:
        """Probability of each category or one before it, float64 ``[B, S, K]``.

        It never falls from a category to the next, and is 1 at the last up to rounding. A number in ``[0, 1)`` between
        two of its values stands for the category of the upper one: so values are drawn, and so a range coder finds
        the category that a code stands for.
        """
        return _cumulated(self.logits, torch.float64)

    def draw(self, noise: Noise) -> Tensor:
        """A category per site, int64 ``[B, S]``."""
        return draw_categories(self.logits, noise)

    def guided(self, other: Distribution, scale: float) -> Finite:
        assert isinstance(other, Finite)
        mine = self.log_probs()
        pushed = mine + scale * (mine - other.log_probs())
        return Finite(torch.where(mine.isneginf(), mine, pushed))


def _cumulated(log_probs: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.softmax(log_probs, -1).cumsum(-1, dtype=dtype)


def draw_categories(log_probs: Tensor, noise: Noise, dtype: torch.dtype = torch.float64) -> Tensor:
    """One category per site by inverting the cumulative distribution: int64 ``[B, S]``.

    Args:
        log_probs: float ``[B, S, K]``, normalised or not.
        noise: one stream per item.
        dtype: that probabilities are cumulated in; single precision is as exact as the logits for some 100 categories.
    """
    edges = _cumulated(log_probs, dtype)
    total = edges[..., -1:]
    # Rounding up to the total would reach an impossible category; below it the first higher edge has mass.
    u = noise.uniform(edges.shape[1])[..., None].to(dtype).mul_(total)
    u = torch.minimum(u, torch.nextafter(total, total.new_zeros(())))
    return torch.searchsorted(edges, u, right=True)[..., 0]


class Density(Leaf):
    """Real values ``[B, S, C]`` with an exact density."""

    def sample(self, noise: Noise, temperature: float = 1.0) -> Tensor:
        """A draw, float32 ``[B, S, C]``; ``temperature`` scales the spread."""
        raise NotImplementedError("a density defines sample")


def needs_categories(space: Space) -> None:
    """Refuse real values.

    Raises:
        DataError: the space has some.
    """
    if not space.discrete:
        raise DataError("this model needs categories, and the values are real numbers; choose another recipe")


def needs_one_category(space: Space, ordered: bool = False) -> None:
    """Refuse a space that a head for one category per site cannot serve.

    Raises:
        DataError: real values, or several categories per site, such as the colours of a pixel.
    """
    needs_categories(space)
    if space.event:
        count = math.prod(space.event)
        raise DataError(
            f"this model needs one {'level' if ordered else 'category'} per site, and there are {count} at each, as "
            "the colours of a pixel are: read images with channels=1, or give the folder of a learned tokenizer with "
            "one code per place (tokenizer=)"
        )


class Head(nn.Module):
    """Base of heads: features at sites to a distribution there. Parameters are made in :meth:`build`."""

    exact = True
    """Whether ``log_prob`` is exact; :attr:`kind` says what it is otherwise."""
    kind: Literal["exact", "lower_bound", "estimate"] = "exact"
    """What ``log_prob`` is."""
    finite = True
    """Whether values can be entropy-coded."""
    joint = False
    """Whether the sites of a set are drawn jointly, rather than each from a distribution of its own."""
    looks = False
    """Whether the network is asked again while a set is drawn; its other features are then not used."""

    def build(self, space: Space, width: int) -> Head:
        """Create the parameters for ``space`` and features of size ``width``; returns self."""
        raise NotImplementedError("a head defines build")

    def prepare(self, values: Tensor, held: Tensor) -> None:
        """As :meth:`ancestral.networks.base.Network.prepare`."""

    def forward(self, features: Tensor, sites: Tensor) -> Distribution:
        """The distribution at ``sites`` (``[S]`` or ``[B, S]``) from ``features`` ``[B, S, D]``."""
        raise NotImplementedError("a head defines forward")

    def over(
        self, features: Tensor, sites: Tensor, sets: Tensor | None = None, look: Look | None = None
    ) -> Distribution:
        """The distribution over whole sets, which a head that is ``joint`` needs to be told apart.

        Args:
            features, sites: as for :meth:`forward`.
            sets: int64 ``[S]`` or ``[B, S]``, the set of every site; None if all sites are one set.
            look: for heads that ask the network again.
        """
        return self(features, sites)
