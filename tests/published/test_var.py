"""Authors' golden vectors of VAR: its multi-scale autoencoder and its transformer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity import close, golden
from torch import Tensor

import ancestral
from ancestral.decoding.decoders import Request
from ancestral.errors import DataError
from ancestral.model import Model
from ancestral.noise import Noise
from ancestral.space import Condition
from ancestral.tokenizers.learned import Autoencoder, MultiScaleVQ


def tokenizer_of(shared: Any) -> tuple[Autoencoder, dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    folder, config, inputs, wanted = golden(shared, "var_vqvae")
    settings = {**config["model"], **config["autoencoder_overrides"]}
    tokenizer = ancestral.load_published("var_vqvae", folder / "state_dict.safetensors", settings)
    assert isinstance(tokenizer, Autoencoder)
    return tokenizer, settings, inputs, wanted


@torch.no_grad()
def test_autoencoder(shared: Any) -> None:
    tokenizer, settings, inputs, wanted = tokenizer_of(shared)
    quantiser, scales = tokenizer.quantiser, settings["v_patch_nums"]
    assert isinstance(quantiser, MultiScaleVQ)
    latents = tokenizer.backbone.encode(inputs["image"])
    close(latents, wanted["encoder_f"])
    codes = quantiser.encode(latents)
    maps = [m.flatten(1) for m in quantiser.maps(codes)]
    others = [m.flatten(1) for m in quantiser.maps(quantiser.encode(inputs["latent_f"]))]
    sums = quantiser.sums(codes)
    for k in range(len(scales)):
        assert torch.equal(maps[k], wanted[f"img_to_idxBl.{k}"])
        assert torch.equal(others[k], wanted[f"latent_f.idxBl.{k}"])
        close(sums[k], wanted[f"fhat.{k}"])
        close(tokenizer.backbone.decode(sums[k]).clamp(-1, 1), wanted[f"idxBl_to_img.{k}"])
        close(sums[k], wanted[f"get_next.f_hat.{k}"])
        close(quantiser.shrink(sums[k], min(k + 1, len(scales) - 1)), wanted[f"get_next.next_token_map.{k}"])
    close(quantiser.decode(quantiser.encode(inputs["latent_f"])), wanted["latent_f.fhat_last"])
    close(tokenizer.backbone.decode(quantiser.decode(codes)).clamp(-1, 1), wanted["idxBl_to_img.last_one"])
    close(tokenizer.backbone.decode(quantiser.decode(codes)).clamp(-1, 1), wanted["img_to_reconstructed_img"])
    seen = [quantiser.shrink(total, k + 1).flatten(2).transpose(1, 2) for k, total in enumerate(sums[:-1])]
    close(torch.cat(seen, 1), wanted["var_input"])


@pytest.mark.parametrize("part", ["var_d3", "var_shared_aln", "var_no_l2norm"])
@torch.no_grad()
def test_transformer(part: str, shared: Any) -> None:
    folder, config, inputs, wanted = golden(shared, f"var/{part}")
    tokenizer, *_ = tokenizer_of(shared)
    model = ancestral.load_published("var", folder / "state_dict.safetensors", config["model"], tokenizer)
    assert isinstance(model, Model)
    network: Any = model.generator.network
    labels = torch.where(inputs["label_B"] == config["model"]["num_classes"], -1, inputs["label_B"])
    told = network.told(Condition(label=labels), len(labels))
    features = network.run(network.tokens(inputs["x_BLCv_wo_first_l"], told, 0), told, network.mask())
    close(model.generator.head(features, torch.arange(model.space.n)).logits, wanted["logits"])

    label = inputs["gen_label_B"]
    request = Request(
        Noise.of(0, len(label)),
        Condition(label=label),
        guidance=config["greedy_cfg"],
        options={"temperature": 0.0},
    )
    drawn = model.decoder(model.generator, request)
    maps = tokenizer.quantiser.maps(drawn)
    for k, found in enumerate(maps):
        assert torch.equal(found.flatten(1), wanted[f"greedy.idxBl.{k}"])
    image = tokenizer.backbone.decode(tokenizer.quantiser.decode(drawn)).clamp(-1, 1)
    close((image + 1) / 2, wanted["greedy.image"])
    # The verbs draw the same: their guidance is the same, and the pictures those of the codes.
    named = [str(int(k)) for k in label]
    pictures = model.sample(len(label), label=named, guidance=config["greedy_cfg"], temperature=0.0)
    off = np.abs(pictures.transpose(0, 3, 1, 2) / 255 - wanted["greedy.image"].numpy())
    assert off.max() <= 0.5 / 255 + 1e-4


def test_weights_that_do_not_fit(shared: Any, tmp_path: Path) -> None:
    folder, config, _, _ = golden(shared, "var_vqvae")
    settings = {**config["model"], **config["autoencoder_overrides"]}
    with pytest.raises(DataError, match=r"missing \(backbone.encoder.levels.0.blocks.1"):
        ancestral.load_published("var_vqvae", folder / "state_dict.safetensors", {**settings, "num_res_blocks": 2})
    with pytest.raises(DataError, match="has the shape"):
        ancestral.load_published("var_vqvae", folder / "state_dict.safetensors", {**settings, "vocab_size": 32})
    with pytest.raises(DataError, match="there is no file"):
        ancestral.load_published("var_vqvae", tmp_path / "none.pth", settings)
    with pytest.raises(DataError, match="no mapping for 'vqgan'"):
        ancestral.load_published("vqgan", {}, {})
    with pytest.raises(DataError, match="codebook"):
        ancestral.load_published("var", {}, {})
