"""Heads: what is the distribution at a site?"""

from ancestral.heads.base import Density, Distribution, Finite, Head
from ancestral.heads.categorical import Categorical, LogisticMixture
from ancestral.heads.gaussian import GaussianMixture
from ancestral.heads.loglinear import LogLinear
from ancestral.heads.nested import Nested
from ancestral.heads.shared import Shared

__all__ = [
    "Categorical",
    "Density",
    "Distribution",
    "Finite",
    "GaussianMixture",
    "Head",
    "LogLinear",
    "LogisticMixture",
    "Nested",
    "Shared",
]
