"""LlamaGen's transformer (FoundationVision/LlamaGen, ``autoregressive.models.gpt.Transformer``)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ancestral.errors import DataError
from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.published.weights import filled, fitting_tokenizer, llama_hidden, llama_layers, renamed
from ancestral.space import Space
from ancestral.tokenizers import Tokenizer

AGAINST = "its formulas written out again, at random weights"
CHECKED = "logits with and without a class"

_RULES = (
    (r"^cls_embedding\.embedding_table\.weight$", "network.told.label.weight"),
    (r"^tok_embeddings\.weight$", "network.embed.table.weight"),
    (r"^norm\.weight$", "network.norm.weight"),
    (r"^output\.weight$", "head.weight"),
    (r"^freqs_cis$", ""),
)


def load(state: dict[str, Tensor], config: dict[str, Any], tokenizer: Tokenizer | None) -> Model:
    """The class-conditional model with the authors' weights.

    Args:
        state: under the authors' names.
        config: ``dim``, ``n_layer``, ``n_head``, ``n_kv_head``, ``multiple_of``, ``ffn_dim_multiplier``, ``norm_eps``,
            ``rope_base``, ``num_classes``, ``vocab_size``, ``block_size``.
        tokenizer: from ``load_published("llamagen_vq", ...)``.

    Raises:
        DataError: a text-conditional model, or settings that no published model has.
    """
    if config.get("model_type", "c2i") != "c2i" or config.get("cls_token_num", 1) != 1:
        raise DataError("only the class-conditional LlamaGen models can be loaded")
    if config.get("rope_base", 10000) != 10000:
        raise DataError("LlamaGen is loaded with rope_base=10000 only")
    side = math.isqrt(config.get("block_size", 256))
    space = Space((side, side), config.get("vocab_size", 16384), classes=config.get("num_classes", 1000))
    heads, shared = config["n_head"], config.get("n_kv_head") or config["n_head"]
    network = CausalTransformer(
        config["dim"],
        config["n_layer"],
        heads,
        targets=False,
        prefix=True,
        source=True,
        shared=shared,
        hidden=llama_hidden(config),
        eps=config.get("norm_eps", 1e-5),
    )
    model = Model(fitting_tokenizer(tokenizer, space), "raster", network, Categorical(per_site=False))
    tensors = renamed(llama_layers(state), _RULES)
    tensors["head.bias"] = torch.zeros(space.largest)
    tensors["network.first"] = torch.zeros(config["dim"])
    return filled(model, tensors)
