"""Hugging Face folders: ``config.json``, safetensors (one file, or several with an index), ``tokenizer.json``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ancestral.errors import DataError, UnsupportedError
from ancestral.pretrained.parts import Parts, begin_and_ends

_FAMILY = ("llama", "mistral", "qwen2")


def read_folder(folder: Path) -> Parts:
    """Read a folder of the Llama family or GPT-2; weights of any floating type become float32.

    Raises:
        DataError: a file is missing or damaged, or the weights are a pickle.
        UnsupportedError: another network.
    """
    settings = _json(folder / "config.json")
    kind = settings.get("model_type")
    if kind not in (*_FAMILY, "gpt2"):
        raise UnsupportedError(
            f"{folder / 'config.json'} describes a network of the kind {kind!r}; those of {', '.join(_FAMILY)} and "
            "gpt2 can be loaded"
        )
    files = _weights(folder)
    config = _gpt2_config(settings) if kind == "gpt2" else _llama_config(settings, str(kind))
    prefix = "transformer." if kind == "gpt2" else "model."
    places = {name.removeprefix(prefix): (file, name) for name, file in files.items() if not _derived(name)}

    def get(name: str) -> Tensor:
        file, full = places[name]
        found = _tensor(file, full).to(torch.float32)
        # GPT-2's linear maps were published as [in, out].
        turned = kind == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))
        return found.T.contiguous() if turned else found

    try:
        codec = (folder / "tokenizer.json").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{folder} has no readable tokenizer.json; save the model's fast tokenizer there (save_pretrained)"
        ) from error
    begin, ends = _begin_and_ends(folder, settings, codec)
    context = int(settings.get("n_positions" if kind == "gpt2" else "max_position_embeddings", 1024))
    if settings.get("use_sliding_window", kind == "mistral") and settings.get("sliding_window"):
        context = min(context, int(settings["sliding_window"]))  # up to there, attention is plain
    return Parts(
        recipe="gpt-2" if kind == "gpt2" else "llama",
        config=config,
        get=get,
        names=set(places),
        codec=codec,
        symbols=int(settings["vocab_size"]),
        context=context,
        begin=begin,
        ends=ends,
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"there is no {path.name} in {path.parent}; give a folder with a language model") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged and cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is damaged: it holds a {type(content).__name__}, not an object")
    return content


def _weights(folder: Path) -> dict[str, Path]:
    """The file of every tensor."""
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.exists():
        table = _json(index).get("weight_map", {})
        wrong = next((f for f in table.values() if Path(f).name != f or not (folder / f).exists()), None)
        if wrong is not None or not table:
            raise DataError(f"{index} names {wrong!r}, which is not in the folder; the download is incomplete")
        return {name: folder / file for name, file in table.items()}
    file = folder / "model.safetensors"
    if not file.exists():
        pickles = sorted(p.name for p in folder.glob("*.bin")) or sorted(p.name for p in folder.glob("*.pt"))
        if pickles:
            raise DataError(
                f"{folder} holds its weights in {pickles[0]}, a pickle, which can run any code when it is read, and "
                "is refused; convert it to safetensors"
            )
        raise DataError(f"there is no model.safetensors in {folder}; the download is incomplete")
    try:
        with safe_open(file, "pt") as content:
            return {name: file for name in content.keys()}  # noqa: SIM118 - not a dict
    except Exception as error:  # safetensors raises an error of its own
        raise DataError(f"{file} is damaged and cannot be read: {error}") from error


def _tensor(file: Path, name: str) -> Tensor:
    from safetensors import safe_open

    try:
        with safe_open(file, "pt") as content:
            found = content.get_tensor(name)
    except Exception as error:
        raise DataError(f"{file} is damaged, {name!r} cannot be read: {error}") from error
    if not found.is_floating_point():
        raise UnsupportedError(f"{name!r} in {file} is {found.dtype}; quantised weights are read from GGUF only")
    return found


def _derived(name: str) -> bool:
    """Tensors that follow from the settings: rotary frequencies and causal masks."""
    return name.endswith(("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias"))


def _llama_config(settings: dict[str, Any], kind: str) -> dict[str, Any]:
    if settings.get("hidden_act", "silu") != "silu":
        raise UnsupportedError(f"the activation {settings['hidden_act']!r} is not Llama's; silu can be loaded")
    width, heads = int(settings["hidden_size"]), int(settings["num_attention_heads"])
    head = int(settings.get("head_dim") or width // heads)
    rope = {**(settings.get("rope_scaling") or {}), **(settings.get("rope_parameters") or {})}
    theta = float(rope.get("rope_theta", settings.get("rope_theta", 10000.0)))
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise UnsupportedError("the network turns a part of each head only; such rotary positions cannot be loaded")
    both = bool(settings.get("attention_bias", False))
    bias = (
        *(["qkv"] if both or kind == "qwen2" else []),
        *(["out"] if both else []),
        *(["mlp"] if settings.get("mlp_bias", False) else []),
    )
    return {
        "width": width,
        "depth": int(settings["num_hidden_layers"]),
        "heads": heads,
        "kv_heads": int(settings.get("num_key_value_heads") or heads),
        "head": head,
        "hidden": int(settings["intermediate_size"]),
        "theta": theta,
        "factors": rope_factors(rope, head, theta),
        "epsilon": float(settings.get("rms_norm_eps", 1e-6)),
        "bias": bias,
        "tied": bool(settings.get("tie_word_embeddings", False)),
    }


def rope_factors(rope: dict[str, Any], head: int, theta: float) -> tuple[float, ...]:
    """What each rotary frequency is divided by: ``head / 2`` factors, or none.

    "linear" divides all alike; "llama3" leaves short wavelengths as they are, divides long ones by ``factor`` and
    interpolates between (Llama 3.1: Grattafiori et al. 2024, arXiv:2407.21783, and its published code).

    Raises:
        UnsupportedError: another kind.
    """
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return ()
    if kind == "linear":
        return (float(rope["factor"]),) * (head // 2)
    if kind != "llama3":
        raise UnsupportedError(f"rotary positions scaled by {kind!r} cannot be loaded; linear and llama3 can")
    factor, low, high = (float(rope[k]) for k in ("factor", "low_freq_factor", "high_freq_factor"))
    trained = float(rope["original_max_position_embeddings"])
    out = []
    for i in range(head // 2):
        turns = trained * theta ** (-2 * i / head) / (2 * math.pi)  # of this pair over the trained context
        share = min(1.0, max(0.0, (turns - low) / (high - low)))
        out.append(1 / ((1 - share) / factor + share))
    return tuple(out)


def _gpt2_config(settings: dict[str, Any]) -> dict[str, Any]:
    activation = settings.get("activation_function", "gelu_new")
    if activation not in ("gelu_new", "gelu_pytorch_tanh"):
        raise UnsupportedError(f"the activation {activation!r} is not GPT-2's; gelu_new can be loaded")
    if settings.get("scale_attn_by_inverse_layer_idx") or not settings.get("scale_attn_weights", True):
        raise UnsupportedError("the network scales its attention unlike GPT-2; it cannot be loaded")
    return {
        "width": int(settings["n_embd"]),
        "depth": int(settings["n_layer"]),
        "heads": int(settings["n_head"]),
        "hidden": int(settings.get("n_inner") or 4 * settings["n_embd"]),
        "epsilon": float(settings.get("layer_norm_epsilon", 1e-5)),
        "dropout": 0.0,
    }


def _begin_and_ends(folder: Path, settings: dict[str, Any], codec: str) -> tuple[int, tuple[int, ...]]:
    from tokenizers import Tokenizer as Codec

    try:
        found = Codec.from_str(codec)
    except Exception as error:  # the library raises a bare Exception
        raise DataError(f"{folder / 'tokenizer.json'} cannot be read: {str(error)[:200]}") from error
    ends = settings.get("eos_token_id")
    if (folder / "generation_config.json").exists():
        ends = _json(folder / "generation_config.json").get("eos_token_id", ends)
    ends = () if ends is None else tuple(ends) if isinstance(ends, list) else (int(ends),)
    begin = settings.get("bos_token_id")
    # A post-processor that puts the beginning before a text says that every text has it.
    always = begin is not None and int(begin) in found.encode("x").ids
    separator = found.token_to_id("<|endoftext|>")
    return begin_and_ends(begin, always, ends, separator)
