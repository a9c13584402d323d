"""The written-out parts of a transformer equal their plain formulas, and so do their gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ancestral.heads import Categorical
from ancestral.networks import fused
from ancestral.space import Space


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several pieces, the last one shorter."""
    monkeypatch.setattr(fused, "ROWS", 4)
    monkeypatch.setattr(fused, "ELEMENTS", 1)


def _draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def _agree(written: Callable[..., object], plain: Callable[..., object], *inputs: Tensor) -> None:
    """Equal values, and equal gradients in all inputs for a random pull on every output."""
    results = []
    for function in (written, plain):
        outputs = function(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        pulls = [torch.linspace(-1, 2, o.numel(), dtype=o.dtype).view(o.shape) for o in outputs]
        results.append([*outputs, *torch.autograd.grad(outputs, inputs, pulls)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_rms_norm() -> None:
    torch.manual_seed(0)
    x, weight = _draw(3, 5, 6), _draw(6)
    _agree(
        lambda x, w: fused.rms_norm(x, w, 1e-3),
        lambda x, w: x / (x.square().mean(-1, True) + 1e-3).sqrt() * w,
        x,
        weight,
    )
    _agree(
        lambda x, w: fused.rms_norm(x.transpose(0, 1), w, 1e-6),
        lambda x, w: F.rms_norm(x.transpose(0, 1), (6,), w, 1e-6),
        x,
        weight,
    )


@pytest.mark.parametrize("strided", [False, True])
def test_feed_forward(strided: bool) -> None:
    torch.manual_seed(1)

    def plain(x: Tensor, inner: Tensor, outer: Tensor) -> Tensor:
        a, b = (x @ inner.t()).chunk(2, -1)
        return (a * torch.sigmoid(a) * b) @ outer.t()

    def turn(x: Tensor) -> Tensor:
        return x.transpose(0, 1) if strided else x

    x, inner, outer = _draw(3, 5, 6), _draw(16, 6), _draw(6, 8)
    _agree(lambda x, *w: fused.feed_forward(turn(x), *w), lambda x, *w: plain(turn(x), *w), x, inner, outer)


@pytest.mark.parametrize("per_item", [False, True])
def test_turned_heads(per_item: bool) -> None:
    torch.manual_seed(2)
    b, t, h, e = 2, 3, 5, 8
    angle = torch.rand(*((b, t) if per_item else (t,)), 1, e // 2, dtype=torch.float64) * 7
    turn = torch.polar(torch.ones_like(angle), angle)

    def plain(heads: Tensor) -> tuple[Tensor, Tensor]:
        x, y = heads[:, :, :4, 0::2], heads[:, :, :4, 1::2]
        turned = torch.stack([x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()], -1)
        return turned.flatten(-2), heads[:, :, 4:]

    heads = _draw(b, t, h, e)
    _agree(lambda x: fused.turn_heads(x, turn, 4), plain, heads)


@pytest.mark.parametrize("bias", ["shared", "per site", "per site, own sites"])
def test_linear_log_prob(bias: str) -> None:
    torch.manual_seed(3)
    b, s, d, k = 3, 17, 4, 5
    x, weight = _draw(b, s, d), _draw(k, d)
    offset = _draw(k) if bias == "shared" else _draw(s, k)
    values = torch.randint(k, (b, s))
    sites = {
        "shared": None,
        "per site": torch.randperm(s),
        "per site, own sites": torch.rand(b, s).argsort(-1),
    }[bias]

    def plain(x: Tensor, w: Tensor, c: Tensor) -> Tensor:
        logits = x @ w.t() + (c if sites is None else c[sites])
        return torch.log_softmax(logits, -1).gather(-1, values[..., None])[..., 0]

    _agree(lambda *parts: fused.linear_log_prob(*parts, sites, values), plain, x, weight, offset)


def test_an_improbable_category_keeps_its_logarithm() -> None:
    x, weight = torch.ones(1, 1, 1, requires_grad=True), torch.tensor([[0.0], [400.0]])
    each = fused.linear_log_prob(x, weight, torch.zeros(2), None, torch.zeros(1, 1, dtype=torch.int64))
    assert float(each.detach()) == -400
    each.sum().backward()
    assert float(x.grad) == -400  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_other_precisions(dtype: torch.dtype) -> None:
    torch.manual_seed(4)
    x, inner, outer, heads = torch.randn(2, 3, 8), torch.randn(32, 8), torch.randn(8, 16), torch.randn(2, 3, 4, 2)
    turn = torch.polar(torch.ones(3, 1, 1), torch.rand(3, 1, 1))
    for exact, low in (
        (fused.rms_norm(x, outer[:, 0], 1e-6), fused.rms_norm(x.to(dtype), outer[:, 0].to(dtype), 1e-6)),
        (fused.feed_forward(x, inner, outer), fused.feed_forward(x.to(dtype), inner.to(dtype), outer.to(dtype))),
        (fused.turn_heads(heads, turn, 3)[0], fused.turn_heads(heads.to(dtype), turn, 3)[0]),
    ):
        assert low.dtype == dtype
        assert float((low.float() - exact).norm() / exact.norm()) < (1e-6 if dtype == torch.float32 else 2e-2)


def test_head_gives_the_same_with_and_without_logits() -> None:
    torch.manual_seed(5)
    for per_site in (False, True):
        head = Categorical(per_site=per_site).build(Space((6,), 7), 4)
        torch.nn.init.normal_(head.bias)
        features, values = torch.randn(2, 6, 4), torch.randint(7, (2, 6))
        distribution = head(features, torch.arange(6))
        each = distribution.log_probs().gather(-1, values[..., None])[..., 0]
        torch.testing.assert_close(distribution.log_prob(values), each)
