"""LARP's model of video codes (hywang66/LARP, ``models.larp_ar.LARP_AR``)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ancestral.errors import DataError
from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.networks.prompted import ContinuingTransformer
from ancestral.published.weights import filled, fitting_tokenizer, llama_hidden, llama_layers, pick, renamed
from ancestral.space import Space
from ancestral.tokenizers import Tokenizer

AGAINST = "its formulas written out again, at random weights"
CHECKED = "logits with and without a class, guided greedy samples; logits and greedy samples behind known codes"

_RULES = (
    (r"^cls_embedding\.embedding_table\.weight$", "network.told.label.weight"),
    (r"^tok_embeddings\.weight$", "network.embed.table.weight"),
    (r"^norm\.weight$", "network.norm.weight"),
    (r"^output\.weight$", "head.weight"),
    (r"^layers\.\d+\.attention\.kv_cache\..*$", ""),
)


def load(state: dict[str, Tensor], config: dict[str, Any], tokenizer: Tokenizer | None) -> Model:
    """The class-conditional or frame-predicting model with the authors' weights, guided by one scale everywhere.

    Models of frame prediction are told the codes of a clip whose frames are known (the last known frame repeated to its
    end) by the condition's ``vector``; the sign that separates them from the clip drawn is put behind.

    Args:
        state: under the authors' names.
        config: ``dim``, ``n_layer``, ``n_head``, ``n_kv_head``, ``multiple_of``, ``ffn_dim_multiplier``, ``norm_eps``,
            ``num_classes``, ``vocab_size``, ``max_seq_len``, ``cls_token_num``, ``frame_prediction``.
        tokenizer: from ``load_published("larp_tokenizer", ...)``.

    Raises:
        DataError: settings that no published model has, or weights that do not fit.
    """
    n, width, codes = config.get("max_seq_len", 1024), config["dim"], config.get("vocab_size", 8192)
    frames, prompt = config.get("frame_prediction", False), config.get("cls_token_num", 1)
    if prompt != 1 and not frames:
        raise DataError("the class-conditional LARP models have one class token: cls_token_num=1")
    sizes = {
        "heads": config["n_head"],
        "shared": config.get("n_kv_head") or config["n_head"],
        "hidden": llama_hidden(config),
        "eps": config.get("norm_eps", 1e-5),
    }
    space = Space((n,), codes)
    network: CausalTransformer
    if frames:
        space = space.replace(vector=prompt - 1)
        network = ContinuingTransformer(width, config["n_layer"], known=prompt - 1, **sizes)
    else:
        space = space.replace(classes=config.get("num_classes", 101))
        network = CausalTransformer(width, config["n_layer"], prefix=True, rotary=False, **sizes)
    model = Model(fitting_tokenizer(tokenizer, space), "raster", network, Categorical(per_site=False))
    state = dict(state)
    places = pick(state, "abs_pe")[0]
    tensors = {
        "network.target.weight": places[prompt - 1 :],
        "network.source.weight": torch.zeros(n, width),
        "network.first": torch.zeros(width),
        "head.bias": torch.zeros(codes),
    }
    if frames:
        tensors["network.before.weight"] = places[: prompt - 1]
        table = pick(state, "tok_embeddings.weight")
        state["tok_embeddings.weight"], tensors["network.separator"] = table[:-1], table[-1]
    return filled(model, tensors | renamed(llama_layers(state), _RULES))
