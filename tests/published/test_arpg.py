"""ARPG's layout: its two passes against the formulas written out, one head at a time."""

from __future__ import annotations

import math
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
from ancestral.order import Order, scheduled_sets
from ancestral.space import Condition

CONFIG = {
    "dim": 16, "n_layer": 4, "n_head": 2, "multiple_of": 8, "num_classes": 3, "vocab_size": 7, "block_size": 16,
    "num_iter": 5,
}  # fmt: skip
N, CODES, CLASSES, D, HEADS, HIDDEN = 16, 7, 3, 16, 2, 48


def weights() -> dict[str, Tensor]:
    make = some(0)
    state = {
        "embeddings.weight": make(CODES + 1 + CLASSES + 2, D),
        "layers.norm.weight": make(D),
        "layers.to_k.weight": make(D, D),
        "layers.to_v.weight": make(D, D),
        "norm.weight": make(D),
        "head.weight": make(CODES, D, scale=2.0),
    }
    for part, letters in (("self", "qkv"), ("cross", "q")):
        for layer in range(2):
            at = f"layers.{part}_dec.{layer}."
            state |= {f"{at}attn.to_{letter}.weight": make(D, D) for letter in letters}
            state |= {f"{at}attn.proj.weight": make(D, D), f"{at}ffn.w2.weight": make(D, HIDDEN, scale=0.2)}
            state |= {f"{at}ffn.{w}.weight": make(HIDDEN, D) for w in ("w1", "w3")}
            state |= {f"{at}{name}_norm.weight": make(D) for name in ("attn", "ffn")}
    return state


def written_out(state: dict[str, Tensor], codes: Tensor, label: int, sites: list[int], sets: list[int]) -> Tensor:
    """Logits ``[T, K]`` at ``sites``, each given the sets before its own.

    Args:
        state: the authors'.
        codes: int64, those of the first of the ``sites``; as many as are known.
        label: number of the class; ``CLASSES`` is the withheld one.
        sites: in the order drawn.
        sets: the set of each, nondecreasing.
    """

    def norm(x: Tensor, name: str) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * state[f"{name}.weight"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T

    def turn(x: Tensor, where: list[int | None]) -> Tensor:
        """Of every head of 8 features, pairs 0 and 1 turn by the row, 2 and 3 by the column; a class vanishes."""
        out = torch.zeros_like(x)
        for t, site in enumerate(where):
            if site is None:
                continue
            for pair in range(D // 2):
                axis, number = divmod(pair % 4, 2)
                angle = torch.tensor(divmod(site, 4)[axis] / 10000 ** (2 * number / 4))
                a, b = x[t, 2 * pair], x[t, 2 * pair + 1]
                out[t, 2 * pair], out[t, 2 * pair + 1] = (
                    a * angle.cos() - b * angle.sin(),
                    b * angle.cos() + a * angle.sin(),
                )
        return out

    def attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
        heads = []
        for mine in (slice(0, 8), slice(8, 16)):
            scores = (q[:, mine] @ k[:, mine].T / math.sqrt(8)).masked_fill(~seen, float("-inf"))
            heads.append(scores.softmax(-1) @ v[:, mine])
        return torch.cat(heads, -1)

    def feed(x: Tensor, at: str) -> Tensor:
        h = norm(x, at + "ffn_norm")
        return x + linear(F.silu(linear(h, at + "ffn.w1")) * linear(h, at + "ffn.w3"), at + "ffn.w2")

    table = state["embeddings.weight"]
    x = torch.cat([table[CODES + 1 + label][None], table[codes]])
    where: list[int | None] = [None, *sites[: len(codes)]]
    of = torch.tensor([-1, *sets[: len(codes)]])
    for layer in range(2):
        at = f"layers.self_dec.{layer}."
        h = norm(x, at + "attn_norm")
        q, k, v = (linear(h, f"{at}attn.to_{letter}") for letter in "qkv")
        x = x + linear(attend(turn(q, where), turn(k, where), v, of[None] <= of[:, None]), at + "attn.proj")
        x = feed(x, at)
    h = norm(x, "layers.norm")
    k, v = turn(linear(h, "layers.to_k"), where), linear(h, "layers.to_v")
    y = table[CODES].expand(len(sites), D)
    for layer in range(2):
        at = f"layers.cross_dec.{layer}."
        q = turn(linear(norm(y, at + "attn_norm"), at + "attn.to_q"), list(sites))
        y = y + linear(attend(q, k, v, of[None] < torch.tensor(sets)[:, None]), at + "attn.proj")
        y = feed(y, at)
    return linear(norm(y, "norm"), "head")


def loaded(state: dict[str, Tensor], **changed: Any) -> Model:
    model = ancestral.load_published("arpg", state, {**CONFIG, **changed})
    assert isinstance(model, Model)
    return model


@torch.no_grad()
def test_logits_in_any_order() -> None:
    state = weights()
    generator = loaded(state).generator
    codes = torch.randint(CODES, (2, N), generator=torch.Generator().manual_seed(1))
    sequence = torch.stack([torch.randperm(N, generator=torch.Generator().manual_seed(s)) for s in range(2)])
    for sets in (torch.arange(N), scheduled_sets(N, 5)):
        order = Order(sets[torch.argsort(sequence, 1)])
        features = generator.network(codes, order, Condition(label=torch.tensor([2, -1])))
        logits = generator.head(features, torch.arange(N)).logits  # type: ignore[attr-defined]
        for item, label in enumerate((2, CLASSES)):
            drawn = codes[item, sequence[item]]
            wanted = written_out(state, drawn[:-1], label, sequence[item].tolist(), sets.tolist())
            close(logits[item, sequence[item]], wanted)


def schedule(kind: str, steps: int, n: int = N) -> list[int]:
    """Sizes of the authors' sets."""
    sizes, done = [], 0
    for step in range(steps):
        share = (step + 1) / steps
        masked = math.cos(math.pi / 2 * share) if kind == "cosine" else math.acos(share) / (math.pi * 0.5)
        left = max(1, min(n - done - 1, int(n * masked)))
        sizes.append(n - done if step == steps - 1 else n - done - left)
        done += sizes[-1]
    return sizes


@pytest.mark.parametrize("kind", ["arccos", "cosine"])
@pytest.mark.parametrize("growth", ["linear", "constant"])
@torch.no_grad()
def test_guided_greedy_samples(kind: str, growth: str) -> None:
    state, cfg = weights(), 3.0
    model = loaded(state, sample_schedule=kind, cfg_schedule=growth)
    sequence = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    sizes = schedule(kind, 5)
    sets = torch.repeat_interleave(torch.arange(5), torch.tensor(sizes))
    assert torch.equal(sets, scheduled_sets(N, 5, model.decoder.schedule))  # type: ignore[attr-defined]
    request = Request(
        Noise.of(0, 1),
        Condition(label=torch.tensor([1])),
        Order(sets[torch.argsort(sequence)]),
        guidance=cfg - 1,
        options={"temperature": 0.0},
    )
    drawn = model.decoder(model.generator, request)[0]
    codes = torch.zeros(0, dtype=torch.int64)
    for size in sizes:
        end = len(codes) + size
        scale = 1 + (cfg - 1) * end / N if growth == "linear" else cfg
        part = sequence[:end].tolist(), sets[:end].tolist()
        told, untold = (written_out(state, codes, label, *part)[-size:] for label in (1, CLASSES))
        best = (untold + (told - untold) * scale).topk(2, -1)
        assert float((best.values[:, 0] - best.values[:, 1]).min()) > 1e-4
        codes = torch.cat([codes, best.indices[:, 0]])
    assert torch.equal(drawn[sequence], codes)


def test_schedules_at_full_size() -> None:
    for steps in (16, 32, 64):
        for kind in ("arccos", "cosine"):
            wanted = torch.repeat_interleave(torch.arange(steps), torch.tensor(schedule(kind, steps, 256)))
            assert torch.equal(scheduled_sets(256, steps, kind), wanted)  # type: ignore[arg-type]


def test_weights_that_do_not_fit() -> None:
    state = weights()
    with pytest.raises(DataError, match=r"there is no layers.cross_dec.1.ffn.w3.weight among them"):
        loaded({k: v for k, v in state.items() if "cross_dec.1.ffn.w3" not in k})
    with pytest.raises(DataError, match=r"1 without a place \(layers.extra\)"):
        loaded({**state, "layers.extra": torch.zeros(1)})
    with pytest.raises(DataError, match="has the shape"):
        loaded(state, num_classes=4)
    with pytest.raises(DataError, match="class-conditional"):
        loaded(state, model_type="t2i")
