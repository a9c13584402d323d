"""Inception-v3 from a file: the same features as another implementation's, and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ancestral.data import Images
from ancestral.errors import DataError
from ancestral.evaluation.features import feature_network
from ancestral.evaluation.inception import InceptionV3


def seeded_weights() -> dict[str, torch.Tensor]:
    """Random weights under the names of pt_inception-2015-12-05, which differ from run to run in nothing."""
    chance = torch.Generator().manual_seed(0)
    out = {}
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in InceptionV3().state_dict().items() if not k.endswith("num_batches_tracked")}
    for name, shape in sorted(shapes.items()):
        if name.endswith(("running_var", "bn.weight")):
            out[name] = 0.5 + torch.rand(shape, generator=chance)
        elif name.endswith("conv.weight") or name == "fc.weight":
            out[name] = torch.randn(shape, generator=chance) * (2 / shape[1:].numel()) ** 0.5
        else:
            out[name] = 0.1 * torch.randn(shape, generator=chance)
    return out


def test_the_features_are_those_of_torch_fidelity(tmp_path: Path) -> None:
    weights = seeded_weights()
    assert len(weights) == 472 and sum(w.numel() for w in weights.values()) == 23_885_392
    save_file(weights, tmp_path / "inception.safetensors")
    network = feature_network(tmp_path / "inception.safetensors")
    assert isinstance(network, InceptionV3)
    assert network.title == f"inception-v3 {network.fingerprint} (inception.safetensors)"
    ramp = torch.linspace(0, 1, 3 * 40 * 40).reshape(1, 3, 40, 40)
    with torch.no_grad():
        features, odds = network.look(ramp)
    assert odds is not None and odds.shape == (1, 1008)
    # What these weights gave with the network of torch-fidelity 0.4.0, to which ours was equal to the last bit.
    assert features.double().mean().item() == pytest.approx(1.11607187, rel=1e-4)
    assert features.double().std().item() == pytest.approx(1.56911634, rel=1e-4)
    np.testing.assert_allclose(features[0, :4], [0.76666826, 0.0, 0.1920298, 1.19006491], rtol=1e-3, atol=1e-5)
    grey = Images((np.arange(64) * 4).astype(np.uint8).reshape(1, 8, 8, 1))
    assert network.measure(grey)[0].shape == (1, 2048)
    with pytest.raises(DataError, match="looks at grey or RGB images"):
        network.measure(Images(np.zeros((1, 8, 8, 4), np.uint8)))


def test_other_weights_are_refused(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(1000, 2048)}, tmp_path / "imagenet.pth")
    with pytest.raises(DataError, match="1000 classes, not the one of the Frechet inception distance"):
        feature_network(tmp_path / "imagenet.pth")
    torch.save({"fc.bias": torch.zeros(1008)}, tmp_path / "part.pth")
    with pytest.raises(DataError, match="471 missing"):
        InceptionV3.from_file(tmp_path / "part.pth")
    (tmp_path / "damaged.safetensors").write_bytes(b"no weights")
    with pytest.raises(DataError, match="cannot be read as weights"):
        InceptionV3.from_file(tmp_path / "damaged.safetensors")
