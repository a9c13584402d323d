"""GEAR: keys and values of earlier tokens in a few bits, with their errors corrected."""

from __future__ import annotations

from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.quantisation import Gear
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import by_tokens


@recipe(
    "gear",
    title="GEAR: An Efficient KV Cache Compression Recipe for Near-Lossless Generative Inference of LLM",
    paper="arXiv:2403.05527",
    authors="Kang, Zhang, Kundu, Jeong, Liu, Krishna, Zhao (2024)",
    differs_from="gpt",
    tiny=dict(width=16, depth=2, heads=2, group=4, rank=1, buffer=2, dropout=0.0, tokens="symbols", length=3),
    toy="tokens",
    claim=Claim(
        "keys and values in four bits, with extremes and a correction of low rank, keep perplexity within 1 %",
        "cache_compression",
    ),
)
def gear(
    width: int = 256,
    depth: int = 6,
    heads: int | None = None,
    bits: int = 4,
    group: int = 64,
    outliers: float = 0.02,
    rank: int = 2,
    buffer: int = 64,
    stairs: tuple[tuple[int, int], ...] = (),
    dropout: float = 0.1,
    tokens: str = "bytes",
    length: int | None = 256,
    vocab: int = 4096,
    streaming: bool = True,
) -> Model:
    """A language model that is trained as any other, and then sees earlier tokens through a compressed memory.

    Scores, samples and codes are all those of the compressed memory. Any other causal transformer takes the same step
    by ``ancestral.quantisation.keep(model.generator, Gear(bits=4))``, a loaded language model among them. What differs
    from the paper: a prompt is read a buffer at a time, each part seeing those before it compressed (the paper reads it
    whole and compresses it then), so that the corrections of low rank span a buffer, not a prompt.

    Reference:
        Kang et al. GEAR: an efficient KV cache compression recipe for near-lossless generative inference of LLM. 2024,
        arXiv:2403.05527.

    Args:
        width, depth, heads, dropout: of the transformer.
        bits: of keys and values.
        group: numbers that share a scale: of one feature at so many places (keys), or at one place (values).
        outliers: share of the largest and smallest numbers that are kept in 16 bits.
        rank: of the correction of each head's errors.
        buffer: tokens that stand as they are until they are compressed together.
        stairs: (bits, tokens) of those compressed last, newest first; older ones have ``bits``.
        tokens: "bytes", "bpe" (learned from the data) or "symbols" (sequences, always with a stop symbol).
        length: tokens in a window, or at most in an item.
        vocab: byte-pair codes to learn.
        streaming: text as a stream of any length.
    """
    network = CausalTransformer(width, depth, heads, dropout, targets=False)
    network.keeping = Gear(bits, group, outliers, rank, buffer, tuple((b, n) for b, n in stairs))
    return Model(
        by_tokens(tokens, length, vocab, streaming),
        "raster",
        network,
        Categorical(per_site=False),
        training=dict(lr=2e-3, batch_size=32, weight_decay=0.1),
    )
