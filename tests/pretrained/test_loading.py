"""Published language models become models that answer the verbs."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import LLAMA, SENTENCES, byte_level, llama_weights, reference_logits, write_folder, write_gguf

import ancestral
from ancestral.cli import main
from ancestral.errors import DataError, UnsupportedError
from ancestral.order import Order
from ancestral.pretrained.codecs import sentence_piece_codec
from ancestral.tokenizers import Vocabulary
from tokenizers import Tokenizer, models, normalizers

CODEC = byte_level()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("hf") / "small", LLAMA, llama_weights(LLAMA), CODEC)


@pytest.fixture(scope="module")
def model(folder: Path) -> ancestral.Model:
    return ancestral.load(folder, length=48)


def ids_of(model: ancestral.Model, text: str) -> torch.Tensor:
    return model.tokenizer.streams(model.read([text]))[0]


@pytest.mark.parametrize("tied", [True, False])
def test_llama_is_the_network_of_the_papers(tmp_path: Path, tied: bool) -> None:
    config = LLAMA | {"tie_word_embeddings": tied}
    weights = llama_weights(config, seed=3)
    model = ancestral.load(write_folder(tmp_path / "m", config, weights, CODEC, shards=3))
    ids = ids_of(model, SENTENCES[0])
    with torch.no_grad():
        order = Order.raster(len(ids))
        features = model.generator.network(ids[None], order)
        found = model.generator.head(features, torch.arange(len(ids))).logits[0]
    expected = reference_logits(config, weights, torch.cat([torch.tensor([0]), ids[:-1]]))
    assert float((found - expected).abs().max()) < 2e-4
    scores = model.log_prob([SENTENCES[0]])
    each = expected.log_softmax(-1).gather(1, ids[:, None])
    assert float(scores[0]) == pytest.approx(float(each.sum()), rel=1e-5)
    assert scores.kind == "exact"
    assert scores.bits_per_dim() == pytest.approx(
        -float(each.sum()) / math.log(2) / len(SENTENCES[0].encode()), rel=1e-5
    )


def test_greedy_continuation_takes_the_most_probable_symbol(folder: Path) -> None:
    model = ancestral.load(folder, length=48)
    model.tokenizer.ends = ()
    prompt = "The river"
    text = model.complete([prompt], length=12, temperature=0)[0]
    ids = [0, *ids_of(model, prompt).tolist()]
    for _ in range(12):
        ids.append(int(reference_logits(LLAMA, llama_weights(LLAMA), torch.tensor(ids))[-1].argmax()))
    assert model.tokenizer.from_stream(torch.tensor(ids[1:])).documents[0] == text


def test_texts_stop_at_an_end(model: ancestral.Model) -> None:
    long = ancestral.decoding.streams.continue_streams(
        model.generator, [ids_of(model, "The")], 40, 24, torch.tensor([5]), 4, {}
    )[0]
    end = int(long[7])
    cut = ancestral.decoding.streams.continue_streams(
        model.generator, [ids_of(model, "The")], 40, 24, torch.tensor([5]), 4, {}, ends=(end,)
    )[0]
    prefix = len(ids_of(model, "The"))
    first = prefix + int(torch.nonzero(long[prefix:] == end)[0])
    assert torch.equal(cut, long[:first])


def test_compressed_text_comes_back_at_its_length(model: ancestral.Model) -> None:
    texts = [SENTENCES[1] * 3, SENTENCES[2]]
    blob = model.compress(texts)
    assert model.decompress(blob) == texts
    bits = -float(np.sum(model.log_prob(texts))) / math.log(2)
    assert 8 * len(blob) <= 1.01 * bits + 8 * 120


def test_saved_as_any_model(model: ancestral.Model, tmp_path: Path) -> None:
    model.save(tmp_path / "saved")
    assert sorted(p.name for p in (tmp_path / "saved").iterdir()) == ["model.json", "weights.safetensors"]
    again = ancestral.load(tmp_path / "saved")
    assert np.array_equal(again.log_prob(SENTENCES), model.log_prob(SENTENCES))
    assert again.sample(3, length=20, seed=4) == model.sample(3, length=20, seed=4)
    assert again.tokenizer.ends == model.tokenizer.ends == (0, 1)


@pytest.mark.parametrize("quantised", [False, True])
def test_gguf_gives_the_same_model(tmp_path: Path, quantised: bool) -> None:
    gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")
    weights = llama_weights(LLAMA, seed=1)
    found = ancestral.load(write_gguf(tmp_path / "m.gguf", LLAMA, weights, CODEC, quantised), length=32)
    if quantised:
        q8 = gguf.GGMLQuantizationType.Q8_0
        weights = {
            name: torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(w.numpy(), q8), q8))
            if w.dim() == 2
            else w
            for name, w in weights.items()
        }  # llama.cpp's order of rows keeps blocks of 32 together, so that rounding is the same
    expected = ancestral.load(write_folder(tmp_path / "hf", LLAMA, weights, CODEC), length=32)
    for name, tensor in expected.generator.state_dict().items():
        assert torch.equal(found.generator.state_dict()[name], tensor), name
    assert found.tokenizer.ends == expected.tokenizer.ends
    for text in SENTENCES:
        assert torch.equal(ids_of(found, text), ids_of(expected, text))


def test_control_symbols_are_plain_text_unless_asked_for(folder: Path) -> None:
    text = "a<|im_end|>b"
    plain, parsed = ancestral.load(folder), ancestral.load(folder, specials=True)
    assert 1 not in ids_of(plain, text).tolist()
    assert ids_of(parsed, text).tolist().count(1) == 1
    for one in (plain, parsed):
        assert one.tokenizer.from_stream(ids_of(one, text)).documents == [text]


@given(st.text(max_size=40))
@settings(max_examples=50, deadline=None)
def test_every_text_comes_back(model: ancestral.Model, text: str) -> None:
    dataset = model.read([text + "."])
    assert model.tokenizer.from_streams(model.tokenizer.streams(dataset)).documents == [text + "."]


PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "\u2581", *"abehrtiv",
          "\u2581t", "he", "\u2581the", "ri", "ver", "\u2581ri", "er", "\u2581river", "ve"]  # fmt: skip
SCORES = [0.0] * 259 + [-float(i) for i in range(len(PIECES) - 259)]


def best_merges(text: str) -> list[str]:
    """SentencePiece's rule in words: join the neighbours whose union scores best, the leftmost first."""
    table = dict(zip(PIECES, SCORES, strict=True))
    parts = ["\u2581", *text.replace(" ", "\u2581")]
    while True:
        pairs = [(table[a + b], -i) for i, (a, b) in enumerate(itertools.pairwise(parts)) if a + b in table]
        if not pairs:
            return parts
        i = -max(pairs)[1]
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


@given(st.text(alphabet="aehrtiv b", max_size=12))
@settings(max_examples=50, deadline=None)
def test_sentence_piece_merges_by_score(text: str) -> None:
    codec = Tokenizer.from_str(sentence_piece_codec(PIECES, SCORES, True, [0, 1, 2]))
    if text:
        assert codec.encode(text, add_special_tokens=False).tokens == best_merges(text)
    tokenizer = Vocabulary(8)
    tokenizer.adopt(codec.to_str(), len(PIECES), 1, (2,))
    dataset = ancestral.data.Text([text + " é x "])
    assert tokenizer.from_streams(tokenizer.streams(dataset)).documents == dataset.documents


def test_text_that_the_tokenizer_changes_is_refused(folder: Path, tmp_path: Path) -> None:
    codec = byte_level()
    codec.normalizer = normalizers.NFC()
    model = ancestral.load(write_folder(tmp_path / "nfc", LLAMA, llama_weights(LLAMA), codec))
    assert np.isfinite(model.log_prob(["caf\u00e9"])[0])
    with pytest.raises(DataError, match="document 0 does not come back"):
        model.log_prob(["cafe\u0301"])


def test_bad_files_are_refused_in_one_sentence(folder: Path, tmp_path: Path) -> None:
    weights = llama_weights(LLAMA)
    pickled = write_folder(tmp_path / "pickled", LLAMA, weights, CODEC)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"pytorch_model\.bin, a pickle"):
        ancestral.load(pickled)
    with pytest.raises(DataError, match="pickle"):
        ancestral.load(pickled / "pytorch_model.bin")
    less = {k: v for k, v in weights.items() if k != "model.norm.weight"}
    with pytest.raises(DataError, match=r"no tensor 'norm\.weight'"):
        ancestral.load(write_folder(tmp_path / "less", LLAMA, less, CODEC))
    more = weights | {"model.layers.0.self_attn.q_norm.weight": torch.ones(8)}
    with pytest.raises(DataError, match=r"q_norm\.weight' has no place"):
        ancestral.load(write_folder(tmp_path / "more", LLAMA, more, CODEC))
    with pytest.raises(DataError, match="do not fit the network"):
        ancestral.load(write_folder(tmp_path / "wide", LLAMA | {"hidden_size": 64}, weights, CODEC))
    with pytest.raises(UnsupportedError, match="'mamba'"):
        ancestral.load(write_folder(tmp_path / "kind", LLAMA | {"model_type": "mamba"}, weights, CODEC))
    yarn = LLAMA | {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}
    with pytest.raises(UnsupportedError, match="yarn"):
        ancestral.load(write_folder(tmp_path / "yarn", yarn, weights, CODEC))
    with pytest.raises(DataError, match="1 to 64 symbols"):
        ancestral.load(folder, length=65)
    with pytest.raises(DataError, match="no symbol"):
        ancestral.load(folder, begin="<|nothing|>")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\0" * 40)
    if importlib.util.find_spec("gguf"):
        with pytest.raises(DataError, match="not a GGUF file"):
            ancestral.load(broken)
    index = write_folder(tmp_path / "index", LLAMA, weights, CODEC, shards=2)
    table = json.loads((index / "model.safetensors.index.json").read_text())
    table["weight_map"]["model.norm.weight"] = "../outside.safetensors"
    (index / "model.safetensors.index.json").write_text(json.dumps(table))
    with pytest.raises(DataError, match="outside"):
        ancestral.load(index)
    wordless = Tokenizer(models.BPE({chr(97 + i % 26) * (i // 26 + 1): i for i in range(400)}, []))
    with pytest.raises(DataError, match="do not belong together"):
        ancestral.load(write_folder(tmp_path / "words", LLAMA, weights, wordless))


def test_the_command_line_takes_the_files_as_they_are(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"] == "llama"
    (tmp_path / "text.txt").write_text(SENTENCES[0])
    assert main(["score", str(folder), str(tmp_path / "text.txt")]) == 0
    capsys.readouterr()
    assert main(["score", str(tmp_path / "weights.pt"), str(tmp_path / "text.txt")]) != 0
    assert "pickle" in capsys.readouterr().err
    if importlib.util.find_spec("gguf"):
        file = write_gguf(tmp_path / "m.gguf", LLAMA, llama_weights(LLAMA), CODEC)
        assert main(["info", str(file)]) == 0
