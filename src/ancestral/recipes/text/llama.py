"""Llama: the open language model whose block most others took over."""

from __future__ import annotations

from ancestral.heads import Categorical, Shared
from ancestral.model import Model
from ancestral.networks import LanguageTransformer
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import BPE, Bytes, Symbols, Tokenizer, Vocabulary


@recipe(
    "llama",
    title="LLaMA: Open and Efficient Foundation Language Models",
    paper="arXiv:2302.13971",
    authors="Touvron et al. (2023)",
    differs_from="gpt",
    tiny=dict(width=16, depth=2, heads=4, kv_heads=2, tokens="symbols", length=3),
    toy="tokens",
    claim=Claim("published weights give the same text and perplexity as in transformers", "language_parity"),
)
def llama(
    width: int = 256,
    depth: int = 6,
    heads: int | None = None,
    kv_heads: int | None = None,
    head: int | None = None,
    hidden: int | None = None,
    theta: float = 10000.0,
    factors: tuple[float, ...] = (),
    epsilon: float = 1e-5,
    bias: tuple[str, ...] = (),
    tied: bool = True,
    dropout: float = 0.0,
    tokens: str = "bytes",
    length: int | None = 256,
    vocab: int = 4096,
    streaming: bool = True,
) -> Model:
    """Predict every token from those before it, with RMSNorm, SwiGLU and rotary positions.

    ``ancestral.load`` builds this from a GGUF file or a Hugging Face folder of the family (Llama 1 to 3, Mistral,
    Qwen 2, SmolLM): then ``tokens`` is "vocabulary".

    Reference:
        Touvron et al. LLaMA: open and efficient foundation language models. 2023, arXiv:2302.13971.
        Ainslie et al. GQA: training generalized multi-query transformer models. 2023, arXiv:2305.13245 (kv_heads).

    Args:
        width, depth, heads, kv_heads, head, hidden, theta, factors, epsilon, bias, dropout: of the transformer.
        tied: the output weights are the embedding's.
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
        width, depth, heads, kv_heads, head, hidden,
        theta=theta, factors=factors, epsilon=epsilon, bias=bias, tied=tied, dropout=dropout,
    )  # fmt: skip
    return Model(
        tokenizers[tokens],
        "raster",
        network,
        Shared(network) if tied else Categorical(per_site=False),
        training=dict(lr=2e-3, batch_size=32, weight_decay=0.1),
    )
