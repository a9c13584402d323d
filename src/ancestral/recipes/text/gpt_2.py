"""GPT-2 as it was published, for its weights."""

from __future__ import annotations

from ancestral.heads import Shared
from ancestral.model import Model
from ancestral.networks import LanguageTransformer
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import BPE, Bytes, Symbols, Tokenizer, Vocabulary


@recipe(
    "gpt-2",
    title="Language Models are Unsupervised Multitask Learners (the network as published)",
    paper="GPT-2, OpenAI 2019",
    authors="Radford, Wu, Child, Luan, Amodei, Sutskever (2019)",
    differs_from="gpt",
    tiny=dict(width=16, depth=2, heads=2, dropout=0.0, tokens="symbols", length=3),
    toy="tokens",
    claim=Claim("published weights give the same text and perplexity as in transformers", "language_parity"),
)
def gpt_2(
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    hidden: int | None = None,
    epsilon: float = 1e-5,
    dropout: float = 0.1,
    tokens: str = "bpe",
    length: int | None = 1024,
    vocab: int = 4096,
    streaming: bool = True,
) -> Model:
    """Predict every token from those before it, with LayerNorm, GELU, learned positions and tied embeddings.

    ``ancestral.load`` builds this from a Hugging Face folder or a GGUF file: then ``tokens`` is "vocabulary".
    The recipe ``gpt`` is the same system with today's block.

    Reference:
        Radford et al. Language models are unsupervised multitask learners. 2019.

    Args:
        width, depth, heads, hidden, epsilon, dropout: of the transformer.
        tokens: "bytes", "bpe" (learned from the data), "symbols" (sequences) or "vocabulary" (of loaded weights).
        length: tokens in a window, or at most in an item.
        vocab: byte-pair codes to learn.
        streaming: text as a stream of any length.
    """
    tokenizers: dict[str, Tokenizer] = {
        "bytes": Bytes(length, streaming),
        "bpe": BPE(vocab, length, streaming),
        "symbols": Symbols(length),
        "vocabulary": Vocabulary(length),
    }
    if tokens not in tokenizers:
        raise ValueError(f"tokens={tokens!r} is unknown; choose {', '.join(tokenizers)}")
    network = LanguageTransformer(
        width, depth, heads, hidden=hidden, gated=False, epsilon=epsilon, bias=("qkv", "out", "mlp"), dropout=dropout
    )
    return Model(
        tokenizers[tokens],
        "raster",
        network,
        Shared(network),
        training=dict(lr=1e-3, batch_size=32, weight_decay=0.1),
    )
