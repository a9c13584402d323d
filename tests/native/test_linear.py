"""Linear maps by packed weights equal those of the dequantised ones, on every instruction set and without kernels."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ancestral import native


@pytest.fixture(params=["amx", "avx512", "avx2", "base", "without"])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each way of computing that this machine has."""
    if request.param == "without":
        with native.without(), torch.no_grad():
            assert not native.available()
            yield request.param
        return
    with native.restricted(request.param) as there, torch.no_grad():
        if not there:
            pytest.skip(f"no {request.param} here")
        assert native.instructions() == request.param
        yield request.param


def close(a: torch.Tensor, b: torch.Tensor, kernels: str) -> bool:
    """To float32's rounding; "amx" multiplies by parts of 16 bits, whose products are right to 2^-16 of themselves."""
    error = 5e-5 if kernels == "amx" else 1e-5
    return a.shape == b.shape and float((a - b).abs().max()) <= error * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1),
        (7, 5, 1),
        (64, 300, 1),
        (70, 200, 4),
        (33, 600, 11),
        (64, 33, 3),
        (128, 384, 17),
        (100, 100, 64),
        (31, 50, 80),
    ],
)
def test_all_kinds_of_weights(kernels: str, shape: tuple[int, int, int], threads: int) -> None:
    rows, columns, batch = shape
    torch.manual_seed(0)
    x, bias = torch.randn(2, batch, columns)[: 2 if batch > 1 else 1], torch.randn(rows)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        weight = torch.randn(rows, columns)
        assert close(native.linear_f32(x, weight, bias), F.linear(x, weight, bias), kernels)
        for group in (32, 64, 4096):
            scale = torch.rand(rows, -(-columns // group)) + 0.1
            half = scale.half()
            half[0, 0] = 3e-7  # smaller than float16 has in full precision
            eight = native.pack_q8(torch.randint(-128, 128, (rows, columns), dtype=torch.int8))
            four = native.pack_q4(torch.randint(-8, 8, (rows, columns), dtype=torch.int8))
            for packed in (eight, four):
                for scales in (scale, half):
                    for least in (None, torch.randn_like(scale).to(scales.dtype)):
                        truth = F.linear(x, native.dequantise(packed, scales, group, columns, least), bias)
                        assert close(native.linear_quantised(x, packed, scales, group, bias, least), truth, kernels)
    finally:
        torch.set_num_threads(before)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 100), st.integers(0, 1000))
def test_packing_is_undone(rows: int, columns: int, seed: int) -> None:
    values = torch.randint(-8, 8, (rows, columns), generator=torch.Generator().manual_seed(seed)).to(torch.int8)
    packed = native.pack_q4(values)
    assert packed.shape == (rows, -(-columns // 32) * 16)
    assert torch.equal(native.unpack_q4(packed, columns), values)
    assert torch.equal(native.pack_q8(values)[:, :columns], values)


def test_contradictions_are_named() -> None:
    x, packed = torch.zeros(1, 40), native.pack_q8(torch.zeros(3, 40, dtype=torch.int8))
    with pytest.raises(ValueError, match="multiple of 32"):
        native.linear_quantised(x, packed, torch.ones(3, 2), 24)
    with pytest.raises(ValueError, match="scales must be"):
        native.linear_quantised(x, packed, torch.ones(3, 1), 32)
    with pytest.raises(ValueError, match="do not hold 40 columns"):
        native.linear_quantised(x, packed[:, :32].contiguous(), torch.ones(3, 2), 32)


def test_parts_of_16_bits_are_used_where_pytorch_may_use_them() -> None:
    with native.restricted("amx") as there:
        pass
    if not there:
        pytest.skip("no amx here")
    x, weight = torch.randn(20, 64), torch.randn(48, 64)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        assert native.instructions() == "avx512"
        exact, few = native.linear_f32(x, weight), native.linear_f32(x[:12], weight)
        torch.set_float32_matmul_precision("high")
        assert native.instructions() == "amx"
        parts = native.linear_f32(x, weight)
        assert torch.equal(native.linear_f32(x[:12], weight), few)  # a few rows wait for memory only
    finally:
        torch.set_float32_matmul_precision(before)
    assert 0 < float((parts - exact).abs().max()) <= 5e-5 * float(exact.abs().max())


def test_gradients_go_through_pytorch() -> None:
    x = torch.randn(2, 8, requires_grad=True)
    native.linear_f32(x, torch.randn(3, 8)).sum().backward()
    assert x.grad is not None


@pytest.mark.skipif(not native.available(), reason="the kernels are not compiled here; PyTorch's threads do not fork")
def test_a_forked_process_computes_the_same() -> None:
    code = (
        "import os, torch\n"
        "from ancestral import native\n"
        "torch.set_num_threads(2)\n"
        "x, w = torch.randn(1, 64), torch.randn(512, 64)\n"
        "first = native.linear_f32(x, w)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if torch.equal(native.linear_f32(x, w), first) else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=60).returncode == 0


def test_importing_loads_nothing() -> None:
    code = (
        "import sys, ancestral\n"
        "assert not any(name.startswith('ancestral.native.library') and sys.modules[name]._load.cache_info().currsize\n"
        "               for name in list(sys.modules))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
