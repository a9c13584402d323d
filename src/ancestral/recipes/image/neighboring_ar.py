"""NAR: neighbouring autoregressive modelling."""

from __future__ import annotations

from ancestral.heads.directions import Directions
from ancestral.model import Model
from ancestral.networks.frontier import FrontierTransformer
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import Pixels


@recipe(
    "neighboring-ar",
    title="Neighboring Autoregressive Modeling for Efficient Visual Generation",
    paper="arXiv:2503.10696",
    authors="He, He, He, Chen, Zhou, Zhang, Zhuang (2025)",
    differs_from="gpt",
    tiny=dict(width=16, depth=2, heads=2, dropout=0.0),
    toy="grid",
    claim=Claim("2n - 1 passes for an n x n image, at better quality than other parallel orders"),
)
def neighboring_ar(width: int = 128, depth: int = 6, heads: int = 4, dropout: float = 0.1) -> Model:
    """Outpaint from a corner: all tokens at the same Manhattan distance at once, each from its nearest neighbours.

    The k-th step draws the k-th diagonal, so that an n x n image takes 2 n - 1 steps. Every drawn token predicts its
    neighbour on the right by one head and the neighbour below by another; where two drawn neighbours predict the
    same token their logits are averaged. A token attends to those no farther from the corner than itself.

    The tokens of a diagonal are drawn independently given all earlier ones, so that probabilities are exact but the
    model cannot express what only they share.

    On grey pixels; the paper's tokens are those of a VQ autoencoder.

    Reference:
        He, He, He, Chen, Zhou, Zhang, Zhuang. Neighboring autoregressive modeling for efficient visual generation.
        2025, arXiv:2503.10696.

    Args:
        width, depth, heads, dropout: of the transformer.
    """
    return Model(
        Pixels(),
        "neighbour",
        FrontierTransformer(width, depth, heads, dropout),
        Directions(),
        training=dict(lr=2e-3, batch_size=128),
    )
