"""RAR's layout: its transformer against the formulas written out, one token, one head, one layer at a time."""

from __future__ import annotations

import math
from typing import Any

import maskgit_blocks
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from parity import close, some
from torch import Tensor

import ancestral
from ancestral.decoding.decoders import Request
from ancestral.errors import DataError
from ancestral.model import Model
from ancestral.noise import Noise
from ancestral.order import Order
from ancestral.space import Condition

N, CODES, CLASSES, D, HEADS, DEPTH, HIDDEN = 9, 7, 3, 8, 2, 2, 20
CONFIG = {
    "model": {
        "vq_model": {"codebook_size": CODES},
        "generator": {
            "hidden_size": D, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS, "intermediate_size": HIDDEN,
            "image_seq_len": N, "condition_num_classes": CLASSES, "guidance_scale_pow": 1.5,
        },
    }
}  # fmt: skip


def weights() -> dict[str, Tensor]:
    make = some(0)
    state = {
        "cls_token": make(1, 1, D),
        "embeddings.weight": make(CODES + 1 + CLASSES + 1, D),
        "pos_embed": make(1, N + 1024, D),
        "target_aware_pos_embed": make(1, N + 1024, D),
        "timesteps_embeddings": make(1, N + 100, D),
        "adaln_before_head.adaLN_modulation.1.weight": make(2 * D, D),
        "adaln_before_head.adaLN_modulation.1.bias": make(2 * D),
        "lm_head.weight": make(CODES, D, scale=2.0),
        "lm_head.bias": make(CODES),
    }
    for layer in range(DEPTH):
        sizes = {
            "norm1": (D,), "norm2": (D,), "attn.q_norm": (D // HEADS,), "attn.k_norm": (D // HEADS,),
            "attn.qkv": (3 * D, D), "attn.proj": (D, D), "mlp.fc1": (HIDDEN, D), "mlp.fc2": (D, HIDDEN),
            "adaLN_modulation.1": (6 * D, D),
        }  # fmt: skip
        for name, size in sizes.items():
            state[f"blocks.{layer}.{name}.weight"] = make(*size)
            state[f"blocks.{layer}.{name}.bias"] = make(size[0])
    return state


def written_out(state: dict[str, Tensor], codes: Tensor, label: int, order: Tensor) -> Tensor:
    """Logits ``[len(codes) + 1, K]``: at every place, of the code that comes next.

    Args:
        state: the authors'.
        codes: int64 ``[t]``, those drawn so far, in the order drawn.
        label: number of the class; ``CLASSES`` is the withheld one.
        order: int64 ``[N]``, the sites in the order drawn.
    """

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x: Tensor, name: str = "") -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
        return x * state[f"{name}.weight"] + state[f"{name}.bias"] if name else x

    table, t = state["embeddings.weight"], len(codes)
    told = table[CODES + 1 + label]
    x = torch.cat([state["cls_token"][0], told[None], table[codes]])
    positions, targets = state["pos_embed"][0], state["target_aware_pos_embed"][0]
    x = x + torch.stack([positions[0], positions[1], *(positions[2 + s] for s in order[:t])])
    x[1:] += torch.stack([targets[2 + s] for s in order[: t + 1]]) if t < N else torch.zeros(1, D)
    c = F.silu(told + state["timesteps_embeddings"][0, : t + 2])
    for layer in range(DEPTH):
        at = f"blocks.{layer}."
        six = linear(c, at + "adaLN_modulation.1").chunk(6, -1)
        q, k, v = linear(norm(x, at + "norm1") * (1 + six[1]) + six[0], at + "attn.qkv").chunk(3, -1)
        heads = []
        for head in range(HEADS):
            mine = slice(head * D // HEADS, (head + 1) * D // HEADS)
            scores = norm(q[:, mine], at + "attn.q_norm") @ norm(k[:, mine], at + "attn.k_norm").T
            scores = scores / math.sqrt(D // HEADS) + torch.full((t + 2, t + 2), float("-inf")).triu(1)
            heads.append(scores.softmax(-1) @ v[:, mine])
        x = x + six[2] * linear(torch.cat(heads, -1), at + "attn.proj")
        h = linear(norm(x, at + "norm2") * (1 + six[4]) + six[3], at + "mlp.fc1")
        x = x + six[5] * linear(0.5 * h * (1 + torch.erf(h / math.sqrt(2))), at + "mlp.fc2")
    scale, shift = linear(c, "adaln_before_head.adaLN_modulation.1").chunk(2, -1)
    return linear((norm(x) * (1 + scale) + shift)[1:], "lm_head")


def loaded(state: dict[str, Tensor], config: dict[str, Any] = CONFIG) -> Model:
    model = ancestral.load_published("rar", state, config)
    assert isinstance(model, Model)
    return model


@torch.no_grad()
def test_logits_in_any_order() -> None:
    state = weights()
    generator = loaded(state).generator
    codes = torch.randint(CODES, (3, N), generator=torch.Generator().manual_seed(1))
    sequence = torch.stack([torch.arange(N), torch.randperm(N, generator=torch.Generator().manual_seed(2))])[[0, 1, 1]]
    labels = torch.tensor([2, 0, -1])
    features = generator.network(codes, Order(torch.argsort(sequence, 1)), Condition(label=labels))
    logits = generator.head(features, torch.arange(N)).logits  # type: ignore[attr-defined]
    for item, label in enumerate((2, 0, CLASSES)):
        wanted = written_out(state, codes[item, sequence[item, :-1]], label, sequence[item])
        close(logits[item, sequence[item]], wanted)


@torch.no_grad()
def test_guided_greedy_samples() -> None:
    state, cfg = weights(), 4.0
    model = loaded(state)
    for power in (1.5, 0.0):
        settings = {**CONFIG["model"]["generator"], "codebook_size": CODES, "guidance_scale_pow": power}
        model = loaded(state, settings)
        label = torch.tensor([1, 2])
        request = Request(Noise.of(0, 2), Condition(label=label), guidance=cfg - 1, options={"temperature": 0.0})
        drawn = model.decoder(model.generator, request)
        for item in range(2):
            codes = torch.zeros(0, dtype=torch.int64)
            for step in range(N):
                scale = 1 + (cfg - 1) * (1 - math.cos((step / N) ** power * math.pi)) / 2
                told, untold = (written_out(state, codes, k, torch.arange(N))[-1] for k in (int(label[item]), CLASSES))
                best = (untold + (told - untold) * scale).topk(2)
                assert float(best.values[0] - best.values[1]) > 1e-4
                codes = torch.cat([codes, best.indices[:1]])
            assert torch.equal(drawn[item], codes)


def test_images_by_maskgits_tokenizer() -> None:
    make = some(3)
    tensors = {"quantize.embedding.weight": make(CODES, 4, scale=1.0)}
    for part in ("encoder", "decoder"):
        tensors |= maskgit_blocks.weights(make, part, 32, (1, 1), 1, 4)
    sizes = {"hidden_channels": 32, "channel_mult": (1, 1), "num_res_blocks": 1, "z_channels": 4}
    tokenizer = ancestral.load_published("maskgit_vq", tensors, {**sizes, "resolution": 6, "num_embeddings": CODES})
    model = ancestral.load_published("rar", weights(), CONFIG, tokenizer)  # type: ignore[arg-type]
    assert isinstance(model, Model)
    pictures = model.sample(2, label=["0", "2"], guidance=3.0, seed=0)
    assert pictures.shape == (2, 6, 6, 3)
    assert model.complete(pictures, known=np.arange(6)[:, None].repeat(6, 1) < 4).shape == (2, 6, 6, 3)


def test_weights_that_do_not_fit() -> None:
    state = weights()
    with pytest.raises(DataError, match="there is no cls_token among them"):
        loaded({k: v for k, v in state.items() if k != "cls_token"})
    with pytest.raises(DataError, match=r"1 without a place \(extra.weight\)"):
        loaded({**state, "extra.weight": torch.zeros(1)})
    wrong = {**CONFIG["model"]["generator"], "codebook_size": CODES, "condition_num_classes": CLASSES + 1}
    with pytest.raises(DataError, match="has the shape"):
        loaded(state, wrong)
    with pytest.raises(DataError, match="square"):
        loaded(state, {**wrong, "image_seq_len": 10})
