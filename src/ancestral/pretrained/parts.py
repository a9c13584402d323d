"""What every file format is brought to before a model is built from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ancestral.errors import DataError


@dataclass
class Parts:
    """A language model as read from files.

    Attributes:
        recipe: id of the recipe that has this network, "llama" or "gpt-2".
        config: the recipe's arguments, without those of the tokenizer.
        get: float32 tensors by their names in Hugging Face's ``LlamaForCausalLM`` or ``GPT2LMHeadModel`` without
            the leading ``model.`` or ``transformer.``, linear maps as ``[out, in]``.
        names: the names that ``get`` knows.
        codec: JSON of the tokenizer.
        symbols: size of the vocabulary.
        context: longest window that the network was trained for.
        begin: symbol that begins a text.
        ends: symbols that end one.
    """

    recipe: str
    config: dict[str, Any]
    get: Callable[[str], Tensor]
    names: set[str]
    codec: str
    symbols: int
    context: int
    begin: int
    ends: tuple[int, ...]
    used: set[str] = field(default_factory=set)

    def take(self, name: str) -> Tensor:
        """The tensor ``name``, noted as used.

        Raises:
            DataError: there is none.
        """
        if name not in self.names:
            raise DataError(f"the model has no tensor {name!r}; the file is incomplete or of another network")
        self.used.add(name)
        return self.get(name)


def state_dict(parts: Parts, length: int) -> dict[str, Tensor]:
    """The generator's weights, float32.

    Args:
        parts: as read.
        length: sites of the window (learned positions beyond it are left out).

    Raises:
        DataError: a tensor is missing, or one is left over.
    """
    build = _llama if parts.recipe == "llama" else _gpt2
    weights = build(parts, length)
    weights["network.first"] = weights["network.embed.table.weight"][parts.begin].clone()
    left = sorted(parts.names - parts.used)
    if left:
        raise DataError(f"the tensor {left[0]!r} has no place in the recipe {parts.recipe}; it is another network")
    return weights


def _llama(parts: Parts, length: int) -> dict[str, Tensor]:
    out = {
        "network.embed.table.weight": parts.take("embed_tokens.weight"),
        "network.norm.weight": parts.take("norm.weight"),
    }
    for i in range(parts.config["depth"]):
        old, new = f"layers.{i}", f"network.blocks.{i}"
        out[f"{new}.norm.weight"] = parts.take(f"{old}.input_layernorm.weight")
        out[f"{new}.norm2.weight"] = parts.take(f"{old}.post_attention_layernorm.weight")
        for kind in ("weight", "bias"):
            if kind == "weight" or "qkv" in parts.config["bias"]:
                fused = [parts.take(f"{old}.self_attn.{p}_proj.{kind}") for p in "qkv"]
                out[f"{new}.qkv.{kind}"] = torch.cat(fused)
            if kind == "weight" or "out" in parts.config["bias"]:
                out[f"{new}.out.{kind}"] = parts.take(f"{old}.self_attn.o_proj.{kind}")
            if kind == "weight" or "mlp" in parts.config["bias"]:
                fused = [parts.take(f"{old}.mlp.{p}_proj.{kind}") for p in ("gate", "up")]
                out[f"{new}.mlp.inner.{kind}"] = torch.cat(fused)
                out[f"{new}.mlp.outer.{kind}"] = parts.take(f"{old}.mlp.down_proj.{kind}")
    if parts.config["tied"]:
        parts.used.add("lm_head.weight")  # some files hold the embedding twice
    else:
        out["head.weight"] = parts.take("lm_head.weight")
        out["head.bias"] = torch.zeros(parts.symbols)
    return out


def _gpt2(parts: Parts, length: int) -> dict[str, Tensor]:
    out = {
        "network.embed.table.weight": parts.take("wte.weight"),
        "network.target.weight": parts.take("wpe.weight")[:length].clone(),
    }
    parts.used.add("lm_head.weight")
    places = {"ln_1": "norm", "ln_2": "norm2", "attn.c_attn": "qkv", "attn.c_proj": "out",
              "mlp.c_fc": "mlp.inner", "mlp.c_proj": "mlp.outer"}  # fmt: skip
    for kind in ("weight", "bias"):
        out[f"network.norm.{kind}"] = parts.take(f"ln_f.{kind}")
        for i in range(parts.config["depth"]):
            for old, new in places.items():
                out[f"network.blocks.{i}.{new}.{kind}"] = parts.take(f"h.{i}.{old}.{kind}")
    return out


def begin_and_ends(
    symbol: int | None, always: bool, ends: tuple[int, ...], separator: int | None
) -> tuple[int, tuple[int, ...]]:
    """The symbol that begins a text, and those that end one.

    Args:
        symbol: what the files call the beginning, if anything.
        always: whether every text is meant to begin with it.
        ends: what the files call the end.
        separator: ``<|endoftext|>``, where the vocabulary has it.
    """
    candidates = (symbol, separator) if always else (separator, symbol)
    begin = next((c for c in (*candidates, *ends) if c is not None), 0)
    return begin, tuple(sorted({*ends, begin} | ({separator} if separator is not None else set())))
