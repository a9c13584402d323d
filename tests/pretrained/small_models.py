"""Tiny language models with random weights, written as publishers write them, and a plain reference network."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SENTENCES = [
    "The river runs past the old mill, and the mill runs on the river.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. 1, 22, 333!",
    "日本語 and emoji 🙂 share a line with\ttabs\nand newlines.  Two spaces.",
]


def byte_level(vocab: int = 320) -> Tokenizer:
    """A byte-level BPE tokenizer trained on :data:`SENTENCES`, with two control symbols at the front."""
    codec = Tokenizer(models.BPE())
    codec.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    codec.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_end|>"],
        show_progress=False,
    )
    codec.train_from_iterator(SENTENCES, trainer)
    return codec


LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5000.0,
    "vocab_size": 320,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def llama_weights(config: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Random weights under the names of ``LlamaForCausalLM``, sharp enough for the output to vary."""
    random = torch.Generator().manual_seed(seed)
    width, hidden, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    shared, head = config["num_key_value_heads"], width // heads

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random) / math.sqrt(shape[-1])

    out = {"model.embed_tokens.weight": normal(config["vocab_size"], width) * 4}
    out["model.norm.weight"] = 1 + 0.1 * torch.randn(width, generator=random)
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}"
        out[f"{at}.self_attn.q_proj.weight"] = normal(heads * head, width) * 2
        out[f"{at}.self_attn.k_proj.weight"] = normal(shared * head, width) * 2
        out[f"{at}.self_attn.v_proj.weight"] = normal(shared * head, width)
        out[f"{at}.self_attn.o_proj.weight"] = normal(width, heads * head)
        out[f"{at}.mlp.gate_proj.weight"] = normal(hidden, width)
        out[f"{at}.mlp.up_proj.weight"] = normal(hidden, width)
        out[f"{at}.mlp.down_proj.weight"] = normal(width, hidden)
        for name in ("input_layernorm", "post_attention_layernorm"):
            out[f"{at}.{name}.weight"] = 1 + 0.1 * torch.randn(width, generator=random)
    if not config["tie_word_embeddings"]:
        out["lm_head.weight"] = normal(config["vocab_size"], width) * 4
    return out


def write_folder(
    folder: Path, config: dict[str, Any], weights: dict[str, Tensor], codec: Tokenizer, shards: int = 1
) -> Path:
    """A Hugging Face folder; with several shards, an index beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    codec.save(str(folder / "tokenizer.json"))
    if shards == 1:
        save_file(weights, folder / "model.safetensors")
        return folder
    table = {}
    for number in range(shards):
        part = dict(list(weights.items())[number::shards])
        name = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        save_file(part, folder / name)
        table |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    return folder


def reference_logits(config: dict[str, Any], weights: dict[str, Tensor], ids: Tensor) -> Tensor:
    """Logits ``[T, K]`` of symbols ``[T]``, in float64, written down from the papers with no regard to speed.

    Pairs of features are turned by explicit 2 x 2 rotations (arXiv:2104.09864), heads attend one by one.
    """
    heads, shared = config["num_attention_heads"], config["num_key_value_heads"]
    width = config["hidden_size"]
    head = width // heads
    w = {k.removeprefix("model."): v.double() for k, v in weights.items()}

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + config["rms_norm_eps"]).sqrt() * weight

    def turn(x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        for t in range(len(x)):
            for i in range(head // 2):
                angle = t * config["rope_theta"] ** (-2 * i / head)
                a, b = x[t, i], x[t, i + head // 2]
                out[t, i] = a * math.cos(angle) - b * math.sin(angle)
                out[t, i + head // 2] = a * math.sin(angle) + b * math.cos(angle)
        return out

    x = w["embed_tokens.weight"][ids]
    hidden_from_future = torch.ones(len(ids), len(ids), dtype=torch.bool).triu(1)
    for i in range(config["num_hidden_layers"]):
        at = f"layers.{i}"
        y = norm(x, w[f"{at}.input_layernorm.weight"])
        q, k, v = (y @ w[f"{at}.self_attn.{p}_proj.weight"].T for p in "qkv")
        outs = []
        for h in range(heads):
            g = h // (heads // shared)
            mine = turn(q[:, h * head : (h + 1) * head])
            keys, values = turn(k[:, g * head : (g + 1) * head]), v[:, g * head : (g + 1) * head]
            scores = (mine @ keys.T / math.sqrt(head)).masked_fill(hidden_from_future, -math.inf)
            outs.append(scores.softmax(-1) @ values)
        x = x + torch.cat(outs, -1) @ w[f"{at}.self_attn.o_proj.weight"].T
        y = norm(x, w[f"{at}.post_attention_layernorm.weight"])
        gate, up = y @ w[f"{at}.mlp.gate_proj.weight"].T, y @ w[f"{at}.mlp.up_proj.weight"].T
        x = x + (F.silu(gate) * up) @ w[f"{at}.mlp.down_proj.weight"].T
    top = w["embed_tokens.weight"] if config["tie_word_embeddings"] else w["lm_head.weight"]
    return norm(x, w["norm.weight"]) @ top.T


def write_gguf(
    path: Path, config: dict[str, Any], weights: dict[str, Tensor], codec: Tokenizer, quantised: bool = False
) -> Path:
    """The same model as GGUF, rows of queries and keys reordered as llama.cpp's converter does."""
    import gguf

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    words = sorted(codec.get_vocab().items(), key=lambda entry: entry[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([word for word, _ in words])
    writer.add_token_types([3 if i < 2 else 1 for _, i in words])
    merges = json.loads(codec.to_str())["model"]["merges"]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    names = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    for name, weight in weights.items():
        for part, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
            if part in name:
                h = config[heads]
                weight = weight.reshape(h, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
        short = name.removesuffix(".weight")
        if short.startswith("model.layers."):
            _, _, layer, rest = short.split(".", 3)
            target = f"blk.{layer}.{names[rest]}.weight"
        else:
            target = f"{names[short]}.weight"
        array = weight.numpy().copy()
        if quantised and array.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(target, gguf.quants.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(target, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
