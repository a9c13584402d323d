"""AiM's layout: its network against the formulas written out, place by place."""

from __future__ import annotations

from typing import Any

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

N, CODES, CLASSES, D, DEPTH, STATE, HEAD, SETS = 9, 7, 3, 8, 3, 5, 4, 2
SECOND = {"layer": "Mamba2", "d_state": STATE, "headdim": HEAD, "ngroups": SETS}
CONFIG = {
    "d_model": D, "n_layer": DEPTH, "vocab_size": CODES, "ssm_cfg": SECOND, "num_classes": CLASSES, "num_tokens": N,
    "adaln_group": True, "num_groups": 2,
}  # fmt: skip
CASES = {
    "mamba-2": {},
    "one set": {"ssm_cfg": {**SECOND, "ngroups": 1}},
    "by layers": {"adaln_group": False},
    "mamba": {"ssm_cfg": {"d_state": STATE}},
}


def weights(case: str) -> dict[str, Tensor]:
    settings: dict[str, Any] = {**CONFIG, **CASES[case]}
    make, inner = some(0), 2 * D
    state = {
        "backbone.embeddings.word_embeddings.weight": make(CODES, D),
        "backbone.embeddings.position_embeddings.weight": make(N + 1, D),
        "backbone.cls_embed.embedding_table.weight": make(CLASSES + 1, D),
        "backbone.norm_f.weight": make(D),
        "backbone.final_layer.norm_final.weight": make(D),
        "backbone.final_layer.adaLN_modulation.1.weight": make(2 * D, D),
        "backbone.final_layer.adaLN_modulation.1.bias": make(2 * D),
    }
    if settings["adaln_group"]:
        state["backbone.adaln_group.1.weight"] = make(2 * 3 * D, D)
        state["backbone.adaln_group.1.bias"] = make(2 * 3 * D)
    for layer in range(DEPTH):
        at = f"backbone.layers.{layer}."
        state[at + "norm.weight"] = make(D)
        if settings["adaln_group"]:
            state[at + "scale_shift_table"] = make(1, 3, D)
        else:
            state[at + "adaLN_modulation.1.weight"] = make(3 * D, D)
            state[at + "adaLN_modulation.1.bias"] = make(3 * D)
        at += "mixer."
        if "layer" in settings["ssm_cfg"]:
            sets, heads = settings["ssm_cfg"]["ngroups"], inner // HEAD
            wide = inner + 2 * sets * STATE
            state |= {
                at + "in_proj.weight": make(inner + wide + heads, D),
                at + "A_log": make(heads), at + "D": make(heads), at + "dt_bias": make(heads),
                at + "norm.weight": make(inner),
            }  # fmt: skip
        else:
            wide = inner
            state |= {
                at + "in_proj.weight": make(2 * inner, D), at + "x_proj.weight": make(1 + 2 * STATE, inner),
                at + "dt_proj.weight": make(inner, 1), at + "dt_proj.bias": make(inner),
                at + "A_log": make(inner, STATE), at + "D": make(inner),
            }  # fmt: skip
        state |= {at + "conv1d.weight": make(wide, 1, 4), at + "conv1d.bias": make(wide)}
        state[at + "out_proj.weight"] = make(D, inner)
    return state | {"lm_head.weight": state["backbone.embeddings.word_embeddings.weight"]}


def written_out(state: dict[str, Tensor], case: str, codes: Tensor, label: int, offset: int) -> Tensor:
    """Logits ``[t + 1, K]`` behind the class and each of the codes ``[t]``, whose places begin with ``offset``."""
    settings: dict[str, Any] = {**CONFIG, **CASES[case]}

    def weight(name: str) -> Tensor:
        return state[f"backbone.{name}"]

    def norm(x: Tensor, gain: Tensor | float, size: int | None = None) -> Tensor:
        parts = x.split(size or x.shape[-1], -1)
        return torch.cat([p / (p.square().mean(-1, keepdim=True) + 1e-5).sqrt() for p in parts], -1) * gain

    def convolved(x: Tensor, at: str) -> Tensor:
        rows = []
        for t in range(len(x)):
            row = weight(at + "conv1d.bias").clone()
            for tap in range(4):
                if t - 3 + tap >= 0:
                    row += weight(at + "conv1d.weight")[:, 0, tap] * x[t - 3 + tap]
            rows.append(F.silu(row))
        return torch.stack(rows)

    def second(x: Tensor, at: str) -> Tensor:
        sets, heads = settings["ssm_cfg"]["ngroups"], 2 * D // HEAD
        z, xbc, dt = (x @ weight(at + "in_proj.weight").T).split([2 * D, 2 * D + 2 * sets * STATE, heads], -1)
        u, b, c = convolved(xbc, at).split([2 * D, sets * STATE, sets * STATE], -1)
        dt, out = F.softplus(dt + weight(at + "dt_bias")), torch.zeros(len(x), 2 * D)
        for head in range(heads):
            mine, theirs = (slice(k * s, (k + 1) * s) for k, s in ((head, HEAD), (head * sets // heads, STATE)))
            h = torch.zeros(HEAD, STATE)
            for t in range(len(x)):
                h = h * torch.exp(-dt[t, head] * weight(at + "A_log")[head].exp())
                h = h + dt[t, head] * torch.outer(u[t, mine], b[t, theirs])
                out[t, mine] = h @ c[t, theirs] + weight(at + "D")[head] * u[t, mine]
        out = norm(out * F.silu(z), weight(at + "norm.weight"), 2 * D // sets)
        return out @ weight(at + "out_proj.weight").T

    def first(x: Tensor, at: str) -> Tensor:
        u, z = (x @ weight(at + "in_proj.weight").T).chunk(2, -1)
        u = convolved(u, at)
        dt, b, c = (u @ weight(at + "x_proj.weight").T).split([1, STATE, STATE], -1)
        dt = F.softplus(dt @ weight(at + "dt_proj.weight").T + weight(at + "dt_proj.bias"))
        h, rows = torch.zeros(2 * D, STATE), []
        for t in range(len(x)):
            h = h * torch.exp(-dt[t, :, None] * weight(at + "A_log").exp()) + torch.outer(dt[t] * u[t], b[t])
            rows.append(h @ c[t] + weight(at + "D") * u[t])
        return (torch.stack(rows) * F.silu(z)) @ weight(at + "out_proj.weight").T

    told = weight("cls_embed.embedding_table.weight")[label]
    places = weight("embeddings.position_embeddings.weight")[offset : offset + len(codes)]
    x = torch.cat([told[None], weight("embeddings.word_embeddings.weight")[codes] + places])
    for layer in range(DEPTH):
        at = f"layers.{layer}."
        name = "adaln_group.1" if settings["adaln_group"] else at + "adaLN_modulation.1"
        three = (F.silu(told) @ weight(f"{name}.weight").T + weight(f"{name}.bias")).view(-1, 3, D)
        if settings["adaln_group"]:
            three = three[layer % 2 : layer % 2 + 1] + weight(at + "scale_shift_table")
        shift, scale, gate = three[0]
        mixer = second if "layer" in settings["ssm_cfg"] else first
        x = x + gate * mixer(norm(x, weight(at + "norm.weight")) * (1 + scale) + shift, at + "mixer.")
    shift, scale = (
        F.silu(told) @ weight("final_layer.adaLN_modulation.1.weight").T + weight("final_layer.adaLN_modulation.1.bias")
    ).chunk(2)
    x = norm(norm(x, weight("norm_f.weight")), weight("final_layer.norm_final.weight"))
    return (x * (1 + scale) + shift) @ state["lm_head.weight"].T


def loaded(state: dict[str, Tensor], **changed: Any) -> Model:
    model = ancestral.load_published("aim", state, {**CONFIG, **changed})
    assert isinstance(model, Model)
    return model


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_logits(case: str) -> None:
    state = weights(case)
    generator = loaded(state, **CASES[case]).generator
    codes = torch.randint(CODES, (2, N), generator=torch.Generator().manual_seed(1))
    features = generator.network(codes, Order.raster(N), Condition(label=torch.tensor([2, -1])))
    logits = generator.head(features, torch.arange(N)).logits  # type: ignore[attr-defined]
    for item, label in enumerate((2, CLASSES)):
        close(logits[item], written_out(state, case, codes[item, :-1], label, 0))


@pytest.mark.parametrize("offset", [0, 1])
@torch.no_grad()
def test_guided_greedy_samples(offset: int) -> None:
    state, cfg = weights("mamba-2"), 1.5
    model = loaded(state, sampler_offset=offset) if not offset else loaded(state)
    label = torch.tensor([1, 2])
    request = Request(Noise.of(0, 2), Condition(label=label), guidance=cfg - 1, options={"temperature": 0.0})
    drawn = model.decoder(model.generator, request)
    for item in range(2):
        codes = torch.zeros(0, dtype=torch.int64)
        for _ in range(N):
            told, untold = (written_out(state, "mamba-2", codes, k, offset)[-1] for k in (int(label[item]), CLASSES))
            best = (untold + (told - untold) * cfg).topk(2)
            assert float(best.values[0] - best.values[1]) > 1e-4
            codes = torch.cat([codes, best.indices[:1]])
        assert torch.equal(drawn[item], codes)


@torch.no_grad()
def test_names_of_whole_models_and_of_earlier_versions() -> None:
    state = weights("mamba-2")
    older = {f"mamba.{k}".replace("adaln_group", "adaln_single"): v for k, v in state.items() if k != "lm_head.weight"}
    older = {k.replace("scale_shift_table", "adaLN_parameters"): v for k, v in older.items()}
    older["mamba.backbone.embeddings.position_embeddings.weight"] = torch.cat(
        [state["backbone.embeddings.position_embeddings.weight"], torch.ones(4, D)]
    )
    older["vqvae.quantize.embedding.weight"] = torch.ones(2)
    ours, again = loaded(state).generator.state_dict(), loaded(older).generator.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in ours.items())


def test_what_does_not_fit() -> None:
    state = weights("mamba-2")
    with pytest.raises(DataError, match=r"there is no layers\.1\.scale_shift_table among them"):
        loaded({k: v for k, v in state.items() if k != "backbone.layers.1.scale_shift_table"})
    with pytest.raises(DataError, match=r"1 missing \(network.blocks.2.gain\) and 1 without a place \(extra\)"):
        loaded({k: v for k, v in state.items() if "2.mixer.norm" not in k} | {"extra": torch.zeros(1)})
    with pytest.raises(DataError, match="has the shape"):
        loaded(state, num_classes=4)
    with pytest.raises(DataError, match="without perceptrons"):
        loaded(state, d_intermediate=4)
    with pytest.raises(DataError, match="ssm_cfg holds D_has_hdim"):
        loaded(state, ssm_cfg={**SECOND, "D_has_hdim": True})
    with pytest.raises(DataError, match="'Mamba3' layers"):
        loaded(state, ssm_cfg={"layer": "Mamba3"})
