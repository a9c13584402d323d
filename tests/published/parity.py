"""Golden vectors of authors' code, and how close is close enough."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor


def golden(shared: Any, part: str) -> tuple[Path, dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """Folder, configuration, inputs and outputs of one part; skips the test where there are none."""
    folder = shared(f"parity/{part}")
    config = json.loads((folder / "config.json").read_text())
    return folder, config, load_file(folder / "inputs.safetensors"), load_file(folder / "outputs.safetensors")


def close(got: Tensor, want: Tensor, tolerance: float = 1e-4) -> None:
    """The largest error is at most 1e-4, relative to the expected magnitude where that exceeds 1."""
    assert got.shape == want.shape, (got.shape, want.shape)
    finite = torch.isfinite(want)
    assert torch.equal(finite, torch.isfinite(got))
    assert torch.equal(got[~finite], want[~finite])
    error = (got.detach().double() - want.double()).abs() / want.double().abs().clamp(min=1)
    assert float(error[finite].max()) <= tolerance, float(error[finite].max())


def some(seed: int) -> Callable[..., Tensor]:
    """Makes random weights of a shape, none of them 0 or 1, of the given scale."""
    generator = torch.Generator().manual_seed(seed)

    def make(*shape: int, scale: float = 0.5) -> Tensor:
        return torch.randn(*shape, generator=generator) * scale + 0.1

    return make
