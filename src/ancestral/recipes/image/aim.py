"""AiM: autoregressive images with Mamba."""

from __future__ import annotations

from ancestral.heads.fitting import fitting
from ancestral.model import Model
from ancestral.networks.state_space import GroupedMamba
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import Pixels


@recipe(
    "aim",
    title="Scalable Autoregressive Image Generation with Mamba",
    paper="arXiv:2408.12245",
    authors="Li, Yang, Wang, Qiu, Chou, Li, Li (2024)",
    differs_from="gpt",
    tiny=dict(width=16, depth=2, state=4, groups=2, heads=2),
    toy="grid",
    claim=Claim("as good as causal transformers of equal size, at constant memory and time per step"),
)
def aim(width: int = 64, depth: int = 4, state: int = 32, groups: int = 4, heads: int = 4) -> Model:
    """Next-pixel prediction in raster order by selective state spaces, without scans in further directions.

    Learned positions tell the network where in the image it is; the class is the token that comes first, and by
    adaLN-group shifts, scales and gates each layer. Sampling carries a state of constant size instead of keys and
    values.

    Layers are Mamba-2's, as the paper's; gates begin at 1. On pixels, each with its colours in turn; the paper's tokens
    are those of a VQ autoencoder.

    Reference:
        Li et al. Scalable autoregressive image generation with Mamba. 2024, arXiv:2408.12245.

    Args:
        width, depth: of the network.
        state: numbers that every inner channel remembers.
        groups: of layers that share a modulation by the class.
        heads: that decay by one number each, a divisor of ``2 * width``; 0 for layers of the first Mamba, where every
            number decays by itself.
    """
    network = GroupedMamba(width, depth, state, groups, heads)
    return Model(Pixels(), "raster", network, fitting(), training=dict(lr=2e-3, batch_size=64))
