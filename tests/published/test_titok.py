"""TiTok: its layout against its two transformers, and MaskGIT's decoder, written out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import maskgit_blocks
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from maskgit_blocks import WrittenOut, nearest
from parity import close, some
from torch import Tensor

import ancestral
from ancestral.data import Images
from ancestral.errors import DataError
from ancestral.tokenizers.learned import KL, Autoencoder, TiTok

TOKENS, PATCH, SIDE, CODES, PAINTS, D, BACK, C = 6, 4, 16, 11, 13, 8, 12, 3
SETTINGS = {
    "codebook_size": CODES, "token_size": C, "use_l2_norm": True, "vit_enc_width": D, "vit_enc_layers": 2,
    "vit_enc_heads": 2, "vit_dec_width": BACK, "vit_dec_layers": 1, "vit_dec_heads": 3, "vit_enc_patch_size": PATCH,
    "vit_dec_patch_size": PATCH, "num_latent_tokens": TOKENS, "finetune_decoder": True,
    "pixel_decoder": {
        "hidden_channels": 32, "channel_mult": (1, 2, 2), "num_res_blocks": 1, "z_channels": 5, "num_embeddings": PAINTS
    },
}  # fmt: skip
STAGES = {
    "second stage": {},
    "first stage": {"finetune_decoder": False},
    "pixels": {"finetune_decoder": False, "is_legacy": False, "use_l2_norm": False},
    "gaussian": {"finetune_decoder": False, "is_legacy": False, "quantize_mode": "vae"},
}


def config(stage: str) -> dict[str, Any]:
    return {"model": {"vq_model": {**SETTINGS, **STAGES[stage]}}, "dataset": {"preprocessing": {"crop_size": SIDE}}}


def weights(stage: str) -> dict[str, Tensor]:
    make, cells = some(0), (SIDE // PATCH) ** 2
    outputs = 2 * C if stage == "gaussian" else C
    state = {"latent_tokens": make(TOKENS, D)}
    for part, width, depth in (("encoder", D, 2), ("decoder", BACK, 1)):
        state[f"{part}.class_embedding"] = make(1, width)
        state[f"{part}.positional_embedding"] = make(cells + 1, width)
        state[f"{part}.latent_token_positional_embedding"] = make(TOKENS, width)
        sizes = {"ln_pre": (width,), "ln_post": (width,)}
        for layer in range(depth):
            at = f"transformer.{layer}."
            sizes |= {at + "ln_1": (width,), at + "ln_2": (width,), at + "attn.out_proj": (width, width)}
            sizes |= {at + "mlp.c_fc": (4 * width, width), at + "mlp.c_proj": (width, 4 * width)}
            state[f"{part}.{at}attn.in_proj_weight"] = make(3 * width, width)
            state[f"{part}.{at}attn.in_proj_bias"] = make(3 * width, scale=0.2)
        if part == "encoder":
            sizes |= {"patch_embed": (D, 3, PATCH, PATCH), "conv_out": (outputs, D, 1, 1)}
        else:
            sizes["decoder_embed"] = (BACK, C)
            if stage in ("pixels", "gaussian"):
                sizes |= {"ffn.0": (3 * PATCH**2, BACK, 1, 1), "conv_out": (3, 3, 3, 3)}
            else:
                sizes |= {"ffn.0": (2 * BACK, BACK, 1, 1), "ffn.2": (PAINTS, 2 * BACK, 1, 1)}
        for name, size in sizes.items():
            scale = math.prod(size[1:]) ** -0.5
            state[f"{part}.{name}.weight"] = make(*size, scale=scale) if size[1:] else 1 + make(*size, scale=0.2)
            state[f"{part}.{name}.bias"] = make(size[0], scale=0.2)
    state["decoder.mask_token"] = make(1, 1, BACK)
    if stage != "gaussian":  # a codebook where the latents are, so that many codes occur
        other = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
        latents = Transformers(state, stage != "pixels").encode(other)[:, :, 0].mT
        state["quantize.embedding.weight"] = latents.flatten(0, 1)[:CODES] + 0.2 * make(CODES, C)
    if stage == "second stage":
        state |= painting("pixel_")
    return state


def painting(prefix: str) -> dict[str, Tensor]:
    """MaskGIT's codebook and decoder."""
    make = some(7)
    decoder = maskgit_blocks.weights(make, "decoder", 32, (1, 2, 2), 1, 5)
    quantiser = {f"{prefix}quantize.embedding.weight": make(PAINTS, 5, scale=1.0)}
    return {f"{prefix}{k}": v for k, v in decoder.items()} | quantiser


class Transformers:
    def __init__(self, state: dict[str, Tensor], legacy: bool):
        self.state, self.legacy = state, legacy

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.state[f"{name}.weight"].flatten(1).T + self.state[f"{name}.bias"]

    def norm(self, x: Tensor, name: str) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        return x * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def layer(self, x: Tensor, name: str, heads: int) -> Tensor:
        width = x.shape[-1]
        qkv = self.norm(x, f"{name}.ln_1") @ self.state[f"{name}.attn.in_proj_weight"].T
        q, k, v = (qkv + self.state[f"{name}.attn.in_proj_bias"]).chunk(3, -1)
        found = []
        for mine in torch.arange(width).chunk(heads):
            scores = q[..., mine] @ k[..., mine].mT / math.sqrt(width // heads)
            found.append(scores.softmax(-1) @ v[..., mine])
        x = x + self.linear(torch.cat(found, -1), f"{name}.attn.out_proj")
        h = self.linear(self.norm(x, f"{name}.ln_2"), f"{name}.mlp.c_fc")
        return x + self.linear(0.5 * h * (1 + torch.erf(h / math.sqrt(2))), f"{name}.mlp.c_proj")

    def encode(self, images: Tensor) -> Tensor:
        """``[B, C, 1, T]`` of images in [0, 1]."""
        state, batch = self.state, len(images)
        cells = images.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).permute(0, 2, 3, 1, 4, 5)
        x = self.linear(cells.reshape(batch, -1, 3 * PATCH**2), "encoder.patch_embed")
        x = torch.cat([state["encoder.class_embedding"].expand(batch, 1, D), x], 1)
        x = x + state["encoder.positional_embedding"]
        told = state["latent_tokens"] + state["encoder.latent_token_positional_embedding"]
        x = self.norm(torch.cat([x, told.expand(batch, TOKENS, D)], 1), "encoder.ln_pre")
        for layer in range(2):
            x = self.layer(x, f"encoder.transformer.{layer}", 2)
        x = self.norm(x[:, -TOKENS:], "encoder.ln_post")
        if self.legacy:  # the numbers as they lie in memory, taken for features by tokens
            x = torch.stack([row.flatten().view(D, TOKENS).T for row in x])
        return self.linear(x, "encoder.conv_out").mT[:, :, None]

    def decode(self, latents: Tensor) -> Tensor:
        """Maps ``[B, K, h, w]`` of logits, or images in [0, 1], of latents ``[B, C, 1, T]``."""
        state, batch, side = self.state, len(latents), SIDE // PATCH
        masks = torch.cat([state["decoder.class_embedding"], state["decoder.mask_token"][0].expand(side**2, BACK)])
        masks = (masks + state["decoder.positional_embedding"]).expand(batch, -1, -1)
        told = self.linear(latents[:, :, 0].mT, "decoder.decoder_embed")
        told = told + state["decoder.latent_token_positional_embedding"]
        x = self.norm(torch.cat([masks, told], 1), "decoder.ln_pre")
        x = self.layer(x, "decoder.transformer.0", 3)
        x = self.linear(self.norm(x[:, 1 : side**2 + 1], "decoder.ln_post"), "decoder.ffn.0")
        if self.legacy:
            return self.linear(x.tanh(), "decoder.ffn.2").mT.unflatten(2, (side, side))
        image = torch.zeros(batch, 3, SIDE, SIDE)
        for cell in range(side**2):
            row, column = PATCH * (cell // side), PATCH * (cell % side)
            patch = x[:, cell].view(batch, PATCH, PATCH, 3).permute(0, 3, 1, 2)
            image[:, :, row : row + PATCH, column : column + PATCH] = patch
        return F.conv2d(image, state["decoder.conv_out.weight"], state["decoder.conv_out.bias"], padding=1)


def maskgit() -> Autoencoder:
    state = painting("") | maskgit_blocks.weights(some(8), "encoder", 32, (1, 2, 2), 1, 5)
    settings = {**SETTINGS["pixel_decoder"], "resolution": SIDE}
    found = ancestral.load_published("maskgit_vq", state, settings)
    assert isinstance(found, Autoencoder)
    return found


@pytest.mark.parametrize("stage", STAGES)
@torch.no_grad()
def test_codes_and_images(stage: str, tmp_path: Path) -> None:
    state = weights(stage)
    tokenizer = ancestral.load_published("titok", state, config(stage), maskgit() if stage == "first stage" else None)
    assert isinstance(tokenizer, Autoencoder) and isinstance(tokenizer.backbone, TiTok)
    legacy = stage in ("first stage", "second stage")
    written, painter = Transformers(state, legacy), WrittenOut(painting(""), 3, 1)
    pixels = maskgit_blocks.images(8, SIDE)
    unit = pixels / 255.0
    latents = written.encode(unit)
    close(tokenizer.backbone.encode(2 * unit - 1), latents)

    if stage == "gaussian":
        assert isinstance(tokenizer.quantiser, KL)
        codes = latents[:, :C, 0].mT
        vectors = latents[:, :C]
    else:
        book = state["quantize.embedding.weight"]
        placed = latents
        if SETTINGS["use_l2_norm"] and stage != "pixels":
            book, placed = F.normalize(book, dim=-1), F.normalize(latents, dim=1)
        codes, ahead = nearest(placed, book)
        assert ahead > 1e-5 and len(codes.unique()) > 3
        vectors = book[codes].mT[:, :, None]
    dataset = Images(pixels.permute(0, 2, 3, 1).numpy())
    found = tokenizer.encode(dataset)
    if stage == "gaussian":
        close(found, codes)
    else:
        assert torch.equal(found, codes)
    assert tokenizer.space.shape == (TOKENS,)

    image = written.decode(vectors)
    if legacy:
        close(tokenizer.backbone.logits(vectors).mT.unflatten(2, (4, 4)), image)
        palette = painter.state["quantize.embedding.weight"]
        shares = (
            image.softmax(1) if stage == "second stage" else F.one_hot(image.argmax(1), PAINTS).movedim(3, 1).float()
        )
        image = painter.decode(torch.einsum("bkhw,kc->bchw", shares, palette))
    close(tokenizer.backbone.decode(tokenizer.quantiser.decode(found)), 2 * image - 1)
    off = tokenizer.decode(found).pixels / 255 - image.clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert np.abs(off).max() <= 0.5 / 255 + 1e-4
    tokenizer.save(tmp_path / "saved")
    assert torch.equal(type(tokenizer).load(tmp_path / "saved").encode(dataset), found)


def test_what_does_not_go_together() -> None:
    state = weights("second stage")
    with pytest.raises(DataError, match="give tokenizer=load_published"):
        ancestral.load_published("titok", weights("first stage"), config("first stage"))
    with pytest.raises(DataError, match="finetune_decoder goes with is_legacy only"):
        ancestral.load_published("titok", state, {**SETTINGS, "crop_size": SIDE, "is_legacy": False})
    with pytest.raises(DataError, match="one patch size"):
        ancestral.load_published("titok", state, {**SETTINGS, "crop_size": SIDE, "vit_dec_patch_size": 8})
    with pytest.raises(DataError, match=r"there is no decoder\.mask_token among them"):
        part = {k: v for k, v in state.items() if k != "decoder.mask_token"}
        ancestral.load_published("titok", part, config("second stage"))
    with pytest.raises(
        DataError, match=r"1 missing \(backbone.painter.norm.weight\) and 1 without a place \(backbone.x\)"
    ):
        part = {k: v for k, v in state.items() if k != "pixel_decoder.norm_out.weight"}
        ancestral.load_published("titok", {**part, "x": torch.zeros(1)}, config("second stage"))
