"""MaskGIT's tokenizer: its layout against its networks written out."""

from __future__ import annotations

from pathlib import Path

import maskgit_blocks
import numpy as np
import pytest
import torch
from maskgit_blocks import WrittenOut, nearest
from parity import close, some

import ancestral
from ancestral.data import Images
from ancestral.errors import DataError
from ancestral.tokenizers.learned import Autoencoder

CONFIG = {
    "hidden_channels": 32, "channel_mult": (1, 2, 2), "num_res_blocks": 2, "z_channels": 6, "resolution": 16,
    "num_embeddings": 11,
}  # fmt: skip


def weights(blocks: int = 2) -> dict[str, torch.Tensor]:
    make = some(0)
    state: dict[str, torch.Tensor] = {}
    for part in ("encoder", "decoder"):
        state |= maskgit_blocks.weights(make, part, 32, (1, 2, 2), blocks, 6)
    # A codebook where the latents are, so that many codes occur.
    latents = WrittenOut(state, 3, blocks).encode(torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(3)))
    return state | {"quantize.embedding.weight": latents.flatten(2)[0].T[:11].contiguous()}


@pytest.mark.parametrize("blocks", [1, 2])
@torch.no_grad()
def test_codes_and_images(blocks: int, tmp_path: Path) -> None:
    state = weights(blocks)
    tokenizer = ancestral.load_published("maskgit_vq", state, {**CONFIG, "num_res_blocks": blocks})
    assert isinstance(tokenizer, Autoencoder)
    written = WrittenOut(state, 3, blocks)
    pixels = maskgit_blocks.images(3, 16)
    unit = pixels / 255.0
    latents = written.encode(unit)
    close(tokenizer.backbone.encode(2 * unit - 1), latents)
    codes, ahead = nearest(latents, state["quantize.embedding.weight"])
    assert ahead > 1e-4 and len(codes.unique()) > 3
    dataset = Images(pixels.permute(0, 2, 3, 1).numpy())
    assert torch.equal(tokenizer.encode(dataset), codes)
    assert tokenizer.space.shape == (4, 4) and tokenizer.space.sizes == 11
    grid = state["quantize.embedding.weight"][codes].transpose(1, 2).reshape(3, 6, 4, 4)
    close(tokenizer.backbone.decode(tokenizer.quantiser.decode(codes)), 2 * written.decode(grid) - 1)
    off = tokenizer.decode(codes).pixels / 255 - written.decode(grid).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert np.abs(off).max() <= 0.5 / 255 + 1e-4
    tokenizer.save(tmp_path / "saved")
    assert torch.equal(type(tokenizer).load(tmp_path / "saved").encode(dataset), codes)


def test_weights_that_do_not_fit() -> None:
    state = weights()
    with pytest.raises(DataError, match=r"1 missing \(backbone.decoder.levels.2.blocks.0.shortcut.weight"):
        ancestral.load_published(
            "maskgit_vq", {k: v for k, v in state.items() if k != "decoder.up.0.block.0.nin_shortcut.weight"}, CONFIG
        )
    with pytest.raises(DataError, match=r"1 without a place \(quant_conv.weight\)"):
        ancestral.load_published("maskgit_vq", {**state, "quant_conv.weight": torch.zeros(1)}, CONFIG)
    with pytest.raises(DataError, match="has the shape"):
        ancestral.load_published("maskgit_vq", state, {**CONFIG, "num_embeddings": 12})
