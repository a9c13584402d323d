"""Every output of the authors' code that is at hand is compared with something."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

PARTS = (
    "var/var_d3", "var/var_shared_aln", "var/var_no_l2norm", "var_vqvae", "mar/mar", "mar/kl_vae", "randar/c2i",
    "randar/c2i_gqa",
)  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_every_output_is_compared(part: str, shared: Any) -> None:
    config = json.loads((shared(f"parity/{part}") / "config.json").read_text())
    system = part.split("/")[0].split("_")[0]
    source = (Path(__file__).parent / f"test_{system}.py").read_text()
    written = re.findall(r'wanted\[f?"([^"]+)"\]', source)
    patterns = [re.sub(r"\\\{[^}]*\\\}", ".+", re.escape(name)) for name in written]
    missed = [name for name in config["outputs"] if not any(re.fullmatch(p, name) for p in patterns)]
    assert not missed, f"nothing is compared with {missed}"
