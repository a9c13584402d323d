"""MAR's network and diffusion head (LTH14/mar, ``models.mar.MAR``)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ancestral.decoding.parallel import RandomSets
from ancestral.heads import DiffusionHead
from ancestral.heads.diffusion import spread_times
from ancestral.model import Model
from ancestral.networks.vision import MaskedAutoencoder
from ancestral.objectives import MaskedLikelihood
from ancestral.order import RandomMasks
from ancestral.published.weights import filled, fitting_tokenizer, renamed
from ancestral.space import Space
from ancestral.tokenizers import Tokenizer

AGAINST = "outputs of the authors' code"
CHECKED = "encoder, decoder, diffusion chains, loss, guided samples with recorded noise"

_RULES = (
    (r"^z_proj\.", "network.embed.project."),
    (r"^z_proj_ln\.", "network.entry."),
    (r"^(encoder|decoder)_pos_embed_learned$", r"network.\1_position"),
    (r"^(encoder|decoder)_blocks\.(\d+)\.norm(\d)\.", r"network.\1.\2.norm\3."),
    (r"^(encoder|decoder)_blocks\.(\d+)\.attn\.qkv\.", r"network.\1.\2.qkv."),
    (r"^(encoder|decoder)_blocks\.(\d+)\.attn\.proj\.", r"network.\1.\2.out."),
    (r"^(encoder|decoder)_blocks\.(\d+)\.mlp\.fc1\.", r"network.\1.\2.inner."),
    (r"^(encoder|decoder)_blocks\.(\d+)\.mlp\.fc2\.", r"network.\1.\2.outer."),
    (r"^(encoder|decoder)_norm\.", r"network.\1_norm."),
    (r"^decoder_embed\.", "network.bridge."),
    (r"^mask_token$", "network.hidden"),
    (r"^diffusion_pos_embed_learned$", "network.position"),
    (r"^diffloss\.net\.input_proj\.", "head.net.value."),
    (r"^diffloss\.net\.cond_embed\.", "head.net.told."),
    (r"^diffloss\.net\.time_embed\.mlp\.0\.", "head.net.time1."),
    (r"^diffloss\.net\.time_embed\.mlp\.2\.", "head.net.time2."),
    (r"^diffloss\.net\.res_blocks\.(\d+)\.in_ln\.", r"head.net.steps.\1.norm."),
    (r"^diffloss\.net\.res_blocks\.(\d+)\.mlp\.0\.", r"head.net.steps.\1.inner."),
    (r"^diffloss\.net\.res_blocks\.(\d+)\.mlp\.2\.", r"head.net.steps.\1.outer."),
    (r"^diffloss\.net\.res_blocks\.(\d+)\.adaLN_modulation\.1\.", r"head.net.steps.\1.modulate."),
    (r"^diffloss\.net\.final_layer\.adaLN_modulation\.1\.", "head.net.modulate."),
    (r"^diffloss\.net\.final_layer\.linear\.", "head.net.last."),
)


def times(respacing: str, steps: int = 1000) -> list[int]:
    """The times of the full chain that a sampler visits: "100", evenly spread, or "ddim8", a whole stride from 0."""
    if not respacing.startswith("ddim"):
        return spread_times(steps, int(respacing))
    wanted = int(respacing[4:])
    for stride in range(1, steps):
        kept = list(range(0, steps, stride))
        if len(kept) == wanted:
            return kept
    raise ValueError(f"no whole stride visits {wanted} of {steps} times")


def load(state: dict[str, Tensor], config: dict[str, Any], tokenizer: Tokenizer | None) -> Model:
    """The model with the authors' weights, sampled as they do, in 64 sets unless told otherwise.

    Args:
        state: under the authors' names.
        config: ``img_size``, ``vae_stride``, ``patch_size``, ``vae_embed_dim``, ``class_num``, ``encoder_embed_dim``,
            ``encoder_depth``, ``encoder_num_heads`` and the same of the decoder, ``mlp_ratio``, ``buffer_size``,
            ``diffloss_d``, ``diffloss_w``, ``num_sampling_steps``, ``diffusion_batch_mul``; and ``num_iter`` of their
            sampler.
        tokenizer: from ``load_published("mar_kl_vae", ...)``, with the same ``patch_size``.
    """
    patch = config.get("patch_size", 1)
    side = config.get("img_size", 256) // config.get("vae_stride", 16) // patch
    space = Space((side, side), 0, (config.get("vae_embed_dim", 16) * patch**2,), classes=config.get("class_num", 1000))
    sizes = {
        part: (config[f"{part}_embed_dim"], config[f"{part}_depth"], config[f"{part}_num_heads"])
        for part in ("encoder", "decoder")
    }
    network = MaskedAutoencoder(
        *sizes["encoder"], config.get("mlp_ratio", 4.0), buffer=config.get("buffer_size", 64), decoder=sizes["decoder"]
    )
    head = DiffusionHead(
        config.get("diffloss_w", 1024),
        config.get("diffloss_d", 3),
        repeats=config.get("diffusion_batch_mul", 4),
        times=times(str(config.get("num_sampling_steps", "100"))),
    )
    passes = config.get("num_iter", 64)
    model = Model(
        fitting_tokenizer(tokenizer, space),
        RandomMasks(passes),
        network,
        head,
        objective=MaskedLikelihood("high", "mean"),
        decoder=RandomSets(passes, ramp="after"),
    )
    state = dict(state)
    classes = state.pop("class_emb.weight")[: space.classes]
    tensors = renamed(state, _RULES)
    tensors["network.classes.weight"] = torch.cat([classes, tensors.pop("fake_latent")])
    for name in ("network.encoder_position", "network.decoder_position", "network.position"):
        tensors[name] = tensors[name][0]
    tensors["network.hidden"] = tensors["network.hidden"][0, 0]
    return filled(model, tensors)
