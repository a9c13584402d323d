"""Networks: what may each site see?"""

from ancestral.networks.base import Cache, Network, SequenceNetwork
from ancestral.networks.causal_convolution import CausalConvolution
from ancestral.networks.convolution import GatedConvolution
from ancestral.networks.language import LanguageTransformer
from ancestral.networks.masked import MaskedTransformer
from ancestral.networks.masked_convolution import MaskedConvolution
from ancestral.networks.masked_dense import MADE, NADE, DeepNADE
from ancestral.networks.mixtures import ClassMixture, Ensemble, Factor
from ancestral.networks.recurrent import Mamba, Recurrent
from ancestral.networks.specialist import Specialist
from ancestral.networks.transformer import CausalTransformer, QueryTransformer

__all__ = [
    "MADE",
    "NADE",
    "Cache",
    "CausalConvolution",
    "CausalTransformer",
    "ClassMixture",
    "DeepNADE",
    "Ensemble",
    "Factor",
    "GatedConvolution",
    "LanguageTransformer",
    "Mamba",
    "MaskedConvolution",
    "MaskedTransformer",
    "Network",
    "QueryTransformer",
    "Recurrent",
    "SequenceNetwork",
    "Specialist",
]
