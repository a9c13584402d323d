"""GPT: the plain language model."""

from __future__ import annotations

from ancestral.decoding.mixing import NGramMixture
from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import BPE, Bytes, Symbols, Tokenizer


@recipe(
    "gpt",
    title="Language Models are Unsupervised Multitask Learners",
    paper="GPT-2, OpenAI 2019",
    authors="Radford, Wu, Child, Luan, Amodei, Sutskever (2019)",
    tiny=dict(width=16, depth=2, heads=2, dropout=0.0, tokens="symbols", length=3),
    toy="tokens",
    claim=Claim(
        "with counts of strings mixed in (ngrams=8), ten minutes of training code text in fewer bits than xz, bz2 and "
        "PPMd that have read the same text",
        "shakespeare",
    ),
)
def gpt(
    width: int = 256,
    depth: int = 6,
    heads: int | None = None,
    dropout: float = 0.1,
    tokens: str = "bytes",
    length: int | None = 256,
    vocab: int = 4096,
    streaming: bool = True,
    ngrams: int = 0,
) -> Model:
    """Predict every token from those before it.

    The block is today's: RMSNorm before each layer, rotary positions and SwiGLU, where GPT-2 had LayerNorm, learned
    positions and GELU. Text is one long stream seen through a window; with ``streaming=False`` every document is an
    item of its own that ends with a stop symbol.

    Reference:
        Radford et al. Language models are unsupervised multitask learners. 2019.
        Touvron et al. LLaMA: open and efficient foundation language models. 2023, arXiv:2302.13971 (the block).

    Args:
        width, depth, heads, dropout: of the transformer.
        tokens: "bytes", "bpe" (learned from the data) or "symbols" (sequences, always with a stop symbol).
        length: tokens in a window, or at most in an item.
        vocab: byte-pair codes to learn.
        streaming: text as a stream of any length.
        ngrams: if positive, mix in what followed the last 1 to ``ngrams`` tokens in the training text and in the text
            so far (:class:`ancestral.decoding.mixing.NGramMixture`); 8 suits bytes. The model then holds that text.
    """
    tokenizers: dict[str, Tokenizer] = {
        "bytes": Bytes(length, streaming),
        "bpe": BPE(vocab, length, streaming),
        "symbols": Symbols(length),
    }
    if tokens not in tokenizers:
        raise ValueError(f"tokens={tokens!r} is unknown; choose {', '.join(tokenizers)}")
    if ngrams < 0 or (ngrams and (not streaming or tokens == "symbols")):
        raise ValueError(f"ngrams={ngrams} must be 0, or positive for text as a stream (streaming=True)")
    return Model(
        tokenizers[tokens],
        "raster",
        CausalTransformer(width, depth, heads, dropout, targets=False),
        Categorical(per_site=False),
        training=dict(lr=2e-3, batch_size=32, weight_decay=0.1),
        mixture=NGramMixture(ngrams) if ngrams else None,
    )
