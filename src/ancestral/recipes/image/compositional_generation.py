"""Compositional generation: a model for each fact about an image, multiplied."""

from __future__ import annotations

from ancestral.decoding.composition import WholeProduct
from ancestral.heads import Categorical, LogLinear
from ancestral.model import Model
from ancestral.networks import CausalTransformer, Ensemble, Factor
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import Pixels


@recipe(
    "compositional-generation",
    title="Compositional Generative Modeling: A Single Model is Not All You Need",
    paper="arXiv:2402.01103",
    authors="Du, Kaelbling (2024)",
    differs_from="aim",
    tiny=dict(factors=(2, 1), width=16, depth=1, heads=2, particles=4),
    toy="grid",
    claim=Claim(
        "models of one fact each, multiplied, draw combinations of facts that were never seen together, where one "
        "model of both cannot, and need fewer data",
        "composition",
    ),
)
def compositional_generation(
    factors: tuple[int, ...] = (10,),
    width: int = 96,
    depth: int = 4,
    heads: int | None = None,
    dropout: float = 0.0,
    particles: int = 1,
) -> Model:
    """Labels that stand for several facts, a small model for each, and the product of what they say.

    With ``m`` facts that are independent given the image, ``p(x | f_1 ... f_m)`` is proportional to
    ``p(x | f_1) ... p(x | f_m) / p(x)^(m - 1)``. Each of the ``m + 1`` models learns by itself. Their product is taken
    pixel by pixel, which is a distribution with exact scores, samples and codes, but not quite the product of whole
    images: with ``particles`` above 1, samples (not scores) are corrected to that by importance resampling, in the
    place of the paper's Markov chains. What differs: the paper multiplies diffusion and other energy-based models.

    Reference:
        Du, Kaelbling. Compositional generative modeling: a single model is not all you need. 2024, arXiv:2402.01103.

    Args:
        factors: how many values each fact has; a label is the number with these digits, the last one counting fastest,
            so that their product is the number of labels.
        width, depth, heads, dropout: of each model.
        particles: candidates per image; 1 draws pixel by pixel.
    """
    facts: list[int | None] = [*range(len(factors)), *([None] if len(factors) > 1 else [])]
    powers = [1.0] * len(factors) + ([1.0 - len(factors)] if len(factors) > 1 else [])
    return Model(
        Pixels(),
        "raster",
        Ensemble(
            [(Factor(CausalTransformer(width, depth, heads, dropout), factors, fact), Categorical()) for fact in facts]
        ),
        LogLinear(powers),
        decoder=WholeProduct(particles),
        label_dropout=0.0,
        training=dict(lr=2e-3, batch_size=64),
    )
