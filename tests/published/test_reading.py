"""Files of weights: what is read, and that nothing else is ever run."""

from __future__ import annotations

import argparse
import collections
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from ancestral.errors import DataError
from ancestral.published.weights import read_weights

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(3)}


class Hostile:
    """Calls a function as soon as it is unpickled."""

    def __init__(self, function: Any, argument: Any):
        self.what = (function, (argument,))

    def __reduce__(self) -> Any:
        return self.what


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == WEIGHTS.keys() and all(torch.equal(found[k], v) for k, v in WEIGHTS.items())


@pytest.mark.parametrize("legacy", [False, True])
def test_state_dicts_are_read_also_out_of_checkpoints(tmp_path: Path, legacy: bool) -> None:
    plain, training = tmp_path / "plain.pt", tmp_path / "training.pth"
    torch.save(collections.OrderedDict(WEIGHTS), plain, _use_new_zipfile_serialization=not legacy)
    more = {"model": WEIGHTS, "epoch": 3, "lr": 1e-3, "betas": (0.9, 0.95), "names": ["x", None], "half": torch.float16}
    torch.save(more, training, _use_new_zipfile_serialization=not legacy)
    assert same(read_weights(plain)) and same(read_weights(training))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("function", [os.mkdir, eval])
def test_a_hostile_file_is_refused_in_a_sentence_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool, function: Any
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker = tmp_path / "was-here"
    argument = str(marker) if function is os.mkdir else f"__import__('os').mkdir({str(marker)!r})"
    path = tmp_path / "weights.pt"
    torch.save({**WEIGHTS, "x": Hostile(function, argument)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(DataError, match=r"asks for (\w+\.mkdir|eval) where only tensors.* nothing of the file was run"):
        read_weights(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)  # the file would have done it
    assert marker.exists()


def test_a_bare_pickle_and_damage_are_refused(tmp_path: Path) -> None:
    marker, path = tmp_path / "was-here", tmp_path / "weights.pt"
    path.write_bytes(pickle.dumps(Hostile(os.mkdir, str(marker))))
    with pytest.raises(DataError, match=r"weights\.pt (asks for|holds|cannot be read)"):
        read_weights(path)
    assert not marker.exists()
    torch.save(WEIGHTS, path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DataError, match=r"weights.pt cannot be read as weights"):
        read_weights(path)
    with pytest.raises(DataError, match="there is no file"):
        read_weights(tmp_path / "none.pt")


def test_objects_are_refused_even_where_the_process_accepts_them(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"model": WEIGHTS, "args": argparse.Namespace(width=3)}, path)
    with pytest.raises(DataError, match=r"asks for argparse\.Namespace"):
        read_weights(path)
    accepted = torch.serialization.safe_globals([argparse.Namespace])
    with accepted, pytest.raises(DataError, match="holds a Namespace where only tensors"):
        read_weights(path)


def test_what_is_no_mapping_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save([torch.zeros(2)], path)
    with pytest.raises(DataError, match="holds a list where weights by name are expected"):
        read_weights(path)
