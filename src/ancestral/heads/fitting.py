"""The head that suits a space, for recipes whose paper leaves the choice open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from ancestral.generator import Generator
from ancestral.heads.base import Head, needs_categories
from ancestral.heads.categorical import Categorical, LogisticMixture
from ancestral.heads.gaussian import GaussianMixture
from ancestral.heads.nested import Nested
from ancestral.networks.transformer import CausalTransformer
from ancestral.space import Space

Kind = Literal["auto", "categorical", "logistic"]


def fitting(kind: Kind = "auto", width: int = 32) -> Callable[[Space], Head]:
    """A function from a space to a head for it.

    Real values get a Gaussian mixture. Several categories per site (colour channels) are drawn in turn by a
    small causal transformer. "auto" is a free categorical, but a mixture of logistics for more than 64 ordered
    levels, which share statistical strength between neighbouring levels.

    Args:
        kind: auto, categorical or logistic.
        width: features of the transformer over the channels of one site.

    Raises:
        ValueError: unknown kind.
    """
    if kind not in ("auto", "categorical", "logistic"):
        raise ValueError(f"head {kind!r} is unknown; choose auto, categorical or logistic")

    def choose(space: Space) -> Head:
        if not space.discrete and kind == "auto":
            return GaussianMixture()
        needs_categories(space)
        logistic = kind == "logistic" or (kind == "auto" and space.ordinal and space.largest > 64)
        leaf: Head = LogisticMixture() if logistic else Categorical()
        return Nested(Generator(CausalTransformer(width, 1), leaf)) if space.event else leaf

    return choose
