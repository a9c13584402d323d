"""ARPG's transformer (hp-l33/ARPG, ``models.arpg.Transformer``)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ancestral.decoding.parallel import RandomSets
from ancestral.errors import DataError
from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks.cross import CrossTransformer
from ancestral.order import RandomOrders
from ancestral.published.weights import filled, fitting_tokenizer, joined, llama_hidden, pick, renamed
from ancestral.space import Space
from ancestral.tokenizers import Tokenizer

AGAINST = "its formulas written out again, at random weights"
CHECKED = "logits in random orders, guided greedy samples in random sets of both schedules"

_RULES = (
    (r"^layers\.self_dec\.", "network.blocks."),
    (r"^layers\.cross_dec\.", "network.cross."),
    (r"\.attn\.to_q\.", ".query."),
    (r"\.attn\.proj\.", ".out."),
    (r"\.attn_norm\.", ".norm."),
    (r"\.ffn\.w2\.", ".mlp.outer."),
    (r"\.ffn_norm\.", ".norm2."),
    (r"^layers\.norm\.", "network.between."),
    (r"^norm\.", "network.norm."),
    (r"^head\.", "head."),
    (r"^freqs_cis$", ""),
)


def load(state: dict[str, Tensor], config: dict[str, Any], tokenizer: Tokenizer | None) -> Model:
    """The class-conditional model with the authors' weights, drawn in random sets on their schedule.

    One table embeds codes, the query, classes, the withheld class and a token that is not used, in this sequence. A
    set's guidance grows with the share drawn once it is ("linear") or is the same everywhere ("constant").

    Args:
        state: under the authors' names.
        config: ``dim``, ``n_layer``, ``n_head``, ``multiple_of``, ``ffn_dim_multiplier``, ``norm_eps``, ``rope_base``,
            ``num_classes``, ``vocab_size``, ``block_size``; and their sampler's ``num_iter``, ``cfg_schedule`` and
            ``sample_schedule``.
        tokenizer: LlamaGen's, from ``load_published("llamagen_vq", ...)``.

    Raises:
        DataError: settings that no published model has, or weights that do not fit.
    """
    if config.get("model_type", "c2i") != "c2i" or config.get("cls_token_num", 1) != 1:
        raise DataError("only the class-conditional ARPG models can be loaded")
    if config.get("rope_base", 10000) != 10000:
        raise DataError("ARPG is loaded with rope_base=10000 only")
    side = math.isqrt(config.get("block_size", 256))
    codes, classes = config.get("vocab_size", 16384), config.get("num_classes", 1000)
    space = Space((side, side), codes, classes=classes)
    network = CrossTransformer(
        config["dim"],
        config["n_layer"] // 2 * 2,
        config["n_head"],
        published=True,
        hidden=llama_hidden(config),
        eps=config.get("norm_eps", 1e-5),
    )
    decoder = RandomSets(
        config.get("num_iter", 64),
        ramp="constant" if config.get("cfg_schedule", "linear") == "constant" else "with",
        schedule=config.get("sample_schedule", "arccos"),
    )
    model = Model(
        fitting_tokenizer(tokenizer, space),
        RandomOrders("raster"),
        network,
        Categorical(per_site=False),
        decoder=decoder,
    )
    state = dict(state)
    table = pick(state, "embeddings.weight")
    for layer in range(config["n_layer"] // 2):
        for part in (f"self_dec.{layer}", f"cross_dec.{layer}"):
            joined(state, f"layers.{part}.mlp.inner.weight", *(f"layers.{part}.ffn.{w}.weight" for w in ("w1", "w3")))
        at = f"layers.self_dec.{layer}."
        joined(state, f"{at}qkv.weight", *(f"{at}attn.to_{letter}.weight" for letter in "qkv"))
    joined(state, "network.keys.weight", "layers.to_k.weight", "layers.to_v.weight")
    tensors = renamed(state, _RULES) | {
        "network.embed.table.weight": table[:codes],
        "network.query": table[codes],
        "network.told.label.weight": table[codes + 1 : -1],
        "network.first": torch.zeros(config["dim"]),
        "head.bias": torch.zeros(codes),
    }
    return filled(model, tensors)
