"""TiTok (bytedance/1d-tokenizer, ``modeling.titok.TiTok``)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ancestral.errors import DataError
from ancestral.published.autoencoders import PLAIN, assemble, plain_levels
from ancestral.published.weights import pick, renamed, section
from ancestral.tokenizers import Tokenizer
from ancestral.tokenizers.learned import KL, VQ, Autoencoder, Convolutional, Quantiser, TiTok

AGAINST = "its formulas written out again, at random weights"
CHECKED = (
    "latents, codes, images decoded from codes; models of codes in both stages, of pixels, and of Gaussian latents"
)

SIZES = {"small": (512, 8, 8), "base": (768, 12, 12), "large": (1024, 24, 16)}
"""Width, depth and heads of the authors' transformers."""

_RULES = (
    (r"^(encoder|decoder)\.transformer\.", r"\1."),
    (r"\.ln_(1|2)\.", r".norm\1."),
    (r"\.attn\.in_proj_", ".qkv."),
    (r"\.attn\.out_proj\.", ".out."),
    (r"\.mlp\.c_fc\.", ".inner."),
    (r"\.mlp\.c_proj\.", ".outer."),
    (r"^encoder\.ln_pre\.", "norms.0."),
    (r"^encoder\.ln_post\.", "norms.1."),
    (r"^decoder\.ln_pre\.", "norms.2."),
    (r"^decoder\.ln_post\.", "norms.3."),
    (r"^encoder\.patch_embed\.", "read."),
    (r"^encoder\.conv_out\.", "out."),
    (r"^decoder\.decoder_embed\.", "back."),
    (r"^decoder\.conv_out\.", "smooth."),
    (r"^decoder\.ffn\.2\.", "write."),
)


def _size(settings: dict[str, Any], part: str) -> tuple[int, int, int]:
    width, depth, heads = SIZES[settings.get(f"vit_{part}_model_size", "small")]
    names = (f"vit_{part}_width", f"vit_{part}_layers", f"vit_{part}_heads")
    width, depth, heads = (settings.get(name, own) for name, own in zip(names, (width, depth, heads), strict=True))
    return width, depth, heads


def load(state: dict[str, Tensor], config: dict[str, Any], tokenizer: Tokenizer | None = None) -> Tokenizer:
    """The tokenizer with the authors' weights; Gaussian latents are encoded to their means.

    Their networks take and give images in [0, 1]; the backbone takes them in [-1, 1] like all others, and converts.

    Args:
        state: under the authors' names.
        config: theirs, of which ``model.vq_model`` (or the settings themselves) holds ``codebook_size``,
            ``token_size``, ``use_l2_norm``, ``quantize_mode``, ``vit_enc_model_size``, ``vit_dec_model_size``,
            ``vit_enc_patch_size``, ``vit_dec_patch_size``, ``num_latent_tokens``, ``finetune_decoder`` and
            ``is_legacy``, and ``dataset.preprocessing`` the ``crop_size``. What the published class fixes is read from
            ``vit_enc_width``, ``vit_enc_layers``, ``vit_enc_heads`` (and ``vit_dec_...``), and from ``pixel_decoder``
            with the settings of "maskgit_vq".
        tokenizer: from ``load_published("maskgit_vq", ...)``, for a model of its codes whose decoder was not
            finetuned; else not used.

    Raises:
        DataError: settings that do not go together, or weights that do not fit.
    """
    settings = section(config, "model", "vq_model")
    size = section(config, "dataset", "preprocessing").get("crop_size", 256)
    patch, other = settings.get("vit_enc_patch_size", 16), settings.get("vit_dec_patch_size", 16)
    legacy, finetuned = settings.get("is_legacy", True), settings.get("finetune_decoder", True)
    if patch != other:
        raise DataError(f"TiTok is loaded with one patch size for encoder and decoder; got {patch} and {other}")
    if finetuned and not legacy:
        raise DataError("finetune_decoder goes with is_legacy only: no other decoder tells the codes that are painted")
    state = dict(state)
    painter = _sizes(settings.get("pixel_decoder", {}))
    if legacy and not finetuned:
        painter = _borrow(state, tokenizer)
    width = settings.get("token_size", 12)
    backbone = TiTok(
        settings.get("num_latent_tokens", 32),
        patch,
        _size(settings, "enc"),
        _size(settings, "dec"),
        ("codes" if finetuned else "best codes") if legacy else "pixels",
        painter,
    )
    tensors: dict[str, Tensor] = {}
    quantiser: Quantiser
    if settings.get("quantize_mode", "vq") == "vae":
        quantiser = KL(width)
        tensors["quantiser.scale"] = quantiser.scale
    else:
        normalise = settings.get("use_l2_norm", True)
        quantiser = VQ(settings.get("codebook_size", 4096), width, normalise)
        book = pick(state, "quantize.embedding.weight")
        tensors["quantiser.book.vectors"] = F.normalize(book, dim=-1) if normalise else book
        state.pop("quantize.embed_prob", None)  # use of the codes in training
    renaming = _named(state, patch, legacy, len(painter[1]))
    tensors |= {f"backbone.{name}": tensor for name, tensor in renaming.items()}
    return assemble(quantiser, backbone, size, tensors, ("quantiser.book.count", "quantiser.book.total"))


def _sizes(settings: dict[str, Any]) -> tuple[int, tuple[int, ...], int, int, int]:
    defaults = {
        "hidden_channels": 128, "channel_mult": (1, 1, 2, 2, 4), "num_res_blocks": 2, "z_channels": 256,
        "num_embeddings": 1024,
    }  # fmt: skip
    channels, multipliers, blocks, latents, codes = (settings.get(name, own) for name, own in defaults.items())
    return channels, tuple(multipliers), blocks, latents, codes


def _borrow(state: dict[str, Tensor], tokenizer: Tokenizer | None) -> tuple[int, tuple[int, ...], int, int, int]:
    """Put MaskGIT's codebook and decoder among the weights; returns their sizes."""
    if not isinstance(tokenizer, Autoencoder) or not isinstance(tokenizer.quantiser, VQ):
        raise DataError(
            "this decoder tells MaskGIT's codes and has not learned to paint them; give "
            "tokenizer=load_published('maskgit_vq', ...), or finetune_decoder=True if it has"
        )
    backbone, book = tokenizer.backbone, tokenizer.quantiser.book.vectors
    assert isinstance(backbone, Convolutional)
    state["palette"] = book.clone()
    state |= {f"painter.{name}": tensor.clone() for name, tensor in backbone.decoder.state_dict().items()}
    given = backbone.arguments
    return given["channels"], tuple(given["multipliers"]), given["blocks"], book.shape[1], book.shape[0]


def _named(state: dict[str, Tensor], patch: int, legacy: bool, levels: int) -> dict[str, Tensor]:
    """The weights of encoder and decoder under the names of :class:`TiTok`'s tensors."""
    out: dict[str, Tensor] = {}
    for part, end in (("encoder", ""), ("decoder", "_back")):
        places = pick(state, f"{part}.positional_embedding")
        out[f"front{end}"] = pick(state, f"{part}.class_embedding")[0] + places[0]
        out[f"places{end}"] = places[1:]
    out["places_back"] = out["places_back"] + pick(state, "decoder.mask_token")[0]
    out["queries"] = pick(state, "latent_tokens") + pick(state, "encoder.latent_token_positional_embedding")
    out["numbers"] = pick(state, "decoder.latent_token_positional_embedding")
    painted = {k[14:]: state.pop(k) for k in list(state) if k.startswith("pixel_decoder.")}
    painted = renamed(plain_levels({f"decoder.{k}": v for k, v in painted.items()}, levels), PLAIN)
    out |= {f"painter.{k[8:]}": v for k, v in painted.items()}
    if "pixel_quantize.embedding.weight" in state:
        out["palette"] = state.pop("pixel_quantize.embedding.weight")
    rules = (*_RULES, (r"^decoder\.ffn\.0\.", "tell." if legacy else "write."))
    for name, tensor in renamed(state, rules).items():
        tensor = tensor.flatten(1) if name in ("read.weight", "out.weight", "tell.weight", "write.weight") else tensor
        if not legacy and name.startswith("write."):  # theirs sort a patch by pixels, then colours
            tensor = tensor.unflatten(0, (patch**2, -1)).transpose(0, 1).flatten(0, 1)
        out[name] = tensor
    return out
