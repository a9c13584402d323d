"""The elementwise parts of a transformer, in as few passes over memory as their gradients allow.

On a CPU a training step spends a fifth of its time in them when they are written as plain formulas. Their
derivatives are written out here, so that nothing is kept or copied that is not needed, and hold for one
differentiation only. They equal the plain formulas up to rounding; ``tests/networks/test_fused.py`` checks them and
their gradients.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def _written_out(*tensors: Tensor) -> bool:
    """Whether these are what the derivatives below are made for; accelerators have kernels of their own."""
    return all(t.device.type == "cpu" and t.dtype == tensors[0].dtype for t in tensors) and (
        tensors[0].dtype in (torch.float32, torch.float64)
    )


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = (length.square() / x.shape[-1] + eps).rsqrt()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        product = grad * x
        rows = product.reshape(-1, x.shape[-1])
        # y = w s x with s = (mean x^2 + eps)^(-1/2): dL/dx = s w g - s^3 x mean(w g x).
        pull = (rows @ weight).view_as(scale) * scale.pow(3) / x.shape[-1]
        weight_grad = scale.view(-1) @ rows
        return torch.mul(grad, weight, out=product).mul_(scale).addcmul_(x, pull, value=-1), weight_grad, None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last axis (Zhang and Sennrich 2019, arXiv:1910.07467).

    Args:
        x: float ``[..., D]``.
        weight: float ``[D]``.
        eps: keeps the root away from zero.
    """
    if not _written_out(x, weight):
        return F.rms_norm(x, (x.shape[-1],), weight, eps)
    return _Normalise.apply(x.contiguous(), weight, eps)


ROWS = 1024
"""Rows worked on at a time: what lies between two matrix products then stays in a cache, and no block of memory is so
large that the C library returns it to the system after each use, which costs more than the arithmetic."""


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, inner: Tensor, outer: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        out = rows.new_empty(len(rows), outer.shape[0])
        kept = []
        for a, y in zip(rows.split(ROWS), out.split(ROWS), strict=True):
            h = a @ inner.t()
            gate, up = h.chunk(2, -1)
            torch.mm(F.silu(gate).mul_(up), outer.t(), out=y)
            kept.append(h)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(x, inner, outer, *kept)
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, inner, outer, *kept = ctx.saved_tensors
        x_grad = torch.empty_like(x, memory_format=torch.contiguous_format)
        inner_grad, outer_grad = torch.zeros_like(inner), torch.zeros_like(outer)
        parts = (t.reshape(-1, t.shape[-1]).split(ROWS) for t in (x, grad, x_grad))
        for h, a, g, d in zip(kept, *parts, strict=True):
            gate, up = h.chunk(2, -1)
            opened = F.silu(gate)
            outer_grad.addmm_(g.t(), opened * up)
            pull = g @ outer
            h_grad = torch.empty_like(h)
            gate_grad, up_grad = h_grad.chunk(2, -1)
            torch.mul(pull, opened, out=up_grad)
            torch.ops.aten.silu_backward.grad_input(pull.mul_(up), gate, grad_input=gate_grad)
            torch.mm(h_grad, inner, out=d)
            inner_grad.addmm_(h_grad.t(), a)
        return x_grad, inner_grad, outer_grad


def feed_forward(x: Tensor, inner: Tensor, outer: Tensor) -> Tensor:
    """``(silu(a) * b) @ outer.T`` of the two halves of ``x @ inner.T`` (Shazeer 2020, arXiv:2002.05202).

    Args:
        x: float ``[..., D]``.
        inner: float ``[2 H, D]``.
        outer: float ``[D, H]``.
    """
    if not _written_out(x, inner):
        gate, up = F.linear(x, inner).chunk(2, -1)
        return F.linear(F.silu(gate) * up, outer)
    return _FeedForward.apply(x, inner, outer)


class _Turn(torch.autograd.Function):
    """Splits heads ``[B, T, H, E]`` into turned ones and the rest, both as they are laid out."""

    @staticmethod
    def forward(ctx: Any, heads: Tensor, turn: Tensor, turned: int) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(turn)
        first, rest = heads[:, :, :turned], heads[:, :, turned:]
        return turn_pairs(first, turn), rest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, rest: Tensor) -> tuple[Tensor, None, None]:
        (turn,) = ctx.saved_tensors
        b, t, turned, e = grad.shape
        out = grad.new_empty(b, t, turned + rest.shape[2], e)
        back = turn.conj().resolve_conj()
        torch.mul(_pairs(grad.contiguous()), back, out=_pairs(out[:, :, :turned]))
        out[:, :, turned:] = rest
        return out, None, None


def _pairs(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.unflatten(-1, (x.shape[-1] // 2, 2)))


def turn_pairs(x: Tensor, turn: Tensor) -> Tensor:
    """Turn neighbouring features of heads ``[B, T, H, E]`` by the complex numbers ``turn`` ``[(B,) T, 1, E / 2]``."""
    if x.dtype not in (torch.float32, torch.float64):
        return turn_pairs(x.float(), turn).to(x.dtype)
    return torch.view_as_real(_pairs(x) * turn).flatten(-2)


def turn_heads(heads: Tensor, turn: Tensor, turned: int) -> tuple[Tensor, Tensor]:
    """The first ``turned`` heads of ``[B, T, H, E]`` turned by ``turn``, and the others as they are.

    Args:
        heads: float ``[B, T, H, E]``, with E even.
        turn: complex ``[T, 1, E / 2]`` or ``[B, T, 1, E / 2]``, of modulus 1.
        turned: how many heads are turned.
    """
    if not _written_out(heads):
        return turn_pairs(heads[:, :, :turned], turn), heads[:, :, turned:]
    return _Turn.apply(heads, turn, turned)


ELEMENTS = 1 << 22
"""Logits worked on at a time."""


class _LogProb(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, sites: Tensor | None, values: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        target = values.reshape(-1)
        at = None if sites is None else sites.expand(values.shape).reshape(-1)
        out = rows.new_empty(len(rows))
        kept = []
        for part in _spans(len(rows), len(weight)):
            if at is None:
                logits = torch.addmm(bias, rows[part], weight.t())
            else:
                logits = (rows[part] @ weight.t()).add_(bias[at[part]])
            log_probs = torch.log_softmax(logits, -1)
            out[part] = log_probs.gather(-1, target[part, None])[:, 0]
            if any(ctx.needs_input_grad):
                kept.append(log_probs.exp_())
        if kept:
            ctx.save_for_backward(x, weight, bias, at, target, *kept)
        return out.view(values.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, at, target, *kept = ctx.saved_tensors
        rows, g = x.reshape(-1, x.shape[-1]), grad.reshape(-1)
        scaled = rows * g[:, None]
        # The derivative of log p(t) in the logits is onehot(t) - p, row by row.
        x_grad = weight[target]
        weight_grad = torch.zeros_like(weight).index_add_(0, target, scaled)
        bias_grad = torch.zeros_like(bias)
        bias_grad.index_put_((target,) if at is None else (at, target), g, accumulate=True)
        for part, p in zip(_spans(len(rows), len(weight)), kept, strict=True):
            x_grad[part].addmm_(p, weight, alpha=-1)
            weight_grad.addmm_(p.t(), scaled[part], alpha=-1)
            if at is None:
                bias_grad.addmv_(p.t(), g[part], alpha=-1)
            else:
                bias_grad.index_add_(0, at[part], p * -g[part, None])
        return x_grad.mul_(g[:, None]).view(x.shape), weight_grad, bias_grad, None, None


def _spans(rows: int, columns: int) -> list[slice]:
    size = max(16, ELEMENTS // columns)
    return [slice(a, a + size) for a in range(0, rows, size)]


def linear_log_prob(x: Tensor, weight: Tensor, bias: Tensor, sites: Tensor | None, values: Tensor) -> Tensor:
    """Log-probability of categories under ``softmax(x @ weight.T + bias)``, without all logits at once in a score.

    In training the probabilities are kept, once, for the gradient.

    Args:
        x: float ``[B, S, D]``.
        weight: float ``[K, D]``.
        bias: float ``[K]``, or one row per site ``[N, K]``.
        sites: rows of the bias, int64 ``[S]`` or ``[B, S]``; None for a shared one.
        values: int64 ``[B, S]``.

    Returns:
        float ``[B, S]``, nats.
    """
    return _LogProb.apply(x, weight, bias, sites, values)
