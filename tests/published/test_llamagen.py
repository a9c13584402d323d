"""LlamaGen's layout: its transformer against the formulas written out, its tokenizer's names against their places."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

import ancestral
from ancestral.errors import DataError
from ancestral.model import Model
from ancestral.order import Order
from ancestral.space import Condition
from ancestral.tokenizers.learned import VQ, Autoencoder

CONFIG = {
    "dim": 16, "n_layer": 2, "n_head": 4, "n_kv_head": 2, "multiple_of": 16, "num_classes": 3, "vocab_size": 11,
    "block_size": 9,
}  # fmt: skip


def gpt_state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.3

    state = {"tok_embeddings.weight": some(11, 16), "cls_embedding.embedding_table.weight": some(4, 16)}
    for layer in range(2):
        at = f"layers.{layer}."
        state |= {
            f"{at}attention.wqkv.weight": some(32, 16),
            f"{at}attention.wo.weight": some(16, 16),
            f"{at}feed_forward.w1.weight": some(48, 16),
            f"{at}feed_forward.w3.weight": some(48, 16),
            f"{at}feed_forward.w2.weight": some(16, 48),
            f"{at}attention_norm.weight": 1 + some(16),
            f"{at}ffn_norm.weight": 1 + some(16),
        }
    return state | {"norm.weight": 1 + some(16), "output.weight": some(11, 16)}


def written_out(state: dict[str, Tensor], codes: Tensor, label: int) -> Tensor:
    """Logits ``[9, 11]`` of one image's codes ``[9]``: class, then all codes but the last; one head at a time."""
    x = torch.cat(
        [state["cls_embedding.embedding_table.weight"][label : label + 1], state["tok_embeddings.weight"][codes[:-1]]]
    )
    angles = torch.zeros(9, 2)  # one frequency per axis for heads of 4 features; the class stands nowhere
    for t in range(1, 9):
        angles[t] = torch.tensor([(t - 1) // 3, (t - 1) % 3])

    def norm(x: Tensor, name: str) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * state[name]

    def turn(head: Tensor) -> Tensor:
        out = torch.zeros_like(head)
        for t in range(1, 9):  # the class's queries and keys stay zero
            for pair in range(2):
                a, b = head[t, 2 * pair], head[t, 2 * pair + 1]
                cos, sin = angles[t, pair].cos(), angles[t, pair].sin()
                out[t, 2 * pair], out[t, 2 * pair + 1] = a * cos - b * sin, b * cos + a * sin
        return out

    for layer in range(2):
        at = f"layers.{layer}."
        q, k, v = (norm(x, at + "attention_norm.weight") @ state[at + "attention.wqkv.weight"].T).split([16, 8, 8], -1)
        heads = []
        for head in range(4):
            mine, theirs = slice(4 * head, 4 * head + 4), slice(4 * (head // 2), 4 * (head // 2) + 4)
            scores = turn(q[:, mine]) @ turn(k[:, theirs]).T / 2
            scores = scores.masked_fill(~torch.ones(9, 9).tril().bool(), float("-inf"))
            heads.append(scores.softmax(-1) @ v[:, theirs])
        x = x + torch.cat(heads, -1) @ state[at + "attention.wo.weight"].T
        h = norm(x, at + "ffn_norm.weight")
        gate, up = (h @ state[f"{at}feed_forward.{w}.weight"].T for w in ("w1", "w3"))
        x = x + (F.silu(gate) * up) @ state[at + "feed_forward.w2.weight"].T
    return norm(x, "norm.weight") @ state["output.weight"].T


@torch.no_grad()
def test_transformer(tmp_path: Path) -> None:
    state = gpt_state()
    torch.save({"model": state}, tmp_path / "c2i.pt")
    model = ancestral.load_published("llamagen", tmp_path / "c2i.pt", CONFIG)
    assert isinstance(model, Model)
    codes = torch.randint(11, (2, 9), generator=torch.Generator().manual_seed(1))
    network = model.generator.network
    features = network(codes, Order.raster(9), Condition(label=torch.tensor([2, -1])))
    logits = model.generator.head(features, torch.arange(9)).logits  # type: ignore[attr-defined]
    assert torch.allclose(logits[0], written_out(state, codes[0], 2), atol=1e-4)
    assert torch.allclose(logits[1], written_out(state, codes[1], 3), atol=1e-4), "a withheld class has its own row"
    with pytest.raises(ValueError, match="raster order and no other"):
        network.check(Order.reverse(9))
    with pytest.raises(DataError, match="class-conditional"):
        ancestral.load_published("llamagen", state, {**CONFIG, "model_type": "t2i"})


def vq_state() -> dict[str, Tensor]:
    """A tiny LlamaGen tokenizer: features 4 and 8, one block per level, latents of 6 channels, codes of 2."""
    generator = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}

    def conv(name: str, inputs: int, outputs: int, size: int) -> None:
        state[f"{name}.weight"] = torch.randn(outputs, inputs, size, size, generator=generator) * 0.2
        state[f"{name}.bias"] = torch.randn(outputs, generator=generator) * 0.2

    def norm(name: str, width: int) -> None:
        state[f"{name}.weight"] = 1 + 0.2 * torch.randn(width, generator=generator)
        state[f"{name}.bias"] = 0.2 * torch.randn(width, generator=generator)

    def block(name: str, inputs: int, outputs: int) -> None:
        norm(f"{name}.norm1", inputs), norm(f"{name}.norm2", outputs)
        conv(f"{name}.conv1", inputs, outputs, 3), conv(f"{name}.conv2", outputs, outputs, 3)
        if inputs != outputs:
            conv(f"{name}.nin_shortcut", inputs, outputs, 1)

    def attention(name: str, width: int) -> None:
        norm(f"{name}.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            conv(f"{name}.{part}", width, width, 1)

    def middle(name: str) -> None:
        block(f"{name}.0", 8, 8), attention(f"{name}.1", 8), block(f"{name}.2", 8, 8)

    conv("encoder.conv_in", 3, 4, 3)
    block("encoder.conv_blocks.0.res.0", 4, 4), conv("encoder.conv_blocks.0.downsample.conv", 4, 4, 3)
    block("encoder.conv_blocks.1.res.0", 4, 8), attention("encoder.conv_blocks.1.attn.0", 8)
    middle("encoder.mid"), norm("encoder.norm_out", 8), conv("encoder.conv_out", 8, 6, 3)
    conv("quant_conv", 6, 2, 1), conv("post_quant_conv", 2, 6, 1)
    conv("decoder.conv_in", 6, 8, 3), middle("decoder.mid")
    for part in range(2):
        block(f"decoder.conv_blocks.0.res.{part}", 8, 8), attention(f"decoder.conv_blocks.0.attn.{part}", 8)
    conv("decoder.conv_blocks.0.upsample.conv", 8, 8, 3)
    block("decoder.conv_blocks.1.res.0", 8, 4), block("decoder.conv_blocks.1.res.1", 4, 4)
    norm("decoder.norm_out", 4), conv("decoder.conv_out", 4, 3, 3)
    state["quantize.embedding.weight"] = torch.randn(5, 2, generator=generator)
    return state | {"quantize.codebook_used": torch.zeros(9)}


@torch.no_grad()
def test_tokenizer(tmp_path: Path) -> None:
    state = vq_state()
    save_file(state, tmp_path / "vq.safetensors")
    config = {
        "codebook_size": 5, "codebook_embed_dim": 2, "encoder_ch_mult": (1, 2), "z_channels": 6, "ch": 4,
        "num_res_blocks": 1, "image_size": 8,
    }  # fmt: skip
    tokenizer = ancestral.load_published("llamagen_vq", tmp_path / "vq.safetensors", config)
    assert isinstance(tokenizer, Autoencoder) and isinstance(tokenizer.quantiser, VQ)
    tensors = tokenizer.tensors()
    assert torch.equal(
        tensors["backbone.decoder.levels.0.attention.1.out.weight"],
        state["decoder.conv_blocks.0.attn.1.proj_out.weight"],
    )
    assert torch.equal(tensors["backbone.decoder.up.0.bias"], state["decoder.conv_blocks.0.upsample.conv.bias"])
    qkv = torch.cat([state[f"encoder.mid.1.{part}.weight"] for part in "qkv"])
    assert torch.equal(tensors["backbone.encoder.middle.1.qkv.weight"], qkv)
    # Codes are looked up on the sphere, and a code stands for its direction.
    images = torch.randn(2, 3, 8, 8)
    latents = F.normalize(tokenizer.backbone.encode(images).flatten(2).transpose(1, 2), dim=-1)
    book = F.normalize(state["quantize.embedding.weight"], dim=-1)
    codes = tokenizer.quantiser.encode(tokenizer.backbone.encode(images))
    assert torch.equal(codes, (latents @ book.T).argmax(-1))
    assert torch.allclose(tokenizer.quantiser.decode(codes).flatten(2).transpose(1, 2), book[codes], atol=1e-6)
    assert tokenizer.space.shape == (4, 4) and tokenizer.space.sizes == 5
    tokenizer.save(tmp_path / "saved")
    again = type(tokenizer).load(tmp_path / "saved")
    assert torch.equal(again.tensors()["quantiser.book.vectors"], book)
