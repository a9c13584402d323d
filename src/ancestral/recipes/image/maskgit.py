"""MaskGIT: masked generation with confidence."""

from __future__ import annotations

from ancestral.decoding.decoders import Confidence
from ancestral.heads.fitting import fitting
from ancestral.model import Model
from ancestral.networks import MaskedTransformer
from ancestral.objectives import MaskedLikelihood
from ancestral.order import RandomMasks
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import Pixels


@recipe(
    "maskgit",
    title="MaskGIT: Masked Generative Image Transformer",
    paper="arXiv:2202.04200",
    authors="Chang, Zhang, Jiang, Liu, Freeman (2022)",
    differs_from="ardm",
    tiny=dict(width=16, depth=2, heads=2, dropout=0.0, passes=3),
    toy="grid",
    claim=Claim("8 to 12 passes give samples as good as one pass per token"),
)
def maskgit(
    width: int = 128,
    depth: int = 6,
    heads: int = 4,
    dropout: float = 0.1,
    passes: int = 8,
    choice_temperature: float = 4.5,
) -> Model:
    """Predict all hidden tokens at once, keep the ones the network is sure of, and ask again for the rest.

    Training hides a share ``cos(pi/2 * u)`` of the tokens, u uniform, and minimises the cross-entropy of the hidden
    ones. Decoding starts from nothing; after step t of T the share ``cos(pi/2 * t/T)`` is still hidden, the tokens
    hidden again being those of lowest confidence (log-probability plus Gumbel noise that fades). A partly known
    image is completed in the same way, by starting from what is known.

    The samples of the confidence rule follow no tractable distribution. Scores are those of random sets on the same
    cosine schedule, in ``passes`` passes, which ``sample(decoder=Ancestral())`` draws from.

    On pixels, each with its colours in turn; the paper's tokens are those of a VQ autoencoder, and its loss smooths
    labels by 0.1.

    Reference:
        Chang, Zhang, Jiang, Liu, Freeman. MaskGIT: masked generative image transformer. 2022, arXiv:2202.04200.

    Args:
        width, depth, heads, dropout: of the bidirectional transformer.
        passes: T, of the sampler.
        choice_temperature: size of the noise on the confidence at first.
    """
    return Model(
        Pixels(),
        RandomMasks(passes),
        MaskedTransformer(width, depth, heads, dropout),
        fitting("categorical"),
        objective=MaskedLikelihood("cosine", "mean"),
        decoder=Confidence(passes, choice_temperature),
        training=dict(lr=2e-3, batch_size=128),
    )
