"""Flover: a language model whose requests are fused token by token, whenever they come."""

from __future__ import annotations

from ancestral.decoding.continuous import Continuous
from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import by_tokens


@recipe(
    "flover",
    title="Flover: A Temporal Fusion Framework for Efficient Autoregressive Model Parallel Inference",
    paper="arXiv:2305.13484",
    authors="Yao, Alnaasan, Chen, Shafi, Subramoni, Panda (2023)",
    differs_from="gpt",
    tiny=dict(width=16, depth=2, heads=2, capacity=3, tokens="symbols", length=3),
    toy="tokens",
    claim=Claim(
        "fusing the token generation of requests that come at any time draws the same symbols, more of them per second "
        "and at lower latency than batches that wait to fill, or requests one after the other",
        "decoding/fusion",
    ),
)
def flover(
    width: int = 256,
    depth: int = 6,
    heads: int | None = None,
    dropout: float = 0.0,
    capacity: int = 64,
    prefill: int = 1024,
    tokens: str = "bytes",
    length: int | None = 256,
    vocab: int = 4096,
    streaming: bool = True,
) -> Model:
    """A GPT whose items are drawn in one batch that they join and leave at any step.

    Reading a prefix is kept apart from generating: prefixes of equal length are read together, then all streams share
    one step per symbol whatever the place that each has reached. Where a stream ends, the last row of the buffers of
    keys and values takes its place, so that the batch stays dense. `ancestral serve` runs the same engine for requests
    as they arrive. The paper's splits over several GPUs and its C++ kernels are not here.

    Reference:
        Yao et al. Flover: a temporal fusion framework for efficient autoregressive model parallel inference. 2023,
        arXiv:2305.13484.

    Args:
        width, depth, heads, dropout: of the transformer.
        capacity: items drawn together at most.
        prefill: symbols of prefixes read in one step at most.
        tokens: "bytes", "bpe" (learned from the data) or "symbols" (sequences, always with a stop symbol).
        length: tokens in a window, or at most in an item.
        vocab: byte-pair codes to learn.
        streaming: text as a stream of any length.
    """
    return Model(
        by_tokens(tokens, length, vocab, streaming),
        "raster",
        CausalTransformer(width, depth, heads, dropout, targets=False),
        Categorical(per_site=False),
        decoder=Continuous(capacity, prefill),
        training=dict(lr=2e-3, batch_size=32, weight_decay=0.1),
    )
