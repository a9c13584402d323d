"""Linear maps by float32, int8 and int4 weights, whose columns share a scale in groups.

The activations stay float32, so that the result is that of the dequantised weights up to rounding. Where the kernels
were not compiled, PyTorch computes the same from dequantised weights.
"""

from __future__ import annotations

from ctypes import byref

import torch
import torch.nn.functional as F
from torch import Tensor

from ancestral.native.library import INT4, INT8, PLAIN, Matrix, kernels, require_memory, usable, way

BLOCK = 32
"""Columns are stored in multiples of this, and groups are multiples of it."""


def pack_q8(values: Tensor) -> Tensor:
    """int8 ``[R, C]`` as stored: columns padded by zeros to a multiple of 32."""
    return F.pad(values, (0, -values.shape[1] % BLOCK)).contiguous()


def pack_q4(values: Tensor) -> Tensor:
    """int8 ``[R, C]`` of -8 .. 7 as stored: uint8 ``[R, ceil(C / 32) * 16]``.

    Of 32 columns the first 16 are the lower halves of 16 bytes and the others the upper ones, both plus 8.
    """
    padded = (F.pad(values, (0, -values.shape[1] % BLOCK)) + 8).to(torch.uint8)
    halves = padded.view(values.shape[0], -1, 2, BLOCK // 2)
    return (halves[:, :, 0] | (halves[:, :, 1] << 4)).reshape(values.shape[0], -1).contiguous()


def unpack_q4(weight: Tensor, columns: int) -> Tensor:
    """The inverse of :func:`pack_q4`: int8 ``[R, columns]``."""
    blocks = weight.view(weight.shape[0], -1, BLOCK // 2)
    both = torch.stack([blocks & 15, blocks >> 4], 2).reshape(weight.shape[0], -1)
    return both[:, :columns].to(torch.int8) - 8


def dequantise(weight: Tensor, scale: Tensor, group: int, columns: int, least: Tensor | None = None) -> Tensor:
    """float32 ``[R, columns]`` from packed weights: int8 as of :func:`pack_q8`, uint8 as of :func:`pack_q4`.

    Arguments as for :func:`linear_quantised`.
    """
    four = weight.dtype == torch.uint8
    values = (unpack_q4(weight, columns) if four else weight[:, :columns]).float()
    step = scale.float().repeat_interleave(group, 1)[:, :columns]
    if least is None:
        return values * step
    return (
        values * step + (least.float() + scale.float() * (8 if four else 128)).repeat_interleave(group, 1)[:, :columns]
    )


def matrix(weight: Tensor, bias: Tensor | None = None) -> Matrix:
    """What the kernels need to know of float32 weights ``[R, C]``, whose memory must outlive it."""
    rows, columns = weight.shape
    return Matrix(
        weight.data_ptr(), None, None if bias is None else bias.data_ptr(), None, rows, columns, 0, PLAIN, 0, 0, 0
    )


def quantised_matrix(
    weight: Tensor,
    scale: Tensor,
    group: int,
    columns: int,
    bias: Tensor | None = None,
    least: Tensor | None = None,
) -> Matrix:
    """As :func:`matrix`, of packed weights.

    Raises:
        ValueError: a group that is no multiple of 32, or shapes that contradict it.
    """
    kind = INT4 if weight.dtype == torch.uint8 else INT8
    rows, stride = weight.shape
    if group < BLOCK or group % BLOCK:
        raise ValueError(f"group={group} must be a multiple of {BLOCK}")
    if stride * (2 if kind == INT4 else 1) != -(-columns // BLOCK) * BLOCK:
        raise ValueError(f"packed weights {tuple(weight.shape)} do not hold {columns} columns; pack them first")
    shape = (rows, -(-columns // group))
    if scale.shape != shape or scale.dtype not in (torch.float32, torch.float16) or not scale.is_contiguous():
        raise ValueError(
            f"scales must be contiguous float32 or float16 {shape}, got {tuple(scale.shape)} {scale.dtype}"
        )
    if least is not None and (least.shape != shape or least.dtype != scale.dtype or not least.is_contiguous()):
        raise ValueError(
            f"what the lowest codes stand for must be like the scales, {shape} {scale.dtype}, "
            f"got {tuple(least.shape)} {least.dtype}"
        )
    half = scale.dtype == torch.float16
    weight_at, scale_at = weight.data_ptr(), scale.data_ptr()
    bias_at, least_at = (None if t is None else t.data_ptr() for t in (bias, least))
    return Matrix(weight_at, scale_at, bias_at, least_at, rows, columns, stride, kind, group, half, 0)


def _apply(x: Tensor, m: Matrix) -> Tensor:
    flat = x.reshape(-1, m.cols).contiguous()
    y = flat.new_empty(len(flat), m.rows)
    if len(flat):
        require_memory(kernels().ancestral_linear(byref(m), flat.data_ptr(), y.data_ptr(), len(flat), *way()))
    return y.view(*x.shape[:-1], m.rows)


def linear_f32(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``.

    Args:
        x: float32 ``[..., C]``.
        weight: float32 ``[R, C]``, contiguous.
        bias: float32 ``[R]``.

    Returns:
        float32 ``[..., R]``.
    """
    if not usable(x, weight) or not weight.is_contiguous():
        return F.linear(x, weight, bias)
    return _apply(x, matrix(weight, bias))


FEW = 32
"""Rows up to which the kernels are faster than PyTorch's products."""


def few(x: Tensor) -> bool:
    """Whether a product with ``x`` ``[..., C]`` is better left to the kernels, if they are there."""
    return x.numel() <= FEW * x.shape[-1]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` as PyTorch has it, or by the kernels where ``x`` has few rows."""
    return linear_f32(x, weight, bias) if few(x) else F.linear(x, weight, bias)


def linear_quantised(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    group: int,
    bias: Tensor | None = None,
    least: Tensor | None = None,
) -> Tensor:
    """``x @ (weight * scale).T + bias`` with weights of 8 or 4 bits.

    Args:
        x: float32 ``[..., C]``.
        weight: int8 ``[R, ceil(C / 32) * 32]``, see :func:`pack_q8`, or uint8 ``[R, ceil(C / 32) * 16]``, see
            :func:`pack_q4`.
        scale: float32 or float16 ``[R, ceil(C / group)]``.
        group: columns that share a scale, a multiple of 32; one group may be wider than the matrix.
        bias: float32 ``[R]``.
        least: like ``scale``, what the lowest code of a group stands for (-128; -8 of four bits): a weight is then
            ``least + (code + 128) * scale``. None: code 0 stands for zero.

    Returns:
        float32 ``[..., R]``.

    Raises:
        ValueError: shapes that contradict each other.
    """
    m = quantised_matrix(weight, scale, group, x.shape[-1], bias, least)
    if not usable(x):
        return F.linear(x, dequantise(weight, scale, group, x.shape[-1], least), bias)
    return _apply(x, m)
