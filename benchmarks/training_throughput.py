"""Tokens per second of a training step: ours against transformers' Llama and x-transformers, interleaved.

8 layers x 384, vocabulary 4,096, batch 16 x 256, float32, fused AdamW; 10.6 M to 15 M parameters depending on the
feed-forward layer, so tokens/s are also given per parameter multiplied (6 x parameters FLOP per token).

    pip install transformers x-transformers
    python benchmarks/training_throughput.py --rounds 5
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ancestral.generator import Generator
from ancestral.heads import Categorical
from ancestral.networks import CausalTransformer
from ancestral.noise import Noise
from ancestral.space import Condition, Space
from record import record

WIDTH, DEPTH, HEADS, VOCAB, BATCH, LENGTH, HIDDEN = 384, 8, 6, 4096, 16, 256, 1024


def ours() -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """Causal transformer with rotary positions, SwiGLU and RMSNorm."""
    network = CausalTransformer(WIDTH, DEPTH, HEADS, targets=False)
    model = Generator(network, Categorical(per_site=False)).build(Space((LENGTH,), VOCAB))
    noise = Noise.of(0, BATCH)
    return model, lambda x: model.loss(x, Condition(), noise)


def llama() -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """transformers' Llama of the same sizes, untied embeddings as ours."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        max_position_embeddings=LENGTH,
        use_cache=False,
    )
    model = LlamaForCausalLM(config).train()
    return model, lambda x: model(input_ids=x, labels=x).loss


def x_transformers() -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """x-transformers' decoder with the same parts (RMSNorm, SwiGLU, rotary, flash attention)."""
    from x_transformers import AutoregressiveWrapper, Decoder, TransformerWrapper

    decoder = Decoder(
        dim=WIDTH,
        depth=DEPTH,
        heads=HEADS,
        attn_dim_head=WIDTH // HEADS,
        rotary_pos_emb=True,
        use_rmsnorm=True,
        ff_swish=True,
        ff_glu=True,
        ff_mult=HIDDEN / WIDTH,
        ff_no_bias=True,
        attn_flash=True,
    )
    model = AutoregressiveWrapper(TransformerWrapper(num_tokens=VOCAB, max_seq_len=LENGTH, attn_layers=decoder))
    # The wrapper predicts x[1:] from x[:-1]; one symbol more makes it predict as many as the others.
    return model, lambda x: model(torch.cat([x, x[:, :1]], 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.manual_seed(0)
    x = torch.randint(VOCAB, (BATCH, LENGTH))
    systems = {"ancestral": ours(), "transformers": llama(), "x-transformers": x_transformers()}
    optimisers = {n: torch.optim.AdamW(m.parameters(), lr=1e-4, fused=True) for n, (m, _) in systems.items()}
    times: dict[str, list[float]] = {name: [] for name in systems}
    for number in range(rounds + 1):
        turn = number % len(systems)
        for name in (*list(systems)[turn:], *list(systems)[:turn]):
            loss = systems[name][1]
            start = time.perf_counter()
            loss(x).backward()
            optimisers[name].step()
            optimisers[name].zero_grad()
            if number:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    table = {}
    for name, (model, _) in systems.items():
        rate = BATCH * LENGTH / statistics.median(times[name])
        size = sum(p.numel() for p in model.parameters())
        table[name] = {"tokens_per_s": round(rate, 1), "parameters": size, "gflops": round(6 * size * rate / 1e9, 1)}
        print(f"{name:16} {rate:8.1f} tokens/s  {size / 1e6:6.2f} M parameters  {table[name]['gflops']} GFLOP/s")
    best = max(v["tokens_per_s"] for k, v in table.items() if k != "ancestral")
    ratio = table["ancestral"]["tokens_per_s"] / best
    print(f"ratio to the faster peer: {ratio:.3f}")
    record(
        "training_throughput",
        ours=table["ancestral"],
        peers={k: v for k, v in table.items() if k != "ancestral"},
        scale=f"{DEPTH} x {WIDTH}, vocabulary {VOCAB}, batch {BATCH} x {LENGTH}, float32, median of {rounds} rounds",
        command=f"python benchmarks/training_throughput.py --rounds {rounds}",
        verdict="reproduced" if ratio >= 1 else "not reproduced",
        packages=("transformers", "x-transformers"),
        extra={"ratio_to_faster_peer": round(ratio, 4), "target": 1.0},
    )


if __name__ == "__main__":
    main()
