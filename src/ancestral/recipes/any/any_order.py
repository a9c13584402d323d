"""Any-order transformer: the library's default for images, tables and short sequences."""

from __future__ import annotations

from ancestral.heads.fitting import fitting
from ancestral.model import Model
from ancestral.networks import QueryTransformer
from ancestral.order import RandomOrders
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import by_modality


@recipe(
    "any-order",
    title="Any-order query-stream transformer",
    paper="arXiv:1906.08237",
    authors="after Yang et al. (2019), XLNet; Uria et al. (2014), arXiv:1310.1757",
    tiny=dict(width=16, depth=2, heads=2),
    toy="grid",
    claim=Claim("one network answers every conditional exactly, at a cost in bits that stays small", "digits"),
)
def any_order(
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    dropout: float = 0.1,
    data: str = "images",
    head: str = "auto",
) -> Model:
    """Content tokens carry what is known, position-only queries ask for what is not.

    Trained on a fresh random order per item, so that any subset of the sites can be known and the rest drawn in
    any order, by the chain rule and without approximation.

    Reference:
        Yang, Dai, Yang, Carbonell, Salakhutdinov, Le. XLNet: generalized autoregressive pretraining for language
        understanding. 2019, arXiv:1906.08237 (two-stream attention).
        Uria, Murray, Larochelle. A deep and tractable density estimator. 2014, arXiv:1310.1757 (random orders).

    Args:
        width, depth, heads, dropout: of the transformer.
        data: modality: images, table or sequences.
        head: auto, categorical or logistic (ordered levels); colour values at one pixel are drawn in turn.
    """
    return Model(
        by_modality(data),
        RandomOrders("raster"),
        QueryTransformer(width, depth, heads, dropout),
        fitting(head, max(16, width // 2)),  # type: ignore[arg-type]
        training=dict(lr=2e-3, batch_size=128),
    )
