"""Any-order transformer: the library's default for images, tables and short sequences."""

from __future__ import annotations

from ancestral.generator import Generator
from ancestral.heads import Categorical, Head, LogisticMixture, Nested
from ancestral.model import Model
from ancestral.networks import CausalTransformer, QueryTransformer
from ancestral.order import RandomOrders
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import by_modality


@recipe(
    "any-order",
    title="Any-order query-stream transformer",
    paper="arXiv:1906.08237",
    authors="after Yang et al. (2019), XLNet; Uria et al. (2014), arXiv:1310.1757",
    tiny=dict(width=16, depth=2, heads=2),
    claim=Claim("one network answers every conditional exactly, at a cost in bits that stays small", "digits"),
)
def any_order(
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    dropout: float = 0.1,
    data: str = "images",
    head: str = "categorical",
) -> Model:
    """Content tokens carry what is known, position-only queries ask for what is not.

    Args:
        width, depth, heads, dropout: of the transformer.
        data: modality: images, table or sequences.
        head: categorical; logistic (ordered levels); colour values at one pixel are always drawn in turn.
    """
    tokenizer = by_modality(data)
    inner: Head = LogisticMixture() if head == "logistic" else Categorical()
    colours = Nested(
        Generator(CausalTransformer(width // 2, 1), LogisticMixture() if head == "logistic" else Categorical())
    )
    return Model(
        tokenizer,
        RandomOrders("raster"),
        QueryTransformer(width, depth, heads, dropout),
        lambda space: colours if space.event else inner,
        training=dict(lr=2e-3, batch_size=128),
    )
