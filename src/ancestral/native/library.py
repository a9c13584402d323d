"""The compiled kernels, loaded when they are first asked for."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from ctypes import POINTER, Structure, c_char_p, c_float, c_int, c_int32, c_int64, c_void_p
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

PLAIN, INT8, INT4 = 1, 2, 3
NO_TURN, PAIRS, HALVES = 0, 1, 2


class Matrix(Structure):
    """``matrix_t``."""

    _fields_ = [
        *((name, c_void_p) for name in ("weight", "scale", "bias", "least")),
        *((name, c_int64) for name in ("rows", "cols", "stride")),
        *((name, c_int32) for name in ("kind", "group", "half", "unused")),
    ]


class Norm(Structure):
    """``norm_t``."""

    _fields_ = [("weight", c_void_p), ("bias", c_void_p), ("eps", c_float), ("centred", c_int32)]


class Block(Structure):
    """``block_t``."""

    _fields_ = [*((n, Norm) for n in ("before", "between")), *((n, Matrix) for n in ("qkv", "out", "inner", "outer"))]


class Stack(Structure):
    """``stack_t``."""

    _fields_ = [
        *((name, c_int64) for name in ("width", "depth", "heads", "groups", "head", "hidden")),
        ("turning", c_int32),
        ("gated", c_int32),
        ("blocks", POINTER(Block)),
        ("last", Norm),
    ]


class Store(Structure):
    """``store_t``."""

    _fields_ = [("keys", POINTER(c_void_p)), ("values", POINTER(c_void_p)), ("capacity", c_int64)]


class Pass(Structure):
    """``pass_t``."""

    _fields_ = [
        ("rows", c_int64),
        *((name, c_void_p) for name in ("item", "slot", "seen", "turn", "turn_at", "inputs", "features")),
    ]


class Drawing(Structure):
    """``draw_t``."""

    _fields_ = [
        *((name, c_int64) for name in ("batch", "sites", "places", "place", "steps")),
        ("order", c_void_p),
        ("own_order", c_int32),
        ("categories", c_int32),
        ("values", c_void_p),
        ("embed", Matrix),
        ("head", Matrix),
        *((name, c_void_p) for name in ("offset", "source", "target", "told", "head_bias", "turn")),
        ("turn_source", c_int32),
        ("seeds", c_void_p),
        ("counter", c_int64),
        *((name, c_float) for name in ("temperature", "min_p", "top_p")),
        ("top_k", c_int64),
        ("stop", c_int64),
        ("ends", c_void_p),
        ("n_ends", c_int64),
        *((name, c_void_p) for name in ("ended", "over")),
        ("stack", POINTER(Stack)),
        ("store", POINTER(Store)),
        ("logits", c_void_p),
    ]


class Column(Structure):
    """``column_t``."""

    _fields_ = [
        *((name, c_int64) for name in ("site", "given", "categories", "padded")),
        *((name, c_void_p) for name in ("spoken", "place", "enter", "enter_bias", "inner", "inner_bias")),
        *((name, c_void_p) for name in ("head", "head_bias", "edges")),
        *((name, c_int64) for name in ("coarse", "unknown", "entry", "entries")),
        *((name, c_void_p) for name in ("spelled", "profile")),
        *((name, c_int64) for name in ("first", "second", "seconds")),
    ]


class Row(Structure):
    """``columns_t``."""

    _fields_ = [
        *((name, c_int64) for name in ("batch", "sites", "steps", "sums", "width", "depth")),
        ("columns", POINTER(Column)),
        *((name, c_void_p) for name in ("values", "told", "seeds")),
        ("counter", c_int64),
    ]


_STRUCTURES = (Matrix, Norm, Block, Stack, Store, Pass, Drawing, Column, Row)
_off: ContextVar[bool] = ContextVar("ancestral_native_off", default=False)


@lru_cache(maxsize=1)
def _load() -> Any:
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name("_kernels" + suffix)
        if not path.exists():
            continue
        try:
            library = ctypes.CDLL(str(path))
            sizes = (c_int64 * len(_STRUCTURES))()
            library.ancestral_sizes(sizes, c_int64(len(sizes)))
        except (OSError, AttributeError):
            continue
        if list(sizes) != [ctypes.sizeof(s) for s in _STRUCTURES]:
            continue  # compiled from another version of the sources
        for name, arguments in {
            "ancestral_linear": (POINTER(Matrix), c_void_p, c_void_p, c_int64, c_int, c_int),
            "ancestral_pass": (POINTER(Stack), POINTER(Store), POINTER(Pass), c_int, c_int),
            "ancestral_draw": (POINTER(Drawing), c_int, c_int),
            "ancestral_columns": (POINTER(Row), c_int),
        }.items():
            getattr(library, name).argtypes = arguments
            getattr(library, name).restype = c_int64
        library.ancestral_choose.argtypes = (c_char_p,)
        library.ancestral_chosen.argtypes, library.ancestral_chosen.restype = (c_int,), c_char_p
        library.ancestral_choose(None)
        return library
    return None


def kernels() -> Any:
    """The library; None where it was not compiled, or is switched off (:func:`without`)."""
    return None if _off.get() else _load()


def available() -> bool:
    """Whether the compiled kernels are there and in use."""
    return kernels() is not None


def instructions() -> str:
    """The instruction set of the kernels in use: "amx", "avx512", "avx2" or "base"; "" without them."""
    library = kernels()
    return "" if library is None else library.ancestral_chosen(parts()).decode()


@contextmanager
def without() -> Iterator[None]:
    """Within, everything is computed by PyTorch alone, in the thread that says so."""
    token = _off.set(True)
    try:
        yield
    finally:
        _off.reset(token)


@contextmanager
def restricted(instructions: str) -> Iterator[bool]:
    """Within, the kernels for ``instructions`` are used, in all threads; yields whether this machine has them."""
    library = _load()
    try:
        yield library is not None and bool(library.ancestral_choose(instructions.encode()))
    finally:
        if library is not None:
            library.ancestral_choose(None)


def parts() -> bool:
    """Whether a product of float32 may be one of two bfloat16 parts each, right to about 2^-16 of itself.

    As for PyTorch's own products, ``torch.set_float32_matmul_precision("high")`` (or "medium") allows it. On processors
    with AMX, products with more than 12 rows then take about half to two thirds of the time. Coding makes no use of it.
    """
    return torch.get_float32_matmul_precision() != "highest"


def threads() -> int:
    """Threads that a call may use: as many as PyTorch."""
    return torch.get_num_threads()


def way() -> tuple[int, int]:
    """How a call computes: with so many :func:`threads`, and whether by :func:`parts`."""
    return threads(), parts()


def usable(*tensors: Tensor) -> bool:
    """Whether the kernels can work on these: float32 on the processor, no gradient asked for."""
    if kernels() is None or (torch.is_grad_enabled() and any(t.requires_grad for t in tensors)):
        return False
    return all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)


def require_memory(result: int) -> int:
    """``result`` of a call, unless it says that there was no memory.

    Raises:
        MemoryError: it does.
    """
    if result < 0:
        raise MemoryError("there is not enough memory for what lies between the layers; use a smaller batch_size=")
    return result
