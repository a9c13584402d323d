"""LlamaGen's layout: its transformer against the formulas written out, its tokenizer's names against their places."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from parity import close
from safetensors.torch import save_file
from torch import Tensor

import ancestral
from ancestral.decoding.decoders import Request
from ancestral.errors import DataError
from ancestral.model import Model
from ancestral.noise import Noise
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
    """Logits ``[9, 11]`` of one image's codes ``[9]``: class, then all codes but the last."""
    told = state["cls_embedding.embedding_table.weight"][label : label + 1]
    return behind(state, told, codes[:-1], torch.zeros(1, dtype=torch.bool))


def behind(state: dict[str, Tensor], told: Tensor, codes: Tensor, padding: Tensor) -> Tensor:
    """Logits ``[t + 1, 11]`` behind the last of ``told`` and each of the codes ``[t]``; one head at a time.

    ``told`` ``[n, 16]`` stands nowhere, and of it ``padding`` is seen by itself only.
    """
    n = len(told)
    x = torch.cat([told, state["tok_embeddings.weight"][codes]])
    length = len(x)
    angles = torch.zeros(length, 2)  # one frequency per axis for heads of 4 features
    for t in range(n, length):
        angles[t] = torch.tensor([(t - n) // 3, (t - n) % 3])
    seen = torch.ones(length, length).tril().bool()
    seen[:, :n] &= ~padding
    seen |= torch.eye(length, dtype=torch.bool)

    def norm(x: Tensor, name: str) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * state[name]

    def turn(head: Tensor) -> Tensor:
        out = torch.zeros_like(head)
        for t in range(n, length):  # the queries and keys of what is told stay zero
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
            heads.append(scores.masked_fill(~seen, float("-inf")).softmax(-1) @ v[:, theirs])
        x = x + torch.cat(heads, -1) @ state[at + "attention.wo.weight"].T
        h = norm(x, at + "ffn_norm.weight")
        gate, up = (h @ state[f"{at}feed_forward.{w}.weight"].T for w in ("w1", "w3"))
        x = x + (F.silu(gate) * up) @ state[at + "feed_forward.w2.weight"].T
    return norm(x, "norm.weight")[n - 1 :] @ state["output.weight"].T


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
    with pytest.raises(DataError, match="one class token"):
        ancestral.load_published("llamagen", state, {**CONFIG, "cls_token_num": 2})
    labels = "cls_embedding.embedding_table.weight"
    sure = {**state, labels: state[labels][:3], "layers.0.attention.kv_cache.k_cache": torch.zeros(2)}
    again = ancestral.load_published("llamagen", sure, {**CONFIG, "class_dropout_prob": 0.0})
    assert isinstance(again, Model)
    features = again.generator.network(codes[:1], Order.raster(9), Condition(label=torch.tensor([2])))
    found = again.generator.head(features, torch.arange(9))
    assert torch.allclose(found.logits[0], written_out(state, codes[0], 2), atol=1e-4)  # type: ignore[attr-defined]


WORDS, FEATURES = 3, 5


@torch.no_grad()
def test_captions() -> None:
    """Tokens of a caption in front: those of padding are seen by themselves only, whether it is heeded or withheld."""
    make = torch.Generator().manual_seed(2)
    state = {k: v for k, v in gpt_state().items() if not k.startswith("cls_embedding")}
    state |= {
        "cls_embedding.cap_proj.fc1.weight": torch.randn(16, FEATURES, generator=make),
        "cls_embedding.cap_proj.fc2.weight": torch.randn(16, 16, generator=make) * 0.3,
        "cls_embedding.uncond_embedding": torch.randn(WORDS, FEATURES, generator=make),
    }
    config = {**CONFIG, "model_type": "t2i", "cls_token_num": WORDS, "caption_dim": FEATURES}
    model = ancestral.load_published("llamagen", state, config)
    assert isinstance(model, Model)
    generator = model.generator
    codes = torch.randint(11, (3, 9), generator=make)
    captions = torch.randn(3, WORDS, FEATURES, generator=make)
    captions[1, 0] = 0  # padding stands in front
    captions[2, :2] = 0
    padding = (captions == 0).all(-1)
    told = Condition(vector=captions.flatten(1), label=torch.zeros(3, dtype=torch.int64))
    nothing = state["cls_embedding.uncond_embedding"].expand(3, -1, -1)
    for condition, rows in ((told, captions), (told.without_label(), nothing)):
        features = generator.network(codes, Order.raster(9), condition)
        logits = generator.head(features, torch.arange(9)).logits  # type: ignore[attr-defined]
        for item in range(3):
            hidden = rows[item] @ state["cls_embedding.cap_proj.fc1.weight"].T
            hidden = 0.5 * hidden * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (hidden + 0.044715 * hidden**3)))
            words = hidden @ state["cls_embedding.cap_proj.fc2.weight"].T
            wanted = behind(state, words, codes[item, :-1], padding[item])
            assert torch.allclose(logits[item], wanted, atol=1e-4)
    cfg, greedy = 3.0, {"temperature": 0.0}
    drawn = model.decoder(generator, Request(Noise.of(0, 3), told, guidance=cfg - 1, options=greedy))
    for place in range(9):
        both = [
            generator.head(generator.network(drawn, Order.raster(9), condition), torch.arange(9))
            for condition in (told, told.without_label())
        ]
        both = [each.logits[:, place] for each in both]  # type: ignore[attr-defined]
        assert torch.equal((both[1] + (both[0] - both[1]) * cfg).argmax(-1), drawn[:, place])


def vq_state(fine: int = 32, coarse: int = 64) -> dict[str, Tensor]:
    """A small LlamaGen tokenizer: two levels, one block per level, latents of 6 channels, codes of 2."""
    generator = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}

    def conv(name: str, inputs: int, outputs: int, size: int) -> None:
        state[f"{name}.weight"] = torch.randn(outputs, inputs, size, size, generator=generator) * inputs**-0.5 / size
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
        block(f"{name}.0", coarse, coarse), attention(f"{name}.1", coarse), block(f"{name}.2", coarse, coarse)

    conv("encoder.conv_in", 3, fine, 3)
    block("encoder.conv_blocks.0.res.0", fine, fine), conv("encoder.conv_blocks.0.downsample.conv", fine, fine, 3)
    block("encoder.conv_blocks.1.res.0", fine, coarse), attention("encoder.conv_blocks.1.attn.0", coarse)
    middle("encoder.mid"), norm("encoder.norm_out", coarse), conv("encoder.conv_out", coarse, 6, 3)
    conv("quant_conv", 6, 2, 1), conv("post_quant_conv", 2, 6, 1)
    conv("decoder.conv_in", 6, coarse, 3), middle("decoder.mid")
    for part in range(2):
        block(f"decoder.conv_blocks.0.res.{part}", coarse, coarse)
        attention(f"decoder.conv_blocks.0.attn.{part}", coarse)
    conv("decoder.conv_blocks.0.upsample.conv", coarse, coarse, 3)
    block("decoder.conv_blocks.1.res.0", coarse, fine), block("decoder.conv_blocks.1.res.1", fine, fine)
    norm("decoder.norm_out", fine), conv("decoder.conv_out", fine, 3, 3)
    state["quantize.embedding.weight"] = torch.randn(5, 2, generator=generator)
    return state | {"quantize.codebook_used": torch.zeros(9)}


def vq_run(state: dict[str, Tensor], x: Tensor, part: str) -> Tensor:
    """The encoder (images to latents before quantisation) or the decoder (latents to images), written out."""

    def conv(x: Tensor, name: str) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def norm(x: Tensor, name: str) -> Tensor:
        return F.group_norm(x, 32, state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def block(x: Tensor, name: str) -> Tensor:
        h = conv(F.silu(norm(x, f"{name}.norm1")), f"{name}.conv1")
        h = conv(F.silu(norm(h, f"{name}.norm2")), f"{name}.conv2")
        return h + (conv(x, f"{name}.nin_shortcut") if f"{name}.nin_shortcut.weight" in state else x)

    def attention(x: Tensor, name: str) -> Tensor:
        h = norm(x, f"{name}.norm")
        q, k, v = (conv(h, f"{name}.{letter}").flatten(2) for letter in "qkv")
        weights = (q.mT @ k / q.shape[1] ** 0.5).softmax(-1)
        return x + conv((v @ weights.mT).view(x.shape), f"{name}.proj_out")

    def middle(x: Tensor) -> Tensor:
        return block(attention(block(x, f"{part}.mid.0"), f"{part}.mid.1"), f"{part}.mid.2")

    if part == "encoder":
        x = block(conv(x, "encoder.conv_in"), "encoder.conv_blocks.0.res.0")
        down = "encoder.conv_blocks.0.downsample.conv"  # one row and one column of zeros, below and to the right
        x = F.conv2d(F.pad(x, (0, 1, 0, 1)), state[f"{down}.weight"], state[f"{down}.bias"], stride=2)
        x = middle(attention(block(x, "encoder.conv_blocks.1.res.0"), "encoder.conv_blocks.1.attn.0"))
        return conv(conv(F.silu(norm(x, "encoder.norm_out")), "encoder.conv_out"), "quant_conv")
    x = middle(conv(conv(x, "post_quant_conv"), "decoder.conv_in"))
    for number in range(2):
        x = attention(block(x, f"decoder.conv_blocks.0.res.{number}"), f"decoder.conv_blocks.0.attn.{number}")
    x = conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3), "decoder.conv_blocks.0.upsample.conv")
    x = block(block(x, "decoder.conv_blocks.1.res.0"), "decoder.conv_blocks.1.res.1")
    return conv(F.silu(norm(x, "decoder.norm_out")), "decoder.conv_out")


@torch.no_grad()
def test_tokenizer(tmp_path: Path) -> None:
    state = vq_state()
    save_file(state, tmp_path / "vq.safetensors")
    config = {
        "codebook_size": 5, "codebook_embed_dim": 2, "encoder_ch_mult": (1, 2), "z_channels": 6, "ch": 32,
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
    latents = vq_run(state, images, "encoder")
    assert torch.allclose(tokenizer.backbone.encode(images), latents, atol=1e-4)
    latents = F.normalize(latents.flatten(2).transpose(1, 2), dim=-1)
    book = F.normalize(state["quantize.embedding.weight"], dim=-1)
    codes = tokenizer.quantiser.encode(tokenizer.backbone.encode(images))
    assert torch.equal(codes, (latents @ book.T).argmax(-1))
    assert torch.allclose(tokenizer.quantiser.decode(codes).flatten(2).transpose(1, 2), book[codes], atol=1e-6)
    vectors = book[codes].mT.unflatten(2, (4, 4))
    close(tokenizer.backbone.decode(tokenizer.quantiser.decode(codes)), vq_run(state, vectors, "decoder"))
    assert tokenizer.space.shape == (4, 4) and tokenizer.space.sizes == 5
    tokenizer.save(tmp_path / "saved")
    again = type(tokenizer).load(tmp_path / "saved")
    assert torch.equal(again.tensors()["quantiser.book.vectors"], book)
