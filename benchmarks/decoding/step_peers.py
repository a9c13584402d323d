"""llama.cpp and transformers on networks written by step_speed.py, each in a process of its own.

Run by step_speed.py with the Python of an environment that has llama-cpp-python, gguf, safetensors, torch and
transformers. It reads lines "COUNT" from its input, draws so many symbols greedily and answers with one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def write_gguf(folder: Path, quantised: bool) -> None:
    """``network.safetensors`` and ``network.json`` of a folder as GGUF, float32 or Q8_0."""
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((folder / "network.json").read_text())
    weights = load_file(folder / "network.safetensors")
    writer = gguf.GGUFWriter(folder / ("q8_0.gguf" if quantised else "f32.gguf"), "llama")
    writer.add_context_length(config["length"])
    writer.add_embedding_length(config["width"])
    writer.add_block_count(config["depth"])
    writer.add_feed_forward_length(config["hidden"])
    writer.add_head_count(config["heads"])
    writer.add_head_count_kv(config["heads"])
    writer.add_layer_norm_rms_eps(config["epsilon"])
    writer.add_rope_dimension_count(config["width"] // config["heads"])
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config["vocab"])
    writer.add_tokenizer_model("no_vocab")

    def add(name: str, weight: np.ndarray) -> None:
        if quantised and weight.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(weight, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, np.ascontiguousarray(weight))

    def pairs(weight: np.ndarray) -> np.ndarray:
        """Rows of queries or keys as llama.cpp turns them: neighbours rather than halves."""
        return weight.reshape(config["heads"], 2, -1, config["width"]).swapaxes(1, 2).reshape(weight.shape)

    add("token_embd.weight", weights["network.embed.table.weight"])
    add("output_norm.weight", weights["network.norm.weight"])
    for i in range(config["depth"]):
        old, new = f"network.blocks.{i}", f"blk.{i}"
        q, k, v = np.split(weights[f"{old}.qkv.weight"], 3)
        gate, up = np.split(weights[f"{old}.mlp.inner.weight"], 2)
        add(f"{new}.attn_norm.weight", weights[f"{old}.norm.weight"])
        add(f"{new}.ffn_norm.weight", weights[f"{old}.norm2.weight"])
        add(f"{new}.attn_q.weight", pairs(q))
        add(f"{new}.attn_k.weight", pairs(k))
        add(f"{new}.attn_v.weight", v)
        add(f"{new}.attn_output.weight", weights[f"{old}.out.weight"])
        add(f"{new}.ffn_gate.weight", gate)
        add(f"{new}.ffn_up.weight", up)
        add(f"{new}.ffn_down.weight", weights[f"{old}.mlp.outer.weight"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama(path: str, length: int, begin: int, threads: int) -> Callable[[int], list[int]]:
    """llama.cpp by its C interface: a step and a greedy choice per symbol, nothing else."""
    import ctypes

    import llama_cpp as cpp

    silent = cpp.llama_log_callback(lambda *_: None)
    cpp.llama_log_set(silent, ctypes.c_void_p(0))
    cpp.llama_backend_init()
    model = cpp.llama_model_load_from_file(path.encode(), cpp.llama_model_default_params())
    params = cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_threads, params.n_threads_batch = length + 8, 512, threads, threads
    context = cpp.llama_init_from_model(model, params)
    sampler = cpp.llama_sampler_chain_init(cpp.llama_sampler_chain_default_params())
    cpp.llama_sampler_chain_add(sampler, cpp.llama_sampler_init_greedy())
    one = (cpp.llama_token * 1)()

    def draw(count: int) -> list[int]:
        cpp.llama_memory_clear(cpp.llama_get_memory(context), True)
        token, out = begin, []
        for _ in range(count):
            one[0] = token
            if cpp.llama_decode(context, cpp.llama_batch_get_one(one, 1)):
                raise SystemExit("llama_decode failed")
            token = cpp.llama_sampler_sample(sampler, context, -1)
            out.append(int(token))
        draw.kept = silent  # type: ignore[attr-defined]  # C holds it
        return out

    return draw


def transformers(folder: Path, batch: int, threads: int, precision: str) -> Callable[[int], list[int]]:
    """``generate`` with its default cache."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
    config: dict[str, Any] = json.loads((folder / "network.json").read_text())
    network = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config["vocab"], hidden_size=config["width"], intermediate_size=config["hidden"],
            num_hidden_layers=config["depth"], num_attention_heads=config["heads"],
            max_position_embeddings=config["length"] + 8, tie_word_embeddings=True,
            bos_token_id=0, eos_token_id=None, pad_token_id=0,
        )
    ).eval()  # fmt: skip

    def draw(count: int) -> list[int]:
        ids = torch.zeros(batch, 1, dtype=torch.int64)
        with torch.inference_mode():
            out = network.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count, min_new_tokens=count
            )
        return out[0, 1:].tolist()

    return draw


def main() -> None:
    kind, path, *numbers = sys.argv[1:]
    if kind == "write":
        write_gguf(Path(path), quantised=False)
        write_gguf(Path(path), quantised=True)
        return
    if kind == "llama":
        length, begin, threads = map(int, numbers)
        draw = llama(path, length, begin, threads)
    else:
        batch, threads, precision = numbers
        draw = transformers(Path(path), int(batch), int(threads), precision)
    draw(4)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        start, busy = time.perf_counter(), time.process_time()
        symbols = draw(int(line))
        seconds, busy = time.perf_counter() - start, time.process_time() - busy
        print(json.dumps({"seconds": seconds, "processor_seconds": busy, "symbols": symbols}), flush=True)


if __name__ == "__main__":
    main()
