"""JPEG-LM: a language model of JPEG files."""

from __future__ import annotations

from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers.transforms import JPEGBytes


@recipe(
    "jpeg-lm",
    title="JPEG-LM: LLMs as Image Generators with Canonical Codec Representations",
    paper="arXiv:2408.08459",
    authors="Han, Ghazvininejad, Koh, Tsvetkov (2024)",
    differs_from="gpt",
    tiny=dict(width=16, depth=1, heads=2, dropout=0.0),
    toy="grid",
    claim=Claim("modelling JPEG bytes beats pixels and vector quantisation, above all for rare details"),
)
def jpeg_lm(
    width: int = 128, depth: int = 6, heads: int = 4, dropout: float = 0.1, quality: int = 25, length: int | None = None
) -> Model:
    """A plain language model reads the bytes of JPEG files, all written with one quality and the same tables.

    What all files share is left out and put back before a sample is decoded; what of a sample is no valid file stays
    grey. Probabilities are those of files, of which an image has one.

    The published model merges frequent byte pairs; here every byte is a token.

    Reference:
        Han, Ghazvininejad, Koh, Tsvetkov. JPEG-LM: LLMs as image generators with canonical codec representations.
        2024, arXiv:2408.08459.

    Args:
        width, depth, heads, dropout: of the causal transformer.
        quality: of the JPEG files, 1 to 95.
        length: most bytes per image; by default those of the longest training image.
    """
    return Model(
        JPEGBytes(quality, length),
        "raster",
        CausalTransformer(width, depth, heads, dropout, prefix=True),
        Categorical(),
        training=dict(lr=2e-3, batch_size=64),
    )
