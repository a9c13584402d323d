"""RAR: randomised autoregressive training, annealed to raster order."""

from __future__ import annotations

from ancestral.heads.fitting import fitting
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.order import RandomOrders
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import Pixels


@recipe(
    "rar",
    title="Randomized Autoregressive Visual Generation",
    paper="arXiv:2411.00776",
    authors="Yu, He, Deng, Shen, Chen (2024)",
    differs_from="sigma-gpt",
    tiny=dict(width=16, depth=2, heads=2, dropout=0.0),
    toy="grid",
    claim=Claim("annealing from random to raster order gives better raster models than raster order throughout"),
)
def rar(
    width: int = 128,
    depth: int = 6,
    heads: int = 4,
    dropout: float = 0.1,
    anneal: tuple[float, float] = (0.5, 0.75),
) -> Model:
    """A next-token transformer that learns from random orders first and ends with raster order only.

    In training a sequence is permuted uniformly with probability r and left in raster order otherwise; r falls
    linearly from 1 to 0 between two points of training. A target-aware position embedding, added to the input, tells
    which position comes next; it is of no further use once the order is fixed. Random orders make the network use
    context from all sides; sampling, scoring and coding are those of a plain raster model.

    On pixels, each with its colours in turn; the paper's tokens are those of a VQ autoencoder.

    Reference:
        Yu, He, Deng, Shen, Chen. Randomized autoregressive visual generation. 2024, arXiv:2411.00776.

    Args:
        width, depth, heads, dropout: of the causal transformer.
        anneal: shares of training at which r begins and ends to fall (in the authors' configuration: epochs 200 and
            300 of 400).
    """
    begin, end = anneal
    if not 0 <= begin <= end <= 1:
        raise ValueError(f"anneal={anneal} must be two shares of training, the first not after the second")
    return Model(
        Pixels(),
        RandomOrders("raster", anneal=(begin, end)),
        CausalTransformer(width, depth, heads, dropout, targets=True),
        fitting(),
        training=dict(lr=2e-3, batch_size=128),
    )
