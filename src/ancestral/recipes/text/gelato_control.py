"""GeLaTo: a hidden Markov model looks ahead, so that every text contains the words asked for."""

from __future__ import annotations

from ancestral.decoding.lexical import Containing
from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import by_tokens


@recipe(
    "gelato-control",
    title="Tractable Control for Autoregressive Language Generation",
    paper="arXiv:2304.07438",
    authors="Zhang, Dang, Peng, Van den Broeck (2023)",
    differs_from="gpt",
    tiny=dict(width=16, depth=2, heads=2, words=("b",), states=4, samples=64, tokens="symbols", length=3),
    toy="tokens",
    claim=Claim(
        "every text drawn contains the words asked for and is hardly less probable than free texts; beams of the model "
        "alone contain none",
        "decoding_control",
    ),
)
def gelato_control(
    width: int = 256,
    depth: int = 6,
    heads: int | None = None,
    words: tuple[str, ...] = (),
    states: int = 32,
    samples: int = 512,
    rounds: int = 20,
    weight: float = 1.0,
    dropout: float = 0.0,
    tokens: str = "bytes",
    length: int | None = 256,
    vocab: int = 4096,
    streaming: bool = True,
) -> Model:
    """A language model whose samples contain ``words``, and are otherwise as it would have them.

    A hidden Markov model is distilled from the model's own samples. Of it the probability that the words will all
    occur can be computed exactly, whatever has been written; the next token is drawn from the model's distribution
    times that. Scores and codes are the model's own. Any other model of text takes the same step by
    ``decoder=Containing(model.tokenizer, words)``, which also changes the words of a model that is there. The paper's
    hidden Markov model has 4,096 states and learns from millions of sentences.

    Reference:
        Zhang, Dang, Peng, Van den Broeck. Tractable control for autoregressive language generation. 2023,
        arXiv:2304.07438.

    Args:
        width, depth, heads, dropout: of the transformer.
        words: that every text shall contain; none leaves the draws as they are. A tuple in place of a word holds
            alternatives.
        states: of the hidden Markov model.
        samples: that it is distilled from, when first something is drawn.
        rounds: of expectation maximisation.
        weight: exponent of its probability that the words will occur.
        tokens: "bytes", "bpe" (learned from the data) or "symbols" (sequences, always with a stop symbol).
        length: tokens in a window, or at most in an item.
        vocab: byte-pair codes to learn.
        streaming: text as a stream of any length.
    """
    tokenizer = by_tokens(tokens, length, vocab, streaming)
    return Model(
        tokenizer,
        "raster",
        CausalTransformer(width, depth, heads, dropout, targets=False),
        Categorical(per_site=False),
        decoder=Containing(tokenizer, tuple(words), states, samples, rounds, weight),
        training=dict(lr=2e-3, batch_size=32, weight_decay=0.1),
    )
