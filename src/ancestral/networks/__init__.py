"""Networks: what may each site see?"""

from ancestral.networks.base import Cache, Network, SequenceNetwork
from ancestral.networks.transformer import CausalTransformer, MaskedTransformer, QueryTransformer

__all__ = [
    "Cache",
    "CausalTransformer",
    "MaskedTransformer",
    "Network",
    "QueryTransformer",
    "SequenceNetwork",
]
