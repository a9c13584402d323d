"""LARP's layout: its tokenizer of clips and its model of their codes against the formulas written out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import maskgit_blocks
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from maskgit_blocks import nearest
from parity import close, some
from torch import Tensor

import ancestral
from ancestral.data import Images
from ancestral.decoding.decoders import Request
from ancestral.errors import DataError
from ancestral.model import Model
from ancestral.noise import Noise
from ancestral.order import Order
from ancestral.space import Condition
from ancestral.tokenizers.learned import Autoencoder

TOKENS, SIDE, FRAMES, SPAN, PATCH, CODES, C, D, BACK = 6, 8, 6, 3, 4, 11, 4, 8, 12
CELLS = FRAMES // SPAN * (SIDE // PATCH) ** 2
CONFIG = {
    "bottleneck": {
        "name": "bottleneck",
        "args": {
            "bottleneck_dim": C, "norm": "none",
            "regularizer": {"name": "vq", "args": {"codebook_size": CODES, "l2_normalized": True, "stochastic": True}},
        },
    },
    "prior_model": {"name": "gptc-S"}, "bottleneck_token_num": TOKENS, "input_size": SIDE, "frame_num": FRAMES,
    "temporal_patch_size": SPAN, "patch_size": PATCH, "decoder_temporal_patch_size": SPAN, "decoder_patch_size": PATCH,
    "encoder_hidden_size": D, "decoder_hidden_size": BACK, "encoder_num_heads": 2, "decoder_num_heads": 3,
    "encoder_depth": 2, "decoder_depth": 1,
}  # fmt: skip
MODEL = {
    "dim": 16, "n_layer": 2, "n_head": 4, "n_kv_head": 2, "multiple_of": 16, "num_classes": 3, "vocab_size": CODES,
    "max_seq_len": TOKENS,
}  # fmt: skip


def weights(learned: bool) -> dict[str, Tensor]:
    make = some(0)
    state = {"decoder_latent_pe": make(1, TOKENS, BACK), "encoder_latent_query_embed": make(TOKENS, D)}
    sizes: dict[str, tuple[int, ...]] = {
        "x_embedder.proj": (D, 3, SPAN, PATCH, PATCH), "bottleneck.in_linear": (C, D),
        "bottleneck.out_linear": (BACK, C), "final_layer.norm_final": (BACK,),
        "final_layer.linear": (3 * SPAN * PATCH**2, BACK), "prior_model.head": (C, 5),
    }  # fmt: skip
    for part, width, depth in (("encoder", D, 2), ("decoder", BACK, 1)):
        for layer in range(depth):
            at = f"{part}.blocks.{layer}."
            sizes |= {at + "norm1": (width,), at + "norm2": (width,), at + "attn.proj": (width, width)}
            sizes |= {at + "mlp.fc1": (4 * width, width), at + "mlp.fc2": (width, 4 * width)}
            state[at + "attn.qkv.weight"] = make(3 * width, width)
    for name, size in sizes.items():
        scale = math.prod(size[1:]) ** -0.5
        state[f"{name}.weight"] = make(*size, scale=scale) if size[1:] else 1 + make(*size, scale=0.2)
        state[f"{name}.bias"] = make(size[0], scale=0.2)
    if learned:
        axes = {"h": (1, 1, 2, 1), "w": (1, 1, 1, 2), "t": (1, 2, 1, 1)}
        state |= {f"{'encode' if a == 'w' else 'encoder'}_{a}_embed": make(*size, D) for a, size in axes.items()}
        state |= {f"decoder_{a}_embed": make(*size, BACK) for a, size in axes.items()}
        for name, width in (("encoder_patch", D), ("encoder_latent_query", D), ("decoder_latent", BACK)):
            state[f"{name}_token_type_embed"] = make(1, 1, width)
    else:
        state |= {"encoder_patch_pe": make(1, CELLS, D), "decoder_patch_query_embed": make(1, CELLS, BACK)}
    state["decoder_patch_query_token_type_embed"] = make(1, 1, BACK)
    other = torch.rand(2, 3, FRAMES, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    vectors = encode(state, other).flatten(0, 1)[:CODES]
    return state | {"bottleneck.regularizer.embedding.weight": vectors + make(CODES, C, scale=0.1)}


def places(state: dict[str, Tensor], part: str) -> Tensor:
    """Positions ``[t * h * w, D]`` of the encoder's or the decoder's blocks."""
    name, odd = ("encoder_patch_pe", "encode") if part == "encoder" else ("decoder_patch_query_embed", "decoder")
    if name in state:
        found = state[name][0]
    else:
        own = state[f"{part}_t_embed"], state[f"{part}_h_embed"], state[f"{odd}_w_embed"]
        sums = [own[0][0, k // 4, 0, 0] + own[1][0, 0, k // 2 % 2, 0] + own[2][0, 0, 0, k % 2] for k in range(8)]
        found = torch.stack(sums)
    kind = "encoder_patch" if part == "encoder" else "decoder_patch_query"
    return found + state.get(f"{kind}_token_type_embed", torch.zeros(1, 1, 1))[0]


def linear(state: dict[str, Tensor], x: Tensor, name: str) -> Tensor:
    return x @ state[f"{name}.weight"].flatten(1).T + state.get(f"{name}.bias", torch.zeros(()))


def norm(state: dict[str, Tensor], x: Tensor, name: str, eps: float) -> Tensor:
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + eps).sqrt()
    return x * state[f"{name}.weight"] + state[f"{name}.bias"]


def layer(state: dict[str, Tensor], x: Tensor, name: str, heads: int) -> Tensor:
    width = x.shape[-1]
    q, k, v = linear(state, norm(state, x, f"{name}.norm1", 1e-5), f"{name}.attn.qkv").chunk(3, -1)
    found = []
    for mine in torch.arange(width).chunk(heads):
        scores = q[..., mine] @ k[..., mine].mT / math.sqrt(width // heads)
        found.append(scores.softmax(-1) @ v[..., mine])
    x = x + linear(state, torch.cat(found, -1), f"{name}.attn.proj")
    h = linear(state, norm(state, x, f"{name}.norm2", 1e-5), f"{name}.mlp.fc1")
    return x + linear(state, 0.5 * h * (1 + torch.erf(h / math.sqrt(2))), f"{name}.mlp.fc2")


def encode(state: dict[str, Tensor], clips: Tensor) -> Tensor:
    """Vectors ``[B, T, C]`` of clips ``[B, 3, F, H, W]`` in [0, 1]."""
    x = F.conv3d(clips, state["x_embedder.proj.weight"], state["x_embedder.proj.bias"], stride=(SPAN, PATCH, PATCH))
    x = x.flatten(2).mT + places(state, "encoder")
    kind = state.get("encoder_latent_query_token_type_embed", torch.zeros(1, 1, 1))[0]
    x = torch.cat([x, (state["encoder_latent_query_embed"] + kind).expand(len(x), -1, -1)], 1)
    for number in range(2):
        x = layer(state, x, f"encoder.blocks.{number}", 2)
    return linear(state, x[:, -TOKENS:], "bottleneck.in_linear")


def decode(state: dict[str, Tensor], vectors: Tensor) -> Tensor:
    """Clips in [0, 1] of vectors ``[B, T, C]``."""
    kind = state.get("decoder_latent_token_type_embed", torch.zeros(1, 1, 1))
    z = linear(state, vectors, "bottleneck.out_linear") + state["decoder_latent_pe"] + kind
    x = torch.cat([z, places(state, "decoder").expand(len(z), -1, -1)], 1)
    x = norm(state, layer(state, x, "decoder.blocks.0", 3)[:, -CELLS:], "final_layer.norm_final", 1e-6)
    x = linear(state, x, "final_layer.linear")
    clips = torch.zeros(len(z), 3, FRAMES, SIDE, SIDE)
    for cell in range(CELLS):
        t, h, w = cell // 4 * SPAN, cell // 2 % 2 * PATCH, cell % 2 * PATCH
        block = x[:, cell].view(-1, SPAN, PATCH, PATCH, 3).permute(0, 4, 1, 2, 3)
        clips[:, :, t : t + SPAN, h : h + PATCH, w : w + PATCH] = block
    return clips


@pytest.mark.parametrize("learned", [False, True])
@torch.no_grad()
def test_tokenizer(learned: bool, tmp_path: Path) -> None:
    state = weights(learned)
    tokenizer = ancestral.load_published("larp_tokenizer", state, CONFIG)
    assert isinstance(tokenizer, Autoencoder)
    pixels = maskgit_blocks.images(8, FRAMES * SIDE)[..., :SIDE]
    unit = pixels.unflatten(2, (FRAMES, SIDE)) / 255.0
    vectors = encode(state, unit)
    close(tokenizer.backbone.encode(2 * unit.flatten(2, 3) - 1), vectors.mT[:, :, None])
    book = F.normalize(state["bottleneck.regularizer.embedding.weight"], dim=-1)
    codes, ahead = nearest(F.normalize(vectors, dim=-1).mT[:, :, None], book)
    assert ahead > 1e-5 and len(codes.unique()) > 3
    dataset = Images(pixels.permute(0, 2, 3, 1).numpy())
    assert torch.equal(tokenizer.encode(dataset), codes)
    assert tokenizer.space.shape == (TOKENS,) and tokenizer.space.sizes == CODES
    clips = decode(state, book[codes]).flatten(2, 3)
    close(tokenizer.backbone.decode(tokenizer.quantiser.decode(codes)), 2 * clips - 1)
    off = tokenizer.decode(codes).pixels / 255 - clips.clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert np.abs(off).max() <= 0.5 / 255 + 1e-4
    tokenizer.save(tmp_path / "saved")
    assert torch.equal(type(tokenizer).load(tmp_path / "saved").encode(dataset), codes)


def model_state() -> dict[str, Tensor]:
    make = some(1)
    state = {
        "tok_embeddings.weight": make(CODES, 16), "cls_embedding.embedding_table.weight": make(4, 16),
        "abs_pe": make(1, TOKENS, 16), "norm.weight": make(16), "output.weight": make(CODES, 16),
    }  # fmt: skip
    for number in range(2):
        at = f"layers.{number}."
        state |= {f"{at}attention.wqkv.weight": make(32, 16), f"{at}attention.wo.weight": make(16, 16)}
        state |= {f"{at}feed_forward.{w}.weight": make(48, 16) for w in ("w1", "w3")}
        state |= {f"{at}feed_forward.w2.weight": make(16, 48, scale=0.2)}
        state |= {f"{at}{name}_norm.weight": make(16) for name in ("attention", "ffn")}
    return state


def written_out(state: dict[str, Tensor], codes: Tensor, label: int) -> Tensor:
    """Logits ``[t + 1, K]`` behind the class and each of the codes ``[t]``."""
    return behind(
        state, torch.cat([state["cls_embedding.embedding_table.weight"][label][None], embedded(state, codes)])
    )


def embedded(state: dict[str, Tensor], codes: Tensor) -> Tensor:
    return state["tok_embeddings.weight"][codes]


def behind(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Logits behind every one of the embedded tokens ``[t, 16]``."""

    def scaled(x: Tensor, name: str) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * state[f"{name}.weight"]

    x = x + state["abs_pe"][0, : len(x)]
    hidden = torch.full((len(x), len(x)), float("-inf")).triu(1)
    for number in range(2):
        at = f"layers.{number}."
        qkv = linear(state, scaled(x, at + "attention_norm"), at + "attention.wqkv")
        q, k, v = (part.unflatten(-1, (-1, 4)) for part in qkv.split([16, 8, 8], -1))
        heads = [(q[:, h] @ k[:, h // 2].T / 2 + hidden).softmax(-1) @ v[:, h // 2] for h in range(4)]
        x = x + linear(state, torch.cat(heads, -1), at + "attention.wo")
        h = scaled(x, at + "ffn_norm")
        gate, up = (linear(state, h, f"{at}feed_forward.{w}") for w in ("w1", "w3"))
        x = x + linear(state, F.silu(gate) * up, at + "feed_forward.w2")
    return linear(state, scaled(x, "norm"), "output")


def loaded(state: dict[str, Tensor], **changed: Any) -> Model:
    tokenizer = ancestral.load_published("larp_tokenizer", weights(False), CONFIG)
    model = ancestral.load_published("larp", state, {**MODEL, **changed}, tokenizer)  # type: ignore[arg-type]
    assert isinstance(model, Model)
    return model


@torch.no_grad()
def test_model_of_codes() -> None:
    state, cfg = model_state(), 2.0
    model = loaded(state)
    codes = torch.randint(CODES, (2, TOKENS), generator=torch.Generator().manual_seed(1))
    features = model.generator.network(codes, Order.raster(TOKENS), Condition(label=torch.tensor([2, -1])))
    logits = model.generator.head(features, torch.arange(TOKENS)).logits  # type: ignore[attr-defined]
    close(logits[0], written_out(state, codes[0, :-1], 2))
    close(logits[1], written_out(state, codes[1, :-1], 3))
    request = Request(
        Noise.of(0, 1), Condition(label=torch.tensor([1])), guidance=cfg - 1, options={"temperature": 0.0}
    )
    drawn, found = model.decoder(model.generator, request)[0], codes[0, :0]
    for _ in range(TOKENS):
        told, untold = (written_out(state, found, label)[-1] for label in (1, 3))
        best = (untold + (told - untold) * cfg).topk(2)
        assert float(best.values[0] - best.values[1]) > 1e-4
        found = torch.cat([found, best.indices[:1]])
    assert torch.equal(drawn, found)
    pictures = model.sample(2, label=["0", "1"], guidance=1.0, seed=0)
    assert pictures.shape == (2, FRAMES * SIDE, SIDE, 3)


@torch.no_grad()
def test_prediction_of_frames() -> None:
    """Known codes and a sign in front; what is behind the sign is drawn."""
    make = some(2)
    state = {k: v for k, v in model_state().items() if not k.startswith("cls_embedding")}
    state |= {"tok_embeddings.weight": make(CODES + 1, 16), "abs_pe": make(1, 2 * TOKENS, 16)}
    config = {**MODEL, "frame_prediction": True, "cls_token_num": TOKENS + 1}
    model = ancestral.load_published("larp", state, config)
    assert isinstance(model, Model)
    known, codes = torch.randint(CODES, (2, 2, TOKENS), generator=torch.Generator().manual_seed(3))
    told = Condition(vector=known.float())
    features = model.generator.network(codes, Order.raster(TOKENS), told)
    logits = model.generator.head(features, torch.arange(TOKENS)).logits  # type: ignore[attr-defined]
    for item in range(2):
        sequence = torch.cat([known[item], torch.tensor([CODES]), codes[item, :-1]])
        close(logits[item], behind(state, embedded(state, sequence))[TOKENS:])
    drawn = model.decoder(model.generator, Request(Noise.of(0, 2), told, options={"temperature": 0.0}))
    for item in range(2):
        found = torch.cat([known[item], torch.tensor([CODES])])
        for _ in range(TOKENS):
            best = behind(state, embedded(state, found))[-1].topk(2)
            assert float(best.values[0] - best.values[1]) > 1e-4
            found = torch.cat([found, best.indices[:1]])
        assert torch.equal(drawn[item], found[TOKENS + 1 :])
    with pytest.raises(ValueError, match="continues known codes"):
        model.generator.network(codes, Order.raster(TOKENS), None)


def test_what_does_not_fit() -> None:
    state = weights(False)
    with pytest.raises(DataError, match=r"there is no encoder_patch_pe among them"):
        part = {k: v for k, v in state.items() if k != "encoder_patch_pe"}
        ancestral.load_published("larp_tokenizer", part, CONFIG)
    with pytest.raises(DataError, match="one patch size"):
        ancestral.load_published("larp_tokenizer", state, {**CONFIG, "decoder_patch_size": 8})
    with pytest.raises(DataError, match="do not divide into blocks"):
        ancestral.load_published(
            "larp_tokenizer", state, {**CONFIG, "temporal_patch_size": 4, "decoder_temporal_patch_size": 4}
        )
    with pytest.raises(DataError, match="one class token"):
        loaded(model_state(), cls_token_num=2)
    with pytest.raises(DataError, match="has the shape"):
        loaded(model_state(), num_classes=4)
