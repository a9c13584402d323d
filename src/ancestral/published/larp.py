"""LARP's model of video codes (hywang66/LARP, ``models.larp_ar.LARP_AR``)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ancestral.errors import DataError
from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.published.weights import filled, fitting_tokenizer, llama_hidden, llama_layers, pick, renamed
from ancestral.space import Space
from ancestral.tokenizers import Tokenizer

AGAINST = "its formulas written out again, at random weights"
CHECKED = "logits with and without a class, guided greedy samples"

_RULES = (
    (r"^cls_embedding\.embedding_table\.weight$", "network.told.label.weight"),
    (r"^tok_embeddings\.weight$", "network.embed.table.weight"),
    (r"^norm\.weight$", "network.norm.weight"),
    (r"^output\.weight$", "head.weight"),
    (r"^layers\.\d+\.attention\.kv_cache\..*$", ""),
)


def load(state: dict[str, Tensor], config: dict[str, Any], tokenizer: Tokenizer | None) -> Model:
    """The class-conditional model with the authors' weights, guided by one scale everywhere.

    Args:
        state: under the authors' names.
        config: ``dim``, ``n_layer``, ``n_head``, ``n_kv_head``, ``multiple_of``, ``ffn_dim_multiplier``, ``norm_eps``,
            ``num_classes``, ``vocab_size``, ``max_seq_len``.
        tokenizer: from ``load_published("larp_tokenizer", ...)``.

    Raises:
        DataError: a model of frame prediction, or weights that do not fit.
    """
    if config.get("frame_prediction") or config.get("cls_token_num", 1) != 1:
        raise DataError("only the class-conditional LARP models can be loaded, not those of frame prediction")
    n, width = config.get("max_seq_len", 1024), config["dim"]
    space = Space((n,), config.get("vocab_size", 8192), classes=config.get("num_classes", 101))
    network = CausalTransformer(
        width,
        config["n_layer"],
        config["n_head"],
        prefix=True,
        rotary=False,
        shared=config.get("n_kv_head") or config["n_head"],
        hidden=llama_hidden(config),
        eps=config.get("norm_eps", 1e-5),
    )
    model = Model(fitting_tokenizer(tokenizer, space), "raster", network, Categorical(per_site=False))
    state = dict(state)
    tensors = {
        "network.target.weight": pick(state, "abs_pe")[0],
        "network.source.weight": torch.zeros(n, width),
        "network.first": torch.zeros(width),
        "head.bias": torch.zeros(space.largest),
    }
    return filled(model, tensors | renamed(llama_layers(state), _RULES))
