"""Weights of a few bits: grids, groups found from the weights, and models that compute with them."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import ancestral
from ancestral.errors import DataError, UnsupportedError
from ancestral.quantisation import FineQuant, Quantised, stored_bytes
from ancestral.quantisation.grids import (
    WIDTHS,
    from_between,
    from_symmetric,
    pack,
    pack_rows,
    round_between,
    round_symmetric,
    spans,
    unpack,
    unpack_rows,
)
from ancestral.quantisation.weights import mean_range, plans
from ancestral.recipes.registry import find
from ancestral.recipes.toys import toy


@given(st.sampled_from(WIDTHS), st.integers(1, 9), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_codes_come_back_from_bytes(bits: int, size: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2**bits, (3, size), generator=random, dtype=torch.uint8)
    packed = pack(codes, bits)
    assert packed.shape[-1] == -(-size * bits // 8)
    assert torch.equal(unpack(packed, bits, size), codes)


@given(st.sampled_from((4, 8)), st.integers(1, 70), st.sampled_from((32, 64)), st.booleans(), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_rounding_is_as_fine_as_its_grid(bits: int, size: int, group: int, search: bool, seed: int) -> None:
    x = torch.randn(3, size, generator=torch.Generator().manual_seed(seed))
    codes, scales = round_symmetric(x, bits, group)
    assert torch.equal(unpack_rows(pack_rows(codes, bits), bits, size), codes.float())
    off = (from_symmetric(codes.float(), scales, group) - x).abs()
    assert bool((off <= 0.501 * scales.float().repeat_interleave(group, -1)[:, :size]).all())
    if search:
        found, steps = round_symmetric(x, bits, group, search=True)
        assert int(found.min()) >= -(2 ** (bits - 1)) and int(found.max()) < 2 ** (bits - 1)
        best = (from_symmetric(found.float(), steps, group) - x).square().sum()
        assert float(best) <= float(off.square().sum())


@given(st.sampled_from((4, 8)), st.integers(1, 70), st.sampled_from((32, 64)), st.booleans(), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_grids_between_the_least_and_the_largest(bits: int, size: int, group: int, search: bool, seed: int) -> None:
    x = torch.randn(3, size, generator=torch.Generator().manual_seed(seed)) + 5
    codes, scales, least = round_between(x, bits, group)
    assert int(codes.min()) >= -(2 ** (bits - 1)) and int(codes.max()) < 2 ** (bits - 1)
    off = from_between(codes.float(), scales, least, bits, group) - x
    step = scales.float().repeat_interleave(group, -1)[:, :size]
    rounding = 2**-11 * (x.abs().max() + 2**bits * step)  # of the least number and of the scale
    assert bool((off.abs() <= 0.501 * step + rounding).all())
    if size > 8:
        symmetric, steps = round_symmetric(x, bits, group)
        assert float(off.square().sum()) < float((from_symmetric(symmetric.float(), steps, group) - x).square().sum())
    if search:
        found = from_between(*(t.float() for t in round_between(x, bits, group, search=True)), bits, group)
        assert float((found - x).square().sum()) <= float(off.square().sum()) + 1e-9


def test_weights_of_such_grids_are_found_again() -> None:
    """As GGUF's Q4_1 stores them: code * step + least, both float16, in groups of 32."""
    random = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 16, (64, 4, 32), generator=random)
    codes[..., 0], codes[..., 1] = 0, 15
    step, least = (
        torch.rand(64, 4, 1, generator=random).half() * 0.01 + 0.01,
        torch.randn(64, 4, 1, generator=random).half(),
    )
    weight = (codes * step.float() + least.float()).flatten(1)
    layer = nn.Linear(128, 64, bias=False)
    layer.weight = nn.Parameter(weight)
    x = torch.randn(5, 128, generator=random)
    errors = {}
    for between in (False, True):
        root = nn.ModuleList([copy.deepcopy(layer)])
        FineQuant(4, 32, between=between).apply(root)
        assert isinstance(root[0], Quantised)
        errors[between] = float((root[0].weight - weight).detach().abs().max())
        torch.testing.assert_close(root[0](x), x @ root[0].weight.T, atol=1e-4, rtol=0)
    assert errors[True] < 1e-5 < 0.01 < errors[False]


def test_spans_take_short_groups_as_they_are() -> None:
    low, high = spans(torch.tensor([[3.0, 5.0, 4.0]]), 2)
    assert low.tolist() == [[3.0, 4.0]] and high.tolist() == [[5.0, 4.0]]
    codes, scales, least = round_between(torch.tensor([[3.0, 5.0, 4.0]]), 8, 2, search=True)
    torch.testing.assert_close(
        from_between(codes.float(), scales, least, 8, 2), torch.tensor([[3.0, 5.0, 4.0]]), atol=2e-3, rtol=0
    )
    wide = torch.tensor([[1e6, 1e6 + 512.0]])
    assert round_between(wide, 8, 2)[1].dtype == torch.float32
    shifted = torch.randn(16, 256, generator=torch.Generator().manual_seed(0)).abs() + 3
    assert mean_range(shifted, 64, between=True) < mean_range(shifted, 64) / 2


def test_scales_that_half_precision_cannot_hold_are_float32() -> None:
    x = torch.tensor([[1e-7, -2e-7], [1.0, 3e6]])
    codes, scales = round_symmetric(x, 8, 2)
    assert scales.dtype == torch.float32
    torch.testing.assert_close(from_symmetric(codes.float(), scales, 2)[:, 1], x[:, 1])


def test_groups_are_as_small_as_the_outliers_ask_for() -> None:
    random = torch.Generator().manual_seed(0)
    flat = torch.randn(16, 256, generator=random).sign()  # nothing is gained by smaller groups
    assert FineQuant(shrink=0.9).size(flat) == 256
    stretched = torch.randn(16, 256, generator=random)
    stretched[:, 5] = 60.0
    assert FineQuant(shrink=0.9).size(stretched) == 32
    assert FineQuant(shrink=0.9, smallest=64).size(stretched) == 64
    assert FineQuant(group=128).size(stretched) == 128 and FineQuant(group=0).size(stretched) == 256


def small(recipe: str = "llama") -> ancestral.Model:
    return find(recipe)(**find(recipe).tiny).build(toy("tokens"))


@pytest.mark.parametrize(("recipe", "between"), [("llama", False), ("gpt", False), ("gpt-2", False), ("llama", True)])
def test_a_quantised_model_is_the_model_with_rounded_weights(recipe: str, between: bool) -> None:
    model = small(recipe)
    full = copy.deepcopy(model)
    data = toy("tokens")
    before, size = np.asarray(model.log_prob(data)), stored_bytes(model.generator)
    count = model.parameters
    assert model.quantise(bits=4, between=between) is model
    assert stored_bytes(model.generator) < 0.7 * size and model.parameters == count
    found = {n: m for n, m in model.generator.named_modules() if isinstance(m, Quantised)}
    assert {m.bits for m in found.values()} == {4, 8} and all(k in plans(model.generator) for k in found)
    with torch.no_grad():
        for name, module in found.items():
            plain = full.generator.get_submodule(name)
            assert isinstance(plain, (nn.Linear, nn.Embedding))
            plain.weight.copy_(module.weight)
    after = np.asarray(model.log_prob(data))
    np.testing.assert_allclose(after, np.asarray(full.log_prob(data)), atol=1e-5)
    assert 1e-4 < float(np.abs(after - before).max()) < 2
    with pytest.raises(UnsupportedError, match="already"):
        model.quantise(bits=8)


@pytest.mark.parametrize("between", [False, True])
def test_quantised_models_are_saved_as_such(tmp_path: Path, between: bool) -> None:
    model = small().quantise(bits=4, smallest=32, embeddings=None, between=between)
    model.save(tmp_path / "model")
    again = ancestral.load(tmp_path / "model")
    assert plans(again.generator) == plans(model.generator) != {}
    data = toy("tokens")
    assert np.array_equal(again.log_prob(data), model.log_prob(data))
    content = json.loads((tmp_path / "model" / "model.json").read_text())
    content["quantised"]["network.norm"] = {"bits": 4, "group": 32, "scales": "float16"}
    (tmp_path / "model" / "model.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"network\.norm"):
        ancestral.load(tmp_path / "model")


def test_biases_of_gated_layers_count() -> None:
    from ancestral.networks.transformer import SwiGLU

    layer = SwiGLU(8, bias=True)
    nn.init.ones_(layer.outer.bias)
    x = torch.zeros(2, 8)
    gate, up = layer.inner(x).chunk(2, -1)
    torch.testing.assert_close(layer(x), layer.outer(nn.functional.silu(gate) * up))
    assert float(layer(x).detach().abs().max()) > 0


def test_settings_that_cannot_be_are_refused() -> None:
    for settings_ in ({"bits": 3}, {"embeddings": 2}, {"group": -1}, {"smallest": 0}, {"shrink": 1.0}):
        with pytest.raises(ValueError, match="bits" if "embeddings" in settings_ else next(iter(settings_))):
            FineQuant(**settings_)  # type: ignore[arg-type]
