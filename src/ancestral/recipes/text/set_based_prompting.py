"""Set-based prompting: parts of a prompt that have no order."""

from __future__ import annotations

from ancestral.decoding.set_prompt import Marked
from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import by_tokens


@recipe(
    "set-based-prompting",
    title="Set-Based Prompting: Provably Solving the Language Model Order Dependency Problem",
    paper="arXiv:2406.06581",
    authors="McIlroy-Young, Brown, Olson, Zhang, Dwork (2024)",
    differs_from="gpt",
    tiny=dict(width=16, depth=2, heads=2, tokens="symbols", length=3),
    toy="tokens",
    claim=Claim(
        "what is drawn behind a prompt does not depend on the order of the parts that are marked as a set",
        "decoding_control",
    ),
)
def set_based_prompting(
    width: int = 256,
    depth: int = 6,
    heads: int | None = None,
    marks: tuple[str, str, str] = ("\x02", "\x1e", "\x03"),
    dropout: float = 0.0,
    tokens: str = "bytes",
    length: int | None = 256,
    vocab: int = 4096,
    streaming: bool = True,
) -> Model:
    """A language model that reads what stands between marks in a prompt as parts without an order.

    ``model.complete(["Drink\\x02tea\\x1ecoffee\\x03I choose"])``: the parts begin at the same position and do not see
    each other; what follows sees them all and stands behind the longest. What is drawn is exactly the same for every
    order of the parts. Training, scores and prompts without marks are those of any language model, and the marks
    themselves are not read. :func:`ancestral.decoding.set_prompt.complete_set` does the same for any other model, a
    loaded language model among them.

    Reference:
        McIlroy-Young, Brown, Olson, Zhang, Dwork. Set-based prompting: provably solving the language model order
        dependency problem. 2024, arXiv:2406.06581.

    Args:
        width, depth, heads, dropout: of the transformer.
        marks: one symbol each, before the first part, between two, and behind the last. Those given are control
            characters of ASCII (start of text, record separator, end of text).
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
        decoder=Marked(tokenizer, (marks[0], marks[1], marks[2])),
        training=dict(lr=2e-3, batch_size=32, weight_decay=0.1),
    )
