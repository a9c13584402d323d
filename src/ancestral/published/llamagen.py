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
from ancestral.networks.prompted import CaptionedTransformer
from ancestral.published.weights import filled, fitting_tokenizer, llama_hidden, llama_layers, renamed
from ancestral.space import Space
from ancestral.tokenizers import Tokenizer

AGAINST = "its formulas written out again, at random weights"
CHECKED = "logits with and without a class, or a caption; guided greedy samples"

_RULES = (
    (r"^cls_embedding\.embedding_table\.weight$", "network.told.label.weight"),
    (r"^tok_embeddings\.weight$", "network.embed.table.weight"),
    (r"^norm\.weight$", "network.norm.weight"),
    (r"^output\.weight$", "head.weight"),
    (r"^cls_embedding\.cap_proj\.fc(\d)\.", r"network.caption\1."),
    (r"^cls_embedding\.uncond_embedding$", "network.nothing"),
    (r"^(?:freqs_cis|layers\.\d+\.attention\.kv_cache\..*)$", ""),
)


def load(state: dict[str, Tensor], config: dict[str, Any], tokenizer: Tokenizer | None) -> Model:
    """The class- or text-conditional model with the authors' weights, guided by one scale everywhere.

    Text-conditional models are told a caption's features by the condition's ``vector``, all ``cls_token_num`` rows in
    sequence, those of padding zero as in the authors' sampler; a ``label`` of 0 heeds it, and -1 withholds it.

    Args:
        state: under the authors' names.
        config: ``dim``, ``n_layer``, ``n_head``, ``n_kv_head``, ``multiple_of``, ``ffn_dim_multiplier``, ``norm_eps``,
            ``rope_base``, ``vocab_size``, ``block_size``, ``model_type``; ``num_classes`` and ``class_dropout_prob``
            of class-conditional models, ``cls_token_num`` and ``caption_dim`` of text-conditional ones.
        tokenizer: from ``load_published("llamagen_vq", ...)``.

    Raises:
        DataError: settings that no published model has, or weights that do not fit.
    """
    kind, tokens = config.get("model_type", "c2i"), config.get("cls_token_num", 1)
    if kind not in ("c2i", "t2i") or (kind == "c2i" and tokens != 1):
        raise DataError("LlamaGen is loaded with model_type c2i and one class token, or with model_type t2i")
    if config.get("rope_base", 10000) != 10000:
        raise DataError("LlamaGen is loaded with rope_base=10000 only")
    side = math.isqrt(config.get("block_size", 256))
    space = Space((side, side), config.get("vocab_size", 16384))
    width, depth, heads = config["dim"], config["n_layer"], config["n_head"]
    shared, hidden = config.get("n_kv_head") or heads, llama_hidden(config)
    eps = config.get("norm_eps", 1e-5)
    network: CausalTransformer
    if kind == "t2i":
        features = config.get("caption_dim", 2048)
        space = space.replace(classes=1, vector=tokens * features)
        network = CaptionedTransformer(width, depth, heads, tokens, features, shared, hidden, eps)
    else:
        space = space.replace(classes=config.get("num_classes", 1000))
        network = CausalTransformer(
            width, depth, heads, targets=False, prefix=True, source=True, shared=shared, hidden=hidden, eps=eps
        )
    model = Model(fitting_tokenizer(tokenizer, space), "raster", network, Categorical(per_site=False))
    tensors = renamed(llama_layers(state), _RULES)
    tensors["head.bias"] = torch.zeros(space.largest)
    tensors["network.first"] = torch.zeros(width)
    labels = tensors.get("network.told.label.weight")
    if labels is not None and config.get("class_dropout_prob", 0.1) == 0:  # such a model knows no withheld class
        tensors["network.told.label.weight"] = torch.cat([labels, torch.zeros(1, width)])
    return filled(model, tensors)
