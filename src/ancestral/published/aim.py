"""AiM's Mamba (hp-l33/AiM, ``models.stage2.mixer_seq_simple.MambaLMHeadModel``)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ancestral.errors import DataError
from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks.state_space import GroupedMamba
from ancestral.published.weights import filled, fitting_tokenizer, pick, renamed
from ancestral.space import Space
from ancestral.tokenizers import Tokenizer

AGAINST = "its formulas written out again, at random weights"
CHECKED = "logits, guided greedy samples; Mamba-2 and Mamba layers, modulation by groups and by layers"

_RULES = (
    (r"^vqvae\..*$", ""),
    (r"^mamba\.", ""),
    (r"^backbone\.", ""),
    (r"(?:shared_adaln|adaln_single)\.", "adaln_group."),
    (r"\.adaLN_parameters$", ".scale_shift_table"),
)
"""Checkpoints of the whole model, and of earlier versions, to the names of the last version."""
_LAYER = (
    (r"^layers\.", "network.blocks."),
    (r"\.mixer\.in_proj\.", ".enter."),
    (r"\.mixer\.conv1d\.", ".local."),
    (r"\.mixer\.x_proj\.", ".select."),
    (r"\.mixer\.dt_proj\.", ".delta."),
    (r"\.mixer\.dt_bias$", ".delta"),
    (r"\.mixer\.A_log$", ".log_rate"),
    (r"\.mixer\.D$", ".skip"),
    (r"\.mixer\.norm\.weight$", ".gain"),
    (r"\.mixer\.out_proj\.", ".leave."),
    (r"^norm_f\.", "network.norm."),
    (r"^final_layer\.norm_final\.", "network.norm2."),
    (r"^final_layer\.adaLN_modulation\.1\.", "network.last."),
    (r"^adaln_group\.1\.", "network.modulate."),
)


_INDIFFERENT = ("chunk_size", "use_mem_eff_path", "use_fast_path", "dt_min", "dt_max", "dt_init_floor", "A_init_range")
"""Settings of the layers about speed and the start of training."""


def load(state: dict[str, Tensor], config: dict[str, Any], tokenizer: Tokenizer | None) -> Model:
    """The class-conditional model with the authors' weights, guided by one scale everywhere.

    Training numbers the codes' places from 0, the authors' sampler from 1, as if the class stood at 0. Scores follow
    the former and draws the latter; ``sampler_offset=0`` draws as in training.

    Args:
        state: under the authors' names; weights of the tokenizer among them are left out.
        config: ``d_model``, ``n_layer``, ``vocab_size``, ``ssm_cfg``, ``num_classes``, ``num_tokens`` (or
            ``num_img_tokens``), ``adaln_group``, ``num_groups`` (or ``n_groups``); and ``sampler_offset``.
        tokenizer: LlamaGen's, from ``load_published("llamagen_vq", ...)``.

    Raises:
        DataError: settings that no published model has, or weights that do not fit.
    """
    if config.get("d_intermediate", 0) or config.get("attn_layer_idx") or not config.get("rms_norm", True):
        raise DataError("AiM is loaded without perceptrons and attention, and with rms_norm=True only")
    width, depth = config["d_model"], config["n_layer"]
    n = config.get("num_tokens", config.get("num_img_tokens", 256))
    side = math.isqrt(n)
    codes = config.get("vocab_size", 16384)
    space = Space((side, side), codes, classes=config.get("num_classes", 1000))
    grouped = config.get("adaln_group", True)
    groups = config.get("num_groups", config.get("n_groups", 4)) if grouped else depth
    layers = _layers(dict(config.get("ssm_cfg") or {}), width)
    network = GroupedMamba(width, depth, groups=groups, offset=config.get("sampler_offset", 1), **layers)
    model = Model(fitting_tokenizer(tokenizer, space), "raster", network, Categorical(per_site=False))
    state = renamed(state, _RULES)
    words = pick(state, "embeddings.word_embeddings.weight")
    if grouped:
        constants = [pick(state, f"layers.{layer}.scale_shift_table")[0] for layer in range(depth)]
    else:  # a map of every layer's own: as many groups as layers
        constants = [torch.zeros(3, width)] * depth
        for part in ("weight", "bias"):
            maps = [pick(state, f"layers.{layer}.adaLN_modulation.1.{part}") for layer in range(depth)]
            state[f"adaln_group.1.{part}"] = torch.cat(maps)
    tensors = {
        "head.weight": state.pop("lm_head.weight", words),
        "head.bias": torch.zeros(codes),
        "network.embed.table.weight": words,
        "network.told.label.weight": pick(state, "cls_embed.embedding_table.weight"),
        "network.first": torch.zeros(width),
        "network.source.weight": pick(state, "embeddings.position_embeddings.weight")[:n],
        "network.target.weight": torch.zeros(n, width),
        "network.constants": torch.stack(constants),
    }
    return filled(model, tensors | renamed(state, _LAYER))


def _layers(settings: dict[str, Any], width: int) -> dict[str, Any]:
    """Arguments of the layers for the authors' ``ssm_cfg``.

    Raises:
        DataError: one that is not known here.
    """
    layer = settings.pop("layer", "Mamba1")
    if layer not in ("Mamba1", "Mamba2"):
        raise DataError(f"ssm_cfg asks for {layer!r} layers; AiM has Mamba1 and Mamba2")
    second = layer == "Mamba2"
    expand, state = settings.pop("expand", 2), settings.pop("d_state", 128 if second else 16)
    found = {"state": state, "expand": expand, "kernel": settings.pop("d_conv", 4)}
    if second:
        found["heads"] = expand * width // settings.pop("headdim", 64)
        found["shared"] = settings.pop("ngroups", 1)
    for name in (
        "chunk_size",
        "use_mem_eff_path",
        "use_fast_path",
        "dt_min",
        "dt_max",
        "dt_init_floor",
        "A_init_range",
    ):
        settings.pop(name, None)  # speed and the start of training
    if settings:
        raise DataError(f"ssm_cfg holds {', '.join(sorted(settings))}, which no published AiM sets; leave it out")
    return found
