"""Wavelet-AR: next-token prediction over wavelet bit planes."""

from __future__ import annotations

from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers.wavelets import WaveletPlanes


@recipe(
    "wavelet-ar",
    title="Wavelets Are All You Need for Autoregressive Image Generation",
    paper="arXiv:2406.19997",
    authors="Mattar, Levy, Sharon, Dekel (2024)",
    differs_from="gpt",
    tiny=dict(width=16, depth=2, heads=2, dropout=0.0, levels=1, planes=None),
    toy="bits",
    claim=Claim("significant bits first make an order in which images can be learned and generated"),
)
def wavelet_ar(
    width: int = 128,
    depth: int = 6,
    heads: int = 4,
    dropout: float = 0.1,
    levels: int = 2,
    planes: int | None = 3,
) -> Model:
    """An image is a sequence of decisions, from the most significant bit of the coarsest coefficient on.

    Plane by plane and band by band a coefficient stays insignificant, becomes significant with a sign, or gets its next
    bit; the transformer knows a token's plane and place by rotary positions. With all planes (``planes=None``) the
    image comes back to the bit, and can be compressed; with fewer the model's probabilities are those of the planes.

    The published coder uses the biorthogonal 4.4 filters and spends single tokens on blocks of insignificant
    coefficients; here the filters are the reversible 5/3 ones and every coefficient has a token in each plane.

    Reference:
        Mattar, Levy, Sharon, Dekel. Wavelets are all you need for autoregressive image generation. 2024,
        arXiv:2406.19997.

    Args:
        width, depth, heads, dropout: of the causal transformer.
        levels: of the wavelet transform.
        planes: most significant bit planes kept; None for all.
    """
    return Model(
        WaveletPlanes(levels, planes),
        "raster",
        CausalTransformer(width, depth, heads, dropout, prefix=True),
        Categorical(),
        training=dict(lr=2e-3, batch_size=64),
    )
