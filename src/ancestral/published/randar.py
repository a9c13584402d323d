"""RandAR's transformer (ziqipang/RandAR, ``RandAR.model.randar_gpt.RandARTransformer``)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ancestral.decoding.parallel import RandomSets
from ancestral.errors import DataError
from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks.instructed import InstructedTransformer
from ancestral.order import RandomOrders
from ancestral.published.weights import filled, fitting_tokenizer, llama_hidden, llama_layers, renamed
from ancestral.space import Space
from ancestral.tokenizers import Tokenizer

AGAINST = "outputs of the authors' code"
CHECKED = "logits and loss in random orders, guided greedy samples in random sets; shared keys and values too"

_RULES = (
    (r"^cls_embedding\.embedding_table\.weight$", "network.told.label.weight"),
    (r"^tok_embeddings\.weight$", "network.embed.table.weight"),
    (r"^pos_instruct_embeddings$", "network.instruction.weight"),
    (r"^norm\.weight$", "network.norm.weight"),
    (r"^output\.weight$", "head.weight"),
    (r"^freqs_cis$", ""),
)


def load(state: dict[str, Tensor], config: dict[str, Any], tokenizer: Tokenizer | None) -> Model:
    """The class-conditional model with the authors' weights, decoded in random sets on their schedule.

    The sites of a set follow each other by number, where the authors' follow as they were drawn.

    Args:
        state: under the authors' names.
        config: ``dim``, ``n_layer``, ``n_head``, ``n_kv_head``, ``multiple_of``, ``ffn_dim_multiplier``, ``norm_eps``,
            ``rope_base``, ``num_classes``, ``vocab_size``, ``block_size``, ``num_inference_steps``, ``zero_class_qk``.
        tokenizer: LlamaGen's, from ``load_published("llamagen_vq", ...)``.

    Raises:
        DataError: a text-conditional model, or settings that no published model has.
    """
    if config.get("model_type", "c2i") != "c2i" or config.get("cls_token_num", 1) != 1:
        raise DataError("only the class-conditional RandAR models can be loaded")
    if config.get("rope_base", 10000) != 10000 or not config.get("zero_class_qk", True):
        raise DataError("RandAR is loaded with rope_base=10000 and zero_class_qk=True only")
    side = math.isqrt(config.get("block_size", 256))
    space = Space((side, side), config["vocab_size"], classes=config["num_classes"])
    heads, shared = config["n_head"], config.get("n_kv_head") or config["n_head"]
    network = InstructedTransformer(
        config["dim"],
        config["n_layer"],
        heads,
        published=True,
        shared=shared,
        hidden=llama_hidden(config),
        eps=config.get("norm_eps", 1e-5),
    )
    model = Model(
        fitting_tokenizer(tokenizer, space),
        RandomOrders("raster"),
        network,
        Categorical(per_site=False),
        decoder=RandomSets(config.get("num_inference_steps", 88), ramp="before"),
    )
    tensors = renamed(llama_layers(state), _RULES)
    tensors["head.bias"] = torch.zeros(space.largest)
    tensors["network.first"] = torch.zeros(config["dim"])
    return filled(model, tensors)
