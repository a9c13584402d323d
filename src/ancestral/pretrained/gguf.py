"""GGUF files (llama.cpp): weights of any quantisation, and the tokenizer in the metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ancestral.errors import DataError, UnsupportedError
from ancestral.pretrained.codecs import byte_level_codec, sentence_piece_codec
from ancestral.pretrained.parts import Parts, begin_and_ends

_LLAMA = {
    "token_embd.weight": "embed_tokens.weight",
    "output_norm.weight": "norm.weight",
    "output.weight": "lm_head.weight",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GPT2 = {
    "token_embd.weight": "wte.weight",
    "position_embd.weight": "wpe.weight",
    "output_norm.weight": "ln_f.weight",
    "output_norm.bias": "ln_f.bias",
    "output.weight": "lm_head.weight",
    "attn_norm": "ln_1",
    "ffn_norm": "ln_2",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
_CONTROL, _USER_DEFINED = 3, 4  # kinds of symbols


class _Metadata:
    """The keys of a GGUF file."""

    def __init__(self, reader: Any, path: Path):
        self.fields, self.path = reader.fields, path

    def get(self, key: str, default: Any = None) -> Any:
        return self.fields[key].contents() if key in self.fields else default

    def need(self, key: str) -> Any:
        if key not in self.fields:
            raise DataError(f"{self.path} has no {key!r} in its metadata; it is incomplete or of another kind")
        return self.fields[key].contents()


def read_gguf(path: Path) -> Parts:
    """Read a GGUF file; all quantised types that the package ``gguf`` knows become float32.

    Raises:
        DataError: not a GGUF file, or an incomplete one.
        UnsupportedError: the package is missing; another network, tokenizer or kind of rotary positions.
    """
    try:
        from gguf import GGUFReader
        from gguf.quants import dequantize
    except ImportError as error:
        raise UnsupportedError(
            'reading GGUF needs the package gguf; install it with pip install "ancestral[gguf]"'
        ) from error
    try:
        reader = GGUFReader(str(path))
    except Exception as error:  # the reader raises errors of many kinds on damaged files
        raise DataError(f"{path} is not a GGUF file that can be read: {str(error)[:200]}") from error
    data = _Metadata(reader, path)
    kind = data.need("general.architecture")
    if kind not in ("llama", "qwen2", "gpt2"):
        raise UnsupportedError(f"{path} holds a network of the kind {kind!r}; llama, qwen2 and gpt2 can be loaded")
    tensors = {_renamed(t.name, _GPT2 if kind == "gpt2" else _LLAMA): t for t in reader.tensors}
    rope = tensors.pop("rope_freqs.weight", None)
    factors = () if rope is None else tuple(float(x) for x in np.asarray(rope.data, np.float32).reshape(-1))
    config = _gpt2_config(data) if kind == "gpt2" else _llama_config(data, kind, tensors, factors)

    def get(name: str) -> Tensor:
        raw = tensors[name]
        values = np.array(dequantize(raw.data, raw.tensor_type), dtype=np.float32)
        found = torch.from_numpy(values.reshape(tuple(int(s) for s in raw.shape[::-1])))
        if kind == "llama" and ".q_proj." in name:
            return _halves(found, config["heads"])
        if kind == "llama" and ".k_proj." in name:
            return _halves(found, config["kv_heads"])
        return found

    codec, begin, ends = _tokenizer(data)
    return Parts(
        recipe="gpt-2" if kind == "gpt2" else "llama",
        config=config,
        get=get,
        names=set(tensors),
        codec=codec,
        symbols=int(tensors["wte.weight" if kind == "gpt2" else "embed_tokens.weight"].shape[-1]),
        context=int(data.need(f"{kind}.context_length")),
        begin=begin,
        ends=ends,
    )


def _renamed(name: str, table: dict[str, str]) -> str:
    if name in table:
        return table[name]
    pieces = name.split(".")
    if pieces[0] == "blk" and len(pieces) == 4 and pieces[2] in table:
        layers = "h" if table is _GPT2 else "layers"
        return f"{layers}.{pieces[1]}.{table[pieces[2]]}.{pieces[3]}"
    return name


def _halves(weight: Tensor, heads: int) -> Tensor:
    """Rows of queries or keys from llama.cpp's order (pairs side by side) to two halves per head."""
    return weight.reshape(heads, -1, 2, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)


def _llama_config(data: _Metadata, kind: str, tensors: dict[str, Any], factors: tuple[float, ...]) -> dict[str, Any]:
    heads = int(data.need(f"{kind}.attention.head_count"))
    width = int(data.need(f"{kind}.embedding_length"))
    head = int(data.get(f"{kind}.attention.key_length", width // heads))
    if int(data.get(f"{kind}.rope.dimension_count", head)) != head:
        raise UnsupportedError(f"{data.path} turns a part of each head only; such rotary positions cannot be loaded")
    scaling = data.get(f"{kind}.rope.scaling.type", "none")
    if scaling == "linear":
        factors = (float(data.need(f"{kind}.rope.scaling.factor")),) * (head // 2)
    elif scaling != "none":
        raise UnsupportedError(f"{data.path} scales its rotary positions by {scaling!r}; linear can be loaded")
    named = {"qkv": "layers.0.self_attn.q_proj.bias", "out": "layers.0.self_attn.o_proj.bias"}
    return {
        "width": width,
        "depth": int(data.need(f"{kind}.block_count")),
        "heads": heads,
        "kv_heads": int(data.get(f"{kind}.attention.head_count_kv", heads)),
        "head": head,
        "hidden": int(data.need(f"{kind}.feed_forward_length")),
        "theta": float(data.get(f"{kind}.rope.freq_base", 10000.0)),
        "factors": factors,
        "epsilon": float(data.need(f"{kind}.attention.layer_norm_rms_epsilon")),
        "bias": tuple(part for part, name in named.items() if name in tensors),
        "tied": "lm_head.weight" not in tensors,
    }


def _gpt2_config(data: _Metadata) -> dict[str, Any]:
    return {
        "width": int(data.need("gpt2.embedding_length")),
        "depth": int(data.need("gpt2.block_count")),
        "heads": int(data.need("gpt2.attention.head_count")),
        "hidden": int(data.need("gpt2.feed_forward_length")),
        "epsilon": float(data.need("gpt2.attention.layer_norm_epsilon")),
        "dropout": 0.0,
    }


def _tokenizer(data: _Metadata) -> tuple[str, int, tuple[int, ...]]:
    """JSON of the tokenizer, the symbol that begins a text and those that end one."""
    kind, tokens = data.need("tokenizer.ggml.model"), list(data.need("tokenizer.ggml.tokens"))
    kinds = list(data.get("tokenizer.ggml.token_type", [1] * len(tokens)))
    special = [i for i, k in enumerate(kinds) if k == _CONTROL]
    whole = [i for i, k in enumerate(kinds) if k == _USER_DEFINED]
    if kind == "gpt2":
        merges = [tuple(m.split(" ")) for m in data.need("tokenizer.ggml.merges")]
        codec = byte_level_codec(tokens, merges, str(data.get("tokenizer.ggml.pre", "default")), special, whole)
    elif kind == "llama":
        scores = list(data.need("tokenizer.ggml.scores"))
        lead = bool(data.get("tokenizer.ggml.add_space_prefix", True))
        codec = sentence_piece_codec(tokens, scores, lead, special, whole)
    else:
        raise UnsupportedError(f"{data.path} has a tokenizer of the kind {kind!r}; gpt2 and llama can be loaded")
    end = data.get("tokenizer.ggml.eos_token_id")
    begin, ends = begin_and_ends(
        data.get("tokenizer.ggml.bos_token_id"),
        bool(data.get("tokenizer.ggml.add_bos_token", kind == "llama")),
        () if end is None else (int(end),),
        tokens.index("<|endoftext|>") if "<|endoftext|>" in tokens else None,
    )
    return codec, begin, ends
