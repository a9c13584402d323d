"""Heads: what is the distribution at a site?"""

from ancestral.heads.base import Density, Distribution, Finite, Head
from ancestral.heads.categorical import Categorical, LogisticMixture
from ancestral.heads.diffusion import DiffusionHead
from ancestral.heads.flow import FlowHead
from ancestral.heads.gaussian import GaussianMixture
from ancestral.heads.loglinear import LogLinear
from ancestral.heads.nested import Nested
from ancestral.heads.shared import Shared

__all__ = [
    "Categorical",
    "Density",
    "DiffusionHead",
    "Distribution",
    "Finite",
    "FlowHead",
    "GaussianMixture",
    "Head",
    "LogLinear",
    "LogisticMixture",
    "Nested",
    "Shared",
]
