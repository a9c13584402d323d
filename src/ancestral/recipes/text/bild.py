"""BiLD: a small model writes, a large one steps in and takes back."""

from __future__ import annotations

from ancestral.decoding.drafts import EarlyLayers
from ancestral.decoding.relaxed import BigLittle
from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.objectives import EarlyExit
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import BPE, Bytes, Symbols, Tokenizer


@recipe(
    "bild",
    title="Speculative Decoding with Big Little Decoder",
    paper="arXiv:2302.07863",
    authors="Kim, Mangalam, Moon, Malik, Mahoney, Gholami, Keutzer (2023)",
    differs_from="gpt",
    tiny=dict(width=16, depth=2, little=1, heads=2, tokens="symbols", length=3),
    toy="tokens",
    claim=Claim(
        "fallback and rollback draw with half the large model's time and hardly less quality", "speculative_decoding"
    ),
)
def bild(
    width: int = 256,
    depth: int = 6,
    little: int = 1,
    fallback: float = 0.6,
    rollback: float = 3.0,
    heads: int | None = None,
    dropout: float = 0.1,
    tokens: str = "bytes",
    length: int | None = 256,
    vocab: int = 4096,
    streaming: bool = True,
) -> Model:
    """A language model whose little model draws until it is unsure, and whose large one takes back what it doubts.

    The little model is the first ``little`` layers, trained along with the whole; the paper's is a network of its
    own (give ``BigLittle(SmallModel(...))`` as ``decoder=`` for that). Samples follow neither model; scores and codes
    are the large one's.

    Reference:
        Kim et al. Speculative decoding with Big Little Decoder. 2023, arXiv:2302.07863.

    Args:
        width, depth, heads, dropout: of the large transformer.
        little: layers of the little one.
        fallback: least probability of the little model's favourite.
        rollback: nats at which the large model takes a value back.
        tokens: "bytes", "bpe" (learned from the data) or "symbols" (sequences, always with a stop symbol).
        length: tokens in a window, or at most in an item.
        vocab: byte-pair codes to learn.
        streaming: text as a stream of any length.
    """
    tokenizers: dict[str, Tokenizer] = {
        "bytes": Bytes(length, streaming),
        "bpe": BPE(vocab, length, streaming),
        "symbols": Symbols(length),
    }
    if tokens not in tokenizers:
        raise ValueError(f"tokens={tokens!r} is unknown; choose {', '.join(tokenizers)}")
    return Model(
        tokenizers[tokens],
        "raster",
        CausalTransformer(width, depth, heads, dropout, targets=False),
        Categorical(per_site=False),
        objective=EarlyExit(little),
        decoder=BigLittle(EarlyLayers(little), fallback, rollback),
        training=dict(lr=2e-3, batch_size=32, weight_decay=0.1),
    )
