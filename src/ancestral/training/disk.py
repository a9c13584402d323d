"""Items on disk: training sets larger than memory, and their shuffling without a list of all items."""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ancestral.errors import DataError
from ancestral.noise import hash64


class DiskItems:
    """Rows of small integers in a temporary file, read one batch at a time.

    Memory does not grow with the number of rows: batches are read row by row from the file, which the operating
    system keeps in memory as far as there is room. The file vanishes with the object.

    Args:
        parts: integer tensors ``[n_i, ...]`` of one type and one row shape, written one after the other.
        name: under which ``module.loss`` finds the rows.
        folder: where to put the file; by default the system's place for temporary files.

    Raises:
        DataError: no rows, or a disk without room for them.
    """

    def __init__(self, parts: Iterable[Tensor], name: str = "values", folder: str | Path | None = None) -> None:
        place = tempfile.mkdtemp(prefix="ancestral-", dir=folder)
        self._finalizer = weakref.finalize(self, shutil.rmtree, place, ignore_errors=True)
        self._name, self._rows, self._path = name, 0, Path(place) / "rows"
        self._lock = threading.Lock()
        try:
            with self._path.open("wb") as file:
                for part in parts:
                    array = np.ascontiguousarray(part.numpy())
                    if self._rows == 0:
                        self._dtype, self._shape = array.dtype, array.shape[1:]
                    file.write(array.tobytes())
                    self._rows += len(array)
        except OSError as error:
            raise DataError(
                f"cannot keep the encoded rows in {place}: {error.strerror or error}; make room there, or set TMPDIR "
                "to a folder on a larger disk"
            ) from error
        if self._rows == 0:
            raise DataError("there is nothing to train on: the data hold no items")
        self._size = int(np.prod(self._shape, dtype=np.int64)) * self._dtype.itemsize
        self._file = self._path.open("rb", buffering=0)
        weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        return self._rows

    def batch(self, indices: Tensor | Sequence[int], epoch: int = 0) -> dict[str, Tensor]:
        """The rows ``indices`` (int64 ``[B]`` or a list), as int64; ``epoch`` changes nothing."""
        index = torch.as_tensor(indices, dtype=torch.int64).tolist()
        buffer = bytearray(len(index) * self._size)
        view = memoryview(buffer)
        with self._lock:
            for place, row in enumerate(index):
                self._file.seek(row * self._size)
                self._file.readinto(view[place * self._size : (place + 1) * self._size])
        rows = np.frombuffer(buffer, self._dtype).reshape(len(index), *self._shape)
        return {self._name: torch.from_numpy(rows.astype(np.int64))}


def shuffled(items: int, seed: int, positions: Tensor) -> Tensor:
    """Where a pseudorandom permutation of ``0 .. items - 1`` takes the positions, int64 like them.

    A Feistel network of six rounds on the fewest even number of bits that hold all items, walked until it lands among
    them (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"): no list of the items is kept.

    Args:
        items: how many there are.
        seed: chooses the permutation.
        positions: int64, in ``[0, items)``.
    """
    half = max(1, ((items - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    keys = hash64(torch.arange(6) ^ hash64(torch.tensor(seed)))
    x = positions.clone()
    out = torch.ones_like(x, dtype=torch.bool)
    while bool(out.any()):
        left, right = x[out] >> half, x[out] & mask
        for key in keys:
            left, right = right, left ^ (hash64(right ^ key) & mask)
        x[out] = (left << half) | right
        out = x >= items
    return x
