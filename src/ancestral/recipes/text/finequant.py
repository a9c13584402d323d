"""FineQuant: weights in four bits, in groups as small as each matrix needs."""

from __future__ import annotations

from ancestral.heads import Shared
from ancestral.model import Model
from ancestral.networks import LanguageTransformer
from ancestral.quantisation import FineQuant
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import by_tokens


@recipe(
    "finequant",
    title="FineQuant: Unlocking Efficiency with Fine-Grained Weight-Only Quantization for LLMs",
    paper="arXiv:2308.09723",
    authors="Kim, Henry, Fahim, Hassan Awadalla (2023)",
    differs_from="llama",
    tiny=dict(width=16, depth=2, heads=4, smallest=8, tokens="symbols", length=3),
    toy="tokens",
    claim=Claim(
        "groups found from the weights alone keep four-bit weights within 3 % of the full weights' perplexity",
        "weight_quantisation",
    ),
)
def finequant(
    width: int = 256,
    depth: int = 6,
    heads: int | None = None,
    bits: int = 4,
    group: int | None = None,
    shrink: float = 0.95,
    smallest: int = 32,
    embeddings: int | None = 8,
    search: bool = False,
    between: bool = False,
    dropout: float = 0.0,
    tokens: str = "bytes",
    length: int | None = 256,
    vocab: int = 4096,
    streaming: bool = True,
) -> Model:
    """A language model that is trained with full weights and then kept, scored and drawn from with rounded ones.

    Any other model takes the same step by ``model.quantise(bits=4)``, a loaded language model among them; no data are
    needed for it. The paper's kernels multiply by weights that are expanded on the fly, in half precision.

    Reference:
        Kim, Henry, Fahim, Hassan Awadalla. FineQuant: unlocking efficiency with fine-grained weight-only quantization
        for LLMs. 2023, arXiv:2308.09723.

    Args:
        width, depth, heads, dropout: of the transformer.
        bits: of the weights of linear maps.
        group: inputs that share a scale; None adapts it to each matrix, 0 takes whole rows.
        shrink: a group is halved if the mean range shrinks to this share or less.
        smallest: group that is not halved any more.
        embeddings: bits of the table of symbols, which is the output's as well; None leaves it as it is.
        search: take the scales of least squared error, not those of the ranges.
        between: let grids reach from the least weight of a group to its largest, rather than as far to both sides of 0.
        tokens: "bytes", "bpe" (learned from the data) or "symbols" (sequences, always with a stop symbol).
        length: tokens in a window, or at most in an item.
        vocab: byte-pair codes to learn.
        streaming: text as a stream of any length.
    """
    network = LanguageTransformer(width, depth, heads, dropout=dropout)
    return Model(
        by_tokens(tokens, length, vocab, streaming),
        "raster",
        network,
        Shared(network),
        training=dict(lr=2e-3, batch_size=32, weight_decay=0.1),
        quantisation=FineQuant(bits, group, shrink, smallest, embeddings, search, between),
    )
